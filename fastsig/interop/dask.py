"""The family on Dask's arrays: lazily, chunk by chunk, by threads, processes or a cluster.

    import fastsig, fastsig.interop.dask as fd
    y = fastsig.sigmoid(x)                              # any one-output name takes a Dask array as it is
    y, dy = fd.sigmoid_value_and_grad(x)                # two outputs, one pass over each chunk
    loss, grad = fd.bce_with_logits_loss(x, t)          # as in fastsig.losses: a lazy number, and a lazy array

Dask hands a ufunc of one output to the chunks by itself. One of two outputs it looks up by name in `dask.array.ufunc`, where
this module enters ours: once it is imported, ``fastsig.sigmoid_value_and_grad(x)`` takes Dask arrays, too, and so do xarray's
objects that hold them.

A graph holds a ufunc by its name, and building one computes nothing. Both outputs come of one call for each chunk, if they are
computed together: ``dask.compute(y, dy)``, not ``y.compute()`` and then ``dy.compute()``, which goes over the data twice.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from operator import getitem
from typing import Any

import numpy as np

import fastsig
from fastsig import losses
from fastsig.interop.family import summary
from fastsig.kernels import ALIASES, KERNELS

try:
    import dask.array as da
    from dask.array import ufunc as lookup
    from dask.array.core import broadcast_shapes
    from dask.array.utils import meta_from_array
except ModuleNotFoundError as missing:
    raise ImportError("fastsig.interop.dask needs Dask: pip install 'fastsig[dask]'") from missing

__all__ = ["bce_with_logits_loss", "focal_loss", *fastsig.UFUNCS]

Dims = tuple[int, ...]
NUMBERS = (int, float, complex)  # Python's own, which set no dtype


# --- arrays --------------------------------------------------------------------------------------------------------------


def lazy(name: str, *arguments: Any) -> list[Any]:
    """The arguments as Dask's arrays, of which one must be one already; their chunks must be NumPy's."""
    if not any(isinstance(a, da.Array) for a in arguments):
        kinds = " and ".join(type(a).__name__ for a in arguments)
        raise TypeError(f"fastsig.interop.dask.{name} takes Dask arrays, not {kinds}: dask.array.asarray(x) makes one")
    arrays = [da.asarray(a) for a in arguments]
    for a in arrays:
        kind = type(a._meta)
        if not issubclass(kind, np.ndarray):
            raise TypeError(
                f"fastsig computes on chunks that are NumPy arrays, not {kind.__module__}.{kind.__qualname__}: convert them "
                "by x.map_blocks(f), where f makes a NumPy array of a chunk, as cupy.asnumpy does"
            )
    return arrays


def dims_of(*operands: Any) -> Dims:
    """The dimensions as `blockwise` numbers them: the last is 0, so that arrays are aligned as NumPy broadcasts them."""
    return tuple(range(max((a.ndim for a in operands if isinstance(a, da.Array)), default=0)))[::-1]


def blockwise(compute: Callable[..., Any], dims: Dims, operands: Any, dtype: Any, token: str, **options: Any) -> Any:
    """Lazily, a function of each block; nothing is called to find out what it gives."""
    pairs = [item for a in operands for item in (a, dims_of(a) if isinstance(a, da.Array) else None)]
    arrays = [a._meta for a in operands if isinstance(a, da.Array)]
    kind = max(arrays, key=lambda meta: meta.__array_priority__)  # a masked array makes masked arrays
    meta = meta_from_array(kind, ndim=len(dims), dtype=dtype)
    return da.blockwise(compute, dims, *pairs, dtype=dtype, meta=meta, token=token, **options)


def parts(compute: Callable[..., Any], dims: Dims, operands: Any, token: str, **options: Any) -> Callable[..., Any]:
    """Of a function that gives a tuple for each block: what makes the array of the tuples' elements at a place."""
    dtype = next(a.dtype for a in operands if isinstance(a, da.Array))  # of no meaning: nobody sees the array of the tuples
    tuples = blockwise(compute, dims, operands, dtype, token, **options)

    def part(place: int, dtype: Any, **adjusted: Any) -> Any:
        return blockwise(getitem, dims, (tuples, place), dtype, f"{token}_{place}", **adjusted)

    return part


# --- functions -----------------------------------------------------------------------------------------------------------


