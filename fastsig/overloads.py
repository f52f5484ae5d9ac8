"""The public functions inside the user's own `@njit` code: the same kernels, compiled into the caller.

Numba loads this module in each of its processes, by the entry point `numba_extensions`, whether they use fastsig or not. So it
only tells Numba whom to ask about a ufunc; the rest happens when one of ours is met.
"""

from __future__ import annotations

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
    return types.Function(make_overload_template(stands_for, typed(ufunc), options, True, "never"))


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
    """The Numba type that the function computes in and gives for arguments of these types: by NumPy's own rules."""
    from numba import types
    from numba.core.errors import TypingError
    from numba.np.numpy_support import as_dtype

    numbers = [types.unliteral(a).dtype if isinstance(a, types.Array) else types.unliteral(a) for a in arguments]
    if not all(isinstance(n, types.Number | types.Boolean) for n in numbers):
        return None
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


def line(*arrays: Any) -> Any:
    """How a loop over one index takes such arrays, or None if it can't: as they are, or flat."""
    if all(a.ndim == 1 for a in arrays):
        return compiled(lambda a: a)
    return compiled(lambda a: a.ravel()) if all(a.layout == "C" for a in arrays) else None


def value_of(type: Any) -> Any:
    """How to get at the number, in an array of no dimensions or not."""
    return compiled((lambda a: a[()]) if is_array(type) else (lambda a: a))


def compiled(function: Any) -> Any:
    from numba import njit

    return njit(no_cpython_wrapper=True)(function)


@cache
def storage_of(ufunc: np.ufunc, dtype: Any) -> tuple[Any, Any, Any]:
    """For one result, or for two: its array (what the user gave as `out`, or a fresh one), the same as a loop takes it, and
    how an element gets there."""
    complaint = f"out of fastsig.{ufunc.__name__} has another shape than the result"

    @compiled
    def checked(shape, out):  # type: ignore[no-untyped-def]
        if out.shape != shape:
            raise ValueError(complaint)
        return out

    @compiled
    def room(shape, out):  # type: ignore[no-untyped-def]
        return np.empty(shape, dtype) if out is None else checked(shape, out)

    @compiled
    def rooms(shape, out):  # type: ignore[no-untyped-def]
        if out is None:
            return np.empty(shape, dtype), np.empty(shape, dtype)
        return checked(shape, out[0]), checked(shape, out[1])

    @compiled
    def put(y, i, value):  # type: ignore[no-untyped-def]
        y[i] = value

    @compiled
    def put_both(y, i, values):  # type: ignore[no-untyped-def]
        y[0][i] = values[0]
        y[1][i] = values[1]

    if ufunc.nout == 1:
        return room, lambda flat: flat, put
    return rooms, lambda flat: compiled(lambda y: (flat(y[0]), flat(y[1]))), put_both


def outputs_given(ufunc: np.ufunc, dtype: Any, out: Any, ndim: int) -> list[Any]:
    """The types of the arrays in `out`, checked; what will be made where there are none."""
    from numba import types
    from numba.core.errors import TypingError

    if out is None or isinstance(out, types.NoneType | types.Omitted):
        return [types.Array(dtype, ndim, "C")]
    given = list(out) if isinstance(out, types.BaseTuple) else [out]
    right = len(given) == ufunc.nout and (ufunc.nout == 1) == is_array(out)
    if not right or not all(is_array(a) and a.dtype == dtype and a.ndim == ndim and a.mutable for a in given):
        wanted = "an array" if ufunc.nout == 1 else "a tuple of two arrays"
        raise TypingError(f"out of fastsig.{ufunc.__name__} must be {wanted} of {dtype} with {ndim} dimensions, not {out}")
    return given


