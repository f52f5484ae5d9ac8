"""The benchmark: peers compute the function, wrong results are caught, nobody ends the run, no loss is left out."""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fastsig
from fastsig.bench import cases, command, compare, machine, peers, results, runner, suite, tables, worker
from fastsig.bench.cases import CACHED, DTYPES, FAMILY, FUNCTIONS, IN_PLACE, LAYOUTS, NEW, NORMAL, STRIDED, TAILS, WIDE, Case
from fastsig.bench.peers import ALL_PEERS, ALWAYS
from fastsig.bench.results import Results, Row
from fastsig.cli import main

pytest.importorskip("sklearn", reason="the benchmark's input is made with scikit-learn")

SIZE = 1000
ALL = machine.processors()
PEERS = [peer for peer in ALL_PEERS if peer.name not in ALWAYS]
COMPILED = ("vectorize", "parallel")  # by Numba, for a second each: not in every case
PLACES = [
    *((f, "float32", NEW if f in FAMILY else "contiguous") for f in FUNCTIONS),
    *((f, d, "contiguous") for f in FAMILY for d in DTYPES if d != "float32"),
    *((f, "float32", layout) for f in ("sigmoid", "bce_with_logits_value_and_grad") for layout in (STRIDED, "contiguous")),
    *((f, "float64", IN_PLACE) for f in FUNCTIONS if not Case(f, "float64", SIZE, 1, IN_PLACE).impossible),
]


def checked(peer, case):
    arrays = cases.make_arrays(case)
    with np.errstate(all="ignore"), peer.threads(case.threads) if peer.threads else nullcontext():
        call = peer.prepare(case.function, arrays)
        return cases.check(call, arrays, peer.as_array)


@pytest.mark.parametrize(("function", "dtype", "layout"), PLACES)
def test_peers_compute_the_function(function, dtype, layout):
    if reason := cases.unsupported(dtype):
        pytest.skip(reason)
    case = Case(function, dtype, SIZE, ALL, layout)
    for peer in PEERS:
        if not (peer.name in COMPILED or peer.declines(case) or peers.unavailable(peer)):
            assert checked(peer, case) == "", peer.name


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("function", ["sigmoid", "tanh_vjp", "silu_value_and_grad", "bce_with_logits_grad_and_hess"])
def test_what_numba_compiles_computes_the_function(name, function):
    case = Case(function, "float32", SIZE, ALL)
    if not peers.named(name).declines(case):
        assert checked(peers.named(name), case) == ""


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_all_peers_in_all_layouts(function, layout):
    for dtype in WIDE:
        case = Case(function, dtype, SIZE, ALL, layout, NORMAL)
        for peer in PEERS:
            if not (case.impossible or peer.declines(case) or peers.unavailable(peer)):
                assert checked(peer, case) == "", (peer.name, dtype)
        if not case.impossible:
            assert checked(peers.named("fastsig"), replace(case, data=TAILS)) == ""


@pytest.mark.parametrize("function", FUNCTIONS)
def test_everything_has_a_peer(function):
    for dtype in WIDE:
        assert sum(not peer.declines(Case(function, dtype, SIZE, 1)) for peer in PEERS) >= 2


def test_who_declines_says_why():
    said = {peer.declines(Case("sigmoid", "bfloat16", 10**6, 1, layout)) for peer in PEERS for layout in LAYOUTS}
    assert any("bfloat16" in why for why in said)
    jax = peers.named("jax")
    assert "new arrays only" in jax.declines(Case("sigmoid", "float32", SIZE, ALL))
    assert "threads" in jax.declines(Case("sigmoid", "float32", SIZE, ALL + 1, NEW))
    assert not jax.declines(Case("sigmoid", "float32", SIZE, ALL, NEW))
    assert "100,000" in peers.named("math").declines(Case("sigmoid", "float32", 10**6, 1))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_wrong_results_are_caught(function):
    """Those of another size of input, in any output; and results that aren't written."""
    case = Case(function, "float64", SIZE, 1)
    arrays = cases.make_arrays(case)
    call = peers.named("numpy").prepare(function, arrays)
    assert cases.check(lambda: None, arrays).startswith("wrong: nan")
    for out in arrays.outs:
        with np.errstate(all="ignore"):
            assert cases.check(lambda out=out: (call(), np.multiply(out, 1 + 1e-6, out=out)), arrays).startswith("wrong")


