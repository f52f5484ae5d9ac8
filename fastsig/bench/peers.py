"""The peers: every other way to compute the functions that is installed, an entry each, and fastsig among them.

A peer's `prepare` does all that isn't to be timed (imports, views, compilation) and gives a call without arguments. Results go
into the arrays that are there; in the layout `new output` the call makes new ones, and returns them.

A further peer, of the user's own, is one entry more:

>>> import numpy as np
>>> from fastsig.bench.peers import ALL_PEERS, Peer, applied
>>> def mine(x, y, *_):
...     np.divide(1, 1 + np.exp(-x), out=y)
>>> ALL_PEERS.append(Peer("mine", "mine", lambda function, arrays: applied(mine, arrays), functions=("sigmoid",)))
>>> _ = ALL_PEERS.pop()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import Any

import numpy as np

import fastsig
from fastsig.bench.cases import DTYPES, FUNCTIONS, IN_PLACE, LAYOUTS, NEW, SINGLE, WIDE, Array, Arrays, Call, Case
from fastsig.bench.machine import processors
from fastsig.kernels import KERNELS

Steps = Callable[..., object]  # from the inputs into the outputs by way of a spare array: `steps(*inputs, *outputs, spare)`


def use_fastsig(function: str, arrays: Arrays) -> Call:
    ufunc = getattr(fastsig, function)
    if arrays.new:
        return partial(ufunc, *arrays.inputs)
    return partial(ufunc, *arrays.inputs, out=arrays.outs if len(arrays.outs) > 1 else arrays.outs[0])


def use_copy(function: str, arrays: Arrays) -> Call:
    """As many copies as there are inputs or outputs, whichever are more; where they are fewer, one serves for several."""
    bits = f"u{arrays.inputs[0].itemsize}"  # bfloat16 isn't NumPy's own, and would be copied one by one
    inputs, outs = ([array.view(bits) for array in group] for group in (arrays.inputs, arrays.outs))
    copies = max(len(inputs), len(arrays.case.outputs))
    if arrays.new:

        def anew() -> list[Array]:
            return [inputs[k % len(inputs)].copy() for k in range(copies)]

        return anew
    pairs = [(outs[k % len(outs)], inputs[k % len(inputs)]) for k in range(copies)]
    if len(pairs) == 1:
        return partial(np.copyto, *pairs[0])

    def call() -> None:
        for out, source in pairs:
            np.copyto(out, source)

    return call


# --- formulas for one element: plain Python, and what Numba makes of them ------------------------------------------------

exp, log, log1p = math.exp, math.log, math.log1p


def sigmoid_grad(x: Any) -> Any:
    s = 1 / (1 + exp(-x))
    return s * (1 - s)


def sigmoid_value_and_grad(x: Any) -> Any:
    s = 1 / (1 + exp(-x))
    return s, s * (1 - s)


def sigmoid_vjp(x: Any, g: Any) -> Any:
    s = 1 / (1 + exp(-x))
    return g * s * (1 - s)


def silu_grad(x: Any) -> Any:
    s = 1 / (1 + exp(-x))
    return s * (1 + x * (1 - s))


def silu_value_and_grad(x: Any) -> Any:
    s = 1 / (1 + exp(-x))
    return x * s, s * (1 + x * (1 - s))


def silu_vjp(x: Any, g: Any) -> Any:
    s = 1 / (1 + exp(-x))
    return g * s * (1 + x * (1 - s))


def tanh_value_and_grad(x: Any) -> Any:
    y = math.tanh(x)
    return y, 1 - y * y


def bce_with_logits_grad_and_hess(x: Any, t: Any) -> Any:
    s = 1 / (1 + exp(-x))
    return s - t, s * (1 - s)


MATH: dict[str, Callable[..., Any]] = {
    "sigmoid": lambda x: 1 / (1 + exp(-x)),
    "sigmoid_grad": sigmoid_grad,
    "sigmoid_value_and_grad": sigmoid_value_and_grad,
    "sigmoid_vjp": sigmoid_vjp,
    "sigmoid_derivative": lambda y: y * (1 - y),
    "sigmoid_backward": lambda g, y: g * y * (1 - y),
    "log_sigmoid": lambda x: -log1p(exp(-x)),
    "log_sigmoid_grad": lambda x: 1 / (1 + exp(x)),
    "log_sigmoid_value_and_grad": lambda x: (-log1p(exp(-x)), 1 / (1 + exp(x))),
    "log_sigmoid_vjp": lambda x, g: g / (1 + exp(x)),
    "softplus": lambda x: log1p(exp(x)),
    "softplus_grad": lambda x: 1 / (1 + exp(-x)),
    "softplus_value_and_grad": lambda x: (log1p(exp(x)), 1 / (1 + exp(-x))),
    "softplus_vjp": lambda x, g: g / (1 + exp(-x)),
    "logit": lambda p: log(p / (1 - p)),
    "silu": lambda x: x / (1 + exp(-x)),
    "silu_grad": silu_grad,
    "silu_value_and_grad": silu_value_and_grad,
    "silu_vjp": silu_vjp,
    "tanh": lambda x: math.tanh(x),
    "tanh_grad": lambda x: 1 - math.tanh(x) ** 2,
    "tanh_value_and_grad": tanh_value_and_grad,
    "tanh_vjp": lambda x, g: g * (1 - math.tanh(x) ** 2),
    "tanh_derivative": lambda y: 1 - y * y,
    "tanh_backward": lambda g, y: g * (1 - y * y),
    "bce_with_logits": lambda x, t: max(x, 0) - x * t + log1p(exp(-abs(x))),
    "bce_with_logits_grad": lambda x, t: 1 / (1 + exp(-x)) - t,
    "bce_with_logits_value_and_grad": lambda x, t: (max(x, 0) - x * t + log1p(exp(-abs(x))), 1 / (1 + exp(-x)) - t),
    "bce_with_logits_grad_and_hess": bce_with_logits_grad_and_hess,
}


def use_math(function: str, arrays: Arrays) -> Call:
    element = MATH[function]
    columns = len(arrays.case.outputs)

    def steps(*given: Array) -> None:
        inputs, outs = given[: len(arrays.inputs)], given[len(arrays.inputs) :]
        results = map(element, *(array.tolist() for array in inputs))
        for out, result in zip(outs, zip(*results, strict=True) if columns > 1 else [[*results]], strict=False):
            out[:] = result

    return applied(steps, arrays)


@cache
def vectorized(function: str, dtype: str, inputs: int) -> Steps:
    import numba

    made: Steps = numba.vectorize([f"{dtype}({', '.join([dtype] * inputs)})"])(MATH[function])
    return made


def use_vectorize(function: str, arrays: Arrays) -> Call:
    """`@numba.vectorize` round the formula."""
    ufunc = vectorized(function, arrays.case.dtype, len(arrays.inputs))
    return partial(ufunc, *arrays.inputs) if arrays.new else partial(ufunc, *arrays.inputs, arrays.outs[0])


@cache
def parallelised(function: str, inputs: int, outputs: int) -> Steps:
    from numba import njit, prange

    element = njit(MATH[function])

    def one_to_one(x: Array, y: Array) -> None:
        for i in prange(x.size):
            y[i] = element(x[i])

    def two_to_one(x: Array, t: Array, y: Array) -> None:
        for i in prange(x.size):
            y[i] = element(x[i], t[i])

    def one_to_two(x: Array, y: Array, dy: Array) -> None:
        for i in prange(x.size):
            y[i], dy[i] = element(x[i])

    def two_to_two(x: Array, t: Array, y: Array, dy: Array) -> None:
        for i in prange(x.size):
            y[i], dy[i] = element(x[i], t[i])

    loops = {(1, 1): one_to_one, (2, 1): two_to_one, (1, 2): one_to_two, (2, 2): two_to_two}
    made: Steps = njit(parallel=True)(loops[inputs, outputs])
    return made


def use_parallel(function: str, arrays: Arrays) -> Call:
    """`@njit(parallel=True)` round a loop over the formula."""
    inputs, outputs = len(arrays.case.inputs), len(arrays.case.outputs)
    loop = parallelised(function, inputs, outputs)
    return applied(lambda *given: loop(*given[: inputs + outputs]), arrays)


@contextmanager
def numba_threads(n: int) -> Iterator[None]:
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(n)  # ValueError, if NUMBA_NUM_THREADS has fewer
    try:
        yield
    finally:
        numba.set_num_threads(before)


# --- whole arrays, by NumPy ----------------------------------------------------------------------------------------------
# What users write, each step into an array that is there. A ufunc that is the whole function is called as it is.


def applied(steps: Steps, arrays: Arrays, empty: Callable[[], Any] | None = None) -> Call:
    """The steps as a call without arguments; `empty` makes new arrays, by default NumPy's."""
    if isinstance(steps, np.ufunc):
        return partial(steps, *arrays.inputs) if arrays.new else partial(steps, *arrays.inputs, out=arrays.outs[0])
    case, make = arrays.case, empty or arrays.empty
    spares = 0 if case.function in SINGLE else 1
    inputs = arrays.inputs
    if arrays.new:
        return anew(steps, inputs, make, len(case.outputs), spares)
    spare = [arrays.spare()] if spares else []
    if case.layout == IN_PLACE and case.function in LATER and not empty:
        aside = arrays.empty()

        def by_way() -> None:
            steps(*inputs, aside, *spare)
            np.copyto(arrays.outs[0], aside)

        return by_way
    return partial(steps, *inputs, *arrays.outs, *spare)


