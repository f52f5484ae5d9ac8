"""scikit-learn's binary loss, and the objective of logistic regression, by fastsig.

    from fastsig.interop.sklearn import HalfBinomialLoss, logistic_value_and_grad
    model = HistGradientBoostingClassifier(loss=HalfBinomialLoss()).fit(X, y)
    found = scipy.optimize.minimize(logistic_value_and_grad(X, y), np.zeros(X.shape[1] + 1), jac=True, method="L-BFGS-B")

`HalfBinomialLoss` is a subclass of a private class of scikit-learn, `sklearn._loss.loss.HalfBinomialLoss`, whose computing is
all in one attribute, `closs`: that is what is replaced. It is tested with scikit-learn 1.5 to 1.9; a version that has moved
these names raises `ImportError` when this module is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastsig

try:
    import scipy.sparse
    import sklearn
except ModuleNotFoundError as missing:
    raise ImportError("fastsig.interop.sklearn needs scikit-learn: pip install 'fastsig[sklearn]'") from missing
try:
    from sklearn._loss.link import LogitLink
    from sklearn._loss.loss import HalfBinomialLoss as OriginalLoss
except ImportError as moved:
    raise ImportError(f"scikit-learn {sklearn.__version__} has no sklearn._loss.loss.HalfBinomialLoss any more") from moved

__all__ = ["HalfBinomialLoss", "logistic_value_and_grad"]


class Link(LogitLink):
    """Between margins and probabilities: `fastsig.logit` and `fastsig.sigmoid`."""

    def link(self, y_pred: Any) -> Any:
        return fastsig.logit(y_pred)

    def inverse(self, raw_prediction: Any) -> Any:
        return fastsig.sigmoid(raw_prediction)


class Computing:
    """What scikit-learn's loss asks its compiled part for: results of each row, with its weight, in arrays that it gives."""

    def loss(self, y_true: Any, raw_prediction: Any, sample_weight: Any, loss_out: Any, n_threads: int = 1) -> Any:
        fastsig.bce_with_logits(raw_prediction, y_true, out=loss_out)
        return weighted(sample_weight, loss_out)[0]

    def gradient(self, y_true: Any, raw_prediction: Any, sample_weight: Any, gradient_out: Any, n_threads: int = 1) -> Any:
        fastsig.bce_with_logits_grad(raw_prediction, y_true, out=gradient_out)
        return weighted(sample_weight, gradient_out)[0]

    def loss_gradient(
        self, y_true: Any, raw_prediction: Any, sample_weight: Any, loss_out: Any, gradient_out: Any, n_threads: int = 1
    ) -> Any:
        fastsig.bce_with_logits_value_and_grad(raw_prediction, y_true, out=(loss_out, gradient_out))
        return weighted(sample_weight, loss_out, gradient_out)

    def gradient_hessian(
        self, y_true: Any, raw_prediction: Any, sample_weight: Any, gradient_out: Any, hessian_out: Any, n_threads: int = 1
    ) -> Any:
        fastsig.bce_with_logits_grad_and_hess(raw_prediction, y_true, out=(gradient_out, hessian_out))
        return weighted(sample_weight, gradient_out, hessian_out)


def weighted(sample_weight: Any, *results: Any) -> tuple[Any, ...]:
    if sample_weight is not None:
        for result in results:
            np.multiply(result, sample_weight, out=result, casting="same_kind")
    return results


