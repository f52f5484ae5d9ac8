"""An element's result has the same bits wherever the element lies and whatever lies beside it."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import (
    ALL_DTYPES,
    STALE,
    UNSIGNED,
    as_tuple,
    assert_same,
    at_byte,
    bits,
    every_function,
    inputs,
    is_nan,
    numpy_dtype,
    specials,
    stale,
)
from hypothesis import given
from hypothesis import strategies as st

import fastsig
from fastsig import testing
from fastsig.kernels import ALIASES, KERNELS
from fastsig.parallel import LIMIT, PARALLEL, STREAM

LONGEST, OFFSETS = 300, 21
STRIDES = (1, -1, 2, 3, -2, 0)
LENGTHS = (1, 2, 3, 15, 16, 17, 31, 33, 64, 100, 255, 256, 257, 511, 512, 513, 1023, 1025)  # round masks, modes, buffers


def expected(ufunc, arrays):
    """What is to be found in each output: the result of one plain call."""
    return as_tuple(ufunc(*[np.ascontiguousarray(a) for a in arrays]))


@pytest.fixture(params=ALL_DTYPES)
def dtype(request):
    return numpy_dtype(request.param)


# --- where the element lies --------------------------------------------------------------------------------------------


def test_any_length_and_offset(ufunc, name, dtype):
    """Exhaustively; and nothing is written outside the output."""
    arrays = inputs(name, dtype, (LONGEST + OFFSETS,))
    want = [bits(a) for a in expected(ufunc, arrays)]
    untouched = bits(stale(1, dtype))
    for offset in range(OFFSETS):
        start = (5 * offset + 3) % OFFSETS  # the output's own, so that all differences of alignment occur
        out = [stale(LONGEST + OFFSETS + 50, dtype) for _ in want]
        patterns = [a.view(w.dtype) for a, w in zip(out, want, strict=True)]
        for n in range(LONGEST + 1):
            for pattern in patterns:
                pattern[:] = untouched
            ufunc(*[a[offset : offset + n] for a in arrays], out=tuple(a[start : start + n] for a in out))
            for pattern, wanted in zip(patterns, want, strict=True):
                assert (pattern[start : start + n] == wanted[offset : offset + n]).all(), (n, offset)
                assert (pattern[:start] == untouched).all(), (n, offset)
                assert (pattern[start + n :] == untouched).all(), (n, offset)


def test_one_at_a_time(ufunc, name, dtype):
    arrays = inputs(name, dtype)
    want = expected(ufunc, arrays)
    single = [as_tuple(ufunc(*column)) for column in zip(*arrays, strict=True)]
    assert_same(tuple(np.array(column) for column in zip(*single, strict=True)), want)


@pytest.mark.parametrize("into", [s for s in STRIDES if s])
@pytest.mark.parametrize("stride", STRIDES)
def test_any_stride(ufunc, name, dtype, stride, into):
    for n in LENGTHS:
        arrays = [np.resize(a, 1 + abs(stride) * n) for a in inputs(name, dtype, seed=n)]
        views = [np.lib.stride_tricks.as_strided(a[-1:] if stride < 0 else a, (n,), (stride * a.itemsize,)) for a in arrays]
        want = expected(ufunc, views)
        space = [stale(abs(into) * n + 1, dtype) for _ in want]
        out = tuple((s[::-1] if into < 0 else s)[: abs(into) * n : abs(into)] for s in space)
        ufunc(*views, out=out)
        assert_same(out, want, f"{n} elements,")
        for o, s in zip(out, space, strict=True):
            o[...] = stale(1, dtype)
            assert s.tobytes() == STALE * s.nbytes, f"{n} elements"
        if ufunc.nin == 2:
            assert_same(ufunc(views[0], views[1].copy()), want)
            assert_same(ufunc(views[0].copy(), views[1]), want)


@pytest.mark.parametrize("n", [40, 300])
def test_any_byte_address(ufunc, name, dtype, n):
    arrays = inputs(name, dtype, (n,))
    want = expected(ufunc, arrays)
    for byte in range(64):
        out = tuple(at_byte(a, 63 - byte) for a in want)
        ufunc(*[at_byte(a, (byte + 16 * k) % 64) for k, a in enumerate(arrays)], out=out)
        assert_same(out, want, f"byte {byte},")


# --- what lies beside it -----------------------------------------------------------------------------------------------


@given(data=st.data())
def test_no_neighbour_matters(data):
    """Any numbers, in any order, any number of times."""
    name, dtype = data.draw(st.sampled_from(fastsig.UFUNCS)), numpy_dtype(data.draw(st.sampled_from(ALL_DTYPES)))
    ufunc, width = getattr(fastsig, name), 32 if dtype.name == "bfloat16" else 8 * dtype.itemsize
    numbers = st.floats(width=width, allow_nan=False, allow_infinity=True) | st.just(np.nan) | st.floats(-20, 20, width=width)
    rows = st.lists(st.tuples(*[numbers] * ufunc.nin), min_size=1, max_size=80)
    with np.errstate(over="ignore"):  # a float32 that is none of bfloat16
        arrays = [np.array(a, dtype) for a in zip(*data.draw(rows), strict=True)]
    order = data.draw(st.lists(st.integers(0, len(arrays[0]) - 1), max_size=400))
    want = tuple(a[order] for a in as_tuple(ufunc(*arrays)))
    assert_same(ufunc(*[a[order] for a in arrays]), want)


@pytest.mark.parametrize("beside", [np.nan, np.inf, -np.inf, 1e4, -88.0, -104.0, -709.0, -746.0])
def test_blocks_with_and_without_tails(ufunc, name, dtype, beside):
    """Loops may take a shorter way where a whole block of arguments is ordinary: not to other bits."""
    random = np.random.default_rng(0)
    arrays = [random.uniform(-86, 86, 20_000).astype(dtype) for _ in range(ufunc.nin)]
    want = expected(ufunc, arrays)
    mixed = [a.copy() for a in arrays]
    for array in mixed:
        array[::16] = beside
    got = as_tuple(ufunc(*mixed))
    keep = np.arange(20_000) % 16 != 0
    assert_same(tuple(a[keep] for a in got), tuple(a[keep] for a in want))


def nans(dtype):
    """Quiet and signalling ones, with payloads and of both signs, as far as two of each."""
    unsigned = UNSIGNED[dtype.itemsize]
    infinity, digits = int(np.array(np.inf, dtype).view(unsigned)), testing.finfo(dtype).nmant
    quiet, sign = infinity | 1 << (digits - 1), 1 << (8 * dtype.itemsize - 1)
    return np.array([quiet | 1, quiet | 2 | sign, infinity | 3, infinity | 4 | sign], unsigned).view(dtype)


def test_nan_stays_itself_wherever_it_lies(ufunc, dtype):
    """Which NaN comes out may not depend on the place either; where two of them meet, it may be either."""
    candidates = np.concatenate([nans(dtype), np.array([0, 1, -2, np.inf], dtype)])
    grid = [a.ravel() for a in np.meshgrid(*[candidates] * ufunc.nin)]
    alone = np.sum([is_nan(a) for a in grid], axis=0) < 2
    grid = [a[alone] for a in grid]
    long = [np.resize(a, 40 * len(candidates) ** 2) for a in grid]
    want = expected(ufunc, long)
    for result in want:
        assert is_nan(result[np.any([is_nan(a) for a in long], axis=0)]).all()
    for n in range(1, LONGEST):
        assert_same(ufunc(*[a[:n] for a in long]), tuple(a[:n] for a in want), f"{n} elements,")


# --- in place, masked, shared out, streamed ------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [*LENGTHS, 5000, 100_003])
def test_in_place(ufunc, name, dtype, n):
    for i in range(ufunc.nin):
        for o in range(ufunc.nout):
            arrays = inputs(name, dtype, (n,))
            want = expected(ufunc, arrays)
            out = [np.empty_like(a) for a in want]
            out[o] = arrays[i]
            ufunc(*arrays, out=tuple(out))
            assert_same(tuple(out), want)


@pytest.mark.parametrize("n", [*LENGTHS, 5000, 100_003])
def test_where(ufunc, name, dtype, n):
    arrays = inputs(name, dtype, (n,))
    want = expected(ufunc, arrays)
    for share in (0.1, 0.5, 0.99):
        mask = np.random.default_rng(n).random(n) < share
        out = tuple(stale(n, dtype) for _ in want)
        ufunc(*arrays, out=out, where=mask)
        assert_same(out, tuple(np.where(mask, a, stale(n, dtype)) for a in want))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [5000, 16_384, 50_001])
def test_any_number_of_threads(ufunc, name, dtype, words, threads, n):
    """Contiguous, strided and in place; small calls are made large ones, so that the parts are of all kinds."""
    arrays = inputs(name, dtype, (n,))
    words[LIMIT] = 1
    want = expected(ufunc, arrays)
    words[LIMIT], words[PARALLEL] = threads, 0
    assert_same(ufunc(*arrays), want)
    assert_same(ufunc(*[a[::-1].copy()[::-1] for a in arrays]), want)
    assert_same(ufunc(*arrays, out=(arrays[0], *[np.empty_like(a) for a in want[1:]])), want)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n", [1, 63, 500, 3001])
def test_streaming(ufunc, name, dtype, words, threads, n):
    """Writing past the caches begins at a line: whatever comes before and after it is right, and nothing else is written."""
    arrays = inputs(name, dtype, (n,))
    want = expected(ufunc, arrays)
    words[STREAM], words[LIMIT] = 0, threads
    words[PARALLEL] = 0 if threads > 1 else 1 << 60
    itemsize, untouched = dtype.itemsize, bits(stale(1, dtype))
    for start in range(0, 64 + itemsize, itemsize):
        for apart in (0, itemsize):  # two outputs: lines that begin together, and that don't
            out = [at_byte(stale(n + 200, dtype), (k * apart) % 64) for k in range(ufunc.nout)]
            inside = tuple(a[start // itemsize :][:n] for a in out)
            ufunc(*[at_byte(a, (3 * start + 8 * k) % 64) for k, a in enumerate(arrays)], out=inside)
            assert_same(inside, want, f"byte {start},")
            for a, view in zip(out, inside, strict=True):
                view.view(untouched.dtype)[...] = untouched
                assert a.tobytes() == STALE * a.nbytes, start
    copies = [a.copy() for a in arrays]
    ufunc(*copies, out=(copies[0], *[np.empty_like(a) for a in want[1:]]))
    assert_same(copies[0], want[0], "in place,")


def test_streaming_shows_at_once(ufunc, name, dtype, words):
    """What one thread streams, the caller reads when the call is over."""
    words[STREAM] = words[PARALLEL] = 0
    arrays = inputs(name, dtype, (200_000,))
    want, out = expected(ufunc, arrays), tuple(stale(200_000, dtype) for _ in range(ufunc.nout))
    for _ in range(20):
        for a in out:
            a[...] = 0
        ufunc(*arrays, out=out)
        assert_same(out, want)


GUARDED = """if True:
    import ctypes, mmap, pathlib, sys
    sys.path.insert(0, sys.argv[1])
    import numpy as np, fastsig
    from conftest import ALL_DTYPES, KINDS, as_tuple, assert_same, inputs, numpy_dtype
    from fastsig import parallel

    PAGE, INSIDE = mmap.PAGESIZE, 8 * mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)

    def fenced():
        '''Bytes between two pages that may be neither read nor written.'''
        space = mmap.mmap(-1, INSIDE + 2 * PAGE)
        first = np.frombuffer(space, np.uint8).ctypes.data
        for fence in (first, first + PAGE + INSIDE):
            assert libc.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(PAGE), 0) == 0
        return np.frombuffer(space, np.uint8)[PAGE : PAGE + INSIDE]

    spaces = [fenced() for _ in range(4)]

    def at_start(space, dtype, n):
        return space[: n * dtype.itemsize].view(dtype)

    def at_end(space, dtype, n):
        return space[len(space) - n * dtype.itemsize :].view(dtype)

    def check(lengths, steps):
        for name in KINDS:
            ufunc = getattr(fastsig, name)
            for dtype in map(numpy_dtype, ALL_DTYPES):
                full = inputs(name, dtype, (max(lengths),))
                wanted = as_tuple(ufunc(*full))
                for n in lengths:
                    for step in steps:
                        for place in (at_start, at_end):
                            views = [place(s, dtype, (n - 1) * step + 1 if n else 0)[::step] for s in spaces[: ufunc.nargs]]
                            for view, array in zip(views, full):
                                view[...] = array[:n]
                            ufunc(*views)
                            assert_same(tuple(views[ufunc.nin :]), tuple(w[:n] for w in wanted), (name, dtype, n, step))

    check(range(301), (1,))
    check(range(0, 301, 7), (2, 5))
    parallel.WORDS[parallel.STREAM] = parallel.WORDS[parallel.PARALLEL] = 0
    check((*range(0, 301, 3), *range(1000, 1033), 4000), (1,))
    print("whole")
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs mprotect")
def test_nothing_outside_is_touched(python):
    """Not even read: arrays that end, or begin, at a page to which there is no access."""
    assert python(GUARDED, __file__.rsplit("/", 1)[0]) == "whole"


