"""Any call at all: NumPy does with our functions what it does with its own, and an element's bits never depend on the call."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import ALL_DTYPES, BFLOAT16, STALE, as_tuple, assert_same, bits, inputs, is_nan, numpy_dtype
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fastsig
from fastsig import parallel
from fastsig.losses import bce_with_logits_loss, focal_loss

# NumPy's own with as many inputs and outputs and the same loops; divmod has others besides, for integers.
ORACLES = {(1, 1): np.cbrt, (1, 2): np.modf, (2, 1): np.logaddexp, (2, 2): np.divmod}
NAMES = st.sampled_from(fastsig.UFUNCS)
PAIRWISE = [n for n in fastsig.UFUNCS if (getattr(fastsig, n).nin, getattr(fastsig, n).nout) == (2, 1)]
FLOATS = [numpy_dtype(name) for name in ALL_DTYPES]
SWAPPED = [dtype.newbyteorder() for dtype in FLOATS if dtype != BFLOAT16]
INTEGERS = [np.dtype(kind) for kind in "?bBhHiq"] + [np.dtype(">i2")]
SEEDS = st.integers(0, 3)


def fuzzed(examples, **strategies):
    """A test of so many drawn cases, the same ones each time; with -m slow, of fifty times as many, new ones each time."""

    def decorate(check):
        @pytest.mark.parametrize("times", [1, pytest.param(50, marks=pytest.mark.slow)])
        def test(times):
            slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
            chosen = settings(max_examples=examples * times, derandomize=times == 1, suppress_health_check=slow)
            with np.errstate(all="ignore"):  # conversions, and NumPy's own functions
                chosen(given(**strategies)(check))()

        test.__doc__ = check.__doc__
        return test

    return decorate


# --- arrays of all kinds -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where in a buffer of `size` bytes or more the elements of an array lie."""

    shape: tuple[int, ...]
    dtype: np.dtype
    strides: tuple[int, ...]
    offset: int
    size: int

    def on(self, buffer):
        return np.ndarray(self.shape, self.dtype, buffer, self.offset, self.strides)

    def moved(self, by):
        return replace(self, offset=self.offset + by, size=self.size + by)


@st.composite
def layouts(draw, shape, dtype, steps):
    """Any order of the axes, gaps, reversed axes, and beginnings that are nobody's multiple."""
    strides, extent, reversed_by = [0] * len(shape), dtype.itemsize, 0
    for axis in draw(st.permutations(range(len(shape)))):
        step = draw(steps)
        strides[axis] = step * extent
        reversed_by += max(0, -step) * extent * max(0, shape[axis] - 1)
        extent *= max(1, abs(step) * shape[axis])
    offset = reversed_by + draw(st.sampled_from([0, 0, 0, 1, 2, 4, 8, 13]))
    return Layout(shape, dtype, tuple(strides), offset, offset + extent)


READ = st.sampled_from([1, 1, 1, 2, 3, -1, -2, 0])
WRITTEN = st.sampled_from([1, 1, 1, 2, 3, -1, -2])
SHAPES = st.one_of(
    st.lists(st.integers(0, 4), max_size=4).map(tuple),
    st.integers(0, 1200).map(lambda n: (n,)),
    st.tuples(st.integers(1, 3), st.integers(1, 400)),
)


@st.composite
def parts(draw, shape):
    """A shape that broadcasts to this one."""
    how = draw(st.sampled_from(["whole", "whole", "ones", "fewer"]))
    if how == "ones":
        return tuple(n if draw(st.booleans()) else 1 for n in shape)
    return shape[draw(st.integers(0, len(shape))) :] if how == "fewer" else shape


def filled(name, k, layout, seed):
    """An array like argument `k` of a function, laid out so."""
    array = layout.on(np.zeros(layout.size, np.uint8))
    if layout.dtype.kind in "fV":
        array[...] = inputs(name, layout.dtype.newbyteorder("="), layout.shape, seed)[k]
    else:
        array[...] = np.random.default_rng(seed).integers(0, 2 if layout.dtype.kind == "b" else 100, layout.shape)
    return array


def plain(array):
    """Native, without gaps, and NaN is np.nan: of two, a result may be either."""
    array = np.array(array, array.dtype.newbyteorder("="), order="C", copy=True, subok=False)
    if array.dtype.kind in "fV":
        array[is_nan(array)] = np.nan
    return array