def test_wrong_new_results_are_caught():
    arrays = cases.make_arrays(Case("sigmoid_value_and_grad", "float64", SIZE, 1, NEW))
    call = peers.named("fastsig").prepare("sigmoid_value_and_grad", arrays)
    assert cases.check(call, arrays) == ""
    assert "1 results instead of 2" in cases.check(lambda: call()[0], arrays)
    assert "float32[1000] instead of float64[1000]" in cases.check(lambda: [y.astype(np.float32) for y in call()], arrays)
    assert "wrong" in cases.check(lambda: call()[::-1], arrays)


def test_inputs_are_in_their_domains():
    for dtype in DTYPES:
        if not cases.unsupported(dtype):
            (p,) = cases.block("logit", dtype)
            assert p.min() > 0
            assert p.max() < 1
    _, t = cases.block("bce_with_logits", "float32")
    assert set(np.unique(t)) == {0, 1}
    for dtype in WIDE:
        (x,), (z,) = cases.block("sigmoid", dtype, TAILS), cases.block("sigmoid", dtype, NORMAL)
        least = np.finfo(dtype).tiny
        with np.errstate(under="ignore"):
            assert 0.3 < np.mean(np.exp(x.astype(np.longdouble)) < least) < 0.6
        assert abs(z.std() - 1) < 0.01


@pytest.mark.parametrize(
    ("function", "traffic", "copied", "arrays"),
    [
        ("sigmoid", 2, 2, 2),
        ("sigmoid_vjp", 3, 4, 3 + cases.SPARE),
        ("tanh_value_and_grad", 3, 4, 3 + cases.SPARE),
        ("bce_with_logits_value_and_grad", 4, 4, 4 + cases.SPARE),
    ],
)
def test_traffic_and_memory(function, traffic, copied, arrays):
    case = Case(function, "float32", SIZE, 1)
    assert case.traffic() == traffic * SIZE * 4
    assert case.traffic(copied=True) == copied * SIZE * 4
    assert case.memory == arrays * SIZE * 4
    made = cases.make_arrays(case)
    assert case.memory >= sum(array.nbytes for array in (*made.inputs, *made.outs))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("function", ["sigmoid", "tanh_grad", "bce_with_logits_value_and_grad"])
def test_arrays_lie_alike(function, layout):
    """Each begins a page, none lies in another, and each has every place that it is said to have."""
    for size in (1, SIZE, 5000):
        made = cases.make_arrays(Case(function, "float64", size, 1, layout))
        arrays = {id(array): array for array in (*made.inputs, *made.outs, *made.between)}.values()
        assert {array.ctypes.data % cases.PAGE for array in arrays} == {0}
        assert {array.shape for array in arrays} == {(size,)}
        for k, array in enumerate(arrays):
            array.fill(k)
        assert [np.unique(array).tolist() for array in arrays] == [[k] for k in range(len(arrays))]
        assert {array.strides for array in arrays} == {(16,) if layout == STRIDED else (8,)}


def test_copy_moves_as_many_arrays_as_it_counts():
    arrays = cases.make_arrays(Case("bce_with_logits_value_and_grad", "float32", SIZE, 1))
    peers.named("copy").prepare("bce_with_logits_value_and_grad", arrays)()
    for array, out in zip(arrays.inputs, arrays.outs, strict=True):
        assert (array == out).all()