def anew(steps: Steps, inputs: Sequence[Any], make: Callable[[], Any], outputs: int, spares: int) -> Call:
    """The steps into new arrays: as little besides as can be, for it is timed."""

    def one() -> Any:
        y = make()
        steps(*inputs, y)
        return y

    def one_by_way() -> Any:
        y = make()
        steps(*inputs, y, make())
        return y

    def two() -> Any:
        y, dy = make(), make()
        steps(*inputs, y, dy)
        return y, dy

    def two_by_way() -> Any:
        y, dy = make(), make()
        steps(*inputs, y, dy, make())
        return y, dy

    return {(1, 0): one, (1, 1): one_by_way, (2, 0): two, (2, 1): two_by_way}[outputs, spares]


LATER = ("sigmoid_derivative", "silu_grad")  # their steps need the input after they have begun to write the output


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


def tanh_sigmoid(x: Array, y: Array, *_: Array) -> None:
    np.multiply(x, 0.5, out=y)
    np.tanh(y, out=y)
    np.add(y, 1, out=y)
    np.multiply(y, 0.5, out=y)


TANH = from_sigmoid(tanh_sigmoid)


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


def use_numpy(function: str, arrays: Arrays) -> Call:
    return applied(NUMPY[function], arrays)


def use_tanh(function: str, arrays: Arrays) -> Call:
    return applied(TANH[function], arrays)


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

    case = arrays.case
    passes = [text.strip().split(" = ", 1) for text in NUMEXPR[function].split(";")]
    names = dict(zip(case.inputs, arrays.inputs, strict=True))
    if arrays.new:

        def anew() -> list[Array]:
            made = dict(names)
            for target, expression in passes:
                made[target] = evaluate(expression, made)
            return [made[target] for target in case.outputs]

        return anew
    into = dict(zip(case.outputs, arrays.outs, strict=True))
    if any(target == "s" for target, _ in passes):
        into["s"] = arrays.spare()
    calls = [partial(evaluate, expression, {**into, **names}, out=into[target]) for target, expression in passes]

    def call() -> None:
        for each in calls:
            each()

    return calls[0] if len(calls) == 1 else call


