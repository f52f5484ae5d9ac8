"""Speed: the registry of peers, and the runner behind `python -m fastsig bench`.

A case is a function, a dtype, a size, a number of threads and a variant; a peer is another way to compute the same. Every peer
gets the same arrays, with the results preallocated, and is checked before it is timed. The peers take turns, one timing each
per round, so that a disturbance of the machine meets all of them; what counts is the median of the rounds.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import os
import platform
import signal
import statistics
import sys
import threading
import time
import timeit
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import fastsig
from fastsig import console, parallel

Array = np.ndarray[Any, np.dtype[Any]]
Call = Callable[[], object]

FUNCTIONS = ("sigmoid", "sigmoid_grad", "sigmoid_value_and_grad")
DTYPES = ("float32", "float64")
VARIANTS = ("", "tail-heavy", "in place", "stride 2")
CACHED, MEBI = 65_536, 1 << 20
LARGEST = {"float32": 64 * MEBI, "float64": 32 * MEBI}
BLOCK = 1 << 18  # about the period of the input; a block and its reference stay in the cache while results are compared


# --- the cases ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    function: str
    dtype: str
    size: int
    threads: int
    variant: str = ""  # one of VARIANTS; "" is the ordinary one: real scores, contiguous, into another array

    @property
    def label(self) -> str:
        return ", ".join([f"{self.function} {self.dtype}", self.place])

    @property
    def place(self) -> str:
        """The label without what is computed."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return ", ".join(filter(None, [human_size(self.size), threads, self.variant]))

    @property
    def outputs(self) -> int:
        return 2 if self.function == "sigmoid_value_and_grad" else 1

    @property
    def memory(self) -> int:
        """The bytes its arrays take."""
        arrays = 2 if self.function == "sigmoid" else 4
        return arrays * self.size * np.dtype(self.dtype).itemsize * (2 if self.variant == "stride 2" else 1)

    def traffic(self, peer: str) -> int:
        """The bytes that have to be read and written, each array once; copying x to two results reads it twice."""
        arrays = 2 * self.outputs if peer == "copy" else 1 + self.outputs
        return arrays * self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Bar:
    """One ratio of the summary: fastsig's time in `case` over the time of `peer` in `against`."""

    label: str
    case: Case
    peer: str
    against: Case


def bars(threads: int) -> list[Bar]:
    """The ratios the package is judged by, `threads` being all of them."""
    single, double = (Case("sigmoid", dtype, CACHED, 1) for dtype in DTYPES)
    large, large_double = (Case("sigmoid", dtype, LARGEST[dtype], threads) for dtype in DTYPES)
    compared = [
        (single, "torch"),
        (double, "torch"),
        (replace(large, size=MEBI), "torch"),
        (replace(large, size=1), "scipy"),
        (replace(large_double, size=1), "scipy"),
        (large, "torch"),
        (large, "copy"),
        (large_double, "torch"),
        (replace(large, function="sigmoid_value_and_grad"), "torch"),
    ]
    rows = [Bar(f"{case.label} / {PEERS[peer].title}", case, peer, case) for case, peer in compared]
    for variant in ("in place", "tail-heavy", "stride 2"):
        for plain in (single, double):
            case = replace(plain, variant=variant)
            rows.append(Bar(f"{case.label} / ordinary", case, "fastsig", plain))
    return rows


def all_cases(threads: int) -> list[Case]:
    """Everything: what the bars need first, then the sweep over functions, dtypes and sizes."""
    cases = [case for bar in bars(threads) for case in (bar.case, bar.against)]
    for function in FUNCTIONS:
        for dtype in DTYPES:
            sizes = sorted({*(10**k for k in range(8)), CACHED, MEBI, LARGEST[dtype]})
            cases += [Case(function, dtype, size, threads) for size in sizes]
            cases += [Case(function, dtype, CACHED, 1, variant) for variant in ("", "tail-heavy")]
    cases += [Case("sigmoid", dtype, LARGEST[dtype], threads, "in place") for dtype in DTYPES]
    return list(dict.fromkeys(cases))


