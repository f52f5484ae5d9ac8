"""Regenerate every polynomial of fastsig/constants.py: `python benchmarks/minimax.py` prints them, with their errors.

Each is the best polynomial in the weighted maximum norm (Remez' exchange on a Chebyshev grid), rounded to its format one
coefficient at a time, lowest order first: the rest is fitted again after each rounding and absorbs its error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import mpmath as mp

Real = Callable[[mp.mpf], mp.mpf]
DIGITS = 40
GRID = 501  # odd, for the weight is 0 in the middle; between two points the error exceeds theirs by less than 1e-4 of itself
ASIDE = mp.mpf("0.013")  # of the interval: where a first point goes that would lie where the weight is 0
ROUNDS = 30
SETTLED = mp.mpf("1e-4")  # the exchange ends when the levelled error is this close to the largest
PRECISION = {"float32": 24, "float64": 53}


@dataclass(frozen=True)
class Fit:
    """A polynomial of `degree` for `target` on [low, high]; `weight` turns its absolute error into the one that counts."""

    name: str
    format: str
    degree: int
    target: Real
    weight: Real
    low: mp.mpf
    high: mp.mpf
    grid: int = GRID
    ends: bool = False  # whether the exchange begins with points at the ends, which a symmetrical error needs to settle


def exchange(fit: Fit, known: list[mp.mpf]) -> tuple[list[mp.mpf], mp.mpf]:
    """The best values for the coefficients that follow `known`, and the largest weighted error they leave."""
    free = range(len(known), fit.degree + 1)
    middle, half = (fit.low + fit.high) / 2, (fit.high - fit.low) / 2
    grid = [middle - half * mp.cospi(mp.mpf(k) / fit.grid) for k in range(fit.grid + 1)]
    rows = [row_at(fit, x, known, free) for x in grid]
    if not free:
        return [], max(abs(row[-1]) for row in rows)
    chosen = [rows[round(fit.grid * (2 * k + 1) / (2 * len(free) + 2))] for k in range(len(free) + 1)]
    if fit.ends:
        points = [middle - half * mp.cospi(mp.mpf(k) / len(free)) for k in range(len(free) + 1)]
        points = [x if fit.weight(x) > mp.mpf(10) ** -25 else x + 2 * half * ASIDE for x in points]
        chosen = [row_at(fit, x, known, free) for x in points]
    best = None
    for _ in range(ROUNDS):
        matrix = mp.matrix([[*row[:-1], (-1) ** k] for k, row in enumerate(chosen)])
        *coefficients, level = mp.lu_solve(matrix, mp.matrix([row[-1] for row in chosen]))
        error = [row[-1] - mp.fdot(row[:-1], coefficients) for row in rows]
        peaks = alternating_peaks(error, len(chosen))
        largest = max(abs(e) for e in error)
        if best is None or largest < best[1]:
            best = coefficients, largest
        if largest - abs(level) <= SETTLED * largest or len(peaks) < len(chosen):
            break
        chosen = [rows[peak] for peak in peaks]
    assert best is not None
    return best


def row_at(fit: Fit, x: mp.mpf, known: list[mp.mpf], free: range) -> list[mp.mpf]:
    """The weighted powers of x that are free, and what they are to add up to."""
    weight = fit.weight(x)
    return [*(weight * x**k for k in free), weight * (fit.target(x) - mp.polyval(known[::-1] or [0], x))]


def alternating_peaks(error: list[mp.mpf], count: int) -> list[int]:
    """The indices of the largest |error| in each run of equal sign, thinned from the ends to `count` of them."""
    peaks: list[int] = []
    for i, e in enumerate(error):
        if not peaks or (e > 0) != (error[peaks[-1]] > 0):
            peaks.append(i)
        elif abs(e) > abs(error[peaks[-1]]):
            peaks[-1] = i
    while len(peaks) > count:
        peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
    return peaks


def rounded(x: mp.mpf, bits: int) -> mp.mpf:
    mantissa, exponent = mp.frexp(x)
    return mp.ldexp(mp.nint(mp.ldexp(mantissa, bits)), exponent - bits)


def solve(fit: Fit) -> tuple[list[float], float]:
    """The coefficients in the fit's format, lowest order first, and log2 of the largest weighted error."""
    with mp.workdps(DIGITS):
        known: list[mp.mpf] = []
        for _ in range(fit.degree + 1):
            best, _ = exchange(fit, known)
            known.append(rounded(best[0], PRECISION[fit.format]))
        _, error = exchange(fit, known)
        return [float(c) for c in known], float(mp.log(error, 2))


