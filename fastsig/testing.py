"""Truth: one definition of an error in units in the last place, the exact functions, and inputs that find mistakes.

Usable for any kernel, not only this package's:

>>> import numpy as np
>>> from fastsig.testing import exact, ulp
>>> x = np.linspace(-20, 20, 1001, dtype=np.float32)
>>> naive = 1 / (1 + np.exp(-x))
>>> bool(ulp(naive, exact("sigmoid", x)[0]).max() > 1.5)
True
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WIDE: dict[str, type[np.floating[Any]]] = {"float16": np.float64, "float32": np.float64, "float64": np.longdouble}
MARGIN = 10  # bits that the reference must have beyond the format: 2^-10 ULP is then all it adds


def wide(dtype: npt.DTypeLike) -> type[np.floating[Any]]:
    """The floating-point type in which references for `dtype` are computed."""
    name = np.dtype(dtype).name
    chosen = WIDE[name]
    if np.finfo(chosen).nmant < np.finfo(dtype).nmant + MARGIN:
        raise NotImplementedError(f"NumPy has no floating-point type on this machine that is wide enough to judge {name}")
    return chosen


def ulp(got: npt.ArrayLike, exact: npt.ArrayLike) -> Array:
    """The error of `got` in units in the last place of `exact`, rounded to `got`'s format.

    Parameters
    ----------
    got : array_like of float16, float32 or float64
    exact : array_like of a wider floating-point type
        The true values.

    Returns
    -------
    ndarray of float64
        |got - exact| / ulp(exact): 0.5 or less is correctly rounded. A NaN, infinity or sign of zero that only one of
        them has counts as infinite.

    Examples
    --------
    >>> ulp(np.float32([1, np.nan, -0.0]), np.float64([1 + 2.0**-24, np.nan, 0.0]))
    array([0.5, 0. , inf])
    """
    result, true = np.asarray(got), np.asarray(exact)
    with np.errstate(all="ignore"):
        error = np.asarray(np.abs(result - true) / last_place(true, result.dtype), dtype=np.float64)
        if np.isfinite(error).all() and (result != 0).all():
            return error
        rounded = true.astype(result.dtype)
    special = ~(np.isfinite(true) & np.isfinite(result))
    same = (result == rounded) | (np.isnan(result) & np.isnan(true))
    error = np.where(special, np.where(same, 0.0, np.inf), error)
    wrong_zero = (result == 0) & (np.signbit(result) != np.signbit(true)) & ~np.isnan(true)
    return np.where(wrong_zero, np.inf, error)


def last_place(true: Array, dtype: np.dtype[Any]) -> Array:
    """The distance of the numbers of `dtype` round `true`."""
    info = np.finfo(dtype)
    if true.dtype == np.float64:  # by the bits: several times as fast
        digits, bias = np.finfo(np.float64).nmant, 1 - np.finfo(np.float64).minexp
        exponent = (true.view(np.int64) >> digits) & (2 * bias + 1)
        np.maximum(exponent, bias + info.minexp, out=exponent)
        exponent -= info.nmant
        return (exponent << digits).view(np.float64)
    _, exponent = np.frexp(true)
    return np.asarray(np.ldexp(true.dtype.type(1), np.maximum(exponent - 1, info.minexp) - info.nmant))


# --- the exact functions -----------------------------------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(np.signbit(x), e, 1) / (1 + e)


def sigmoid_grad(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return e / (1 + e) ** 2


def sigmoid_vjp(x: Array, g: Array) -> Array:
    return g * sigmoid_grad(x)


def sigmoid_derivative(y: Array) -> Array:
    return y * (1 - y)


def sigmoid_backward(g: Array, y: Array) -> Array:
    return g * (y * (1 - y))


EXACT: dict[str, tuple[Callable[..., Array], ...]] = {
    "sigmoid": (sigmoid,),
    "sigmoid_grad": (sigmoid_grad,),
    "sigmoid_value_and_grad": (sigmoid, sigmoid_grad),
    "sigmoid_vjp": (sigmoid_vjp,),
    "sigmoid_derivative": (sigmoid_derivative,),
    "sigmoid_backward": (sigmoid_backward,),
}


def exact(name: str, *inputs: Array) -> tuple[Array, ...]:
    """The outputs of the public function `name`, in a type so much wider than the inputs' that they count as exact."""
    type = wide(inputs[0].dtype)
    with np.errstate(all="ignore"):
        return tuple(np.asarray(function(*(x.astype(type) for x in inputs))) for function in EXACT[name])


