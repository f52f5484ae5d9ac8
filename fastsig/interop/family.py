"""What the frameworks' adapters share: the names, and the second derivatives, which no kernel gives.

With s = sigmoid' and x the input, each is a product that keeps its digits in the tails:

    sigmoid''(x)     = -s(x)·tanh(x/2)           for 1 - 2·sigmoid(x) is -tanh(x/2)
    log_sigmoid''(x) = -s(x)
    softplus''(x)    = s(x)
    silu''(x)        = s(x)·(2 - x·tanh(x/2))    whose limit 0 at ±inf is NaN here: 0·inf
    tanh''(x)        = -2·tanh(x)·tanh'(x)

Written in functions that can be differentiated themselves, so that there is a third derivative, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fastsig.kernels import KERNELS

# For each function, v·f''(x), where `f` has the framework's own sigmoid_vjp, tanh and tanh_vjp as attributes.
SECOND: dict[str, Callable[[Any, Any, Any], Any]] = {
    "sigmoid": lambda f, x, v: -f.sigmoid_vjp(x, v * f.tanh(x / 2)),
    "log_sigmoid": lambda f, x, v: -f.sigmoid_vjp(x, v),
    "softplus": lambda f, x, v: f.sigmoid_vjp(x, v),
    "silu": lambda f, x, v: f.sigmoid_vjp(x, v * (2 - x * f.tanh(x / 2))),
    "tanh": lambda f, x, v: f.tanh_vjp(x, v * (-2 * f.tanh(x))),
}


def summary(name: str) -> str:
    """The first line of a function's description."""
    return inspect.cleandoc(KERNELS[name].function.__doc__ or "").partition("\n")[0]
