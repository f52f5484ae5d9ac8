"""scikit-learn's estimator interface round `nn.Network`: `fastsig.nn.MLPClassifier` and `fastsig.nn.MLPRegressor`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import LabelBinarizer
    from sklearn.utils import check_random_state, column_or_1d
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("MLPClassifier and MLPRegressor need scikit-learn 1.6: pip install 'fastsig[sklearn]'") from error

from fastsig.nn import Array, Data, Descent, Network, run_epochs, training_bar
from fastsig.optimizers import SGD, Adam, Optimizer, integer, one_of, real

LARGEST_BATCH = 200  # of batch_size="auto"
SOLVERS = ("adam", "sgd")


PARAMETERS = """Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        The units of each hidden layer.
    activation : str
        Of the hidden layers: "sigmoid" ("logistic"), "tanh", "silu" or "linear" ("identity").
    solver : str
        "adam", or "sgd": gradient descent with momentum.
    alpha : float
        The L2 penalty, alpha·Σ w² / 2 of the weights, is divided by the samples of a batch, as scikit-learn's is.
    batch_size : int or "auto"
        The samples of a step; "auto" is 200. Never more than there are.
    learning_rate_init : float
        The learning rate, which stays as it is.
    max_iter : int
        The most epochs.
    shuffle : bool
        Whether each epoch takes the samples in another order.
    random_state : int, RandomState or None
        Of the first weights, and of that order.
    tol : float
        Training ends when in `n_iter_no_change` epochs, one after the other, the loss wasn't smaller by this than before.
    n_iter_no_change : int
        See `tol`.
    verbose : bool
        Whether to show a progress bar.
    momentum : float
        Of "sgd".
    nesterovs_momentum : bool
        Of "sgd": whether it looks one step ahead.
    beta_1, beta_2, epsilon : float
        Of "adam".

    Attributes
    ----------
    network_ : fastsig.nn.Network
        What was trained.
    coefs_, intercepts_ : list of ndarray
        Its weights, (inputs, outputs), and biases, a layer each.
    loss_, loss_curve_ : float, list of float
        The loss of the last and of each epoch, without the penalty.
    n_iter_ : int
        How many epochs there were.
    n_features_in_, n_layers_, n_outputs_, out_activation_
        As scikit-learn's."""


@contextmanager
def unchanged_by_failure(model: Perceptron) -> Iterator[None]:
    """What was fitted before stays, unless there is a new network: an interruption keeps that, with all that goes with it."""
    before = dict(model.__dict__)
    try:
        yield
    except BaseException:
        if model.__dict__.get("network_") is before.get("network_"):
            model.__dict__.clear()
            model.__dict__.update(before)
        raise