# --- inputs ------------------------------------------------------------------------------------------------------------

# Where a result changes its nature, and the worst inputs that exhaustive and long runs have found.
EDGES = {
    "float16": "0x0p+0",
    "float32": """0x0p+0 0x1p-149 0x1p-126 0x1p-25 0x1.62e43p-2 0x1.62e43p-1 0x1.0a2b24p+4 0x1.154246p+4 0x1.1b4b4ep+4
        0x1.1b1fa8p+4 0x1.5d589ep+6 0x1.5d58ap+6 0x1.5eca1cp+6 0x1.9fe36ap+6 0x1.a2p+6 0x1.5cp+6 0x1.8p+7 0x1.fffffep+127
        0x1.63f5dep-2""",
    "float64": """0x0p+0 0x1p-1074 0x1p-1022 0x1p-54 0x1.62e42fefa39efp-2 0x1.62e42fefa39efp-1 0x1.2b708872320e2p+5
        0x1.62p+9 0x1.6232bdd7abcd2p+9 0x1.6232bdd7abcd3p+9 0x1.74910d52d3052p+9 0x1.75p+9 0x1.6b93333333333p+10
        0x1.fffffffffffffp+1023""",
}
BITS = {"float16": np.uint16, "float32": np.uint32, "float64": np.uint64}


def edges(dtype: npt.DTypeLike) -> Array:
    """The inputs at which a result changes its nature, their neighbours, both signs, infinities and NaN."""
    name = np.dtype(dtype).name
    middle = np.array([float.fromhex(text) for text in EDGES[name].split()], dtype=dtype)
    with np.errstate(over="ignore"):
        around = np.concatenate([middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)]).astype(dtype)
    return np.concatenate([around, -around, np.array([np.inf, -np.inf, np.nan], dtype=dtype)])


def spaced(dtype: npt.DTypeLike, step: int, start: int = 0) -> Iterator[Array]:
    """Every `step`-th number by its bits, from `start` on, in arrays of a million: both signs, infinities, NaNs."""
    bits = BITS[np.dtype(dtype).name]
    total = 1 << (8 * np.dtype(dtype).itemsize)
    for begin in range(start, total, step << 20):
        count = min(1 << 20, -(-(total - begin) // step))
        yield (np.arange(count, dtype=np.uint64) * np.uint64(step) + np.uint64(begin)).astype(bits).view(dtype)


def random(dtype: npt.DTypeLike, count: int, seed: int = 0) -> Array:
    """Logits as they occur (normal, three wide) and all over the range where the results vary."""
    generator = np.random.default_rng(seed)
    reach = 1.1 * {"float16": 20.0, "float32": 104.0, "float64": 745.0}[np.dtype(dtype).name]
    half = count // 2
    return np.concatenate([3 * generator.standard_normal(half), generator.uniform(-reach, reach, count - half)]).astype(dtype)


def upstream(x: Array, seed: int = 1) -> Array:
    """Gradients to go with `x`: ordinary, very large and very small, both signs; zero; infinite where x is small."""
    generator = np.random.default_rng(seed)
    info = np.finfo(x.dtype)
    exponent = np.where(
        generator.random(x.shape) < 0.5, generator.uniform(-3, 3, x.shape), generator.uniform(info.minexp, info.maxexp, x.shape)
    )
    with np.errstate(all="ignore"):
        g = (np.exp2(exponent.astype(np.longdouble)) * generator.choice([-1, 1], x.shape)).astype(x.dtype)
    with np.errstate(all="ignore"):  # where the product is subnormal, however small the derivative
        least = np.longdouble(info.smallest_subnormal) * np.exp2(generator.uniform(-2, 12, x.shape).astype(np.longdouble))
        against = np.minimum(least * np.exp(np.abs(x.astype(np.longdouble))), np.longdouble(info.max)).astype(x.dtype)
    g[::5] = np.where(np.isfinite(against), against, 1)[::5]
    g[::4099], g[1::4099] = 0, info.max
    g[2::4099] = np.where(np.abs(x[2::4099]) < 1, np.inf, 1)
    return g