def elementwise(name: str, *arguments: Any) -> Any:
    """Lazily, the ufunc of each block."""
    ufunc = getattr(fastsig, name)
    if len(arguments) != ufunc.nin:
        raise TypeError(f"{name} takes {ufunc.nin} argument{'s' * (ufunc.nin > 1)}, not {len(arguments)}")
    arrays = lazy(name, *arguments)
    broadcast_shapes(*(a.shape for a in arrays))  # refuses those that don't fit; `blockwise` would speak of chunks
    operands = [n if type(n) in NUMBERS else a for n, a in zip(arguments, arrays, strict=True)]
    kinds = [a.dtype if isinstance(a, da.Array) else type(a) for a in operands]
    dtypes = ufunc.resolve_dtypes((*kinds, *[None] * ufunc.nout))[ufunc.nin :]
    dims = dims_of(*operands)
    if ufunc.nout == 1:
        return blockwise(ufunc, dims, operands, dtypes[0], name)
    part = parts(ufunc, dims, operands, name)
    return tuple(part(place, dtype) for place, dtype in enumerate(dtypes))


GIVEN = "At least one argument is a Dask array; they broadcast."
GIVES = "Of the arguments' broadcast shape."
TEMPLATE = """{summary}

Parameters
----------
{parameters}

Returns
-------
{returns}

Raises
------
TypeError
    If no argument is a Dask array, if a chunk isn't a NumPy array (but CuPy's, say), and for complex, longdouble, string or
    object dtypes.
ValueError
    For shapes that don't broadcast.

Notes
-----
Each chunk has the bits and the dtype of `fastsig.{name}`. Where the arguments' chunks differ, Dask splits
them at all of their borders. There is no `out`, `where` or `dtype`: convert the input, ``x.astype("float32")``.

Examples
--------
>>> import dask.array as da
>>> from fastsig.interop.dask import {name}
>>> x = da.linspace(0.1, 0.9, 1000, chunks=300)
>>> {call}
dask.array<{name}{place}, shape=(1000,), dtype=float64, chunksize=(300,), chunktype=numpy.ndarray>
"""


def function(name: str) -> Callable[..., Any]:
    """The public function of a ufunc."""
    kernel = KERNELS[ALIASES.get(name, name)]

    def call(*arguments: Any, **options: Any) -> Any:
        if options:
            raise TypeError(f"on Dask arrays {name} takes no {', '.join(options)}: convert its arguments, or use its result")
        return elementwise(name, *arguments)

    kinds = inspect.Parameter.POSITIONAL_ONLY
    call.__signature__ = inspect.Signature([inspect.Parameter(i, kinds) for i in kernel.inputs])  # type: ignore[attr-defined]
    arguments, results = ", ".join("x" for _ in kernel.inputs), ", ".join(kernel.outputs)
    both = len(kernel.outputs) > 1
    call.__name__ = call.__qualname__ = name
    call.__doc__ = TEMPLATE.format(
        name=name,
        summary=summary(kernel.name),
        parameters="\n".join(f"{i} : dask.array.Array, array_like or number\n    {GIVEN}" for i in kernel.inputs),
        returns="\n".join(f"{o} : dask.array.Array\n    {GIVES}" for o in kernel.outputs),
        call=f"{results} = {name}({arguments})\n>>> {kernel.outputs[1]}" if both else f"{name}({arguments})",
        place="_1" if both else "",
    )
    return call


for _name in fastsig.UFUNCS:
    globals()[_name] = function(_name)
    if len(KERNELS[ALIASES.get(_name, _name)].outputs) > 1 and not hasattr(lookup, _name):
        setattr(lookup, _name, globals()[_name])


def __getattr__(name: str) -> Any:
    if name == "LogisticRegression":  # which needs SciPy
        return import_module("fastsig.interop.dask_linear").LogisticRegression
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- losses --------------------------------------------------------------------------------------------------------------


