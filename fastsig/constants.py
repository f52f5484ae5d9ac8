"""Numbers: what differs between the formats. A kernel reads them through its `f`, so the mathematics is written once.

Coefficients are hexadecimal, lowest order first; `python benchmarks/minimax.py` prints them, and a test compares the bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Range:
    """From the least to the most: of |x|, or of x itself."""

    least: float
    most: float
    of_magnitude: bool = True


@dataclass(frozen=True)
class Format:
    """The constants of one floating-point format; every float is exact in it."""

    name: str
    digits: int  # bits of the significand that are stored
    bias: int  # of the exponent field
    scale: int  # log2 of `unit`
    log2e: float
    ln2: float  # m of it and an argument m·ln2 away differ by few enough bits for an fma to be exact
    ln2_rest: float
    ln2_high: float  # so short that any exponent times it is exact
    ln2_low: float
    exp: tuple[float, ...]  # (e^r - 1 - r) / r²
    exp_even: tuple[float, ...]  # the same, without the lean of which minimax.py speaks
    expm1: tuple[float, ...]  # (e^r - 1 - r - r²/2) / r³
    artanh: tuple[float, ...]  # (artanh(u) / u - 1) / u², of u² <= 1/9
    artanh_near: tuple[float, ...]  # the same, of u² <= 1/25
    guess: float  # its bits less those of d are those of 1 / d, to 5.06 %
    wide: bool  # whether a reciprocal needs one step more
    highest: float  # from here on, all that is made of e^-x is 0
    ordinary: Range  # the |x| that need no clamp, whose results aren't subnormal, nor anything on the way to them
    gentle: Range  # the same for x·sigmoid(x); below, it is x / 2, and from there on (1, for x > 0) x
    moderate: Range  # the same for tanh(x); below, it is x
    inner: Range  # the p of which neither p nor 1 - p is subnormal, zero or negative
    subnormal: float  # from here on, the sigmoid of -x is subnormal
    subnormal_silu: float  # the same for |silu(-x)|,
    subnormal_silu_grad: float  # for |silu'(-x)|
    subnormal_tanh_grad: float  # and for tanh'(x / 2)
    vanishing: float  # from here on, x·e^-x times the largest number is 0
    faint: float  # gradients below it are lifted out of the reach of underflow, then dropped again
    tails: bool = True  # whether the argument may be other than ordinary

    @property
    def large(self) -> float:
        return self.ordinary.most

    @property
    def slight(self) -> float:
        return self.gentle.least

    @property
    def deep(self) -> float:
        return self.gentle.most

    @property
    def little(self) -> float:
        return self.moderate.least

    @property
    def unit(self) -> float:
        """The scale of the sigmoid's numerator and denominator: keeps 2^m normal where the result isn't."""
        return 2.0**self.scale

    @property
    def magic_of_one(self) -> float:
        """The low bits of m + magic_of_one are the exponent field of 2^m."""
        return 1.5 * 2.0**self.digits + self.bias

    @property
    def magic(self) -> float:
        """The same for unit·2^m."""
        return self.magic_of_one + self.scale

    @property
    def depth(self) -> float:
        """How many binades the smallest subnormal lies below 1."""
        return float(self.bias + self.digits - 1)

    @property
    def smallest(self) -> float:
        """The smallest normal number."""
        return 2.0 ** (1 - self.bias)

    @property
    def twice_smallest(self) -> float:
        return 2 * self.smallest

    @property
    def share(self) -> float:
        """What leaves a gradient room for a factor of x."""
        return 2.0**SHARE

    @property
    def one_by_share(self) -> float:
        return 2.0**-SHARE

    @property
    def unit_by_share(self) -> float:
        return 2.0 ** (self.scale - SHARE)

    @property
    def share_by_unit(self) -> float:
        return 2.0 ** (SHARE - self.scale)

    @property
    def nearest(self) -> float:
        """m + magic for the m for which share·2^m is the smallest subnormal."""
        return self.magic - self.depth - SHARE

    @property
    def lift(self) -> float:
        return 1 / self.faint

    @property
    def drop(self) -> float:
        return self.faint

    def without_tails(self) -> Format:
        return replace(self, tails=False)


SHARE = 16
BLOCK = 1 << 14  # terms of a loss in one partial sum: enough of them for each thread, few enough to be added exactly


def hexadecimal(text: str) -> tuple[float, ...]:
    return tuple(map(float.fromhex, text.split()))


FLOAT32 = Format(
    name="float32",
    digits=23,
    bias=127,
    scale=40,
    log2e=float.fromhex("0x1.715476p0"),
    ln2=float.fromhex("0x1.62e430p-1"),
    ln2_rest=float.fromhex("-0x1.05c610p-29"),
    ln2_high=float.fromhex("0x1.62e000p-1"),
    ln2_low=float.fromhex("0x1.0bfbe8p-15"),
    # |r| <= 0.3466, relative error of e^r 2^-28.24 about a lean of 2^-27 at the left end (minimax.py says why)
    exp=hexadecimal("0x1.fffffep-2 0x1.555486p-3 0x1.555856p-5 0x1.123baep-7 0x1.6a8f18p-10"),
    # |r| <= 0.3466, relative error of e^r 2^-28.22
    exp_even=hexadecimal("0x1.fffffcp-2 0x1.55548cp-3 0x1.555858p-5 0x1.123de4p-7 0x1.6ac7b6p-10"),
    # |r| <= 0.3466, relative error of e^r 2^-33.21
    expm1=hexadecimal("0x1.555554p-3 0x1.5554e4p-5 0x1.1112dep-7 0x1.6d520ep-10 0x1.9e7a6ep-13"),
    # 0 <= u² <= 1/9, relative error of artanh(u) 2^-27.73
    artanh=hexadecimal("0x1.555502p-2 0x1.99d1cep-3 0x1.1ec008p-3 0x1.1ecb8ap-3"),
    # 0 <= u² <= 1/25, relative error of artanh(u) 2^-28.40
    artanh_near=hexadecimal("0x1.5555b4p-2 0x1.992a9ap-3 0x1.36eeb6p-3"),
    guess=float.fromhex("0x1.e6238e0000000p+126"),
    wide=False,
    highest=110.0,
    ordinary=Range(0.0, 87.0),
    gentle=Range(2.0**-40, 40.0),
    moderate=Range(2.0**-12, 43.5),
    inner=Range(2.0**-126, 1 - 2.0**-24, of_magnitude=False),
    subnormal=float.fromhex("0x1.5d58a0p+6"),
    subnormal_silu=float.fromhex("0x1.6f6d58p+6"),
    subnormal_silu_grad=float.fromhex("0x1.6f6202p+6"),
    subnormal_tanh_grad=float.fromhex("0x1.62e430p+6"),
    vanishing=202.4,
    faint=2.0**-60,
)

FLOAT64 = Format(
    name="float64",
    digits=52,
    bias=1023,
    scale=70,
    log2e=float.fromhex("0x1.71547652b82fep0"),
    ln2=float.fromhex("0x1.62e42fefa39efp-1"),
    ln2_rest=float.fromhex("0x1.abc9e3b39803fp-56"),
    ln2_high=float.fromhex("0x1.62e42fefa0000p-1"),
    ln2_low=float.fromhex("0x1.cf79abc9e3b39p-40"),
    # |r| <= 0.3466, relative error of e^r 2^-57.75 about a lean of 2^-56 at the left end
    exp=hexadecimal("""0x1.000000000000ap-1 0x1.55555555554fbp-3 0x1.5555555550919p-5 0x1.111111112659ap-7 0x1.6c16c183fdc7ep-10
        0x1.a01a013248c58p-13 0x1.a0199a8f0e068p-16 0x1.71df129363bd9p-19 0x1.28acf3edd08e5p-22 0x1.ad9ea68a06295p-26"""),
    # |r| <= 0.3466, relative error of e^r 2^-57.85
    exp_even=hexadecimal("""0x1.000000000000ap-1 0x1.5555555555503p-3 0x1.5555555550605p-5 0x1.1111111124d25p-7
        0x1.6c16c184b5d93p-10 0x1.a01a013d651c6p-13 0x1.a019988abcacbp-16 0x1.71def3b9a4d03p-19 0x1.28aedc979ca36p-22
        0x1.add89b99da4d7p-26"""),
    # |r| <= 0.3466, relative error of e^r 2^-60.90
    expm1=hexadecimal("""0x1.555555555555ap-3 0x1.555555555549ap-5 0x1.111111110f0afp-7 0x1.6c16c16c4cc18p-10
        0x1.a01a01b2b31fep-13 0x1.a01a010fbdb12p-16 0x1.71ddf03f8f98cp-19 0x1.27e54358e8e29p-22 0x1.af6e224de846ep-26
        0x1.1fe31b16fde74p-29"""),
    # 0 <= u² <= 1/9, relative error of artanh(u) 2^-59.41
    artanh=hexadecimal("""0x1.5555555555535p-2 0x1.99999999a074fp-3 0x1.249249208c6bep-3 0x1.c71c741c66cf0p-4
        0x1.745cb40236d2dp-4 0x1.3b1ddb3df9ccep-4 0x1.1067c7fef6bb7p-4 0x1.efd81c4745db3p-5 0x1.55b1da0aa668fp-5
        0x1.5c7834e23c91ep-4"""),
    # 0 <= u² <= 1/25, relative error of artanh(u) 2^-55.90
    artanh_near=hexadecimal("""0x1.5555555555773p-2 0x1.99999998f1687p-3 0x1.249249b1bb5c9p-3 0x1.c71c019f7daf8p-4
        0x1.7474da1de1eb2p-4 0x1.3853755fafe52p-4 0x1.3ab9b3ee618d6p-4"""),
    guess=float.fromhex("0x1.e6238e0000000p+1022"),
    wide=True,
    highest=755.0,
    ordinary=Range(0.0, 708.0),
    gentle=Range(2.0**-80, 600.0),
    moderate=Range(2.0**-27, 354.0),
    inner=Range(2.0**-1022, 1 - 2.0**-53, of_magnitude=False),
    subnormal=float.fromhex("0x1.6232bdd7abcd3p+9"),
    subnormal_silu=float.fromhex("0x1.657bfcf5db0cdp+9"),
    subnormal_silu_grad=float.fromhex("0x1.657bcf0857818p+9"),
    subnormal_tanh_grad=float.fromhex("0x1.62e42fefa39f0p+9"),
    vanishing=1464.6,
    faint=2.0**-500,
)