def quick_cases(threads: int) -> list[Case]:
    """Those of the bars, and float32 at a few sizes; the largest arrays last, in case time runs out."""
    cases = [case for bar in bars(threads) for case in (bar.case, bar.against)]
    cases += [Case(f, "float32", size, threads) for f in FUNCTIONS for size in (1, 1000, CACHED, MEBI)]
    return sorted(dict.fromkeys(cases), key=lambda case: case.size > MEBI)


def chosen_cases(args: argparse.Namespace, threads: int) -> list[Case]:
    cases = quick_cases(threads) if args.quick else all_cases(threads)
    if args.sizes:
        cases = [case for case in cases if case.size in args.sizes]
        cases += [Case(f, d, size, threads) for f in FUNCTIONS for d in DTYPES for size in args.sizes]
    return [case for case in dict.fromkeys(cases) if case.function in args.functions and case.dtype in args.dtypes]


# --- the input ---------------------------------------------------------------------------------------------------------


@cache
def scores() -> Array:
    """Real logits: a logistic regression's decision function on the breast-cancer data that scikit-learn brings along."""
    try:
        from sklearn.datasets import load_breast_cancer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(f"the benchmark's input is made with scikit-learn ({error}): pip install 'fastsig[bench]'") from error
    features, target = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    return np.asarray(LogisticRegression().fit(features, target).decision_function(features))


