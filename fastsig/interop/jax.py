"""The family for JAX, computed on the host by `jax.pure_callback`, with gradients that are right in the tails.

    from fastsig.interop import jax as fj
    jax.grad(lambda x: fj.sigmoid(x).sum())(x)        # instead of jax.nn.sigmoid(x)

JAX differentiates the sigmoid by y·(1 - y), which is 0 where y has rounded to 1. Here the reverse pass is computed from the
input, and can be differentiated again, any number of times: `jax.jit`, `jax.grad`, `jax.vmap` and `jax.jacrev` work. Forward
mode doesn't (`jax.jvp`, `jax.jacfwd`, and `jax.hessian`, which uses it): JAX raises its own `TypeError`, since a function with
a reverse rule has no other. Take ``jax.jacrev(jax.grad(f))`` for a Hessian.

It is for what must be accurate, not for what must be fast: a callback leaves the compiled program. A call costs about 150 µs,
XLA fuses nothing across it and copies its result (a million float32 took 2.2 ms, and 0.5 ms by `jax.nn.sigmoid`), and on an
accelerator the data travel to the host and back.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

import fastsig
from fastsig.interop.family import SECOND, summary

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError as missing:
    raise ImportError("fastsig.interop.jax needs JAX: pip install 'fastsig[jax]'") from missing

__all__ = ["bce_with_logits", "log_sigmoid", "sigmoid", "silu", "softplus", "tanh"]

DTYPES = ("float16", "bfloat16", "float32", "float64")


def checked(*arguments: Any) -> tuple[Any, ...]:
    """The arguments as JAX's arrays, which must agree: nothing is converted or broadcast silently."""
    arrays = tuple(map(jnp.asarray, arguments))
    x = arrays[0]
    if x.dtype.name not in DTYPES:
        raise TypeError(f"{', '.join(DTYPES)} are taken, not {x.dtype.name}: convert it first, x.astype(jnp.float32)")
    for other in arrays[1:]:
        if other.dtype != x.dtype:
            raise TypeError(f"both need the same dtype, not {x.dtype.name} and {other.dtype.name}: t.astype(x.dtype)")
        if other.shape != x.shape:
            raise ValueError(f"both need the same shape, not {x.shape} and {other.shape}: jnp.broadcast_arrays(x, t)")
    return arrays


def on_host(name: str) -> Callable[..., Any]:
    """A ufunc as a step of JAX's programs; of the arguments of a batch, those that aren't batched get a dimension of 1."""
    ufunc = getattr(fastsig, name)

    def compute(*arrays: Any) -> Any:
        return ufunc(*map(np.asarray, arrays))

    def call(x: Any, *others: Any) -> Any:
        return jax.pure_callback(compute, jax.ShapeDtypeStruct(x.shape, x.dtype), x, *others, vmap_method="expand_dims")

    return call


def differentiable(name: str, backward: Callable[..., tuple[Any, ...]]) -> Any:
    """The ufunc with its derivative: `backward` of the inputs and the upstream gradient."""
    it = jax.custom_vjp(on_host(name))
    it.defvjp(lambda *inputs: (it(*inputs), inputs), lambda inputs, upstream: backward(*inputs, upstream))
    return it


def pair(name: str) -> tuple[Any, Any]:
    """A function of one array, and its back-propagation, which has a derivative, too."""
    vjp = differentiable(f"{name}_vjp", lambda x, g, u: (SECOND[name](PARTS, x, u * g), vjp(x, u)))
    return differentiable(name, lambda x, g: (vjp(x, g),)), vjp


PARTS = SimpleNamespace()
for _name in SECOND:
    _function, _vjp = pair(_name)
    vars(PARTS).update({_name: _function, f"{_name}_vjp": _vjp})
SLOPE = differentiable("bce_with_logits_grad", lambda x, t, u: (PARTS.sigmoid_vjp(x, u), -u))
LOSS = differentiable("bce_with_logits", lambda x, t, g: (g * SLOPE(x, t), -x * g))

GRADIENTS = {  # of each function at -30, 0 and 30: what its example shows
    "sigmoid": "Array([9.357623e-14, 2.500000e-01, 9.357623e-14], dtype=float32)",
    "log_sigmoid": "Array([1.000000e+00, 5.000000e-01, 9.357623e-14], dtype=float32)",
    "softplus": "Array([9.357623e-14, 5.000000e-01, 1.000000e+00], dtype=float32)",
    "silu": "Array([-2.7137108e-12,  5.0000000e-01,  1.0000000e+00], dtype=float32)",
    "tanh": "Array([3.5026044e-26, 1.0000000e+00, 3.5026044e-26], dtype=float32)",
}
TEMPLATE = """{summary}

Parameters
----------
x : array_like of float16, bfloat16, float32 or float64
    Python's numbers and NumPy's float64 are float32 unless JAX's 64-bit mode is on.

Returns
-------
y : jax.Array
    Of the shape and dtype of `x`, with the bits of `fastsig.{name}`.

Raises
------
TypeError
    For any other dtype; by JAX, for differentiation in forward mode.

Notes
-----
The gradient is `fastsig.{name}_vjp(x, g)`, from the input and accurate in both tails.

Examples
--------
>>> import jax
>>> from fastsig.interop.jax import {name}
>>> jax.vmap(jax.grad({name}))(jax.numpy.array([-30.0, 0.0, 30.0]))
{gradient}
"""


def function(name: str) -> Callable[[Any], Any]:
    """The public function of one argument."""
    it = getattr(PARTS, name)

    def call(x: Any) -> Any:
        return it(*checked(x))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = TEMPLATE.format(name=name, summary=summary(name), gradient=GRADIENTS[name])
    return call


sigmoid = function("sigmoid")
log_sigmoid = function("log_sigmoid")
softplus = function("softplus")
silu = function("silu")
tanh = function("tanh")


def bce_with_logits(x: Any, t: Any) -> Any:
    """The binary cross-entropy of a logit x and a label t, max(x, 0) - x·t + ln(1 + e^-|x|), for each element.

    Parameters
    ----------
    x : array_like of float16, bfloat16, float32 or float64
        The logits.
    t : array_like
        The labels, in [0, 1]: of the shape and dtype of `x`.

    Returns
    -------
    loss : jax.Array
        Of the shape and dtype of `x`, with the bits of `fastsig.bce_with_logits`; take its `mean()` or `sum()`.

    Raises
    ------
    TypeError
        For any other dtype, or for two of them: integer labels are converted by ``t.astype(x.dtype)``. By JAX, for
        differentiation in forward mode.
    ValueError
        For different shapes: nothing is broadcast.

    Notes
    -----
    The gradient is the upstream one times `fastsig.bce_with_logits_grad(x, t)`, which loses no digits for labels 0 and 1.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from fastsig.interop.jax import bce_with_logits
    >>> x, t = jnp.array([-30.0, 0.0, 30.0]), jnp.array([0.0, 1.0, 1.0])
    >>> jax.grad(lambda x: bce_with_logits(x, t).sum())(x)
    Array([ 9.357623e-14, -5.000000e-01, -9.357623e-14], dtype=float32)
    """
    return LOSS(*checked(x, t))
