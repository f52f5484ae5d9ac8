"""Truth: one definition of an error in units in the last place, the exact functions, and inputs that find mistakes.

Usable for any kernel, not only this package's: `ulp(got, exact)` measures an error; `exact(name, *inputs)` gives the true
results of this package's functions; `edges`, `spaced`, `random` and `worst` give inputs, and `operands` what goes with them.

>>> import numpy as np
>>> from fastsig.testing import exact, ulp
>>> x = np.linspace(-20, 20, 1001, dtype=np.float32)
>>> naive = 1 / (1 + np.exp(-x))
>>> bool(ulp(naive, exact("sigmoid", x)[0]).max() > 1.5)
True
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsig.kernels import ALIASES

Array = npt.NDArray[Any]

WIDE: dict[str, type[np.floating[Any]]] = {
    "float16": np.float64,
    "bfloat16": np.float64,
    "float32": np.float64,
    "float64": np.longdouble,
}
MARGIN = 10  # bits that the reference must have beyond the format: its few roundings then add 2^-9 ULP at most


def finfo(dtype: npt.DTypeLike) -> Any:
    """`numpy.finfo`, for bfloat16 as well."""
    if np.dtype(dtype).name != "bfloat16":
        return np.finfo(dtype)
    from ml_dtypes import finfo

    return finfo(dtype)


def wide(dtype: npt.DTypeLike) -> type[np.floating[Any]]:
    """The floating-point type in which references for `dtype` are computed."""
    name = np.dtype(dtype).name
    chosen = WIDE[name]
    if np.finfo(chosen).nmant < finfo(dtype).nmant + MARGIN:
        raise NotImplementedError(f"NumPy has no floating-point type on this machine that is wide enough to judge {name}")
    return chosen


def ulp(got: npt.ArrayLike, exact: npt.ArrayLike) -> Array:
    """The error of `got` in units in the last place of `exact`, rounded to `got`'s format.

    Parameters
    ----------
    got : array_like of float16, bfloat16, float32 or float64
        What was computed.
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
        number = result.astype(true.dtype)
        error = np.asarray(np.abs(number - true) / last_place(true, result.dtype), dtype=np.float64)
        if np.isfinite(error).all() and (number != 0).all():
            return error
        rounded = true.astype(result.dtype).astype(true.dtype)
    special = ~(np.isfinite(true) & np.isfinite(number))
    same = (number == rounded) | (np.isnan(number) & np.isnan(true))
    error = np.where(special, np.where(same, 0.0, np.inf), error)
    wrong_zero = (number == 0) & (np.signbit(number) != np.signbit(true)) & ~np.isnan(true)
    return np.where(wrong_zero, np.inf, error)


def last_place(true: Array, dtype: np.dtype[Any]) -> Array:
    """The distance of the numbers of `dtype` round `true`."""
    info = finfo(dtype)
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


def softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def log_sigmoid(x: Array) -> Array:
    return -softplus(-x)


def logit(p: Array) -> Array:
    """Near 1/2 the logarithms cancel, and 2p - 1 is exact."""
    middle = np.abs(p - 0.5) < 0.25
    away = np.where(middle, 0.9, p)
    return np.where(
        middle, 2 * np.arctanh(2 * np.where(middle, p, 0.5) - 1), np.log(np.abs(away) * np.sign(away)) - np.log1p(-away)
    )


def silu(x: Array) -> Array:
    return np.where(np.isneginf(x), -0.0, x * sigmoid(x))


def silu_grad(x: Array) -> Array:
    a = np.abs(x)
    e = np.exp(-a)
    small = np.where(np.isinf(a), -0.0, e / (1 + e) * (1 - a / (1 + e)))
    return np.where(x < 0, small, 1 - small)


def tanh(x: Array) -> Array:
    return np.tanh(x)


def tanh_grad(x: Array) -> Array:
    return 4 * sigmoid_grad(2 * x)


def bce_with_logits(x: Array, t: Array) -> Array:
    """|x| times the distance of t from its own label, which is exact, and the logarithm."""
    wrong = np.where(x < 0, t, 1 - t)
    return np.where(wrong == 0, 0, np.abs(x) * wrong) + np.log1p(np.exp(-np.abs(x)))


