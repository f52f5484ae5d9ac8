"""The benchmark's limits: loops that move data move all of it and nothing else, and what is said of them is so."""

from __future__ import annotations

import gc
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest

import fastsig
from fastsig import compiler, parallel
from fastsig.bench import limits, machine, moving, startup
from fastsig.bench.sentinel import Sentinel

THREADS = 2
WAYS = [
    moving.Way(reads, writes, stores, threads)
    for reads, writes in moving.STREAMS
    for stores in (("plain", "streaming") if writes else ("plain",))
    for threads in (1, THREADS)
]
SIZES = (1, 7, 31, 1000, 4099, 40_000)  # less than a register, less than a step, with a head, with a part for each thread
GUARD = 256  # elements on either side
STEP = 64  # elements that a loop reads at a time, at most: four registers


def guarded(size, offset):
    """Four arrays with different numbers, `offset` elements after a cache line, and what they are in, guards on either side."""
    whole = [moving.laid_out(size + 2 * GUARD + offset, np.zeros(1 << 20, np.uint8))[0].view(np.uint32) for _ in range(4)]
    for k, array in enumerate(whole):
        array[:] = np.random.default_rng(k).integers(0, 2**32, array.size, np.uint32)
    return whole, [array[GUARD + offset :][:size].view(moving.STORAGE) for array in whole]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_all_is_moved_and_nothing_else_touched(way):
    for size in SIZES:
        for offset in (0, 3):
            whole, arrays = guarded(size, offset)
            before = [array.copy() for array in whole]
            x, g = (array.view(np.uint32).copy() for array in arrays[:2])
            way.over(arrays)(2)
            written = {(1, 0): (), (1, 1): (x,), (2, 1): (x - g,), (1, 2): (x, x), (2, 2): (g, x)}[way.reads, way.writes]
            for k, right in enumerate(written):
                before[2 + k][GUARD + offset :][:size] = right
            if not way.writes:  # less the sum of the bits, for each pass, in the output's elements from each part's first on
                here = slice(GUARD + offset, GUARD + offset + size)
                kept = before[2][here] == whole[2][here]
                assert (~kept).sum() <= THREADS * STEP
                total = int(whole[2][here][~kept].sum(dtype=np.uint64)) + 2 * int(x.sum(dtype=np.uint64))
                assert total % 2**32 == 0, size
                before[2][here] = whole[2][here]
            for array, same in zip(whole, before, strict=True):
                assert np.array_equal(array, same), size


def test_no_pass_moves_nothing():
    for way in (moving.Way(1, 1, "plain", 1), moving.Way(2, 2, "streaming", THREADS), moving.Way(1, 1, "numpy", 1)):
        whole, arrays = guarded(1000, 0)
        before = [array.copy() for array in whole]
        way.over(arrays)(0)
        assert all(map(np.array_equal, whole, before)), way


@pytest.mark.parametrize("stores", ["plain", "numpy"])
def test_arrays_live_as_long_as_what_moves_them(stores):
    arrays = moving.laid_out(1000, np.zeros(moving.room(1000), np.uint8))
    x, y = weakref.ref(arrays[0]), weakref.ref(arrays[2])
    run = moving.Way(1, 1, stores, 1).over(arrays)
    del arrays
    gc.collect()
    assert x() is not None
    assert y() is not None
    del run
    gc.collect()
    assert y() is None


def test_wrong_loops_are_caught(monkeypatch):
    for way in WAYS:
        monkeypatch.setattr(moving.Way, "over", lambda self, arrays: lambda passes: None)
        with pytest.raises(RuntimeError, match="move it right"):
            moving.check(way)


def test_loops_stand_for_themselves():
    """The compiler hasn't made the C library's of them."""
    for reads, writes in ((1, 1), (1, 2)):
        _, code = compiler.compile_program(moving.made(reads, writes))
        assert not any(name in code for name in (b"memcpy", b"memmove", b"memset"))


@pytest.fixture(scope="module")
def measured():
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "QUICK", (1000, 20_000))
        patch.setattr(limits, "ENOUGH", {True: 0.0})
        return limits.limits(THREADS, True, lambda seconds, what: told.append((seconds, what)), Sentinel()), told


def test_limits_have_all_that_was_measured(measured):
    rows, told = measured
    with fastsig.num_threads(THREADS):
        counts = {1, fastsig.get_num_threads()}
    own = {(w.reads, w.writes, w.stores, w.threads) for w in WAYS if w.threads in counts} | {(1, 1, "numpy", 1)}
    assert {(r["reads"], r["writes"], r["stores"], r["threads"]) for r in rows} == own
    assert len(rows) == 2 * len(own)
    for row in rows:
        assert row["bytes"] == (row["reads"] + row["writes"]) * row["size"] * np.dtype(row["dtype"]).itemsize
        assert row["rate"] == pytest.approx(row["bytes"] / row["seconds"] / 1e9)
        assert row["rate"] > 0
        assert row["spread"] >= 0
        assert row["rounds"] >= 7
        assert 0 <= row["calm"] <= row["rounds"]
    assert all(seconds >= 0 for seconds, _ in told)
    assert {what for _, what in told} >= {f"moving data, {size:,} elements" for size in (1000, 20_000)}
    assert parallel.WORDS[parallel.BUSY] == 0


def test_limit_is_the_best_way_of_storing(measured):
    rows, _ = measured
    for size in (1000, 20_000):
        rates = [r["rate"] for r in rows if (r["reads"], r["writes"], r["threads"], r["size"]) == (1, 1, 1, size)]
        assert limits.limit(rows, 1, 1, 1, 8 * size) == max(rates)


