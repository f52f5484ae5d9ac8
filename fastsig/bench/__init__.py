"""Speed: the registry of peers, and the runner behind `python -m fastsig bench`.

A case is a function, a dtype, a size, a number of threads and a variant; a peer is another way to compute the same. Every peer
gets the same arrays, with the results preallocated, and is checked before it is timed. The peers take turns, one timing each
per round, so that a disturbance of the machine meets all of them; what counts is the median of the rounds.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import os
import platform
import signal
import statistics
import sys
import threading
import time
import timeit
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import fastsig
from fastsig import console, parallel
from fastsig.kernels import KERNELS
from fastsig.testing import EXACT

Array = np.ndarray[Any, np.dtype[Any]]
Call = Callable[[], object]

FUNCTIONS = tuple(KERNELS)
BASE = tuple(name for name in FUNCTIONS if not any(name.startswith(f"{other}_") for other in FUNCTIONS))  # no form of another
FAMILY = tuple("bce_with_logits_value_and_grad" if name == "bce_with_logits" else name for name in BASE)  # what training calls
WIDE, HALF = ("float32", "float64"), ("float16", "bfloat16")
DTYPES = (*WIDE, *HALF)
EPS = {"float32": 2.0**-23, "float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}
LEAST = {"float32": 2.0**-126, "float64": 2.0**-1022, "float16": 2.0**-14, "bfloat16": 2.0**-126}  # normal numbers
VARIANTS = ("", "tail-heavy", "in place", "stride 2")
CACHED, MEBI = 65_536, 1 << 20
LARGEST = {"float32": 64 * MEBI, "float64": 32 * MEBI}
BLOCK = 1 << 18  # about the period of the input; a block and its reference stay in the cache while results are compared
SPARE = 3  # the most arrays besides its inputs and outputs that a peer keeps or makes: torch's cross-entropy
SINGLE = ("sigmoid", "softplus", "logit", "silu", "tanh")  # and what no peer needs one for


# --- the cases ---------------------------------------------------------------------------------------------------------


def storage(dtype: str) -> np.dtype[Any]:
    """NumPy's dtype of this name; bfloat16 is ml_dtypes'."""
    return np.dtype(import_module("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)


def unsupported(dtype: str) -> str:
    """Why there are no arrays of it, or nothing."""
    return "ml_dtypes is not installed" if dtype == "bfloat16" and not find_spec("ml_dtypes") else ""


@dataclass(frozen=True)
class Case:
    function: str
    dtype: str
    size: int
    threads: int
    variant: str = ""  # one of VARIANTS; "" is the ordinary one: real scores, contiguous, into another array

    @property
    def label(self) -> str:
        return ", ".join([f"{self.function} {self.dtype}", self.place])

    @property
    def place(self) -> str:
        """The label without what is computed."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return ", ".join(filter(None, [human_size(self.size), threads, self.variant]))

    @property
    def inputs(self) -> tuple[str, ...]:
        return KERNELS[self.function].inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        return KERNELS[self.function].outputs

    @property
    def memory(self) -> int:
        """The bytes its arrays take, and those that peers need besides."""
        own = len(self.inputs) + len(self.outputs) - (self.variant == "in place")
        arrays = own * (2 if self.variant == "stride 2" else 1) + (0 if self.function in SINGLE else SPARE)
        return arrays * self.size * storage(self.dtype).itemsize

    def traffic(self, peer: str) -> int:
        """The bytes that have to be read and written, each array once; a copy reads as many as it writes."""
        read, written = len(self.inputs), len(self.outputs)
        arrays = 2 * max(read, written) if peer == "copy" else read + written
        return arrays * self.size * storage(self.dtype).itemsize


@dataclass(frozen=True)
class Bar:
    """One ratio of the summary, and its limit: fastsig's time in `case` over the time of `peer` in `against`."""

    label: str
    case: Case
    peer: str
    against: Case
    target: float | None = None


def bars(threads: int) -> list[Bar]:
    """The ratios the package is judged by, `threads` being all of them."""
    single, double = (Case("sigmoid", dtype, CACHED, 1) for dtype in WIDE)
    large, large_double = (Case("sigmoid", dtype, LARGEST[dtype], threads) for dtype in WIDE)
    compared: list[tuple[Case, str, float | None]] = [
        (single, "torch", None),
        (double, "torch", None),
        (replace(large, size=MEBI), "torch", None),
        (replace(large, size=1), "scipy", None),
        (replace(large_double, size=1), "scipy", None),
        (large, "torch", None),
        (large_double, "torch", None),
        (large_double, "copy", None),
        (replace(large, function="sigmoid_value_and_grad"), "torch", None),
        (replace(single, function="log_sigmoid"), "torch", 0.4),
        (replace(single, function="softplus"), "torch", 0.4),
        (replace(single, function="silu"), "torch", 0.8),
        (replace(single, function="tanh"), "torch", 0.5),
        (replace(single, function="tanh"), "numpy", 1.35),
        (replace(single, function="bce_with_logits_value_and_grad"), "torch", 0.4),
    ]
    for function in FAMILY[1:]:
        case = replace(double, function=function)
        compared += [(case, name, 1.0) for name in ("scipy", "numpy", "torch") if takes_part(PEERS[name], case)]
    halves = [replace(single, function=f, dtype=d) for f in ("sigmoid", "softplus", "silu", "tanh") for d in HALF]
    compared += [(case, "torch", 1.0) for case in halves]
    compared += [(replace(large, function=function), "copy", 1.15) for function in FAMILY]
    rows = [Bar(f"{case.label} / {PEERS[peer].title}", case, peer, case, target) for case, peer, target in compared]
    for variant in ("in place", "tail-heavy", "stride 2"):
        for plain in (single, double):
            case = replace(plain, variant=variant)
            rows.append(Bar(f"{case.label} / ordinary", case, "fastsig", plain))
    return rows


def all_cases(threads: int) -> list[Case]:
    """Everything: what the bars need first, then the sigmoid at all sizes, its family at some, and the derived forms at one."""
    cases = [case for bar in bars(threads) for case in (bar.case, bar.against)]
    for dtype in WIDE:
        sizes = sorted({*(10**k for k in range(8)), CACHED, MEBI, LARGEST[dtype]})
        cases += [Case("sigmoid", dtype, size, threads) for size in sizes]
        cases += [Case(f, dtype, size, threads) for f in (*FAMILY[1:], *BASE[1:]) for size in (1, 1000, MEBI)]
        cases += [Case(f, dtype, CACHED, 1) for f in FUNCTIONS]
    return list(dict.fromkeys(cases))