def bce_with_logits_grad(x: Array, t: Array) -> Array:
    difference = np.where(t == 1, -sigmoid(-x), (1 - t) * sigmoid(x) - t * sigmoid(-x))
    return np.where(np.isinf(t), sigmoid(x) - t, difference)


def bce_with_logits_hess(x: Array, t: Array) -> Array:
    return np.where(np.isnan(t), t, sigmoid_grad(x))


EXACT: dict[str, tuple[Callable[..., Array], ...]] = {
    "sigmoid": (sigmoid,),
    "sigmoid_grad": (sigmoid_grad,),
    "sigmoid_value_and_grad": (sigmoid, sigmoid_grad),
    "sigmoid_vjp": (lambda x, g: g * sigmoid_grad(x),),
    "sigmoid_derivative": (lambda y: y * (1 - y),),
    "sigmoid_backward": (lambda g, y: g * (y * (1 - y)),),
    "softplus": (softplus,),
    "softplus_grad": (sigmoid,),
    "softplus_value_and_grad": (softplus, sigmoid),
    "softplus_vjp": (lambda x, g: g * sigmoid(x),),
    "log_sigmoid": (log_sigmoid,),
    "log_sigmoid_grad": (lambda x: sigmoid(-x),),
    "log_sigmoid_value_and_grad": (log_sigmoid, lambda x: sigmoid(-x)),
    "log_sigmoid_vjp": (lambda x, g: g * sigmoid(-x),),
    "logit": (logit,),
    "silu": (silu,),
    "silu_grad": (silu_grad,),
    "silu_value_and_grad": (silu, silu_grad),
    "silu_vjp": (lambda x, g: g * silu_grad(x),),
    "tanh": (tanh,),
    "tanh_grad": (tanh_grad,),
    "tanh_value_and_grad": (tanh, tanh_grad),
    "tanh_vjp": (lambda x, g: g * tanh_grad(x),),
    "tanh_derivative": (lambda y: (1 - y) * (1 + y),),
    "tanh_backward": (lambda g, y: g * ((1 - y) * (1 + y)),),
    "bce_with_logits": (bce_with_logits,),
    "bce_with_logits_grad": (bce_with_logits_grad,),
    "bce_with_logits_value_and_grad": (bce_with_logits, bce_with_logits_grad),
    "bce_with_logits_grad_and_hess": (bce_with_logits_grad, bce_with_logits_hess),
}


def exact(name: str, *inputs: Array) -> tuple[Array, ...]:
    """The true results of the public function `name`, in a type so much wider than the inputs' that they count as exact.

    Parameters
    ----------
    name : str
        The name of a ufunc of this package.
    *inputs : ndarray
        Its arguments, all of one dtype.

    Returns
    -------
    tuple of ndarray
        An array for each output: float64 for inputs of float32 and less, `numpy.longdouble` for float64.

    Raises
    ------
    NotImplementedError
        For float64 where longdouble is no wider.

    Examples
    --------
    >>> exact("sigmoid_value_and_grad", np.float32([0, 40]))
    (array([0.5, 1. ]), array([2.50000000e-01, 4.24835426e-18]))
    """
    type = wide(inputs[0].dtype)
    with np.errstate(all="ignore"):
        return tuple(np.asarray(function(*(x.astype(type) for x in inputs))) for function in EXACT[name])


# --- inputs ------------------------------------------------------------------------------------------------------------