@cache
def block(dtype: str, tail_heavy: bool) -> Array:
    """One period of the input. Tail-heavy: half of it, at random places, where the sigmoid is subnormal or vanishes."""
    real = scores()
    x = np.tile(real, BLOCK // len(real))
    if tail_heavy:
        random = np.random.default_rng(0)
        tail = (-110.0, -80.0) if dtype == "float32" else (-760.0, -700.0)
        x = np.where(random.random(x.size) < 0.5, random.uniform(*tail, x.size), x)
    return x.astype(dtype)


@dataclass(frozen=True)
class Arrays:
    """What every peer works on."""

    x: Array
    outs: tuple[Array, ...]
    value: Array  # for the sigmoid: an array of its own where only the gradient is asked for
    ones: Array  # the upstream gradient that torch's backward function asks for


def make_arrays(case: Case) -> Arrays:
    step = 2 if case.variant == "stride 2" else 1

    def empty() -> Array:
        return np.empty(case.size * step, case.dtype)[::step]

    x = empty()
    outs = (x,) if case.variant == "in place" else tuple(empty() for _ in range(case.outputs))
    ones = empty() if case.function != "sigmoid" else x[:0]
    ones.fill(1)
    fill(x, case)
    return Arrays(x, outs, empty() if case.function == "sigmoid_grad" else outs[0], ones)


def fill(x: Array, case: Case) -> None:
    source = block(case.dtype, case.variant == "tail-heavy")
    for start in range(0, x.size, source.size):
        part = x[start : start + source.size]
        part[...] = source[: part.size]


# --- the check ---------------------------------------------------------------------------------------------------------


@cache
def reference(function: str, dtype: str, tail_heavy: bool) -> tuple[tuple[Array, Array], ...]:
    """The right results for one block, computed in float64, and how far each may be off.

    The tolerance asks whether a peer computes the function at all: 1 - y has no more digits than y has, and no peer keeps the
    sigmoid's own digits far out in the lower tail.
    """
    x = block(dtype, tail_heavy).astype(np.float64)
    e = np.exp(-np.abs(x))
    y, dy = np.where(x < 0, e, 1.0) / (1.0 + e), e / (1.0 + e) ** 2
    relative, absolute = 1e-5 if dtype == "float32" else 1e-12, 4 * float(np.finfo(dtype).eps)
    of_value = y, y * relative + np.where(np.abs(x) <= 15, 0.0, absolute)
    of_slope = dy, dy * relative + absolute
    wanted = {"sigmoid": (of_value,), "sigmoid_grad": (of_slope,)}.get(function, (of_value, of_slope))
    return tuple((exact.astype(dtype), tolerance.astype(dtype)) for exact, tolerance in wanted)  # 7 times faster to compare


def check(case: Case, call: Call, arrays: Arrays) -> str:
    """Call it once, and say what is wrong with the results, or nothing."""
    for out in (*arrays.outs, arrays.value):
        out.fill(np.nan)  # not the results of the peer before
    if case.variant == "in place":
        fill(arrays.x, case)
    call()
    tail_heavy = case.variant == "tail-heavy"
    x = block(case.dtype, tail_heavy)
    for out, (exact, tolerance) in zip(arrays.outs, reference(case.function, case.dtype, tail_heavy), strict=True):
        for start in range(0, out.size, x.size):
            part = out[start : start + x.size]
            right = np.abs(part - exact[: part.size]) <= tolerance[: part.size]
            if not right.all():
                k = int(np.argmin(right))
                return f"wrong: {part[k]:.9g} instead of {exact[k]:.9g} at x = {x[k]:.9g}"
    return ""


# --- the peers ---------------------------------------------------------------------------------------------------------


def by_value(function: str, arrays: Arrays, forward: Callable[[Array], Call]) -> Call:
    """The gradient as users write it: s = sigmoid(x); s * (1 - s)."""
    if function == "sigmoid":
        return forward(arrays.outs[0])
    s, dy = arrays.value, arrays.outs[-1]
    value = forward(s)

    def call() -> None:
        value()
        np.subtract(1, s, out=dy)
        np.multiply(dy, s, out=dy)

    return call


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of the block: in the middle of a compilation it gets lost, or brings LLVM down."""
    if threading.current_thread() is not threading.main_thread():  # it doesn't come here then
        yield
        return
    pending: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending:
        raise KeyboardInterrupt


def use_fastsig(function: str, arrays: Arrays) -> Call:
    ufunc, x = getattr(fastsig, function), arrays.x
    with uninterrupted():
        ufunc(np.zeros(1, x.dtype))  # compiled now, if it isn't yet
    out = arrays.outs if len(arrays.outs) > 1 else arrays.outs[0]
    return lambda: ufunc(x, out=out)


def use_copy(function: str, arrays: Arrays) -> Call:
    x, y = arrays.x, arrays.outs[0]
    if len(arrays.outs) == 1:
        return lambda: np.copyto(y, x)
    dy = arrays.outs[1]

    def call() -> None:
        np.copyto(y, x)
        np.copyto(dy, x)

    return call


def use_math(function: str, arrays: Arrays) -> Call:
    x, outs, exp = arrays.x, arrays.outs, math.exp

    def call() -> None:
        s = [1.0 / (1.0 + exp(-v)) for v in x.tolist()]
        if function != "sigmoid_grad":
            outs[0][:] = s
        if function != "sigmoid":
            outs[-1][:] = [v * (1.0 - v) for v in s]

    return call


def use_numpy(function: str, arrays: Arrays) -> Call:
    x = arrays.x

    def forward(y: Array) -> Call:
        def call() -> None:
            np.negative(x, out=y)
            np.exp(y, out=y)
            np.add(y, 1, out=y)
            np.divide(1, y, out=y)

        return call

    return by_value(function, arrays, forward)


def use_scipy(function: str, arrays: Arrays) -> Call:
    from scipy.special import expit

    x = arrays.x
    return by_value(function, arrays, lambda y: lambda: expit(x, out=y))


def use_numexpr(function: str, arrays: Arrays) -> Call:
    from numexpr import evaluate

    s, names = arrays.value, {"x": arrays.x, "s": arrays.value}
    if function == "sigmoid":
        return lambda: evaluate("1 / (1 + exp(-x))", names, out=s)
    dy = arrays.outs[-1]

    def call() -> None:
        evaluate("1 / (1 + exp(-x))", names, out=s)
        evaluate("s * (1 - s)", names, out=dy)

    return call


def use_torch(function: str, arrays: Arrays) -> Call:
    import torch

    x, s, dy, ones = map(torch.from_numpy, (arrays.x, arrays.value, arrays.outs[-1], arrays.ones))
    sigmoid, backward = torch.sigmoid, torch.ops.aten.sigmoid_backward.grad_input
    if function == "sigmoid":
        return lambda: sigmoid(x, out=s)

    def call() -> None:
        sigmoid(x, out=s)
        backward(ones, s, grad_input=dy)

    return call


@contextmanager
def numexpr_threads(n: int) -> Iterator[None]:
    import numexpr

    before = numexpr.set_num_threads(min(n, numexpr.MAX_THREADS))
    try:
        yield
    finally:
        numexpr.set_num_threads(before)


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Peer:
    """One way to compute the functions: `prepare` gives a call without arguments, its set-up done."""

    name: str
    title: str
    prepare: Callable[[str, Arrays], Call]
    package: str = "numpy"  # what it needs
    threads: Callable[[int], AbstractContextManager[None]] | None = None
    largest: int | None = None


ALL_PEERS = (
    Peer("fastsig", "fastsig", use_fastsig, threads=fastsig.num_threads),
    Peer("copy", "copy", use_copy),
    Peer("math", "math", use_math, largest=100_000),
    Peer("numpy", "NumPy", use_numpy),
    Peer("scipy", "SciPy", use_scipy, "scipy"),
    Peer("numexpr", "numexpr", use_numexpr, "numexpr", numexpr_threads),
    Peer("torch", "torch", use_torch, "torch", torch_threads),
)
PEERS = {peer.name: peer for peer in ALL_PEERS}
ALWAYS = ("fastsig", "copy")


def unavailable(peer: Peer) -> str:
    """Why a peer can't take part, or nothing. It is imported here: torch before fastsig looks for an OpenMP runtime."""
    try:
        import_module(peer.package)
    except ModuleNotFoundError as error:
        return "not installed" if error.name == peer.package else f"not usable: {error}"
    except Exception as error:  # a broken installation raises anything
        return f"not usable: {type(error).__name__}: {error}"
    return ""


# --- measuring ---------------------------------------------------------------------------------------------------------

TIMING = 1e-3  # seconds: a shorter timing is repeated until it takes as long


@dataclass(frozen=True)
class Plan:
    least: int  # rounds
    most: int
    seconds: float  # for one case, once it has had the least number of rounds
    limit: float  # seconds after which no further case is begun


QUICK = Plan(3, 11, 0.3, 18)
FULL = Plan(7, 51, 6, 540)


@dataclass(frozen=True)
class Row:
    """What one peer took in one case: the median of the rounds, and their median absolute deviation from it."""

    case: Case
    peer: str
    seconds: float | None
    spread: float | None
    rounds: int
    repeats: int
    bytes: int
    error: str = ""

    @property
    def ns(self) -> float | None:
        return None if self.seconds is None else self.seconds / self.case.size * 1e9

    @property
    def rate(self) -> float | None:
        """GB/s, every array counted once."""
        return None if self.seconds is None else self.bytes / self.seconds / 1e9


def calibrate(timer: timeit.Timer) -> int:
    """How many calls make one timing."""
    repeats = 1
    while (taken := timer.timeit(repeats)) < TIMING:
        repeats = max(2 * repeats, math.ceil(repeats * min(10.0, TIMING / taken)))
    return repeats


def prepare(case: Case, peers: Iterable[Peer], arrays: Arrays) -> tuple[dict[str, tuple[timeit.Timer, int]], dict[str, str]]:
    """The timers of the peers, compiled, warm and checked, each with its number of repeats; and what went wrong."""
    timers, errors = {}, {}
    for peer in peers:
        try:
            call = peer.prepare(case.function, arrays)
            error = "" if peer.name == "copy" else check(case, call, arrays)  # a copy isn't the function
            if not error:
                timer = timeit.Timer(call)
                timers[peer.name] = timer, calibrate(timer)
        except Exception as failure:  # whatever a peer raises is its own row's business
            error = f"{type(failure).__name__}: {failure}"
        if error:
            errors[peer.name] = error
    return timers, errors


def takes_part(peer: Peer, case: Case) -> bool:
    if peer.name == "copy" and case.variant == "in place":  # onto itself: nothing to do
        return False
    return peer.largest is None or case.size <= peer.largest


def measure(case: Case, peers: Sequence[Peer], plan: Plan, keep: Callable[[Row], None]) -> None:
    """Time every peer in one case; what is measured when it is interrupted is kept as well.

    In place, the sigmoid is applied to its own results over and over: numbers between 0.5 and 0.74, nobody's slow case.
    """
    arrays = make_arrays(case)
    peers = [peer for peer in peers if takes_part(peer, case)]
    with ExitStack() as stack:
        stack.enter_context(np.errstate(all="ignore"))
        for peer in peers:
            if peer.threads:
                stack.enter_context(peer.threads(case.threads))
        timers, errors = prepare(case, peers, arrays)
        samples: dict[str, list[float]] = {name: [] for name in timers}
        try:
            turns(timers, samples, plan)
        finally:
            for name, taken in samples.items():
                if taken:
                    middle = statistics.median(taken)
                    spread = statistics.median(abs(t - middle) for t in taken)
                    keep(Row(case, name, middle, spread, len(taken), timers[name][1], case.traffic(name)))
            for name, error in errors.items():
                keep(Row(case, name, None, None, 0, 0, case.traffic(name), error))


def turns(timers: Mapping[str, tuple[timeit.Timer, int]], samples: dict[str, list[float]], plan: Plan) -> None:
    """The rounds; each begins with another peer, so that none always follows the same one."""
    begin, order = time.perf_counter(), list(timers)
    for done in range(plan.most):
        if done >= plan.least and time.perf_counter() - begin > plan.seconds:
            break
        for name in order:
            timer, repeats = timers[name]
            samples[name].append(timer.timeit(repeats) / repeats)
        order = order[1:] + order[:1]


def measure_all(cases: Sequence[Case], peers: Sequence[Peer], plan: Plan, results: dict[str, Any]) -> None:
    """Fill `results`, case by case."""
    begin = time.perf_counter()

    def keep(row: Row) -> None:
        results["rows"].append(asdict(row))

    with console.progress("Measuring", len(cases)) as advance:
        for case in cases:
            advance(0, case.label)
            free = free_memory()
            if time.perf_counter() - begin > plan.limit:
                results["skipped"].append(f"{case.label}: no time left, {plan.limit:g} s are over")
            elif free is not None and case.memory > free:
                needed, there = (f"{size / MEBI:,.0f} MiB" for size in (case.memory, free))
                results["skipped"].append(f"{case.label}: needs {needed} of memory, {there} are free")
            else:
                try:
                    measure(case, peers, plan, keep)
                except MemoryError as error:
                    results["skipped"].append(f"{case.label}: not enough memory: {error}")
            advance(1, case.label)


# --- the machine -------------------------------------------------------------------------------------------------------


def free_memory() -> int | None:
    """The bytes this process may still take, where Linux says so; a tenth is left alone."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    try:  # in a container
        limit, used = (Path("/sys/fs/cgroup", name).read_text() for name in ("memory.max", "memory.current"))
        free = min(free, int(limit) - int(used))
    except (OSError, ValueError):  # none, or no limit
        pass
    return free * 9 // 10


def processors() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine(threads: int) -> dict[str, Any]:
    versions = {"fastsig": fastsig.__version__}
    for package in ("numpy", "numba", "llvmlite", "scipy", "numexpr", "torch", "scikit-learn"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    found = parallel.runtime()
    return {
        "cpu": cpu(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "threads": threads,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "openmp": "/".join(Path(found[0]).parts[-3:]) if found else None,  # whose it is, not where it is installed
    }


# --- reporting ---------------------------------------------------------------------------------------------------------

LEGEND = "Ratios are fastsig's time over the peer's; ! marks a loss."


def load(results: Mapping[str, Any]) -> dict[tuple[Case, str], Row]:
    """The rows, by case and peer."""
    rows = [Row(**{**row, "case": Case(**row["case"])}) for row in results["rows"]]
    return {(row.case, row.peer): row for row in rows}


def ratio(rows: Mapping[tuple[Case, str], Row], case: Case, peer: str, against: Case | None = None) -> float | None:
    """fastsig's time over the peer's."""
    own, other = rows.get((case, "fastsig")), rows.get((against or case, peer))
    if own is None or other is None or own.seconds is None or other.seconds is None:
        return None
    return own.seconds / other.seconds


def is_loss(value: float | None) -> bool:
    return value is not None and round(value, 2) > 1


def human_size(n: int) -> str:
    return f"{n // MEBI} Mi" if n % MEBI == 0 else f"{n:,}"


def human_time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if 0.01 <= value < 100 else f"{value:.3g}"


def ratio_cell(rows: Mapping[tuple[Case, str], Row], case: Case, peer: str) -> str:
    row, value = rows.get((case, peer)), ratio(rows, case, peer)
    if row is not None and row.error:
        return "failed"
    return number(value) + (" !" if peer not in ALWAYS and is_loss(value) else "")


def report_row(rows: Mapping[tuple[Case, str], Row], case: Case, others: Sequence[str]) -> list[str]:
    own, copy = rows.get((case, "fastsig")), rows.get((case, "copy"))
    if own is None or own.seconds is None or own.spread is None:
        cells = ["failed" if own else "–", *"––––"]
    else:
        cells = [human_time(own.seconds), f"{own.spread / own.seconds:.0%}", number(own.ns), number(own.rate)]
        cells.append(number(copy.rate if copy else None))
    return [case.place, *cells, *(ratio_cell(rows, case, name) for name in ("copy", *others))]


def losses(rows: Mapping[tuple[Case, str], Row]) -> list[str]:
    """Every comparison in which fastsig is slower."""
    found = ((case, peer, ratio(rows, case, peer)) for case, peer in rows if peer not in ALWAYS)
    return [f"{case.label} / {PEERS[peer].title}: {number(value)}" for case, peer, value in found if is_loss(value)]


def in_order(cases: Iterable[Case]) -> list[Case]:
    def key(case: Case) -> tuple[int, int, int, int, int]:
        where = FUNCTIONS.index(case.function), DTYPES.index(case.dtype), VARIANTS.index(case.variant)
        return *where, case.size, case.threads

    return sorted(dict.fromkeys(cases), key=key)


def report(results: Mapping[str, Any]) -> None:
    """Print everything that was measured, and what wasn't and why."""
    rows = load(results)
    others = [name for name, why in results["peers"].items() if not why and name not in ALWAYS]
    columns = ["", "fastsig", "±", "ns/element", "GB/s", "copy GB/s", "/ copy", *(f"/ {PEERS[name].title}" for name in others)]
    ordered = in_order(case for case, _ in rows)
    for function, dtype in dict.fromkeys((case.function, case.dtype) for case in ordered):
        shown = [report_row(rows, case, others) for case in ordered if (case.function, case.dtype) == (function, dtype)]
        console.table(f"{function} {dtype}", columns, shown)
    judged = [(bar.label, ratio(rows, bar.case, bar.peer, bar.against)) for bar in bars(results["machine"]["threads"])]
    console.table("bars", ["fastsig / other", "ratio"], [[label, number(value)] for label, value in judged if value])
    slower = losses(rows)
    compared = sum(ratio(rows, *key) is not None for key in rows if key[1] not in ALWAYS)
    print(f"\n{LEGEND} fastsig is slower in {len(slower)} of {compared} comparisons.")
    for line in (*slower, *problems(results)):
        print(f"  {line}")
    print(f"\n{described(results)}")


def problems(results: Mapping[str, Any]) -> list[str]:
    """What isn't measured, and why."""
    missing = [f"{PEERS[name].title}: {why}" for name, why in results["peers"].items() if why]
    failed = [f"{row.case.label}: {PEERS[row.peer].title}: {row.error}" for row in load(results).values() if row.error]
    return missing + failed + [f"skipped: {line}" for line in results["skipped"]]


def described(results: Mapping[str, Any]) -> str:
    """The machine, in a sentence."""
    it = results["machine"]
    versions = ", ".join(map(" ".join, it["versions"].items()))
    threads = f"{it['threads']} thread{'s' if it['threads'] > 1 else ''} (OpenMP: {it['openmp'] or 'none'})"
    load = "" if it["load"] is None else f", load average {it['load']:.2f} at the start"
    return f"{it['cpu']}, {threads}{load}, {it['system']}, Python {it['python']}, {versions}."


# --- README ------------------------------------------------------------------------------------------------------------

HEADLINES = (1, 1000, CACHED, MEBI, *LARGEST.values())


def markdown(results: Mapping[str, Any]) -> str:
    """The block for README: the sizes that matter and all variants in a table, the other losses in words."""
    rows = load(results)
    others = [name for name in results["peers"] if name not in (*ALWAYS, "math")]
    titles = ["case", "ns/element", "GB/s", *(PEERS[name].title for name in others), "copy"]
    shown = [case for case in in_order(case for case, _ in rows) if case.variant or case.size in HEADLINES]
    lines = [
        described(results),
        "",
        "fastsig's time per element, its traffic, and its time over that of each peer in the same run: below 1 it is faster,"
        " **bold** it is slower. Results are preallocated and all have the same number of threads; `copy` is `numpy.copyto`.",
        "",
        f"| {' | '.join(titles)} |",
        f"|---{'|--:' * (len(titles) - 1)}|",
    ]
    for case in shown:
        own = rows.get((case, "fastsig"))
        cells = [number(own.ns if own else None), number(own.rate if own else None)]
        for name in (*others, "copy"):
            cell = ratio_cell(rows, case, name)
            cells.append(f"**{cell[:-2]}**" if cell.endswith(" !") else cell)
        lines.append(f"| `{case.function}` {case.dtype}, {case.place} | {' | '.join(cells)} |")
    elsewhere = losses({key: row for key, row in rows.items() if key[0] not in shown})
    if elsewhere:
        lines += ["", f"Slower at other sizes, too: {'; '.join(elsewhere)}."]
    notes = problems(results)
    if notes:
        lines += ["", f"Not measured: {'; '.join(notes)}."]
    return "\n".join(lines)


# --- the command -------------------------------------------------------------------------------------------------------


def one_of(valid: Sequence[str], what: str) -> Callable[[str], tuple[str, ...]]:
    """An argument's type: some of these names, with a word of help for a misspelt one."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(","))
        for name in names:
            if name not in valid:
                near = difflib.get_close_matches(name, valid, cutoff=0.4)
                meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(valid)}"
                raise argparse.ArgumentTypeError(f"unknown {what} {name!r}: {meant}")
        return names

    return parse


def positive(text: str) -> int:
    digits = text.strip()
    try:
        n = int(digits.removesuffix("Mi")) * (MEBI if digits.endswith("Mi") else 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number: {text!r} (such as 65536 or 64Mi)") from None
    if n < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1: {text!r}")
    return n


def threads(text: str) -> int:
    n = positive(text)
    if n > parallel.MOST:
        raise argparse.ArgumentTypeError(f"must be at most {parallel.MOST}: {text!r}")
    return n


def positives(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything `run` reads."""
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer cases and rounds: half a minute instead of minutes")
    for option, valid in (("function", FUNCTIONS), ("dtype", DTYPES), ("peer", tuple(PEERS))):
        add(f"--{option}s", type=one_of(valid, option), default=valid, metavar="NAMES", help=f"of {','.join(valid)}")
    add("--sizes", type=positives, metavar="NUMBERS", help="of elements, such as 1000,65536,64Mi")
    add("--threads", type=threads, metavar="N", help="for all peers alike (default: one per processor)")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured to this file")


def run(args: argparse.Namespace) -> int:
    """Measure, report, and give the exit code: 1 if fastsig itself failed, 2 if it can't begin, 130 if it was interrupted."""
    try:
        return start(args)
    except KeyboardInterrupt:
        print("interrupted before the first measurement", file=sys.stderr)
        return 130


def start(args: argparse.Namespace) -> int:
    try:
        scores()
        if args.json:
            args.json.open("a").close()  # while there is nothing to lose; the results of an earlier run stay until then
    except ImportError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"can't write the results: {error}", file=sys.stderr)
        return 2
    wanted = [peer for peer in ALL_PEERS if peer.name in (*ALWAYS, *args.peers)]
    missing = {peer.name: unavailable(peer) for peer in wanted}
    threads = args.threads or processors()
    results = {"machine": machine(threads), "quick": args.quick, "peers": missing, "rows": [], "skipped": []}
    peers = [peer for peer in wanted if not missing[peer.name]]
    try:
        results["interrupted"] = False
        measure_all(chosen_cases(args, threads), peers, QUICK if args.quick else FULL, results)
    except KeyboardInterrupt:
        results["interrupted"] = True
    return finish(results, args.json)


def finish(results: dict[str, Any], path: Path | None) -> int:
    """Write and report what there is."""
    if path:
        try:
            path.write_text(json.dumps(results, indent=1) + "\n")
        except OSError as error:
            print(f"can't write the results: {error}", file=sys.stderr)
            return 1
    report(results)
    if results["interrupted"]:
        print("Interrupted: this is what was measured until then.", file=sys.stderr)
        return 130
    return 1 if any(row["peer"] == "fastsig" and row["error"] for row in results["rows"]) else 0
