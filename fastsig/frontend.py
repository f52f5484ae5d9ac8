"""Which Numba compiles loops: the part of it that they need (`narrow`), or, where that doesn't fit a later Numba, all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

WHOLE: list[str] = []  # why it is all of Numba that compiles, in this process


def njit(signature: Any = None, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Numba's decorator."""
    if WHOLE:
        import numba

        made: Callable[[Callable[..., Any]], Any] = numba.njit(signature, **options) if signature else numba.njit(**options)
        return made
    from fastsig import narrow

    return narrow.njit(signature, **options)


def compiled(signature: Any, function: Callable[..., Any]) -> tuple[str, Any]:
    """The symbol and module of a function that C can call, with all that it calls."""
    if WHOLE:
        import numba

        made = numba.cfunc(signature, error_model="numpy")(function)
        return made._wrapper_name, made._library._final_module
    from fastsig import narrow

    return narrow.compiled(signature, function)