class HalfBinomialLoss(OriginalLoss):
    """The binary cross-entropy of a margin x and a label y, max(x, 0) - x·y + ln(1 + e^-|x|), times the row's weight.

    A drop-in for scikit-learn's private loss of the same name: its methods `loss`, `gradient`, `loss_gradient` and
    `gradient_hessian` take and return what the original's do (arrays of shape (n_samples,), float32 or float64), each in one
    pass, and are right in the tails; so are both columns of `predict_proba`.

    Parameters
    ----------
    **kwargs
        The original's, all of which have defaults.

    Notes
    -----
    `n_threads` is not looked at: see `fastsig.set_num_threads`. A million float64 rows, gradient and Hessian in float32 as
    boosting asks for them, took 2.8 ms, and 4.0 by the original, on two threads; loss and gradient in float64, 3.5 and 15.7.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import HistGradientBoostingClassifier
    >>> from fastsig.interop.sklearn import HalfBinomialLoss
    >>> X, y = np.arange(100.0)[:, None], np.arange(100) >= 50
    >>> model = HistGradientBoostingClassifier(loss=HalfBinomialLoss()).fit(X, y)
    >>> model.predict([[0.0], [99.0]])
    array([False,  True])
    >>> HalfBinomialLoss().gradient(np.array([1.0]), np.array([40.0]))
    array([-4.24835426e-18])
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.closs, self.link = Computing(), Link()

    def predict_proba(self, raw_prediction: Any) -> Any:
        """The probabilities of both classes: the first isn't 1 less the second, so it keeps its digits.

        Parameters
        ----------
        raw_prediction : ndarray of shape (n_samples,) or (n_samples, 1)
            The margins.

        Returns
        -------
        ndarray of shape (n_samples, 2)
            Of the margins' dtype.

        Examples
        --------
        >>> import numpy as np
        >>> from fastsig.interop.sklearn import HalfBinomialLoss
        >>> HalfBinomialLoss().predict_proba(np.array([0.0, 40.0]))
        array([[5.00000000e-01, 5.00000000e-01],
               [4.24835426e-18, 1.00000000e+00]])
        """
        x = raw_prediction.reshape(-1)
        both = np.empty((len(x), 2), dtype=x.dtype)
        fastsig.sigmoid(-x, out=both[:, 0])
        fastsig.sigmoid(x, out=both[:, 1])
        return both


def logistic_value_and_grad(
    X: Any,  # noqa: N803
    y: Any,
    *,
    sample_weight: Any = None,
    C: float = 1.0,  # noqa: N803
    fit_intercept: bool = True,
) -> Callable[[Any], tuple[float, Any]]:
    """The objective of logistic regression, for an optimiser: its value and its gradient together.

    That is the mean of the rows' cross-entropies, weighted, and ``w·w / (2·C·s)`` for the coefficients w without the
    intercept, where s is the sum of the weights: `sklearn.linear_model.LogisticRegression` has its minimum at the same place.

    Parameters
    ----------
    X : array_like or SciPy sparse array of shape (n_samples, n_features)
        Of float32 or float64; integers become float64. With float32 it is computed in float32, but for sums of losses.
    y : array_like of shape (n_samples,)
        Labels in [0, 1].
    sample_weight : array_like of shape (n_samples,), optional
        The rows' weights.
    C : float, default 1.0
        The inverse of the strength of the penalty; infinite for none.
    fit_intercept : bool, default True
        Whether the last coefficient is an intercept, without a penalty.

    Returns
    -------
    callable
        Of the coefficients, shape (n_features,) or, with an intercept, (n_features + 1,), the intercept last; it returns the
        value, a float, and the gradient, float64 of the same shape. It keeps its buffers: not for two threads at once.

    Raises
    ------
    ValueError
        For labels outside [0, 1], shapes that don't fit, weights that are negative or all zero, or a C that isn't positive.

    Examples
    --------
    >>> import numpy as np, scipy.optimize
    >>> from fastsig.interop.sklearn import logistic_value_and_grad
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    >>> found = scipy.optimize.minimize(logistic_value_and_grad(X, y), np.zeros(2), jac=True, method="L-BFGS-B")
    >>> found.x.round(3)
    array([ 0.958, -1.437])
    """
    X = X if scipy.sparse.issparse(X) else np.asarray(X)  # noqa: N806
    dtype = np.result_type(X.dtype, np.float32)
    labels = np.ascontiguousarray(y, dtype=dtype)
    if labels.shape != X.shape[:1] or not (labels.min() >= 0 and labels.max() <= 1):
        raise ValueError(f"y must have the shape {X.shape[:1]} and labels in [0, 1]")
    share = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if share.shape != labels.shape:
        raise ValueError(f"sample_weight must have the shape {labels.shape}, not {share.shape}")
    if not (share.min() >= 0 and 0 < share.sum() < np.inf):
        raise ValueError(f"sample_weight must be finite, not negative and not all zero; its least entry is {share.min()}")
    if not C > 0:
        raise ValueError(f"C must be greater than zero, not {C!r}")
    penalty = 1 / (C * share.sum())
    share = share / share.sum()
    loss, slope = np.empty_like(labels), np.empty_like(labels)
    features = X.shape[1]

    def value_and_grad(coefficients: Any) -> tuple[float, Any]:
        if np.shape(coefficients) != (features + fit_intercept,):
            raise ValueError(f"there must be {features + fit_intercept} coefficients, not of shape {np.shape(coefficients)}")
        w = coefficients[:features]
        margins = X @ w.astype(dtype, copy=False)
        if fit_intercept:
            margins += dtype.type(coefficients[features])
        fastsig.bce_with_logits_value_and_grad(margins, labels, out=(loss, slope))
        np.multiply(slope, share, out=slope, casting="same_kind")
        gradient = np.empty(len(coefficients))
        gradient[:features] = X.T @ slope + penalty * w
        if fit_intercept:
            gradient[features] = slope.sum(dtype=np.float64)
        return float(loss @ share + penalty / 2 * (w @ w)), gradient

    return value_and_grad