def bce_with_logits_loss(
    x: Any,
    t: Any,
    *,
    sample_weight: Any = None,
    pos_weight: Any = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    grad: bool = True,
    hess: bool = False,
) -> Any:
    """The binary cross-entropy of logits and labels with its derivatives, in one pass over each chunk.

    `fastsig.losses.bce_with_logits_loss`, which see for the formula and the meaning of the arguments, on Dask's arrays.

    Parameters
    ----------
    x : dask.array.Array
        Logits, of any shape. float16, bfloat16, float32 or float64; integers count as float64.
    t : dask.array.Array or array_like
        Labels in [0, 1], of x's shape, or one for all.
    sample_weight, pos_weight : dask.array.Array or array_like, optional
        They broadcast to x's shape.
    label_smoothing : float, default 0
        In [0, 1].
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of elements of all chunks. Where their sizes are unknown they are counted first, so that
        all of them are held in memory at once: ``x.compute_chunk_sizes()`` does so beforehand.
    grad, hess : bool, default True and False
        Whether the gradient, and with it the second derivatives, are wanted.

    Returns
    -------
    loss : dask.array.Array
        Without dimensions; with "none" of x's shape. In x's dtype, as everything.
    grad, hess : dask.array.Array
        With the chunks of `x`. Those that were asked for; the loss alone is no tuple.

    Raises
    ------
    TypeError
        If no argument is a Dask array, if a chunk isn't a NumPy array (but CuPy's, say), and for dtypes that NumPy's function
        doesn't take.
    ValueError
        As NumPy's function: at once for shapes and numbers; for a negative weight, which only the data show, when computed.

    Notes
    -----
    The derivatives have the bits of NumPy's function on the whole array. Each chunk's sum is accurate to 1e-12, and
    these are added in float64 in an order that the chunks set: it doesn't depend on the workers, on their number or on which
    is done first. Arguments are split at the borders of x's chunks.

    Compute results together, ``dask.compute(loss, grad)``: each chunk is then gone over once.

    Examples
    --------
    >>> import dask, dask.array as da
    >>> from fastsig.interop.dask import bce_with_logits_loss
    >>> x, t = da.linspace(-9, 9, 1000, chunks=300), da.ones(1000, chunks=300)
    >>> loss, grad = bce_with_logits_loss(x, t)
    >>> grad
    dask.array<bce_with_logits_loss_1, shape=(1000,), dtype=float64, chunksize=(300,), chunktype=numpy.ndarray>
    >>> loss, grad = dask.compute(loss, grad)
    >>> round(float(loss), 6)
    2.343532
    """
    options = {"label_smoothing": label_smoothing, "grad": grad, "hess": hess}
    weights = {"sample_weight": sample_weight, "pos_weight": pos_weight}
    return loss("bce_with_logits_loss", losses.cross_entropy, x, t, weights, reduction, options)


def focal_loss(
    x: Any,
    t: Any,
    *,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    sample_weight: Any = None,
    reduction: str = "mean",
    grad: bool = True,
) -> Any:
    """The focal loss of logits and labels with its gradient, in one pass over each chunk.

    `fastsig.losses.focal_loss`, which see for the formula and the meaning of the arguments, on Dask's arrays.

    Parameters
    ----------
    x : dask.array.Array
        Logits, of any shape. float16, bfloat16, float32 or float64; integers count as float64.
    t : dask.array.Array or array_like
        Labels in [0, 1], of x's shape, or one for all.
    gamma : float, default 2
        From 0 to 1e6.
    alpha : float or None, default 0.25
        The weight of the positive class, in [0, 1]; None weighs both alike.
    sample_weight : dask.array.Array or array_like, optional
        It broadcasts to x's shape.
    reduction : {"mean", "sum", "none"}
        As in `bce_with_logits_loss`.
    grad : bool, default True
        Whether the gradient is wanted.

    Returns
    -------
    loss : dask.array.Array
        Without dimensions; with "none" of x's shape. In x's dtype, as the gradient.
    grad : dask.array.Array
        With the chunks of `x`; not with ``grad=False``.

    Raises
    ------
    TypeError, ValueError
        As in `bce_with_logits_loss`.

    Notes
    -----
    Sums and bits are as in `bce_with_logits_loss`.

    Examples
    --------
    >>> import dask, dask.array as da
    >>> from fastsig.interop.dask import focal_loss
    >>> x, t = da.linspace(-9, 9, 1000, chunks=300), da.ones(1000, chunks=300)
    >>> loss, grad = dask.compute(*focal_loss(x, t, reduction="sum"))
    >>> round(float(loss), 6)
    549.220145
    """
    options = {"gamma": gamma, "alpha": alpha, "grad": grad}
    return loss("focal_loss", losses.focal, x, t, {"sample_weight": sample_weight}, reduction, options)