def unary(ufunc: np.ufunc) -> Any:
    def typed(x, out=None):  # type: ignore[no-untyped-def]  # Numba compares signatures, annotations and all
        dtype = result_type(ufunc, x)
        if dtype is None:
            return None
        f = scalar(ufunc.__name__, dtype.name)
        if not is_array(x):
            return lambda x, out=None: f(dtype(x))
        if x.ndim == 0:  # a number then, as in NumPy
            return lambda x, out=None: f(dtype(x[()]))
        flat = line(x, *outputs_given(ufunc, dtype, out, x.ndim))
        room, spread, put = storage_of(ufunc, dtype)
        if flat is None:

            def anywhere(x, out=None):  # type: ignore[no-untyped-def]
                y = room(x.shape, out)
                for i in np.ndindex(x.shape):
                    put(y, i, f(dtype(x[i])))
                return y

            return anywhere
        flat_results = spread(flat)

        def straight(x, out=None):  # type: ignore[no-untyped-def]
            y = room(x.shape, out)
            source, target = flat(x), flat_results(y)
            for i in range(source.size):
                put(target, i, f(dtype(source[i])))
            return y

        return straight

    return typed


def binary(ufunc: np.ufunc) -> Any:
    def typed(x, t, out=None):  # type: ignore[no-untyped-def]
        dtype = result_type(ufunc, x, t)
        if dtype is None:
            return None
        f = scalar(ufunc.__name__, dtype.name)
        arrays = [a for a in (x, t) if is_array(a)]
        if not arrays:
            return lambda x, t, out=None: f(dtype(x), dtype(t))
        ndim = max(a.ndim for a in arrays)
        if ndim == 0:
            first, second = value_of(x), value_of(t)
            return lambda x, t, out=None: f(dtype(first(x)), dtype(second(t)))
        flat = line(*arrays, *outputs_given(ufunc, dtype, out, ndim))
        room, spread, put = storage_of(ufunc, dtype)
        if len(arrays) == 1:
            return array_and_number(dtype, f, flat, room, spread, put, is_array(x))
        return two_arrays(dtype, f, flat if len({a.ndim for a in arrays}) == 1 else None, room, spread, put)

    return typed


def array_and_number(dtype: Any, f: Any, flat: Any, room: Any, spread: Any, put: Any, first: bool) -> Any:
    pick = compiled((lambda x, t: x) if first else (lambda x, t: t))
    pair = compiled((lambda f, a, x, t: f(dtype(a), dtype(t))) if first else (lambda f, a, x, t: f(dtype(x), dtype(a))))
    if flat is None:

        def anywhere(x, t, out=None):  # type: ignore[no-untyped-def]
            a = pick(x, t)
            y = room(a.shape, out)
            for i in np.ndindex(a.shape):
                put(y, i, pair(f, a[i], x, t))
            return y

        return anywhere
    flat_results = spread(flat)

    def straight(x, t, out=None):  # type: ignore[no-untyped-def]
        a = pick(x, t)
        y = room(a.shape, out)
        source, target = flat(a), flat_results(y)
        for i in range(source.size):
            put(target, i, pair(f, source[i], x, t))
        return y

    return straight


def two_arrays(dtype: Any, f: Any, flat: Any, room: Any, spread: Any, put: Any) -> Any:
    @compiled
    def broadcast(x, t, out):  # type: ignore[no-untyped-def]
        shape = np.broadcast_shapes(x.shape, t.shape)
        y = room(shape, out)
        a, b = np.broadcast_to(x, shape), np.broadcast_to(t, shape)
        for i in np.ndindex(shape):
            put(y, i, f(dtype(a[i]), dtype(b[i])))
        return y

    if flat is None:
        return lambda x, t, out=None: broadcast(x, t, out)
    flat_results = spread(flat)

    def straight(x, t, out=None):  # type: ignore[no-untyped-def]
        if x.shape != t.shape:
            return broadcast(x, t, out)
        y = room(x.shape, out)
        a, b, target = flat(x), flat(t), flat_results(y)
        for i in range(a.size):
            put(target, i, f(dtype(a[i]), dtype(b[i])))
        return y

    return straight