def test_what_is_measured():
    every = suite.all_cases(2)
    assert len(set(every)) == len(every)
    assert not [case.label for case in every if case.impossible]
    assert {(case.function, case.dtype) for case in every} >= {(f, d) for f in FUNCTIONS for d in WIDE}
    for bar in suite.bars(2):
        assert {bar.case, bar.against} <= set(every)
        assert not peers.named(bar.peer).declines(bar.against), bar.label
    assert len({bar.label for bar in suite.bars(2)}) == len(suite.bars(2))
    assert {case.function for case in every if case.size == suite.LARGEST["float32"]} >= set(FAMILY)
    assert {case.size for case in every if case.ordinary} >= {10**k for k in range(9)}
    assert {case.layout for case in every} == set(LAYOUTS)
    assert {case.data for case in every} == set(cases.DATA)
    assert {case.threads for case in suite.all_cases(6)} == {1, 2, 4, 6}
    assert len(suite.quick_cases(2)) < len(every) / 3


def arguments(*given):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(given)


def chosen(*given):
    it = arguments(*given)
    return suite.chosen_cases(2, it.quick, it.functions, it.dtypes, it.sizes, it.layouts, it.data)


def test_names_are_obeyed():
    picked = chosen("--functions", "tanh,silu_vjp", "--quick")
    assert Case("silu_vjp", "float64", CACHED, 1) in picked
    assert {case.function for case in picked} == {"tanh", "silu_vjp"}
    assert chosen("--dtypes", "float16", "--sizes", "7", "--functions", "logit") == [Case("logit", "float16", 7, 2)]
    picked = chosen("--functions", "sigmoid", "--layouts", "new output", "--data", "normal", "--sizes", "1Mi")
    assert set(picked) == {Case("sigmoid", d, 1 << 20, 2, NEW, NORMAL) for d in WIDE}


@pytest.mark.parametrize(
    ("option", "given", "help"),
    [
        ("--functions", "sofplus", "did you mean softplus"),
        ("--peers", "numpy,scipi", "did you mean scipy"),
        ("--dtypes", "float23", "did you mean float32"),
        ("--layouts", "in-place", "did you mean in place"),
        ("--functions", "qqq", f"there are {', '.join(FUNCTIONS)}"),
        ("--sizes", "64Ki", "such as 65536 or 64Mi"),
        ("--threads", "0", "must be at least 1"),
    ],
)
def test_unknown_names_get_help(option, given, help, capsys):
    with pytest.raises(SystemExit):
        main(["bench", option, given])
    assert help in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("option", "name", "why"),
    [
        ("--json", "missing/results.json", "can't be written"),
        ("--csv", ".", "is a directory"),
        ("--html", "missing/report.html", "can't be written"),
        ("--plot", "file/pictures", ""),
        ("--plot", "file", "is not a directory"),
        ("--compare", "missing.json", "missing.json"),
        ("--compare", "file", "holds no JSON"),
        ("--compare", "other.json", "holds no results"),
    ],
)
def test_what_cannot_end_well_does_not_begin(option, name, why, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("not JSON")
    (tmp_path / "other.json").write_text("{}")
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it began"))
    assert main(["bench", option, str(tmp_path / name)]) == 2
    assert why in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other.json"]


def test_files_do_not_overwrite_each_other(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it began"))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert main(["bench", "--json", str(tmp_path / "file"), "--csv", str(tmp_path / "link")]) == 2
    assert "must name different files" in capsys.readouterr().err


# --- runs --------------------------------------------------------------------------------------------------------------

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(cases.__file__).parents[2])}
HOSTILE = """
import ctypes, os, sys, time
import numpy as np
from fastsig.bench import peers, runner
from fastsig.bench.peers import ALL_PEERS, Peer

def crash(function, arrays):
    return lambda: ctypes.string_at(0)

def leave(function, arrays):
    return lambda: os._exit(3)

def hang(function, arrays):
    return lambda: time.sleep(3600)

def lie(function, arrays):
    return lambda: arrays.outs[0].fill(0.5)

def complain(function, arrays):
    raise ValueError("not today")

def tire(function, arrays):
    calls = iter(range(4))  # each takes as long as a timing: checked, tried, and timed twice
    return lambda: (next(calls), time.sleep(1e-3), np.copyto(arrays.outs[0], 1 / (1 + np.exp(-arrays.inputs[0]))))

def mine(function, arrays):
    return peers.applied(lambda x, y, *_: np.divide(1, 1 + np.exp(-x), out=y), arrays)

runner.PATIENCE = 12.0
for prepare in (crash, leave, hang, lie, complain, tire, mine):
    ALL_PEERS.append(Peer(prepare.__name__, prepare.__name__, prepare))
ALL_PEERS.append(Peer("absent", "absent", mine, "no_such_package"))

if __name__ == "__main__":
    from fastsig.cli import main
    sys.exit(main(sys.argv[1:]))
"""