# --- every function in every way ---------------------------------------------------------------------------------------


@every_function
def test_the_ways_through_a_loop_agree(ufunc, name, dtype, words):
    """Each of them at one size: what the tests above try at many for one function of each kind."""
    n = 3000
    arrays = inputs(name, dtype, (n,))
    words[LIMIT] = 1
    want = expected(ufunc, arrays)
    assert_same(
        tuple(
            np.concatenate(a)
            for a in zip(*[as_tuple(ufunc(*[a[k : k + 60] for a in arrays])) for k in range(0, n, 60)], strict=True)
        ),
        want,
        "short,",
    )
    assert_same(ufunc(*[np.repeat(a, 2)[::2] for a in arrays]), want, "every second,")
    assert_same(ufunc(*[a[::-1].copy()[::-1] for a in arrays]), want, "reversed,")
    copy = arrays[0].copy()
    assert_same(ufunc(copy, *arrays[1:], out=(copy, *[np.empty_like(a) for a in want[1:]])), want, "in place,")
    mask = np.arange(n) % 3 > 0
    out = tuple(stale(n, dtype) for _ in want)
    ufunc(*arrays, out=out, where=mask)
    assert_same(out, tuple(np.where(mask, a, stale(n, dtype)) for a in want), "where,")
    words[LIMIT], words[PARALLEL] = 2, 0
    assert_same(ufunc(*arrays), want, "two threads,")
    words[STREAM] = 0
    assert_same(ufunc(*arrays), want, "streaming,")


