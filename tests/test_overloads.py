"""The public functions inside the user's own compiled code: the bits that they have outside, and vectors in a plain loop."""

from __future__ import annotations

import re
from importlib import metadata

import numba
import numpy as np
import pytest
from conftest import KINDS, ROOT, as_tuple, assert_same, inputs, kernel_of, stale
from numba.core.errors import TypingError

import fastsig
from fastsig import compiler

FLOATS = ("float32", "float64")
# One function of each number of arguments and results: how an array is gone through depends on no more.
SHAPES = ("sigmoid", "silu_value_and_grad", "bce_with_logits", "bce_with_logits_grad_and_hess")
each_shape = pytest.mark.parametrize("name", SHAPES)
# Compiling is what takes the time: of what one function of each shape shows, the default run takes the two extremes.
some_shapes = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in (SHAPES[0], SHAPES[-1]) else pytest.mark.slow) for n in SHAPES]
)


def loop_over(ufunc, jit=numba.njit):
    """A plain loop, as a user would write it."""
    if (ufunc.nin, ufunc.nout) == (1, 1):

        @jit
        def loop(x, y):
            for i in numba.prange(x.size):
                y[i] = ufunc(x[i])

    elif ufunc.nin == 1:

        @jit
        def loop(x, y, dy):
            for i in numba.prange(x.size):
                y[i], dy[i] = ufunc(x[i])

    elif ufunc.nout == 1:

        @jit
        def loop(x, t, y):
            for i in numba.prange(x.size):
                y[i] = ufunc(x[i], t[i])

    else:

        @jit
        def loop(x, t, y, dy):
            for i in numba.prange(x.size):
                y[i], dy[i] = ufunc(x[i], t[i])

    return loop


def array_call(ufunc):
    return numba.njit((lambda x: ufunc(x)) if ufunc.nin == 1 else (lambda x, t: ufunc(x, t)))


def results_like(ufunc, x):
    return tuple(stale(x.size, x.dtype) for _ in range(ufunc.nout))


# float32 for every function; float64, whose kernels are the same, for one of each kind. With -m slow, all.
EACH = [
    pytest.param(name, dtype, marks=() if dtype == "float32" or name in KINDS else pytest.mark.slow)
    for name in fastsig.UFUNCS
    for dtype in FLOATS
]


@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_loop_has_the_bits_of_the_ufunc_and_is_vectorised(name, dtype):
    """Numbers one by one, in a loop that LLVM makes vectors of."""
    ufunc, given = getattr(fastsig, name), inputs(name, dtype, (4001,))
    loop, results = loop_over(ufunc), results_like(ufunc, given[0])
    loop(*given, *results)
    want = as_tuple(ufunc(*given))
    assert_same(results, want, name)
    if "+fma" in compiler.target().features.split(","):
        letter, widths = {"float32": ("s", "4|8|16"), "float64": ("d", "2|4|8")}[dtype]
        kinds = re.findall(rf"llvm\.fma\.v(?:{widths})f\d\d", loop.inspect_llvm(loop.signatures[0]))
        packed = re.findall(rf"\bvfn?m(?:add|sub)\d+p{letter}\b", loop.inspect_asm(loop.signatures[0]))
        assert kinds or packed, f"{name}: no vectors in the loop"


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@some_shapes
def test_arrays(name, dtype):
    """Whole arrays: flat ones, strided ones, in Fortran order, of several and of no dimensions."""
    ufunc = getattr(fastsig, name)
    call = array_call(ufunc)
    for shape, view in [
        ((1000,), lambda a: a),
        ((1000,), lambda a: a[::-3]),
        ((0,), lambda a: a),
        ((), lambda a: a),
        ((20, 30), lambda a: a),
        ((20, 30), lambda a: a[::2, 1:]),
        ((20, 30), lambda a: a.T),
        ((4, 5, 6), lambda a: a[:, ::-1]),
    ]:
        given = [view(a) for a in inputs(name, dtype, shape)]
        got, want = as_tuple(call(*given)), as_tuple(ufunc(*given))
        if shape == ():  # Numba hands numbers back as Python's
            got = tuple(np.dtype(dtype).type(y) for y in got)
        assert_same(got, want, f"{name} {shape}")


