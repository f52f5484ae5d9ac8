"""Faults: nothing outside the arrays is touched, nothing that the processor was told is changed, and nothing is left over."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import itertools
import mmap
import os
import platform
import re
import signal
import sys
import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import ALL_DTYPES, KINDS, UNSIGNED, as_tuple, assert_same, every_float16, inputs, numpy_dtype, signalling

import fastsig
from fastsig import compiler, losses, parallel
from fastsig.constants import BLOCK
from fastsig.kernels import KERNELS, TERMS
from fastsig.ufuncs import Loop

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's C library")
IMPORT = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r});"
LENGTHS = range(301)
WIDE = ("float32", "float64")


def computed_in(storage):
    return np.dtype(np.float64 if storage == "float64" else np.float32)


# --- outside the arrays ------------------------------------------------------------------------------------------------


class Guarded:
    """Whole pages of memory between two that nobody may touch."""

    def __init__(self, pages):
        size = pages * mmap.PAGESIZE
        self.mapping = mmap.mmap(-1, size + 2 * mmap.PAGESIZE)
        everything = np.frombuffer(self.mapping, np.uint8)
        self.bytes = everything[mmap.PAGESIZE : mmap.PAGESIZE + size]
        for guard in (everything.ctypes.data, self.bytes.ctypes.data + size):
            assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0  # PROT_NONE

    def array(self, dtype, n, step, end):
        """`n` elements, `step` apart, the outermost at the beginning or at the end."""
        space = self.bytes.view(dtype)
        extent = (n - 1) * abs(step) + 1 if n else 0
        return (space[len(space) - extent :] if end else space[:extent])[:: step if step > 0 or n else 1]


def assert_guarded():
    """A byte too far in either direction ends a process."""
    memory = Guarded(1)
    first = memory.bytes.ctypes.data
    for address in (first - 1, first + len(memory.bytes)):
        child = os.fork()
        if not child:
            faulthandler.disable()
            ctypes.c_char.from_address(address).value  # noqa: B018
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) in (signal.SIGSEGV, signal.SIGBUS)


def checked_in_guards(function, given, want, memories, n, step, end):
    """Call `function(inputs, outputs)` with the first `n` elements; nothing but the outputs has changed afterwards."""
    arrays = [m.array(a.dtype, n, step, end) for m, a in zip(memories, (*given, *want), strict=True)]
    for array, values in zip(arrays, given):  # noqa: B905
        array[...] = values[:n]
    expected = []
    for memory, array, values in zip(memories[len(given) :], arrays[len(given) :], want, strict=True):
        memory.bytes.fill(0xA5)
        array[...] = values[:n]
        expected.append(memory.bytes.tobytes())
        array.view(UNSIGNED[array.itemsize])[...] = 0x5A
    function(arrays[: len(given)], tuple(arrays[len(given) :]))
    for memory, bytes_ in zip(memories[len(given) :], expected, strict=True):
        assert memory.bytes.tobytes() == bytes_, (n, step, end)


def guard_functions():
    """Every function and dtype: all lengths, without gaps and with; then past the caches, and in threads."""
    memories = [Guarded(2) for _ in range(4)]
    parallel.connect()
    fastsig.set_num_threads(2)
    usual = list(parallel.WORDS)
    for name, storage in itertools.product(KERNELS, ALL_DTYPES):
        ufunc = getattr(fastsig, name)
        given = inputs(name, storage, (max(LENGTHS),))
        want = as_tuple(ufunc(*given))

        def call(arrays, out, ufunc=ufunc):
            ufunc(*arrays, out=out)

        def check(*layout, call=call, given=given, want=want):
            checked_in_guards(call, given, want, memories[: len(given) + len(want)], *layout)

        for n, step, end in itertools.product(LENGTHS, (1, 2, -3) if name in KINDS else (1, 2), (False, True)):
            check(n, step, end)
        if name in KINDS:
            parallel.WORDS[parallel.STREAM] = 0
            for n, end in itertools.product(LENGTHS, (False, True)):
                check(n, 1, end)
            parallel.WORDS[parallel.PARALLEL] = 0
            for n, step in ((65, 1), (300, 1), (300, 2)):
                check(n, step, True)
            parallel.WORDS[:] = usual


def guard_losses(weighted_too):
    """Each loss; those with weights in the named dtypes alone: for the others they are yet to be compiled."""
    for storage in ALL_DTYPES:
        dtype, weighted = numpy_dtype(storage), computed_in(storage)
        memories = [Guarded(2) for _ in range(6)]
        random = np.random.default_rng(0)
        x, t, w, c = (random.normal(0, 4, max(LENGTHS)), *random.random((3, max(LENGTHS))))
        given = [x.astype(dtype), t.astype(dtype), w.astype(weighted), c.astype(weighted)]

        def bce(a, out):
            return losses.bce_with_logits_loss(a[0], a[1], hess=True, reduction="sum", out=out)

        def weighted_bce(a, out):
            return losses.bce_with_logits_loss(
                a[0], a[1], sample_weight=a[2], pos_weight=a[3], hess=True, reduction="sum", out=out
            )

        def focal(a, out):
            return losses.focal_loss(a[0], a[1], sample_weight=a[2], reduction="sum", out=out)

        for function, number, outputs in ((bce, 2, 2), (weighted_bce, 4, 2), (focal, 3, 1)):
            if function is not bce and storage not in weighted_too:
                continue
            want = function(given, None)[1:]
            for n, step, end in itertools.product(LENGTHS, (1, 2), (False, True)):
                used = memories[:number] + memories[4 : 4 + outputs]
                checked_in_guards(function, given[:number], want, used, n, step, end)


@linux
@pytest.mark.parametrize("weighted", [WIDE, pytest.param(ALL_DTYPES, marks=pytest.mark.slow)])
def test_nothing_outside_the_arrays_is_touched(python, weighted):
    """On either side lies memory that can't be read or written."""
    python(f"{IMPORT} from test_faults import *; assert_guarded(); guard_functions(); guard_losses({weighted})", timeout=900)