@contextmanager
def numexpr_threads(n: int) -> Iterator[None]:
    import numexpr

    before = numexpr.set_num_threads(n)  # ValueError, if NUMEXPR_MAX_THREADS has fewer
    try:
        yield
    finally:
        numexpr.set_num_threads(before)


# --- frameworks ----------------------------------------------------------------------------------------------------------


def tensor(array: Array) -> Any:
    """torch's view of it; bfloat16, which torch.from_numpy doesn't know, by way of its bits."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def of_tensor(result: Any) -> Array:
    import torch

    if result.dtype == torch.bfloat16:
        return np.asarray(result.view(torch.int16).numpy().view("bfloat16"))
    return np.asarray(result.numpy())


def use_torch(function: str, arrays: Arrays) -> Call:
    """The operations that torch's autograd calls forward and backward, without the graph."""
    import torch
    from torch.nn import functional

    aten, sigmoid = torch.ops.aten, torch.sigmoid
    sigmoid_back, tanh_back = aten.sigmoid_backward.grad_input, aten.tanh_backward.grad_input
    silu_back, softplus_back = aten.silu_backward.grad_input, partial(aten.softplus_backward.grad_input, beta=1, threshold=20)
    softplus = partial(aten.softplus.out, beta=1, threshold=20)  # torch's defaults: from 20 on it takes x for the result
    log_sigmoid, log_sigmoid_back = aten.log_sigmoid_forward.output, aten.log_sigmoid_backward.grad_input
    bce = partial(aten.binary_cross_entropy_with_logits.out, reduction=0)  # none
    new = {"sigmoid": sigmoid, "tanh": torch.tanh, "logit": torch.logit}
    new |= {"silu": functional.silu, "softplus": functional.softplus, "log_sigmoid": functional.logsigmoid}
    inputs, outs = [*map(tensor, arrays.inputs)], [*map(tensor, arrays.outs)]
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
    if arrays.new and function in new:
        return partial(new[function], *inputs)
    tensors = Tensors(arrays.case, tuple(inputs), tuple(outs), arrays.between)
    return applied(steps[function], tensors, partial(torch.empty_like, inputs[0]))