@contextmanager
def past_caches(always):
    """Whether calls write past the caches, which is else for the large ones."""
    parallel.connect()
    before = parallel.WORDS[parallel.STREAM]
    parallel.WORDS[parallel.STREAM] = 0 if always else before
    try:
        yield
    finally:
        parallel.WORDS[parallel.STREAM] = before


# --- calls -------------------------------------------------------------------------------------------------------------


class Marked(np.ndarray):
    pass


@st.composite
def calls(draw):
    """A function, its arguments and its options: mostly such as are right."""
    name = draw(NAMES)
    ufunc, shape, seed = getattr(fastsig, name), draw(SHAPES), draw(SEEDS)
    kinds = st.sampled_from(FLOATS + SWAPPED + ([] if (ufunc.nin, ufunc.nout) == (2, 2) else INTEGERS))
    same = draw(st.none() | kinds)
    arrays = []
    for k in range(ufunc.nin):
        layout = draw(parts(shape).flatmap(lambda part: layouts(part, same or draw(kinds), READ)))
        arrays.append(filled(name, k, layout, seed))
        if draw(st.integers(0, 5)) == 0:
            arrays[k] = arrays[k].view(Marked)
    options = {}
    if draw(st.booleans()):
        options["dtype"] = draw(st.sampled_from(FLOATS))
    if draw(st.booleans()):
        options["casting"] = draw(st.sampled_from(["no", "equiv", "safe", "same_kind", "same_kind", "unsafe", "unsafe"]))
    if draw(st.booleans()):
        options["order"] = draw(st.sampled_from("CFAK"))
    if draw(st.integers(0, 3)) == 0:
        options["subok"] = draw(st.booleans())
    whole = np.broadcast_shapes(*(a.shape for a in arrays))
    target = draw(st.sampled_from([whole, whole, (2, *whole), (*whole, 1), whole[1:]]))
    out = [draw(st.none() | layouts(target, draw(kinds), WRITTEN)) for _ in range(ufunc.nout)]
    out = out if draw(st.booleans()) else [None] * ufunc.nout
    mask = draw(st.none() | parts(target).flatmap(lambda part: layouts(part, np.dtype(bool), READ)))
    if mask is not None and all(out):
        where = mask.on(np.zeros(mask.size, np.uint8))
        where[...] = np.random.default_rng(seed).random(where.shape) < 0.7
        options["where"] = where
    return ufunc, arrays, options, out, draw(st.booleans())


@dataclass(frozen=True)
class Outcome:
    """What came of a call: an error, or results; then with the buffers of `out`, and what is seen of results but values."""

    error: type | None
    results: tuple = ()
    buffers: tuple = ()
    seen: tuple = ()


def outcome(function, arrays, options, out):
    buffers = tuple(layout and np.full(layout.size, STALE[0], np.uint8) for layout in out)
    given = [layout and layout.on(buffer) for layout, buffer in zip(out, buffers, strict=True)]
    options = {**options, "out": tuple(given)} if any(out) else options
    try:
        returned = function(*arrays, **options)
    except (TypeError, ValueError, IndexError) as error:
        return Outcome(type(error))
    results = () if returned is None else as_tuple(returned)
    assert all(o is None or o is r for o, r in zip(given, results, strict=bool(given)))
    return Outcome(None, results, buffers, tuple((type(r), r.dtype, r.shape, r.strides) for r in results))


@fuzzed(150, call=calls())
def test_any_call(call):
    """It is refused where NumPy refuses it; else results look like NumPy's and hold what a plain call gives, not a bit else."""
    ufunc, arrays, options, out, streaming = call
    before = [a.tobytes() for a in arrays]
    theirs = outcome(ORACLES[ufunc.nin, ufunc.nout], arrays, options, out)
    with past_caches(streaming):
        ours = outcome(ufunc, arrays, options, out)
    assert ours.error == theirs.error
    assert [a.tobytes() for a in arrays] == before
    if ours.error:
        return
    assert ours.seen == theirs.seen
    native = [a.dtype.newbyteorder("=") for a in arrays]
    loop = options.get("dtype") or as_tuple(ufunc(*(np.ones(1, dtype) for dtype in native)))[0].dtype
    shape = ours.results[0].shape
    with fastsig.num_threads(1):
        want = as_tuple(ufunc(*(plain(np.broadcast_to(a, shape)).astype(loop) for a in arrays)))
    mask = np.broadcast_to(options.get("where", True), shape)
    for layout, buffer, result, wanted in zip(out, ours.buffers, ours.results, want, strict=True):
        if result.dtype.kind in "fV":  # of conversions to integers, those of NaN and of large numbers mean nothing
            assert_same(plain(result)[mask], plain(wanted.astype(result.dtype))[mask])
        if layout:
            layout.on(buffer)[mask] = 0
            expected = np.full(layout.size, STALE[0], np.uint8)
            layout.on(expected)[mask] = 0
            assert buffer.tobytes() == expected.tobytes()


