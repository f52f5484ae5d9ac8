"""Kernels to inner loops: NumPy's `void loop(char **args, intp *dims, intp *steps, void *data)` round a kernel.

Whole arrays go straight through in wide vectors, with the remainder in masked ones; anything strided goes through small
buffers on the stack, so that there is one way to compute and an element's bits depend on nothing but the element. Reading a
block before writing it makes in-place calls safe. Large calls are shared out to threads, and very large ones write past
the caches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import njit, types
from numba.extending import register_jitable
from numba.types import boolean, intp

from fastsig import kernels, lanes
from fastsig.kernels import Kernel
from fastsig.lanes import CACHE_LINE, SIZE, Shape
from fastsig.parallel import BUSY, GETPID, INSIDE, LIMIT, PARALLEL, PID, START, STREAM, THREAD, THREADS

POINTER = types.CPointer(types.intp)
SIGNATURE = types.void(POINTER, POINTER, POINTER, types.voidptr)
REGISTERS = 4  # of each value in a wide step; lanes.py has the measurement
ALIGN = 4096  # elements from which on a first, partial step to a line's beginning pays (2.5 % at 65,536)
LONG = 256  # elements from which on changing the processor's mode is worth its 20 ns
AHEAD = 2048  # bytes to prefetch ahead of a streaming loop: 64 Mi float32 on two threads take 0.204 ns an element for 0.395
BUFFER = 1024  # bytes of each array that a strided call gathers at a time; the stack grows by less than a page


def jit(*arguments: types.Type, returns: types.Type = types.void) -> Any:
    """Compile for these types only (or, without any, for those of each call): Numba would make one more for each literal."""
    signature = [returns(*arguments)] if arguments else []
    return njit(*signature, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


@cache
def register_parts() -> None:
    """Once for all kernels, so that what several of them call for the same types is compiled once."""
    for function in kernels.PARTS:
        register_jitable(error_model="numpy", no_cfunc_wrapper=True)(function)


def inner_loop(kernel: Kernel, storage: str, register: int, half: bool) -> Callable[..., None]:
    """The loop of `kernel` for arrays of `storage`, on a machine whose registers hold `register` bytes.

    `half` says whether that machine converts float16 itself.
    """
    register_parts()
    function = jit()(kernel.function)
    size, line = SIZE[storage], CACHE_LINE
    format = lanes.COMPUTED_IN[storage]
    usual = format.without_tails()
    inputs, arrays = len(kernel.inputs), len(kernel.inputs) + len(kernel.outputs)
    last = register // SIZE[format.name]
    step = REGISTERS * last
    ordinary = getattr(format, kernel.ordinary) if kernel.ordinary else None
    wide = Shape(storage, step, inputs, arrays - inputs, half, ordinary)
    narrow = Shape(storage, last, inputs, arrays - inputs, half, ordinary)
    short_cut = ordinary is not None
    work = 1 if "y" in kernel.inputs else 4  # for each byte, roughly: the functions of y are soon done
    flush = not kernel.needs_subnormals
    piece = BUFFER // size
    ahead = AHEAD // size
    space = arrays * BUFFER

    @jit()
    def evaluate(x):  # type: ignore[no-untyped-def]
        if short_cut:
            if lanes.ordinary(wide, x):
                return lanes.apply(function, x, usual)
            return lanes.with_nan_of(x, lanes.apply(function, x, format))
        return lanes.apply(function, x, format)

    @jit(types.UniTuple(intp, arrays), intp, intp, boolean)
    def whole(p, i, n, streaming):  # type: ignore[no-untyped-def]
        """Elements i to n of arrays without gaps."""
        if streaming or n - i >= ALIGN:
            head = min(n, i + -(p[inputs] // size + i) % (line // size))
            while i < head:
                count = min(head - i, last)
                lanes.write_first(narrow, p, i, evaluate(lanes.read_first(narrow, p, i, count)), count)
                i += count
        if streaming:
            while i + step <= n:
                lanes.prefetch(wide, p, i + ahead)
                lanes.stream(wide, p, i, evaluate(lanes.read(wide, p, i)))
                i += step
            lanes.drain()
        while i + step <= n:
            lanes.write(wide, p, i, evaluate(lanes.read(wide, p, i)))
            i += step
        while i < n:
            count = min(n - i, last)
            lanes.write_first(narrow, p, i, evaluate(lanes.read_first(narrow, p, i, count)), count)
            i += count

    @jit(intp, intp, intp, intp)
    def strided(args, steps, i, n):  # type: ignore[no-untyped-def]
        """The same for any arrays, through buffers. Every second element, the commonest of strides, is copied in vectors:
        float32 0.6 ns an element for 0.9."""
        p = lanes.pieces(narrow, lanes.scratch(space), BUFFER)
        while i < n:
            count = min(piece, n - i)
            for k in range(inputs):
                source, stride = lanes.word(args, k) + i * lanes.word(steps, k), lanes.word(steps, k)
                j = 0
                if stride == 2 * size:
                    while j + last < count:
                        lanes.pull_alternate(narrow, p[k] + j * size, source + j * stride)
                        j += last
                while j < count:
                    lanes.move(narrow, p[k] + j * size, source + j * stride)
                    j += 1
            whole(p, 0, count, False)
            for k in range(inputs, arrays):
                target, stride = lanes.word(args, k) + i * lanes.word(steps, k), lanes.word(steps, k)
                j = 0
                if stride == 2 * size:
                    while j + last < count:
                        lanes.push_alternate(narrow, target + j * stride, p[k] + j * size)
                        j += last
                while j < count:
                    lanes.move(narrow, target + j * stride, p[k] + j * size)
                    j += 1
            i += count

    @jit(intp, intp, intp, intp, boolean)
    def stretch(args, steps, i, n, streaming):  # type: ignore[no-untyped-def]
        """Elements i to n, in a floating-point mode of our own."""
        mode = lanes.set_float_mode(flush and n - i >= LONG)
        gaps = 0
        for k in range(arrays):
            gaps |= lanes.word(steps, k) ^ size
        if gaps:
            strided(args, steps, i, n)
        else:
            p = lanes.addresses(narrow, args)
            whole(p, i, n, streaming and (p[inputs] - p[arrays - 1]) % line == 0)
        lanes.restore_float_mode(mode)

    @jit(intp, intp, intp, returns=boolean)
    def entangled(args, steps, n):  # type: ignore[no-untyped-def]
        """Whether an output lies over an input, other than exactly: NumPy leaves that to us where it is right in sequence."""
        found = False
        for k in range(inputs):
            for j in range(inputs, arrays):
                x, y, dx, dy = lanes.word(args, k), lanes.word(args, j), lanes.word(steps, k), lanes.word(steps, j)
                apart = max(x, x + (n - 1) * dx) + size <= min(y, y + (n - 1) * dy)
                apart = apart or max(y, y + (n - 1) * dy) + size <= min(x, x + (n - 1) * dx)
                found = found or not (apart or (x == y and dx == dy))
        return found

    @jit(intp, intp, intp, intp)
    def share(args, steps, n, data):  # type: ignore[no-untyped-def]
        """One thread's part: all are equal, in whole cache lines of elements."""
        thread = lanes.call_address(lanes.word(data, THREAD))
        threads = lanes.call_address(lanes.word(data, THREADS))
        part = ((n + threads - 1) // threads + line - 1) // line * line
        stretch(args, steps, min(n, thread * part), min(n, (thread + 1) * part), n * size * arrays >= lanes.word(data, STREAM))

    def loop(args, dims, steps, data):  # type: ignore[no-untyped-def]
        a, s, d, n = lanes.address_of(args), lanes.address_of(steps), lanes.address_of(data), dims[0]
        extent = n * size * arrays
        if (
            extent * work >= 4 * lanes.word(d, PARALLEL)
            and lanes.word(d, START) != 0
            and lanes.word(d, LIMIT) != 1
            and lanes.call_address(lanes.word(d, GETPID)) == lanes.word(d, PID)
            and lanes.call_address(lanes.word(d, INSIDE)) == 0
            and not entangled(a, s, n)
            and lanes.acquire(d + 8 * BUSY)
        ):
            lanes.team(share, lanes.word(d, START), lanes.word(d, LIMIT), a, s, n, d)
            lanes.release(d + 8 * BUSY)
        else:
            stretch(a, s, 0, n, extent >= lanes.word(d, STREAM))

    return loop
