"""The benchmark's registry: peers compute what they are compared in, wrong results are caught, no loss is left out."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from fastsig import bench
from fastsig.cli import main

pytest.importorskip("sklearn", reason="the benchmark's input is made with scikit-learn")

SIZE = 1000
PEERS = [peer for peer in bench.ALL_PEERS if peer.name not in bench.ALWAYS]


def prepared(case, peer):
    arrays = bench.make_arrays(case)
    return arrays, peer.prepare(case.function, arrays)


@pytest.mark.parametrize(
    ("function", "dtype"),
    [*((f, "float32") for f in bench.FUNCTIONS), *((f, d) for f in bench.FAMILY for d in bench.DTYPES if d != "float32")],
)
def test_peers_compute_the_function(function, dtype):
    if reason := bench.unsupported(dtype):
        pytest.skip(reason)
    case = bench.Case(function, dtype, SIZE, 1)
    taking = [peer for peer in PEERS if bench.takes_part(peer, case) and not bench.unavailable(peer)]
    with np.errstate(all="ignore"):
        for peer in taking:
            arrays, call = prepared(case, peer)
            assert bench.check(case, call, arrays) == "", peer.name


@pytest.mark.parametrize("function", bench.FUNCTIONS)
def test_everything_has_a_peer(function):
    for dtype in bench.WIDE:
        assert any(bench.takes_part(peer, bench.Case(function, dtype, SIZE, 1)) for peer in PEERS)


@pytest.mark.parametrize("function", bench.FUNCTIONS)
def test_wrong_results_are_caught(function):
    """Those of another size of input, in any output; and results that aren't written."""
    case = bench.Case(function, "float64", SIZE, 1)
    arrays, call = prepared(case, bench.PEERS["numpy"])
    assert bench.check(case, lambda: None, arrays).startswith("wrong: nan")
    for out in arrays.outs:
        with np.errstate(all="ignore"):
            assert bench.check(case, lambda out=out: (call(), np.multiply(out, 1 + 1e-6, out=out)), arrays).startswith("wrong")


def test_inputs_are_in_their_domains():
    for dtype in bench.DTYPES:
        if not bench.unsupported(dtype):
            (p,) = bench.block("logit", dtype, False)
            assert p.min() > 0
            assert p.max() < 1
    _, t = bench.block("bce_with_logits", "float32", False)
    assert set(np.unique(t)) == {0, 1}


@pytest.mark.parametrize(
    ("function", "traffic", "copied", "arrays"),
    [
        ("sigmoid", 2, 2, 2),
        ("sigmoid_vjp", 3, 4, 3 + bench.SPARE),
        ("tanh_value_and_grad", 3, 4, 3 + bench.SPARE),
        ("bce_with_logits_value_and_grad", 4, 4, 4 + bench.SPARE),
    ],
)
def test_traffic_and_memory(function, traffic, copied, arrays):
    case = bench.Case(function, "float32", SIZE, 1)
    assert case.traffic("fastsig") == traffic * SIZE * 4
    assert case.traffic("copy") == copied * SIZE * 4
    assert case.memory == arrays * SIZE * 4
    made = bench.make_arrays(case)
    assert case.memory >= sum(array.nbytes for array in (*made.inputs, *made.outs))


def test_copy_moves_as_many_arrays_as_it_counts():
    arrays, call = prepared(bench.Case("bce_with_logits_value_and_grad", "float32", SIZE, 1), bench.PEERS["copy"])
    call()
    for array, out in zip(arrays.inputs, arrays.outs, strict=True):
        assert (array == out).all()


def test_what_is_measured():
    cases = bench.all_cases(2)
    assert len(set(cases)) == len(cases)
    measured = {(case.function, case.dtype) for case in cases}
    assert measured >= {(f, d) for f in bench.FUNCTIONS for d in bench.WIDE}
    for bar in bench.bars(2):
        assert {bar.case, bar.against} <= set(cases)
        assert bench.takes_part(bench.PEERS[bar.peer], bar.against), bar.label
    assert len({bar.label for bar in bench.bars(2)}) == len(bench.bars(2))
    assert {case.function for case in cases if case.size == bench.LARGEST["float32"]} >= set(bench.FAMILY)
    assert set(bench.quick_cases(2)) <= set(cases)


def arguments(*given):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(given)


def test_names_are_obeyed():
    chosen = bench.chosen_cases(arguments("--functions", "tanh,silu_vjp", "--quick"), 2)
    assert bench.Case("silu_vjp", "float64", bench.CACHED, 1) in chosen
    assert {case.function for case in chosen} == {"tanh", "silu_vjp"}
    chosen = bench.chosen_cases(arguments("--dtypes", "float16", "--sizes", "7", "--functions", "logit"), 2)
    assert chosen == [bench.Case("logit", "float16", 7, 2)]


def test_unknown_names_get_help(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--functions", "sofplus"])
    assert "did you mean softplus" in capsys.readouterr().err


def made_up(slower):
    """Results in which fastsig takes `slower` times as long as every peer."""
    rows = []
    for case in bench.all_cases(2):
        for peer in bench.ALL_PEERS:
            if bench.takes_part(peer, case):
                taken = 1e-6 * (slower if peer.name == "fastsig" else 1)
                rows.append(asdict(bench.Row(case, peer.name, taken, 0.0, 5, 1, 8 * case.size)))
    machine = {"cpu": "a processor", "system": "a system", "python": "3", "versions": {}, "threads": 2, "load": 0, "openmp": ""}
    results = {"machine": machine, "quick": False, "peers": dict.fromkeys(bench.PEERS, ""), "rows": rows, "skipped": []}
    return json.loads(json.dumps(results))


def test_no_loss_is_left_out(capsys):
    results = made_up(slower=1.5)
    text = bench.markdown(results)
    tables, words = text.split("Slower elsewhere, too: ")
    slower = bench.losses(bench.load(results))
    assert tables.count("**1.50**") + words.count(" 1.50") == len(slower)
    bench.report(results)
    assert capsys.readouterr().out.count(" 1.50") >= len(slower)


def test_no_loss_no_words(capsys):
    results = made_up(slower=0.5)
    assert "**0" not in (text := bench.markdown(results))
    assert "Slower" not in text
    bench.report(results)
    assert "slower in 0 of" in capsys.readouterr().out


def test_a_missed_bar_is_marked():
    bar = next(bar for bar in bench.bars(2) if bar.target == 0.4)
    assert bench.bar_row(bar, 0.404)[1:] == ["0.40", "0.40"]
    assert bench.bar_row(bar, 0.41)[1:] == ["0.40", "0.41 !"]
    assert bench.bar_row(replace(bar, target=None), 9.0)[1:] == ["–", "9.00"]
