"""Losses: terms, their sum and their derivatives from one read of the data.

The engine's loops take flat arrays. Whatever isn't flat, or of another dtype, passes through pieces of whole blocks, so that
the sum's bits depend on nothing but the elements and their order.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, SupportsFloat, Unpack, overload

import numpy as np
import numpy.typing as npt

from fastsig import compiler, parallel
from fastsig.constants import BLOCK
from fastsig.typing import AnyFocal, AnyWeighted, EachFocal, EachWeighted, Float, Focal, Shape, Shaped, Weighted
from fastsig.ufuncs import Loop

PIECE = 8 * BLOCK  # elements that are copied at a time where the loop can't go over an array itself
REDUCTIONS = ("none", "sum", "mean")
STORAGES = ("float16", "float32", "float64", "bfloat16")
STEEPEST = 1e6  # the largest gamma: it, times the largest of logarithms, stays finite in float32

Array = npt.NDArray[Any]
Loss = Any  # a scalar, or an array with reduction="none"


@overload
def bce_with_logits_loss(
    x: Shaped[Shape, Float], t: npt.ArrayLike, **kwargs: Unpack[Weighted]
) -> tuple[Float, Shaped[Shape, Float]]: ...
@overload
def bce_with_logits_loss(
    x: Shaped[Shape, Float], t: npt.ArrayLike, **kwargs: Unpack[EachWeighted]
) -> tuple[Shaped[Shape, Float], Shaped[Shape, Float]]: ...
@overload
def bce_with_logits_loss(
    x: Shaped[Shape, Float], t: npt.ArrayLike, *, hess: Literal[True], **kwargs: Unpack[Weighted]
) -> tuple[Float, Shaped[Shape, Float], Shaped[Shape, Float]]: ...
@overload
def bce_with_logits_loss(
    x: Shaped[Shape, Float], t: npt.ArrayLike, *, hess: Literal[True], **kwargs: Unpack[EachWeighted]
) -> tuple[Shaped[Shape, Float], Shaped[Shape, Float], Shaped[Shape, Float]]: ...
@overload
def bce_with_logits_loss(
    x: Shaped[Shape, Float], t: npt.ArrayLike, *, grad: Literal[False], **kwargs: Unpack[Weighted]
) -> Float: ...
@overload
def bce_with_logits_loss(
    x: Shaped[Shape, Float], t: npt.ArrayLike, *, grad: Literal[False], **kwargs: Unpack[EachWeighted]
) -> Shaped[Shape, Float]: ...
@overload
def bce_with_logits_loss(x: npt.ArrayLike, t: npt.ArrayLike, **kwargs: Unpack[AnyWeighted]) -> Any: ...
def bce_with_logits_loss(
    x: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    pos_weight: npt.ArrayLike | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    grad: bool = True,
    hess: bool = False,
    out: Array | tuple[Array | None, ...] | None = None,
) -> Any:
    """The binary cross-entropy of logits and labels with its derivatives, in one pass.

    With p = sigmoid(x), the loss of an element is -w·(c·t·ln(p) + (1 - t)·ln(1 - p)), w its `sample_weight` and c its
    `pos_weight`; the derivative is w·((1 - t)·p - c·t·(1 - p)), the second one w·((1 - t) + c·t)·p·(1 - p). No term
    overflows, and none loses its digits in a tail.

    Parameters
    ----------
    x : array_like
        Logits, of any shape. float16, bfloat16, float32 or float64; integers count as float64.
    t : array_like
        Labels in [0, 1], of x's shape, or one for all. One outside is computed as it stands.
    sample_weight : array_like, optional
        A weight, finite and not negative, for each element: torch's `weight`. It broadcasts to x's shape. An element of weight
        zero adds nothing, even if its loss is infinite; NaN stays NaN.
    pos_weight : array_like, optional
        A factor, finite and not negative, for the loss of the positive class, as in torch. It broadcasts to x's shape: the
        usual one has an entry for each column.
    label_smoothing : float, default 0
        Labels are drawn towards 1/2: t becomes t·(1 - label_smoothing) + label_smoothing / 2.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of elements (not by the sum of the weights), as torch does. "none" gives each element's.
    grad : bool, default True
        Whether the gradient is wanted.
    hess : bool, default False
        Whether the second derivatives (the Hessian's diagonal) are wanted as well.
    out : ndarray, or tuple of ndarray and None, optional
        Where the gradient (and the second derivatives) go: fresh memory costs more than the mathematics. It may be `x`.

    Returns
    -------
    loss : scalar or ndarray
        In x's dtype, as everything.
    grad : ndarray
        The derivative of `loss` with respect to `x`, so with "mean" divided by the number of elements.
    hess : ndarray
        The second derivatives. Of the three, those that were asked for; the loss alone is no tuple.

    Raises
    ------
    TypeError
        For complex, longdouble, string or object input.
    ValueError
        For shapes that don't match, a negative weight, a reduction that doesn't exist, or a label_smoothing outside [0, 1].

    Notes
    -----
    The sum is taken in float64 in the order of the elements, in blocks whose sums are added exactly: it is the same, to the
    bit, for any number of threads and any strides, and accurate to 1e-12 for 1e9 terms; it is rounded to x's dtype once.
    The derivatives of hard labels are within 4 ULP; without weights, smoothing and mean they are those of
    `bce_with_logits_grad_and_hess`, to the bit. For float16 and bfloat16 all is computed in float32, where weights stay.

    The loss of an infinite logit is 0 for its own label and infinite for the other. An empty mean is NaN, an empty sum 0.
    A label, logit or weight that is NaN makes the loss NaN. No input raises a floating-point warning. Masks of masked arrays
    aren't looked at: give such elements no weight.

    References
    ----------
    `torch.nn.functional.binary_cross_entropy_with_logits`, for the meaning of the arguments.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsig.losses import bce_with_logits_loss
    >>> loss, grad = bce_with_logits_loss([2.0, -1.0], [1, 0])
    >>> loss
    np.float64(0.22009484928059764)
    >>> grad
    array([-0.05960146,  0.13447071])
    >>> bce_with_logits_loss(np.float32([30, -800]), [1, 1], reduction="none", grad=False)
    array([9.357623e-14, 8.000000e+02], dtype=float32)
    """
    call, terms, weights, numbers = cross_entropy(
        x,
        t,
        sample_weight=sample_weight,
        pos_weight=pos_weight,
        label_smoothing=label_smoothing,
        reduction=reduction,
        grad=grad,
        hess=hess,
        out=out,
    )
    return call.evaluate(terms, weights, numbers)


@overload
def focal_loss(x: Shaped[Shape, Float], t: npt.ArrayLike, **kwargs: Unpack[Focal]) -> tuple[Float, Shaped[Shape, Float]]: ...
@overload
def focal_loss(
    x: Shaped[Shape, Float], t: npt.ArrayLike, **kwargs: Unpack[EachFocal]
) -> tuple[Shaped[Shape, Float], Shaped[Shape, Float]]: ...
@overload
def focal_loss(x: Shaped[Shape, Float], t: npt.ArrayLike, *, grad: Literal[False], **kwargs: Unpack[Focal]) -> Float: ...
@overload
def focal_loss(
    x: Shaped[Shape, Float], t: npt.ArrayLike, *, grad: Literal[False], **kwargs: Unpack[EachFocal]
) -> Shaped[Shape, Float]: ...
@overload
def focal_loss(x: npt.ArrayLike, t: npt.ArrayLike, **kwargs: Unpack[AnyFocal]) -> Any: ...
def focal_loss(
    x: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    sample_weight: npt.ArrayLike | None = None,
    reduction: str = "mean",
    grad: bool = True,
    out: Array | tuple[Array | None, ...] | None = None,
) -> Any:
    """The focal loss of logits and labels with its gradient, in one pass.

    With p = sigmoid(x) and q = t·(1 - p) + (1 - t)·p, how far p is from the label, it is a·q^gamma times the binary
    cross-entropy, a = alpha·t + (1 - alpha)·(1 - t): examples that are right already count little. The power is taken in log
    space, where neither 1 - p nor its logarithm cancels: no logit gives NaN, in the loss or in the gradient.

    Parameters
    ----------
    x : array_like
        Logits, of any shape. float16, bfloat16, float32 or float64; integers count as float64.
    t : array_like
        Labels in [0, 1], of x's shape, or one for all.
    gamma : float, default 2
        How little they count, from 0 (the cross-entropy) to 1e6.
    alpha : float or None, default 0.25
        The weight of the positive class, in [0, 1]; that of the negative one is 1 - alpha. With None both are 1.
    sample_weight : array_like, optional
        A weight, not negative, for each element. It broadcasts to x's shape.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of elements. "none" gives each element's.
    grad : bool, default True
        Whether the gradient is wanted.
    out : ndarray, optional
        Where the gradient goes. It may be `x`.

    Returns
    -------
    loss : scalar or ndarray
        In x's dtype, as the gradient.
    grad : ndarray
        The derivative of `loss` with respect to `x`; not with ``grad=False``.

    Raises
    ------
    TypeError
        For complex, longdouble, string or object input.
    ValueError
        For shapes that don't match, a negative weight, a reduction that doesn't exist, or a gamma or alpha outside its range.

    Notes
    -----
    For hard labels and gamma up to 5, terms and gradients without weights are within 16 ULP, with alpha and gamma as they are
    in x's dtype (in float32 for the half ones). Sums, infinite logits, NaN and empty arrays
    are as in `bce_with_logits_loss`.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollár, "Focal Loss for Dense Object Detection", 2017; torchvision's `sigmoid_focal_loss`, for
    the meaning of the arguments, where an alpha of -1 is None here.

    Examples
    --------
    >>> from fastsig.losses import focal_loss
    >>> loss, grad = focal_loss([2.0, -1.0], [1, 0], reduction="sum")
    >>> loss
    np.float64(0.01744443384016059)
    >>> focal_loss([-1e4, 1e4], [1, 1], reduction="none", alpha=None)
    (array([10000.,     0.]), array([-1., -0.]))
    """
    call, terms, weights, numbers = focal(
        x, t, gamma=gamma, alpha=alpha, sample_weight=sample_weight, reduction=reduction, grad=grad, out=out
    )
    return call.evaluate(terms, weights, numbers)


# --- what each checks, and what it has the loop run over ------------------------------------------------------------------


def cross_entropy(
    x: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    label_smoothing: float,
    reduction: str,
    grad: bool,
    hess: bool,
    sample_weight: npt.ArrayLike | None = None,
    pos_weight: npt.ArrayLike | None = None,
    out: Any = None,
) -> tuple[Call, str, list[Array], list[float]]:
    """The call of `bce_with_logits_loss`, checked, and what it evaluates."""
    smoothing = number("label_smoothing", label_smoothing, 0.0, 1.0)
    if hess and not grad:
        raise ValueError("hess=True comes with the gradient, so that grad=False can't go with it: leave grad=True")
    call = Call.of(x, t, reduction, 1 + bool(grad) + bool(hess), out)
    if sample_weight is None and pos_weight is None and smoothing == 0.0:
        return call, "bce_terms", [], []
    weights = [call.weight("sample_weight", sample_weight), call.weight("pos_weight", pos_weight)]
    return call, "weighted_bce_terms", weights, [smoothing]


def focal(
    x: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    gamma: float,
    alpha: float | None,
    reduction: str,
    grad: bool,
    sample_weight: npt.ArrayLike | None = None,
    out: Any = None,
) -> tuple[Call, str, list[Array], list[float]]:
    """The call of `focal_loss`, checked, and what it evaluates."""
    gamma = number("gamma", gamma, 0.0, STEEPEST)
    one, other = (1.0, 1.0)
    if alpha is not None:
        one = number("alpha", alpha, 0.0, 1.0, "; None weighs both classes alike")
        other = 1.0 - one
    call = Call.of(x, t, reduction, 1 + bool(grad), out)
    return call, "focal_terms", [call.weight("sample_weight", sample_weight)], [one, other, gamma]


# --- what both do --------------------------------------------------------------------------------------------------------


def number(name: str, value: Any, least: float, most: float, hint: str = "") -> float:
    if not isinstance(value, SupportsFloat):
        raise TypeError(f"{name} must be a number, not {value!r}")
    result = float(value)
    if not least <= result <= most:
        raise ValueError(f"{name} must lie between {least:g} and {most:g}, not {value!r}{hint}")
    return result


LOOPS: dict[tuple[Any, ...], Any] = {}


def loop(*which: Any) -> Any:
    """The compiled loop over a loss's terms; ctypes releases the interpreter's lock while it runs."""
    if which not in LOOPS:
        with compiler.lock():
            if which not in LOOPS:
                name, dtype, outputs, summed = which
                parallel.connect()
                LOOPS[which] = Loop(compiler.loss_loop(name, dtype.name, outputs, summed).address())
    return LOOPS[which]


@dataclass(frozen=True)
class Call:
    """One call's arrays: the logits, the labels, and one result for each output, the first None if it is to be summed.

    Weights and sums are in the format that is computed in, float32 for the smaller ones: a weight need not fit into those.
    """

    x: Array
    t: Array
    dtype: np.dtype[Any]
    reduction: str
    results: tuple[Array | None, ...]
    count: int  # elements that a mean divides by: more than here, if this is a part of the data

    @property
    def format(self) -> np.dtype[Any]:
        return np.dtype(np.float64 if self.dtype.itemsize == 8 else np.float32)

    @classmethod
    def of(cls, x: npt.ArrayLike, t: npt.ArrayLike, reduction: str, outputs: int, out: Any) -> Call:
        if not isinstance(reduction, str) or reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(map(repr, REDUCTIONS))}, not {reduction!r}")
        logits, labels = np.asarray(x), np.asarray(t)
        dtype = computed_dtype(logits.dtype, "x")
        computed_dtype(labels.dtype, "t")
        if labels.ndim and labels.shape != logits.shape:
            raise ValueError(f"t must have x's shape {logits.shape}, or be one label for all, not shape {labels.shape}")
        loss = np.empty(logits.shape, dtype) if reduction == "none" else None
        results = (loss, *gradients(out, outputs - 1, logits.shape, dtype))
        return cls(logits, labels, dtype, reduction, results, logits.size)

    def weight(self, name: str, value: npt.ArrayLike | None) -> Array:
        """A weight as an array, checked."""
        if value is None:
            return np.ones((), self.format)
        weight = np.asarray(value)
        computed_dtype(weight.dtype, name)
        try:
            fits = np.broadcast_shapes(weight.shape, self.x.shape) == self.x.shape
        except ValueError:
            fits = False
        if not fits:
            hint = f"; for one weight a row, pass {name}[:, None]" if weight.shape == self.x.shape[:1] else ""
            raise ValueError(f"{name} must broadcast to x's shape {self.x.shape}, not have shape {weight.shape}{hint}")
        with np.errstate(all="ignore"):
            least = np.fmin.reduce(weight, axis=None) if weight.size and weight.dtype.kind not in "bu" else 1
            if least < 0:
                raise ValueError(f"{name} must not be negative, but its least entry is {least}")
        return weight

    def evaluate(self, name: str, weights: Sequence[Array], numbers: Sequence[float]) -> Any:
        """Run the loop over the terms `name`; the result as the user gets it."""
        with np.errstate(all="ignore"):  # what a conversion says; the loop itself says nothing
            sums = self.run(name, weights, numbers)
            return self.answer(sums)

    def run(self, name: str, weights: Sequence[Array], numbers: Sequence[float]) -> npt.NDArray[np.float64]:
        """Fill the results; the sums of the blocks."""
        n, summed = self.x.size, self.reduction != "none"
        scale = 1 / self.count if self.reduction == "mean" and self.count else 1.0
        run = loop(name, self.dtype, len(self.results), summed)
        constants = np.array([[*numbers, scale]], self.format).T
        inputs = [Flat.of(a, self.x.shape, self.dtype) for a in (self.x, self.t)]
        inputs += [Flat.of(a, self.x.shape, self.format) for a in weights]
        results = [None if y is None else Flat.of(np.asarray(y), self.x.shape, self.dtype) for y in self.results]
        if entangled(inputs, results):
            inputs = [Flat.of(a.array.copy(), a.array.shape, a.dtype) for a in inputs]
        sums = np.zeros(-(-n // BLOCK))
        whole = all(a is None or a.flat is not None for a in (*inputs, *results))
        size = n if whole else PIECE
        for i in range(0, n, size or 1):
            j = min(i + size, n)
            pieces = [a.take(i, j) for a in inputs]
            fresh = [sums[i // BLOCK :] if y is None else y.room(i, j) for y in results]
            invoke(run, j - i, [*pieces, *constants, *fresh])
            for y, piece in zip(results, fresh, strict=True):
                if y is not None:
                    y.put(i, j, piece)
        return sums

    def answer(self, sums: npt.NDArray[np.float64]) -> Any:
        loss: Any = self.results[0]
        if loss is None:
            loss = finished(added(sums), self.reduction, self.count, self.dtype)
        elif not loss.ndim:
            loss = loss[()]
        return loss if len(self.results) == 1 else (loss, *self.results[1:])


@cache
def computed_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """The dtype of all results for logits of `dtype`."""
    if dtype.name in STORAGES:
        return dtype.newbyteorder("=")
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    raise TypeError(f"{name} must be of {', '.join(STORAGES)} or integers, not {dtype}")


def gradients(out: Any, count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[Array]:
    """Where the gradients go: what the user gave, or fresh memory."""
    given = out if isinstance(out, tuple) else (out,) if out is not None else ()
    if len(given) > count:
        raise ValueError(f"out must have room for {count} result{'s' * (count != 1)}, not {len(given)}: {NEEDS[count]}")
    results = []
    for k in range(count):
        array = given[k] if k < len(given) else None
        if array is None:
            array = np.empty(shape, dtype)
        elif not isinstance(array, np.ndarray):
            raise TypeError(f"out must be an ndarray or a tuple of them, not {type(array).__name__}")
        elif array.shape != shape or array.dtype != dtype or not array.flags.writeable:
            kind = "" if array.flags.writeable else "read-only "
            raise ValueError(f"out must be a writeable array of shape {shape} and dtype {dtype}, not a {kind}one of shape "
                             f"{array.shape} and dtype {array.dtype}")  # fmt: skip
        results.append(array)
    if count == 2 and np.may_share_memory(results[0], results[1]):
        raise ValueError("out must be two arrays that don't overlap: one for the gradient, one for the second derivatives")
    return results


NEEDS = {
    0: "there is no gradient with grad=False",
    1: "the gradient is the only one",
    2: "the gradient and the second derivatives",
}


@dataclass(frozen=True)
class Flat:
    """An array as the loop goes over it: in its own memory, as one dimension (`flat`), if that can be, else in copies."""

    array: Array
    flat: Array | None
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Flat:
        if array.shape != shape:
            array = np.broadcast_to(array if array.ndim else array.astype(dtype), shape)
        try:
            flat = array.reshape(-1, copy=False)
        except ValueError:
            return cls(array, None, dtype)
        return cls(flat, flat if array.dtype == dtype and array.flags.aligned else None, dtype)

    def take(self, i: int, j: int) -> Array:
        """Elements i to j."""
        if self.flat is not None:
            return self.flat[i:j]
        copy = self.room(i, j)
        for part, piece in zip(*self.parts(i, j, copy), strict=True):
            piece[...] = part
        return copy

    def room(self, i: int, j: int) -> Array:
        """Where their results go; `put` brings them home."""
        return self.flat[i:j] if self.flat is not None else np.empty(j - i, self.dtype)

    def put(self, i: int, j: int, copy: Array) -> None:
        if self.flat is None:
            for part, piece in zip(*self.parts(i, j, copy), strict=True):
                part[...] = piece

    def parts(self, i: int, j: int, copy: Array) -> tuple[list[Array], list[Array]]:
        """The same elements as views of the array, and as views of a copy."""
        views = list(sections(self.array, i, j))
        ends = np.cumsum([view.size for view in views])
        return views, [copy[end - view.size : end].reshape(view.shape) for view, end in zip(views, ends, strict=True)]


def sections(array: Array, i: int, j: int) -> Iterator[Array]:
    """Elements i to j of an array of any shape, in order: of its first and its last row a part, between them whole rows."""
    if array.ndim < 2:
        yield array[i:j]
        return
    row = array.size // len(array)
    first, last = -(-i // row), j // row
    if first > last:
        yield from sections(array[last], i - last * row, j - last * row)
        return
    if i < first * row:
        yield from sections(array[first - 1], i - (first - 1) * row, row)
    if first < last:
        yield array[first:last]
    if last * row < j:
        yield from sections(array[last], 0, j - last * row)


def entangled(inputs: Sequence[Flat], results: Sequence[Flat | None]) -> bool:
    """Whether a result would overwrite what is still to be read: not if it lies over an input element by element."""
    for y in results:
        for a in inputs:
            if y is not None and np.may_share_memory(y.array, a.array):
                same = y.array.ctypes.data == a.array.ctypes.data and y.array.strides == a.array.strides
                if not same or a.flat is None or y.flat is None:
                    return True
    return False


def invoke(run: Any, n: int, operands: Sequence[Array]) -> None:
    """Call a loop as NumPy would call it."""
    words = ctypes.c_ssize_t * len(operands)
    addresses = words(*[a.ctypes.data for a in operands])
    steps = words(*[a.strides[0] for a in operands])
    run(addresses, ctypes.byref(ctypes.c_ssize_t(n)), steps, ctypes.addressof(parallel.WORDS))


def added(sums: npt.NDArray[np.float64]) -> float:
    """The exact sum, rounded once; where it isn't finite, what IEEE arithmetic makes of it."""
    try:
        return math.fsum(sums)
    except (OverflowError, ValueError):
        with np.errstate(all="ignore"):
            return float(sums.sum())


def finished(total: float, reduction: str, count: int, dtype: np.dtype[Any]) -> Any:
    """The loss, from the sum of its terms."""
    if reduction == "mean":
        total = total / count if count else math.nan
    return rounded(total, dtype)


def rounded(total: float, dtype: np.dtype[Any]) -> Any:
    """The number in `dtype`, rounded once: by way of float32, ml_dtypes would round it twice."""
    if dtype.name != "bfloat16":
        return np.float64(total).astype(dtype)
    single = np.float32(total)
    if float(single) != total and math.isfinite(single):  # to odd: then the second rounding sees what the first one left
        if abs(float(single)) > abs(total):
            single = np.nextafter(single, np.float32(0))
        single = (single.view(np.uint32) | np.uint32(1)).view(np.float32)
    return single.astype(dtype)
