"""Kernels to inner loops: NumPy's `void loop(char **args, intp *dims, intp *steps, void *data)` round a kernel.

Whole arrays go straight through in wide vectors, with the remainder in masked ones; anything strided goes through small
buffers on the stack, so that there is one way to compute and an element's bits depend on nothing but the element. Reading a
block before writing it makes in-place calls safe. Large calls are shared out to threads, and very large ones write past
the caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from numba import types
from numba.extending import register_jitable
from numba.types import boolean, intp

from fastsig import kernels, lanes
from fastsig.constants import BLOCK, Format
from fastsig.frontend import njit
from fastsig.kernels import Kernel
from fastsig.lanes import CACHE_LINE, SIZE, Shape
from fastsig.parallel import (
    BUSY,
    CLOCK,
    ENDS,
    GETPID,
    GETTID,
    IN_USE,
    INSIDE,
    LEADER,
    LIMIT,
    OWN,
    PARALLEL,
    PID,
    POLL,
    PROCESSORS,
    QUOTA,
    SINCE,
    START,
    STOP,
    STREAM,
    TGKILL,
    THREAD,
    THREADS,
    TIME,
    TRIP,
)

POINTER = types.CPointer(types.intp)
SIGNATURE = types.void(POINTER, POINTER, POINTER, types.voidptr)
REGISTERS = 4  # of each value in a wide step; lanes.py has the measurement
ALIGN = 4096  # elements from which on a first, partial step to a line's beginning pays (2.5 % at 65,536)
LONG = 256  # elements from which on changing the processor's mode is worth its 20 ns
AHEAD = 2048  # bytes to prefetch ahead of a streaming loop: 64 Mi float32 on two threads take 0.204 ns an element for 0.395
PIECE = 8 << 20  # bytes of all arrays after which a long call looks at the clock
PATIENCE = 50_000  # microseconds of the processors' time between questions whether the user wants the call to end
UNKNOWN, ENDED, DEAF = -2, -1, -3  # in place of a time; DEAF: a SIGINT waits that doesn't end this call
BUFFER = 1024  # bytes of each array that a strided call gathers at a time; the stack grows by less than a page


def jit(*arguments: types.Type, returns: types.Type = types.void) -> Any:
    """Compile for these types only (or, without any, for those of each call): Numba would make one more for each literal."""
    signature = returns(*arguments) if arguments else None
    return njit(signature, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


@cache
def sharing() -> Any:
    """How many threads a large call uses, and what it does when it is done."""

    @jit(intp, returns=boolean)
    def leads(data):  # type: ignore[no-untyped-def]
        """Whether this thread may have a team: the main thread, and one other, until it ends or has had no use for it.

        GNU's runtime keeps the threads of a team for whoever called it: with 64 callers they would be 64 times as many.
        """
        if lanes.word(data, GETTID) == 0:
            return True
        me = lanes.call_address(lanes.word(data, GETTID))
        if me == lanes.word(data, PID):
            return True
        now, leader = lanes.call_address_with(lanes.word(data, TIME), 0, 0, 0), lanes.word(data, LEADER)
        lately = leader != me and now - lanes.word(data, SINCE) <= 1
        if lately and lanes.call_address_with(lanes.word(data, TGKILL), lanes.word(data, PID), leader, 0) == 0:
            return False
        lanes.put_word(data, LEADER, me)
        lanes.put_word(data, SINCE, now)
        return True

    @jit(intp, returns=intp)
    def wanted(data):  # type: ignore[no-untyped-def]
        """1, unless there is a runtime, this process owns its threads, and none is at work round this call."""
        if (
            lanes.word(data, START) == 0
            or lanes.word(data, LIMIT) == 1
            or lanes.call_address(lanes.word(data, GETPID)) != lanes.word(data, PID)
            or lanes.call_address(lanes.word(data, INSIDE)) != 0
            or not leads(data)
        ):
            return 1
        limit, most = lanes.word(data, LIMIT), lanes.word(data, QUOTA)
        if lanes.word(data, PROCESSORS) != 0:
            most = min(most, lanes.call_address(lanes.word(data, PROCESSORS)))
        # What others use is theirs: two threads that call all the time would else be three, and each of them late.
        most -= lanes.word(data, IN_USE)
        return min(most, limit if limit != 0 else lanes.call_address(lanes.word(data, OWN)))

    @jit(intp, boolean, returns=intp)
    def enter(data, divisible):  # type: ignore[no-untyped-def]
        threads = wanted(data) if divisible else 1
        if threads > 1 and lanes.acquire(data + 8 * BUSY):
            lanes.put_word(data, STOP, 0)
        else:
            threads = 1
        lanes.add_to(data + 8 * IN_USE, threads)
        return threads

    @jit(intp, intp)
    def leave(data, threads):  # type: ignore[no-untyped-def]
        lanes.add_to(data + 8 * IN_USE, -threads)
        if threads > 1:
            lanes.release(data + 8 * BUSY)

    return enter, leave


@cache
def watching() -> Any:
    """Whether a long call is to end before its end: see `interrupts`."""

    @jit(intp, intp, boolean, returns=intp)
    def look(data, since, shared):  # type: ignore[no-untyped-def]
        """The time when Python was last asked, or ENDED. The main thread asks, the others of its team hear of it."""
        if shared and lanes.word(data, STOP) != 0:
            return ENDED
        if since == DEAF:  # asking again would tell whoever listens to signals once more
            return DEAF
        if lanes.word(data, GETTID) == 0 or lanes.call_address(lanes.word(data, GETTID)) != lanes.word(data, PID):
            return since
        now = lanes.call_address(lanes.word(data, CLOCK))
        # Not more often: to ask means to wait for Python's lock, 5 ms where another thread is at work with it.
        if since == UNKNOWN or (now - since) & 0xFFFFFFFF < PATIENCE:
            return now if since == UNKNOWN else since
        if lanes.call_address(lanes.word(data, POLL)) != 0:
            ends = lanes.call_address(lanes.word(data, ENDS)) != 0
            lanes.call_address(lanes.word(data, TRIP))
            if ends:
                if shared:
                    lanes.put_word(data, STOP, 1)
                return ENDED
            return DEAF
        return now

    return look


@cache
def register_parts() -> None:
    """Once for all kernels, so that what several of them call for the same types is compiled once."""
    for function in kernels.PARTS:
        register_jitable(error_model="numpy", no_cfunc_wrapper=True, forceinline=True)(function)


@dataclass(frozen=True)
class Plan:
    """What the loops of a kernel for arrays of `storage` have in common, on a machine with registers of `register` bytes.

    `half` says whether that machine converts float16 itself; `summed`, whether the first output is only to be summed.
    """

    kernel: Kernel
    storage: str
    register: int
    half: bool
    outputs: int
    summed: bool = False

    @property
    def size(self) -> int:
        return SIZE[self.storage]

    @property
    def format(self) -> Format:
        return lanes.COMPUTED_IN[self.storage]

    @property
    def inputs(self) -> int:
        return len(self.kernel.inputs)

    @property
    def arrays(self) -> int:
        return self.inputs + self.outputs

    @property
    def last(self) -> int:
        """The elements of a register."""
        return self.register // SIZE[self.format.name]

    def shape(self, count: int) -> Shape:
        ordinary = getattr(self.format, self.kernel.ordinary) if self.kernel.ordinary else None
        extra = self.kernel.weights, self.kernel.scalars, self.summed
        return Shape(self.storage, count, self.inputs, self.outputs, self.half, ordinary, *extra)

    @property
    def wide(self) -> Shape:
        """Of several registers at a time."""
        return self.shape(REGISTERS * self.last)

    @property
    def narrow(self) -> Shape:
        """Of one."""
        return self.shape(self.last)


def straight(plan: Plan) -> Any:
    """The kernel over a stretch of arrays without gaps: the one place where a loop computes."""
    function = lanes.Mathematics(plan.kernel.function)
    wide, narrow, format, size = plan.wide, plan.narrow, plan.format, plan.size
    usual = format.without_tails()
    short_cut = wide.ordinary is not None
    inputs, last, step, line = plan.inputs, narrow.count, wide.count, CACHE_LINE
    ahead = AHEAD // size

    @jit()
    def evaluate(x):  # type: ignore[no-untyped-def]
        if short_cut:
            if lanes.ordinary(wide, x):
                return lanes.apply(function, x, usual)
            return lanes.with_nan_of(x, lanes.apply(function, x, format))
        return lanes.apply(function, x, format)

    @jit(types.UniTuple(intp, plan.arrays), intp, intp, boolean)
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

    return whole


def inner_loop(kernel: Kernel, storage: str, register: int, half: bool) -> Callable[..., None]:
    """NumPy's loop of a public function."""
    plan = Plan(kernel, storage, register, half, len(kernel.outputs))
    whole, (enter, leave), look = straight(plan), sharing(), watching()
    size, line = plan.size, CACHE_LINE
    inputs, arrays, last, narrow = plan.inputs, plan.arrays, plan.last, plan.narrow
    work = 1 if "y" in kernel.inputs else 4  # for each byte, roughly: the functions of y are soon done
    flush = not kernel.needs_subnormals
    # Only where a store fills a line. Lines that are combined of two came to a standstill, in some processes and not in others:
    # Zen 3, 16 Mi float32, sigmoid on one thread 72 ms for 18, its value and gradient on two 43 for 11; and gained nothing.
    can_stream = register == line
    block = BUFFER // size
    space = arrays * BUFFER
    reducible = inputs == 2 and arrays == 3
    long = PIECE // (size * arrays) // line * line

    @jit(intp, intp, intp, returns=boolean)
    def chained(args, steps, n):  # type: ignore[no-untyped-def]
        """Whether each result is the next one's first input, as in `reduce` and `accumulate`: no element can be read ahead."""
        step = lanes.word(steps, 0)
        return reducible and n > 1 and lanes.word(args, 2) - lanes.word(args, 0) == step and lanes.word(steps, 2) == step

    @jit(intp, intp, intp, intp, intp)
    def strided(args, steps, i, n, piece):  # type: ignore[no-untyped-def]
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
        if chained(args, steps, n - i):
            strided(args, steps, i, n, 1)
        elif gaps:
            strided(args, steps, i, n, block)
        else:
            p = lanes.addresses(narrow, args)
            whole(p, i, n, streaming and (p[inputs] - p[arrays - 1]) % line == 0)
        lanes.restore_float_mode(mode)

    @jit(intp, intp, intp, intp, boolean, intp, boolean)
    def stretches(args, steps, i, n, streaming, data, shared):  # type: ignore[no-untyped-def]
        """The same, with a look at the clock now and then."""
        since = UNKNOWN
        while i < n and since != ENDED:
            end = min(n, i + long)
            stretch(args, steps, i, end, streaming)
            i = end
            if i < n:
                since = look(data, since, shared)

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

    @jit(intp, intp, returns=boolean)
    def past_caches(n, data):  # type: ignore[no-untyped-def]
        """Whether a call is to write past the caches."""
        return can_stream and n * size * arrays >= lanes.word(data, STREAM)

    @jit(intp, intp, intp, intp)
    def share(args, steps, n, data):  # type: ignore[no-untyped-def]
        """One thread's part: all are equal, in whole cache lines of elements."""
        thread = lanes.call_address(lanes.word(data, THREAD))
        threads = lanes.call_address(lanes.word(data, THREADS))
        part = ((n + threads - 1) // threads + line - 1) // line * line
        stretches(args, steps, min(n, thread * part), min(n, (thread + 1) * part), past_caches(n, data), data, True)

    def loop(args, dims, steps, data):  # type: ignore[no-untyped-def]
        a, s, d, n = lanes.address_of(args), lanes.address_of(steps), lanes.address_of(data), dims[0]
        large = n * size * arrays * work >= 4 * lanes.word(d, PARALLEL)
        threads = enter(d, not (chained(a, s, n) or entangled(a, s, n))) if large else 1
        if threads > 1:
            lanes.team(share, lanes.word(d, START), threads, a, s, n, d)
        else:
            stretches(a, s, 0, n, past_caches(n, d), d, False)
        if large:
            leave(d, threads)

    return loop


def loss_loop(kernel: Kernel, storage: str, register: int, half: bool, outputs: int, summed: bool) -> Callable[..., None]:
    """A loop over the terms of a loss: its arrays, those of its weights, its numbers, then its outputs.

    Where they are summed, the first output is an array of float64, one for each BLOCK of terms. The order of a sum is that of
    the elements and depends on nothing else. An array with a stride of 0 is one number for all elements, of its own dtype.
    """
    plan = Plan(kernel, storage, register, half, outputs, summed)
    whole, (enter, leave), look = straight(plan), sharing(), watching()
    size, narrow, chains = plan.size, plan.narrow, lanes.CHAINS
    inputs, arrays, every = plan.inputs - kernel.scalars, plan.arrays, plan.inputs
    own = inputs - kernel.weights
    computed, term = narrow.of_input(own), SIZE[plan.format.name]
    piece = BUFFER // term
    space = arrays * BUFFER
    table_size, sums_size = 8 * arrays, 8 * chains
    first_array = every + 1 if summed else every
    long = max(1, PIECE // (BLOCK * size * arrays))

    @jit(intp, intp, intp, intp, intp)
    def copy(k, target, source, stride, count):  # type: ignore[no-untyped-def]
        for j in range(count):
            if k < own:
                lanes.move(narrow, target + j * size, source + j * stride)
            else:
                lanes.move(computed, target + j * term, source + j * stride)

    @jit(intp, intp, intp, intp, intp, intp)
    def lay_out(args, steps, table, buffers, i, count):  # type: ignore[no-untyped-def]
        """Where `whole` finds and puts elements i to i + count: in place, or in a buffer."""
        for k in range(inputs):
            source, stride = lanes.word(args, k) + i * lanes.word(steps, k), lanes.word(steps, k)
            direct = stride == (size if k < own else term)
            lanes.put_word(table, k, source if direct else buffers + k * BUFFER)
            if not direct and stride != 0:
                copy(k, buffers + k * BUFFER, source, stride, count)
        for k in range(every, arrays):
            direct = lanes.word(steps, k) == size and k >= first_array
            target = lanes.word(args, k) + i * lanes.word(steps, k)
            lanes.put_word(table, k, target if direct else buffers + k * BUFFER)

    @jit(intp, intp, intp, intp, intp)
    def hand_in(args, steps, buffers, i, count):  # type: ignore[no-untyped-def]
        """What is in the outputs' buffers goes to where it belongs."""
        for k in range(first_array, arrays):
            target, stride = lanes.word(args, k) + i * lanes.word(steps, k), lanes.word(steps, k)
            if stride != size:
                for j in range(count):
                    lanes.move(narrow, target + j * stride, buffers + k * BUFFER + j * size)

    @jit(intp, intp, intp, intp, intp, intp, boolean)
    def blocks(args, steps, block, last, n, data, shared):  # type: ignore[no-untyped-def]
        """Blocks of terms, one after the other, in a floating-point mode of our own, with a look at the clock now and then."""
        mode = lanes.set_float_mode(False)
        buffers, table, sums = lanes.scratch(space), lanes.scratch(table_size), lanes.scratch(sums_size)
        for k in range(inputs, every):
            lanes.put_word(table, k, lanes.word(args, k))
        for k in range(inputs):
            if lanes.word(steps, k) == 0:
                copy(k, buffers + k * BUFFER, lanes.word(args, k), 0, piece)
        since, first = UNKNOWN, block
        while block < last and since != ENDED:
            i, end = block * BLOCK, min(n, (block + 1) * BLOCK)
            lanes.clear_sums(sums)
            while i < end:
                count = min(piece, end - i)
                lay_out(args, steps, table, buffers, i, count)
                whole(lanes.addresses(narrow, table), 0, count, False)
                if summed:
                    terms = buffers + every * BUFFER
                    for j in range(count, (count + chains - 1) // chains * chains):
                        lanes.clear(narrow, terms + j * term)
                    for j in range(0, count, chains):
                        lanes.accumulate(narrow, sums, terms + j * term)
                hand_in(args, steps, buffers, i, count)
                i += count
            if summed:
                lanes.put_total(lanes.word(args, every) + 8 * block, sums)
            block += 1
            if (block - first) % long == 0 and block < last:
                since = look(data, since, shared)
        lanes.restore_float_mode(mode)

    @jit(intp, intp, intp, intp)
    def share(args, steps, n, data):  # type: ignore[no-untyped-def]
        """One thread's part, in whole blocks."""
        thread = lanes.call_address(lanes.word(data, THREAD))
        threads = lanes.call_address(lanes.word(data, THREADS))
        total = (n + BLOCK - 1) // BLOCK
        part = (total + threads - 1) // threads
        blocks(args, steps, min(total, thread * part), min(total, (thread + 1) * part), n, data, True)

    def loop(args, dims, steps, data):  # type: ignore[no-untyped-def]
        a, s, d, n = lanes.address_of(args), lanes.address_of(steps), lanes.address_of(data), dims[0]
        large = n > BLOCK
        threads = enter(d, True) if large else 1
        if threads > 1:
            lanes.team(share, lanes.word(d, START), threads, a, s, n, d)
        else:
            blocks(a, s, 0, (n + BLOCK - 1) // BLOCK, n, d, False)
        if large:
            leave(d, threads)

    return loop
