"""Instructions: the words a kernel may use beside + - * and comparison. Names only; `lanes` gives each its machine code.

They work on one number or on a whole vector of them ("lanes"), and mean the same for both. Called in Python, they are a value's
that is being written out (`lanes.Written`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

INSTRUCTIONS: dict[str, Callable[..., Any]] = {}


def instruction(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def word(*operands: Any) -> Any:
        value = next((operand for operand in operands if hasattr(operand, "write")), None)
        if value is None:
            raise NotImplementedError("an instruction exists in compiled kernels only")
        return value.write(word, operands)

    INSTRUCTIONS[function.__name__] = word
    return word


@instruction
def fma(a: Any, b: Any, c: Any) -> Any:
    """a·b + c, rounded once."""


@instruction
def root(x: Any) -> Any:
    """The square root, rounded once."""


@instruction
def select(condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where the condition holds, else `no`; both are computed."""


@instruction
def magnitude(x: Any) -> Any:
    """|x|."""


@instruction
def power_of_two(v: Any) -> Any:
    """The number whose exponent field is the low bits of v: 2^m for v = m + magic."""


@instruction
def subtract_bits(a: Any, b: Any) -> Any:
    """The number whose bit pattern is a's less b's, as integers."""


@instruction
def polynomial(x: Any, square: Any, coefficients: Any) -> Any:
    """The polynomial of x, coefficients from the lowest order up; `square` is x·x."""


@instruction
def with_sign(y: Any, x: Any) -> Any:
    """|y|, with the sign of x."""


@instruction
def halved(x: Any) -> Any:
    """x / 2 for 0 <= x <= twice the smallest normal number, to half a last place: by the bits, subnormal or not."""


@instruction
def unpacked(x: Any) -> Any:
    """A subnormal x in units of the smallest one, by the bits; it keeps its sign, a zero too."""


@instruction
def binades(a: Any, b: Any) -> Any:
    """The integer k for which a·2^-k is within a factor of 1.5 of b, for a > 0 and b > 0."""


@instruction
def lowered(a: Any, b: Any) -> Any:
    """That a·2^-k."""
