"""Loops that move data and compute nothing: as many arrays read and written as our functions read and write, in the same way.

They are the package's own loops, round kernels that hand through what they read. So what a function takes beyond them is its
mathematics and its call. One call of a loop goes over small arrays many times: next to nothing of the call, or of the threads'
start, is in the time of a pass.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from fastsig import compiler, parallel
from fastsig.instructions import subtract_bits
from fastsig.ufuncs import Loop

Array = np.ndarray[Any, np.dtype[Any]]
TIMING = 1e-3  # seconds that one timing takes at least


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
        return Loop(compiler.program(f"moving-{reads}-{writes}-{STORAGE}", made(reads, writes), "bench/moving"))


def made(reads: int, writes: int) -> Callable[[compiler.Target], tuple[Any, Callable[..., Any]]]:
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


# --- running them ----------------------------------------------------------------------------------------------------------

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

        def run(passes: int, _kept: Sequence[Array] = taking_part) -> None:  # it has no more of them than their addresses
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
