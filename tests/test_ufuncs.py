"""The public functions are NumPy's own kind of function: whatever `numpy.exp` does with its arguments, they do."""

from __future__ import annotations

import copy
import ctypes
import doctest
import itertools
import pickle
import platform
import pydoc
import re

import numpy as np
import pytest
from conftest import (
    ALL_DTYPES,
    DTYPES,
    EACH_KIND,
    STALE,
    as_tuple,
    assert_same,
    at_byte,
    bits,
    every_float16,
    every_function,
    inputs,
    kernel_of,
    numpy_dtype,
    signalling,
    specials,
    stale,
)

import fastsig
from fastsig.kernels import ALIASES, KERNELS

NUMBERS = ("?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d")  # all of NumPy's that have a loop
# NumPy's own with loops for e, f, d and nothing else real; with two inputs and two outputs, that is so for floats only
ORACLES = {(1, 1): np.cbrt, (1, 2): np.modf, (2, 1): np.logaddexp, (2, 2): np.divmod}
BIG = 100_000  # elements: enough to be shared out to threads


def oracle_of(ufunc):
    return ORACLES[ufunc.nin, ufunc.nout]


# --- what they are -----------------------------------------------------------------------------------------------------


def test_every_kernel_is_public():
    assert {*KERNELS, *ALIASES} == set(fastsig.UFUNCS)
    assert set(fastsig.__all__) <= set(dir(fastsig))
    with pytest.raises(AttributeError, match=r"fastsig.*sigmoidal"):
        fastsig.sigmoidal  # noqa: B018


@every_function
def test_is_a_ufunc(name, ufunc):
    kernel = kernel_of(name)
    assert type(ufunc) is np.ufunc
    assert getattr(fastsig, name) is ufunc
    assert (ufunc.nin, ufunc.nout) == (len(kernel.inputs), len(kernel.outputs))
    assert ufunc.types == [f"{c * ufunc.nin}->{c * ufunc.nout}" for c in "efd"]
    assert ufunc.signature is None
    assert ufunc.identity is None


@every_function
def test_name_and_place(name, ufunc):
    assert ufunc.__name__ == ufunc.__qualname__ == name
    assert ufunc.__module__ == "fastsig"
    assert repr(ufunc) == f"<ufunc '{name}'>"


@every_function
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_to_itself(ufunc, protocol):
    assert pickle.loads(pickle.dumps(ufunc, protocol)) is ufunc


@every_function
def test_copies_to_itself(ufunc):
    assert copy.copy(ufunc) is ufunc
    assert copy.deepcopy([ufunc])[0] is ufunc


# --- documentation -----------------------------------------------------------------------------------------------------


def sections(text):
    """The sections of a numpydoc text, by their headings."""
    parts = re.split(r"\n(\w+)\n(-{3,})\n", "\n" + text)
    for heading, rule in zip(parts[1::3], parts[2::3], strict=True):
        assert len(heading) == len(rule), heading
    return dict(zip(parts[1::3], parts[3::3], strict=True))


@every_function
def test_docstring_is_complete(name, ufunc):
    kernel, found = kernel_of(name), sections(ufunc.__doc__)
    assert list(found) == ["Parameters", "Returns", "Raises", "Notes", "Examples"]
    for parameter in (*kernel.inputs, "out", "where"):
        assert re.search(rf"^{parameter} : \w+", found["Parameters"], re.MULTILINE), parameter
    for result in kernel.outputs:
        assert re.search(rf"^{result} : ndarray or scalar$", found["Returns"], re.MULTILINE), result
    assert re.search(r"^TypeError$", found["Raises"], re.MULTILINE)
    assert re.search(rf"fastsig\.{name}\(", found["Examples"])


@every_function
def test_docstring_fits_the_page(ufunc):
    assert max(map(len, ufunc.__doc__.splitlines()[1:])) <= 128  # the first line is NumPy's


@every_function
def test_docstring_states_the_bounds(name, ufunc):
    notes = sections(ufunc.__doc__)["Notes"]
    assert set(kernel_of(name).ulp) == {*DTYPES, "bfloat16"}
    for dtype, bound in kernel_of(name).ulp.items():
        assert f"{bound:g} ULP in {dtype}" in notes


