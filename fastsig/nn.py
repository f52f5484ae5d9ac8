"""A dense network with back-propagation, for NumPy users.

A network is a vector of parameters and the sizes of its layers; every layer's weights and biases are views of that vector.
Small networks are trained by one compiled loop (see `trainer`), large ones by BLAS for the products and fastsig's fused ufuncs
for the rest, in workspaces that are made once. Both compute the same; which is faster depends on the work that a batch is.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

import fastsig
from fastsig import compiler, parallel, trainer
from fastsig.optimizers import (
    MOST_DAMPING,
    PLACES,
    SGD,
    Adam,
    LevenbergMarquardt,
    Optimizer,
    Rprop,
    chosen_optimizer,
    integer,
    one_of,
    real,
)

__all__ = ["SGD", "Adam", "LevenbergMarquardt", "MLPClassifier", "MLPRegressor", "Network", "Rprop"]

Array = np.ndarray[Any, np.dtype[Any]]

ALIASES = {"logistic": "sigmoid", "identity": "linear"}  # what scikit-learn calls them
OUTPUTS = {"squared": (*trainer.ACTIVATIONS,), "bce": ("sigmoid",), "cross_entropy": ("softmax",)}  # the first is the default
DTYPES = ("float32", "float64")
REDUCTIONS = ("mean", "sum")
FORMAT = "fastsig.Network 1"
FIXED = ("layers", "loss", "reduction", "activations", "dtype")
# Multiplications of a batch, one way, up to which the compiled loop is faster than BLAS with what Python adds: 20-50-10 in
# batches of 64 (96,000) takes 0.73 of the time (float32 0.59), 64-100-10 in batches of 32 (237,000) 1.04 (1.01), on one thread.
COMPILED = 200_000
LEAST_DAMPING = 1e-12
LARGEST_JACOBIAN = 50_000_000  # numbers, 400 MB
SLICE = 0.05  # seconds of training between two looks at the clock: the bar moves, and Ctrl-C is heard


def numbers(name: str, value: ArrayLike, dtype: np.dtype[Any]) -> Array:
    """A C-contiguous array of the network's dtype, all finite."""
    try:
        given = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array: {error}") from None
    if given.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, not {given.dtype}")
    with np.errstate(over="ignore"):
        array = np.require(given, dtype, ["C", "A"])
    if not np.isfinite(array).all():
        place = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite in {dtype}, but {name}[{', '.join(map(str, place))}] is {given[place]}")
    return array


class Descent:
    """An optimiser at work on a network's parameters: its settings, and what it keeps from step to step."""

    def __init__(self, optimizer: Optimizer, network: Network) -> None:
        self.optimizer = optimizer
        self.numbers = np.zeros(trainer.NUMBERS)
        for name, value in asdict(optimizer).items():
            self.numbers[PLACES[name]] = value
        self.numbers[[trainer.POWER_1, trainer.POWER_2]] = 1.0
        self.gradient = np.zeros(network.parameters.size + trainer.ROOM, network.dtype)
        self.state = np.zeros((trainer.STATES, network.parameters.size), network.dtype)
        rows, room = table(network)
        self.words = np.zeros(trainer.TABLE + len(rows), np.int64)
        self.words[trainer.TABLE :] = rows
        self.words[trainer.LAYERS] = len(network.shapes)
        self.words[trainer.LOSS] = trainer.LOSSES[network.loss]
        self.words[trainer.OPTIMIZER] = trainer.OPTIMIZERS.get(optimizer.name, -1)
        self.words[trainer.PARAMETERS] = network.parameters.size
        self.words[trainer.SUMMED] = network.reduction == "sum"
        self.words[trainer.SPARE] = room
        self.workspace = room + trainer.ROOM
        self.arguments = [address(a) for a in (self.words, self.numbers, network.parameters, self.gradient, self.state)]

    @cached_property
    def call(self) -> Callable[..., int]:
        return program("step", self.state.dtype.name)

    def step(self) -> None:
        """From the gradient, on one thread: of a network of 784-256-10 it is 5 % of the time."""
        self.call(*self.arguments)


def padded(count: int) -> int:
    """With room for whole registers."""
    return -(-count // trainer.ROOM) * trainer.ROOM


def table(network: Network) -> tuple[list[int], int]:
    """The rows of `trainer`'s table, one behind the other, and how much of a workspace they take."""
    rows, weights, source = [], 0, 0
    place = padded(network.layers[0])
    for k, (inputs, outputs) in enumerate(network.shapes):
        values, slopes, deltas, transposed = (place + count * padded(outputs) for count in range(4))
        place = transposed + (padded(inputs * outputs) if k else 0)
        activation = trainer.ACTIVATIONS[network.summed_activations[k]]
        rows += [inputs, outputs, activation, weights, source, values, slopes, deltas, transposed]
        weights, source = weights + (inputs + 1) * outputs, values
    return rows, place


Pointer = ctypes.c_void_p
Make = Callable[[str], Callable[[Any], tuple[Any, Callable[..., Any]]]]
PROGRAMS: dict[str, tuple[Make, Any]] = {
    "rounds": (trainer.rounds_of, ctypes.CFUNCTYPE(ctypes.c_int64, *[Pointer] * 11)),
    "step": (trainer.step_of, ctypes.CFUNCTYPE(None, *[Pointer] * 5)),
    "softmax": (trainer.softmax_of, ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, *[Pointer] * 5)),
}


def compiled(name: str, dtype: str) -> compiler.Program:
    """One of trainer's functions."""
    make, _ = PROGRAMS[name]
    return compiler.Program(f"network-{name}-{dtype}", make(dtype), "trainer")


