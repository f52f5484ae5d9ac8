"""Machine code to `numpy.ufunc`: dtypes, docstrings, NumPy's C API. No mathematics.

A ufunc is made with all its loops at once, and each loop begins as a stub: at its first call it has the real one loaded or
compiled, puts its address in its own place in the ufunc's table, which NumPy reads at every call, and passes the call on.
"""

from __future__ import annotations

import ctypes
import inspect
import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy._core import _multiarray_umath  # type: ignore[attr-defined]  # NumPy's stubs leave it out

from fastsig import compiler, interrupts, parallel
from fastsig.kernels import ALIASES, KERNELS, Absolute, Kernel

STORAGES = ("float16", "float32", "float64")  # in the order in which NumPy tries them; bfloat16 is another package's
KEPT: list[Any] = []  # what NumPy points to, for the life of the process
Address = ctypes.c_void_p
Loop = ctypes.CFUNCTYPE(None, Address, Address, Address, Address)
FROM_FUNCTIONS, REGISTER_LOOP = 1, 2  # of NumPy's table, its stable C interface: PyUFunc_FromFuncAndData, _RegisterLoopForType
NO_IDENTITY = -1


def make(name: str) -> np.ufunc:
    """The ufunc of the public function `name`."""
    kernel = KERNELS[ALIASES.get(name, name)]
    operands = len(kernel.inputs) + len(kernel.outputs)
    numbers = [np.dtype(storage).num for storage in STORAGES for _ in range(operands)]
    types = (ctypes.c_char * len(numbers))(*map(bytes, zip(numbers)))
    table = (Address * len(STORAGES))()
    data = (Address * len(STORAGES))(*[ctypes.addressof(parallel.WORDS)] * len(STORAGES))
    for place, storage in enumerate(STORAGES):
        table[place] = stub(kernel, storage, partial(table.__setitem__, place))
    label = ctypes.create_string_buffer(name.encode())
    text = ctypes.create_string_buffer(docstring(name, kernel).encode())
    KEPT.append((table, data, types, label, text))
    ufunc = interface(
        FROM_FUNCTIONS, ctypes.py_object, Address, Address, Address, *[ctypes.c_int] * 4, Address, Address, ctypes.c_int
    )(
        *(ctypes.addressof(array) for array in (table, data, types)),
        len(STORAGES),
        len(kernel.inputs),
        len(kernel.outputs),
        NO_IDENTITY,
        ctypes.addressof(label),
        ctypes.addressof(text),
        0,
    )
    ufunc.__module__ = "fastsig"  # where pickle finds it again
    ufunc.__qualname__ = name
    add_bfloat16(ufunc, kernel)
    made: np.ufunc = ufunc
    return made


def interface(index: int, *signature: Any) -> Callable[..., Any]:
    """A function of NumPy's table, by its index: the types of its result and of its arguments."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = Address, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(pointer(_multiarray_umath._UFUNC_API, None), ctypes.POINTER(Address))
    return ctypes.PYFUNCTYPE(*signature)(table[index])


def add_bfloat16(ufunc: Any, kernel: Kernel) -> None:
    """The loop for `ml_dtypes.bfloat16`, where that package is installed.

    Now, not when it is first asked for: by then NumPy has settled on another loop. For such types NumPy keeps a table of its
    own, which registering the same types again changes.
    """
    try:
        number = bfloat16().num
    except ImportError:
        return
    types = (ctypes.c_int * (len(kernel.inputs) + len(kernel.outputs)))(*[number] * (len(kernel.inputs) + len(kernel.outputs)))
    register = interface(REGISTER_LOOP, ctypes.c_int, ctypes.py_object, ctypes.c_int, Address, Address, Address)

    def install(address: int | None) -> None:
        if register(ufunc, number, address, ctypes.addressof(types), ctypes.addressof(parallel.WORDS)):
            raise RuntimeError(f"NumPy doesn't take a loop of {kernel.name} for bfloat16")

    install(stub(kernel, "bfloat16", install))


def bfloat16() -> np.dtype[Any]:
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def stub(kernel: Kernel, storage: str, install: Callable[[int], None]) -> int | None:
    """The address of a loop that has the real one put in its place at its first call."""
    real: list[int] = []

    def first_call(args: int, dims: int, steps: int, data: int) -> None:
        waiting = interrupts.Held()
        try:
            with interrupts.held(again=False) as waiting:
                with compiler.lock():
                    if not real:
                        parallel.connect()
                        address = compiler.inner_loop(kernel.name, storage).address()
                        install(address)
                        real.append(address)
                if not (waiting.interrupted and waiting.raises):
                    Loop(real[0])(args, dims, steps, data)
        except KeyboardInterrupt:  # there is no way to raise it here, so it comes again once this is over
            waiting.interrupted = True
        except BaseException:
            invalidate(kernel, storage, args, dims, steps)
            raise  # ctypes prints it and goes on
        finally:
            _last = waiting.after_return()

    callback = Loop(first_call)
    KEPT.append(callback)
    return ctypes.cast(callback, Address).value


def invalidate(kernel: Kernel, storage: str, args: int, dims: int, steps: int) -> None:
    """Answer NaN and raise NumPy's invalid-value warning, so that a loop that can't be had doesn't go unnoticed."""
    nan = np.array(np.nan, bfloat16() if storage == "bfloat16" else storage).tobytes()
    operands = len(kernel.inputs) + len(kernel.outputs)
    bases, strides = ((ctypes.c_ssize_t * operands).from_address(words) for words in (args, steps))
    for k in range(len(kernel.inputs), operands):
        for i in range(ctypes.c_ssize_t.from_address(dims).value):
            ctypes.memmove(bases[k] + i * strides[k], nan, len(nan))
    ctypes.CDLL(None if os.name == "posix" else "ucrtbase").feraiseexcept(FE_INVALID)


