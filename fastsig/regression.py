"""Logistic regression's compiled loop: the loss and the gradient of a block of rows, which is read once.

A tile of rows at a time is copied, converted to float64. Then, while the tile is in the first-level cache: margins; each row's
loss and slope, by the library's own kernel; and their sums. What a row adds depends on nothing but the row: not on its place,
nor on its neighbours. A margin is summed in eight parts, which are added in a fixed order.

Sums must not depend on where blocks end either, or a line search would take other steps for other chunks. Each is kept as two
float64, the sum and what its roundings left out (Knuth's two-sum), some 106 bits in all, and goes on as these two; whoever adds
up the blocks' does so exactly and rounds once. That gives the same bits for any blocks, but where so long a sum lies within its
error of halfway between two numbers. Plain sums part in the last place, and so did fits on them for blocks of 3,000, 1,000 and
617 rows: by 1e-15 of a coefficient where features were of one size, by 9e-9 after 96 steps where their sizes went from 10⁻² to
10³, by a third of it after 100 steps where they went from 10⁻³ to 10⁴. The sums take a fifth of the time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import fastsig
from fastsig import compiler
from fastsig.losses import added

Array = np.ndarray[Any, np.dtype[Any]]

LANES = 8  # features at a time, on every processor: the order of a margin's sum shows in its bits
ROWS = 16  # rows at a time
TILE = 1 << 12  # numbers of a tile (32 KiB: it stays in the first-level cache), but for many features
# Rows of a tile. 10⁶ x 8 float32, ns a row on a busy machine: 10.5 with 128, 11.6 with 512, 13.6 with 256 (ROWS 32); without
# asking for the next tile early, 15.5.
LARGEST = 128


def evaluation_of(storage: str) -> Callable[[Any], tuple[Any, Callable[..., Any]]]:
    """What `compiler.program` makes the loop for features of `storage` of."""

    def make(chosen: Any) -> tuple[Any, Callable[..., Any]]:
        from numba import types

        doubles, integer = types.CPointer(types.float64), types.int64
        features, labels = types.CPointer(getattr(types, storage)), types.CPointer(types.uint8)
        signature = types.void(*[integer] * 5, features, labels, doubles, doubles, doubles, doubles)
        return signature, evaluation(storage, chosen.half)

    return make


def evaluation(storage: str, half: bool) -> Callable[..., None]:
    """The loop over tiles."""
    from numba import types
    from numba.types import intp

    from fastsig import lanes
    from fastsig.instructions import fma
    from fastsig.kernels import KERNELS
    from fastsig.loops import jit

    kernel = KERNELS["bce_with_logits_value_and_grad"]
    function, f, size = lanes.Mathematics(kernel.function), lanes.FORMATS["float64"], 8
    usual, item = f.without_tails(), lanes.SIZE[storage]
    some, put_some = (lanes.Shape("float64", LANES, inputs, 1 - inputs, half, None) for inputs in (1, 0))
    many, put_many = (lanes.Shape("float64", ROWS, inputs, 1 - inputs, half, None) for inputs in (1, 0))
    both = lanes.Shape("float64", ROWS, 2, 0, half, getattr(f, kernel.ordinary or ""))

    @jit(types.CPointer(types.float64), intp, returns=intp)
    def at(base, index):  # type: ignore[no-untyped-def]
        return lanes.address_of(base) + index * size

    @jit()
    def two_sum(a, b):  # type: ignore[no-untyped-def]
        """a + b, rounded, and what that leaves out."""
        s = a + b
        t = s - a
        return s, (a - (s - t)) + (b - t)

    @jit()
    def copy(rows, start, features, row_step, column_step, x, width, tile):  # type: ignore[no-untyped-def]
        """Rows of x, one behind the other, each of `width` numbers."""
        if column_step == 1 and row_step == width == features:
            for i in range(rows * width):
                tile[i] = types.float64(x[start * row_step + i])
        elif column_step == 1 and features > LANES:
            for i in range(rows):
                source, target = (start + i) * row_step, i * width
                for j in range(features):
                    tile[target + j] = types.float64(x[source + j])
        else:
            for j in range(features):
                source = start * row_step + j * column_step
                for i in range(rows):
                    tile[i * width + j] = types.float64(x[source + i * row_step])

    @jit()
    def products(rows, width, tile, coefficients, parts):  # type: ignore[no-untyped-def]
        """Each row's margin, but for the intercept, in LANES parts."""
        for i in range(rows):
            total = lanes.read(some, (tile,), i * width)[0] * lanes.read(some, (coefficients,), 0)[0]
            for j in range(LANES, width, LANES):
                total = fma(lanes.read(some, (tile,), i * width + j)[0], lanes.read(some, (coefficients,), j)[0], total)
            lanes.write(put_some, (parts,), i * LANES, total)

    @jit()
    def margins(rows, intercept, work, parts, z):  # type: ignore[no-untyped-def]
        for i in range(rows):
            k = parts + i * LANES
            low = (work[k] + work[k + 4]) + (work[k + 2] + work[k + 6])
            high = (work[k + 1] + work[k + 5]) + (work[k + 3] + work[k + 7])
            work[z + i] = intercept + (low + high)

    @jit()
    def compute(x, t):  # type: ignore[no-untyped-def]
        if lanes.ordinary(both, (x, t)):
            return lanes.apply(function, (x, t), usual)
        return lanes.with_nan_of((x, t), lanes.apply(function, (x, t), f))

    @jit()
    def add(sums, value):  # type: ignore[no-untyped-def]
        """To the pair of sums at this address."""
        s, rest = two_sum(lanes.read(many, (sums,), 0)[0], value)
        lanes.write(put_many, (sums,), 0, s)
        lanes.write(put_many, (sums,), ROWS, lanes.read(many, (sums,), ROWS)[0] + rest)

    @jit()
    def fetch(address, size):  # type: ignore[no-untyped-def]
        """Ask for memory that will be read soon, if it is there."""
        for k in range(0, size // 8, LANES):
            lanes.prefetch(some, (address,), k)

    @jit()
    def slopes(count, z, labels, weights, sums, following, row):  # type: ignore[no-untyped-def]
        """Each row's slope, weighted, goes over its margin; the sums are those of the losses and of the slopes. Meanwhile the
        next tile, where its rows are of `row` bytes, is on its way."""
        for i in range(0, count, ROWS):
            fetch(following + i * row, ROWS * row)
            loss, slope = compute(lanes.read(many, (z,), i)[0], lanes.read(many, (labels,), i)[0])
            weight = lanes.read(many, (weights,), i)[0]
            slope = weight * slope
            add(sums, weight * loss)
            add(sums + 2 * ROWS * size, slope)
            lanes.write(put_many, (z,), i, slope)

    @jit()
    def gradient(rows, width, tile, work, z, sums):  # type: ignore[no-untyped-def]
        for j in range(0, width, LANES):
            place = sums + 2 * j * size
            s, rest = lanes.read(some, (place,), 0)[0], lanes.read(some, (place,), LANES)[0]
            for i in range(rows):
                s, left = two_sum(s, lanes.read(some, (tile,), i * width + j)[0] * work[z + i])
                rest = rest + left
            lanes.write(put_some, (place,), 0, s)
            lanes.write(put_some, (place,), LANES, rest)

    @jit()
    def total(work, place):  # type: ignore[no-untyped-def]
        """One pair for those of ROWS lanes."""
        s, rest = work[place], work[place + ROWS]
        for k in range(place + 1, place + ROWS):
            s, left = two_sum(s, work[k])
            rest += left + work[k + ROWS]
        return two_sum(s, rest)

    def evaluate(rows, features, row_step, column_step, tile_rows, x, y, weight, coefficients, work, out):  # type: ignore[no-untyped-def]
        mode = lanes.set_float_mode(False)
        width = max(features + LANES - 1, LANES) // LANES * LANES
        parts = tile_rows * width
        z = parts + tile_rows * LANES
        labels, weights, sums = z + tile_rows, z + 2 * tile_rows, z + 3 * tile_rows
        slopes_sums = sums + 4 * ROWS
        weighted = lanes.address_of(weight) != 0
        for k in range(slopes_sums + 2 * width):
            work[k] = 0.0
        start = 0
        while start < rows:  # a range of unknown step could raise
            here = min(rows - start, tile_rows)
            count = (here + ROWS - 1) // ROWS * ROWS
            copy(here, start, features, row_step, column_step, x, width, work)
            products(here, width, at(work, 0), at(coefficients, 0), at(work, parts))
            margins(here, coefficients[width], work, parts, z)
            for i in range(here):
                work[labels + i] = types.float64(y[start + i])
                work[weights + i] = weight[start + i] if weighted else 1.0
            for i in range(here, count):
                work[z + i] = work[weights + i] = 0.0
            following = lanes.address_of(x) + (start + here) * row_step * item
            row = features * item if column_step == 1 and row_step == features else 0
            slopes(count, at(work, z), at(work, labels), at(work, weights), at(work, sums), following, row)
            gradient(here, width, at(work, 0), work, z, at(work, slopes_sums))
            start += here
        out[0], out[1] = total(work, sums)
        for j in range(features):
            place = slopes_sums + 2 * (j // LANES * LANES) + j % LANES
            out[2 + 2 * j], out[3 + 2 * j] = two_sum(work[place], work[place + LANES])
        out[2 + 2 * features], out[3 + 2 * features] = total(work, sums + 2 * ROWS)
        lanes.restore_float_mode(mode)

    return evaluate


# --- for Python ----------------------------------------------------------------------------------------------------------

Pointer = ctypes.c_void_p


@cache
def loop(storage: str) -> Callable[..., None]:
    """The compiled loop; ctypes lets go of Python's lock while it runs."""
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5, *[Pointer] * 6)
    with compiler.lock():
        called: Callable[..., None] = prototype(compiler.program(f"logistic-{storage}", evaluation_of(storage), "regression"))
    return called


def sums(x: Array, positive: Array, weight: Array | None, coefficients: Array) -> Array:
    """Of a block of rows: the sums of the losses, of the gradient by each coefficient, and by the intercept, which comes last
    among the coefficients too. Each is a pair of float64 that means their exact sum."""
    rows, features = x.shape
    if x.dtype not in (np.float32, np.float64) or any(step % x.itemsize for step in x.strides) or not x.flags.aligned:
        x = x.astype(np.result_type(x.dtype.newbyteorder("="), np.float32))
    width = max(-(-features // LANES), 1) * LANES
    tile_rows = max(ROWS, min(LARGEST, TILE // width // ROWS * ROWS))
    padded = np.zeros(width + 1)
    padded[:features], padded[width] = coefficients[:features], coefficients[features]
    work = np.empty(tile_rows * (width + LANES + 3) + 4 * ROWS + 2 * width)
    out = np.empty((features + 2, 2))
    positive = np.ascontiguousarray(positive, dtype=np.bool_)
    weight = None if weight is None else np.ascontiguousarray(weight, dtype=np.float64)
    steps = [step // x.itemsize for step in x.strides]
    addresses = [a.ctypes.data if a is not None else 0 for a in (x, positive, weight, padded, work, out)]
    loop(x.dtype.name)(rows, features, *steps, tile_rows, *addresses)
    return out


def weight_of(rows: int, weight: Array | None) -> Array:
    """The sum of weights, as such a pair: the slope at 0 of rows without features is half a weight."""
    if weight is None:
        return np.array([rows, 0.0])
    pair: Array = 2 * sums(np.empty((rows, 0)), np.zeros(rows, np.bool_), weight, np.zeros(1))[1]
    return pair


# --- what a worker does with a block --------------------------------------------------------------------------------------
# Here, for a worker needs neither scikit-learn nor Dask's arrays for it.

MOST_CLASSES = 10  # that a message names


def surveyed(y: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """A block's classes, of many only some, and the sum of its weights, as a pair."""
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError("y contains NaN or infinity")
    if y.dtype.kind == "c" or (y.dtype.kind in "mM" and np.isnat(y).any()) or (y.dtype.kind == "O" and (y != y).any()):
        raise ValueError("y contains complex numbers or missing values")
    if weight is not None:
        if weight.dtype.kind not in "fiub":
            raise TypeError(f"sample_weight must be of real numbers, not {weight.dtype}")
        if weight.shape != y.shape:
            raise ValueError(f"a block of sample_weight has shape {weight.shape}, that of y {y.shape}")
        if not (np.isfinite(weight).all() and (weight >= 0).all()):
            raise ValueError("sample_weight must be finite and not negative")
    return np.unique(y)[: MOST_CLASSES + 1], weight_of(len(y), weight)


def evaluated(x: Array, y: Array, weight: Array | None, positive: Any, coefficients: Array) -> Array:
    """A block's sums, as one row."""
    if not isinstance(x, np.ndarray) or isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"X must have chunks of NumPy arrays, not of {type(x).__name__}")
    for name, array in (("y", y), ("sample_weight", weight)):
        if array is not None and array.shape != x.shape[:1]:
            raise ValueError(f"a block of X has {len(x)} rows, that of {name} {len(array)}")
    return sums(x, y == positive, weight, coefficients).reshape(1, -1)


def margins(x: Array, w: Array, b: float) -> Array:
    return np.asarray(x @ w + b)


def labels(classes: Array, x: Array, w: Array, b: float) -> Array:
    return np.asarray(classes[(margins(x, w, b) > 0).astype(np.intp)])


def probabilities(x: Array, w: Array, b: float) -> Array:
    z = margins(x, w, b)
    both = np.empty((len(z), 2))
    fastsig.sigmoid(-z, out=both[:, 0])
    fastsig.sigmoid(z, out=both[:, 1])
    return both


# --- the fit -------------------------------------------------------------------------------------------------------------


def objective(
    evaluate: Callable[[Array], Sequence[Array]], total_weight: float, penalty: float, fit_intercept: bool
) -> Callable[[Array], tuple[float, Array]]:
    """For an optimiser: the mean loss and penalty / 2 · w·w, and their gradient, from the blocks' sums that `evaluate` gives.

    The sums are added exactly, so neither the blocks' ends nor their order shows.
    """

    def value_and_grad(coefficients: Array) -> tuple[float, Array]:
        w = coefficients[:-1] if fit_intercept else coefficients
        blocks = np.stack(evaluate(coefficients if fit_intercept else np.append(coefficients, 0.0)))
        totals = np.array([added(column) for column in blocks.transpose(1, 0, 2).reshape(blocks.shape[1], -1)]) / total_weight
        gradient = totals[1 : len(coefficients) + 1]
        gradient[: len(w)] += penalty * w
        return float(totals[0] + penalty / 2 * (w @ w)), gradient

    return value_and_grad


@dataclass(frozen=True)
class Minimum:
    """What the optimiser found."""

    coefficients: Array
    iterations: int
    trouble: str  # why it isn't the minimum, if it isn't


def minimize(
    function: Callable[[Array], tuple[float, Array]],
    count: int,
    tol: float,
    max_iter: int,
    advance: Callable[[float, str], None],
) -> Minimum:
    """By L-BFGS from zero, with scikit-learn's settings: on the same data it takes the same steps."""
    import scipy.optimize

    options = {"maxiter": max_iter, "maxls": 50, "gtol": tol, "ftol": 64 * np.finfo(np.float64).eps}

    def step(intermediate_result: Any) -> None:
        advance(1, f"loss {intermediate_result.fun:.6g}")

    found = scipy.optimize.minimize(function, np.zeros(count), jac=True, method="L-BFGS-B", options=options, callback=step)
    return Minimum(found.x, min(int(found.nit), max_iter), "" if found.status == 0 else str(found.message))
