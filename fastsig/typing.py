"""The types of the ufuncs and of the losses, for type checkers: `numpy.ufunc` itself is final and says nothing about dtypes.

NumPy takes the first of the loops float16, float32 and float64 to which all inputs convert safely; the overloads below are in
that order. Python's own numbers don't count beside a floating-point array, so these come last. What can't be told from the
types alone is `Any`: bfloat16, lists of mixed numbers, a dtype given by its name, Python integers beside integer arrays. An
array of no dimensions counts as an array, though NumPy answers with a scalar.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol, TypedDict, TypeVar, Unpack, overload

import numpy as np
import numpy.typing as npt

Float = TypeVar("Float", np.float16, np.float32, np.float64)
Shape = TypeVar("Shape", bound=tuple[int, ...])
Out = TypeVar("Out", bound=np.ndarray[Any, np.dtype[Any]])
Out2 = TypeVar("Out2", bound=np.ndarray[Any, np.dtype[Any]])
Item = TypeVar("Item", covariant=True)
Kind = TypeVar("Kind", bound=np.generic)
Logits = npt.ArrayLike
Array = npt.NDArray[np.floating[Any]]
Numbers = npt.NDArray[Any]

ToHalf = np.bool | np.int8 | np.uint8 | np.float16  # what converts safely to float16,
ToSingle = ToHalf | np.int16 | np.uint16 | np.float32  # to float32
ToDouble = np.bool | np.integer[Any] | np.float16 | np.float32 | np.float64  # and, where that is the widest, to float64
Scalar = float | ToDouble
DType = type[Float] | np.dtype[Float]
Shaped = np.ndarray[Shape, np.dtype[Kind]]
Pair = tuple[npt.NDArray[Float], npt.NDArray[Float]]


class Nested(Protocol[Item]):
    """A sequence of numbers, or of such sequences."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Item | Nested[Item]: ...
    def __iter__(self) -> Iterator[Item | Nested[Item]]: ...
    def __reversed__(self) -> Iterator[Item | Nested[Item]]: ...


class Keywords(TypedDict, total=False):
    """What every ufunc takes beside `out` and `dtype`."""

    where: npt.ArrayLike
    casting: Literal["no", "equiv", "safe", "same_kind", "unsafe"]
    order: Literal["K", "A", "C", "F"] | None
    subok: bool
    signature: str | tuple[Any, ...] | None


class Plain(Keywords, total=False):
    """Those of a call whose result is as its inputs are."""

    out: None
    dtype: None


class Given(Keywords, total=False):
    """Those of a call whose outputs are given, or can't be told."""

    dtype: npt.DTypeLike | None


class Ufunc(Protocol):
    """What every one of them has beside being called."""

    @property
    def __name__(self) -> str: ...
    @property
    def nin(self) -> int: ...
    @property
    def nout(self) -> int: ...
    @property
    def nargs(self) -> int: ...
    @property
    def ntypes(self) -> int: ...
    @property
    def types(self) -> list[str]: ...
    @property
    def identity(self) -> None: ...
    @property
    def signature(self) -> None: ...
    def outer(self, *args: Any, **kwargs: Any) -> Any: ...
    def at(self, *args: Any) -> None: ...
    def reduce(self, *args: Any, **kwargs: Any) -> Any: ...
    def accumulate(self, *args: Any, **kwargs: Any) -> Any: ...
    def reduceat(self, *args: Any, **kwargs: Any) -> Any: ...


class OneToOne(Ufunc, Protocol):
    @overload
    def __call__(self, x: Logits, /, out: Out | tuple[Out], **kwargs: Unpack[Given]) -> Out: ...
    @overload
    def __call__(
        self, x: np.ndarray[Shape, Any], /, *, dtype: DType[Float], out: None = None, **kwargs: Unpack[Keywords]
    ) -> Shaped[Shape, Float]: ...
    @overload
    def __call__(self, x: Scalar, /, *, dtype: DType[Float], out: None = None, **kwargs: Unpack[Keywords]) -> Float: ...
    @overload
    def __call__(
        self, x: Nested[Scalar], /, *, dtype: DType[Float], out: None = None, **kwargs: Unpack[Keywords]
    ) -> npt.NDArray[Float]: ...
    @overload
    def __call__(self, x: Shaped[Shape, ToHalf], /, **kwargs: Unpack[Plain]) -> Shaped[Shape, np.float16]: ...
    @overload
    def __call__(self, x: Shaped[Shape, ToSingle], /, **kwargs: Unpack[Plain]) -> Shaped[Shape, np.float32]: ...
    @overload
    def __call__(self, x: Shaped[Shape, ToDouble], /, **kwargs: Unpack[Plain]) -> Shaped[Shape, np.float64]: ...
    @overload
    def __call__(self, x: bool | ToHalf, /, **kwargs: Unpack[Plain]) -> np.float16: ...
    @overload
    def __call__(self, x: ToSingle, /, **kwargs: Unpack[Plain]) -> np.float32: ...
    @overload
    def __call__(self, x: float | ToDouble, /, **kwargs: Unpack[Plain]) -> np.float64: ...
    @overload
    def __call__(self, x: Nested[bool | ToHalf], /, **kwargs: Unpack[Plain]) -> npt.NDArray[np.float16]: ...
    @overload
    def __call__(self, x: Nested[ToSingle], /, **kwargs: Unpack[Plain]) -> npt.NDArray[np.float32]: ...
    @overload
    def __call__(self, x: Nested[float | ToDouble], /, **kwargs: Unpack[Plain]) -> npt.NDArray[np.float64]: ...
    @overload
    def __call__(self, x: Logits, /, out: Any = None, **kwargs: Unpack[Given]) -> Any: ...


