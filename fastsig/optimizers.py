"""Optimisers: what they do, and their settings. `trainer` has their compiled steps, `nn` what goes round them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastsig import trainer

MOST_DAMPING = 1e12


def one_of(name: str, value: Any, valid: Iterable[str]) -> str:
    if isinstance(value, str) and value in valid:
        return value
    raise ValueError(f"{name} must be one of {', '.join(map(repr, valid))}, not {value!r}")


def integer(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value.__index__() < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return int(value.__index__())


def real(name: str, value: Any, least: float = 0.0, below: float = math.inf, *, above: bool = False) -> float:
    """A finite number from `least` on (or above it) and below `below`."""
    try:
        number = math.nan if isinstance(value, (str, bytes, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if (least < number if above else least <= number) and number < below:
        return number
    bounds = f"{'greater than' if above else 'at least'} {least:g}{'' if below == math.inf else f' and less than {below:g}'}"
    raise ValueError(f"{name} must be a finite number {bounds}, not {value!r}")


@dataclass(frozen=True)
class SGD:
    """Gradient descent, with momentum or the classic tutorial's correction.

    With the gradient g of the weights w, v ← momentum·v + g, then

    w ← w - learning_rate·v - correction·(the previous g)

    Parameters
    ----------
    learning_rate : float
        Positive.
    momentum : float
        In [0, 1): the "heavy ball", as torch, Keras and scikit-learn have it.
    nesterov : bool
        Whether g + momentum·v takes the place of v, which looks one step ahead.
    correction : float
        At least 0: what the back-propagation networks of tutorials call momentum or correction. It adds the previous gradient,
        not the previous step, and isn't multiplied by the learning rate: `SGD(0.05, correction=0.1)` descends at a rate of
        0.15, two thirds of it one step late.
    weight_decay : float
        At least 0: this multiple of the weights (not the biases) is added to their gradient.

    Raises
    ------
    ValueError
        For a setting out of its range.

    Examples
    --------
    >>> from fastsig.nn import SGD
    >>> SGD(0.1, momentum=0.9)
    SGD(learning_rate=0.1, momentum=0.9, nesterov=False, correction=0.0, weight_decay=0.0)
    """

    learning_rate: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    correction: float = 0.0
    weight_decay: float = 0.0
    name: ClassVar[str] = "sgd"

    def __post_init__(self) -> None:
        real("learning_rate", self.learning_rate, above=True)
        real("momentum", self.momentum, below=1.0)
        if not isinstance(self.nesterov, bool | np.bool_):
            raise TypeError(f"nesterov must be True or False, not {self.nesterov!r}")
        real("correction", self.correction)
        real("weight_decay", self.weight_decay)


@dataclass(frozen=True)
class Adam:
    """Adam: each parameter's step by the running means of its gradient and of the gradient's square.

    Parameters
    ----------
    learning_rate : float
        Positive.
    beta_1, beta_2 : float
        In [0, 1): how much of the two means stays from one step to the next.
    epsilon : float
        Positive; added to the root of the second mean.
    weight_decay : float
        At least 0: this multiple of the weights (not the biases) is added to their gradient.

    Raises
    ------
    ValueError
        For a setting out of its range.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1.

    Examples
    --------
    >>> from fastsig.nn import Adam
    >>> Adam(0.01).beta_2
    0.999
    """

    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    name: ClassVar[str] = "adam"

    def __post_init__(self) -> None:
        real("learning_rate", self.learning_rate, above=True)
        real("beta_1", self.beta_1, below=1.0)
        real("beta_2", self.beta_2, below=1.0)
        real("epsilon", self.epsilon, above=True)
        real("weight_decay", self.weight_decay)


@dataclass(frozen=True)
class Rprop:
    """Resilient propagation: each parameter has its own step, and of the gradient only the sign counts.

    A step grows while its gradient keeps its sign; when that changes, it shrinks, and the parameter rests once. For full
    batches only (the sign of a small batch's gradient is mostly noise), and there much faster than gradient descent.

    Parameters
    ----------
    learning_rate : float
        Positive: the first step.
    growth, shrinkage : float
        What a step is multiplied by: more than 1, and less than 1.
    largest, smallest : float
        Between these the steps stay.
    weight_decay : float
        At least 0: this multiple of the weights (not the biases) is added to their gradient.

    Raises
    ------
    ValueError
        For a setting out of its range.

    References
    ----------
    Igel and Hüsken, "Improving the Rprop Learning Algorithm", 2000: the variant iRprop−.

    Examples
    --------
    >>> from fastsig.nn import Rprop
    >>> Rprop().growth
    1.2
    """

    learning_rate: float = 0.01
    growth: float = 1.2
    shrinkage: float = 0.5
    largest: float = 1.0
    smallest: float = 1e-9
    weight_decay: float = 0.0
    name: ClassVar[str] = "rprop"

    def __post_init__(self) -> None:
        real("learning_rate", self.learning_rate, above=True)
        real("growth", self.growth, 1.0, above=True)
        real("shrinkage", self.shrinkage, below=1.0, above=True)
        real("smallest", self.smallest, above=True)
        real("largest", self.largest, self.smallest)
        real("weight_decay", self.weight_decay)


@dataclass(frozen=True)
class LevenbergMarquardt:
    """Least squares for few parameters: Gauss and Newton's step, damped until it lowers the loss.

    With the residuals r = y - t of all samples and their Jacobian J, w ← w - (JᵀJ + damping·1)⁻¹·Jᵀr. A step that lowers
    the loss makes the damping a tenth of what it was; another is taken back, and tried again with ten times as much.

    For the loss "squared" and full batches, and where there is room for J, (samples · outputs, parameters). Training ends
    where no step lowers the loss any more.

    Parameters
    ----------
    damping : float
        Positive: the first.

    Raises
    ------
    ValueError
        For a damping that isn't positive, or is 1e12 or more.

    References
    ----------
    Marquardt, "An Algorithm for Least-Squares Estimation of Nonlinear Parameters", 1963.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsig.nn import LevenbergMarquardt, Network
    >>> x = np.linspace(-1, 1, 50)[:, None]
    >>> network = Network((1, 5, 1), activation="tanh", seed=0)
    >>> network = network.fit(x, x**3, epochs=50, batch_size=None, optimizer=LevenbergMarquardt())
    >>> network.history[-1] < 1e-6
    True
    """

    damping: float = 0.01
    name: ClassVar[str] = "levenberg_marquardt"

    def __post_init__(self) -> None:
        real("damping", self.damping, below=MOST_DAMPING, above=True)


Optimizer = SGD | Adam | Rprop | LevenbergMarquardt
OPTIMIZERS: dict[str, type[Optimizer]] = {kind.name: kind for kind in (SGD, Adam, Rprop, LevenbergMarquardt)}
PLACES = {
    "learning_rate": trainer.RATE,
    "momentum": trainer.MOMENTUM,
    "nesterov": trainer.NESTEROV,
    "correction": trainer.CORRECTION,
    "weight_decay": trainer.DECAY,
    "beta_1": trainer.BETA_1,
    "beta_2": trainer.BETA_2,
    "epsilon": trainer.EPSILON,
    "growth": trainer.GROWTH,
    "shrinkage": trainer.SHRINKAGE,
    "largest": trainer.LARGEST,
    "smallest": trainer.SMALLEST,
    "damping": trainer.RATE,
}


def chosen_optimizer(value: Any) -> Optimizer:
    if isinstance(value, Optimizer):
        return value
    if isinstance(value, str) and value in OPTIMIZERS:
        return OPTIMIZERS[value]()
    kinds = ", ".join(f"{name!r}" for name in OPTIMIZERS)
    raise ValueError(
        f"optimizer must be one of {kinds}, or an SGD, Adam, Rprop or LevenbergMarquardt of fastsig.nn, not {value!r}"
    )