class Tensors(Arrays):
    """The same arrays as torch sees them."""

    def spare(self) -> Any:
        return tensor(super().spare())


ONES = tuple(f for f in FUNCTIONS if f.endswith(("_grad", "_derivative", "_hess")) and f != "bce_with_logits_grad")


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_jax(function: str, arrays: Arrays) -> Call:
    """Compiled by XLA; derivatives by `jax.vmap(jax.grad(...))` and `jax.vjp`, as its users get them."""
    import jax
    from jax import nn
    from jax.scipy.special import logit

    def bce(x: Any, t: Any) -> Any:
        return -t * nn.log_sigmoid(x) - (1 - t) * nn.log_sigmoid(-x)

    def grad_and_hess(x: Any, t: Any) -> Any:
        s = nn.sigmoid(x)
        return s - t, s * (1 - s)

    def vjp(value: Callable[[Any], Any]) -> Callable[..., Any]:
        return lambda x, g: jax.vjp(value, x)[1](g)[0]

    values = {f: getattr(nn, f) for f in ("sigmoid", "log_sigmoid", "softplus", "silu")} | {"tanh": jax.numpy.tanh}
    functions: dict[str, Callable[..., Any]] = {
        **values,
        **{f"{name}_grad": jax.vmap(jax.grad(value)) for name, value in values.items()},
        **{f"{name}_value_and_grad": jax.vmap(jax.value_and_grad(value)) for name, value in values.items()},
        **{f"{name}_vjp": vjp(value) for name, value in values.items()},
        "sigmoid_derivative": lambda y: y * (1 - y),
        "sigmoid_backward": lambda g, y: g * y * (1 - y),
        "tanh_derivative": lambda y: 1 - y * y,
        "tanh_backward": lambda g, y: g * (1 - y * y),
        "logit": logit,
        "bce_with_logits": bce,
        "bce_with_logits_grad": jax.vmap(jax.grad(bce)),
        "bce_with_logits_value_and_grad": jax.vmap(jax.value_and_grad(bce)),
        "bce_with_logits_grad_and_hess": grad_and_hess,
    }
    compiled = jax.jit(functions[function])
    inputs = [jax.device_put(array, jax.devices("cpu")[0]) for array in arrays.inputs]
    if len(arrays.case.outputs) == 1:
        return lambda: compiled(*inputs).block_until_ready()
    return lambda: [result.block_until_ready() for result in compiled(*inputs)]


@contextmanager
def jax_with_doubles(n: int) -> Iterator[None]:
    """Its float64 is float32 by default. How many threads it uses can't be said."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def use_sklearn(function: str, arrays: Arrays) -> Call:
    """The losses behind scikit-learn's linear models and boosting."""
    from sklearn._loss import HalfBinomialLoss

    loss, n = HalfBinomialLoss(), arrays.case.threads
    steps: dict[str, Steps] = {
        "bce_with_logits": lambda x, t, y, s: loss.loss(t, x, None, y, n),
        "bce_with_logits_grad": lambda x, t, dx, s: loss.gradient(t, x, None, dx, n),
        "bce_with_logits_value_and_grad": lambda x, t, y, dx, s: loss.loss_gradient(t, x, None, y, dx, n),
        "bce_with_logits_grad_and_hess": lambda x, t, dx, ddx, s: loss.gradient_hessian(t, x, None, dx, ddx, n),
    }
    return applied(steps[function], arrays)