def exp_tail(r: mp.mpf) -> mp.mpf:
    """(e^r - 1 - r) / r²"""
    return (mp.expm1(r) - r) / r**2 if abs(r) > mp.mpf("1e-15") else mp.mpf(1) / 2 + r / 6


with mp.workdps(DIGITS):
    HALF = mp.log(2) / 2
    EDGE = HALF * mp.mpf("1.0002")  # the reduced argument exceeds ln(2)/2 by the rounding of x·log2(e)


def exp_fit(format: str, degree: int, lean: int | None) -> Fit:
    """The exponential's fit on half a binade, made to lie 2^lean (relative) above e^r at the left end, nothing at 0 and right.

    Where 2^m is a quarter of the last bit of 1 + e^-r, the sum of the sigmoid's denominator drops it: the result is up to
    a quarter ULP too large, at the left end of the interval only. The lean takes half of that back.
    """

    def target(r: mp.mpf) -> mp.mpf:
        extra = 0 if lean is None else mp.exp(r) * mp.mpf(2) ** lean * (1 - r / HALF) / 2 / HALF**2
        return exp_tail(r) + extra

    fit = Fit("exp", format, degree, target, lambda r: r**2 / mp.exp(r), -EDGE, EDGE)
    # of the grids that were tried, the one on which the exchange settles
    grid = {"float32": 601, "float64": 600}[format]
    return replace(fit, name="exp_even", grid=grid, ends=True) if lean is None else fit


def expm1_fit(format: str, degree: int) -> Fit:
    """(e^r - 1 - r - r²/2) / r³"""

    def target(r: mp.mpf) -> mp.mpf:
        return (mp.expm1(r) - r - r**2 / 2) / r**3 if abs(r) > mp.mpf("1e-10") else mp.mpf(1) / 6 + r / 24

    return Fit("expm1", format, degree, target, lambda r: abs(r) ** 3 / mp.exp(r), -EDGE, EDGE)


def artanh_fit(name: str, format: str, degree: int, high: mp.mpf) -> Fit:
    """(artanh(u) / u - 1) / u² as a polynomial of w = u² up to `high`, weighted for the error of artanh(u)."""

    def target(w: mp.mpf) -> mp.mpf:
        return (mp.atanh(mp.sqrt(w)) / mp.sqrt(w) - 1) / w if w > mp.mpf("1e-18") else mp.mpf(1) / 3 + w / 5

    def weight(w: mp.mpf) -> mp.mpf:
        return w * mp.sqrt(w) / mp.atanh(mp.sqrt(w)) if w else mp.mpf(0)

    return Fit(name, format, degree, target, weight, mp.mpf(0), high * mp.mpf("1.0001"))


with mp.workdps(DIGITS):
    FITS = [
        *(exp_fit("float32", 4, -27), exp_fit("float64", 9, -56)),
        *(exp_fit("float32", 4, None), exp_fit("float64", 9, None)),
        *(expm1_fit("float32", 4), expm1_fit("float64", 9)),
        *(artanh_fit("artanh", "float32", 3, mp.mpf(1) / 9), artanh_fit("artanh", "float64", 9, mp.mpf(1) / 9)),
        *(artanh_fit("artanh_near", "float32", 2, mp.mpf(1) / 25), artanh_fit("artanh_near", "float64", 6, mp.mpf(1) / 25)),
    ]


def main() -> int:
    for fit in FITS:
        coefficients, error = solve(fit)
        print(f"{fit.name} {fit.format} degree {fit.degree}, weighted error 2^{error:.2f}")
        print("   ", ", ".join(c.hex() for c in coefficients))
    return 0


if __name__ == "__main__":
    sys.exit(main())
