"""What is measured: a function of a dtype at a size, on so many threads, in a layout, on some data; and what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

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
CONTIGUOUS, NEW, IN_PLACE, STRIDED = LAYOUTS = ("contiguous", "new output", "in place", "strided")
SCORES, NORMAL, TAILS = DATA = ("scores", "normal", "tail-heavy")
CACHED, MEBI = 65_536, 1 << 20
BLOCK = 1 << 18  # about the period of the input; a block and its reference stay in the cache while results are compared
PAGE, HUGE = 4096, 2 << 20  # bytes
SPARE = 3  # the most arrays besides its inputs and outputs that a peer keeps or makes: torch's cross-entropy
SINGLE = ("sigmoid", "softplus", "logit", "silu", "tanh")  # and what no peer needs one for
RUNAWAY = ("silu", "logit")  # applied to their own results over and over, they end among the subnormals or outside their domain


def storage(dtype: str) -> np.dtype[Any]:
    """NumPy's dtype of this name; bfloat16 is ml_dtypes'."""
    return np.dtype(import_module("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)


def unsupported(dtype: str) -> str:
    """Why there are no arrays of it, or nothing."""
    return "ml_dtypes is not installed" if dtype == "bfloat16" and not find_spec("ml_dtypes") else ""


def human_size(n: int) -> str:
    return f"{n // MEBI} Mi" if n % MEBI == 0 else f"{n:,}"


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    `layout` is one of LAYOUTS: contiguous arrays, results into other such arrays that are there; the same with results in new
    arrays each time; results over the first input; every second element of an array. `data` is one of DATA: the scores of a
    real logistic regression; normal deviates; half of the elements where the sigmoid is subnormal or vanishes.
    """

    function: str
    dtype: str
    size: int
    threads: int
    layout: str = CONTIGUOUS
    data: str = SCORES

    @property
    def label(self) -> str:
        return f"{self.function} {self.dtype}, {self.place}"

    @property
    def place(self) -> str:
        """The label without what is computed."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        unusual = (name for name in (self.layout, self.data) if name not in (CONTIGUOUS, SCORES))
        return ", ".join([human_size(self.size), threads, *unusual])

    @property
    def ordinary(self) -> bool:
        return (self.layout, self.data) == (CONTIGUOUS, SCORES)

    @property
    def inputs(self) -> tuple[str, ...]:
        return KERNELS[self.function].inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        return KERNELS[self.function].outputs

    @property
    def impossible(self) -> str:
        """Why there is no such case, or nothing."""
        if self.layout != IN_PLACE:
            return ""
        if len(self.inputs) + len(self.outputs) > 2:
            return "in place is measured for one input and one output"
        return "in place, it runs away from its ordinary arguments" if self.function in RUNAWAY else ""

    @property
    def memory(self) -> int:
        """The bytes its arrays take, and those that peers need besides."""
        own = len(self.inputs) + len(self.outputs) - (self.layout == IN_PLACE)
        arrays = own * (2 if self.layout == STRIDED else 1) + (0 if self.function in SINGLE else SPARE)
        if self.layout == NEW:
            arrays += len(self.outputs) + 1  # those of a call, before those of the last one are given up; a temporary
        return arrays * self.size * storage(self.dtype).itemsize

    def traffic(self, copied: bool = False) -> int:
        """The bytes that have to be read and written, each array once; a copy reads as many as it writes."""
        read, written = len(self.inputs), len(self.outputs)
        arrays = 2 * max(read, written) if copied else read + written
        return arrays * self.size * storage(self.dtype).itemsize


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


def period(name: str, function: str, dtype: str, data: str) -> Array:
    """One period of the input `name`."""
    x, t = (np.tile(column, BLOCK // len(column)) for column in regression())
    random = np.random.default_rng(0)
    if data == NORMAL:
        x = random.standard_normal(x.size)
    elif data == TAILS:
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
def block(function: str, dtype: str, data: str = SCORES) -> tuple[Array, ...]:
    """One period of every input of a function."""
    return tuple(period(name, function, dtype, data).astype(storage(dtype)) for name in KERNELS[function].inputs)


@dataclass(frozen=True)
class Arrays:
    """What every peer works on."""

    case: Case
    inputs: tuple[Array, ...]
    outs: tuple[Array, ...]
    between: tuple[Array, ...]  # none, where no peer needs one

    @property
    def new(self) -> bool:
        """Whether a call is to make new arrays for its results."""
        return self.case.layout == NEW

    @property
    def empty(self) -> Callable[[], Array]:
        """What makes a new array, for calls that are timed: its arguments are ready."""
        return partial(np.empty, self.case.size, storage(self.case.dtype))

    def spare(self) -> Array:
        """An array for what lies between the input and the result, the same for all peers."""
        return self.between[0]

    def fill(self) -> None:
        """Give the inputs their values."""
        for array, source in zip(self.inputs, block(self.case.function, self.case.dtype, self.case.data), strict=True):
            for start in range(0, array.size, source.size):
                part = array[start : start + source.size]
                part[...] = source[: part.size]


def make_arrays(case: Case) -> Arrays:
    """The arrays, the inputs filled; each begins a page of one block, so that they lie alike in every run.

    NumPy asks for huge pages from 4 MiB on, so that the block is no smaller: what a small array's pages share in the caches
    would otherwise be another thing each time.
    """
    step, kind = 2 if case.layout == STRIDED else 1, storage(case.dtype)
    length = case.size * step * kind.itemsize
    apart = -(-length // PAGE) * PAGE
    outputs = 0 if case.layout in (NEW, IN_PLACE) else len(case.outputs)
    between = 0 if case.function in SINGLE else 1
    count = len(case.inputs) + outputs + between
    space = np.empty(max(count * apart, 2 * HUGE) + HUGE, np.uint8)
    start = -space.ctypes.data % HUGE
    made = [space[start + k * apart :][:length].view(kind)[::step] for k in range(count)]
    inputs, outs = tuple(made[: len(case.inputs)]), tuple(made[len(case.inputs) :][:outputs])
    arrays = Arrays(case, inputs, inputs if case.layout == IN_PLACE else outs, tuple(made[count - between : count]))
    arrays.fill()
    return arrays


# --- the check ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def reference(function: str, dtype: str, data: str) -> tuple[tuple[Array, Array], ...]:
    """The right results for one block, computed in float64, and how far each may be off.

    The tolerance asks whether a peer computes the function at all. Each loses digits somewhere: 1 - y where y is near 1, the
    lower tail where 1 is added to it, torch's softplus from 20 on, its cross-entropy where the label is right.
    """
    eps, relative = EPS[dtype], {"float32": 1e-5, "float64": 1e-9}.get(dtype, 8 * EPS[dtype])
    absolute = (8 if dtype in HALF else 16) * eps
    inputs = [array.astype(np.float64) for array in block(function, dtype, data)]
    with np.errstate(all="ignore"):
        exact = [np.asarray(output(*inputs)) for output in EXACT[function]]
    type = np.float64 if dtype == "float64" else np.float32  # 7 times faster to compare
    return tuple((right.astype(type), (np.abs(right) * relative + absolute).astype(type)) for right in exact)


def unchanged(arrays: Arrays) -> bool:
    """Whether the inputs still have their values."""
    sources = block(arrays.case.function, arrays.case.dtype, arrays.case.data)
    return all(
        np.array_equal(array[start : start + source.size], source[: array.size - start])
        for array, source in zip(arrays.inputs, sources, strict=True)
        for start in range(0, array.size, source.size)
    )


def check(call: Call, arrays: Arrays, as_array: Callable[[Any], Array] = np.asarray) -> str:
    """Call it once, and say what is wrong with the results, or nothing.

    `as_array` makes NumPy's of an array that the call returns, where its results are new ones.
    """
    case = arrays.case
    for out in (*arrays.outs, *arrays.between):
        out.fill(np.nan)  # not the results of the peer before
    if case.layout == IN_PLACE:
        arrays.fill()
    returned = call()
    if case.layout != IN_PLACE and not unchanged(arrays):
        arrays.fill()
        return "wrong: it changed its input"
    results = arrays.outs
    if arrays.new:
        several = returned if isinstance(returned, (tuple, list)) else (returned,)
        results = tuple(as_array(each) for each in several)
    wanted = reference(case.function, case.dtype, case.data)
    if len(results) != len(wanted):
        return f"wrong: {len(results)} results instead of {len(wanted)}"
    inputs = block(case.function, case.dtype, case.data)
    for out, (exact, tolerance) in zip(results, wanted, strict=True):
        if out.shape != (case.size,) or out.dtype != storage(case.dtype):
            return f"wrong: {out.dtype}{list(out.shape)} instead of {case.dtype}[{case.size}]"
        for start in range(0, out.size, exact.size):
            part = out[start : start + exact.size].astype(exact.dtype, copy=False)
            right = np.abs(part - exact[: part.size]) <= tolerance[: part.size]
            if not right.all():
                k = int(np.argmin(right))
                place = ", ".join(f"{name} = {float(array[k]):.9g}" for name, array in zip(case.inputs, inputs, strict=True))
                return f"wrong: {part[k]:.9g} instead of {exact[k]:.9g} at {place}"
    return ""