def test_peers_that_misbehave_have_rows(tmp_path):
    """A peer that crashes, leaves, hangs, lies, complains, fails in the middle or isn't there; the others are measured."""
    fastsig.sigmoid(np.zeros(1, np.float32))  # compiled: that takes seconds as well
    script = tmp_path / "hostile.py"
    script.write_text(HOSTILE)
    names = "numpy,crash,leave,hang,lie,complain,tire,mine,absent"
    where = ["--functions", "sigmoid", "--dtypes", "float32", "--sizes", "1000", "--layouts", "contiguous", "--data", "scores"]
    run = [sys.executable, str(script), "bench", "--quick", *where, "--peers", names, "--json", "r.json", "--csv", "r.csv"]
    done = subprocess.run(run, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = results.read(tmp_path / "r.json")
    case = Case("sigmoid", "float32", 1000, ALL)
    errors = {peer: row.error for (where, peer), row in found.rows.items() if where == case}
    assert {peer for peer, error in errors.items() if not error} == {"fastsig", "copy", "numpy", "mine"}
    assert "was ended by SIGSEGV" in errors["crash"]
    assert "ended with exit code 3" in errors["leave"]
    assert "gave no answer in 12 s" in errors["hang"]
    assert errors["lie"].startswith("wrong: 0.5 instead of")
    assert errors["complain"] == "ValueError: not today"
    assert errors["tire"].startswith("StopIteration")
    assert found.peers["absent"] == "not installed"
    for peer in ("crash", "leave", "hang", "lie", "complain", "tire"):
        assert f"{peer}: " in done.stdout
        assert f"{errors[peer]}" in done.stdout
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["peer"] for row in rows} == set(errors)
    assert all(float(row["fastsig_over_peer"]) > 0 for row in rows if not row["error"])