class OneToTwo(Ufunc, Protocol):
    @overload
    def __call__(self, x: Logits, /, *, out: tuple[Out, Out2], **kwargs: Unpack[Given]) -> tuple[Out, Out2]: ...
    @overload
    def __call__(self, x: Logits, y: Out, dy: Out2, /, **kwargs: Unpack[Given]) -> tuple[Out, Out2]: ...
    @overload
    def __call__(self, x: Logits, /, *, out: tuple[Out, None], **kwargs: Unpack[Given]) -> tuple[Out, Any]: ...
    @overload
    def __call__(self, x: Logits, /, *, out: tuple[None, Out], **kwargs: Unpack[Given]) -> tuple[Any, Out]: ...
    @overload
    def __call__(
        self, x: np.ndarray[Shape, Any], /, *, dtype: DType[Float], out: None = None, **kwargs: Unpack[Keywords]
    ) -> tuple[Shaped[Shape, Float], Shaped[Shape, Float]]: ...
    @overload
    def __call__(
        self, x: Scalar, /, *, dtype: DType[Float], out: None = None, **kwargs: Unpack[Keywords]
    ) -> tuple[Float, Float]: ...
    @overload
    def __call__(
        self, x: Nested[Scalar], /, *, dtype: DType[Float], out: None = None, **kwargs: Unpack[Keywords]
    ) -> Pair[Float]: ...
    @overload
    def __call__(
        self, x: Shaped[Shape, ToHalf], /, **kwargs: Unpack[Plain]
    ) -> tuple[Shaped[Shape, np.float16], Shaped[Shape, np.float16]]: ...
    @overload
    def __call__(
        self, x: Shaped[Shape, ToSingle], /, **kwargs: Unpack[Plain]
    ) -> tuple[Shaped[Shape, np.float32], Shaped[Shape, np.float32]]: ...
    @overload
    def __call__(
        self, x: Shaped[Shape, ToDouble], /, **kwargs: Unpack[Plain]
    ) -> tuple[Shaped[Shape, np.float64], Shaped[Shape, np.float64]]: ...
    @overload
    def __call__(self, x: bool | ToHalf, /, **kwargs: Unpack[Plain]) -> tuple[np.float16, np.float16]: ...
    @overload
    def __call__(self, x: ToSingle, /, **kwargs: Unpack[Plain]) -> tuple[np.float32, np.float32]: ...
    @overload
    def __call__(self, x: float | ToDouble, /, **kwargs: Unpack[Plain]) -> tuple[np.float64, np.float64]: ...
    @overload
    def __call__(self, x: Nested[bool | ToHalf], /, **kwargs: Unpack[Plain]) -> Pair[np.float16]: ...
    @overload
    def __call__(self, x: Nested[ToSingle], /, **kwargs: Unpack[Plain]) -> Pair[np.float32]: ...
    @overload
    def __call__(self, x: Nested[float | ToDouble], /, **kwargs: Unpack[Plain]) -> Pair[np.float64]: ...
    @overload
    def __call__(self, x: Logits, /, out: Any = None, **kwargs: Unpack[Given]) -> tuple[Any, Any]: ...


