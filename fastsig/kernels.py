"""Mathematics: each public function from one core, with its contract.

Every function of the family is a few operations on e = exp(-|x|):

    sigmoid(x)  = 1 / (1 + e) for x >= 0,  e / (1 + e) for x < 0
    sigmoid'(x) = e / (1 + e)²                       the same for x and -x

With a = |x| and -a = m·ln2 - r, the smaller sigmoid is 2^m / (2^m + e^r), and the larger is 1 less that: of the two only
the smaller can lose digits, and it is computed without a subtraction. Numerator and denominator carry the factor f.unit, which
keeps 2^m a normal number down to the smallest subnormal result.

Kernels are ordinary scalar Python; `f` holds the constants of the format. No literal occurs in one: in a float32 kernel
it would be a float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastsig.instructions import fma, magnitude, polynomial, power_of_two, select, subtract_bits

PARTS: list[Callable[..., Any]] = []  # what kernels call: compiled into them


@dataclass(frozen=True)
class Kernel:
    """A public function: its mathematics, and what is promised of it."""

    function: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ulp: Mapping[str, float]  # the contract: the largest error, in units in the last place, for each dtype
    needs_subnormals: bool  # whether the arithmetic itself meets subnormal numbers that matter

    @property
    def name(self) -> str:
        return self.function.__name__


KERNELS: dict[str, Kernel] = {}
ALIASES = {"expit": "sigmoid"}


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    PARTS.append(function)
    return function


def kernel(
    outputs: str, *, float16: float, float32: float, float64: float, needs_subnormals: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a public function; its parameters but the last, `f`, are the ufunc's inputs."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        inputs = function.__code__.co_varnames[: function.__code__.co_argcount - 1]
        ulp = {"float16": float16, "float32": float32, "float64": float64}
        KERNELS[function.__name__] = Kernel(function, inputs, tuple(outputs.split()), ulp, needs_subnormals)
        return function

    return register


# --- the core ----------------------------------------------------------------------------------------------------------


@part
def distance(x: Any, f: Any) -> Any:
    """|x|, and no more than where e^-|x| vanishes; NaN stays."""
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
def reciprocal(a: Any, v: Any, s: Any, f: Any) -> Any:
    """1 / (2^m + e^r) and its relative error, in f.unit, for v = m + f.magic and s = f.unit·2^m.

    Shorter chains matter as much as fewer operations: d is summed so that its last step waits for `tail` alone (float32 0.36
    to 0.35 ns an element, float64 0.94 to 0.88, together with `polynomial`'s pairs 0.39 to 0.35 and 0.98 to 0.88).

    The error is computed, from the remainder of the inversion and from what the sum lost, so that neither counts. The order
    of that sum matters: f.unit - d and + s are exact, the small terms come last.
    """
    m = v - f.magic
    r = fma(m, f.ln2, a)  # exactly
    rest = m * f.ln2_rest
    whole = fma(m, f.ln2_rest, r)
    square = whole * whole
    tail = fma(square, polynomial(whole, square, f.exp), rest)  # e^(r + rest) - 1 - r, to 2^-28 (2^-57)
    d = fma(tail, f.unit, fma(r, f.unit, f.unit) + s)
    inverse = inverted(d, f)
    lost = fma(tail, f.unit, fma(r, f.unit, (f.unit - d) + s))
    error = fma(-inverse, lost, fma(-inverse, d, f.one))
    return inverse, error


@part
def core(x: Any, f: Any) -> Any:
    """|x|, f.unit·2^m, and 1 / (2^m + e^r) in f.unit with its relative error: all that the functions of x are made of."""
    a = distance(x, f)
    v = reduced(a, f)
    s = power_of_two(v)
    inverse, error = reciprocal(a, v, s, f)
    return a, s, inverse, error


@part
def scaled(s: Any, y: Any, a: Any, f: Any) -> Any:
    """s·y, rounded once even where it is subnormal, though no operand or result of the arithmetic is.

    Added to the smallest normal number, a subnormal has its own last place; the sum's bits less that number's are its own.
    """
    if f.tails:
        base = select(f.subnormal <= a, f.smallest, f.zero)
        product = subtract_bits(fma(s, y, base), base)
    else:
        product = s * y
    return product


@part
def value(x: Any, a: Any, s: Any, inverse: Any, error: Any, f: Any) -> Any:
    y = scaled(s, fma(inverse, error, inverse), a, f)
    return select(x < f.zero, y, f.one - y)


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
    return scaled(s, fma(inverse, high, inverse * low), a, f)


# --- the public functions ----------------------------------------------------------------------------------------------


@kernel("y", float16=0.51, float32=0.85, float64=0.85)
def sigmoid(x: Any, f: Any) -> Any:
    """The logistic sigmoid, 1 / (1 + e^-x).

    Relative accuracy holds in the whole lower tail, where 1 / (1 + exp(-x)) is 0 below -88.72 (float32) and -709.78
    (float64): the result is subnormal from -87.34 (-708.4) and 0 from -103.98 (-745.14) on.

    >>> fastsig.sigmoid([-745.0, 0.0, 0.5])
    array([4.94065646e-324, 5.00000000e-001, 6.22459331e-001])
    """
    a, s, inverse, error = core(x, f)
    return value(x, a, s, inverse, error, f)


@kernel("dy", float16=0.51, float32=0.85, float64=0.85)
def sigmoid_grad(x: Any, f: Any) -> Any:
    """The derivative of the sigmoid, e^-|x| / (1 + e^-|x|)², from the input.

    From the output it would be y(1 - y), which is wrong by 6 % at 16 in float32 and 0 from 17 on: there y is 1.

    >>> fastsig.sigmoid_grad([-30.0, 0.0, 30.0])
    array([9.35762297e-14, 2.50000000e-01, 9.35762297e-14])
    """
    a, s, inverse, error = core(x, f)
    return derivative(a, s, inverse, error, f)


@kernel("y dy", float16=0.51, float32=0.85, float64=0.85)
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


@kernel("dx", float16=0.51, float32=1.5, float64=1.5, needs_subnormals=True)
def sigmoid_vjp(x: Any, g: Any, f: Any) -> Any:
    """The vector-Jacobian product g·sigmoid'(x): back-propagation from the input.

    Right even where sigmoid'(x) is subnormal, or less than that, and g is large, or where g is subnormal. Where the
    derivative is too small for any finite g to make a number of it, an infinite g gives NaN, as infinity times zero does.

    >>> fastsig.sigmoid_vjp([0.0, 40.0], [2.0, 1.0])
    array([5.00000000e-01, 4.24835426e-18])
    """
    a = magnitude(x)
    a = select(f.vanishing < a, f.vanishing, a)
    v = reduced(a, f)
    near = select(v < f.nearest, f.nearest, v)  # 2^m in two factors: g may be as large as sigmoid' is small
    s = power_of_two(near)
    inverse, error = reciprocal(a, v, s, f)
    high, low = slope(s, inverse, error, f)
    half = inverse * f.half_unit
    product = half * high
    rest = fma(half, high, -product) + half * low
    faint = magnitude(g) < f.faint
    g = select(faint, g * f.lift, g)
    correction = g * rest
    correction = select(f.zero < magnitude(correction), correction, g * f.zero)  # a zero keeps g's sign
    correction = select(magnitude(correction) < f.infinity, correction, f.zero)  # for infinite g there is none
    far = power_of_two((v - near) + f.magic_of_one)
    return fma(g, product, correction) * far * (s * f.two_by_unit * select(faint, f.drop, f.one))


@part
def from_value(y: Any, f: Any) -> Any:
    """y(1 - y), rounded once: of 1 - y, what the rounding lost is kept, for a y of any size."""
    h = f.one - y
    back = h - f.one
    lost = y * ((f.one - (h - back)) - (y + back))
    return fma(y, h, select(magnitude(lost) < f.infinity, lost, f.zero))  # for infinite y there is none


@kernel("dy", float16=0.51, float32=0.51, float64=0.51, needs_subnormals=True)
def sigmoid_derivative(y: Any, f: Any) -> Any:
    """The derivative of the sigmoid from its value, y(1 - y).

    What tutorials compute. A value near 1 has lost the digits of 1 - y: `sigmoid_grad` takes the input and keeps them.

    >>> fastsig.sigmoid_derivative(0.622459331201854593)
    np.float64(0.2350037122015945)
    """
    return from_value(y, f)


@kernel("dx", float16=0.51, float32=1.5, float64=1.5, needs_subnormals=True)
def sigmoid_backward(g: Any, y: Any, f: Any) -> Any:
    """Back-propagation through the sigmoid from its saved value, g·y(1 - y).

    What frameworks compute. A value near 1 has lost the digits of 1 - y: `sigmoid_vjp` takes the input and keeps them.

    >>> fastsig.sigmoid_backward([1.0, 2.0], [0.5, 0.25])
    array([0.25 , 0.375])
    """
    return g * from_value(y, f)
