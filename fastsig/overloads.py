"""The public functions inside the user's own `@njit` code: the same kernels, compiled into the caller.

Numba loads this module in each of its processes, by the entry point `numba_extensions`, whether they use fastsig or not. So it
only tells Numba whom to ask about a ufunc; the rest happens when one of ours is met.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np


def init() -> None:
    """What Numba calls before it compiles anything."""
    from numba.core.typing.typeof import Purpose, typeof_impl

    @typeof_impl.register(np.ufunc)  # type: ignore[untyped-decorator]
    def type_of(ufunc: np.ufunc, context: Any) -> Any:
        ours = getattr(ufunc, "__module__", None) == "fastsig" and context.purpose == Purpose.constant
        return function_type(ufunc) if ours else None


@cache
def function_type(ufunc: np.ufunc) -> Any:
    """Numba's type of one of our ufuncs: what it does with numbers and arrays."""
    from numba import types
    from numba.core.typing.templates import make_overload_template

    def stands_for() -> None:
        """Not the ufunc itself: of calls of those Numba makes array expressions, whose loops take LLVM for ever."""

    stands_for.__name__ = stands_for.__qualname__ = f"fastsig.{ufunc.__name__}"
    options = {"error_model": "numpy", "fastmath": False, "forceinline": True, "no_cpython_wrapper": True, "nopython": True}
    typed = unary if ufunc.nin == 1 else binary
    return types.Function(make_overload_template(stands_for, typed(ufunc), options, True, "never", prefer_literal=True))


# --- numbers -------------------------------------------------------------------------------------------------------------


@cache
def scalar(name: str, storage: str) -> Any:
    """The kernel of the public function `name` for numbers of one dtype, a compiled function.

    It is never under the caller's fastmath, which would take its error terms for zero, nor under its check for a zero divisor,
    which would keep a loop from becoming vectors.
    """
    from numba import njit

    from fastsig import lanes, loops
    from fastsig.kernels import ALIASES, KERNELS

    kernel = KERNELS[ALIASES.get(name, name)]
    loops.register_parts()
    options = {
        "error_model": "numpy",
        "fastmath": False,
        "forceinline": True,
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
    }
    function = njit(**options)(kernel.function)
    format, keeps_nan = lanes.COMPUTED_IN[storage], kernel.ordinary is not None

    @njit(**options)
    def one(x):  # type: ignore[no-untyped-def]
        return lanes.with_nan_of((x,), function(x, format)) if keeps_nan else function(x, format)

    @njit(**options)
    def two(x, t):  # type: ignore[no-untyped-def]
        return lanes.with_nan_of((x, t), function(x, t, format)) if keeps_nan else function(x, t, format)

    return one if len(kernel.inputs) == 1 else two


def result_type(ufunc: np.ufunc, *arguments: Any) -> Any:
    """The Numba type that the function computes in and gives for arguments of these types: by NumPy's own rules.

    A literal integer takes the type of what is beside it, as everywhere in NumPy. A literal float can't: to Numba it is a
    float64 like any other.
    """
    from numba import types
    from numba.core.errors import TypingError
    from numba.np.numpy_support import as_dtype

    literals = [isinstance(a, types.IntegerLiteral) for a in arguments]
    numbers = [a.dtype if isinstance(a, types.Array) else types.unliteral(a) for a in arguments]
    if not all(isinstance(n, types.Number | types.Boolean) for n in numbers):
        return None
    strong = [n for n, literal in zip(numbers, literals, strict=True) if not literal and n in (types.float32, types.float64)]
    if any(literals) and strong:
        return strong[0]
    try:
        dtype = ufunc.resolve_dtypes((*map(as_dtype, numbers), *[None] * ufunc.nout))[0]
    except TypeError as error:
        raise TypingError(f"fastsig.{ufunc.__name__}: {error}") from None
    if dtype.name not in ("float32", "float64"):
        raise TypingError(
            f"fastsig.{ufunc.__name__} gives {dtype} for {', '.join(map(str, numbers))}, and compiled code has no such "
            "numbers: convert to float32 or float64 first"
        )
    return getattr(types, dtype.name)


# --- arrays --------------------------------------------------------------------------------------------------------------


def is_array(type: Any) -> bool:
    from numba import types

    return isinstance(type, types.Array)


def is_given(out: Any) -> bool:
    from numba import types

    return out is not None and not isinstance(out, types.NoneType | types.Omitted)


def compiled(function: Any) -> Any:
    from numba import njit

    return njit(no_cpython_wrapper=True)(function)


def line(*arrays: Any) -> Any:
    """How a loop over one index takes such arrays, or None if it can't: as they are, or flat."""
    if all(a.ndim == 1 for a in arrays):
        return compiled(lambda a: a)
    return compiled(lambda a: a.ravel()) if all(a.layout == "C" for a in arrays) else None