def test_limit_interpolates():
    rows = [
        {"reads": 1, "writes": 1, "threads": 1, "bytes": bytes, "rate": rate}
        for bytes, rate in ((1 << 10, 100.0), (1 << 20, 30.0), (1 << 20, 50.0), (1 << 30, 10.0))
    ]
    for bytes, rate in ((1, 100), (1 << 10, 100), (1 << 15, 75), (1 << 20, 50), (1 << 25, 30), (1 << 30, 10), (1 << 40, 10)):
        assert limits.limit(rows, 1, 1, 1, bytes) == pytest.approx(rate)
    assert limits.limit(rows, 2, 1, 1, 1 << 20) is None
    assert limits.limit(rows, 1, 1, 2, 1 << 20) is None
    assert limits.limit([], 1, 1, 1, 1 << 20) is None


def test_sizes_fit_into_memory(monkeypatch):
    monkeypatch.setattr(limits, "free_memory", lambda: 1000)
    assert limits.limits(1, True, lambda seconds, what: None, Sentinel()) == []


def test_the_machine_is_described():
    it = machine.described(THREADS)
    assert it["cpu"]
    assert it["threads"] == THREADS
    assert it["versions"]["numpy"] == np.__version__
    assert it["versions"]["fastsig"] == fastsig.__version__
    assert machine.processors() >= 1
    free = machine.free_memory()
    assert free is None or free > 0


def test_caches_are_plausible():
    caches = machine.caches()
    assert list(caches) == sorted(caches)
    assert set(caches) <= {"L1d", "L2", "L3"}
    assert list(caches.values()) == sorted(caches.values())
    for bytes in caches.values():
        assert 1 << 12 <= bytes <= 1 << 32
        assert bytes % 1024 == 0


# --- start-up ----------------------------------------------------------------------------------------------------------------


def chosen(monkeypatch, *programs):
    monkeypatch.setattr(startup, "PROGRAMS", programs)
    found = []
    startup.startup(True, lambda seconds, what: None, found)
    return {(row["what"], row["package"]): row for row in found}


def by_name(what, package):
    return next(p for p in startup.PROGRAMS if (p.what, p.package) == (what, package))


def test_startup_measures(monkeypatch):
    imported, first = by_name(startup.IMPORT, "numpy"), by_name(startup.FIRST, "fastsig")
    fastsig.sigmoid(np.zeros(8, np.float32))  # so that the cache has it
    monkeypatch.setitem(startup.LIMIT, True, 120.0)
    rows = chosen(monkeypatch, imported, first)
    for row in rows.values():
        assert row["error"] == ""
        assert row["rounds"] == startup.LIGHT
        assert 0 < row["seconds"] < 60
        assert row["spread"] >= 0


def test_startup_says_what_is_wrong(monkeypatch):
    imported = by_name(startup.IMPORT, "numpy")
    monkeypatch.setitem(startup.LIMIT, True, 3.0)
    rows = chosen(
        monkeypatch,
        replace(imported, package="nowhere_to_be_found"),
        replace(imported, code="import sys; print('noise', file=sys.stderr); raise OSError('a broken package')"),
        replace(imported, package="fastsig", code="raise SystemExit(3)"),
        replace(imported, package="scipy", seconds=1e6),
        replace(imported, what="hangs", code="while True: pass", seconds=0.0),
    )
    errors = {key: row["error"] for key, row in rows.items()}
    assert errors["import", "nowhere_to_be_found"] == "not installed"
    assert errors["import", "numpy"] == "OSError: a broken package"
    assert errors["import", "fastsig"] == "exit status 3"
    assert errors["import", "scipy"].startswith("left out")
    assert errors["hangs", "numpy"].startswith("not done")
    assert all(row["seconds"] is None and row["spread"] is None and row["rounds"] == 0 for row in rows.values())


def test_startup_has_a_new_and_a_kept_cache(monkeypatch, tmp_path):
    """Nothing of the user's own is used where an empty one is meant, and this fastsig is the one that is run."""
    code = f"""if True:
        import os, pathlib, fastsig
        assert fastsig.__file__ == {fastsig.__file__!r}
        new, kept = (pathlib.Path(os.environ[name]) for name in ("NEW", "KEPT"))
        assert new.stat().st_mode & 0o777 == 0o700 and not list(new.iterdir())
        (new / "used").touch()
        kept.mkdir(exist_ok=True)
        with open({str(tmp_path / "places")!r}, "a") as file:
            print(new, kept, file=file)
    """
    program = replace(by_name(startup.IMPORT, "fastsig"), code=code, environment={"NEW": "{new}", "KEPT": "{kept}"})
    monkeypatch.setitem(startup.LIMIT, True, 120.0)
    rows = chosen(monkeypatch, program)
    assert rows["import", "fastsig"]["error"] == ""
    new, kept = zip(*map(str.split, (tmp_path / "places").read_text().splitlines()), strict=True)
    assert len(set(new)) == startup.LIGHT
    assert len(set(kept)) == 1


@pytest.mark.slow
def test_every_program_runs(monkeypatch):
    monkeypatch.setattr(startup, "MOST", 1)
    monkeypatch.setitem(startup.LIMIT, False, 600.0)
    rows = []
    startup.startup(False, lambda seconds, what: None, rows)
    assert len(rows) == len(startup.PROGRAMS)
    for row in rows:
        assert row["error"] in ("", "not installed"), row
        assert row["rounds"] == 0 if row["error"] else row["rounds"] >= 1


@pytest.mark.skipif(sys.platform != "darwin", reason="asks macOS")
def test_sysctl():
    assert machine.sysctl("hw.no_such_thing", "hw.ncpu").isdigit()