@cache
def program(name: str, dtype: str) -> Callable[..., int]:
    """One of them, to be called. ctypes lets go of Python's lock while it runs."""
    _, prototype = PROGRAMS[name]
    with compiler.lock():
        called: Callable[..., int] = prototype(compiled(name, dtype).address())
    return called


def address(array: Array | None) -> int:
    return 0 if array is None else array.ctypes.data


# --- large networks: BLAS and fused ufuncs --------------------------------------------------------------------------------


VALUE_AND_SLOPE = {
    "sigmoid": fastsig.sigmoid_value_and_grad,
    "tanh": fastsig.tanh_value_and_grad,
    "silu": fastsig.silu_value_and_grad,
}


def roomy(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array with room behind it, so that whole registers can be written."""
    count = math.prod(shape)
    return np.zeros(count + trainer.ROOM, dtype)[:count].reshape(shape)


def pieces(*arrays: Array) -> list[tuple[Array, ...]]:
    """A call's operands, inputs and outputs, in pieces that fastsig's ufuncs don't share out to threads.

    BLAS has threads of its own: two teams in turn wait for each other's processors. On two that other jobs used as well, a
    training that takes 0.5 s took 30.
    """
    most = parallel.WORDS[parallel.PARALLEL] // (len(arrays) * arrays[0].itemsize) - 1
    flat = [array.reshape(-1) for array in arrays]
    return [tuple(array[start : start + most] for array in flat) for start in range(0, flat[0].size, most)]


class Workspace:
    """All that `size` samples need on their way forward and back, made once.

    On the way forward each layer's derivatives are computed with its values and kept, so that the way back is a product.
    Of the three ways to have them (sigmoid, 128 x 256 float32, one thread, µs forward + back): value and derivative at once
    39 + 5; the value alone, then `sigmoid_vjp` from the input, 31 + 39; `sigmoid_backward` from the value, 31 + 7, which
    loses the digits of 1 - y. The first is exact for a tenth of the time more, where a batch takes 1,200.
    """

    def __init__(self, network: Network, size: int, within: Workspace | None = None) -> None:
        """In memory of its own, or in that of a larger one."""
        self.network, self.dtype = network, network.dtype.name
        self.parameters = network.views(network.parameters)
        inputs, outputs = network.layers[0], network.layers[1:]

        def make(name: str, *shapes: tuple[int, ...]) -> list[Array]:
            return [a[:size] for a in getattr(within, name)] if within else [roomy(s, network.dtype) for s in shapes]

        rows = [(size, width) for width in outputs]
        self.batch = make("batch", (size, inputs), rows[-1], (size,))
        self.values, self.slopes, self.deltas = (make(name, *rows) for name in ("values", "slopes", "deltas"))
        self.losses = make("losses", (size,))
        self.ones = np.ones(size, network.dtype)
        self.source = self.batch[0]
        self.rows = [address(a) for a in (self.slopes[-1], self.deltas[-1], self.losses[0])]  # for `softmax`
        self.activate = [
            [(VALUE_AND_SLOPE[name], s, (y, s)) for s, y, _ in pieces(slopes, values, slopes)] if name != "linear" else []
            for name, values, slopes in zip(network.summed_activations, self.values, self.slopes, strict=True)
        ]

    def forward(self, x: Array) -> Array:
        """The values of the last layer: logits, where the loss takes those."""
        self.source = below = x
        for k, (weights, biases) in enumerate(zip(*self.parameters, strict=True)):
            sums = self.slopes[k] if self.activate[k] else self.values[k]
            np.matmul(below, weights, out=sums)
            np.add(sums, biases, out=sums)
            for function, piece, results in self.activate[k]:
                function(piece, out=results)
            below = self.values[k]
        return below

    def compare(self, t: Array, weights: Array | None) -> float:
        """The sum of the losses; the last layer's deltas become its derivative."""
        network, y, delta, terms = self.network, self.values[-1], self.deltas[-1], self.slopes[-1]
        if network.loss == "cross_entropy":
            self.softmax(t)
            terms = self.losses[0][:, None]
        elif network.loss == "bce":
            for logits, targets, *results in pieces(y, t, terms, delta):
                fastsig.bce_with_logits_value_and_grad(logits, targets, out=tuple(results))
        else:
            np.subtract(y, t, out=delta)
            np.multiply(delta, delta, out=y)  # over the values, which nobody needs any more
            if self.activate[-1]:
                np.multiply(delta, terms, out=delta)
            terms = y
        if weights is not None:
            np.multiply(terms, weights[:, None], out=terms)
            np.multiply(delta, weights[:, None], out=delta)
        total = float(np.add.reduce(terms, axis=None, dtype=np.float64))
        return total / 2 if network.loss == "squared" else total

    def softmax(self, t: Array) -> None:
        """Probabilities in the place of the last slopes, the deltas and the losses, of the last values and the targets t."""
        y = self.values[-1]
        program("softmax", self.dtype)(*y.shape, address(y), address(t), *self.rows)

    def backward(self, share: float, gradient: tuple[list[Array], list[Array]]) -> None:
        """The gradient, of the losses' sum times `share`."""
        np.multiply(self.deltas[-1], share, out=self.deltas[-1])
        for k in reversed(range(len(self.values))):
            delta = self.deltas[k]
            np.matmul((self.values[k - 1] if k else self.source).T, delta, out=gradient[0][k])
            np.matmul(self.ones, delta, out=gradient[1][k])  # 200 x 100 float64: 5 µs; `add.reduce` takes 11
            if k:
                np.matmul(delta, self.parameters[0][k].T, out=self.deltas[k - 1])
                if self.activate[k - 1]:
                    np.multiply(self.deltas[k - 1], self.slopes[k - 1], out=self.deltas[k - 1])

    def differentiate(self, jacobian: Array) -> None:
        """The derivatives (samples, outputs, parameters) of the outputs of what was sent forward last."""
        network = self.network
        for output in range(network.layers[-1]):
            delta = np.zeros_like(self.values[-1])
            delta[:, output] = self.slopes[-1][:, output] if self.activate[-1] else 1
            end = network.parameters.size
            for k in reversed(range(len(network.shapes))):
                inputs, outputs = network.shapes[k]
                below, start = self.values[k - 1] if k else self.source, end - (inputs + 1) * outputs
                products = below[:, :, None] * delta[:, None, :]
                jacobian[:, output, start : end - outputs] = products.reshape(len(below), -1)
                jacobian[:, output, end - outputs : end] = delta
                if k:
                    delta = delta @ self.parameters[0][k].T
                    delta *= self.slopes[k - 1] if self.activate[k - 1] else 1
                end = start

    def gather(self, samples: Array, data: Data) -> tuple[Array, Array, Array | None]:
        """The samples of these numbers, in the workspace's own arrays ("clip" for NumPy to write there directly)."""
        x, t, weights = self.batch
        np.take(data.x, samples, axis=0, out=x, mode="clip")
        np.take(data.t, samples, axis=0, out=t, mode="clip")
        if data.weights is None:
            return x, t, None
        np.take(data.weights, samples, out=weights, mode="clip")
        return x, t, weights


# --- the network ---------------------------------------------------------------------------------------------------------


class Network:
    """A dense network: layers of units, each a weighted sum of the layer before, plus a bias, through an activation.

    y_0 = x, y_k = f_k(y_{k-1}·W_k + b_k)

    Parameters
    ----------
    layers : sequence of int
        The numbers of inputs, of each hidden layer's units, and of outputs: ``(2, 5, 1)``.
    activation : str, or sequence of str
        Of the hidden layers, one for all or one for each: "sigmoid" ("logistic"), "tanh", "silu" or "linear" ("identity").
    output : str, optional
        Of the last layer. With `loss` "squared" any of those, by default "linear"; with "bce" always "sigmoid", with
        "cross_entropy" "softmax".
    loss : str
        Of a sample with outputs y and targets t: "squared", Σ (y - t)² / 2; "bce", the binary cross-entropy of each output,
        summed; "cross_entropy", -Σ t·ln y.
    reduction : str
        How samples' losses make the loss of a batch: their "mean" (weighted, if samples have weights), or their "sum".
    dtype : str or dtype
        "float64" or "float32", of parameters, data and results.
    seed : int or numpy.random.Generator, optional
        Of the first parameters, and of the order in which samples are taken. A generator over PCG64, as NumPy's default is.

    Attributes
    ----------
    layers : tuple of int
    activations : tuple of str
        Of each layer but the input, the last one's included.
    parameters : ndarray
        All of them in one vector: of each layer the weights, (inputs, outputs) in C order, then the biases. Writable.
    weights, biases : list of ndarray
        Views of it, a layer each.
    history : list of float
        The loss of each epoch of the last `fit`: of all samples, each as it was before the step that it led to.

    Raises
    ------
    TypeError, ValueError
        For an argument that isn't one of those.

    Notes
    -----
    The first weights and biases are uniform in ±√(6 / (inputs + outputs)) (Glorot and Bengio, "Understanding the difficulty
    of training deep feedforward neural networks", 2010).

    Derivatives are taken from the sums z, not from the values: y(1 - y) would be 0 where the sigmoid has rounded to 1.
    The losses "bce" and "cross_entropy" are computed from the logits, and lose no digits where the output and target meet.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsig.nn import SGD, Network
    >>> x, t = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0], [1], [1], [0]])
    >>> network = Network((2, 5, 1), loss="bce", seed=1)
    >>> network.fit(x, t, epochs=2000, batch_size=1, optimizer=SGD(0.3, momentum=0.5)).predict(x).round()
    array([[0.],
           [1.],
           [1.],
           [0.]])
    """

    def __init__(
        self,
        layers: Sequence[int],
        *,
        activation: str | Sequence[str] = "sigmoid",
        output: str | None = None,
        loss: str = "squared",
        reduction: str = "mean",
        dtype: Any = "float64",
        seed: int | np.random.Generator | None = None,
    ) -> None:
        if isinstance(layers, (str, bytes)) or not isinstance(layers, Iterable) or len(layers := tuple(layers)) < 2:
            raise ValueError(f"layers must be at least two sizes, inputs and outputs, not {layers!r}")
        self.layers = tuple(integer(f"layers[{k}]", size) for k, size in enumerate(layers))
        self.loss = one_of("loss", loss, trainer.LOSSES)
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.activations = (*hidden(activation, len(self.layers) - 2), last(output, self.loss))
        self.dtype = np.dtype(one_of("dtype", dtype_name(dtype), DTYPES))
        self._generator = generator(seed)
        self._parameters: Array = np.empty(parameters_of(self.layers), self.dtype)
        self.history: list[float] = []
        self._descent: Descent | None = None
        self._forwarded: Workspace | None = None
        self._lock = threading.Lock()
        for weights, biases in zip(self.weights, self.biases, strict=True):
            bound = math.sqrt(6 / sum(weights.shape))
            for array in (weights, biases):
                array[...] = self._generator.uniform(-bound, bound, array.shape)

    def __repr__(self) -> str:
        return (
            f"Network({self.layers}, activations={self.activations}, loss={self.loss!r}, reduction={self.reduction!r}, "
            f"dtype={self.dtype.name!r})"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Compiled code goes by what the network was made with."""
        if name in FIXED and "_parameters" in self.__dict__:
            raise AttributeError(f"{name} can't be changed: make another Network")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles have: not the workspaces."""
        return {**self.__dict__, "_descent": None, "_forwarded": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """With memory of its own: what a pickle brings may be another's, and read-only."""
        own = np.array(state["_parameters"], copy=True)
        self.__dict__.update(state, _parameters=own, _lock=threading.Lock())

    @property
    def parameters(self) -> Array:
        """All weights and biases in one vector, layer by layer; assigning to it writes into its memory."""
        return self._parameters[:]  # a view, which can't be resized

    @parameters.setter
    def parameters(self, values: ArrayLike) -> None:
        given = numbers("parameters", values, self.dtype)
        if given.shape != self._parameters.shape:
            raise ValueError(f"parameters must have the shape {self._parameters.shape}, not {given.shape}")
        self._parameters[...] = given  # in their place, which views and optimisers know

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape of each layer's weights."""
        return tuple(pairwise(self.layers))

    @property
    def summed_activations(self) -> tuple[str, ...]:
        """What the layers compute in training: the last one's activation is the loss's part, where that takes logits."""
        return self.activations if self.loss == "squared" else (*self.activations[:-1], "linear")

    @property
    def multiplications(self) -> int:
        """Of a sample, one way."""
        return sum(inputs * outputs for inputs, outputs in self.shapes)

    @property
    def weights(self) -> list[Array]:
        """Each layer's, (inputs, outputs): views of `parameters`."""
        return self.views(self.parameters)[0]

    @property
    def biases(self) -> list[Array]:
        """Each layer's: views of `parameters`."""
        return self.views(self.parameters)[1]

    def views(self, vector: Array) -> tuple[list[Array], list[Array]]:
        """Weights and biases of all layers in a vector like `parameters`: in a gradient, for example.

        Parameters
        ----------
        vector : ndarray
            As long as `parameters`.

        Returns
        -------
        weights, biases : list of ndarray
            Views of it, a layer each.

        Raises
        ------
        ValueError
            If it is shorter.

        Examples
        --------
        >>> import numpy as np
        >>> from fastsig.nn import Network
        >>> weights, biases = Network((2, 5, 1)).views(np.zeros(21))
        >>> [array.shape for array in weights]
        [(2, 5), (5, 1)]
        """
        weights, biases, start = [], [], 0
        for inputs, outputs in self.shapes:
            middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
            weights.append(vector[start:middle].reshape(inputs, outputs))
            biases.append(vector[middle:end])
            start = end
        return weights, biases

    # --- one way, and back

    def predict(self, x: ArrayLike) -> Array:
        """The network's outputs.

        Parameters
        ----------
        x : array_like
            Samples, (n, inputs), or a single one, (inputs,).

        Returns
        -------
        ndarray
            (n, outputs), or (outputs,): values, or probabilities for the losses "bce" and "cross_entropy".

        Raises
        ------
        TypeError, ValueError
            If `x` has another shape, or holds something else than finite real numbers.

        Examples
        --------
        >>> from fastsig.nn import Network
        >>> Network((3, 2), loss="cross_entropy", seed=0).predict([1.0, 2.0, 3.0]).sum().round(6)
        np.float64(1.0)
        """
        samples = self._samples("x", x, single=True)
        outputs = self._outputs(Workspace(self, len(samples)), samples)
        return outputs[0] if np.ndim(x) == 1 else outputs

    def forward(self, x: ArrayLike) -> Array:
        """The outputs, as `predict` gives them; what `backward` needs is kept.

        Parameters
        ----------
        x : array_like
            Samples, (n, inputs).

        Returns
        -------
        ndarray
            Of the shape (n, outputs).

        Raises
        ------
        TypeError, ValueError
            As `predict`.

        Examples
        --------
        >>> from fastsig.nn import Network
        >>> network = Network((2, 3, 1), seed=0)
        >>> network.forward([[0.0, 1.0], [1.0, 1.0]]).shape
        (2, 1)
        """
        samples = self._samples("x", x)
        work = Workspace(self, len(samples))
        samples = samples.copy() if np.may_share_memory(samples, x) else samples  # the caller may write to it before `backward`
        outputs = self._outputs(work, samples).copy()
        self._forwarded = work
        return outputs

    def backward(self, t: ArrayLike, sample_weight: ArrayLike | None = None) -> tuple[float, Array]:
        """The loss of what `forward` was given last, and its gradient.

        Parameters
        ----------
        t : array_like
            Targets, as `fit` takes them.
        sample_weight : array_like, optional
            (n,), at least 0.

        Returns
        -------
        loss : float
            That of the batch.
        gradient : ndarray
            With respect to `parameters`, and in their order; `views` takes it apart.

        Raises
        ------
        RuntimeError
            If `forward` wasn't called before, or its result was used up by another call.
        TypeError, ValueError
            As `fit`.

        Examples
        --------
        >>> import numpy as np
        >>> from fastsig.nn import Network
        >>> network = Network((2, 3, 1), seed=0)
        >>> y = network.forward([[0.0, 1.0], [1.0, 1.0]])
        >>> loss, gradient = network.backward([[1.0], [0.0]])
        >>> network.parameters -= 0.1 * gradient          # a step of gradient descent
        """
        work = self._forwarded
        if work is None:
            raise RuntimeError("backward needs a call of forward before each of its own")
        targets = self._targets(t, len(work.source))
        weights = self._sample_weights(sample_weight, len(work.source))
        self._forwarded = None
        gradient = np.empty_like(self.parameters)
        whole = float(len(work.source) if weights is None else weights.sum(dtype=np.float64))
        share = 1.0 if self.reduction == "sum" else 1.0 / whole if whole else 0.0
        loss = work.compare(targets, weights) * share
        work.backward(share, self.views(gradient))
        return loss, gradient

    def _outputs(self, work: Workspace, samples: Array) -> Array:
        """Probabilities in an array of their own, where the last layer's values are logits: those are still needed."""
        values = work.forward(samples)
        if self.loss == "bce":
            return np.asarray(fastsig.sigmoid(values, out=work.slopes[-1]))
        if self.loss == "cross_entropy":
            work.softmax(values)
            return work.slopes[-1]
        return values

    # --- training

    def fit(
        self,
        x: ArrayLike,
        t: ArrayLike,
        *,
        epochs: int = 100,
        batch_size: int | None = 32,
        optimizer: str | Optimizer = "adam",
        sample_weight: ArrayLike | None = None,
        shuffle: bool = True,
        error_limit: float | None = None,
        progress: bool | None = None,
        compiled: bool | None = None,
    ) -> Network:
        """Train, from the parameters as they are.

        Parameters
        ----------
        x : array_like
            Samples, (n, inputs).
        t : array_like
            Targets, (n, outputs), or (n,) for a single output. With the loss "bce" in [0, 1]; with "cross_entropy" at least 0,
            or (n,) integers, the numbers of the classes.
        epochs : int
            How often all samples are gone through.
        batch_size : int, optional
            The samples of a step: 1 is online training, None full-batch.
        optimizer : str, SGD, Adam, Rprop or LevenbergMarquardt
            "sgd", "adam", "rprop" or "levenberg_marquardt" are these with their usual settings.
        sample_weight : array_like, optional
            (n,), at least 0, some above.
        shuffle : bool
            Whether each epoch takes the samples in another order.
        error_limit : float, optional
            An epoch whose loss (see `history`) is no larger is the last one.
        progress : bool, optional
            Whether to show a bar; by default if standard error is a terminal, once a second has passed.
        compiled : bool, optional
            Whether to train in the compiled loop, or with BLAS; by default whichever is faster. Both compute the same, but for
            the order of sums.

        Returns
        -------
        Network
            Itself.

        Raises
        ------
        TypeError, ValueError
            For arguments that aren't so, or data that isn't finite. The network is as it was.
        FloatingPointError
            If the loss becomes infinite or NaN. The network is as it was.

        Notes
        -----
        Interrupted (Ctrl-C), the network keeps what it has learned so far.

        Examples
        --------
        >>> import numpy as np
        >>> from fastsig.nn import Adam, Network
        >>> x = np.linspace(-1, 1, 50)[:, None]
        >>> network = Network((1, 10, 1), activation="tanh", seed=0).fit(x, x**2, epochs=500, optimizer=Adam(0.01))
        >>> network.history[-1] < 1e-3
        True
        """
        return self._fit(False, x, t, epochs, batch_size, optimizer, sample_weight, shuffle, error_limit, progress, compiled)

    def partial_fit(
        self,
        x: ArrayLike,
        t: ArrayLike,
        *,
        epochs: int = 1,
        batch_size: int | None = 32,
        optimizer: str | Optimizer = "adam",
        sample_weight: ArrayLike | None = None,
        shuffle: bool = True,
        error_limit: float | None = None,
        progress: bool | None = None,
        compiled: bool | None = None,
    ) -> Network:
        """Train on: as `fit`, but the optimiser goes on with what it had counted, and `history` grows.

        With one sample it is a single step of back-propagation. An optimiser with other settings than the last one's begins
        anew, and so does every one in a copy or a loaded network.

        Parameters
        ----------
        x, t, epochs, batch_size, optimizer, sample_weight, shuffle, error_limit, progress, compiled : optional
            As for `fit`.

        Returns
        -------
        Network
            Itself.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            As `fit`.

        Examples
        --------
        >>> from fastsig.nn import SGD, Network
        >>> network = Network((2, 5, 1), output="sigmoid", seed=0)
        >>> for x, t in [([0, 1], 1), ([1, 1], 0)]:
        ...     network = network.partial_fit([x], [t], optimizer=SGD(0.05, correction=0.1))
        >>> len(network.history)
        2
        """
        return self._fit(True, x, t, epochs, batch_size, optimizer, sample_weight, shuffle, error_limit, progress, compiled)

    def _fit(
        self,
        further: bool,
        x: ArrayLike,
        t: ArrayLike,
        epochs: int,
        batch_size: int | None,
        optimizer: str | Optimizer,
        sample_weight: ArrayLike | None,
        shuffle: bool,
        error_limit: float | None,
        progress: bool | None,
        compiled: bool | None,
    ) -> Network:
        chosen = chosen_optimizer(optimizer)
        count = integer("epochs", epochs)
        limit = -math.inf if error_limit is None else real("error_limit", error_limit)
        samples = self._samples("x", x)
        if not len(samples):
            raise ValueError("x must hold at least one sample, not none")
        targets, weights = self._targets(t, len(samples)), self._sample_weights(sample_weight, len(samples))
        size = len(samples) if batch_size is None else min(integer("batch_size", batch_size), len(samples))
        if isinstance(chosen, LevenbergMarquardt):
            check_least_squares(self, size, len(samples))
        with self._lock:  # the compiled loop lets go of Python's own
            return self._fit_alone(
                further, chosen, Data(samples, targets, weights, size, bool(shuffle)), count, limit, progress, compiled
            )

    def _fit_alone(
        self,
        further: bool,
        chosen: Optimizer,
        data: Data,
        count: int,
        limit: float,
        progress: bool | None,
        compiled: bool | None,
    ) -> Network:
        goes_on = further and self._descent is not None and self._descent.optimizer == chosen
        descent = self._descent if goes_on and self._descent is not None else Descent(chosen, self)
        changing = self.parameters, descent.state, descent.numbers
        before, generator_before = [array.copy() for array in changing], self._generator.bit_generator.state
        history = list(self.history) if further else []
        try:
            with training_bar(progress, count) as advance:
                for losses in run_epochs(self, descent, data, count, limit, compiled):
                    history += losses
                    advance(len(losses), f"loss {losses[-1]:.4g}")
            if not np.isfinite(self._parameters).all():
                raise FloatingPointError(f"the last step of {chosen} led to parameters that aren't finite")
        except KeyboardInterrupt:
            self._descent, self.history = descent, history
            raise
        except BaseException:
            for array, kept in zip(changing, before, strict=True):
                array[...] = kept
            self._generator.bit_generator.state = generator_before
            raise
        self._descent, self.history = descent, history
        return self

    # --- what is handed in

    def _samples(self, name: str, x: ArrayLike, *, single: bool = False) -> Array:
        samples = numbers(name, x, self.dtype)
        if single and samples.ndim == 1:
            samples = samples[None]
        if samples.ndim != 2 or samples.shape[1] != self.layers[0]:
            raise ValueError(f"{name} must have the shape (n, {self.layers[0]}), not {np.shape(x)}")
        return samples

    def _targets(self, t: ArrayLike, count: int) -> Array:
        outputs = self.layers[-1]
        if self.loss == "cross_entropy" and np.ndim(t) == 1:
            return self._one_hot(np.asarray(t), count)
        targets = numbers("t", t, self.dtype)
        if targets.ndim == 1 and outputs == 1:
            targets = targets[:, None]
        if targets.shape != (count, outputs):
            or_classes = f" or ({count},)" if outputs == 1 or self.loss == "cross_entropy" else ""
            raise ValueError(f"t must have the shape ({count}, {outputs}){or_classes}, not {np.shape(t)}")
        if self.loss == "bce" and not ((targets >= 0) & (targets <= 1)).all():
            wrong = targets[(targets < 0) | (targets > 1)][0]
            raise ValueError(f"t must be in [0, 1] for the loss 'bce', but holds {wrong}")
        if self.loss == "cross_entropy" and (targets < 0).any():
            raise ValueError(f"t must be at least 0 for the loss 'cross_entropy', but holds {targets[targets < 0][0]}")
        return targets

    def _one_hot(self, classes: Array, count: int) -> Array:
        if classes.dtype.kind not in "iub":
            raise TypeError(f"t must hold integers, the numbers of the classes, if it has one dimension, not {classes.dtype}")
        if classes.shape != (count,):
            raise ValueError(f"t must have the shape ({count},) or ({count}, {self.layers[-1]}), not {classes.shape}")
        wrong = classes[(classes < 0) | (classes >= self.layers[-1])]
        if len(wrong):
            raise ValueError(f"t must hold classes from 0 to {self.layers[-1] - 1}, but holds {wrong[0]}")
        targets = np.zeros((count, self.layers[-1]), self.dtype)
        targets[np.arange(count), classes.astype(np.intp)] = 1
        return targets

    def _sample_weights(self, weights: ArrayLike | None, count: int) -> Array | None:
        if weights is None:
            return None
        array = numbers("sample_weight", weights, self.dtype)
        if array.shape != (count,):
            raise ValueError(f"sample_weight must have the shape ({count},), not {array.shape}")
        if (array < 0).any():
            raise ValueError(f"sample_weight must be at least 0, but holds {array[array < 0][0]}")
        if not array.any():
            raise ValueError("sample_weight must be greater than 0 somewhere, but is 0 everywhere")
        return array

    # --- files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a file, which is NumPy's .npz, without pickles.

        Parameters
        ----------
        path : str or path
            The file, exactly as named; one that is there is replaced once the new one is complete.

        Raises
        ------
        OSError
            If it can't be written.

        Examples
        --------
        >>> import tempfile, os
        >>> from fastsig.nn import Network
        >>> network = Network((2, 3, 1), seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     network.save(os.path.join(folder, "network.npz"))
        ...     again = Network.load(os.path.join(folder, "network.npz"))
        >>> bool((again.parameters == network.parameters).all())
        True
        """
        target = Path(path)
        handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(
                    file,
                    format=np.array(FORMAT),
                    layers=np.array(self.layers),
                    activations=np.array(self.activations),
                    loss=np.array(self.loss),
                    reduction=np.array(self.reduction),
                    parameters=self.parameters,
                    history=np.array(self.history, np.float64),
                    generator=np.array(json.dumps(self._generator.bit_generator.state)),
                )
            os.chmod(aside, 0o666 & ~umask())
            os.replace(aside, target)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Network:
        """A network from a file that `save` wrote.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        Network
            With the same parameters, to the bit, the same history, and the same samples' order from here on. The optimiser
            begins anew.

        Raises
        ------
        OSError
            If there is no such file, or it can't be read.
        ValueError
            If it isn't a file that `save` wrote.

        Examples
        --------
        See `save`.
        """
        try:
            with open(path, "rb") as file:
                if not zipfile.is_zipfile(file):
                    raise ValueError("it is no npz archive")
                file.seek(0)
                with np.load(file, allow_pickle=False) as archive:
                    return cls._from_stored({name: archive[name] for name in archive.files})
        except OSError:
            raise
        except Exception as error:  # whatever a damaged or a malicious file leads to
            text = f"path must name a file that Network.save wrote, not {os.fspath(path)!r}: {type(error).__name__}: {error}"
            raise ValueError(text) from error

    @classmethod
    def _from_stored(cls, stored: dict[str, Array]) -> Network:
        if str(stored["format"]) != FORMAT:
            raise ValueError(f"its format is {str(stored['format'])!r}, not {FORMAT!r}")
        activations, parameters = [str(name) for name in stored["activations"]], stored["parameters"]
        layers = [integer("layers", size) for size in stored["layers"]]
        if parameters.shape != (parameters_of(layers),):
            raise ValueError(f"its parameters have the shape {parameters.shape}, which isn't that of layers of {layers}")
        network = cls(
            layers,
            activation=activations[:-1],
            output=activations[-1],
            loss=str(stored["loss"]),
            reduction=str(stored["reduction"]),
            dtype=parameters.dtype,
            seed=0,
        )
        network.parameters = parameters
        network.history = [float(loss) for loss in stored["history"]]
        network._generator = generator_in(json.loads(str(stored["generator"])))
        return network


def parameters_of(layers: Sequence[int]) -> int:
    """How many there are."""
    return sum((inputs + 1) * outputs for inputs, outputs in pairwise(layers))


def umask() -> int:
    """The process's; it can only be read by writing it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def hidden(activation: str | Sequence[str], count: int) -> tuple[str, ...]:
    names = [activation] * count if isinstance(activation, str) else activation
    if not isinstance(names, Iterable) or len(names := tuple(names)) != count:
        raise ValueError(f"activation must be one name, or one for each of the {count} hidden layers, not {activation!r}")
    if isinstance(activation, str):
        one_of("activation", alias(activation), trainer.ACTIVATIONS)  # even if there are no hidden layers
    return tuple(one_of("activation", alias(name), trainer.ACTIVATIONS) for name in names)


def last(output: str | None, loss: str) -> str:
    """The output layer's activation."""
    if output is None:
        return OUTPUTS[loss][0]
    return one_of(f"output with the loss {loss!r}", alias(output), OUTPUTS[loss])


def alias(name: Any) -> Any:
    return ALIASES.get(name, name) if isinstance(name, str) else name


def dtype_name(dtype: Any) -> Any:
    try:
        return np.dtype(dtype).name
    except TypeError:
        return dtype


def generator(seed: Any) -> np.random.Generator:
    try:
        made = np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(f"seed must be None, an integer of at least 0 or a numpy.random.Generator, not {seed!r}") from error
    if type(made.bit_generator).__name__ not in GENERATORS:
        raise ValueError(f"seed must be a Generator over {' or '.join(GENERATORS)}, which `save` can keep, not {seed!r}")
    return made


GENERATORS = ("PCG64", "PCG64DXSM")  # others' states are arrays, and not checked by NumPy


def generator_in(state: dict[str, Any]) -> np.random.Generator:
    """The generator that was in this state."""
    kind = getattr(np.random, one_of("generator", state["bit_generator"], GENERATORS))
    bits = kind()
    bits.state = state
    return np.random.Generator(bits)


# --- epochs --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """What a network is trained with, and how it is gone through."""

    x: Array
    t: Array
    weights: Array | None
    batch: int
    shuffle: bool

    def total(self, reduction: str) -> float:
        """What the sum of an epoch's losses is divided by."""
        if reduction == "sum":
            return 1.0
        return float(len(self.x) if self.weights is None else self.weights.sum(dtype=np.float64))

    def orders(self, count: int, generator: np.random.Generator) -> Array | None:
        """In which order each of `count` epochs takes the samples; the same however many are asked for at a time."""
        return generator.permuted(np.tile(np.arange(len(self.x)), (count, 1)), axis=1) if self.shuffle else None


def run_epochs(
    network: Network,
    descent: Descent,
    data: Data,
    count: int,
    limit: float = -math.inf,
    compiled: bool | None = None,
    at_a_time: int | None = None,
) -> Iterator[list[float]]:
    """Train for as many epochs, or until the loss is within the limit; the losses, those of some epochs at a time."""
    if isinstance(descent.optimizer, LevenbergMarquardt):
        losses_of = damped_epochs(network, descent, data, count)
    elif compiled or (compiled is None and network.multiplications * data.batch <= COMPILED):
        losses_of = compiled_epochs(network, descent, data, count, limit, at_a_time)
    else:
        losses_of = blas_epochs(network, descent, data, count)
    epoch = 0
    for losses in losses_of:
        epoch += len(losses)
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss is {losses[-1]} in epoch {epoch}; with {descent.optimizer} it diverges")
        yield losses
        if losses[-1] <= limit:
            return


def compiled_epochs(
    network: Network, descent: Descent, data: Data, count: int, limit: float, at_a_time: int | None
) -> Iterator[list[float]]:
    """As many at a time as take a moment; how many doesn't change the result."""
    run = program("rounds", network.dtype.name)
    work = np.zeros(descent.workspace, network.dtype)
    words, numbers = descent.words, descent.numbers
    words[[trainer.SAMPLES, trainer.BATCH]] = len(data.x), data.batch
    words[[trainer.WEIGHTED, trainer.SHUFFLED]] = data.weights is not None, data.shuffle
    numbers[[trainer.LIMIT, trainer.TOTAL]] = limit, data.total(network.reduction)
    fixed = [address(a) for a in (data.x, data.t, data.weights, network.parameters, descent.gradient, descent.state, work)]
    most = at_a_time or max(1, (1 << 20) // len(data.x))  # epochs of which the orders are drawn together
    left, next_time = count, 16
    while left:
        words[trainer.ROUNDS] = asked = min(left, next_time, most)
        state = network._generator.bit_generator.state
        losses, order = np.empty(asked), data.orders(asked, network._generator)
        begin = time.perf_counter()
        done = run(address(words), address(numbers), address(order), *fixed, address(losses))
        elapsed = time.perf_counter() - begin
        left -= done
        if done < asked:  # by the limit: as if no more orders had been drawn, whatever the clock asked for
            network._generator.bit_generator.state = state
            data.orders(done, network._generator)
        next_time = max(1, min(8 * asked, int(asked * SLICE / max(elapsed, 1e-6))))
        yield losses[:done].tolist()


def blas_epochs(network: Network, descent: Descent, data: Data, count: int) -> Iterator[list[float]]:
    """One at a time."""
    whole = Workspace(network, data.batch)
    rest = len(data.x) % data.batch
    works = {data.batch: whole, rest: Workspace(network, rest, whole)}
    total, gradient = data.total(network.reduction), network.views(descent.gradient)

    def epoch() -> float:
        orders, loss = data.orders(1, network._generator), 0.0
        for begin in range(0, len(data.x), data.batch):
            end = min(begin + data.batch, len(data.x))
            work = works[end - begin]
            if orders is None:
                x, t, weights = data.x[begin:end], data.t[begin:end], None if data.weights is None else data.weights[begin:end]
            else:
                x, t, weights = work.gather(orders[0, begin:end], data)
            work.forward(x)
            loss += work.compare(t, weights)
            whole_weight = float(end - begin if weights is None else weights.sum(dtype=np.float64))
            share = 1.0 if network.reduction == "sum" else 1.0 / whole_weight if whole_weight else 0.0
            work.backward(share, gradient)
            descent.step()
        return loss / total

    for _ in range(count):
        with np.errstate(over="ignore", invalid="ignore"):  # a loss that isn't finite ends the training, whatever led to it
            loss = epoch()
        yield [loss]


def damped_epochs(network: Network, descent: Descent, data: Data, count: int) -> Iterator[list[float]]:
    """Levenberg and Marquardt's, one at a time, in float64 whatever the network's dtype: JᵀJ has J's condition squared."""
    work, parameters, total = Workspace(network, data.batch), network.parameters, data.total(network.reduction)
    root = np.sqrt(np.ones(len(data.x)) if data.weights is None else data.weights.astype(np.float64))[:, None]
    shape = len(data.x), network.layers[-1], parameters.size
    jacobian = np.empty(shape)
    flat = jacobian.reshape(-1, parameters.size)
    diagonal = np.arange(parameters.size)

    def residuals() -> Array:
        """Of each output, times the root of its sample's weight."""
        return np.ravel((work.forward(data.x).astype(np.float64) - data.t) * root)

    r, start = residuals(), descent.optimizer.damping  # type: ignore[union-attr]
    for _ in range(count):
        loss = float(r @ r) / 2
        work.differentiate(jacobian)
        jacobian *= root[:, :, None]
        normal, gradient, before = flat.T @ flat, flat.T @ r, parameters.copy()
        undamped = normal[diagonal, diagonal]
        lower = False
        try:
            while not lower and descent.numbers[trainer.RATE] < MOST_DAMPING:
                normal[diagonal, diagonal] = undamped + descent.numbers[trainer.RATE]
                parameters[...] = before - np.linalg.solve(normal, gradient)
                r = residuals()
                lower = bool(r @ r < 2 * loss)
                descent.numbers[trainer.RATE] *= 0.1 if lower else 10.0
        finally:
            if not lower:  # no step was better, or none was tried to the end
                parameters[...] = before
        if not lower:
            r, descent.numbers[trainer.RATE] = residuals(), start
        descent.numbers[trainer.RATE] = max(descent.numbers[trainer.RATE], LEAST_DAMPING)
        yield [loss / total]
        if not lower:
            return


def check_least_squares(network: Network, batch: int, count: int) -> None:
    """Whether Levenberg and Marquardt's method can be used at all."""
    if network.loss != "squared" or batch < count:
        raise ValueError(
            f"optimizer LevenbergMarquardt needs the loss 'squared' and batch_size=None, not {network.loss!r} and {batch}"
        )
    size = count * network.layers[-1] * network.parameters.size
    if size > LARGEST_JACOBIAN:
        raise ValueError(f"optimizer LevenbergMarquardt needs at most {LARGEST_JACOBIAN} derivatives, not {size}: use another")


@contextmanager
def training_bar(wanted: bool | None, total: int) -> Iterator[Callable[[int, str], None]]:
    """A progress bar, if it is wanted, or if standard error is a terminal."""
    if wanted or (wanted is None and sys.stderr.isatty()):
        from fastsig.console import progress

        with progress("training", total) as advance:
            yield advance
    else:
        yield lambda steps, what: None


if TYPE_CHECKING:
    from fastsig.estimators import MLPClassifier as MLPClassifier
    from fastsig.estimators import MLPRegressor as MLPRegressor


def __getattr__(name: str) -> Any:
    if name in ("MLPClassifier", "MLPRegressor"):
        from fastsig import estimators

        return globals().setdefault(name, getattr(estimators, name))
    raise AttributeError(f"module 'fastsig.nn' has no attribute {name!r}")