def value_of(type: Any) -> Any:
    """How to get at the number, in an array of no dimensions or not."""
    return compiled((lambda a: a[()]) if is_array(type) else (lambda a: a))


def checked_out(ufunc: np.ufunc, dtype: Any, out: Any, ndim: int) -> list[Any]:
    """The types of the arrays in `out`, one or a tuple of two."""
    from numba import types
    from numba.core.errors import TypingError

    given = list(out) if isinstance(out, types.BaseTuple) else [out]
    right = len(given) == ufunc.nout and (ufunc.nout == 1) == is_array(out) and ndim > 0
    if not right or not all(is_array(a) and a.dtype == dtype and a.ndim == ndim and a.mutable for a in given):
        wanted = "an array" if ufunc.nout == 1 else "a tuple of two arrays"
        kind = f"must be {wanted} of {dtype} with {ndim} dimensions" if ndim else "is for arrays"
        raise TypingError(f"out of fastsig.{ufunc.__name__} {kind}, not {out}")
    return given


@cache
def overlap_test() -> Any:
    @compiled
    def apart(a, y):  # type: ignore[no-untyped-def]
        """Whether nothing is read from a after it was overwritten: they don't overlap, or lie over each other exactly."""
        low = high = np.int64(a.ctypes.data)
        first = last = np.int64(y.ctypes.data)
        if a.size == 0 or (low == first and a.shape == y.shape and a.strides == y.strides):
            return True
        for length, stride in zip(a.shape, a.strides):  # noqa: B905  # Numba has no strict
            low, high = low + min(0, (length - 1) * stride), high + max(0, (length - 1) * stride)
        for length, stride in zip(y.shape, y.strides):  # noqa: B905
            first, last = first + min(0, (length - 1) * stride), last + max(0, (length - 1) * stride)
        return high + a.itemsize <= first or last + y.itemsize <= low

    return apart


@dataclass(frozen=True)
class Places:
    """Code for results in arrays of `dtype`, for one or for two."""

    name: str
    dtype: Any
    count: int

    @property
    def fresh(self) -> Any:
        dtype = self.dtype
        if self.count == 1:
            return compiled(lambda shape: np.empty(shape, dtype))
        return compiled(lambda shape: (np.empty(shape, dtype), np.empty(shape, dtype)))

    @property
    def put(self) -> Any:
        @compiled
        def one(y, i, value):  # type: ignore[no-untyped-def]
            y[i] = value

        @compiled
        def two(y, i, values):  # type: ignore[no-untyped-def]
            y[0][i] = values[0]
            y[1][i] = values[1]

        return one if self.count == 1 else two

    def every(self, test: Any) -> Any:
        """Whether `test(a, y)` holds for each of the arrays."""
        return test if self.count == 1 else compiled(lambda a, y: test(a, y[0]) and test(a, y[1]))

    @property
    def check(self) -> Any:
        complaint = f"out of fastsig.{self.name} has another shape than the result"
        fits = self.every(compiled(lambda shape, y: y.shape == shape))

        @compiled
        def check(shape, out):  # type: ignore[no-untyped-def]
            if not fits(shape, out):
                raise ValueError(complaint)

        return check

    def flat(self, flat: Any) -> Any:
        return flat if self.count == 1 else compiled(lambda y: (flat(y[0]), flat(y[1])))


@dataclass(frozen=True)
class Arguments:
    """Code for the arguments, which arrive as a tuple: which of them are arrays."""

    arrays: tuple[bool, ...]

    @property
    def shape(self) -> Any:
        """That of the result."""
        if self.arrays == (True, True):
            return compiled(lambda xs: np.broadcast_shapes(xs[0].shape, xs[1].shape))
        return compiled((lambda xs: xs[0].shape) if self.arrays[0] else (lambda xs: xs[1].shape))

    def element(self, f: Any, dtype: Any) -> Any:
        return compiled(
            {
                (True,): lambda xs, i: f(dtype(xs[0][i])),
                (True, True): lambda xs, i: f(dtype(xs[0][i]), dtype(xs[1][i])),
                (True, False): lambda xs, i: f(dtype(xs[0][i]), dtype(xs[1])),
                (False, True): lambda xs, i: f(dtype(xs[0]), dtype(xs[1][i])),
            }[self.arrays]
        )

    def flat(self, flat: Any) -> Any:
        return compiled(
            {
                (True,): lambda xs: (flat(xs[0]),),
                (True, True): lambda xs: (flat(xs[0]), flat(xs[1])),
                (True, False): lambda xs: (flat(xs[0]), xs[1]),
                (False, True): lambda xs: (xs[0], flat(xs[1])),
            }[self.arrays]
        )

    @property
    def broadcast(self) -> Any:
        """Arrays of the result's shape."""
        if self.arrays == (True, True):
            return compiled(lambda xs, shape: (np.broadcast_to(xs[0], shape), np.broadcast_to(xs[1], shape)))
        return compiled(lambda xs, shape: xs)

    @property
    def alike(self) -> Any:
        """Whether a loop over one index can be: the arrays have one shape."""
        if self.arrays == (True, True):
            return compiled(lambda xs: xs[0].shape == xs[1].shape)
        return compiled(lambda xs: True)

    def apart_from(self, places: Places) -> Any:
        apart = places.every(overlap_test())
        if self.arrays == (True, True):
            return compiled(lambda xs, out: apart(xs[0], out) and apart(xs[1], out))
        return compiled((lambda xs, out: apart(xs[0], out)) if self.arrays[0] else (lambda xs, out: apart(xs[1], out)))