class TwoToOne(Ufunc, Protocol):
    @overload
    def __call__(self, a: Logits, b: Logits, /, out: Out | tuple[Out], **kwargs: Unpack[Given]) -> Out: ...
    @overload
    def __call__(
        self,
        a: np.ndarray[Shape, Any],
        b: np.ndarray[Shape, Any],
        /,
        *,
        dtype: DType[Float],
        out: None = None,
        **kwargs: Unpack[Keywords],
    ) -> Shaped[Shape, Float]: ...
    @overload
    def __call__(
        self, a: Numbers, b: Scalar | Numbers, /, *, dtype: DType[Float], out: None = None, **kwargs: Unpack[Keywords]
    ) -> npt.NDArray[Float]: ...
    @overload
    def __call__(
        self, a: Scalar, b: Numbers, /, *, dtype: DType[Float], out: None = None, **kwargs: Unpack[Keywords]
    ) -> npt.NDArray[Float]: ...
    @overload
    def __call__(
        self, a: Scalar, b: Scalar, /, *, dtype: DType[Float], out: None = None, **kwargs: Unpack[Keywords]
    ) -> Float: ...
    @overload
    def __call__(
        self, a: Shaped[Shape, Float], b: Shaped[Shape, Float], /, **kwargs: Unpack[Plain]
    ) -> Shaped[Shape, Float]: ...
    @overload
    def __call__(
        self, a: npt.NDArray[ToHalf], b: npt.NDArray[ToHalf] | bool | ToHalf, /, **kwargs: Unpack[Plain]
    ) -> npt.NDArray[np.float16]: ...
    @overload
    def __call__(self, a: bool | ToHalf, b: npt.NDArray[ToHalf], /, **kwargs: Unpack[Plain]) -> npt.NDArray[np.float16]: ...
    @overload
    def __call__(self, a: bool | ToHalf, b: bool | ToHalf, /, **kwargs: Unpack[Plain]) -> np.float16: ...
    @overload
    def __call__(
        self, a: npt.NDArray[ToSingle], b: npt.NDArray[ToSingle] | bool | ToSingle, /, **kwargs: Unpack[Plain]
    ) -> npt.NDArray[np.float32]: ...
    @overload
    def __call__(self, a: bool | ToSingle, b: npt.NDArray[ToSingle], /, **kwargs: Unpack[Plain]) -> npt.NDArray[np.float32]: ...
    @overload
    def __call__(self, a: bool | ToSingle, b: bool | ToSingle, /, **kwargs: Unpack[Plain]) -> np.float32: ...
    @overload
    def __call__(
        self, a: npt.NDArray[ToDouble], b: npt.NDArray[ToDouble] | bool | ToDouble, /, **kwargs: Unpack[Plain]
    ) -> npt.NDArray[np.float64]: ...
    @overload
    def __call__(self, a: bool | ToDouble, b: npt.NDArray[ToDouble], /, **kwargs: Unpack[Plain]) -> npt.NDArray[np.float64]: ...
    @overload
    def __call__(self, a: bool | ToDouble, b: bool | ToDouble, /, **kwargs: Unpack[Plain]) -> np.float64: ...
    @overload
    def __call__(self, a: Shaped[Shape, Float], b: float, /, **kwargs: Unpack[Plain]) -> Shaped[Shape, Float]: ...
    @overload
    def __call__(self, a: float, b: Shaped[Shape, Float], /, **kwargs: Unpack[Plain]) -> Shaped[Shape, Float]: ...
    @overload
    def __call__(self, a: Float, b: float, /, **kwargs: Unpack[Plain]) -> Float: ...
    @overload
    def __call__(self, a: float, b: Float, /, **kwargs: Unpack[Plain]) -> Float: ...
    @overload
    def __call__(self, a: float, b: float, /, **kwargs: Unpack[Plain]) -> np.float64: ...
    @overload
    def __call__(self, a: Nested[float], b: float | Nested[float], /, **kwargs: Unpack[Plain]) -> npt.NDArray[np.float64]: ...
    @overload
    def __call__(self, a: Logits, b: Logits, /, out: Any = None, **kwargs: Unpack[Given]) -> Any: ...


