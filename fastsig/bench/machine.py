"""The machine: what it is, and how fast it moves data where nothing is computed.

The limits are measured with the package's own loops, round kernels that hand through what they read. So they hold for the way
in which our functions read and write, and what a function takes beyond them is its mathematics and its call. One call of a loop
goes over small arrays many times: next to nothing of the call, or of the threads' start, is in the time of a pass.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fastsig
from fastsig import compiler, parallel
from fastsig.instructions import subtract_bits
from fastsig.ufuncs import Loop

Array = np.ndarray[Any, np.dtype[Any]]
Advance = Callable[[float, str], object]  # told the seconds that have passed since it was last told, and what is next

# --- what it is ----------------------------------------------------------------------------------------------------------

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "numexpr", "torch", "jax", "ml_dtypes", "scikit-learn", "matplotlib")
LEVELS = {"1": "L1d", "2": "L2", "3": "L3"}


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
    """The processor's name, as it gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()


def caches() -> dict[str, int]:
    """The bytes of each level's data cache that one core sees, shared or not; what isn't known isn't there."""
    if sys.platform == "darwin":
        found = {
            level: sysctl(f"hw.perflevel0.{level.lower()}cachesize", f"hw.{level.lower()}cachesize")
            for level in LEVELS.values()
        }
        return {level: int(size) for level, size in found.items() if size.isdigit() and int(size)}
    number = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    sizes = {}
    for place in sorted(Path(f"/sys/devices/system/cpu/cpu{number}/cache").glob("index*")):
        try:
            kind, level, size = ((place / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction" and level in LEVELS:
                sizes[LEVELS[level]] = int(size.removesuffix("K")) << 10
        except (OSError, ValueError):  # a virtual machine may tell some, or nothing
            continue
    return sizes


def sysctl(*names: str) -> str:
    """What macOS says of the first of these that it knows, or nothing."""
    for name in names if sys.platform == "darwin" else ():
        done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return ""


def described(threads: int) -> dict[str, Any]:
    """The machine and its software, for the results."""
    versions = {"fastsig": fastsig.__version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    found = parallel.runtime()
    return {
        "cpu": cpu(),
        "caches": caches(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "threads": threads,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "openmp": "/".join(Path(found[0]).parts[-3:]) if found else None,  # whose it is, not where it is installed
    }


# --- loops that compute nothing --------------------------------------------------------------------------------------------


def copied(x: Any, f: Any) -> Any:
    return x


def copied_twice(x: Any, f: Any) -> Any:
    return x, x


def difference(x: Any, g: Any, f: Any) -> Any:
    return subtract_bits(x, g)  # an instruction of one cycle, exact whatever the numbers are


def exchanged(x: Any, g: Any, f: Any) -> Any:
    return g, x


HANDED_THROUGH: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 1): copied,
    (2, 1): difference,
    (1, 2): copied_twice,
    (2, 2): exchanged,
}
STREAMS = ((1, 0), *HANDED_THROUGH)  # how many arrays are read and written
STORAGE = "float32"
ITEM, LINE, PAGE = np.dtype(STORAGE).itemsize, 64, 4096  # bytes
ELEMENTS, PASSES, STREAMING = range(3)  # a loop's orders


@cache
def loop(reads: int, writes: int) -> Callable[..., None]:
    """The compiled loop over so many arrays."""
    parallel.connect()
    with compiler.lock():
        return Loop(compiler.program(f"moving-{reads}-{writes}-{STORAGE}", moving(reads, writes), "bench/machine"))


def moving(reads: int, writes: int) -> Callable[[compiler.Target], tuple[Any, Callable[..., Any]]]:
    """What `compiler.program` makes of these arrays' loop; its arguments are a ufunc's, with orders for the dimensions."""

    def make(chosen: compiler.Target) -> tuple[Any, Callable[..., Any]]:
        from numba.types import intp

        from fastsig import lanes, loops
        from fastsig.kernels import Kernel
        from fastsig.loops import jit

        function, names = HANDED_THROUGH.get((reads, writes), copied), ("x", "g", "y", "dy")
        kernel = Kernel(function, names[:reads], names[2:][: max(writes, 1)], {}, {}, None, True)
        plan = loops.Plan(kernel, STORAGE, chosen.register, chosen.half, len(kernel.outputs))
        sweep, (enter, leave) = (written(plan) if writes else read(plan)), loops.sharing()
        line = LINE // ITEM

        @jit(intp, intp, intp, intp)
        def share(args, orders, n, data):  # type: ignore[no-untyped-def]
            """One thread's part, as `loops` shares out."""
            thread = lanes.call_address(lanes.word(data, parallel.THREAD))
            threads = lanes.call_address(lanes.word(data, parallel.THREADS))
            part = ((n + threads - 1) // threads + line - 1) // line * line
            sweep(args, orders, min(n, thread * part), min(n, (thread + 1) * part))

        def loop(args, orders, steps, data):  # type: ignore[no-untyped-def]
            a, o, d, n = lanes.address_of(args), lanes.address_of(orders), lanes.address_of(data), orders[ELEMENTS]
            threads = enter(d, True)
            if threads > 1:
                lanes.team(share, lanes.word(d, parallel.START), threads, a, o, n, d)
            else:
                sweep(a, o, 0, n)
            leave(d, threads)

        return loops.SIGNATURE, loop

    return make


def written(plan: Any) -> Any:
    """Elements i to n of all arrays, over and over."""
    from numba.types import intp

    from fastsig import lanes
    from fastsig.loops import jit, straight

    whole, narrow = straight(plan), plan.narrow

    @jit(intp, intp, intp, intp)
    def sweep(args, orders, i, n):  # type: ignore[no-untyped-def]
        p, streaming = lanes.addresses(narrow, args), lanes.word(orders, STREAMING) != 0
        for _ in range(lanes.word(orders, PASSES)):
            whole(p, i, n, streaming)

    return sweep


def read(plan: Any) -> Any:
    """The same for one that is only read: the bits of all its elements are subtracted, lane by lane, and left at element i."""
    from numba.types import intp

    from fastsig import lanes
    from fastsig.loops import jit

    wide, step = plan.wide, plan.wide.count

    @jit(intp, intp, intp, intp)
    def sweep(args, orders, i, n):  # type: ignore[no-untyped-def]
        p = lanes.addresses(wide, args)
        (total,) = lanes.read_first(wide, p, i, 0)
        for _ in range(lanes.word(orders, PASSES)):
            j = i
            while j + step <= n:
                (x,) = lanes.read(wide, p, j)
                total = subtract_bits(total, x)
                j += step
            if j < n:
                (x,) = lanes.read_first(wide, p, j, n - j)
                total = subtract_bits(total, x)
        lanes.write_first(wide, p, i, total, min(step, n - i))

    return sweep


# --- the limits ------------------------------------------------------------------------------------------------------------

TIMING = 1e-3  # seconds that one timing takes at least
TEAM = 4  # times as long with several threads: where the processors are busy, one of them may wait for milliseconds
FULL = (1000, 10_000, 65_536, 1 << 20, 16 << 20, 64 << 20)  # elements
QUICK = (1000, 65_536, 8 << 20)
LEAST, MOST = 7, 51  # rounds
ENOUGH = {False: 2.0, True: 0.2}  # seconds for one size, quick or not, once it has had the least number of rounds
CHECKED = 100_003  # elements: they have a part for each thread, a head, whole steps and a remainder


@dataclass(frozen=True)
class Way:
    """How many arrays are read and written, how they are stored, and on how many threads."""

    reads: int
    writes: int
    stores: str  # "plain", "streaming", or "numpy" for np.copyto
    threads: int

    def __str__(self) -> str:
        return f"{self.reads} read, {self.writes} written, {self.stores}, {self.threads} threads"

    def over(self, arrays: Sequence[Array]) -> Callable[[int], None]:
        """What goes over the arrays, two to read and two to write, as many times as it is told."""
        x, _, y, _ = arrays
        if self.stores == "numpy":

            def copyto(passes: int) -> None:
                for _ in range(passes):
                    np.copyto(y, x)

            return copyto
        taking_part = [*arrays[: self.reads], *arrays[2 : 2 + max(self.writes, 1)]]
        addresses = (ctypes.c_ssize_t * len(taking_part))(*(array.ctypes.data for array in taking_part))
        orders = (ctypes.c_ssize_t * 3)(x.size, 0, self.stores == "streaming")
        move = loop(self.reads, self.writes)

        def run(passes: int) -> None:
            orders[PASSES] = passes
            with parallel.num_threads(self.threads):
                move(addresses, orders, None, parallel.WORDS)

        return run


def ways(threads: int) -> list[Way]:
    """All of them, compiled and checked, on one thread and on `threads`, where there is an OpenMP runtime."""
    parallel.connect()
    with parallel.num_threads(threads):
        counts = sorted({1, parallel.get_num_threads()})
    stores = {0: ("plain",)}
    own = [Way(r, w, how, n) for r, w in STREAMS for how in stores.get(w, ("plain", "streaming")) for n in counts]
    found = [Way(1, 1, "numpy", 1), *own]
    for way in found:
        check(way)
    return found


def check(way: Way) -> None:
    """Whether each number gets to where it belongs."""
    arrays = laid_out(CHECKED, np.zeros(room(CHECKED), np.uint8))
    x, g, *outs = (array.view(np.uint32) for array in arrays)
    x[:] = np.arange(1, CHECKED + 1)
    g[:] = x[::-1]
    way.over(arrays)(1)
    if way.writes:
        right = {(1, 1): (x,), (2, 1): (x - g,), (1, 2): (x, x), (2, 2): (g, x)}[way.reads, way.writes]
        wrong = not all(np.array_equal(out, exact) for out, exact in zip(outs, right, strict=False))
    else:
        wrong = (int(x.sum(dtype=np.uint64)) + int(outs[0].sum(dtype=np.uint64))) % 2**32 != 0
    if wrong:
        raise RuntimeError(f"the loop that only moves data ({way}) doesn't move it right on this machine")


def laid_out(size: int, space: Array) -> list[Array]:
    """Two arrays to read and two to write, each from the beginning of a page on.

    What is streamed must not lie a few lines further into its page than what is read: with both outputs 64 bytes further than
    the input, Zen 3 moves 1.8 GB/s for 13.8, with 256 bytes 6.4.
    """
    start, apart = -space.ctypes.data % PAGE, room(size) // 4
    return [space[start + k * apart :][: size * ITEM].view(STORAGE) for k in range(4)]


def room(size: int) -> int:
    """The bytes that `laid_out` needs."""
    return 4 * (-(-size * ITEM // PAGE) + 1) * PAGE


def limits(threads: int, quick: bool, advance: Advance) -> list[dict[str, Any]]:
    """How fast data moves, by every way, in arrays of several sizes: a row each.

    The ways take turns, one timing each per round; what counts is the median of the rounds. Sizes that there isn't memory for
    are left out. `advance` gets the seconds that have passed since it was called before, and what is being done.
    """
    tell = telling(advance)
    tell("loops that only move data")
    found = ways(threads)
    sizes = fitting(quick)
    space = np.ones(room(max(sizes, default=0)), np.uint8)  # touched, so that no page is new to any
    rows = []
    for size in sizes:
        arrays = laid_out(size, space)
        runs = {way: way.over(arrays) for way in found}
        samples = turns(runs, ENOUGH[quick], partial(tell, f"moving data, {size:,} elements"))
        for way, taken in samples.items():
            middle, bytes = median(taken), (way.reads + way.writes) * size * ITEM
            spread = median(abs(t - middle) for t in taken)
            measured = {"seconds": middle, "spread": spread, "rounds": len(taken), "bytes": bytes, "rate": bytes / middle / 1e9}
            rows.append({**asdict(way), "size": size, "dtype": STORAGE, **measured})
    return rows


def fitting(quick: bool) -> list[int]:
    """The sizes that there is memory for."""
    free = free_memory()
    return [size for size in (QUICK if quick else FULL) if free is None or room(size) <= free]


def turns(runs: Mapping[Way, Callable[[int], None]], seconds: float, tell: Callable[[], None]) -> dict[Way, list[float]]:
    """The seconds of one pass, for each way and round; each round begins with another way."""
    alone = {way: pace(run) for way, run in runs.items() if way.threads == 1}
    passes = {way: passes_of(way, alone[replace(way, threads=1)]) for way in runs}
    samples: dict[Way, list[float]] = {way: [] for way in runs}
    begin, order = time.perf_counter(), list(runs)
    for done in range(MOST):
        if done >= LEAST and time.perf_counter() - begin > seconds:
            break
        for way in order:
            runs[way](0)  # wakes the team
            samples[way].append(timed(runs[way], passes[way]) / passes[way])
        order = order[1:] + order[:1]
        tell()
    return samples


def timed(run: Callable[[int], None], passes: int) -> float:
    begin = time.perf_counter()
    run(passes)
    return time.perf_counter() - begin


def pace(run: Callable[[int], None]) -> float:
    """The seconds of one pass, roughly."""
    passes = 1
    while (taken := timed(run, passes)) < TIMING:
        passes = max(2 * passes, math.ceil(passes * min(10.0, TIMING / taken)))
    return taken / passes


def passes_of(way: Way, pace: float) -> int:
    """How many passes make one timing, given the pace of one thread."""
    return math.ceil(TIMING * (TEAM * way.threads if way.threads > 1 else 1) / pace)


def telling(advance: Advance) -> Callable[[str], None]:
    """`advance` with the seconds since the last call put in."""
    last = time.perf_counter()

    def tell(what: str) -> None:
        nonlocal last
        now = time.perf_counter()
        advance(now - last, what)
        last = now

    return tell


def limit(limits: Iterable[Mapping[str, Any]], reads: int, writes: int, threads: int, bytes_total: int) -> float | None:
    """The highest rate, in GB/s, at which so many arrays of so many bytes in all were moved, however they were stored.

    Between the sizes that were measured it is interpolated, linearly over the logarithm of the bytes; below the smallest and
    above the largest it is theirs. None if these numbers of arrays and threads weren't measured.
    """
    best: dict[int, float] = {}
    for row in limits:
        if (row["reads"], row["writes"], row["threads"]) == (reads, writes, threads):
            best[row["bytes"]] = max(row["rate"], best.get(row["bytes"], 0.0))
    if not best:
        return None
    measured = sorted(best)
    return float(np.interp(math.log(bytes_total), [*map(math.log, measured)], [best[bytes] for bytes in measured]))