@every_function
def test_help(name, ufunc):
    text = pydoc.plain(pydoc.render_doc(ufunc))
    assert name in text
    assert ufunc.__doc__.splitlines()[0] in text


@every_function
def test_examples(name, ufunc):
    """doctest doesn't collect ufuncs by itself."""
    test = doctest.DocTestParser().get_doctest(ufunc.__doc__, {}, name, None, None)
    assert len(test.examples) >= 2
    report = []
    doctest.DocTestRunner().run(test, out=report.append)
    assert not report, "".join(report)


# --- dtypes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NUMBERS)
def test_result_dtype_of_one_input(kind):
    want = np.exp(np.ones(3, kind)).dtype
    for name in fastsig.UFUNCS:
        ufunc = getattr(fastsig, name)
        if ufunc.nin == 1:
            assert {r.dtype for r in as_tuple(ufunc(np.ones(3, kind)))} == {want}, name


def first_safe(*kinds):
    """NumPy's search: the first loop to which every input casts safely."""
    return next(np.dtype(loop) for loop in "efd" if all(np.can_cast(kind, loop, "safe") for kind in kinds))


@pytest.mark.parametrize("kinds", list(itertools.product(NUMBERS, repeat=2)), ids="".join)
def test_result_dtype_of_two_inputs(kinds):
    arrays = [np.ones(3, kind) for kind in kinds]
    want = first_safe(*kinds)
    assert np.logaddexp(*arrays).dtype == want
    for name in fastsig.UFUNCS:
        ufunc = getattr(fastsig, name)
        if ufunc.nin == 2:
            assert {r.dtype for r in as_tuple(ufunc(*arrays))} == {want}, name


@pytest.mark.parametrize("scalar", [2, 2.0, True, np.float32(2), np.float64(2), np.int8(2), np.int64(2)], ids=repr)
@pytest.mark.parametrize("name", ["sigmoid_vjp", "sigmoid_backward", "bce_with_logits"])
def test_result_dtype_with_a_scalar(name, scalar, dtype):
    """Python's numbers are weak, NumPy's are not."""
    array = np.ones(3, dtype)
    for arguments in ((array, scalar), (scalar, array), (scalar, scalar)):
        assert getattr(fastsig, name)(*arguments).dtype == np.logaddexp(*arguments).dtype


@pytest.mark.parametrize("kind", NUMBERS)
def test_integers_are_converted_first(ufunc, kind):
    limits = (0, 1) if kind == "?" else (0, 1, 100)
    array = np.array(limits, kind)
    converted = array.astype(first_safe(kind))
    assert_same(ufunc(*[array] * ufunc.nin), ufunc(*[converted] * ufunc.nin))


def outcome(call):
    """The dtypes of the results, or the type of what is raised."""
    try:
        return [r.dtype for r in as_tuple(call())]
    except (TypeError, ValueError) as error:
        return type(error)


@pytest.mark.parametrize("casting", ["no", "equiv", "safe", "same_kind", "unsafe"])
def test_dtype_and_casting_as_numpy_has_them(ufunc, casting):
    for kind, wanted in itertools.product(NUMBERS, DTYPES):
        arrays = [np.ones(3, kind)] * ufunc.nin
        oracle = ORACLES[2, 1] if ufunc.nin == 2 else oracle_of(ufunc)
        want = outcome(lambda: oracle(*arrays, dtype=wanted, casting=casting))  # noqa: B023
        want = want * ufunc.nout if ufunc.nin == 2 and isinstance(want, list) else want
        assert outcome(lambda: ufunc(*arrays, dtype=wanted, casting=casting)) == want, (kind, wanted)  # noqa: B023


@pytest.mark.parametrize("wanted", DTYPES)
def test_dtype_chooses_the_loop(name, ufunc, dtype, wanted):
    arrays = [np.nan_to_num(a, posinf=4, neginf=-4).clip(-6e4, 6e4) for a in inputs(name, dtype)]
    with np.errstate(under="ignore"):  # NumPy's own conversion may underflow
        converted = [a.astype(wanted) for a in arrays]
        assert_same(ufunc(*arrays, dtype=wanted), ufunc(*converted))
        assert_same(ufunc(*arrays, signature=(np.dtype(wanted),) * ufunc.nargs), ufunc(*converted))


