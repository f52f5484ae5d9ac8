"""Regenerate every polynomial of fastsig/constants.py: `python benchmarks/minimax.py` prints them, with their errors.

Each is the best polynomial in the weighted maximum norm (Remez' exchange on a Chebyshev grid), rounded to its format one
coefficient at a time, lowest order first: the rest is fitted again after each rounding and absorbs its error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import mpmath as mp

Real = Callable[[mp.mpf], mp.mpf]
DIGITS = 40
GRID = 501  # odd, for the weight is 0 in the middle; between two points the error exceeds theirs by less than 1e-4 of itself
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


def exchange(fit: Fit, known: list[mp.mpf]) -> tuple[list[mp.mpf], mp.mpf]:
    """The best values for the coefficients that follow `known`, and the largest weighted error they leave."""
    free = range(len(known), fit.degree + 1)
    middle, half = (fit.low + fit.high) / 2, (fit.high - fit.low) / 2
    grid = [middle - half * mp.cospi(mp.mpf(k) / GRID) for k in range(GRID + 1)]
    weights = [fit.weight(x) for x in grid]
    wanted = [w * (fit.target(x) - mp.polyval(known[::-1] or [0], x)) for x, w in zip(grid, weights, strict=True)]
    basis = [[w * x**k for k in free] for x, w in zip(grid, weights, strict=True)]
    if not free:
        return [], max(abs(value) for value in wanted)
    points = [round(GRID * (2 * k + 1) / (2 * len(free) + 2)) for k in range(len(free) + 1)]
    best = None
    for _ in range(ROUNDS):
        matrix = mp.matrix([[*basis[p], (-1) ** k] for k, p in enumerate(points)])
        *coefficients, level = mp.lu_solve(matrix, mp.matrix([wanted[p] for p in points]))
        error = [value - mp.fdot(row, coefficients) for value, row in zip(wanted, basis, strict=True)]
        peaks = alternating_peaks(error, len(points))
        largest = max(abs(e) for e in error)
        if best is None or largest < best[1]:
            best = coefficients, largest
        if largest - abs(level) <= SETTLED * largest or len(peaks) < len(points):
            break
        points = peaks
    assert best is not None
    return best


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


def exp_fit(format: str, degree: int, lean: int) -> Fit:
    """The exponential's fit on half a binade, made to lie 2^lean (relative) above e^r at the left end, nothing at 0 and right.

    Where 2^m is a quarter of the last bit of 1 + e^-r, the sum of the sigmoid's denominator drops it: the result is up to
    a quarter ULP too large, at the left end of the interval only. The lean takes half of that back.
    """
    half = mp.log(2) / 2
    edge = half * mp.mpf("1.0002")  # the reduced argument exceeds ln(2)/2 by the rounding of x·log2(e)

    def target(r: mp.mpf) -> mp.mpf:
        return exp_tail(r) + mp.exp(r) * mp.mpf(2) ** lean * (1 - r / half) / 2 / half**2

    return Fit("exp", format, degree, target, lambda r: r**2 / mp.exp(r), -edge, edge)


with mp.workdps(DIGITS):
    FITS = [exp_fit("float32", 4, -27), exp_fit("float64", 9, -56)]


def main() -> int:
    for fit in FITS:
        coefficients, error = solve(fit)
        print(f"{fit.name} {fit.format} degree {fit.degree}, weighted error 2^{error:.2f}")
        print("   ", ", ".join(c.hex() for c in coefficients))
    return 0


if __name__ == "__main__":
    sys.exit(main())