# --- what the processor has been told ----------------------------------------------------------------------------------

# By processor: the word of glibc's fenv_t, the bits to clear in it and those to set.
ENVIRONMENTS = {
    "x86_64": {
        "flags": (7, 0, 0x3F),
        "subnormals are zero": (7, 0, 0x8040),
        "upward": (7, 0, 0x4000),
        "traps": (7, 0x1F80, 0),
    },
    "aarch64": {
        "flags": (1, 0, 0x1F),
        "subnormals are zero": (0, 0, 1 << 24),
        "upward": (0, 0, 1 << 22),
        "traps": (0, 0, 0x1F00),
    },
}
MACHINE = ENVIRONMENTS.get(platform.machine(), {})


class Environment:
    """The floating-point environment of this thread: modes, and flags."""

    def __init__(self):
        self.libm = ctypes.CDLL("libm.so.6")
        self.usual = self.read()
        place, _, flags = MACHINE["flags"]
        self.usual[place] &= ~flags

    def read(self):
        words = (ctypes.c_uint32 * 8)()
        assert self.libm.fegetenv(words) == 0
        return words

    def around(self, changes, call):
        """Its words before and after a call, with some things changed beforehand."""
        set_, get, before, after = self.libm.fesetenv, self.libm.fegetenv, self.read(), self.read()
        for place, clear, bits_ in (MACHINE[change] for change in changes):
            before[place] = before[place] & ~clear | bits_
        set_(before)
        get(before)
        call()
        get(after)
        set_(self.usual)
        return [[words[place] for place, _, _ in MACHINE.values()] for words in (before, after)]


def direct(address, operands, n):
    """A call of the loop itself: NumPy clears the flags before its own, and reads them afterwards."""
    loop, words = Loop(address), ctypes.c_ssize_t * len(operands)
    addresses, steps = words(*[a.ctypes.data for a in operands]), words(*[a.strides[0] for a in operands])
    count, data = ctypes.c_ssize_t(n), ctypes.addressof(parallel.WORDS)
    return lambda: loop(addresses, ctypes.byref(count), steps, data)