FE_INVALID = 1  # on x86 and Arm alike


# --- docstrings --------------------------------------------------------------------------------------------------------

PARAMETERS = {
    "x": "x : array_like\n    The logit.",
    "y": "y : array_like\n    The function's value, saved from the forward pass.",
    "p": "p : array_like\n    The probability.",
    "t": "t : array_like\n    The label, in [0, 1].",
    "g": 'g : array_like\n    The gradient with respect to the result ("upstream").',
}
RETURNS = {
    "y": "y : ndarray or scalar\n    The value.",
    "dy": "dy : ndarray or scalar\n    The derivative.",
    "x": "x : ndarray or scalar\n    The logit.",
    "dx": "dx : ndarray or scalar\n    The gradient with respect to the input.",
    "ddx": "ddx : ndarray or scalar\n    The second derivative with respect to the input.",
}
TEMPLATE = """{summary}

Parameters
----------
{parameters}
out : ndarray, None, or tuple of ndarray and None, optional
    Where the result goes; large calls are much faster with it, since fresh memory costs more than the mathematics.
where : array_like of bool, optional
    Only where it holds is the result computed; elsewhere `out` keeps what it had.
**kwargs
    `casting`, `order`, `dtype`, `subok`: as for every `numpy.ufunc`.

Returns
-------
{returns}

Raises
------
TypeError
    For complex, longdouble, string or object input, as NumPy's own functions do.

Notes
-----
{notes}Inputs broadcast against each other. Result dtypes follow NumPy's rules for the loops float16, float32 and float64:
for one input those of `numpy.exp` (bool and int8 give float16, int16 gives float32, wider integers give float64).
bfloat16 gives bfloat16, where ml_dtypes is installed.

The error is at most {bounds}.{absolute}
NaN gives NaN (of two, either); no input raises a floating-point warning. An element's result doesn't depend on the
array's length, strides or alignment, on the number of threads, or on `out` and `where`.

Examples
--------
{examples}
"""


def absolute_bound(output: str, it: Absolute) -> str:
    bounds = ", ".join(f"2**{math.log2(bound):.4g} in {dtype}" for dtype, bound in it.bound.items())
    times = f", times abs({it.times}) and the smallest subnormal" if it.times else ""
    return f"\nWhere ``{it.where}``, that of `{output}` is bounded absolutely instead, by\n{bounds}{times}."


def docstring(name: str, kernel: Kernel) -> str:
    """The numpydoc text of a public function: its kernel's, and what all of them share."""
    text = inspect.cleandoc(kernel.function.__doc__ or "")
    prose, _, examples = text.replace(f"fastsig.{kernel.name}(", f"fastsig.{name}(").partition("\n>>> ")
    summary, _, notes = prose.strip().partition("\n\n")
    if name != kernel.name:
        summary += f"\n\nAnother name of `{kernel.name}`."
    return TEMPLATE.format(
        summary=summary,
        parameters="\n".join(PARAMETERS[i] for i in kernel.inputs),
        returns="\n".join(RETURNS[o] for o in kernel.outputs),
        notes=f"{notes}\n\n" if notes else "",
        bounds=", ".join(f"{bound:g} ULP in {dtype}" for dtype, bound in kernel.ulp.items()),
        absolute="".join(absolute_bound(output, it) for output, it in kernel.absolute.items()),
        examples=f">>> import fastsig\n>>> {examples.strip()}",
    ).strip()