@pytest.mark.parametrize("name", [SHAPES[2], pytest.param(SHAPES[3], marks=pytest.mark.slow)])
def test_two_arguments_broadcast(name):
    ufunc = getattr(fastsig, name)
    call = array_call(ufunc)
    x, t = inputs(name, "float64", (6, 7))
    for one, other in [(x, t[0]), (x[:, :1], t[:1]), (0.5, t), (x[::2], 0.25)]:
        assert_same(call(one, other), ufunc(one, other), f"{name} {np.shape(one)} {np.shape(other)}")
    with pytest.raises(ValueError, match="mismatch"):
        call(x, t[:, :3].copy())


@some_shapes
def test_dtypes_follow_numpy(name):
    """The same result dtypes as outside, of numbers and arrays; what compiled code has no type for is refused with advice."""
    ufunc = getattr(fastsig, name)
    call = array_call(ufunc)
    for first, second in [
        ("float32", "int16"),
        ("int64", "float32"),
        ("float32", "float64"),
        ("int16", "int16"),
        ("uint32", "?"),
    ]:
        given = [np.arange(2).astype(d) for d in (first, second)][: ufunc.nin]
        assert_same(call(*given), ufunc(*given), f"{name} {first} {second}")
        numbers = [a[1] for a in given]
        assert_same(tuple(map(np.float64, as_tuple(call(*numbers)))), tuple(map(np.float64, as_tuple(ufunc(*numbers)))), name)
    for unfit in (np.ones(2, np.int8), True):
        with pytest.raises(TypingError, match="convert to float32 or float64"):
            call(*[unfit] * ufunc.nin)
    with pytest.raises(TypingError, match=f"ufunc '{name}'"):
        call(*[1j] * ufunc.nin)
    with pytest.raises(TypingError):
        call(*["text"] * ufunc.nin)


@some_shapes
def test_out(name):
    """Results go where the caller wants them, and are returned from there."""
    ufunc, given = getattr(fastsig, name), inputs(name, "float32", (10, 11))
    if ufunc.nin == 1:
        call = numba.njit(lambda x, out: ufunc(x, out=out))
    else:
        call = numba.njit(lambda x, t, out: ufunc(x, t, out=out))
    views = (lambda a: a, lambda a: a[:, ::2]) if ufunc.nin == 1 else (lambda a: a,)
    for view in views:
        arguments = [view(a) for a in given]
        out = tuple(view(stale(110, "float32").reshape(10, 11)) for _ in range(ufunc.nout))
        got = call(*arguments, out if ufunc.nout > 1 else out[0])
        assert_same(got, ufunc(*arguments), name)
        assert all(np.shares_memory(a, b) for a, b in zip(as_tuple(got), out, strict=True))
    small = tuple(np.empty((10, 3), "float32") for _ in range(ufunc.nout))
    with pytest.raises(ValueError, match="another shape"):
        call(*given, small if ufunc.nout > 1 else small[0])
    with pytest.raises(TypingError, match="out of fastsig"):
        call(*given, np.empty((10, 11), "float64"))


@some_shapes
def test_out_that_overlaps(name):
    """As outside: right even where a result would fall on what is still to be read."""
    ufunc = getattr(fastsig, name)
    if ufunc.nin == 1 == ufunc.nout:
        call = numba.njit(lambda x, t, y, dy: ufunc(x, out=y))
    elif ufunc.nin == 1:
        call = numba.njit(lambda x, t, y, dy: ufunc(x, out=(y, dy)))
    elif ufunc.nout == 1:
        call = numba.njit(lambda x, t, y, dy: ufunc(x, t, out=y))
    else:
        call = numba.njit(lambda x, t, y, dy: ufunc(x, t, out=(y, dy)))
    for views in [
        lambda a: (a[:50], a[50:100], a[1:51], a[150:200]),
        lambda a: (a[1:51], a[100:150], a[:50], a[150:200]),
        lambda a: (a[:50], a[50:100], a[49::-1], a[150:200]),
        lambda a: (a[:50], a[50:100], a[:50], a[50:100]),
    ]:
        (inside,) = inputs("sigmoid", "float64", (200,))
        outside = inside.copy()
        call(*views(inside))
        x, t, *out = views(outside)
        ufunc(*(x, t)[: ufunc.nin], out=tuple(out[: ufunc.nout]))
        assert_same(inside, outside, name)


