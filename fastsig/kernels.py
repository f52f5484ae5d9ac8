"""Mathematics: each public function from one core, with its contract.

Every function of the family is a few operations on e = exp(-|x|):

    sigmoid(x)   = 1 / (1 + e) for x >= 0,  e / (1 + e) for x < 0
    sigmoid'(x)  = e / (1 + e)²                      the same for x and -x
    softplus(x)  = max(x, 0) + ln(1 + e)             log_sigmoid(x) = -softplus(-x)
    ln(1 + e)    = 2 artanh(e / (2 + e))             a quotient of the sigmoid's kind
    silu(x)      = x·sigmoid(x)                      silu'(x) = 1 - silu'(-x)
    tanh(x)      = ±(1 - 2·sigmoid(-2|x|))           tanh'(x) = 4·sigmoid'(2x)
    bce(x, t)    = max(x, 0) - x·t + ln(1 + e)       its derivative is (1 - t)·sigmoid(x) - t·sigmoid(-x)
    logit(p)     = ln(p / (1 - p))                   the inverse: no exponential, the same artanh

With a = |x| and -a = m·ln2 - r, the smaller sigmoid is 2^m / (2^m + e^r), and the larger is 1 less that: of the two only
the smaller can lose digits, and it is computed without a subtraction. Numerator and denominator carry the factor f.unit, which
keeps 2^m a normal number down to the smallest subnormal result.

Kernels are ordinary scalar Python; `f` holds the constants of the format. No literal occurs in one: in a float32 kernel
it would be a float64. Where f.tails doesn't hold, the argument is ordinary (see `Kernel.ordinary`), and what only the others
need is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastsig.instructions import (
    binades,
    fma,
    halved,
    lowered,
    magnitude,
    polynomial,
    power_of_two,
    select,
    subtract_bits,
    unpacked,
    with_sign,
)

PARTS: list[Callable[..., Any]] = []  # what kernels call: compiled into them


@dataclass(frozen=True)
class Absolute:
    """Where the exact result crosses zero, and no relative bound can hold: an absolute one instead."""

    where: str  # a condition on the inputs, as NumPy evaluates it
    bound: Mapping[str, float]  # for each dtype; one without has its relative bound there too
    times: str = ""  # the input by whose magnitude the bound is multiplied, if any


@dataclass(frozen=True)
class Kernel:
    """A public function: its mathematics, and what is promised of it."""

    function: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ulp: Mapping[str, float]  # the contract: the largest error, in units in the last place, for each dtype
    absolute: Mapping[str, Absolute]  # and for each output that needs it
    ordinary: str | None  # the constant with the least and the largest |x| for which the kernel may leave the tails out
    needs_subnormals: bool  # whether the arithmetic itself meets subnormal numbers that matter
    weights: int = 0  # how many of the inputs are in the format that is computed in, whatever that of x is
    scalars: int = 0  # how many, the last ones, are one number for all elements, in that format

    @property
    def name(self) -> str:
        return self.function.__name__


KERNELS: dict[str, Kernel] = {}
TERMS: dict[str, Kernel] = {}  # what losses are summed of: no ufuncs, see `losses`
ALIASES = {"expit": "sigmoid", "log_expit": "log_sigmoid", "swish": "silu"}


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    PARTS.append(function)
    return function


def kernel(
    outputs: str,
    *,
    half: float = 0.51,
    float32: float,
    float64: float,
    absolute: Mapping[str, Absolute] | None = None,
    ordinary: str | None = None,
    needs_subnormals: bool = False,
    weights: int = 0,
    scalars: int = 0,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a public function; its parameters but the last, `f`, are the ufunc's inputs.

    `half` is the bound for both of float16 and bfloat16, which are computed in float32 and rounded once. With `scalars` it is
    no public function but the terms of a loss; so many of its inputs, the last ones, are numbers, and so many before them
    (`weights`) in the format that is computed in.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        inputs = function.__code__.co_varnames[: function.__code__.co_argcount - 1]
        ulp = {"float16": half, "bfloat16": half, "float32": float32, "float64": float64}
        (TERMS if scalars else KERNELS)[function.__name__] = Kernel(
            function, inputs, tuple(outputs.split()), ulp, absolute or {}, ordinary, needs_subnormals, weights, scalars
        )
        return function

    return register


# --- the core ----------------------------------------------------------------------------------------------------------


@part
def distance(x: Any, f: Any) -> Any:
    """|x|, and no more than where all that is made of e^-|x| vanishes; NaN stays."""
    a = magnitude(x)
    return select(f.highest < a, f.highest, a) if f.tails else a


@part
def reduced(a: Any, f: Any) -> Any:
    """m + f.magic for -a = m·ln2 - r, |r| <= ln2 / 2."""
    return fma(a, -f.log2e, f.magic)


@part
def inverted(d: Any, f: Any) -> Any:
    """1 / d to 2^-17 (float64: 2^-34), which is all that its use here needs.

    A guess by the bits is 5.06 % off at most; the square of that goes with one step, its fourth power with the next. A division
    would be exact, and dearer: on Granite Rapids the float32 sigmoid took 0.34 ns an element with it for 0.33, the float64
    one 0.93 for 0.84.
    """
    y = subtract_bits(f.guess, d)
    error = fma(-y, d, f.one)
    y = fma(y, error, y)
    y = fma(y, error * error, y)
    return fma(y, fma(-y, d, f.one), y) if f.wide else y


@part
def remainder(a: Any, v: Any, f: Any) -> Any:
    """r for a and v = m + f.magic, exactly; what its representation of ln2 leaves out; and their sum."""
    m = v - f.magic
    r = fma(m, f.ln2, a)
    return r, m * f.ln2_rest, fma(m, f.ln2_rest, r)


@part
def exponential(a: Any, v: Any, coefficients: Any, f: Any) -> Any:
    """r, and what e^r is beyond 1 + r, to 2^-28 (2^-57) of e^r."""
    r, rest, whole = remainder(a, v, f)
    square = whole * whole
    return r, fma(square, polynomial(whole, square, coefficients), rest)


@part
def reciprocal(r: Any, tail: Any, s: Any, f: Any) -> Any:
    """1 / (2^m + e^r) and its relative error, in f.unit, for e^r = 1 + r + tail and s = f.unit·2^m.

    Shorter chains matter as much as fewer operations: d is summed so that its last step waits for `tail` alone (float32 0.36
    to 0.35 ns an element, float64 0.94 to 0.88, together with `polynomial`'s pairs 0.39 to 0.35 and 0.98 to 0.88).

    The error is computed, from the remainder of the inversion and from what the sum lost, so that neither counts. The order
    of that sum matters: f.unit - d and + s are exact, the small terms come last.
    """
    d = fma(tail, f.unit, fma(r, f.unit, f.unit) + s)
    inverse = inverted(d, f)
    lost = fma(tail, f.unit, fma(r, f.unit, (f.unit - d) + s))
    error = fma(-inverse, lost, fma(-inverse, d, f.one))
    return inverse, error


@part
def core(x: Any, f: Any) -> Any:
    """|x|, f.unit·2^m, and 1 / (2^m + e^r) in f.unit with its relative error: all that most functions of x are made of."""
    a = distance(x, f)
    v = reduced(a, f)
    s = power_of_two(v)
    r, tail = exponential(a, v, f.exp, f)
    inverse, error = reciprocal(r, tail, s, f)
    return a, s, inverse, error


@part
def scaled(s: Any, y: Any, subnormal: Any, f: Any) -> Any:
    """s·y > 0, rounded once even where it is subnormal, though no operand or result of the arithmetic is.

    Added to the smallest normal number, a subnormal has its own last place; the sum's bits less that number's are its own.
    """
    if f.tails:
        base = select(subnormal, f.smallest, f.zero)
        product = subtract_bits(fma(s, y, base), base)
    else:
        product = s * y
    return product


# --- sigmoid -----------------------------------------------------------------------------------------------------------


@part
def smaller(a: Any, s: Any, inverse: Any, error: Any, f: Any) -> Any:
    """The sigmoid of -a."""
    return scaled(s, fma(inverse, error, inverse), f.subnormal <= a, f)


@part
def value(x: Any, a: Any, s: Any, inverse: Any, error: Any, f: Any) -> Any:
    """The sigmoid of x."""
    y = smaller(a, s, inverse, error, f)
    return select(x < f.zero, y, f.one - y)


@part
def larger(s: Any, inverse: Any, error: Any, f: Any) -> Any:
    """The sigmoid of a, in two parts."""
    y = s * inverse
    h = f.one - y
    return h, fma(-y, error, (f.one - h) - y)


@part
def slope(s: Any, inverse: Any, error: Any, f: Any) -> Any:
    """The two summands of sigmoid'(x) / s: y(1 - y) with y = s·inverse·(1 + error), 1 - y in two parts."""
    y = s * inverse
    h = f.one - y
    lost = (f.one - h) - y
    return h, fma(error, h - y, lost)


@part
def derivative(a: Any, s: Any, inverse: Any, error: Any, f: Any) -> Any:
    high, low = slope(s, inverse, error, f)
    return scaled(s, fma(inverse, high, inverse * low), f.subnormal <= a, f)


@kernel("y", float32=0.85, float64=0.85, ordinary="ordinary")
def sigmoid(x: Any, f: Any) -> Any:
    """The logistic sigmoid, 1 / (1 + e^-x).

    Relative accuracy holds in the whole lower tail, where 1 / (1 + exp(-x)) is 0 below -88.72 (float32) and -709.78
    (float64): the result is subnormal from -87.34 (-708.4) and 0 from -103.98 (-745.14) on.

    >>> fastsig.sigmoid([-745.0, 0.0, 0.5])
    array([4.94065646e-324, 5.00000000e-001, 6.22459331e-001])
    """
    a, s, inverse, error = core(x, f)
    return value(x, a, s, inverse, error, f)


@kernel("dy", float32=0.85, float64=0.85, ordinary="ordinary")
def sigmoid_grad(x: Any, f: Any) -> Any:
    """The derivative of the sigmoid, e^-|x| / (1 + e^-|x|)², from the input.

    From the output it would be y(1 - y), which is wrong by 6 % at 16 in float32 and 0 from 17 on: there y is 1.

    >>> fastsig.sigmoid_grad([-30.0, 0.0, 30.0])
    array([9.35762297e-14, 2.50000000e-01, 9.35762297e-14])
    """
    a, s, inverse, error = core(x, f)
    return derivative(a, s, inverse, error, f)


@kernel("y dy", float32=0.85, float64=0.85, ordinary="ordinary")
def sigmoid_value_and_grad(x: Any, f: Any) -> Any:
    """The sigmoid and its derivative in one pass.

    They are the bits of `sigmoid` and `sigmoid_grad`, for little more than the cost of one of them.

    >>> y, dy = fastsig.sigmoid_value_and_grad([0.0, 2.0])
    >>> y
    array([0.5       , 0.88079708])
    >>> dy
    array([0.25      , 0.10499359])
    """
    a, s, inverse, error = core(x, f)
    return value(x, a, s, inverse, error, f), derivative(a, s, inverse, error, f)


# --- products with an upstream gradient ----------------------------------------------------------------------------------


@part
def factors(a: Any, f: Any) -> Any:
    """a, m + f.magic and 2^m in two factors, for any a >= 0: g may be as large as the derivative is small.

    The first is s / f.unit, no less than what f.share turns into the smallest subnormal; the second, 1 as a rule, is the rest.
    """
    a = select(f.vanishing < a, f.vanishing, a)
    v = reduced(a, f)
    near = select(v < f.nearest, f.nearest, v)
    return a, v, power_of_two(near), power_of_two((v - near) + f.magic_of_one)


@part
def far_core(a: Any, f: Any) -> Any:
    """As `core`, in such factors."""
    a, v, s, far = factors(a, f)
    r, tail = exponential(a, v, f.exp, f)
    inverse, error = reciprocal(r, tail, s, f)
    return s, far, inverse, error


@part
def times(g: Any, high: Any, low: Any, scale: Any, far: Any, f: Any) -> Any:
    """g·(high + low)·scale·far, right even where the factors but g are subnormal together and g is large, or g is subnormal.

    high + low carry 1 / f.share, so that their product with g doesn't overflow, and scale makes up for it.
    """
    faint = magnitude(g) < f.faint
    g = select(faint, g * f.lift, g)
    product = g * high
    correction = g * low
    correction = select(f.zero < magnitude(correction), correction, product * f.zero)  # a zero keeps the product's sign
    correction = select(magnitude(correction) < f.infinity, correction, f.zero)  # for infinite g there is none
    return fma(g, high, correction) * far * (scale * select(faint, f.drop, f.one))


@part
def slope_times(g: Any, scale: Any, s: Any, far: Any, inverse: Any, error: Any, f: Any) -> Any:
    """g·sigmoid'(x), by `scale` more."""
    high, low = slope(s, inverse, error, f)
    part = inverse * f.unit_by_share
    product = part * high
    return times(g, product, fma(part, high, -product) + part * low, s * scale, far, f)


@part
def value_times(g: Any, x: Any, f: Any) -> Any:
    """g·sigmoid(x)"""
    s, far, inverse, error = far_core(magnitude(x), f)
    h, low = larger(s, inverse, error, f)
    negative = x < f.zero
    part = inverse * f.unit_by_share
    high = select(negative, part, h * f.one_by_share)
    low = select(negative, part * error, low * f.one_by_share)
    return times(g, high, low, select(negative, s * f.share_by_unit, f.share), select(negative, far, f.one), f)


@kernel("dx", float32=1.0, float64=0.95, needs_subnormals=True)
def sigmoid_vjp(x: Any, g: Any, f: Any) -> Any:
    """The vector-Jacobian product g·sigmoid'(x): back-propagation from the input.

    Right even where sigmoid'(x) is subnormal, or less than that, and g is large, or where g is subnormal. Where the
    derivative is too small for any finite g to make a number of it, an infinite g gives NaN, as infinity times zero does.

    >>> fastsig.sigmoid_vjp([0.0, 40.0], [2.0, 1.0])
    array([5.00000000e-01, 4.24835426e-18])
    """
    s, far, inverse, error = far_core(magnitude(x), f)
    return slope_times(g, f.share_by_unit, s, far, inverse, error, f)


@part
def from_value(y: Any, f: Any) -> Any:
    """y(1 - y), rounded once: of 1 - y, what the rounding lost is kept, for a y of any size."""
    h = f.one - y
    back = h - f.one
    lost = y * ((f.one - (h - back)) - (y + back))
    return fma(y, h, select(magnitude(lost) < f.infinity, lost, f.zero))  # for infinite y there is none


@kernel("dy", float32=0.51, float64=0.51, needs_subnormals=True)
def sigmoid_derivative(y: Any, f: Any) -> Any:
    """The derivative of the sigmoid from its value, y(1 - y).

    What tutorials compute. A value near 1 has lost the digits of 1 - y: `sigmoid_grad` takes the input and keeps them.

    >>> fastsig.sigmoid_derivative(0.622459331201854593)
    np.float64(0.2350037122015945)
    """
    return from_value(y, f)


@kernel("dx", float32=1.5, float64=1.5, needs_subnormals=True)
def sigmoid_backward(g: Any, y: Any, f: Any) -> Any:
    """Back-propagation through the sigmoid from its saved value, g·y(1 - y).

    What frameworks compute, for y in [0, 1]. A value near 1 has lost the digits of 1 - y: `sigmoid_vjp` takes the input and
    keeps them.

    >>> fastsig.sigmoid_backward([1.0, 2.0], [0.5, 0.25])
    array([0.25 , 0.375])
    """
    return g * from_value(y, f)


# --- softplus and the log-sigmoid ----------------------------------------------------------------------------------------


@part
def logarithm(r: Any, tail: Any, s: Any, f: Any) -> Any:
    """ln(1 + e^-a) / s in two parts: 2u(1 + w·A(w)), w = u², u = e^-a / (2 + e^-a) = 2^(m-1) / (2^(m-1) + e^r)."""
    half = s * f.half
    inverse, error = reciprocal(r, tail, half, f)
    y = fma(inverse, error, inverse)
    u = half * y
    w = u * u
    return y, fma(w * y, polynomial(w, w * w, f.artanh), fma(inverse, error, inverse - y))


@part
def log_core(x: Any, f: Any) -> Any:
    """|x|, f.unit·2^m, r and the tail of e^r, and ln(1 + e^-|x|) by f.unit·2^m in two parts."""
    a = distance(x, f)
    v = reduced(a, f)
    s = power_of_two(v)
    r, tail = exponential(a, v, f.exp, f)
    y, low = logarithm(r, tail, s, f)
    return a, s, r, tail, y, low


@part
def log_sum(x: Any, a: Any, s: Any, y: Any, low: Any, f: Any) -> Any:
    """max(x, 0) + s·(y + low): what the sum loses is added again. A rounding of both at once would cost 0.4 ULP more."""
    below = scaled(s, y + low, f.subnormal <= a, f)
    product = s * y
    first, second = select(product < x, x, product), select(product < x, product, x)
    total = first + second
    above = total + fma(s, low, second - (total - first))
    if f.tails:
        above = select(f.large < x, x, above)
    return select(x < f.zero, below, above)


@kernel("y", float32=0.85, float64=0.85, ordinary="ordinary")
def softplus(x: Any, f: Any) -> Any:
    """The softplus function, ln(1 + e^x).

    No threshold, beyond which it would be x: torch's is 20, where float64 has lost half of its digits. -softplus(-x) is
    `log_sigmoid`, to the bit.

    >>> fastsig.softplus([-745.0, 0.0, 30.0])
    array([4.94065646e-324, 6.93147181e-001, 3.00000000e+001])
    """
    a, s, _, _, y, low = log_core(x, f)
    return log_sum(x, a, s, y, low, f)


@kernel("dy", float32=0.85, float64=0.85, ordinary="ordinary")
def softplus_grad(x: Any, f: Any) -> Any:
    """The derivative of `softplus`, which is the sigmoid.

    The bits of `sigmoid`, under the name that goes with `softplus`.

    >>> fastsig.softplus_grad([-745.0, 0.0, 0.5])
    array([4.94065646e-324, 5.00000000e-001, 6.22459331e-001])
    """
    a, s, inverse, error = core(x, f)
    return value(x, a, s, inverse, error, f)


@kernel("y dy", float32=0.85, float64=0.85, ordinary="ordinary")
def softplus_value_and_grad(x: Any, f: Any) -> Any:
    """The softplus function and its derivative, the sigmoid, in one pass.

    They are the bits of `softplus` and `sigmoid`.

    >>> y, dy = fastsig.softplus_value_and_grad([0.0, 2.0])
    >>> y
    array([0.69314718, 2.12692801])
    >>> dy
    array([0.5       , 0.88079708])
    """
    a, s, r, tail, y, low = log_core(x, f)
    inverse, error = reciprocal(r, tail, s, f)
    return log_sum(x, a, s, y, low, f), value(x, a, s, inverse, error, f)


@kernel("dx", float32=1.0, float64=0.95, needs_subnormals=True)
def softplus_vjp(x: Any, g: Any, f: Any) -> Any:
    """The vector-Jacobian product g·sigmoid(x): back-propagation through `softplus` from its input.

    Right even where sigmoid(x) is subnormal, or less than that, and g is large, or where g is subnormal.

    >>> fastsig.softplus_vjp([0.0, -40.0], [2.0, 1.0])
    array([1.00000000e+00, 4.24835426e-18])
    """
    return value_times(g, x, f)


@kernel("y", float32=0.85, float64=0.85, ordinary="ordinary")
def log_sigmoid(x: Any, f: Any) -> Any:
    """The logarithm of the sigmoid, ln(1 / (1 + e^-x)).

    Taken of `sigmoid` it would be -inf in the lower tail and 0 from 17 (float32) on in the upper one. It is -softplus(-x), to
    the bit.

    >>> fastsig.log_sigmoid([-1000.0, 0.0, 40.0])
    array([-1.00000000e+03, -6.93147181e-01, -4.24835426e-18])
    """
    a, s, _, _, y, low = log_core(x, f)
    return -log_sum(-x, a, s, y, low, f)


@kernel("dy", float32=0.85, float64=0.85, ordinary="ordinary")
def log_sigmoid_grad(x: Any, f: Any) -> Any:
    """The derivative of `log_sigmoid`, which is sigmoid(-x).

    >>> fastsig.log_sigmoid_grad([-2.0, 0.0, 40.0])
    array([8.80797078e-01, 5.00000000e-01, 4.24835426e-18])
    """
    a, s, inverse, error = core(x, f)
    return value(-x, a, s, inverse, error, f)


@kernel("y dy", float32=0.85, float64=0.85, ordinary="ordinary")
def log_sigmoid_value_and_grad(x: Any, f: Any) -> Any:
    """The logarithm of the sigmoid and its derivative in one pass.

    They are the bits of `log_sigmoid` and `log_sigmoid_grad`.

    >>> y, dy = fastsig.log_sigmoid_value_and_grad([0.0, 2.0])
    >>> y
    array([-0.69314718, -0.12692801])
    >>> dy
    array([0.5       , 0.11920292])
    """
    a, s, r, tail, y, low = log_core(x, f)
    inverse, error = reciprocal(r, tail, s, f)
    return -log_sum(-x, a, s, y, low, f), value(-x, a, s, inverse, error, f)


@kernel("dx", float32=1.0, float64=0.95, needs_subnormals=True)
def log_sigmoid_vjp(x: Any, g: Any, f: Any) -> Any:
    """The vector-Jacobian product g·sigmoid(-x): back-propagation through `log_sigmoid` from its input.

    Right even where sigmoid(-x) is subnormal, or less than that, and g is large, or where g is subnormal.

    >>> fastsig.log_sigmoid_vjp([0.0, 40.0], [2.0, 1.0])
    array([1.00000000e+00, 4.24835426e-18])
    """
    return value_times(g, -x, f)


# --- logit -------------------------------------------------------------------------------------------------------------


@kernel("x", float32=0.8, float64=0.8, ordinary="inner", needs_subnormals=True)
def logit(p: Any, f: Any) -> Any:
    """The inverse of the sigmoid, ln(p / (1 - p)).

    logit(0) is -inf, logit(1) is inf; outside [0, 1] the result is NaN, without a warning.

    With k such that c = 2^-k·min(p, 1 - p) lies within a factor of 1.5 of d = max(p, 1 - p), it is
    ±(2 artanh((d - c) / (d + c)) - k·ln2), d - c without error: exact digits at 1/2, too.

    >>> fastsig.logit([0.0, 0.25, 0.5, 1.0])
    array([       -inf, -1.09861229,  0.        ,         inf])
    """
    q = f.one - p
    lower = p < f.half
    small, large = select(lower, p, q), select(lower, q, p)
    lost = select(lower, (f.one - q) - p, f.zero)  # of 1 - p; for p >= 1/2 it is exact
    least = unpacked(small) if f.tails else small
    whole = select(small < f.smallest, least, small) if f.tails else small
    k = binades(whole, large)
    c = lowered(whole, large)
    exact = large - c
    n, d = exact + lost, large + c
    inverse = inverted(d, f)
    u = n * inverse
    rest = (fma(-u, d, n) + fma(-u, (large - d) + c + lost, (exact - n) + lost)) * inverse
    u, rest = u + u, rest + rest
    y = u + rest
    w = y * f.half * (y * f.half)
    low = fma(w * y, polynomial(w, w * w, f.artanh_near), (u - y) + rest)
    k = select(small < f.smallest, k - f.depth, k) if f.tails else k
    first = k * -f.ln2_high  # exactly
    total = first + y
    result = total + (((first - total) + y) + fma(k, -f.ln2_low, low))
    if f.tails:
        result = select(small == f.zero, f.infinity, result)
        result = select(small < f.zero, f.nan, result)
    return select(lower, -result, result)


# --- SiLU --------------------------------------------------------------------------------------------------------------


@part
def two_sided(a: Any, v: Any, s: Any, f: Any) -> Any:
    """As `core`, and h + low = 1 - s·inverse·(1 + error), the larger sigmoid, which helps to find the error.

    Where s is small, it is more exact than `reciprocal`, whose sum drops its last bits. For the sigmoid the polynomial leans
    against half of that, where the result's last place is large; here a factor of x moves that place.
    """
    r, tail = exponential(a, v, f.exp_even, f)
    e = fma(tail, f.unit, fma(r, f.unit, f.unit))
    lost = fma(tail, f.unit, fma(r, f.unit, f.unit - e))
    inverse = f.one / (e + s)
    y = s * inverse
    h = f.one - y
    left = (f.one - h) - y
    error = fma(-inverse, lost, fma(-inverse, e, h) + left)
    return inverse, error, h, fma(-y, error, left)


@part
def silu_core(x: Any, f: Any) -> Any:
    a = distance(x, f)
    v = reduced(a, f)
    s = power_of_two(v)
    inverse, error, h, low = two_sided(a, v, s, f)
    return a, s, inverse, error, h, low


@part
def silu_value(x: Any, a: Any, s: Any, inverse: Any, error: Any, h: Any, low: Any, f: Any) -> Any:
    """x·sigmoid(x), the sigmoid in two parts; from f.deep on, the smaller one is scaled last; x / 2 is right for small x."""
    part = s * inverse
    negative = x < f.zero
    high, low = select(negative, part, h), select(negative, part * error, low)
    if f.tails:
        deep = x < -f.deep
        high, low = select(deep, inverse, high), select(deep, inverse * error, low)
        y = fma(a, high, a * low)
        y = select(deep, scaled(s, y, f.subnormal_silu <= a, f), y)
        y = select(f.deep < x, x, y)
        y = select(a < f.slight, a * f.half, y)
        y = with_sign(select(a < f.twice_smallest, halved(magnitude(x)), y), x)
    else:
        y = fma(x, high, x * low)
    return y


@part
def silu_slope(a: Any, error: Any, h: Any, low: Any, f: Any) -> Any:
    """c and rest, for silu'(-a) / s = inverse·(1 + error)·(1 - a·sigmoid(a)) = inverse·(c + rest)."""
    p = a * h
    c = f.one - p
    rest = fma(-a, low, ((f.one - c) - p) - fma(a, h, -p))
    return c, fma(error, c, rest)


@part
def silu_derivative(x: Any, a: Any, s: Any, inverse: Any, error: Any, h: Any, low: Any, f: Any) -> Any:
    c, rest = silu_slope(a, error, h, low, f)
    y = fma(inverse, c, inverse * rest)
    y = with_sign(scaled(s, magnitude(y), f.subnormal_silu_grad <= a, f), y) if f.tails else s * y
    return select(x < f.zero, y, f.one - y)


CROSSING = Absolute("(x >= -1.5) & (x <= -1)", {"float32": 2.0**-27, "float64": 2.0**-56})


@kernel("y", float32=0.85, float64=0.85, ordinary="gentle")
def silu(x: Any, f: Any) -> Any:
    """The sigmoid linear unit, x·sigmoid(x), also called swish.

    Relative accuracy holds in the whole lower tail, down to the last subnormal result at -108.6 (float32) and -751.8 (float64).

    >>> fastsig.silu([-750.0, -1.0, 0.0, 1.0])
    array([-1.48219694e-323, -2.68941421e-001,  0.00000000e+000,
            7.31058579e-001])
    """
    a, s, inverse, error, h, low = silu_core(x, f)
    return silu_value(x, a, s, inverse, error, h, low, f)


@kernel("dy", float32=0.85, float64=0.85, absolute={"dy": CROSSING}, ordinary="ordinary")
def silu_grad(x: Any, f: Any) -> Any:
    """The derivative of the SiLU, sigmoid(x)·(1 + x·sigmoid(-x)).

    It crosses zero at -1.27846454; between -1.5 and -1 its error is bounded absolutely.

    >>> fastsig.silu_grad([-40.0, -1.0, 0.0, 1.0])
    array([-1.65685816e-16,  7.23294881e-02,  5.00000000e-01,  9.27670512e-01])
    """
    a, s, inverse, error, h, low = silu_core(x, f)
    return silu_derivative(x, a, s, inverse, error, h, low, f)


@kernel("y dy", float32=0.85, float64=0.85, absolute={"dy": CROSSING}, ordinary="gentle")
def silu_value_and_grad(x: Any, f: Any) -> Any:
    """The SiLU and its derivative in one pass.

    They are the bits of `silu` and `silu_grad`.

    >>> y, dy = fastsig.silu_value_and_grad([0.0, 2.0])
    >>> y
    array([0.        , 1.76159416])
    >>> dy
    array([0.5       , 1.09078425])
    """
    a, s, inverse, error, h, low = silu_core(x, f)
    return silu_value(x, a, s, inverse, error, h, low, f), silu_derivative(x, a, s, inverse, error, h, low, f)


@kernel(
    "dx",
    float32=1.0,
    float64=0.95,
    absolute={"dx": Absolute(CROSSING.where, CROSSING.bound, times="g")},
    needs_subnormals=True,
)
def silu_vjp(x: Any, g: Any, f: Any) -> Any:
    """The vector-Jacobian product g·silu'(x): back-propagation through `silu` from its input.

    Right even where silu'(x) is subnormal, or less than that, and g is large, or where g is subnormal.

    >>> fastsig.silu_vjp([0.0, -40.0], [2.0, 1.0])
    array([ 1.00000000e+00, -1.65685816e-16])
    """
    a, v, s, far = factors(magnitude(x), f)
    inverse, error, h, low = two_sided(a, v, s, f)
    c, rest = silu_slope(a, error, h, low, f)
    part = inverse * f.unit_by_share
    high = part * c
    low = fma(part, c, -high) + part * rest
    back = s * f.share_by_unit  # 1 - silu'(-a) for the other side
    y = high * back
    h = f.one - y
    left = ((f.one - h) - y) - low * back
    negative = x < f.zero
    high, low = select(negative, high, h * f.one_by_share), select(negative, low, left * f.one_by_share)
    return times(g, high, low, select(negative, back, f.share), select(negative, far, f.one), f)


# --- tanh --------------------------------------------------------------------------------------------------------------


@part
def careful_exponential(a: Any, v: Any, f: Any) -> Any:
    """As `exponential`, to 2^-30 (2^-60) even of e^r - 1: the square is exact, and r²/2 not in the polynomial."""
    r, rest, whole = remainder(a, v, f)
    square = whole * whole
    rest = fma(f.half, fma(whole, whole, -square), rest)
    return r, fma(square, whole * polynomial(whole, square, f.expm1), fma(f.half, square, rest))


@part
def twice_core(x: Any, f: Any) -> Any:
    """As `core`, for 2x."""
    a = magnitude(x)
    a = a + a
    a = select(f.highest < a, f.highest, a) if f.tails else a
    v = reduced(a, f)
    s = power_of_two(v)
    r, tail = careful_exponential(a, v, f)
    inverse, error = reciprocal(r, tail, s, f)
    return a, s, inverse, error


@part
def tanh_value(x: Any, s: Any, inverse: Any, error: Any, f: Any) -> Any:
    """1 - 2y in two parts. For small x it is small itself: there the square of the error counts, and below f.little x is
    nearer."""
    y = (s + s) * inverse
    h = f.one - y
    y = h + fma(-y, fma(error, error, error), (f.one - h) - y)
    if f.tails:
        y = select(magnitude(x) < f.little, x, y)
    return with_sign(y, x)


@part
def tanh_slope(a: Any, s: Any, inverse: Any, error: Any, f: Any) -> Any:
    """4·sigmoid'(a)"""
    high, low = slope(s, inverse, error, f)
    return scaled(f.four * s, fma(inverse, high, inverse * low), f.subnormal_tanh_grad <= a, f)


@kernel("y", float32=0.85, float64=0.88, ordinary="moderate")
def tanh(x: Any, f: Any) -> Any:
    """The hyperbolic tangent, (e^x - e^-x) / (e^x + e^-x).

    >>> fastsig.tanh([-20.0, 0.0, 0.5])
    array([-1.        ,  0.        ,  0.46211716])
    """
    _, s, inverse, error = twice_core(x, f)
    return tanh_value(x, s, inverse, error, f)


@kernel("dy", float32=0.85, float64=0.85, ordinary="moderate")
def tanh_grad(x: Any, f: Any) -> Any:
    """The derivative of the hyperbolic tangent, 1 / cosh(x)², from the input.

    From the output it would be 1 - y², which is 0 from 9.1 on in float32: there y is 1.

    >>> fastsig.tanh_grad([-20.0, 0.0, 0.5])
    array([1.69934170e-17, 1.00000000e+00, 7.86447733e-01])
    """
    a, s, inverse, error = twice_core(x, f)
    return tanh_slope(a, s, inverse, error, f)


@kernel("y dy", float32=0.85, float64=0.88, ordinary="moderate")
def tanh_value_and_grad(x: Any, f: Any) -> Any:
    """The hyperbolic tangent and its derivative in one pass.

    They are the bits of `tanh` and `tanh_grad`.

    >>> y, dy = fastsig.tanh_value_and_grad([0.0, 0.5])
    >>> y
    array([0.        , 0.46211716])
    >>> dy
    array([1.        , 0.78644773])
    """
    a, s, inverse, error = twice_core(x, f)
    return tanh_value(x, s, inverse, error, f), tanh_slope(a, s, inverse, error, f)


@kernel("dx", float32=1.0, float64=0.95, needs_subnormals=True)
def tanh_vjp(x: Any, g: Any, f: Any) -> Any:
    """The vector-Jacobian product g·tanh'(x): back-propagation through `tanh` from its input.

    Right even where tanh'(x) is subnormal, or less than that, and g is large, or where g is subnormal.

    >>> fastsig.tanh_vjp([0.0, 20.0], [2.0, 1.0])
    array([2.0000000e+00, 1.6993417e-17])
    """
    a = magnitude(x)
    s, far, inverse, error = far_core(a + a, f)
    return slope_times(g, f.four * f.share_by_unit, s, far, inverse, error, f)


@kernel("dy", float32=0.51, float64=0.51, needs_subnormals=True)
def tanh_derivative(y: Any, f: Any) -> Any:
    """The derivative of the hyperbolic tangent from its value, 1 - y².

    What tutorials compute. A value near 1 has lost the digits of 1 - y: `tanh_grad` takes the input and keeps them.

    >>> fastsig.tanh_derivative([0.0, 0.5])
    array([1.  , 0.75])
    """
    return fma(-y, y, f.one)


@kernel("dx", float32=1.5, float64=1.5, needs_subnormals=True)
def tanh_backward(g: Any, y: Any, f: Any) -> Any:
    """Back-propagation through the hyperbolic tangent from its saved value, g·(1 - y²).

    What frameworks compute, for y in [-1, 1]. A value near 1 has lost the digits of 1 - y: `tanh_vjp` takes the input and
    keeps them.

    >>> fastsig.tanh_backward([1.0, 2.0], [0.0, 0.5])
    array([1. , 1.5])
    """
    return g * fma(-y, y, f.one)


# --- binary cross-entropy ----------------------------------------------------------------------------------------------

SOFT = Absolute(
    "(t > 0) & (t < 1)",
    {"float16": 0.51 * 2.0**-11, "bfloat16": 0.51 * 2.0**-8, "float32": 2.0**-23, "float64": 2.0**-52},
)


@part
def loss(x: Any, t: Any, a: Any, s: Any, y: Any, low: Any, f: Any) -> Any:
    """max(x, 0) - x·t, which is |x| times the distance of t from its own label, and ln(1 + e^-a)."""
    linear = fma(-x, t, select(x < f.zero, f.zero, x))
    if f.tails:  # an infinite x with its own label loses nothing
        wrong = select(x < f.zero, t, f.one - t)
        at_infinity = select(wrong == f.zero, f.zero, magnitude(x) * wrong)
        linear = select(magnitude(x) == f.infinity, at_infinity, linear)
    return linear + scaled(s, y + low, f.subnormal <= a, f)


@part
def residual(x: Any, t: Any, y: Any, f: Any) -> Any:
    """sigmoid(x) - t as (1 - t)·sigmoid(x) - t·sigmoid(-x), which cancels nothing at hard labels; y = sigmoid(-|x|)."""
    h = f.one - y
    negative = x < f.zero
    up, down = select(negative, y, h), select(negative, h, y)
    difference = fma(f.one - t, up, -(t * down))
    difference = select(t == f.one, -down, difference)  # the sign of a zero
    return select(magnitude(t) < f.infinity, difference, up - t)


@kernel("y", float32=1.5, float64=1.5, ordinary="ordinary", needs_subnormals=True)
def bce_with_logits(x: Any, t: Any, f: Any) -> Any:
    """The binary cross-entropy of a logit x and a label t, max(x, 0) - x·t + ln(1 + e^-|x|).

    That is -t·ln(sigmoid(x)) - (1 - t)·ln(sigmoid(-x)), of which no term overflows or loses its digits. Labels are usually
    0 or 1, and may lie between; one outside [0, 1] is computed as it stands, without a bound on the error.

    >>> fastsig.bce_with_logits([30.0, 30.0, 0.0], [1.0, 0.0, 0.5])
    array([9.35762297e-14, 3.00000000e+01, 6.93147181e-01])
    """
    a, s, _, _, y, low = log_core(x, f)
    return loss(x, t, a, s, y, low, f)


@kernel("dx", float32=1.0, float64=1.0, absolute={"dx": SOFT}, ordinary="ordinary", needs_subnormals=True)
def bce_with_logits_grad(x: Any, t: Any, f: Any) -> Any:
    """The derivative of `bce_with_logits` with respect to the logit, sigmoid(x) - t.

    As (1 - t)·sigmoid(x) - t·sigmoid(-x), so that hard labels cost no digits: at x = 30 and t = 1 the difference of the two
    would be 0 in float32. Soft labels, strictly between 0 and 1, may cancel: their error is bounded absolutely.

    >>> fastsig.bce_with_logits_grad([30.0, 30.0, 0.0], [1.0, 0.0, 0.5])
    array([-9.35762297e-14,  1.00000000e+00,  0.00000000e+00])
    """
    a, s, inverse, error = core(x, f)
    return residual(x, t, smaller(a, s, inverse, error, f), f)


@kernel("y dx", float32=1.5, float64=1.5, absolute={"dx": SOFT}, ordinary="ordinary", needs_subnormals=True)
def bce_with_logits_value_and_grad(x: Any, t: Any, f: Any) -> Any:
    """The binary cross-entropy and its derivative with respect to the logit in one pass.

    They are the bits of `bce_with_logits` and `bce_with_logits_grad`.

    >>> y, dx = fastsig.bce_with_logits_value_and_grad([2.0, 0.0], [1.0, 0.0])
    >>> y
    array([0.12692801, 0.69314718])
    >>> dx
    array([-0.11920292,  0.5       ])
    """
    a, s, r, tail, y, low = log_core(x, f)
    inverse, error = reciprocal(r, tail, s, f)
    return loss(x, t, a, s, y, low, f), residual(x, t, smaller(a, s, inverse, error, f), f)


@kernel("dx ddx", float32=1.0, float64=1.0, absolute={"dx": SOFT}, ordinary="ordinary", needs_subnormals=True)
def bce_with_logits_grad_and_hess(x: Any, t: Any, f: Any) -> Any:
    """The first and the second derivative of `bce_with_logits` with respect to the logit in one pass.

    They are the bits of `bce_with_logits_grad` and `sigmoid_grad`: what gradient boosting asks an objective for.

    >>> dx, ddx = fastsig.bce_with_logits_grad_and_hess([2.0, 0.0], [1.0, 0.0])
    >>> dx
    array([-0.11920292,  0.5       ])
    >>> ddx
    array([0.10499359, 0.25      ])
    """
    a, s, inverse, error = core(x, f)
    curvature = derivative(a, s, inverse, error, f)
    dx = residual(x, t, smaller(a, s, inverse, error, f), f)
    return dx, select(t == t, curvature, t)  # a label that is NaN shows in both


# --- the terms of losses, with their derivatives by x --------------------------------------------------------------------
# The derivatives are multiplied by `scale`, which is 1 / n for a mean; the terms aren't, since it is their sum that is divided.


@kernel("y dx ddx", float32=1.5, float64=1.5, absolute={"dx": SOFT}, ordinary="ordinary", needs_subnormals=True, scalars=1)
def bce_terms(x: Any, t: Any, scale: Any, f: Any) -> Any:
    """Those of `bce_with_logits`, and with a scale of 1 its derivatives' bits."""
    a, s, r, tail, y, low = log_core(x, f)
    inverse, error = reciprocal(r, tail, s, f)
    dx = residual(x, t, smaller(a, s, inverse, error, f), f)
    curvature = select(t == t, derivative(a, s, inverse, error, f), t)
    return loss(x, t, a, s, y, low, f), dx * scale, curvature * scale


@part
def scaled_by(w: Any, s: Any, y: Any, far: Any, f: Any) -> Any:
    """w·s·y·far, rounded as if s·y had not been: it may be subnormal where a large w makes a normal number of it."""
    return select(magnitude(w) < f.one, w * s * y, w * y * s) * far


@part
def weighed(w: Any, y: Any, f: Any) -> Any:
    """w·y, where an infinite loss of no weight is none."""
    return w * select(w == f.zero, select(y == f.infinity, f.zero, y), y)


@kernel(
    "y dx ddx",
    float32=4.0,
    float64=4.0,
    absolute={"dx": SOFT},
    ordinary="ordinary",
    needs_subnormals=True,
    weights=2,
    scalars=2,
)
def weighted_bce_terms(x: Any, t: Any, w: Any, p: Any, smoothing: Any, scale: Any, f: Any) -> Any:
    """w·(p·t·softplus(-x) + (1 - t)·softplus(x)), t drawn towards 1/2 by the smoothing.

    Both products are positive, so that nothing cancels, for a p below 1 neither; 1 - t is made from the label itself, for the
    same reason.
    """
    a, v, s, far = factors(magnitude(x), f)
    r, tail = exponential(a, v, f.exp, f)
    y, low = logarithm(r, tail, s, f)
    inverse, error = reciprocal(r, tail, s, f)
    keep, share = f.one - smoothing, f.half * smoothing
    up, down = fma(keep, f.one - t, share), p * fma(keep, t, share)
    negative = x < f.zero
    wrong = select(negative, down, up)
    linear = magnitude(x) * wrong
    if f.tails:  # an infinite x with its own label loses nothing
        linear = select(wrong == f.zero, select(x == x, f.zero, x), linear)
    both = w * (up + down)
    term = scaled_by(both, s, y + low, far, f) + weighed(w, linear, f)
    small = fma(inverse, error, inverse)
    large = f.one - s * small * far
    up, down = w * up, -(w * down)
    dx = fma(select(negative, down, up), large, scaled_by(select(negative, up, down), s, small, far, f))
    high, low = slope(s, inverse, error, f)
    ddx = scaled_by(both, s, fma(inverse, high, inverse * low), far, f)
    return term, dx * scale, ddx * scale


@part
def miss(x: Any, t: Any, a: Any, s: Any, e: Any, f: Any) -> Any:
    """How far the probability is from the label, q = (1 - t)·sigmoid(x) + t·sigmoid(-x): -ln(q) in two parts, and q'(x) / q.

    q is U / V with V = e^r + 2^m (all in f.unit) and U = near·e^r + far·2^m, far the share of the label on x's own side. The
    logarithm is that of `logit`; V - U is near·2^m + far·e^r, so that a q near 1 keeps its digits. For a label that is all on
    that side U would be 2^m, and its logarithm lose them: then U is e^r, and a is added.
    """
    positive = f.zero <= x
    near, far = select(positive, f.one - t, t), select(positive, t, f.one - t)
    own = near == f.zero
    near, far = select(own, f.one, near), select(own, f.zero, far)
    v, u = e + s, fma(near, e, far * s)
    k = binades(u, v)
    c = lowered(u, v)
    z = select(k == f.zero, fma(near, s, far * e), v - c) / (v + c)
    y = z + z
    w = z * z
    high = k * -f.ln2_high
    total = high + y
    low = ((high - total) + y) + fma(k, -f.ln2_low, w * y * polynomial(w, w * w, f.artanh_near))
    a = select(own, a, f.zero)
    sum = a + total
    back = sum - a
    lost = (a - (sum - back)) + (total - back)
    ratio = select(own, e, s) / u * (e / v)
    return sum, lost + low, ratio * (f.one - (t + t))


@part
def decayed(h: Any, low: Any, f: Any) -> Any:
    """e^-(h + low), for h >= 0."""
    low = select(f.highest < h, f.zero, low)
    h = select(f.highest < h, f.highest, h)
    v = reduced(h, f)
    r, rest, whole = remainder(h, v, f)
    rest, whole = rest + low, whole + low
    square = whole * whole
    tail = fma(square, polynomial(whole, square, f.exp), rest)
    return scaled(power_of_two(v), f.one / fma(tail, f.unit, fma(r, f.unit, f.unit)), f.subnormal <= h, f)


@kernel("y dx", float32=16.0, float64=16.0, needs_subnormals=True, weights=1, scalars=4)
def focal_terms(x: Any, t: Any, w: Any, one: Any, other: Any, gamma: Any, scale: Any, f: Any) -> Any:
    """w·(one·t + other·(1 - t))·q^gamma·bce(x, t) with the q of `miss`, the power as e^(gamma·ln(q))."""
    a, s, r, tail, y, low = log_core(x, f)
    inverse, error = reciprocal(r, tail, s, f)
    e = fma(tail, f.unit, fma(r, f.unit, f.unit))
    high, rest, slope = miss(x, t, a, s, e, f)
    product = gamma * high
    rest = fma(gamma, high, -product) + gamma * rest
    sum = product + rest
    power = decayed(sum, (product - sum) + rest, f)
    share = fma(one, t, other * (f.one - t))
    entropy = loss(x, t, a, s, y, low, f)
    finite = loss(with_sign(a, x), t, a, s, y, low, f)  # its slope is zero where it is infinite
    dx = fma(gamma * slope, finite, residual(x, t, smaller(a, s, inverse, error, f), f))
    term = select(power == f.zero, f.zero, power * entropy)
    return weighed(w * share, term, f), w * (share * (power * dx)) * scale