# --- overlap -----------------------------------------------------------------------------------------------------------


@st.composite
def overlaps(draw):
    """A function, and layouts of its inputs and outputs in one buffer: somewhere in it, or one like another but for a shift."""
    name = draw(NAMES)
    ufunc, shape, dtype = getattr(fastsig, name), draw(SHAPES), draw(st.sampled_from(FLOATS + SWAPPED))
    found = []
    for k in range(ufunc.nargs):
        shift = draw(st.sampled_from([0, 0, 1, 2, 7, 100])) * dtype.itemsize
        alike = found and draw(st.booleans())
        layout = draw(st.sampled_from(found)) if alike else draw(layouts(shape, dtype, READ if k < ufunc.nin else WRITTEN))
        found.append(layout.moved(shift + draw(st.sampled_from([0, 0, 0, 0, 1]))))
    return ufunc, found, draw(st.booleans()), draw(st.booleans()), draw(SEEDS)


@fuzzed(120, case=overlaps())
def test_any_overlap(case):
    """As if the inputs had been copied first."""
    ufunc, found, masked, streaming, seed = case
    buffer = np.zeros(max(layout.size for layout in found) + 8, np.uint8)
    buffer[: buffer.size // 8 * 8].view(np.float64)[...] = np.random.default_rng(seed).normal(size=buffer.size // 8)
    for k, layout in enumerate(found[: ufunc.nin]):
        layout.on(buffer)[...] = inputs(ufunc.__name__, layout.dtype.newbyteorder("="), layout.shape, seed)[k]
    arrays, out = ([layout.on(buffer) for layout in some] for some in (found[: ufunc.nin], found[ufunc.nin :]))
    assume(all(0 not in a.strides or a.size < 2 for a in out))  # one that is like an input: each element in one place
    assume(len(out) == 1 or not np.may_share_memory(*out))
    mask = np.random.default_rng(seed).random(out[0].shape) < 0.7 if masked else np.ones(out[0].shape, bool)
    native = out[0].dtype.newbyteorder("=")
    with fastsig.num_threads(1):
        want = as_tuple(ufunc(*(a.astype(native, order="C", copy=True) for a in arrays)))
    outside = buffer.copy()
    with past_caches(streaming):
        ufunc(*arrays, out=tuple(out), where=mask)
    for array, wanted, layout in zip(out, want, found[ufunc.nin :], strict=True):
        assert_same(plain(array)[mask], plain(wanted)[mask])
        array[mask] = 0
        layout.on(outside)[mask] = 0
    assert buffer.tobytes() == outside.tobytes()


# --- reductions --------------------------------------------------------------------------------------------------------


@st.composite
def reductions(draw):
    """A function of two arguments, an array of at least one dimension, a method and its options."""
    name = draw(st.sampled_from(PAIRWISE))
    shape = draw(SHAPES.filter(bool))
    kinds = FLOATS + SWAPPED + INTEGERS
    array = filled(name, 0, draw(layouts(shape, draw(st.sampled_from(kinds)), READ)), draw(SEEDS))
    method = draw(st.sampled_from(["reduce", "accumulate", "reduceat"]))
    options = {"axis": draw(st.integers(-len(shape), len(shape)))}
    if draw(st.booleans()):
        options["dtype"] = draw(st.sampled_from(FLOATS))
    if method == "reduce":
        options["keepdims"] = draw(st.booleans())
    places = [draw(st.lists(st.integers(0, 12), max_size=5))] if method == "reduceat" else []
    return name, array, method, places, options, draw(st.booleans())


@fuzzed(100, case=reductions())
def test_any_reduction(case):
    """As if NumPy asked for one result after the other."""
    name, array, method, places, options, with_out = case
    ufunc = getattr(fastsig, name)
    theirs = outcome(getattr(np.logaddexp, method), [array, *places], options, ())
    ours = outcome(getattr(ufunc, method), [array, *places], options, ())
    if method == "reduce" and array.size == 0 and ours.error is ValueError and not theirs.error:
        return  # np.logaddexp has an identity
    assert ours.error == theirs.error
    if ours.error:
        return
    assert ours.seen == theirs.seen
    loop = ours.results[0].dtype
    oracle = getattr(np.frompyfunc(lambda a, b: ufunc(loop.type(a), loop.type(b)), 2, 1), method)
    objects = {key: value for key, value in options.items() if key != "dtype"}
    want = np.asarray(oracle(plain(array).astype(loop).astype(object), *places, **objects)).astype(loop)
    assert_same(plain(ours.results[0]), plain(want))
    if with_out and array.dtype == loop and want.ndim == array.ndim:
        out = np.full(want.shape[::-1], 7, loop).T
        assert getattr(ufunc, method)(array, *places, **options, out=out) is out
        assert_same(plain(out), plain(want))


@st.composite
def places(draw):
    """A function of one result, an array, where in it, and the second argument."""
    name = draw(NAMES.filter(lambda n: getattr(fastsig, n).nout == 1))
    ufunc, dtype, n = getattr(fastsig, name), draw(st.sampled_from(FLOATS + SWAPPED)), draw(st.integers(1, 40))
    array = filled(name, 0, draw(layouts((n,), dtype, WRITTEN)), draw(SEEDS))
    indices = draw(st.lists(st.integers(-n, n - 1), max_size=60))
    count = draw(st.sampled_from([1, len(indices)]))
    others = [filled(name, 1, draw(layouts((count,), draw(st.sampled_from(FLOATS)), READ)), 5)] if ufunc.nin == 2 else []
    return ufunc, array, indices, others


@fuzzed(50, case=places())
def test_any_places(case):
    """`at` takes one place after the other, the same one as often as it occurs."""
    ufunc, array, indices, others = case
    want = array.copy()
    theirs = outcome(ORACLES[ufunc.nin, 1].at, [array.copy(), np.array(indices, int), *others], {}, ())
    ours = outcome(ufunc.at, [got := array.copy(), np.array(indices, int), *others], {}, ())
    assert ours.error == theirs.error
    for i, k in enumerate(indices if ours.error is None else ()):
        want[k] = ufunc(want[k], *(np.broadcast_to(a, len(indices))[i] for a in others))
    assert_same(plain(got), plain(want))


# --- losses ------------------------------------------------------------------------------------------------------------


@st.composite
def losses(draw):
    """A loss, its arrays, and one for the gradient."""
    loss, shape, seed = draw(st.sampled_from([bce_with_logits_loss, focal_loss])), draw(SHAPES), draw(SEEDS)
    dtype = draw(st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)]))
    kinds = st.sampled_from([dtype, dtype, dtype.newbyteorder(), np.dtype(bool), np.dtype(np.int8)])
    logits = filled(
        "bce_with_logits", 0, draw(layouts(shape, draw(st.sampled_from([dtype, dtype.newbyteorder()])), READ)), seed
    )
    labels = filled("bce_with_logits", 1, draw(layouts(shape, draw(kinds), READ)), seed)
    options = {"reduction": draw(st.sampled_from(["sum", "mean"]))}
    if loss is bce_with_logits_loss:
        options["hess"] = True
    if draw(st.booleans()):
        layout = draw(parts(shape).flatmap(lambda part: layouts(part, dtype, READ)))
        options["sample_weight"] = np.abs(filled("bce_with_logits", 1, layout, seed))
    return loss, logits, labels, options, draw(st.none() | layouts(shape, dtype, WRITTEN))


@fuzzed(50, case=losses())
def test_any_loss(case):
    """The same bits as of plain arrays."""
    loss, logits, labels, options, layout = case
    weight = {key: plain(np.broadcast_to(value, logits.shape)) for key, value in options.items() if key == "sample_weight"}
    want = loss(plain(logits), plain(labels).astype(plain(logits).dtype), **{**options, **weight})
    out = layout and layout.on(np.full(layout.size, STALE[0], np.uint8))
    got = loss(logits, labels, **options, out=out)
    assert out is None or got[1] is out
    assert bits(plain(np.asarray(got[0]))) == bits(plain(np.asarray(want[0])))
    assert_same(tuple(map(plain, got[1:])), tuple(map(plain, want[1:])))