class Perceptron(BaseEstimator):
    """What the classifier and the regressor share: the settings, and training until the loss no longer falls."""

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "sigmoid",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        verbose: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.verbose = verbose
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def _optimizer(self, batch: float) -> Optimizer:
        """With scikit-learn's penalty, alpha·|W|² / 2 for each batch, whose samples weigh `batch` in all."""
        one_of("solver", self.solver, SOLVERS)
        rate = real("learning_rate_init", self.learning_rate_init, above=True)
        decay = real("alpha", self.alpha) / batch
        if self.solver == "adam":
            return Adam(rate, self.beta_1, self.beta_2, self.epsilon, decay)
        return SGD(rate, self.momentum, nesterov=self.nesterovs_momentum, weight_decay=decay)

    def _weighted(self, sample_weight: Any, x: Array, y: Array) -> tuple[Array, Array, Array | None]:
        """Without the samples of weight 0, which are as if they weren't there."""
        if sample_weight is None:
            return x, y, None
        weights = _check_sample_weight(sample_weight, x, dtype=x.dtype, ensure_non_negative=True)
        if not weights.any():
            raise ValueError("sample_weight must be greater than 0 somewhere, but is 0 everywhere")
        there = weights > 0
        return x[there], y[there], weights[there]

    def _train(self, x: Array, t: Array, weights: Array | None, loss: str) -> None:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if np.iterable(sizes) else [sizes]
        sizes = [integer("hidden_layer_sizes", size) for size in sizes]
        most, patience = integer("max_iter", self.max_iter), integer("n_iter_no_change", self.n_iter_no_change)
        batch = LARGEST_BATCH if self.batch_size == "auto" else integer("batch_size", self.batch_size)
        batch, tolerance = min(batch, len(x)), real("tol", self.tol)
        optimizer = self._optimizer(batch if weights is None else batch * float(weights.mean()))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        network = Network((x.shape[1], *sizes, t.shape[1]), activation=self.activation, loss=loss, dtype=x.dtype, seed=seed)
        data = Data(network._samples("X", x), network._targets(t, len(x)), weights, batch, bool(self.shuffle))
        stalled, best = 0, math.inf
        try:
            with training_bar(bool(self.verbose), most) as advance:
                for (loss_now,) in run_epochs(network, Descent(optimizer, network), data, most, at_a_time=1):
                    network.history.append(loss_now)
                    advance(1, f"loss {loss_now:.4g}")
                    stalled = 0 if loss_now <= best - tolerance else stalled + 1
                    best = min(best, loss_now)
                    if stalled >= patience:
                        break
                else:
                    text = (
                        f"max_iter={most} epochs passed, and the loss may still fall: try more, or another learning_rate_init"
                    )
                    warnings.warn(text, ConvergenceWarning, stacklevel=3)
        except (KeyboardInterrupt, ConvergenceWarning):  # what was learned is kept
            self._keep(network)
            raise
        self._keep(network)

    def _keep(self, network: Network) -> None:
        self.network_ = network
        self.loss_curve_ = network.history
        self.n_iter_ = len(network.history)
        self.loss_ = network.history[-1] if network.history else math.inf
        self.n_layers_ = len(network.layers)
        self.n_outputs_ = network.layers[-1]
        self.out_activation_ = network.activations[-1]

    @property
    def coefs_(self) -> list[Array]:
        """Each layer's weights, (inputs, outputs)."""
        check_is_fitted(self)
        return self.network_.weights

    @property
    def intercepts_(self) -> list[Array]:
        """Each layer's biases."""
        check_is_fitted(self)
        return self.network_.biases

    def _outputs(self, X: Any) -> Array:  # noqa: N803  # scikit-learn's name
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False)
        return self.network_.predict(x)


