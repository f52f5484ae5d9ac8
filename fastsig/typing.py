"""The types of the ufuncs, for type checkers: `numpy.ufunc` itself is final and says nothing about dtypes."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

Float = TypeVar("Float", np.float16, np.float32, np.float64)
Shape = TypeVar("Shape", bound=tuple[int, ...])
Logits = npt.ArrayLike
Array = npt.NDArray[np.floating[Any]]


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


class OneToOne(Ufunc, Protocol):
    @overload
    def __call__(self, x: np.ndarray[Shape, np.dtype[Float]], /, **kwargs: Any) -> np.ndarray[Shape, np.dtype[Float]]: ...
    @overload
    def __call__(self, x: Float, /, **kwargs: Any) -> Float: ...
    @overload
    def __call__(self, x: float, /, **kwargs: Any) -> np.float64: ...
    @overload
    def __call__(self, x: Logits, /, out: Any = None, **kwargs: Any) -> Any: ...


class OneToTwo(Ufunc, Protocol):
    @overload
    def __call__(
        self, x: np.ndarray[Shape, np.dtype[Float]], /, **kwargs: Any
    ) -> tuple[np.ndarray[Shape, np.dtype[Float]], np.ndarray[Shape, np.dtype[Float]]]: ...
    @overload
    def __call__(self, x: Float, /, **kwargs: Any) -> tuple[Float, Float]: ...
    @overload
    def __call__(self, x: float, /, **kwargs: Any) -> tuple[np.float64, np.float64]: ...
    @overload
    def __call__(self, x: Logits, /, out: Any = None, **kwargs: Any) -> tuple[Any, Any]: ...


class TwoToOne(Ufunc, Protocol):
    @overload
    def __call__(
        self, a: np.ndarray[Shape, np.dtype[Float]], b: np.ndarray[Shape, np.dtype[Float]], /, **kwargs: Any
    ) -> np.ndarray[Shape, np.dtype[Float]]: ...
    @overload
    def __call__(self, a: Float, b: Float, /, **kwargs: Any) -> Float: ...
    @overload
    def __call__(self, a: float, b: float, /, **kwargs: Any) -> np.float64: ...
    @overload
    def __call__(self, a: Logits, b: Logits, /, out: Any = None, **kwargs: Any) -> Any: ...
