"""Numbers: what differs between the formats. A kernel reads them through its `f`, so the mathematics is written once.

Coefficients are hexadecimal, lowest order first; `python benchmarks/minimax.py` prints them, and a test compares the bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Format:
    """The constants of one floating-point format; every float is exact in it."""

    name: str
    digits: int  # bits of the significand that are stored
    magic: float  # 1.5·2^digits, plus the exponent bias, plus log2(unit): low bits of x + magic are an exponent field
    log2e: float
    ln2: float  # m of it and an argument m·ln2 away differ by few enough bits for an fma to be exact
    ln2_rest: float
    exp: tuple[float, ...]  # (e^r - 1 - r) / r²
    guess: float  # its bits less those of d are those of 1 / d, to 5.06 %
    wide: bool  # whether a reciprocal needs one step more
    unit: float  # the scale of the sigmoid's numerator and denominator: keeps 2^m normal where the result isn't
    highest: float  # from here on, e^-x is 0
    ordinary: float  # between ±ordinary, no clamp is needed and no result is subnormal
    subnormal: float  # from here on, the sigmoid of -x is subnormal
    smallest: float  # the smallest normal number
    vanishing: float  # from here on, e^-x times the largest number is less than 1.42 of the smallest subnormal
    nearest: float  # magic less the largest n for which 2^(1-n) is a subnormal, exactly
    magic_of_one: float  # magic for a unit of 1
    half_unit: float
    two_by_unit: float
    faint: float  # gradients below it are lifted out of the reach of underflow, then dropped again
    lift: float
    drop: float
    tails: bool = True  # whether the argument may lie outside ±ordinary

    def within_ordinary(self) -> Format:
        return replace(self, tails=False)


FLOAT32 = Format(
    name="float32",
    digits=23,
    magic=1.5 * 2**23 + 127 + 25,
    log2e=float.fromhex("0x1.715476p0"),
    ln2=float.fromhex("0x1.62e430p-1"),
    ln2_rest=float.fromhex("-0x1.05c610p-29"),
    # |r| <= 0.3466, relative error of e^r 2^-28.24 about a lean of 2^-27 at the left end (minimax.py says why)
    exp=tuple(map(float.fromhex, ("0x1.fffffep-2", "0x1.555486p-3", "0x1.555856p-5", "0x1.123baep-7", "0x1.6a8f18p-10"))),
    guess=float.fromhex("0x1.e6238e0000000p+126"),
    wide=False,
    unit=2.0**25,
    highest=104.5,
    ordinary=87.0,
    subnormal=float.fromhex("0x1.5d58a0p+6"),
    smallest=2.0**-126,
    vanishing=192.0,
    nearest=1.5 * 2**23 + 127 + 25 - 150,
    magic_of_one=1.5 * 2**23 + 127,
    half_unit=2.0**24,
    two_by_unit=2.0**-24,
    faint=2.0**-60,
    lift=2.0**60,
    drop=2.0**-60,
)

FLOAT64 = Format(
    name="float64",
    digits=52,
    magic=1.5 * 2**52 + 1023 + 54,
    log2e=float.fromhex("0x1.71547652b82fep0"),
    ln2=float.fromhex("0x1.62e42fefa39efp-1"),
    ln2_rest=float.fromhex("0x1.abc9e3b39803fp-56"),
    # |r| <= 0.3466, relative error of e^r 2^-57.75 about a lean of 2^-56 at the left end
    exp=tuple(
        map(
            float.fromhex,
            (
                "0x1.000000000000ap-1",
                "0x1.55555555554fbp-3",
                "0x1.5555555550919p-5",
                "0x1.111111112659ap-7",
                "0x1.6c16c183fdc7ep-10",
                "0x1.a01a013248c58p-13",
                "0x1.a0199a8f0e068p-16",
                "0x1.71df129363bd9p-19",
                "0x1.28acf3edd08e5p-22",
                "0x1.ad9ea68a06295p-26",
            ),
        )
    ),
    guess=float.fromhex("0x1.e6238e0000000p+1022"),
    wide=True,
    unit=2.0**54,
    highest=746.0,
    ordinary=708.0,
    subnormal=float.fromhex("0x1.6232bdd7abcd3p+9"),
    smallest=2.0**-1022,
    vanishing=1454.3,
    nearest=1.5 * 2**52 + 1023 + 54 - 1075,
    magic_of_one=1.5 * 2**52 + 1023,
    half_unit=2.0**53,
    two_by_unit=2.0**-53,
    faint=2.0**-500,
    lift=2.0**500,
    drop=2.0**-500,
)