def test_wider_and_narrower_out(name, ufunc, dtype):
    arrays = inputs(name, dtype)
    want = as_tuple(ufunc(*arrays))
    for other in DTYPES:
        out = tuple(np.empty(a.shape, other) for a in want)
        with np.errstate(all="ignore"):  # NumPy's own conversion of the result
            ufunc(*arrays, out=out)
            assert_same(out, tuple(a.astype(other) for a in want))


# --- layouts -----------------------------------------------------------------------------------------------------------


def in_a_record(array):
    """One field of packed records: neither aligned nor without gaps."""
    records = np.zeros(array.shape, np.dtype([("before", "i1"), ("it", array.dtype), ("after", "i2")]))
    records["it"] = array
    return records["it"]


def padded(array):
    """The inside of a larger array."""
    space = np.zeros([n + 5 for n in array.shape], array.dtype)
    inside = space[tuple(slice(2, n + 2) for n in array.shape)]
    inside[...] = array
    return inside


def spread(array, step):
    """Every `step`th element of a larger array, along each axis."""
    space = np.zeros([n * abs(step) for n in array.shape], array.dtype)
    view = space[tuple(slice(None, None, step) for _ in array.shape)]
    view[...] = array
    return view


LAYOUTS = {
    "contiguous": np.copy,
    "reversed": lambda a: spread(a, -1),
    "every second": lambda a: spread(a, 2),
    "every third, reversed": lambda a: spread(a, -3),
    "Fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "padded": padded,
    "in a record": in_a_record,
    "misaligned": lambda a: at_byte(a, 1),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
}
SHAPES = [(37,), (1000,), (9000,), (1, 300), (300, 1), (7, 0, 3), (40, 33), (5, 1, 6, 7)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_of_any_layout(ufunc, name, dtype, layout, shape):
    arrays = inputs(name, dtype, shape)
    views = [LAYOUTS[layout](a) for a in arrays]
    for view, array in zip(views, arrays, strict=True):
        assert_same(view.astype(dtype), array)
        view.setflags(write=False)
    want = ufunc(*arrays)
    assert_same(ufunc(*views), want)
    if len(views) == 2:
        assert_same(ufunc(views[0], arrays[1]), want)
        assert_same(ufunc(arrays[0], views[1]), want)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_of_any_layout(ufunc, name, dtype, layout, shape):
    arrays = inputs(name, dtype, shape)
    want = as_tuple(ufunc(*arrays))
    out = tuple(LAYOUTS[layout](np.ones(shape, dtype)) for _ in want)
    returned = as_tuple(ufunc(*arrays, out=out))
    assert all(r is o for r, o in zip(returned, out, strict=True))
    assert_same(tuple(o.astype(dtype) for o in out), want)


def test_all_ways_to_give_out(ufunc, name, dtype):
    arrays = inputs(name, dtype)
    want = as_tuple(ufunc(*arrays))
    positional = [np.empty_like(a) for a in want]
    ufunc(*arrays, *positional)
    assert_same(tuple(positional), want)
    if len(want) == 1:
        single = np.empty_like(want[0])
        assert ufunc(*arrays, out=single) is single
        assert_same(single, want)
    else:
        second = np.empty_like(want[1])
        assert_same(ufunc(*arrays, out=(None, second)), want)
        assert_same(second, want[1])


@pytest.mark.parametrize(
    "shapes", [((4, 1), (1, 5)), ((), (6,)), ((3, 1, 5), (4, 1)), ((300, 1), (1, 300)), ((1,), (0,))], ids=str
)
@pytest.mark.parametrize("name", ["sigmoid_vjp", "bce_with_logits_value_and_grad"])
def test_broadcasting(name, ufunc, dtype, shapes):
    arrays = [inputs(name, dtype, shape, seed=k)[k] for k, shape in enumerate(shapes)]
    for pair in (arrays, arrays[::-1]):
        full = [np.ascontiguousarray(a) for a in np.broadcast_arrays(*pair)]
        assert_same(ufunc(*pair), ufunc(*full))
    with pytest.raises(ValueError, match="could not be broadcast together"):
        ufunc(np.ones(3, dtype), np.ones(4, dtype))


def test_broadcast_to_out(ufunc, name, dtype):
    arrays = inputs(name, dtype, (5,))
    want = as_tuple(ufunc(*arrays))
    out = tuple(np.empty((3, 5), dtype) for _ in want)
    ufunc(*arrays, out=out)
    assert_same(out, tuple(np.stack([a] * 3) for a in want))


def test_zero_stride(ufunc, name, dtype):
    for column in zip(*inputs(name, dtype, (50,)), strict=True):
        views = [np.broadcast_to(number, (300,)) for number in column]
        assert_same(ufunc(*views), ufunc(*[v.copy() for v in views]))


@pytest.mark.parametrize("order", "CFAK")
@pytest.mark.parametrize("layout", ["contiguous", "Fortran", "every second", "padded"])
def test_order_of_the_result(ufunc, name, dtype, order, layout):
    views = [LAYOUTS[layout](a) for a in inputs(name, dtype, (4, 6, 5))]
    results, wanted = (as_tuple(f(*views, order=order)) for f in (ufunc, quietly(oracle_of(ufunc))))
    assert [r.strides for r in results] == [w.strides for w in wanted]
    assert_same(results, ufunc(*[np.ascontiguousarray(v) for v in views]))


def quietly(function):
    def call(*arguments, **options):
        with np.errstate(all="ignore"):
            return function(*arguments, **options)

    return call


def test_scalars(ufunc, name, dtype):
    """Nothing but numbers in, numbers out: not arrays of no dimensions."""
    columns = list(zip(*inputs(name, dtype, (200,)), strict=True))
    for column in columns:
        want = tuple(a[0] for a in as_tuple(ufunc(*[np.array([c]) for c in column])))
        for arguments in (column, [np.array(c) for c in column]):
            results = as_tuple(ufunc(*arguments))
            assert all(type(r) is dtype.type for r in results)
            assert_same(results, want)
        out = tuple(np.empty((), dtype) for _ in want)
        assert all(r is o for r, o in zip(as_tuple(ufunc(*column, out=out)), out, strict=True))
        assert_same(out, want)


def test_python_numbers_and_lists(ufunc):
    assert all(type(r) is np.float64 for r in as_tuple(ufunc(*[0.5] * ufunc.nin)))
    nested = [[0.25, 0.5], [0.75, 1.0]]
    assert_same(ufunc(*[nested] * ufunc.nin), ufunc(*[np.array(nested)] * ufunc.nin))


def test_nothing(ufunc, dtype):
    for shape in ((0,), (0, 5), (5, 0), (2, 0, 2)):
        for result in as_tuple(ufunc(*[np.empty(shape, dtype)] * ufunc.nin)):
            assert (result.shape, result.dtype) == (shape, dtype)


# --- where -------------------------------------------------------------------------------------------------------------


def masks(shape):
    random = np.random.default_rng(3)
    yield "all", np.ones(shape, bool)
    yield "none", np.zeros(shape, bool)
    yield "scalar", np.array(True)
    for share in (0.01, 0.5, 0.99):
        yield f"{share}", random.random(shape) < share
    yield "runs", np.add.outer(np.arange(shape[0]) // 3, np.arange(shape[1]) // 70) % 2 == 0
    yield "broadcast", random.random((shape[0], 1)) < 0.5
    yield "strided", (random.random((2 * shape[0], 3 * shape[1])) < 0.5)[::2, ::-3]


@pytest.mark.parametrize("layout", ["contiguous", "every second", "Fortran", "misaligned", "byte-swapped"])
def test_where(ufunc, name, dtype, layout):
    """Inside the mask it is what it would be without, outside nothing is written."""
    shape = (20, 411)
    arrays = inputs(name, dtype, shape)
    want = as_tuple(ufunc(*arrays))
    before = stale(arrays[0].size, dtype).reshape(shape)
    for what, mask in masks(shape):
        out = tuple(LAYOUTS[layout](before) for _ in want)
        ufunc(*[LAYOUTS[layout](a) for a in arrays], out=out, where=mask)
        expected = tuple(np.where(mask, bits(a), bits(before)) for a in want)
        for got, wanted in zip(out, expected, strict=True):
            np.testing.assert_array_equal(bits(got.astype(dtype)), wanted, err_msg=what)


def test_where_in_place_and_large(ufunc, name, dtype):
    arrays = inputs(name, dtype, (BIG,))
    mask = np.random.default_rng(0).random(BIG) < 0.9
    mask[: BIG // 2] = True  # NumPy hands over runs of it whole
    want = tuple(np.where(mask, a, arrays[0]) for a in as_tuple(ufunc(*arrays)))
    for k, wanted in enumerate(want):
        out = [np.empty_like(wanted) for _ in want]
        out[k] = arrays[0].copy()
        ufunc(out[k], *arrays[1:], out=tuple(out), where=mask)
        assert_same(out[k], wanted)


# --- overlap -----------------------------------------------------------------------------------------------------------

OVERLAPS = {  # of a buffer of 2n elements: where the input lies, and where the output
    "in place": lambda n: (slice(0, n), slice(0, n)),
    "reversed in place": lambda n: (slice(0, n), slice(n - 1, None, -1)),
    "both reversed": lambda n: (slice(n - 1, None, -1), slice(n - 1, None, -1)),
    "input 1 ahead": lambda n: (slice(1, n + 1), slice(0, n)),
    "input 100 ahead": lambda n: (slice(100, n + 100), slice(0, n)),
    "input half ahead": lambda n: (slice(n // 2, n + n // 2), slice(0, n)),
    "output 1 ahead": lambda n: (slice(0, n), slice(1, n + 1)),
    "output 100 ahead": lambda n: (slice(0, n), slice(100, n + 100)),
    "output half ahead": lambda n: (slice(0, n), slice(n // 2, n + n // 2)),
    "reversed, input 1 ahead": lambda n: (slice(n - 1, None, -1), slice(n, 0, -1)),
    "reversed, output 1 ahead": lambda n: (slice(n, 0, -1), slice(n - 1, None, -1)),
    "even to odd": lambda n: (slice(0, 2 * n, 2), slice(1, 2 * n, 2)),
    "odd to even": lambda n: (slice(1, 2 * n, 2), slice(0, 2 * n, 2)),
    "even in place": lambda n: (slice(0, 2 * n, 2), slice(0, 2 * n, 2)),
    "spread out": lambda n: (slice(0, n), slice(0, 2 * n, 2)),
    "squeezed": lambda n: (slice(0, 2 * n, 2), slice(0, n)),
}


@pytest.mark.parametrize("n", [200, 1000, BIG])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_overlap(ufunc, name, dtype, overlap, n):
    """As if the input had been copied first, whichever input and whichever output share memory."""
    source, target = OVERLAPS[overlap](n)
    for i, o in itertools.product(range(ufunc.nin), range(ufunc.nout)):
        arrays = inputs(name, dtype, (n,))
        buffer = stale(2 * n, dtype)
        buffer[source] = arrays[i]
        want = as_tuple(ufunc(*arrays))
        out = [np.empty_like(a) for a in want]
        arrays[i], out[o] = buffer[source], buffer[target]
        ufunc(*arrays, out=tuple(out))
        assert_same(tuple(out), want, f"input {i}, output {o}:")


@pytest.mark.parametrize("n", [200, BIG])
def test_all_in_one_place(ufunc, name, dtype, n):
    (array, *_) = inputs(name, dtype, (n,))
    want = as_tuple(ufunc(*[array] * ufunc.nin))
    for o in range(ufunc.nout):
        shared = array.copy()
        out = [np.empty_like(a) for a in want]
        out[o] = shared
        ufunc(*[shared] * ufunc.nin, out=tuple(out))
        assert_same(tuple(out), want)


# --- reductions ---------------------------------------------------------------------------------------------------------

PAIRWISE = [it for it in EACH_KIND if (getattr(fastsig, it.values[0]).nin, getattr(fastsig, it.values[0]).nout) == (2, 1)]


def one_at_a_time(ufunc, dtype):
    """The same function of two Python objects: NumPy's own loop takes each result before it asks for the next."""
    return np.frompyfunc(lambda a, b: ufunc(dtype.type(a), dtype.type(b)), 2, 1)


@pytest.mark.parametrize("storage", ALL_DTYPES)
@pytest.mark.parametrize("name", PAIRWISE)
def test_each_result_is_the_next_ones_input(name, ufunc, storage):
    """`reduce`, `accumulate` and `reduceat` hand the loop arrays in which it is to read what it has just written."""
    dtype = numpy_dtype(storage)
    oracle = one_at_a_time(ufunc, dtype)
    with np.errstate(all="ignore"):  # conversions to Python's numbers and back
        for shape in ((2,), (3,), (300,), (5, 4), (3, 70, 2)):
            array = inputs(name, dtype, shape)[0]
            objects = array.astype(object)
            for axis, layout in itertools.product(range(array.ndim), ("contiguous", "every third, reversed", "byte-swapped")):
                view = LAYOUTS[layout](array)
                want = oracle.accumulate(objects, axis=axis)
                assert_same(ufunc.accumulate(view, axis=axis), want.astype(dtype), (shape, axis))
                assert_same(ufunc.reduce(view, axis=axis), want.take(-1, axis).astype(dtype), (shape, axis))
                places = [0, 1, 0, array.shape[axis] - 1, array.shape[axis] // 2]
                want = oracle.reduceat(objects, places, axis=axis).astype(dtype)
                assert_same(ufunc.reduceat(view, places, axis=axis), want, (shape, axis))
                out = view.copy() if layout == "contiguous" else view
                ufunc.accumulate(out, axis=axis, out=out)
                assert_same(out.astype(dtype), oracle.accumulate(objects, axis=axis).astype(dtype), (shape, axis))


@pytest.mark.parametrize("name", PAIRWISE)
def test_each_result_is_the_next_ones_input_in_large_calls(name, ufunc):
    """They aren't shared out to threads."""
    array, _ = inputs(name, "f4", (BIG,))
    array[~np.isfinite(array)] = 0.5
    want = np.empty_like(array)
    want[0] = array[0]
    for k in range(1, BIG):
        ufunc(want[k - 1], array[k], out=want[k : k + 1])
    assert_same(ufunc.accumulate(array), want)
    assert_same(ufunc.reduce(array), want[-1])
    assert_same(ufunc.reduceat(array, [0]), want[-1:])


@pytest.mark.parametrize("name", PAIRWISE)
def test_reductions_as_numpy_has_them(name, ufunc, dtype):
    """There is no identity, and the order of the axes matters."""
    array = inputs(name, dtype, (4, 5))[0]
    oracle = one_at_a_time(ufunc, dtype)
    assert ufunc.reduce(array, keepdims=True).shape == (1, 5)
    assert_same(ufunc.reduce(array[:1]), array[0])
    want = oracle.reduce(array.astype(object), initial=0.25).astype(dtype)
    assert_same(ufunc.reduce(array, initial=dtype.type(0.25)), want)
    for wrong in (
        lambda f: f.reduce(array, axis=(0, 1)),
        lambda f: f.reduce(array[:0]),
        lambda f: f.reduce(array, where=False),
    ):
        with pytest.raises(ValueError, match=r"reorderable|no identity|initial"):
            wrong(ufunc)


# --- other classes -----------------------------------------------------------------------------------------------------


def test_array_ufunc_is_asked(ufunc):
    class Answers:
        def __array_ufunc__(self, *arguments, **options):
            return arguments, options

    it, other = Answers(), np.ones(3)
    for arguments in ([it],) if ufunc.nin == 1 else ([it, other], [other, it]):
        assert ufunc(*arguments, where=True) == ((ufunc, "__call__", *arguments), {"where": True})


def test_array_ufunc_may_refuse(ufunc):
    class Refuses:
        __array_ufunc__ = None

    with pytest.raises(TypeError, match="does not support ufuncs"):
        ufunc(*[Refuses()] * ufunc.nin)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_subclasses(ufunc, name, dtype):
    class Marked(np.ndarray):
        pass

    arrays = inputs(name, dtype, (6, 7))
    want = as_tuple(ufunc(*arrays))
    for cls in (Marked, np.matrix):
        views = [a.view(cls) for a in arrays]
        assert all(type(r) is cls for r in as_tuple(ufunc(*views)))
        assert_same(tuple(np.asarray(r) for r in as_tuple(ufunc(*views))), want)
        plain = as_tuple(ufunc(*views, subok=False))
        assert all(type(r) is np.ndarray for r in plain)
        assert_same(plain, want)


def test_masked_arrays(ufunc, name, dtype):
    arrays = inputs(name, dtype, (100,))
    hidden = np.arange(100) % 3 == 0
    for result, want in zip(
        as_tuple(ufunc(*[np.ma.array(a, mask=hidden) for a in arrays])), as_tuple(ufunc(*arrays)), strict=True
    ):
        np.testing.assert_array_equal(result.mask, hidden)
        assert_same(result.data[~hidden], want[~hidden])


def test_outer(dtype):
    for name in ("sigmoid_vjp", "sigmoid_backward", "bce_with_logits"):
        ufunc, (a, b) = getattr(fastsig, name), inputs(name, dtype, (30,))
        assert_same(ufunc.outer(a, b), ufunc(np.repeat(a, 30), np.tile(b, 30)).reshape(30, 30))


@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_derivative", "logit"])
def test_at(name, ufunc, dtype):
    """Once for each time that an index occurs."""
    (array,) = inputs(name, dtype, (100,))
    want = array.copy()
    want[::3] = ufunc(want[::3])
    want[:6:3] = ufunc(want[:6:3])
    ufunc.at(array, [*range(0, 100, 3), 0, 3])
    assert_same(array, want)


# --- what is refused ---------------------------------------------------------------------------------------------------

REFUSED = {
    "complex64": np.ones(3, "F"),
    "complex128": 1 + 0j,
    "object": np.array([0.5, None], object),
    "number objects": np.array([0.5], object),
    "str": "0.5",
    "bytes": np.array([b"0.5"]),
    "None": None,
    "datetime64": np.array(["2020-01-01"], "M8[D]"),
    "timedelta64": np.ones(3, "m8[s]"),
    "record": np.zeros(3, [("a", "f4")]),
}
if np.dtype("g") != np.dtype("d"):
    REFUSED["longdouble"] = np.ones(3, "g")


@pytest.mark.parametrize("what", REFUSED)
def test_refused_input(name, ufunc, what):
    pairs = [[REFUSED[what]]] if ufunc.nin == 1 else itertools.permutations([REFUSED[what], 0.5])
    for arguments in pairs:
        with pytest.raises(TypeError, match=rf"ufunc '{name}'"):
            ufunc(*arguments)


def test_wrong_number_of_arguments(name, ufunc):
    for count in (0, ufunc.nin - 1, ufunc.nargs + 1):
        with pytest.raises(TypeError, match=rf"{name}\(\) takes"):
            ufunc(*[np.ones(3)] * count)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        ufunc(*[np.ones(3)] * ufunc.nin, axes=0, zoo=1)


def read_only(shape, dtype):
    array = stale(int(np.prod(shape)), dtype).reshape(shape)
    array.setflags(write=False)
    return array


BAD_OUT = {
    "longer": lambda: stale(4, "d"),
    "shorter": lambda: stale(2, "d"),
    "no dimensions": lambda: stale(1, "d").reshape(()),
    "read-only": lambda: read_only((3,), "d"),
    "integers": lambda: stale(3, "i8"),
    "booleans": lambda: np.frombuffer(bytearray(3), "?"),
    "not an array": lambda: [0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("what", BAD_OUT)
def test_refused_out(ufunc, what):
    """With NumPy's own error, and before anything is written."""
    for place in range(ufunc.nout):
        bad = BAD_OUT[what]()
        before = np.array(bad)
        errors = []
        for function in (ufunc, oracle_of(ufunc)):
            out = [stale(3, "d") for _ in range(ufunc.nout)]
            out[place] = bad
            with pytest.raises((TypeError, ValueError)) as caught:
                function(*[np.ones(3)] * ufunc.nin, out=tuple(out))
            errors.append((type(caught.value), str(caught.value).replace(function.__name__, "it")))
            assert np.array_equal(np.array(bad), before, equal_nan=before.dtype.kind == "f")
            assert all(a.tobytes() == STALE * 24 for k, a in enumerate(out) if k != place)
        assert errors[0] == errors[1]


# --- the floating-point state ------------------------------------------------------------------------------------------


def grid(ufunc, first, others):
    """The first array, and for a second argument all pairs with `others`."""
    return [first] if ufunc.nin == 1 else [np.repeat(first, len(others)), np.tile(others, len(first))]


@pytest.mark.parametrize("layout", ["contiguous", "every second"])
def test_no_input_warns(ufunc, dtype, layout):
    """Not one, on any path, even for those who want all floating-point errors raised."""
    array = np.concatenate([specials(dtype), signalling(dtype)])
    few = np.concatenate([specials(dtype)[:: 1 + len(array) // 150], signalling(dtype), specials(dtype)[:4]])
    arguments = [LAYOUTS[layout](a) for a in grid(ufunc, array, few)]
    with np.errstate(all="raise"):
        ufunc(*arguments)
        for k in range(len(few)):  # short calls keep the processor's mode, long ones change it
            ufunc(*[a[k : k + 40] for a in arguments])
            ufunc(*[a[k] for a in arguments])


def test_no_float16_warns(ufunc):
    few = np.array([0, 0.5, 1, -3, 6e-8, 65504, np.inf, -np.inf, np.nan], np.float16)
    with np.errstate(all="raise"):
        ufunc(*grid(ufunc, every_float16(), few))


def test_first_call_does_not_warn(python, tmp_path):
    """Compiling and loading happen inside a call: what they leave in the flags isn't told as the call's."""
    code = """if True:
        import numpy as np, fastsig
        with np.errstate(all="raise"):
            for name in ("sigmoid", "sigmoid_vjp"):
                for dtype in "efd":
                    f = getattr(fastsig, name)
                    f(*[np.ones(3, dtype)] * f.nin)
    """
    python(code, FASTSIG_CACHE_DIR=tmp_path)  # compiles
    python(code, FASTSIG_CACHE_DIR=tmp_path)  # loads


@pytest.mark.parametrize("n", [1, 100, 1000, BIG])
def test_subnormal_numbers_work_afterwards(ufunc, name, dtype, n):
    smallest = np.full(1000, np.finfo(dtype).smallest_subnormal)
    ufunc(*inputs(name, dtype, (n,)))
    assert (smallest * dtype.type(1) > 0).all()
    assert (smallest + smallest > smallest).all()


UPWARD = {"x86_64": 0x800, "AMD64": 0x800, "aarch64": 0x400000}


@pytest.mark.skipif(platform.machine() not in UPWARD or platform.system() != "Linux", reason="needs Linux's fesetround")
@pytest.mark.parametrize("n", [1, 100, 1000, BIG])
def test_rounding_mode_of_the_caller(ufunc, name, dtype, n):
    """It changes no result, and stays as it was."""
    libm, upward = ctypes.CDLL("libm.so.6"), UPWARD[platform.machine()]
    arrays = inputs(name, dtype, (n,))
    want = ufunc(*arrays)
    assert libm.fesetround(upward) == 0
    try:
        got = ufunc(*arrays)
        mode = libm.fegetround()
    finally:
        libm.fesetround(0)
    assert mode == upward
    assert_same(got, want)


FLUSHED = """if True:
    import sys, pathlib
    sys.path.insert(0, {tests!r})
    import numpy as np, torch, fastsig
    from conftest import assert_same, inputs, DTYPES
    cases = [(name, dtype, n) for name in fastsig.UFUNCS for dtype in DTYPES for n in (1, 100, 1000, 100_000)]
    def results():
        return [getattr(fastsig, name)(*arguments[name, dtype, n]) for name, dtype, n in cases]
    arguments = {{(name, dtype, n): inputs(name, dtype, (n,)) for name, dtype, n in cases}}
    before = results()
    subnormal = torch.full((1_000_000,), 1e-40)
    assert torch.set_flush_denormal(True)
    after = results()
    flushed = int((subnormal[:100] * 1 == 0).sum())
    torch.set_flush_denormal(False)
    kept = int((subnormal * 1 > 0).sum())
    for case, got, want in zip(cases, after, before, strict=True):
        assert_same(got, want, case)
    print(flushed, kept)
"""


def test_flush_denormal_of_the_caller(python):
    """torch can switch subnormal numbers off for the caller: for us they stay on, for the caller off."""
    pytest.importorskip("torch")
    from conftest import __file__ as here

    code = FLUSHED.format(tests=here.rsplit("/", 1)[0])
    assert python(code, warnings="default") == "100 1000000"