@cache
def address(kind, *which):
    return getattr(compiler, kind)(*which).address()


def with_signalling(array):
    """NaN that raises "invalid" wherever arithmetic meets it, at both ends and in between."""
    for place in (0, len(array) // 2, -1)[: len(array) // 3]:
        array[place] = signalling(array.dtype)[0]
    return array


def functions(n, step, names=KERNELS):
    """Each function's loop, arguments in which everything occurs, and room for results."""
    for name, storage in itertools.product(names, ALL_DTYPES):
        given = [with_signalling(np.repeat(a, step)[::step]) for a in inputs(name, storage, (n,))]
        out = [np.zeros(n * step, a.dtype)[::step] for a in given[:1] * len(KERNELS[name].outputs)]
        yield f"{name} {storage} {n} {step}", address("inner_loop", name, storage), given, out


def terms(n, step, names=None):
    """The same of each loss; there are its weights, then its numbers, and the sums of its terms come first."""
    for (name, numbers, outputs), storage in itertools.product(NUMBERS, ALL_DTYPES):
        if storage in WIDE or name == "bce_terms":
            given = [with_signalling(np.repeat(a, step)[::step]) for a in inputs("bce_with_logits", storage, (n,))]
            given += [np.linspace(0, 3, n * step, dtype=computed_in(storage))[::step]] * TERMS[name].weights
            given += [np.array([number], computed_in(storage)) for number in numbers]
            out = [np.zeros(-(-n // BLOCK)), *(np.zeros(n * step, given[0].dtype)[::step] for _ in range(outputs - 1))]
            yield f"{name} {storage} {n} {step}", address("loss_loop", name, storage, outputs, True), given, out


NUMBERS = [("bce_terms", [1.0], 3), ("weighted_bce_terms", [0.1, 1.0], 3), ("focal_terms", [0.25, 0.75, 2.0, 1.0], 2)]


def assert_environment_kept(made, n, step, settings, *names):
    """Whatever the caller's modes and flags are, they stay, and the results are the usual ones."""
    parallel.connect()
    environment = Environment()
    for what, address, given, out in made(n, step, *names):
        call = direct(address, [*given, *out], n)
        call()
        want = tuple(a.copy() for a in out)
        for changes in settings:
            for a in out:
                a[...] = 0
            before, after = environment.around(changes, call)
            assert [f"{word:x}" for word in after] == [f"{word:x}" for word in before], (what, changes)
            assert_same(tuple(out), want, (what, changes))


ALONE = [(), *((change,) for change in MACHINE)]
FLUSHED = ("subnormals are zero", "flags")


@pytest.mark.skipif(sys.platform != "linux" or not MACHINE, reason="needs glibc, on x86-64 or AArch64")
def test_modes_and_flags_of_the_caller(python):
    """None of the flags is raised and none cleared; the modes change nothing, and are kept. A trap would end the process."""
    code = f"""{IMPORT}
from test_faults import *
for made in (functions, terms):
    for n, step in ((1, 1), (40, 1), (40, 2), (300, 1), (300, 2)):
        assert_environment_kept(made, n, step, [*ALONE, tuple(MACHINE)])
    assert_environment_kept(made, 5000, 1, [FLUSHED])
    fastsig.set_num_threads(2)
    assert_environment_kept(made, 40_000, 1, [FLUSHED], KINDS)
"""
    python(code, timeout=900)


# --- what is left over -------------------------------------------------------------------------------------------------


def mixed_calls(count):
    """Calls of all kinds: with and without `out` and `where`, strided, converted, in threads, refused, and losses."""
    x, out, flags = np.linspace(-5, 5, 3000, dtype=np.float32), np.empty(3000, np.float32), np.arange(3000) % 3 == 0
    big = np.linspace(-5, 5, 80_000, dtype=np.float32)
    calls = [
        lambda: fastsig.sigmoid(x[0]),
        lambda: fastsig.sigmoid(0.5),
        lambda: fastsig.sigmoid([1, 2, 3]),
        lambda: fastsig.sigmoid(x),
        lambda: fastsig.sigmoid(x, out=out, where=flags),
        lambda: fastsig.sigmoid(x[::-2], dtype="f8"),
        lambda: fastsig.sigmoid(x.astype(">f4")),
        lambda: fastsig.sigmoid(x.reshape(50, 60).T, order="C"),
        lambda: fastsig.sigmoid_value_and_grad(x),
        lambda: fastsig.sigmoid_vjp(x[:, None][:50], x[:60]),
        lambda: fastsig.sigmoid_vjp.accumulate(x[:100]),
        lambda: fastsig.sigmoid.at(out, [1, 2, 2]),
        lambda: refused(fastsig.sigmoid, "x"),
        lambda: refused(fastsig.sigmoid, x, out=out[:7]),
        lambda: refused(losses.bce_with_logits_loss, x, out[:7]),
        lambda: losses.bce_with_logits_loss(x, 1, sample_weight=0.5, hess=True),
        lambda: losses.bce_with_logits_loss(x.reshape(50, 60).T, flags.reshape(60, 50)),
    ]
    for k in range(count):
        calls[k % len(calls)]()
        if k % 1000 == 0:
            with fastsig.num_threads(1 + k // 1000 % 2):
                fastsig.sigmoid(big, out=big)


def refused(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except (TypeError, ValueError):
        return
    raise AssertionError("not refused")


def resident():
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def growth(count):
    """By how many bytes this process grows in so many calls, and what Python itself knows of in a few more.

    The latter is the least of three: what is left by calls is left each time, what Python keeps for a while isn't.
    """
    gc.collect()
    mixed_calls(3000)
    held = resident()
    mixed_calls(count)
    grown = resident() - held
    tracemalloc.start()
    known = []
    for calls in (500, *[count // 4] * 3):
        mixed_calls(calls)
        gc.collect()
        known.append(tracemalloc.get_traced_memory()[0])
    return grown, min(after - before for before, after in itertools.pairwise(known))


@linux
@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_calls_leave_nothing_behind(python, count):
    grown, traced = map(int, python(f"{IMPORT} import test_faults; print(*test_faults.growth({count}))", timeout=3000).split())
    assert grown < 2 << 20
    assert traced < 1 << 14  # 64 bytes left by one call of ten would be twice that


# --- arrays that 32 bits can't count -----------------------------------------------------------------------------------


def available():
    """Bytes of memory that may be had."""
    found = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) << 10 if found else 0


MANY = (1 << 31) + (1 << 17) + 5


def repeated(pattern, step=1):
    """MANY elements, `step` apart: the pattern over and over."""
    array = np.empty(MANY * step, pattern.dtype)[::step]
    for i in range(0, MANY, len(pattern)):
        array[i : i + len(pattern)] = pattern[: MANY - i]
    return array


def assert_repeated(array, pattern):
    for i in range(0, MANY, len(pattern)):
        assert_same(array[i : i + len(pattern)], pattern[: MANY - i], i)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("how", ["into another", "in place", "every second", "loss"])
def test_more_elements_than_an_int_holds(how, threads):
    """Over 2^31 of float16."""
    needed = MANY * 2 * (1 if how in ("in place", "loss") else 2) + (1 << 30)
    if available() < needed:
        pytest.skip(f"needs {needed >> 30} GiB")
    x = repeated(every_float16(), 2 if how == "every second" else 1)
    with fastsig.num_threads(threads):
        if how == "loss":
            want = losses.bce_with_logits_loss(every_float16(), 1, reduction="sum")[1]
            y = losses.bce_with_logits_loss(x, 1, reduction="sum", out=x)[1]
        else:
            want = fastsig.sigmoid(every_float16())
            y = fastsig.sigmoid(x, out=None if how == "into another" else x)
    assert_repeated(y, want)
