"""The sigmoid family for NumPy: exact, at the speed of memory, as real ufuncs.

Names are resolved at first use, and machine code is compiled at the first call (or loaded, where an earlier process compiled
it): importing the package costs next to nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"


def refuse_free_threading(version: str) -> None:
    """Say at once that Python without its global interpreter lock won't do: nothing here has been tried there."""
    if "free-threading" in version:
        name = "python" + ".".join(version.split(".")[:2])
        raise ImportError(
            f"fastsig doesn't support free-threaded Python yet, and this is {version.splitlines()[0]}. What its threads share "
            f"has been tried under the global interpreter lock alone: use the ordinary build, {name}."
        )


refuse_free_threading(sys.version)

UFUNCS = (
    "sigmoid",
    "expit",
    "sigmoid_grad",
    "sigmoid_value_and_grad",
    "sigmoid_vjp",
    "sigmoid_backward",
    "sigmoid_derivative",
    "log_sigmoid",
    "log_expit",
    "log_sigmoid_grad",
    "log_sigmoid_value_and_grad",
    "log_sigmoid_vjp",
    "softplus",
    "softplus_grad",
    "softplus_value_and_grad",
    "softplus_vjp",
    "logit",
    "silu",
    "swish",
    "silu_grad",
    "silu_value_and_grad",
    "silu_vjp",
    "tanh",
    "tanh_grad",
    "tanh_value_and_grad",
    "tanh_vjp",
    "tanh_backward",
    "tanh_derivative",
    "bce_with_logits",
    "bce_with_logits_grad",
    "bce_with_logits_value_and_grad",
    "bce_with_logits_grad_and_hess",
)
THREADS = ("get_num_threads", "set_num_threads", "num_threads")
MODULES = ("losses", "nn", "testing")  # what `import fastsig` alone gives access to

FILES = ("apply_file",)

__all__ = [*UFUNCS, *THREADS, *FILES]

if TYPE_CHECKING:
    from fastsig import losses as losses
    from fastsig import nn as nn
    from fastsig import testing as testing
    from fastsig.files import apply_file as apply_file
    from fastsig.parallel import get_num_threads as get_num_threads
    from fastsig.parallel import num_threads as num_threads
    from fastsig.parallel import set_num_threads as set_num_threads
    from fastsig.typing import OneToOne, OneToTwo, TwoToOne, TwoToTwo

    sigmoid: OneToOne
    expit: OneToOne
    sigmoid_grad: OneToOne
    sigmoid_value_and_grad: OneToTwo
    sigmoid_vjp: TwoToOne
    sigmoid_backward: TwoToOne
    sigmoid_derivative: OneToOne
    log_sigmoid: OneToOne
    log_expit: OneToOne
    log_sigmoid_grad: OneToOne
    log_sigmoid_value_and_grad: OneToTwo
    log_sigmoid_vjp: TwoToOne
    softplus: OneToOne
    softplus_grad: OneToOne
    softplus_value_and_grad: OneToTwo
    softplus_vjp: TwoToOne
    logit: OneToOne
    silu: OneToOne
    swish: OneToOne
    silu_grad: OneToOne
    silu_value_and_grad: OneToTwo
    silu_vjp: TwoToOne
    tanh: OneToOne
    tanh_grad: OneToOne
    tanh_value_and_grad: OneToTwo
    tanh_vjp: TwoToOne
    tanh_backward: TwoToOne
    tanh_derivative: OneToOne
    bce_with_logits: TwoToOne
    bce_with_logits_grad: TwoToOne
    bce_with_logits_value_and_grad: TwoToTwo
    bce_with_logits_grad_and_hess: TwoToTwo


def resolved(name: str) -> Any:
    if name in UFUNCS:
        value = import_module("fastsig.ufuncs").make(name)
    elif name in THREADS:
        value = getattr(import_module("fastsig.parallel"), name)
    elif name in FILES:
        value = getattr(import_module("fastsig.files"), name)
    elif name in MODULES:
        value = import_module(f"fastsig.{name}")
    else:
        raise AttributeError(f"module 'fastsig' has no attribute {name!r}")
    return globals().setdefault(name, value)  # of two threads that ask at once, both get the first one's


if not TYPE_CHECKING:  # for type checkers a name that isn't above is an error
    __getattr__ = resolved


def __dir__() -> list[str]:
    return sorted({*__all__, *MODULES, *(name for name in globals() if name.startswith("__"))})