def filling(f: Any, arguments: Arguments, places: Places, flat: Any) -> Any:
    """Compiled code that puts the function of arrays into arrays."""
    element, put = arguments.element(f, places.dtype), places.put
    shape_of, broadcast, alike = arguments.shape, arguments.broadcast, arguments.alike

    @compiled
    def anywhere(xs, y):  # type: ignore[no-untyped-def]
        shape = shape_of(xs)
        spread = broadcast(xs, shape)
        for i in np.ndindex(shape):
            put(y, i, element(spread, i))

    if flat is None:
        return anywhere
    flat_arguments, flat_results = arguments.flat(flat), places.flat(flat)
    first = compiled((lambda y: y) if places.count == 1 else (lambda y: y[0]))

    @compiled
    def straight(xs, y):  # type: ignore[no-untyped-def]
        if alike(xs):
            sources, target = flat_arguments(xs), flat_results(y)
            for i in range(first(target).size):
                put(target, i, element(sources, i))
        else:
            anywhere(xs, y)

    return straight


def implementation(ufunc: np.ufunc, xs: tuple[Any, ...], out: Any) -> Any:
    """Code for a call with arguments of these types, which takes them as a tuple, and `out`; None where it isn't ours."""
    from numba import types

    dtype = result_type(ufunc, *xs)
    if dtype is None:
        return None
    f, ndim = scalar(ufunc.__name__, dtype.name), max(getattr(x, "ndim", 0) for x in xs)
    given = checked_out(ufunc, dtype, out, ndim) if is_given(out) else []
    if ndim == 0:
        values = [value_of(x) for x in xs]
        first, second = values[0], values[-1]
        if len(xs) == 1:
            return compiled(lambda xs, out: f(dtype(first(xs[0]))))
        return compiled(lambda xs, out: f(dtype(first(xs[0])), dtype(second(xs[1]))))
    arguments, places = Arguments(tuple(map(is_array, xs))), Places(ufunc.__name__, dtype, ufunc.nout)
    arrays = [x for x in xs if is_array(x)]
    one_index = len({x.ndim for x in arrays}) == 1
    fresh, shape_of = places.fresh, arguments.shape
    fill = filling(f, arguments, places, line(*arrays, types.Array(dtype, ndim, "C")) if one_index else None)

    @compiled
    def made(xs):  # type: ignore[no-untyped-def]
        y = fresh(shape_of(xs))
        fill(xs, y)
        return y

    if not given:
        return compiled(lambda xs, out: made(xs))
    check, apart, put = places.check, arguments.apart_from(places), places.put
    fill_given = filling(f, arguments, places, line(*arrays, *given) if one_index else None)

    @compiled
    def into(xs, out):  # type: ignore[no-untyped-def]
        check(shape_of(xs), out)
        if apart(xs, out):
            fill_given(xs, out)
        else:
            put(out, ..., made(xs))
        return out

    return into


def unary(ufunc: np.ufunc) -> Any:
    def typed(x, out=None):  # type: ignore[no-untyped-def]  # Numba compares signatures, annotations and all
        if is_array(x) and x.ndim > 1 and x.layout == "F" and not is_given(out):  # as NumPy, which keeps the order
            if ufunc.nout == 1:
                return lambda x, out=None: ufunc(x.T).T
            turned = compiled(lambda both: (both[0].T, both[1].T))
            return lambda x, out=None: turned(ufunc(x.T))
        run = implementation(ufunc, (x,), out)
        return run and (lambda x, out=None: run((x,), out))

    return typed


def binary(ufunc: np.ufunc) -> Any:
    def typed(x, t, out=None):  # type: ignore[no-untyped-def]
        run = implementation(ufunc, (x, t), out)
        return run and (lambda x, t, out=None: run((x, t), out))

    return typed