# Where a result of some function changes its nature.
EDGES = {
    "float16": "0x0p+0",
    "bfloat16": "0x0p+0",
    "float32": """0x0p+0 0x1p-149 0x1p-126 0x1p-125 0x1p-40 0x1p-25 0x1p-12 0x1.62e43p-2 0x1.62e43p-1 0x1p-1 0x1p+0 0x1.8p+0
        0x1.474d1ep+0 0x1.0a2b24p+4 0x1.154246p+4 0x1.1b4b4ep+4 0x1.1b1fa8p+4 0x1.4p+5 0x1.5cp+5 0x1.5d589ep+6 0x1.5d58ap+6
        0x1.62e43p+6 0x1.62e43p+5 0x1.6f6202p+6 0x1.6f6d58p+6 0x1.5eca1cp+6 0x1.9fe36ap+6 0x1.a2p+6 0x1.b8p+6 0x1.5cp+6 0x1.8p+7
        0x1.94cccdp+7 0x1.fffffep+127 0x1.63f5dep-2""",
    "float64": """0x0p+0 0x1p-1074 0x1p-1022 0x1p-1021 0x1p-80 0x1p-54 0x1p-27 0x1.62e42fefa39efp-2 0x1.62e42fefa39efp-1
        0x1p-1 0x1p+0 0x1.8p+0 0x1.474d1f04ad5e8p+0 0x1.2b708872320e2p+5 0x1.62p+8 0x1.2cp+9 0x1.62p+9 0x1.6232bdd7abcd2p+9
        0x1.6232bdd7abcd3p+9 0x1.62e42fefa39f0p+9 0x1.62e42fefa39f0p+8 0x1.657bcf0857818p+9 0x1.657bfcf5db0cdp+9
        0x1.74910d52d3052p+9 0x1.75p+9 0x1.798p+9 0x1.6b93333333333p+10 0x1.6e26666666666p+10 0x1.fffffffffffffp+1023""",
}
BITS = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.uint32, "float64": np.uint64}
TAIL = {"float16": 20.0, "bfloat16": 104.0, "float32": 104.0, "float64": 745.0}  # beyond it the sigmoid is 0 or 1
WORST = Path(__file__).parent / "worst.json"


def edges(dtype: npt.DTypeLike) -> Array:
    """The inputs at which a result changes its nature, their neighbours, both signs, infinities and NaN.

    Parameters
    ----------
    dtype : dtype
        One of float16, bfloat16, float32, float64.

    Returns
    -------
    ndarray
        Of that dtype, one-dimensional.

    Examples
    --------
    >>> edges(np.float16)
    array([ 0.e+00,  6.e-08,  6.e-08, -0.e+00, -6.e-08, -6.e-08,     inf,
              -inf,     nan], dtype=float16)
    """
    dtype = np.dtype(dtype)
    middle = np.array([float.fromhex(text) for text in EDGES[dtype.name].split()], dtype=dtype)
    bits = middle.view(BITS[dtype.name])
    around = np.concatenate([bits, bits + 1, np.where(bits > 0, bits - 1, 1)]).astype(bits.dtype).view(dtype)
    return np.concatenate([around, -around, np.array([np.inf, -np.inf, np.nan], dtype=dtype)])