class TwoToTwo(Ufunc, Protocol):
    @overload
    def __call__(self, a: Logits, b: Logits, /, *, out: tuple[Out, Out2], **kwargs: Unpack[Given]) -> tuple[Out, Out2]: ...
    @overload
    def __call__(self, a: Logits, b: Logits, y: Out, dy: Out2, /, **kwargs: Unpack[Given]) -> tuple[Out, Out2]: ...
    @overload
    def __call__(self, a: Logits, b: Logits, /, *, out: tuple[Out, None], **kwargs: Unpack[Given]) -> tuple[Out, Any]: ...
    @overload
    def __call__(self, a: Logits, b: Logits, /, *, out: tuple[None, Out], **kwargs: Unpack[Given]) -> tuple[Any, Out]: ...
    @overload
    def __call__(
        self,
        a: np.ndarray[Shape, Any],
        b: np.ndarray[Shape, Any],
        /,
        *,
        dtype: DType[Float],
        out: None = None,
        **kwargs: Unpack[Keywords],
    ) -> tuple[Shaped[Shape, Float], Shaped[Shape, Float]]: ...
    @overload
    def __call__(
        self, a: Numbers, b: Scalar | Numbers, /, *, dtype: DType[Float], out: None = None, **kwargs: Unpack[Keywords]
    ) -> Pair[Float]: ...
    @overload
    def __call__(
        self, a: Scalar, b: Numbers, /, *, dtype: DType[Float], out: None = None, **kwargs: Unpack[Keywords]
    ) -> Pair[Float]: ...
    @overload
    def __call__(
        self, a: Scalar, b: Scalar, /, *, dtype: DType[Float], out: None = None, **kwargs: Unpack[Keywords]
    ) -> tuple[Float, Float]: ...
    @overload
    def __call__(
        self, a: Shaped[Shape, Float], b: Shaped[Shape, Float], /, **kwargs: Unpack[Plain]
    ) -> tuple[Shaped[Shape, Float], Shaped[Shape, Float]]: ...
    @overload
    def __call__(
        self, a: npt.NDArray[ToHalf], b: npt.NDArray[ToHalf] | bool | ToHalf, /, **kwargs: Unpack[Plain]
    ) -> Pair[np.float16]: ...
    @overload
    def __call__(self, a: bool | ToHalf, b: npt.NDArray[ToHalf], /, **kwargs: Unpack[Plain]) -> Pair[np.float16]: ...
    @overload
    def __call__(self, a: bool | ToHalf, b: bool | ToHalf, /, **kwargs: Unpack[Plain]) -> tuple[np.float16, np.float16]: ...
    @overload
    def __call__(
        self, a: npt.NDArray[ToSingle], b: npt.NDArray[ToSingle] | bool | ToSingle, /, **kwargs: Unpack[Plain]
    ) -> Pair[np.float32]: ...
    @overload
    def __call__(self, a: bool | ToSingle, b: npt.NDArray[ToSingle], /, **kwargs: Unpack[Plain]) -> Pair[np.float32]: ...
    @overload
    def __call__(self, a: bool | ToSingle, b: bool | ToSingle, /, **kwargs: Unpack[Plain]) -> tuple[np.float32, np.float32]: ...
    @overload
    def __call__(
        self, a: npt.NDArray[ToDouble], b: npt.NDArray[ToDouble] | bool | ToDouble, /, **kwargs: Unpack[Plain]
    ) -> Pair[np.float64]: ...
    @overload
    def __call__(self, a: bool | ToDouble, b: npt.NDArray[ToDouble], /, **kwargs: Unpack[Plain]) -> Pair[np.float64]: ...
    @overload
    def __call__(self, a: bool | ToDouble, b: bool | ToDouble, /, **kwargs: Unpack[Plain]) -> tuple[np.float64, np.float64]: ...
    @overload
    def __call__(
        self, a: Shaped[Shape, Float], b: float, /, **kwargs: Unpack[Plain]
    ) -> tuple[Shaped[Shape, Float], Shaped[Shape, Float]]: ...
    @overload
    def __call__(
        self, a: float, b: Shaped[Shape, Float], /, **kwargs: Unpack[Plain]
    ) -> tuple[Shaped[Shape, Float], Shaped[Shape, Float]]: ...
    @overload
    def __call__(self, a: Float, b: float, /, **kwargs: Unpack[Plain]) -> tuple[Float, Float]: ...
    @overload
    def __call__(self, a: float, b: Float, /, **kwargs: Unpack[Plain]) -> tuple[Float, Float]: ...
    @overload
    def __call__(self, a: float, b: float, /, **kwargs: Unpack[Plain]) -> tuple[np.float64, np.float64]: ...
    @overload
    def __call__(self, a: Nested[float], b: float | Nested[float], /, **kwargs: Unpack[Plain]) -> Pair[np.float64]: ...
    @overload
    def __call__(self, a: Logits, b: Logits, /, out: Any = None, **kwargs: Unpack[Given]) -> tuple[Any, Any]: ...


# --- losses --------------------------------------------------------------------------------------------------------------


class Weighting(TypedDict, total=False):
    """Arguments of the binary cross-entropy that have no say in its results' types."""

    sample_weight: npt.ArrayLike | None
    pos_weight: npt.ArrayLike | None
    label_smoothing: float
    out: Numbers | tuple[Numbers | None, ...] | None


class Weighted(Weighting, total=False):
    reduction: Literal["mean", "sum"]


class EachWeighted(Weighting):
    reduction: Literal["none"]


class AnyWeighted(Weighting, total=False):
    reduction: str
    grad: bool
    hess: bool


class Focus(TypedDict, total=False):
    """The same of the focal loss."""

    gamma: float
    alpha: float | None
    sample_weight: npt.ArrayLike | None
    out: Numbers | tuple[Numbers | None, ...] | None


class Focal(Focus, total=False):
    reduction: Literal["mean", "sum"]


class EachFocal(Focus):
    reduction: Literal["none"]


class AnyFocal(Focus, total=False):
    reduction: str
    grad: bool