def test_interrupted(tmp_path):
    """Ctrl-C keeps what was measured, and says so."""
    where = ["--functions", "sigmoid", "--sizes", ",".join(map(str, range(1000, 1060))), "--peers", "numpy"]
    run = [sys.executable, "-m", "fastsig", "bench", *where, "--json", "r.json"]
    process = subprocess.Popen(run, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(15)  # some cases are done by then
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    if (tmp_path / "r.json").exists():
        assert "this is what was measured until then" in error
        kept = results.read(tmp_path / "r.json")
        assert kept.interrupted
        assert kept.rows
        assert "sigmoid" in out
    else:
        assert "interrupted before the first measurement" in error


# --- tables ------------------------------------------------------------------------------------------------------------


def made_up(slower):
    """Results in which fastsig takes `slower` times as long as every peer."""
    it = Results(peers=dict.fromkeys([peer.name for peer in ALL_PEERS], ""))
    it.machine = {"cpu": "a processor", "system": "a system", "python": "3", "threads": 2, "load": 0, "openmp": ""}
    it.machine |= {"versions": {"fastsig": "0"}, "caches": {"L1d": 32768}}
    for case in suite.all_cases(2):
        for peer in ALL_PEERS:
            if not peer.declines(case):
                taken = 1e-6 * (slower if peer.name == "fastsig" else 1)
                it.add(Row(case, peer.name, taken, 0.0, 5, 1, 8 * case.size))
    return Results.of(json.loads(json.dumps(it.record())))


def test_no_loss_is_left_out(capsys):
    found = made_up(slower=1.5)
    text = tables.markdown(found)
    blocks, words = text.split("Slower elsewhere, too: ")
    assert len(found.losses) == len(found.comparisons) > 1000
    assert blocks.count("**1.50**") + words.count(" 1.50") == len(found.losses)
    tables.report(found)
    assert capsys.readouterr().out.count("1.50 !") >= len(found.losses)


def test_no_loss_no_words(capsys):
    found = made_up(slower=0.5)
    assert "**0" not in (text := tables.markdown(found))
    assert "Slower" not in text
    tables.report(found)
    assert "in 0 of" in capsys.readouterr().out


def test_a_missed_bar_is_marked():
    bar = next(bar for bar in suite.bars(2) if bar.target == 0.4)
    assert tables.bar_row(bar, 0.404)[1:] == ["0.40", "0.40"]
    assert tables.bar_row(bar, 0.41)[1:] == ["0.40", "0.41 !"]
    assert tables.bar_row(replace(bar, target=None), 9.0)[1:] == ["–", "9.00"]


def test_what_others_disturbed_is_marked(capsys):
    found = made_up(slower=0.5)
    assert tables.disturbed(found) == ""
    assert "~" not in tables.markdown(found)
    for key, row in found.rows.items():
        found.rows[key] = replace(row, calm=2 if row.peer == "numpy" else 3)
    count = sum(row.peer == "numpy" for row in found.rows.values())
    said = f"Others had a share of the processors all through {count} of {len(found.rows)} measurements."
    assert tables.disturbed(found) == said
    tables.report(found)
    assert all(said in text for text in (" ".join(capsys.readouterr().out.split()), tables.markdown(found)))
    case = Case("sigmoid", "float32", CACHED, 1)
    assert tables.ratio_cell(found, case, "numpy") == "~0.50"
    assert tables.ratio_cell(found, case, "torch") == "0.50"
    found.add(replace(found.rows[case, "fastsig"], calm=0))
    assert tables.ratio_cell(found, case, "torch") == "~0.50"
    assert tables.row_of(found, case, ["torch"])[1].startswith("~")


@pytest.mark.parametrize("width", [80, 200])
def test_wide_tables_are_not_cut_off(width):
    from fastsig.console import fitting

    columns = [["case", *(f"column {k}" for k in range(30))], ["x" * 30, *("1.23" for _ in range(30))]]
    groups = fitting(columns, width)
    assert [k for group in groups for k in group[1:]] == list(range(1, 31))
    for group in groups:
        assert group[0] == 0
        assert sum(max(len(line[k]) for line in columns) + 3 for k in group) + 1 <= width


def test_nothing_is_lost_silently():
    found = made_up(slower=0.5)
    assert tables.lost(found).startswith("fastsig is slower, by 1 % or more, in 0 of")
    case = next(iter(found.cases))
    found.add(Row(case, "fastsig", None, None, 0, 0, 8, "wrong"))
    assert tables.lost(found).endswith("It failed in 1 cases.")
    assert tables.lost(Results()) == "Nothing was compared."


def test_cases_without_memory_are_told(monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: 1 << 20)
    assert worker.impossible(Case("sigmoid", "float32", 1 << 20, 1)) == "needs 8 MiB of memory, 1 are free"
    assert worker.impossible(Case("sigmoid", "float32", 1 << 10, 1)) == ""
    assert worker.impossible(Case("silu", "float32", 1 << 10, 1, IN_PLACE)) != ""


# --- two runs ----------------------------------------------------------------------------------------------------------


def of_rows(**seconds):
    return {("case", peer): compare.Time(taken, taken / 100) for peer, taken in seconds.items()}


@pytest.mark.parametrize(
    ("new", "word"),
    [
        ({"fastsig": 1.0, "a": 2.0, "b": 3.0}, "same"),
        ({"fastsig": 1.5, "a": 3.0, "b": 4.5}, "same"),  # the machine's doing
        ({"fastsig": 1.5, "a": 2.0, "b": 3.0}, "worse"),
        ({"fastsig": 0.7, "a": 2.0, "b": 3.0}, "better"),
        ({"fastsig": 1.0, "a": 4.0, "b": 6.0}, "better"),
        ({"fastsig": 1.3, "a": 3.0, "b": 2.0}, "same"),  # noise
    ],
)
def test_verdicts(new, word):
    (verdict,) = compare.verdicts(of_rows(fastsig=1.0, a=2.0, b=3.0), of_rows(**new))
    assert verdict.word == word
    assert verdict.noise >= compare.FLOOR


def test_what_was_disturbed_is_not_judged():
    old, new = of_rows(fastsig=1.0, a=2.0, b=3.0), of_rows(fastsig=1.5, a=2.0, b=9.0)
    (verdict,) = compare.verdicts(old, new)
    assert verdict.word == "same"  # as far as can be told: the peers lie apart
    new["case", "b"] = replace(new["case", "b"], calm=False)
    (verdict,) = compare.verdicts(old, new)
    assert verdict.word == "worse"
    assert compare.unjudged(old, new) == []
    old["case", "fastsig"] = replace(old["case", "fastsig"], calm=False)
    assert compare.verdicts(old, new) == []
    assert compare.unjudged(old, new) == ["not judged, for others had a share of the processors: case"]


def test_two_runs_agree_as_far_as_is_said():
    old = of_rows(fastsig=1.0, a=2.0, b=2.0, c=2.0, d=2.0)
    new = of_rows(fastsig=1.0, a=2.0, b=2.1, c=2.4, d=1.0)
    told = compare.agreement(old, new)
    assert told == (
        "The ratios of the two runs: "
        "50.0% of 4 agree within 10%, median 12.5%, ninth decile 100.0%, where nobody disturbed either run."
    )
    new["case", "d"] = replace(new["case", "d"], calm=False)
    told = compare.agreement(old, new)
    assert "66.7% of 3 agree within 10%, median 5.0%, ninth decile 20.0%, where nobody disturbed either run; " in told
    assert "50.0% of 4 agree within 10%, median 12.5%, ninth decile 100.0%, in all." in told
    old["case", "fastsig"] = replace(old["case", "fastsig"], calm=False)
    assert "nothing was undisturbed in both runs; 50.0% of 4" in compare.agreement(old, new)
    assert compare.agreement(old, {}) == "The two runs have no ratios in common."


def test_results_of_the_format_before_can_be_read(tmp_path):
    found = made_up(slower=0.5)
    record = {**found.record(), "format": 2}
    for row in record["rows"]:
        del row["calm"]
    (tmp_path / "old.json").write_text(json.dumps(record))
    old = results.read(tmp_path / "old.json")
    assert old == found
    assert all(it.calm for it in compare.times(old).values())
    (tmp_path / "old.json").write_text(json.dumps({**record, "format": 1}))
    with pytest.raises(ValueError, match="holds no results"):
        results.read(tmp_path / "old.json")


def test_files_of_both_kinds_are_compared(tmp_path):
    ours = made_up(slower=0.5)
    results.write_json(ours, tmp_path / "ours.json")
    stats = {"median": 1e-3, "iqr": 2e-5}
    rows = [{"group": "g", "name": p, "extra_info": {"peer": p}, "stats": stats} for k, p in enumerate(("fastsig", "numpy"))]
    (tmp_path / "pytest.json").write_text(json.dumps({"benchmarks": rows}))
    assert compare.read(tmp_path / "pytest.json") == {("g", p): compare.Time(1e-3, 1e-5) for p in ("fastsig", "numpy")}
    times = compare.read(tmp_path / "ours.json")
    assert len(times) == len(ours.rows)
    assert {it.word for it in compare.verdicts(times, times)} == {"same"}
    assert compare.unjudged(times, {}) != []
    record = json.loads((tmp_path / "ours.json").read_text())
    del record["rows"][0]["seconds"]
    (tmp_path / "broken.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="aren't whole"):
        compare.read(tmp_path / "broken.json")