def quick_cases(threads: int) -> list[Case]:
    """Those of the bars, and the sigmoid at a few sizes; past the caches the sigmoid alone, last, in case time runs out."""
    cases = [case for bar in bars(threads) for case in (bar.case, bar.against)]
    cases += [Case("sigmoid", "float32", size, threads) for size in (1, 1000, CACHED, MEBI)]
    cases = [case for case in cases if case.size <= MEBI or case.function.startswith("sigmoid")]
    return sorted(dict.fromkeys(cases), key=lambda case: case.size > MEBI)


def chosen_cases(args: argparse.Namespace, threads: int) -> list[Case]:
    """Those the arguments ask for. What is asked for by name has at least the ordinary size."""
    cases = quick_cases(threads) if args.quick else all_cases(threads)
    dtypes = WIDE if args.dtypes == DTYPES else args.dtypes
    if args.sizes:
        cases = [case for case in cases if case.size in args.sizes]
        cases += [Case(f, d, size, threads) for f in args.functions for d in dtypes for size in args.sizes]
    elif (args.functions, args.dtypes) != (FUNCTIONS, DTYPES):
        cases += [Case(f, d, CACHED, 1) for f in args.functions for d in dtypes]
    return [case for case in dict.fromkeys(cases) if case.function in args.functions and case.dtype in args.dtypes]


# --- the input ---------------------------------------------------------------------------------------------------------


@cache
def regression() -> tuple[Array, Array]:
    """Real logits and their labels: a logistic regression on the breast-cancer data that scikit-learn brings along."""
    try:
        from sklearn.datasets import load_breast_cancer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(f"the benchmark's input is made with scikit-learn ({error}): pip install 'fastsig[bench]'") from error
    features, target = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    return np.asarray(LogisticRegression().fit(features, target).decision_function(features)), np.asarray(target, float)