@each_shape
def test_out_is_for_arrays(name):
    ufunc = getattr(fastsig, name)
    call = numba.njit((lambda x, o: ufunc(x, out=o)) if ufunc.nin == 1 else (lambda x, o: ufunc(x, x, out=o)))
    for x in (0.5, np.array(0.5)):
        with pytest.raises(TypingError, match="out of fastsig"):
            call(x, np.zeros(3))


def test_literal_integers_are_weak():
    """Beside an array or a number; a literal float is a float64 to Numba, and a float32 one has to be made."""
    x = np.linspace(-3, 3, 7, dtype=np.float32)
    bce = fastsig.bce_with_logits
    assert_same(numba.njit(lambda x: bce(x, 1))(x), bce(x, 1))
    assert_same(numba.njit(lambda x: bce(0, x))(abs(x) / 3), bce(0, abs(x) / 3))
    assert_same(numba.njit(lambda x: bce(x, np.float32(1)))(x), bce(x, 1.0))
    assert numba.njit(lambda x: bce(x, 1.0))(x).dtype == np.float64
    assert numba.njit(lambda: fastsig.sigmoid(1))() == fastsig.sigmoid(1.0)


@some_shapes
def test_prange(name):
    """Threads make no difference."""
    ufunc, given = getattr(fastsig, name), inputs(name, "float32", (100_003,))
    loop, results = loop_over(ufunc, numba.njit(parallel=True)), results_like(ufunc, given[0])
    loop(*given, *results)
    assert_same(results, ufunc(*given), name)


@some_shapes
def test_under_the_callers_fastmath(name):
    """The kernel is compiled by its own rules: where a caller's loop is free to reorder, what is inside it isn't."""
    ufunc, given = getattr(fastsig, name), inputs(name, "float64", (1000,))
    loop, results = loop_over(ufunc, numba.njit(fastmath=True)), results_like(ufunc, given[0])
    loop(*given, *results)
    assert_same(results, ufunc(*given), name)


def test_numpys_own_ufuncs_are_left_alone():
    assert numba.njit(lambda x: np.exp(x))(1.0) == np.exp(1.0)
    foreign = np.frompyfunc(lambda x: x, 1, 1)
    with pytest.raises(TypingError, match="ufunc"):
        numba.njit(lambda x: foreign(x))(1.0)


def test_aliases_and_attributes_of_the_module():
    """`fastsig.name` in compiled code is looked up as usual, a name that is resolved at first use too."""
    assert numba.njit(lambda x: fastsig.swish(x) + fastsig.expit(x))(2.0) == fastsig.silu(2.0) + fastsig.sigmoid(2.0)


def test_the_entry_point_is_small(python):
    """Every process that compiles with Numba loads it: neither the engine nor a kernel comes with it."""
    (entry,) = (e for e in metadata.entry_points(group="numba_extensions") if e.value.startswith("fastsig"))
    assert (entry.name, entry.value) == ("init", "fastsig.overloads:init")
    code = """if True:
        import sys
        import numba
        assert numba.njit(lambda x: x + 1)(1) == 2
        print(*sorted(m for m in sys.modules if m.startswith("fastsig")))
    """
    assert python(code, path=ROOT) == "fastsig fastsig.overloads"


def test_numbas_cache_keeps_such_functions(python, tmp_path):
    """`cache=True` works for them: no address is baked in."""
    (tmp_path / "user.py").write_text(
        "import fastsig, numba\n"
        "@numba.njit(cache=True)\n"
        "def f(x):\n"
        "    return fastsig.sigmoid(x)\n"
        "f(1.0)\n"
        "print(sum(f.stats.cache_hits.values()), f(0.5) == fastsig.sigmoid(0.5))\n"
    )
    run = [
        python(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import user", NUMBA_CACHE_DIR=tmp_path) for _ in range(2)
    ]
    assert run == ["0 True", "1 True"]


def test_kernels_have_one_or_two_inputs_and_outputs():
    """What the overloads are written for."""
    assert {len(kernel_of(n).inputs) for n in fastsig.UFUNCS} == {1, 2} == {len(kernel_of(n).outputs) for n in fastsig.UFUNCS}