class MLPClassifier(ClassifierMixin, Perceptron):
    __doc__ = f"""A dense network that classifies, as scikit-learn's class of this name does, on fastsig's engine.

    Two classes (and each label of a multi-label problem) have one sigmoid output with the binary cross-entropy, more have the
    softmax with the categorical one.

    {PARAMETERS}
    classes_ : ndarray
        The classes, in the order of `predict_proba`'s columns.

    Raises
    ------
    TypeError, ValueError
        In `fit`, for parameters or data that aren't so. What was fitted before stays.
    FloatingPointError
        In `fit`, if the loss becomes infinite or NaN.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastsig.nn import MLPClassifier
    >>> x, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier((10,), learning_rate_init=0.01, max_iter=1000, random_state=0).fit(x, y)
    >>> model.score(x, y) > 0.95
    True
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Train a new network.

        Parameters
        ----------
        X : array_like
            Of the shape (n_samples, n_features).
        y : array_like
            Classes, (n_samples,), or zeros and ones, (n_samples, n_labels).

        sample_weight : array_like, optional
            (n_samples,), at least 0.

        Returns
        -------
        MLPClassifier
            Itself.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            See the class.

        Examples
        --------
        >>> from fastsig.nn import MLPClassifier
        >>> model = MLPClassifier((5,), learning_rate_init=0.1, random_state=0).fit([[0.0], [1.0]], ["no", "yes"])
        >>> model.predict([[0.9]])
        array(['yes'], dtype='<U3')
        """
        with unchanged_by_failure(self):
            self._learn(X, y, sample_weight)
        return self

    def _learn(self, X: Any, y: Any, sample_weight: Any) -> None:  # noqa: N803
        x, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C", multi_output=True, y_numeric=False)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        x, y, weights = self._weighted(sample_weight, x, y)
        binarizer = LabelBinarizer().fit(y)
        several = len(binarizer.classes_) > 2 and not type_of_target(y).startswith("multilabel")
        self._binarizer, self.classes_ = binarizer, binarizer.classes_
        self._train(x, binarizer.transform(y), weights, "cross_entropy" if several else "bce")

    def predict_proba(self, X: Any) -> Array:  # noqa: N803
        """The probability of each class.

        Parameters
        ----------
        X : array_like
            Of the shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Of the shape (n_samples, n_classes).

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If `X` has another shape, or isn't finite.

        Examples
        --------
        >>> from fastsig.nn import MLPClassifier
        >>> model = MLPClassifier((5,), learning_rate_init=0.1, random_state=0).fit([[0.0], [1.0]], [0, 1])
        >>> model.predict_proba([[0.5]]).shape
        (1, 2)
        """
        outputs = self._outputs(X)
        if outputs.shape[1] == 1 and not self._binarizer.y_type_.startswith("multilabel"):
            outputs = np.hstack([1 - outputs, outputs])
        return outputs

    def predict(self, X: Any) -> Array:  # noqa: N803
        """The most probable class; of several labels, those more probable than not.

        Parameters
        ----------
        X : array_like
            Of the shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Of the shape (n_samples,) or (n_samples, n_labels).

        Raises
        ------
        NotFittedError, ValueError
            As `predict_proba`.

        Examples
        --------
        See `fit`.
        """
        outputs = self._outputs(X)
        predicted: Array = self._binarizer.inverse_transform(outputs, 0.5)
        return predicted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, Perceptron):
    __doc__ = f"""A dense network that predicts numbers, as scikit-learn's class of this name does, on fastsig's engine.

    Linear outputs and half of the squared error.

    {PARAMETERS}

    Raises
    ------
    TypeError, ValueError
        In `fit`, for parameters or data that aren't so. What was fitted before stays.
    FloatingPointError
        In `fit`, if the loss becomes infinite or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsig.nn import MLPRegressor
    >>> x = np.linspace(-1, 1, 100)[:, None]
    >>> model = MLPRegressor((20,), activation="tanh", learning_rate_init=0.01, max_iter=2000, random_state=0)
    >>> model.fit(x, x[:, 0] ** 2).score(x, x[:, 0] ** 2) > 0.9
    True
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Train a new network.

        Parameters
        ----------
        X : array_like
            Of the shape (n_samples, n_features).
        y : array_like
            Of the shape (n_samples,) or (n_samples, n_outputs).

        sample_weight : array_like, optional
            (n_samples,), at least 0.

        Returns
        -------
        MLPRegressor
            Itself.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            See the class.

        Examples
        --------
        See the class.
        """
        with unchanged_by_failure(self):
            self._learn(X, y, sample_weight)
        return self

    def _learn(self, X: Any, y: Any, sample_weight: Any) -> None:  # noqa: N803
        x, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C", multi_output=True, y_numeric=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        x, y, weights = self._weighted(sample_weight, x, y)
        self._train(x, np.asarray(y, x.dtype).reshape(len(x), -1), weights, "squared")

    def predict(self, X: Any) -> Array:  # noqa: N803
        """The outputs.

        Parameters
        ----------
        X : array_like
            Of the shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Of the shape (n_samples,) or (n_samples, n_outputs).

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If `X` has another shape, or isn't finite.

        Examples
        --------
        See the class.
        """
        outputs = self._outputs(X)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