def spaced(dtype: npt.DTypeLike, step: int, start: int = 0) -> Iterator[Array]:
    """Every `step`-th number by its bits, from `start` on: both signs, infinities, NaNs.

    Parameters
    ----------
    dtype : dtype
        One of float16, bfloat16, float32, float64.
    step : int
        1 for all numbers there are.
    start : int, default 0
        The bits of the first one.

    Yields
    ------
    ndarray
        Of that dtype, of 2**20 elements; the last one of the rest.

    Examples
    --------
    >>> sum(x.size for x in spaced(np.float32, 1000))
    4294968
    """
    bits = BITS[np.dtype(dtype).name]
    total = 1 << (8 * np.dtype(dtype).itemsize)
    for begin in range(start, total, step << 20):
        count = min(1 << 20, -(-(total - begin) // step))
        yield (np.arange(count, dtype=np.uint64) * np.uint64(step) + np.uint64(begin)).astype(bits).view(dtype)


def random(dtype: npt.DTypeLike, count: int, seed: int = 0) -> Array:
    """Logits as they occur (normal, three wide) and all over the range where the results vary, half of each.

    Parameters
    ----------
    dtype : dtype
        One of float16, bfloat16, float32, float64.
    count : int
        How many.
    seed : int, default 0
        Of NumPy's random generator.

    Returns
    -------
    ndarray
        Of that dtype, one-dimensional.

    Examples
    --------
    >>> x = random(np.float32, 1000)
    >>> x.size, bool((abs(x[:500]) < 20).all())
    (1000, True)
    """
    generator = np.random.default_rng(seed)
    reach = 1.1 * TAIL[np.dtype(dtype).name]
    half = count // 2
    return np.concatenate([3 * generator.standard_normal(half), generator.uniform(-reach, reach, count - half)]).astype(dtype)


@cache
def recorded() -> dict[str, Any]:
    """What long runs have measured, function by function, output by output, dtype by dtype: the error and the inputs."""
    found: dict[str, Any] = json.loads(WORST.read_text(encoding="utf-8")) if WORST.exists() else {}
    return found


def worst(name: str, dtype: npt.DTypeLike) -> tuple[Array, ...]:
    """The inputs of `name` with the largest errors that long runs have found.

    Parameters
    ----------
    name : str
        The name of a ufunc of this package.
    dtype : dtype
        One of float16, bfloat16, float32, float64.

    Returns
    -------
    tuple of ndarray
        An array for each of its arguments.

    Examples
    --------
    >>> worst("sigmoid", np.float32)
    (array([-87.68475], dtype=float32),)
    """
    dtype = np.dtype(dtype)
    rows = [
        [float.fromhex(text) for text in found["inputs"]]
        for output in recorded().get(ALIASES.get(name, name), {}).values()
        for found in [output.get(dtype.name)]
        if found
    ]
    return tuple(np.array(column, dtype=dtype) for column in zip(*rows, strict=True))


def operands(inputs: Sequence[str], x: Array) -> tuple[Array, ...]:
    """Arguments made from logits: `x` itself, and for each other name what that stands for.

    `p` is x where that is in [0, 1], and once in eight elsewhere; `y` is in [0, 1]; `t` is 0 or 1, or anything between; `g`
    comes from `upstream`.
    """
    wider = wide(x.dtype)
    with np.errstate(all="ignore"):
        a = np.abs(x.astype(wider))
        eighth = np.arange(x.size).reshape(x.shape) % 8 == 0
        folded = np.where(a <= 1, a, 1 / a).astype(x.dtype)
        p = np.where(((x >= 0) & (x <= 1)) | eighth, x, (1 / (1 + a)).astype(x.dtype))
    makers: dict[str, Callable[[], Array]] = {
        "x": lambda: x,
        "p": lambda: p,
        "y": lambda: folded,
        "g": lambda: upstream(x),
        "t": lambda: labels(x),
    }
    return tuple(makers[name]() for name in inputs)


def labels(x: Array, seed: int = 2) -> Array:
    """Labels to go with `x`: half of them 0 or 1, the others between, some of them close to an end."""
    generator = np.random.default_rng(seed)
    soft = generator.random(x.shape)
    soft = np.where(generator.random(x.shape) < 0.2, np.exp2(-30 * soft), soft)
    soft = np.where(generator.random(x.shape) < 0.1, 1 - np.exp2(-20 * soft), soft)
    return np.where(generator.random(x.shape) < 0.5, np.round(soft), soft).astype(x.dtype)


def upstream(x: Array, seed: int = 1) -> Array:
    """Gradients to go with `x`: ordinary, very large and very small, both signs; zero; infinite where x is small."""
    generator = np.random.default_rng(seed)
    info = finfo(x.dtype)
    exponent = np.where(
        generator.random(x.shape) < 0.5, generator.uniform(-3, 3, x.shape), generator.uniform(info.minexp, info.maxexp, x.shape)
    )
    with np.errstate(all="ignore"):
        g = (np.exp2(exponent.astype(np.longdouble)) * generator.choice([-1, 1], x.shape)).astype(x.dtype)
        # where the product is subnormal, however small the derivative
        least = np.longdouble(float(info.smallest_subnormal)) * np.exp2(
            generator.uniform(-2, 12, x.shape).astype(np.longdouble)
        )
        against = np.minimum(least * np.exp(np.abs(x.astype(np.longdouble))), np.longdouble(float(info.max))).astype(x.dtype)
        g[::5] = np.where(np.isfinite(against), against, np.ones_like(x))[::5]
        g[::4099], g[1::4099] = 0, info.max
        g[2::4099] = np.where(np.abs(x[2::4099]) < 1, np.inf, 1)
    return g