# --- the registry --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """One way to compute the functions: `prepare` gives a call without arguments, its set-up done."""

    name: str
    title: str
    prepare: Callable[[str, Arrays], Call]
    package: str = "numpy"  # what it needs
    threads: Callable[[int], AbstractContextManager[None]] | None = None  # round all calls: sets their number
    functions: Sequence[str] = FUNCTIONS  # what it has a counterpart of
    dtypes: Sequence[str] = WIDE
    layouts: Sequence[str] = LAYOUTS
    largest: int | None = None  # the size beyond which it takes too long to wait for
    compiles: bool = False  # for long, each function and dtype
    all_threads: bool = False  # it uses all processors, whatever it is told
    as_array: Callable[[Any], Array] = np.asarray  # NumPy's of what its call returns

    def declines(self, case: Case) -> str:
        """Why it doesn't take part in a case, or nothing."""
        if case.function not in self.functions:
            return f"no counterpart of {case.function}"
        if case.dtype not in self.dtypes:
            return f"no {case.dtype}"
        if case.layout not in self.layouts:
            return NEW_ONLY if self.layouts == (NEW,) else f"not made for the layout {case.layout!r}"
        if self.largest is not None and case.size > self.largest:
            return f"takes too long beyond {self.largest:,} elements"
        if self.all_threads and case.threads != processors():
            return "can't be told how many threads to use, so that it is compared where all are used"
        return ""


NEW_ONLY = f"returns new arrays only, so that it is compared in the layout {NEW!r}"
ONE_OUTPUT = tuple(f for f in MATH if len(KERNELS[f].outputs) == 1)
UNSTRIDED = tuple(layout for layout in LAYOUTS if layout != "strided")
CROSS_ENTROPY = tuple(f for f in FUNCTIONS if f.startswith("bce_with_logits"))
ALL_PEERS = [
    Peer("fastsig", "fastsig", use_fastsig, threads=fastsig.num_threads, dtypes=DTYPES),
    Peer("copy", "copy", use_copy, dtypes=DTYPES, layouts=tuple(name for name in LAYOUTS if name != IN_PLACE)),
    Peer("math", "math", use_math, largest=100_000, functions=tuple(MATH)),
    Peer("numpy", "NumPy", use_numpy, functions=tuple(NUMPY), dtypes=(*WIDE, "float16")),
    Peer("tanh", "np.tanh", use_tanh, functions=tuple(TANH), dtypes=(*WIDE, "float16")),
    Peer("scipy", "SciPy", use_scipy, "scipy", functions=SCIPY),
    Peer("numexpr", "numexpr", use_numexpr, "numexpr", numexpr_threads, functions=tuple(NUMEXPR)),
    Peer("vectorize", "@vectorize", use_vectorize, "numba", functions=ONE_OUTPUT, compiles=True),
    Peer("parallel", "@njit(parallel)", use_parallel, "numba", numba_threads, functions=tuple(MATH), compiles=True),
    Peer("torch", "torch", use_torch, "torch", torch_threads, dtypes=DTYPES, as_array=of_tensor),
    Peer("jax", "JAX", use_jax, "jax", jax_with_doubles, dtypes=DTYPES, layouts=(NEW,), all_threads=True),
    Peer("sklearn", "scikit-learn", use_sklearn, "sklearn", functions=CROSS_ENTROPY, layouts=UNSTRIDED),
]
ALWAYS = ("fastsig", "copy")


def named(name: str) -> Peer:
    """The peer of this name."""
    return next(peer for peer in ALL_PEERS if peer.name == name)


def title(name: str) -> str:
    """How a peer is called in tables; of one that isn't registered now, as in the results of another program, its name."""
    return next((peer.title for peer in ALL_PEERS if peer.name == name), name)


def unavailable(peer: Peer) -> str:
    """Why a peer can't take part, or nothing. It is imported here: torch before fastsig looks for an OpenMP runtime."""
    try:
        import_module(peer.package)
    except ModuleNotFoundError as error:
        return "not installed" if error.name == peer.package else f"not usable: {error}"
    except Exception as error:  # a broken installation raises anything
        return f"not usable: {type(error).__name__}: {error}"
    return ""