def period(name: str, function: str, dtype: str, tail_heavy: bool) -> Array:
    """One period of the input `name`. Tail-heavy: half of it, at random places, where the sigmoid is subnormal or vanishes."""
    x, t = (np.tile(column, BLOCK // len(column)) for column in regression())
    random = np.random.default_rng(0)
    if tail_heavy:
        tail = (-760.0, -700.0) if dtype == "float64" else (-110.0, -80.0)
        x = np.where(random.random(x.size) < 0.5, random.uniform(*tail, x.size), x)
    with np.errstate(under="ignore"):
        p = np.exp(-np.logaddexp(0, -x))
    values: dict[str, Array] = {
        "x": x,
        "g": random.standard_normal(x.size),
        "t": t,
        "y": np.tanh(x) if function.startswith("tanh") else p,
        "p": np.clip(p, LEAST[dtype], 1 - EPS[dtype] / 2),  # neither 0 nor 1
    }
    return values[name]


@lru_cache(maxsize=4)
def block(function: str, dtype: str, tail_heavy: bool) -> tuple[Array, ...]:
    """One period of every input of a function."""
    names = KERNELS[function].inputs
    return tuple(period(name, function, dtype, tail_heavy).astype(storage(dtype)) for name in names)


@dataclass(frozen=True)
class Arrays:
    """What every peer works on."""

    case: Case
    inputs: tuple[Array, ...]
    outs: tuple[Array, ...]
    spares: list[Array]

    def spare(self) -> Array:
        """An array for what lies between the input and the result; all peers share it, and who needs none has none made."""
        if not self.spares:
            self.spares.append(np.empty(self.case.size, storage(self.case.dtype)))
        return self.spares[0]


def make_arrays(case: Case) -> Arrays:
    step = 2 if case.variant == "stride 2" else 1

    def empty() -> Array:
        return np.empty(case.size * step, storage(case.dtype))[::step]

    inputs = tuple(empty() for _ in case.inputs)
    arrays = Arrays(case, inputs, inputs if case.variant == "in place" else tuple(empty() for _ in case.outputs), [])
    fill(arrays)
    return arrays


def fill(arrays: Arrays) -> None:
    case = arrays.case
    for array, source in zip(arrays.inputs, block(case.function, case.dtype, case.variant == "tail-heavy"), strict=True):
        for start in range(0, array.size, source.size):
            part = array[start : start + source.size]
            part[...] = source[: part.size]


# --- the check ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def reference(function: str, dtype: str, tail_heavy: bool) -> tuple[tuple[Array, Array], ...]:
    """The right results for one block, computed in float64, and how far each may be off.

    The tolerance asks whether a peer computes the function at all. Each loses digits somewhere: 1 - y where y is near 1, the
    lower tail where 1 is added to it, torch's softplus from 20 on, its cross-entropy where the label is right.
    """
    eps, relative = EPS[dtype], {"float32": 1e-5, "float64": 1e-9}.get(dtype, 8 * EPS[dtype])
    absolute = (8 if dtype in HALF else 16) * eps
    inputs = [array.astype(np.float64) for array in block(function, dtype, tail_heavy)]
    with np.errstate(all="ignore"):
        exact = [np.asarray(output(*inputs)) for output in EXACT[function]]
    type = np.float64 if dtype == "float64" else np.float32  # 7 times faster to compare
    return tuple((right.astype(type), (np.abs(right) * relative + absolute).astype(type)) for right in exact)


def check(case: Case, call: Call, arrays: Arrays) -> str:
    """Call it once, and say what is wrong with the results, or nothing."""
    for out in (*arrays.outs, *arrays.spares):
        out.fill(np.nan)  # not the results of the peer before
    if case.variant == "in place":
        fill(arrays)
    call()
    where = case.function, case.dtype, case.variant == "tail-heavy"
    inputs = block(*where)
    for out, (exact, tolerance) in zip(arrays.outs, reference(*where), strict=True):
        for start in range(0, out.size, exact.size):
            part = out[start : start + exact.size].astype(exact.dtype, copy=False)
            right = np.abs(part - exact[: part.size]) <= tolerance[: part.size]
            if not right.all():
                k = int(np.argmin(right))
                place = ", ".join(f"{name} = {float(array[k]):.9g}" for name, array in zip(case.inputs, inputs, strict=True))
                return f"wrong: {part[k]:.9g} instead of {exact[k]:.9g} at {place}"
    return ""


# --- the peers ---------------------------------------------------------------------------------------------------------


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of the block: in the middle of a compilation it gets lost, or brings LLVM down."""
    if threading.current_thread() is not threading.main_thread():  # it doesn't come here then
        yield
        return
    pending: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending:
        raise KeyboardInterrupt


def use_fastsig(function: str, arrays: Arrays) -> Call:
    ufunc = getattr(fastsig, function)
    with uninterrupted():
        ufunc(*(array[:1].copy() for array in arrays.inputs))  # compiled now, if it isn't yet
    return partial(ufunc, *arrays.inputs, out=arrays.outs if len(arrays.outs) > 1 else arrays.outs[0])


def use_copy(function: str, arrays: Arrays) -> Call:
    """As many copies as there are inputs or outputs, whichever are more; where they are fewer, one serves for several."""
    bits = f"u{arrays.inputs[0].itemsize}"  # bfloat16 isn't NumPy's own, and would be copied one by one
    inputs, outs = ([array.view(bits) for array in group] for group in (arrays.inputs, arrays.outs))
    pairs = [(outs[k % len(outs)], inputs[k % len(inputs)]) for k in range(max(len(inputs), len(outs)))]
    if len(pairs) == 1:
        return partial(np.copyto, *pairs[0])

    def call() -> None:
        for out, source in pairs:
            np.copyto(out, source)

    return call


def logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def logistic_and_slope(x: float) -> tuple[float, float]:
    s = logistic(x)
    return s, s * (1.0 - s)


def cross_entropy(x: float, t: float) -> float:
    return max(x, 0.0) - x * t + math.log1p(math.exp(-abs(x)))


MATH: dict[str, Callable[..., Any]] = {  # a function for one element
    "sigmoid": logistic,
    "sigmoid_grad": lambda x: logistic_and_slope(x)[1],
    "sigmoid_value_and_grad": logistic_and_slope,
    "log_sigmoid": lambda x: -math.log1p(math.exp(-x)),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "logit": lambda p: math.log(p / (1.0 - p)),
    "silu": lambda x: x * logistic(x),
    "tanh": math.tanh,
    "tanh_grad": lambda x: 1.0 - math.tanh(x) ** 2,
    "bce_with_logits": cross_entropy,
    "bce_with_logits_grad": lambda x, t: logistic(x) - t,
    "bce_with_logits_value_and_grad": lambda x, t: (cross_entropy(x, t), logistic(x) - t),
}


def use_math(function: str, arrays: Arrays) -> Call:
    inputs, outs, element = arrays.inputs, arrays.outs, MATH[function]

    def one() -> None:
        outs[0][:] = [*map(element, *(array.tolist() for array in inputs))]

    def several() -> None:
        results = zip(*map(element, *(array.tolist() for array in inputs)), strict=True)
        for out, result in zip(outs, results, strict=True):
            out[:] = result

    return one if len(outs) == 1 else several


# What users write with NumPy, each step into an array that is there: of the inputs, the outputs, and a spare array. A ufunc
# that is the whole function is called as it is.
Steps = Callable[..., object]


def take(steps: Steps, *arrays: Array) -> None:
    steps(*(arrays[:-1] if isinstance(steps, np.ufunc) else arrays))


def then(*parts: Steps) -> Steps:
    """Each of two outputs from the inputs by steps of its own."""

    def steps(*arrays: Array) -> None:
        *inputs, y, dy, s = arrays
        for part, out in zip(parts, (y, dy), strict=True):
            take(part, *inputs, out, s)

    return steps


def times_g(slope: Steps) -> Steps:
    """The vector-Jacobian product of a derivative."""

    def steps(x: Array, g: Array, dx: Array, s: Array) -> None:
        take(slope, x, dx, s)
        np.multiply(g, dx, out=dx)

    return steps


def numpy_sigmoid_derivative(y: Array, dy: Array, *_: Array) -> None:
    np.subtract(1, y, out=dy)
    np.multiply(dy, y, out=dy)


def from_sigmoid(sigmoid: Steps) -> dict[str, Steps]:
    """The functions that are made of the sigmoid, which `sigmoid(x, out)` computes, by the formulas of tutorials."""

    def sigmoid_grad(x: Array, dy: Array, s: Array) -> None:
        sigmoid(x, s)
        numpy_sigmoid_derivative(s, dy)

    def sigmoid_value_and_grad(x: Array, y: Array, dy: Array, s: Array) -> None:
        sigmoid(x, y)
        numpy_sigmoid_derivative(y, dy)

    def log_sigmoid_grad(x: Array, dy: Array, *_: Array) -> None:
        np.negative(x, out=dy)
        sigmoid(dy, dy)

    def silu(x: Array, y: Array, *_: Array) -> None:
        sigmoid(x, y)
        np.multiply(x, y, out=y)

    def silu_slope(x: Array, s: Array, dy: Array) -> None:  # s·(1 + x·(1 - s))
        np.subtract(1, s, out=dy)
        np.multiply(dy, x, out=dy)
        np.add(dy, 1, out=dy)
        np.multiply(dy, s, out=dy)

    def silu_grad(x: Array, dy: Array, s: Array) -> None:
        sigmoid(x, s)
        silu_slope(x, s, dy)

    def silu_value_and_grad(x: Array, y: Array, dy: Array, s: Array) -> None:
        sigmoid(x, s)
        np.multiply(x, s, out=y)
        silu_slope(x, s, dy)

    def bce_grad(x: Array, t: Array, dx: Array, *_: Array) -> None:
        sigmoid(x, dx)
        np.subtract(dx, t, out=dx)

    def bce_grad_and_hess(x: Array, t: Array, dx: Array, ddx: Array, *_: Array) -> None:
        sigmoid(x, dx)
        numpy_sigmoid_derivative(dx, ddx)
        np.subtract(dx, t, out=dx)

    return {
        "sigmoid": sigmoid,
        "sigmoid_grad": sigmoid_grad,
        "sigmoid_value_and_grad": sigmoid_value_and_grad,
        "sigmoid_vjp": times_g(sigmoid_grad),
        "log_sigmoid_grad": log_sigmoid_grad,
        "log_sigmoid_vjp": times_g(log_sigmoid_grad),
        "softplus_grad": sigmoid,
        "softplus_vjp": times_g(sigmoid),
        "silu": silu,
        "silu_grad": silu_grad,
        "silu_value_and_grad": silu_value_and_grad,
        "silu_vjp": times_g(silu_grad),
        "bce_with_logits_grad": bce_grad,
        "bce_with_logits_grad_and_hess": bce_grad_and_hess,
    }


def with_logarithms(steps: dict[str, Steps], softplus: Steps, log_sigmoid: Steps, bce: Steps) -> dict[str, Steps]:
    """Those, and what else the family has of an input x."""
    return {
        **steps,
        "log_sigmoid": log_sigmoid,
        "log_sigmoid_value_and_grad": then(log_sigmoid, steps["log_sigmoid_grad"]),
        "softplus": softplus,
        "softplus_value_and_grad": then(softplus, steps["sigmoid"]),
        "bce_with_logits": bce,
        "bce_with_logits_value_and_grad": then(bce, steps["bce_with_logits_grad"]),
    }


def numpy_sigmoid(x: Array, y: Array, *_: Array) -> None:
    np.negative(x, out=y)
    np.exp(y, out=y)
    np.add(y, 1, out=y)
    np.divide(1, y, out=y)


def numpy_softplus(x: Array, y: Array, *_: Array) -> None:
    np.logaddexp(0, x, out=y)


def numpy_log_sigmoid(x: Array, y: Array, *_: Array) -> None:
    np.negative(x, out=y)
    np.logaddexp(0, y, out=y)
    np.negative(y, out=y)


def numpy_bce(x: Array, t: Array, y: Array, s: Array) -> None:
    np.multiply(x, t, out=s)
    np.maximum(x, 0, out=y)
    np.subtract(y, s, out=y)
    np.abs(x, out=s)
    np.negative(s, out=s)
    np.exp(s, out=s)
    np.log1p(s, out=s)
    np.add(y, s, out=y)


def numpy_logit(p: Array, x: Array, *_: Array) -> None:
    np.subtract(1, p, out=x)
    np.divide(p, x, out=x)
    np.log(x, out=x)


def numpy_sigmoid_backward(g: Array, y: Array, dx: Array, *_: Array) -> None:
    numpy_sigmoid_derivative(y, dx)
    np.multiply(g, dx, out=dx)


def numpy_tanh_derivative(y: Array, dy: Array, *_: Array) -> None:
    np.multiply(y, y, out=dy)
    np.subtract(1, dy, out=dy)


def numpy_tanh_backward(g: Array, y: Array, dx: Array, *_: Array) -> None:
    numpy_tanh_derivative(y, dx)
    np.multiply(g, dx, out=dx)


def numpy_tanh_grad(x: Array, dy: Array, *_: Array) -> None:
    np.tanh(x, out=dy)
    numpy_tanh_derivative(dy, dy)


def numpy_tanh_value_and_grad(x: Array, y: Array, dy: Array, *_: Array) -> None:
    np.tanh(x, out=y)
    numpy_tanh_derivative(y, dy)


NUMPY: dict[str, Steps] = {
    **with_logarithms(from_sigmoid(numpy_sigmoid), numpy_softplus, numpy_log_sigmoid, numpy_bce),
    "sigmoid_derivative": numpy_sigmoid_derivative,
    "sigmoid_backward": numpy_sigmoid_backward,
    "logit": numpy_logit,
    "tanh": np.tanh,
    "tanh_grad": numpy_tanh_grad,
    "tanh_value_and_grad": numpy_tanh_value_and_grad,
    "tanh_vjp": times_g(numpy_tanh_grad),
    "tanh_derivative": numpy_tanh_derivative,
    "tanh_backward": numpy_tanh_backward,
}


def applied(steps: Steps, arrays: Arrays) -> Call:
    if isinstance(steps, np.ufunc):
        return partial(steps, *arrays.inputs, out=arrays.outs[0])
    spare = () if arrays.case.function in SINGLE else (arrays.spare(),)
    return partial(steps, *arrays.inputs, *arrays.outs, *spare)


def use_numpy(function: str, arrays: Arrays) -> Call:
    return applied(NUMPY[function], arrays)


SCIPY = tuple(f for f in FUNCTIONS if not f.startswith("tanh") and "y" not in KERNELS[f].inputs)  # the others are NumPy's


def use_scipy(function: str, arrays: Arrays) -> Call:
    from scipy import special

    def softplus(x: Array, y: Array, *_: Array) -> None:
        if hasattr(special, "softplus"):
            special.softplus(x, out=y)
            return
        np.negative(x, out=y)
        special.log_expit(y, out=y)
        np.negative(y, out=y)

    def bce(x: Array, t: Array, y: Array, s: Array) -> None:  # (1 - t)·x - log_expit(x)
        np.subtract(1, t, out=y)
        np.multiply(y, x, out=y)
        special.log_expit(x, out=s)
        np.subtract(y, s, out=y)

    steps = with_logarithms(from_sigmoid(special.expit), softplus, special.log_expit, bce)
    return applied({**steps, "logit": special.logit}[function], arrays)


LOGISTIC, OPPOSITE = "1 / (1 + exp(-x))", "1 / (1 + exp(x))"
SOFTPLUS, LOG_SIGMOID = "log1p(exp(x))", "-log1p(exp(-x))"
BCE = "where(x > 0, x, 0) - x * t + log1p(exp(-abs(x)))"
NUMEXPR = {  # passes, into the outputs by their names and into a spare array s
    "sigmoid": f"y = {LOGISTIC}",
    "sigmoid_grad": f"s = {LOGISTIC}; dy = s * (1 - s)",
    "sigmoid_value_and_grad": f"y = {LOGISTIC}; dy = y * (1 - y)",
    "sigmoid_vjp": f"s = {LOGISTIC}; dx = g * s * (1 - s)",
    "sigmoid_derivative": "dy = y * (1 - y)",
    "sigmoid_backward": "dx = g * y * (1 - y)",
    "log_sigmoid": f"y = {LOG_SIGMOID}",
    "log_sigmoid_grad": f"dy = {OPPOSITE}",
    "log_sigmoid_value_and_grad": f"y = {LOG_SIGMOID}; dy = {OPPOSITE}",
    "log_sigmoid_vjp": "dx = g / (1 + exp(x))",
    "softplus": f"y = {SOFTPLUS}",
    "softplus_grad": f"dy = {LOGISTIC}",
    "softplus_value_and_grad": f"y = {SOFTPLUS}; dy = {LOGISTIC}",
    "softplus_vjp": "dx = g / (1 + exp(-x))",
    "logit": "x = log(p / (1 - p))",
    "silu": "y = x / (1 + exp(-x))",
    "silu_grad": f"s = {LOGISTIC}; dy = s * (1 + x * (1 - s))",
    "silu_value_and_grad": f"s = {LOGISTIC}; y = x * s; dy = s * (1 + x * (1 - s))",
    "silu_vjp": f"s = {LOGISTIC}; dx = g * s * (1 + x * (1 - s))",
    "tanh": "y = tanh(x)",
    "tanh_grad": "s = tanh(x); dy = 1 - s * s",
    "tanh_value_and_grad": "y = tanh(x); dy = 1 - y * y",
    "tanh_vjp": "s = tanh(x); dx = g * (1 - s * s)",
    "tanh_derivative": "dy = 1 - y * y",
    "tanh_backward": "dx = g * (1 - y * y)",
    "bce_with_logits": f"y = {BCE}",
    "bce_with_logits_grad": f"dx = {LOGISTIC} - t",
    "bce_with_logits_value_and_grad": f"y = {BCE}; dx = {LOGISTIC} - t",
    "bce_with_logits_grad_and_hess": f"s = {LOGISTIC}; dx = s - t; ddx = s * (1 - s)",
}


def use_numexpr(function: str, arrays: Arrays) -> Call:
    from numexpr import evaluate

    passes = [text.strip().split(" = ", 1) for text in NUMEXPR[function].split(";")]
    names = dict(zip((*arrays.case.inputs, *arrays.case.outputs), (*arrays.inputs, *arrays.outs), strict=True))
    if any(target == "s" for target, _ in passes):
        names["s"] = arrays.spare()
    calls = [partial(evaluate, expression, names, out=names[target]) for target, expression in passes]

    def call() -> None:
        for each in calls:
            each()

    return calls[0] if len(calls) == 1 else call


def tensor(array: Array) -> Any:
    """torch's view of it; bfloat16, which torch.from_numpy doesn't know, by way of its bits."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def use_torch(function: str, arrays: Arrays) -> Call:
    """The operations that torch's autograd calls forward and backward, without the graph."""
    import torch

    aten, sigmoid = torch.ops.aten, torch.sigmoid
    sigmoid_back, tanh_back = aten.sigmoid_backward.grad_input, aten.tanh_backward.grad_input
    silu_back, softplus_back = aten.silu_backward.grad_input, partial(aten.softplus_backward.grad_input, beta=1, threshold=20)
    softplus = partial(aten.softplus.out, beta=1, threshold=20)  # torch's defaults: from 20 on it takes x for the result
    log_sigmoid, log_sigmoid_back = aten.log_sigmoid_forward.output, aten.log_sigmoid_backward.grad_input
    bce = partial(aten.binary_cross_entropy_with_logits.out, reduction=0)  # none
    inputs, outs = [*map(tensor, arrays.inputs)], [*map(tensor, arrays.outs)]
    spare = [] if function in SINGLE else [tensor(arrays.spare())]
    ones = torch.ones_like(inputs[0]) if function in ONES else None
    steps: dict[str, Steps] = {
        "sigmoid": lambda x, y: sigmoid(x, out=y),
        "sigmoid_grad": lambda x, dy, s: (sigmoid(x, out=s), sigmoid_back(ones, s, grad_input=dy)),
        "sigmoid_value_and_grad": lambda x, y, dy, s: (sigmoid(x, out=y), sigmoid_back(ones, y, grad_input=dy)),
        "sigmoid_vjp": lambda x, g, dx, s: (sigmoid(x, out=s), sigmoid_back(g, s, grad_input=dx)),
        "sigmoid_derivative": lambda y, dy, s: sigmoid_back(ones, y, grad_input=dy),
        "sigmoid_backward": lambda g, y, dx, s: sigmoid_back(g, y, grad_input=dx),
        "log_sigmoid": lambda x, y, s: log_sigmoid(x, output=y, buffer=s),
        "log_sigmoid_grad": lambda x, dy, s: (torch.neg(x, out=dy), sigmoid(dy, out=dy)),
        "log_sigmoid_value_and_grad": lambda x, y, dy, s: (
            log_sigmoid(x, output=y, buffer=s),
            log_sigmoid_back(ones, x, s, grad_input=dy),
        ),
        "log_sigmoid_vjp": lambda x, g, dx, s: (
            log_sigmoid(x, output=dx, buffer=s),
            log_sigmoid_back(g, x, s, grad_input=dx),
        ),
        "softplus": lambda x, y: softplus(x, out=y),
        "softplus_grad": lambda x, dy, s: sigmoid(x, out=dy),
        "softplus_value_and_grad": lambda x, y, dy, s: (softplus(x, out=y), sigmoid(x, out=dy)),
        "softplus_vjp": lambda x, g, dx, s: softplus_back(g, x, grad_input=dx),
        "logit": lambda p, x: torch.logit(p, out=x),
        "silu": lambda x, y: aten.silu.out(x, out=y),
        "silu_grad": lambda x, dy, s: silu_back(ones, x, grad_input=dy),
        "silu_value_and_grad": lambda x, y, dy, s: (aten.silu.out(x, out=y), silu_back(ones, x, grad_input=dy)),
        "silu_vjp": lambda x, g, dx, s: silu_back(g, x, grad_input=dx),
        "tanh": lambda x, y: torch.tanh(x, out=y),
        "tanh_grad": lambda x, dy, s: (torch.tanh(x, out=s), tanh_back(ones, s, grad_input=dy)),
        "tanh_value_and_grad": lambda x, y, dy, s: (torch.tanh(x, out=y), tanh_back(ones, y, grad_input=dy)),
        "tanh_vjp": lambda x, g, dx, s: (torch.tanh(x, out=s), tanh_back(g, s, grad_input=dx)),
        "tanh_derivative": lambda y, dy, s: tanh_back(ones, y, grad_input=dy),
        "tanh_backward": lambda g, y, dx, s: tanh_back(g, y, grad_input=dx),
        "bce_with_logits": lambda x, t, y, s: bce(x, t, out=y),
        "bce_with_logits_grad": lambda x, t, dx, s: (sigmoid(x, out=dx), torch.sub(dx, t, out=dx)),
        "bce_with_logits_value_and_grad": lambda x, t, y, dx, s: (
            bce(x, t, out=y),
            sigmoid(x, out=dx),
            torch.sub(dx, t, out=dx),
        ),
        "bce_with_logits_grad_and_hess": lambda x, t, dx, ddx, s: (
            sigmoid(x, out=s),
            torch.sub(s, t, out=dx),
            sigmoid_back(ones, s, grad_input=ddx),
        ),
    }
    return partial(steps[function], *inputs, *outs, *spare)


ONES = tuple(f for f in FUNCTIONS if f.endswith(("_grad", "_derivative", "_hess")) and f != "bce_with_logits_grad")


@contextmanager
def numexpr_threads(n: int) -> Iterator[None]:
    import numexpr

    before = numexpr.set_num_threads(min(n, numexpr.MAX_THREADS))
    try:
        yield
    finally:
        numexpr.set_num_threads(before)


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Peer:
    """One way to compute the functions: `prepare` gives a call without arguments, its set-up done."""

    name: str
    title: str
    prepare: Callable[[str, Arrays], Call]
    package: str = "numpy"  # what it needs
    threads: Callable[[int], AbstractContextManager[None]] | None = None
    largest: int | None = None
    functions: tuple[str, ...] = FUNCTIONS  # what it has a counterpart of
    dtypes: tuple[str, ...] = WIDE


ALL_PEERS = (
    Peer("fastsig", "fastsig", use_fastsig, threads=fastsig.num_threads, dtypes=DTYPES),
    Peer("copy", "copy", use_copy, dtypes=DTYPES),
    Peer("math", "math", use_math, largest=100_000, functions=tuple(MATH)),
    Peer("numpy", "NumPy", use_numpy, functions=tuple(NUMPY), dtypes=(*WIDE, "float16")),
    Peer("scipy", "SciPy", use_scipy, "scipy", functions=SCIPY),
    Peer("numexpr", "numexpr", use_numexpr, "numexpr", numexpr_threads, functions=tuple(NUMEXPR)),
    Peer("torch", "torch", use_torch, "torch", torch_threads, dtypes=DTYPES),
)
PEERS = {peer.name: peer for peer in ALL_PEERS}
ALWAYS = ("fastsig", "copy")


def unavailable(peer: Peer) -> str:
    """Why a peer can't take part, or nothing. It is imported here: torch before fastsig looks for an OpenMP runtime."""
    try:
        import_module(peer.package)
    except ModuleNotFoundError as error:
        return "not installed" if error.name == peer.package else f"not usable: {error}"
    except Exception as error:  # a broken installation raises anything
        return f"not usable: {type(error).__name__}: {error}"
    return ""


# --- measuring ---------------------------------------------------------------------------------------------------------

TIMING = 1e-3  # seconds: a shorter timing is repeated until it takes as long


@dataclass(frozen=True)
class Plan:
    least: int  # rounds
    most: int
    seconds: float  # for one case, once it has had the least number of rounds
    limit: float  # seconds after which no further case is begun


QUICK = Plan(3, 11, 0.2, 18)
FULL = Plan(5, 51, 2, 540)


@dataclass(frozen=True)
class Row:
    """What one peer took in one case: the median of the rounds, and their median absolute deviation from it."""

    case: Case
    peer: str
    seconds: float | None
    spread: float | None
    rounds: int
    repeats: int
    bytes: int
    error: str = ""

    @property
    def ns(self) -> float | None:
        return None if self.seconds is None else self.seconds / self.case.size * 1e9

    @property
    def rate(self) -> float | None:
        """GB/s, every array counted once."""
        return None if self.seconds is None else self.bytes / self.seconds / 1e9


def calibrate(timer: timeit.Timer) -> int:
    """How many calls make one timing."""
    repeats = 1
    while (taken := timer.timeit(repeats)) < TIMING:
        repeats = max(2 * repeats, math.ceil(repeats * min(10.0, TIMING / taken)))
    return repeats


def prepare(case: Case, peers: Iterable[Peer], arrays: Arrays) -> tuple[dict[str, tuple[timeit.Timer, int]], dict[str, str]]:
    """The timers of the peers, compiled, warm and checked, each with its number of repeats; and what went wrong."""
    timers, errors = {}, {}
    for peer in peers:
        try:
            call = peer.prepare(case.function, arrays)
            error = "" if peer.name == "copy" else check(case, call, arrays)  # a copy isn't the function
            if not error:
                timer = timeit.Timer(call)
                timers[peer.name] = timer, calibrate(timer)
        except Exception as failure:  # whatever a peer raises is its own row's business
            error = f"{type(failure).__name__}: {failure}"
        if error:
            errors[peer.name] = error
    return timers, errors


def takes_part(peer: Peer, case: Case) -> bool:
    if peer.name == "copy" and case.variant == "in place":  # onto itself: nothing to do
        return False
    known = case.function in peer.functions and case.dtype in peer.dtypes
    return known and (peer.largest is None or case.size <= peer.largest)


def measure(case: Case, peers: Sequence[Peer], plan: Plan, keep: Callable[[Row], None]) -> None:
    """Time every peer in one case; what is measured when it is interrupted is kept as well.

    In place, the sigmoid is applied to its own results over and over: numbers between 0.5 and 0.74, nobody's slow case.
    """
    arrays = make_arrays(case)
    peers = [peer for peer in peers if takes_part(peer, case)]
    with ExitStack() as stack:
        stack.enter_context(np.errstate(all="ignore"))
        for peer in peers:
            if peer.threads:
                stack.enter_context(peer.threads(case.threads))
        timers, errors = prepare(case, peers, arrays)
        samples: dict[str, list[float]] = {name: [] for name in timers}
        try:
            turns(timers, samples, plan)
        finally:
            for name, taken in samples.items():
                if taken:
                    middle = statistics.median(taken)
                    spread = statistics.median(abs(t - middle) for t in taken)
                    keep(Row(case, name, middle, spread, len(taken), timers[name][1], case.traffic(name)))
            for name, error in errors.items():
                keep(Row(case, name, None, None, 0, 0, case.traffic(name), error))


def turns(timers: Mapping[str, tuple[timeit.Timer, int]], samples: dict[str, list[float]], plan: Plan) -> None:
    """The rounds; each begins with another peer, so that none always follows the same one."""
    begin, order = time.perf_counter(), list(timers)
    for done in range(plan.most):
        if done >= plan.least and time.perf_counter() - begin > plan.seconds:
            break
        for name in order:
            timer, repeats = timers[name]
            samples[name].append(timer.timeit(repeats) / repeats)
        order = order[1:] + order[:1]


def measure_all(cases: Sequence[Case], peers: Sequence[Peer], plan: Plan, results: dict[str, Any]) -> None:
    """Fill `results`, case by case."""
    begin = time.perf_counter()

    def keep(row: Row) -> None:
        results["rows"].append(asdict(row))

    with console.progress("Measuring", len(cases)) as advance:
        for case in cases:
            advance(0, case.label)
            free = free_memory()
            if why := unsupported(case.dtype):
                results["skipped"].append(f"{case.label}: {why}")
            elif time.perf_counter() - begin > plan.limit:
                results["skipped"].append(f"{case.label}: no time left, {plan.limit:g} s are over")
            elif free is not None and case.memory > free:
                needed, there = (f"{size / MEBI:,.0f} MiB" for size in (case.memory, free))
                results["skipped"].append(f"{case.label}: needs {needed} of memory, {there} are free")
            else:
                try:
                    measure(case, peers, plan, keep)
                except MemoryError as error:
                    results["skipped"].append(f"{case.label}: not enough memory: {error}")
            advance(1, case.label)


# --- the machine -------------------------------------------------------------------------------------------------------


def free_memory() -> int | None:
    """The bytes this process may still take, where Linux says so; a tenth is left alone."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    try:  # in a container
        limit, used = (Path("/sys/fs/cgroup", name).read_text() for name in ("memory.max", "memory.current"))
        free = min(free, int(limit) - int(used))
    except (OSError, ValueError):  # none, or no limit
        pass
    return free * 9 // 10


def processors() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine(threads: int) -> dict[str, Any]:
    versions = {"fastsig": fastsig.__version__}
    for package in ("numpy", "numba", "llvmlite", "scipy", "numexpr", "torch", "ml_dtypes", "scikit-learn"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    found = parallel.runtime()
    return {
        "cpu": cpu(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "threads": threads,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "openmp": "/".join(Path(found[0]).parts[-3:]) if found else None,  # whose it is, not where it is installed
    }


# --- reporting ---------------------------------------------------------------------------------------------------------

LEGEND = "Ratios are fastsig's time over the peer's; ! marks a loss."


def load(results: Mapping[str, Any]) -> dict[tuple[Case, str], Row]:
    """The rows, by case and peer."""
    rows = [Row(**{**row, "case": Case(**row["case"])}) for row in results["rows"]]
    return {(row.case, row.peer): row for row in rows}


def ratio(rows: Mapping[tuple[Case, str], Row], case: Case, peer: str, against: Case | None = None) -> float | None:
    """fastsig's time over the peer's."""
    own, other = rows.get((case, "fastsig")), rows.get((against or case, peer))
    if own is None or other is None or own.seconds is None or other.seconds is None:
        return None
    return own.seconds / other.seconds


def is_loss(value: float | None) -> bool:
    return value is not None and round(value, 2) > 1


def human_size(n: int) -> str:
    return f"{n // MEBI} Mi" if n % MEBI == 0 else f"{n:,}"


def human_time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if 0.01 <= value < 100 else f"{value:.3g}"


def ratio_cell(rows: Mapping[tuple[Case, str], Row], case: Case, peer: str) -> str:
    row, value = rows.get((case, peer)), ratio(rows, case, peer)
    if row is not None and row.error:
        return "failed"
    return number(value) + (" !" if peer not in ALWAYS and is_loss(value) else "")


def report_row(rows: Mapping[tuple[Case, str], Row], case: Case, others: Sequence[str]) -> list[str]:
    own, copy = rows.get((case, "fastsig")), rows.get((case, "copy"))
    if own is None or own.seconds is None or own.spread is None:
        cells = ["failed" if own else "–", *"––––"]
    else:
        cells = [human_time(own.seconds), f"{own.spread / own.seconds:.0%}", number(own.ns), number(own.rate)]
        cells.append(number(copy.rate if copy else None))
    return [f"{case.dtype}, {case.place}", *cells, *(ratio_cell(rows, case, name) for name in ("copy", *others))]


def bar_row(bar: Bar, value: float) -> list[str]:
    missed = bar.target is not None and round(value, 2) > bar.target
    return [bar.label, number(bar.target), number(value) + (" !" if missed else "")]


def losses(rows: Mapping[tuple[Case, str], Row]) -> dict[tuple[Case, str], float]:
    """Every comparison in which fastsig is slower, and how much."""
    found = ((key, ratio(rows, *key)) for key in rows if key[1] not in ALWAYS)
    return {key: value for key, value in found if value is not None and is_loss(value)}


def in_words(slower: Mapping[tuple[Case, str], float]) -> list[str]:
    """Losses, one line for each place."""
    found: dict[str, list[str]] = {}
    for case in in_order(case for case, _ in slower):
        peers = (f"{PEERS[name].title} {number(slower[case, name])}" for name in PEERS if (case, name) in slower)
        found.setdefault(case.place, []).append(f"{case.function} {case.dtype} ({', '.join(peers)})")
    return [f"size {place}: {', '.join(those)}" for place, those in found.items()]


def in_order(cases: Iterable[Case]) -> list[Case]:
    def key(case: Case) -> tuple[int, int, int, int, int]:
        where = FUNCTIONS.index(case.function), DTYPES.index(case.dtype), VARIANTS.index(case.variant)
        return *where, case.size, case.threads

    return sorted(dict.fromkeys(cases), key=key)


def report(results: Mapping[str, Any]) -> None:
    """Print everything that was measured, and what wasn't and why."""
    rows = load(results)
    others = [name for name, why in results["peers"].items() if not why and name not in ALWAYS]
    columns = ["", "fastsig", "±", "ns/element", "GB/s", "copy GB/s", "/ copy", *(f"/ {PEERS[name].title}" for name in others)]
    ordered = in_order(case for case, _ in rows)
    for function in dict.fromkeys(case.function for case in ordered):
        shown = [report_row(rows, case, others) for case in ordered if case.function == function]
        console.table(function, columns, shown)
    judged = ((bar, ratio(rows, bar.case, bar.peer, bar.against)) for bar in bars(results["machine"]["threads"]))
    console.table("bars", ["fastsig / other", "bar", "measured"], [bar_row(bar, value) for bar, value in judged if value])
    slower = losses(rows)
    compared = sum(ratio(rows, *key) is not None for key in rows if key[1] not in ALWAYS)
    print(f"\n{LEGEND} fastsig is slower in {len(slower)} of {compared} comparisons.")
    for line in (*in_words(slower), *problems(results)):
        print(f"  {line}")
    print(f"\n{described(results)}")


def problems(results: Mapping[str, Any]) -> list[str]:
    """What isn't measured, and why."""
    missing = [f"{PEERS[name].title}: {why}" for name, why in results["peers"].items() if why]
    failed = [f"{row.case.label}: {PEERS[row.peer].title}: {row.error}" for row in load(results).values() if row.error]
    return missing + failed + [f"skipped: {line}" for line in results["skipped"]]


def described(results: Mapping[str, Any]) -> str:
    """The machine, in a sentence."""
    it = results["machine"]
    versions = ", ".join(map(" ".join, it["versions"].items()))
    threads = f"{it['threads']} thread{'s' if it['threads'] > 1 else ''} (OpenMP: {it['openmp'] or 'none'})"
    load = "" if it["load"] is None else f", load average {it['load']:.2f} at the start"
    return f"{it['cpu']}, {threads}{load}, {it['system']}, Python {it['python']}, {versions}."


# --- README ------------------------------------------------------------------------------------------------------------

HEADLINES = (1, 1000, *LARGEST.values())


def markdown(results: Mapping[str, Any]) -> str:
    """The block for README: the sigmoid, its family in the cache, and past it, a table each; the other losses in words."""
    rows = load(results)
    cases = in_order(case for case, _ in rows)
    alone = [case for case in cases if case.size == CACHED and case.threads == 1]
    sigmoid = [case for case in cases if case.function == "sigmoid" and case.dtype in WIDE]
    headlines = [case for case in sigmoid if case in alone or (case.size in HEADLINES and not case.variant)]
    family = [case for case in alone if not case.variant and case not in headlines]
    large = [case for case in cases if case.size == LARGEST.get(case.dtype) and not case.variant and case not in headlines]
    lines = [
        described(results),
        "",
        "fastsig's time per element, its traffic, and its time over that of each peer in the same run: below 1 it is faster,"
        " **bold** it is slower, – means that there is no such thing. Results are preallocated and all have the same number of"
        " threads; `copy` is `numpy.copyto` of as many arrays as go in or come out, whichever are more.",
    ]
    for title, shown in (
        ("The sigmoid:", [(f"{case.dtype}, {case.place}", case) for case in headlines]),
        (f"Its family, at {CACHED:,} elements, 1 thread:", [(f"`{case.function}` {case.dtype}", case) for case in family]),
        ("Past the caches:", [(f"`{case.function}` {case.dtype}, {case.place}", case) for case in large]),
    ):
        if shown:
            lines += ["", title, "", *markdown_table(results, rows, shown)]
    if limited := arithmetic(rows, large):
        lines += ["", f"More than 1.15 of the copy, beside what the arithmetic alone takes: {'; '.join(limited)}."]
    told = {*headlines, *family, *large}
    untold = {key: value for key, value in losses(rows).items() if key[0] not in told or key[1] == "math"}
    if untold:
        lines += ["", f"Slower elsewhere, too: {'; '.join(in_words(untold))}."]
    notes = problems(results)
    if notes:
        lines += ["", f"Not measured: {'; '.join(notes)}."]
    return "\n".join(lines)


def arithmetic(rows: Mapping[tuple[Case, str], Row], large: Iterable[Case]) -> list[str]:
    """For what takes more than 1.15 of a copy past the caches: its time there and, shared among the threads, in the cache."""
    told = []
    for case in large:
        own, inside = rows.get((case, "fastsig")), rows.get((replace(case, size=CACHED, threads=1), "fastsig"))
        over = ratio(rows, case, "copy")
        if own and inside and own.ns and inside.ns and over and over > 1.15:
            told.append(
                f"`{case.function}` {case.dtype} {number(own.ns)} ns for {number(inside.ns / case.threads)} in the cache"
            )
    return told


def markdown_table(
    results: Mapping[str, Any], rows: Mapping[tuple[Case, str], Row], shown: Iterable[tuple[str, Case]]
) -> list[str]:
    """A row for each case, under its name."""
    others = [*(name for name in results["peers"] if name not in (*ALWAYS, "math")), "copy"]  # math's losses are told in words
    titles = ["", "ns/element", "GB/s", *(PEERS[name].title for name in others)]
    lines = [f"| {' | '.join(titles)} |", f"|---{'|--:' * (len(titles) - 1)}|"]
    for title, case in shown:
        own = rows.get((case, "fastsig"))
        cells = [number(own.ns if own else None), number(own.rate if own else None)]
        for name in others:
            cell = ratio_cell(rows, case, name)
            cells.append(f"**{cell[:-2]}**" if cell.endswith(" !") else cell)
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


# --- the command -------------------------------------------------------------------------------------------------------


def one_of(valid: Sequence[str], what: str) -> Callable[[str], tuple[str, ...]]:
    """An argument's type: some of these names, with a word of help for a misspelt one."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(","))
        for name in names:
            if name not in valid:
                near = difflib.get_close_matches(name, valid, cutoff=0.4)
                meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(valid)}"
                raise argparse.ArgumentTypeError(f"unknown {what} {name!r}: {meant}")
        return names

    return parse


def positive(text: str) -> int:
    digits = text.strip()
    try:
        n = int(digits.removesuffix("Mi")) * (MEBI if digits.endswith("Mi") else 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number: {text!r} (such as 65536 or 64Mi)") from None
    if n < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1: {text!r}")
    return n


def threads(text: str) -> int:
    n = positive(text)
    if n > parallel.MOST:
        raise argparse.ArgumentTypeError(f"must be at most {parallel.MOST}: {text!r}")
    return n


def positives(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything `run` reads."""
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer cases and rounds: half a minute instead of minutes")
    for option, valid in (("function", FUNCTIONS), ("dtype", DTYPES), ("peer", tuple(PEERS))):
        add(f"--{option}s", type=one_of(valid, option), default=valid, metavar="NAMES", help=f"of {','.join(valid)}")
    add("--sizes", type=positives, metavar="NUMBERS", help="of elements, such as 1000,65536,64Mi")
    add("--threads", type=threads, metavar="N", help="for all peers alike (default: one per processor)")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured to this file")


def run(args: argparse.Namespace) -> int:
    """Measure, report, and give the exit code: 1 if fastsig itself failed, 2 if it can't begin, 130 if it was interrupted."""
    try:
        return start(args)
    except KeyboardInterrupt:
        print("interrupted before the first measurement", file=sys.stderr)
        return 130


def start(args: argparse.Namespace) -> int:
    try:
        regression()
        if args.json:
            args.json.open("a").close()  # while there is nothing to lose; the results of an earlier run stay until then
    except ImportError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"can't write the results: {error}", file=sys.stderr)
        return 2
    wanted = [peer for peer in ALL_PEERS if peer.name in (*ALWAYS, *args.peers)]
    missing = {peer.name: unavailable(peer) for peer in wanted}
    threads = args.threads or processors()
    results = {"machine": machine(threads), "quick": args.quick, "peers": missing, "rows": [], "skipped": []}
    peers = [peer for peer in wanted if not missing[peer.name]]
    try:
        results["interrupted"] = False
        measure_all(chosen_cases(args, threads), peers, QUICK if args.quick else FULL, results)
    except KeyboardInterrupt:
        results["interrupted"] = True
    return finish(results, args.json)


def finish(results: dict[str, Any], path: Path | None) -> int:
    """Write and report what there is."""
    if path:
        try:
            path.write_text(json.dumps(results, indent=1) + "\n")
        except OSError as error:
            print(f"can't write the results: {error}", file=sys.stderr)
            return 1
    report(results)
    if results["interrupted"]:
        print("Interrupted: this is what was measured until then.", file=sys.stderr)
        return 130
    return 1 if any(row["peer"] == "fastsig" and row["error"] for row in results["rows"]) else 0