# --- between functions -------------------------------------------------------------------------------------------------

# What a function's bits are, in terms of others.
IDENTITIES = {
    **{
        f"{base}_value_and_grad": lambda x, base=base: (getattr(fastsig, base)(x), getattr(fastsig, f"{base}_grad")(x))
        for base in ("sigmoid", "softplus", "log_sigmoid", "silu", "tanh")
    },
    **{alias: lambda x, meant=meant: getattr(fastsig, meant)(x) for alias, meant in ALIASES.items()},
    "softplus_grad": lambda x: fastsig.sigmoid(x),
    "log_sigmoid": lambda x: -fastsig.softplus(-x),
    "log_sigmoid_grad": lambda x: fastsig.sigmoid(-x),
    "bce_with_logits_value_and_grad": lambda x, t: (fastsig.bce_with_logits(x, t), fastsig.bce_with_logits_grad(x, t)),
    "bce_with_logits_grad_and_hess": lambda x, t: (fastsig.bce_with_logits_grad(x, t), fastsig.sigmoid_grad(x)),
    "tanh": lambda x: -fastsig.tanh(-x),
    "sigmoid_grad": lambda x: fastsig.sigmoid_grad(-x),
    "tanh_grad": lambda x: fastsig.tanh_grad(-x),
    "sigmoid_derivative": lambda y: fastsig.sigmoid_backward(y.dtype.type(1), y),
    "tanh_derivative": lambda y: fastsig.tanh_backward(y.dtype.type(1), y),
}