def loss(name: str, prepare: Any, x: Any, t: Any, weights: dict[str, Any], reduction: str, options: dict[str, Any]) -> Any:
    """Lazily, a loss and its derivatives; what can be known of the arguments without data is checked now."""
    weights = {key: w for key, w in weights.items() if w is not None}
    x, t, *others = lazy(name, x, t, *weights.values())
    options = {**options, "reduction": reduction}
    nothing = {key: np.empty(0, w.dtype) for key, w in zip(weights, others, strict=True)}
    call, *_ = prepare(np.empty(0, x.dtype), np.empty(0, t.dtype), **nothing, **options)
    t = aligned("t", t, x, stretches=t.ndim == 0)
    others = [aligned(key, w, x, stretches=True) for key, w in zip(weights, others, strict=True)]
    count = size(x) if reduction == "mean" else 1
    dims = dims_of(x)
    operands = (x, t, count, *others)
    part = parts(evaluate, dims, operands, name, align_arrays=False, prepare=prepare, names=tuple(weights), settings=options)
    if reduction == "none":
        result = part(0, call.dtype)
    else:
        sums = part(0, np.dtype(np.float64), adjust_chunks=dict.fromkeys(dims, 1))
        # Dask's default of 4 at a time is made for arrays, and would add a third to the number of tasks.
        total = da.reduction(sums, chunk=add, aggregate=add, dtype=sums.dtype, name=f"{name}_sum", split_every=64)
        result = blockwise(finish, (), (total, count), call.dtype, name, reduction=reduction, storage=call.dtype)
    results = (result, *(part(place, call.dtype) for place in range(1, len(call.results))))
    return results[0] if len(results) == 1 else results


def aligned(name: str, array: Any, x: Any, stretches: bool) -> Any:
    """Another operand, which must have x's shape or stretch to it, with x's chunks."""
    new = x.ndim - array.ndim
    sizes = list(zip(array.shape, x.shape[max(new, 0) :], strict=False))
    if new < 0 or (new and not stretches) or not all(n == m or (n == 1 and stretches) or math.isnan(n + m) for n, m in sizes):
        verb = "broadcast to" if stretches else "have"
        hint = "" if stretches else ", or be one label for all"
        raise ValueError(f"{name} must {verb} x's shape {x.shape}{hint}, not have shape {array.shape}")
    chunks = {}
    for axis, (n, m) in enumerate(sizes):
        if stretches and n == 1 != m:
            continue
        if math.isnan(n + m):
            if array.numblocks[axis] != x.numblocks[axis + new]:
                raise ValueError(f"{name} must have as many chunks as x, whose sizes are unknown: x.compute_chunk_sizes()")
        else:
            chunks[axis] = x.chunks[axis + new]
    return array.rechunk(chunks) if chunks else array


def size(x: Any) -> Any:
    """The number of elements, lazily if chunks must be counted."""
    if not math.isnan(x.size):
        return int(x.size)
    dims = dims_of(x)
    sizes = blockwise(size_of, dims, (x,), np.dtype(np.int64), "size", adjust_chunks=dict.fromkeys(dims, 1))
    return sizes.sum()


# --- what the graphs hold, by name ---------------------------------------------------------------------------------------


def evaluate(
    x: Any, t: Any, count: int, *weights: Any, prepare: Any, names: tuple[str, ...], settings: dict[str, Any]
) -> tuple[Any, ...]:
    """Of a block: its terms or their sum, and its derivatives."""
    call, terms, factors, numbers = prepare(x, t, **dict(zip(names, weights, strict=True)), **settings)
    with np.errstate(all="ignore"):
        sums = replace(call, count=int(count)).run(terms, factors, numbers)
    first, *derivatives = call.results
    return np.full((1,) * call.x.ndim, losses.added(sums)) if first is None else first, *derivatives


def add(sums: Any, axis: Any, keepdims: bool) -> Any:
    return np.full((1,) * sums.ndim if keepdims else (), losses.added(sums.ravel()))


def finish(total: Any, count: int, reduction: str, storage: Any) -> Any:
    with np.errstate(all="ignore"):
        return losses.finished(float(total), reduction, int(count), storage)


def size_of(x: Any) -> Any:
    return np.full((1,) * x.ndim, x.size)