def without_nan(results, arrays):
    """What is no NaN's: of which sign one is says nothing."""
    number = ~np.any([is_nan(a) for a in arrays], axis=0)
    return tuple(a[number] for a in as_tuple(results))


def arguments(name, dtype):
    """All of float16 and bfloat16; of the wider ones, every special number and many of all kinds."""
    ufunc = getattr(fastsig, name)
    if dtype.itemsize == 2 and ufunc.nin == 1:
        return [np.arange(2**16, dtype=np.uint16).view(dtype)]
    special = specials(dtype)
    first = inputs(name, dtype, (200_000,))
    return [np.concatenate([np.resize(np.roll(special, 7 * k), 4000), a]) for k, a in enumerate(first)]


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities(name, ufunc, dtype):
    arrays = arguments(name, dtype)
    assert_same(without_nan(ufunc(*arrays), arrays), without_nan(IDENTITIES[name](*arrays), arrays))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in IDENTITIES if getattr(fastsig, n).nin == 1 and n not in ALIASES])
def test_identities_for_every_float32(name, ufunc):
    for x in testing.spaced(np.float32, 1):
        assert_same(without_nan(ufunc(x), [x]), without_nan(IDENTITIES[name](x), [x]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_monotone_over_every_float32(name, ufunc):
    """From each number to the next one, on either side of zero, and across it."""
    last = 0x7F800000  # infinity
    for begin in range(0, last, 1 << 20):
        x = np.arange(begin, min(begin + (1 << 20), last) + 1, dtype=np.uint32).view(np.float32)
        assert (np.diff(ufunc(x)) >= 0).all(), begin
        assert (np.diff(ufunc(-x)) <= 0).all(), begin
    assert ufunc(np.float32(-0.0)) <= ufunc(np.float32(0))


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_monotone(name, ufunc, dtype):
    (x,) = arguments(name, dtype)
    x = np.sort(x[~is_nan(x)].astype(np.float64)).astype(dtype)
    assert (np.diff(ufunc(x).astype(np.float64)) >= 0).all()


@pytest.mark.parametrize("name", [n for n in KERNELS if n.endswith("_vjp")])
def test_vjp_is_odd_in_g(name, ufunc, dtype):
    """Zeros included; and where the derivative is even, it is even in x, with the sign of g."""
    x, g = inputs(name, dtype, (200_000,))
    g[::10] = 0
    want = ufunc(x, g)
    number = ~is_nan(want)
    assert_same(-ufunc(x, -g)[number], want[number])
    if name in ("sigmoid_vjp", "tanh_vjp"):
        assert_same(ufunc(-x, g)[number], want[number])
        np.testing.assert_array_equal(np.signbit(want[number]), np.signbit(g[number]))
