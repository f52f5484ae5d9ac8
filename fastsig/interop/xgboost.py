"""XGBoost's binary logistic objective: gradient and Hessian in one pass.

    from fastsig.interop.xgboost import BinaryLogistic, base_score
    params = {"objective": "binary:logistic", "base_score": base_score(y)}
    booster = xgboost.train(params, xgboost.DMatrix(X, y), obj=BinaryLogistic())
    model = XGBClassifier(objective=BinaryLogistic(), base_score=base_score(y)).fit(X, y)

The model is that of the built-in objective, to a few units in the last place of float32. What is to know about it:

- *Margins.* XGBoost hands an objective margins (logits). What `predict` returns is decided by the parameter ``objective``,
  though `obj` does the training: keep ``"binary:logistic"`` there, as `XGBClassifier` does by itself, and predictions and
  metrics are of probabilities. Without it they are of margins, which `probabilities` converts.
- *Base score.* XGBoost estimates it for its own objectives only; with one from outside it is 0.5 unless given. `base_score`
  gives the share of positive labels, which is what XGBoost takes from 3.0 on. Before, and with `scale_pos_weight`, it takes
  one Newton step from 0 instead: for the very same model, give both the same. Without ``"binary:logistic"`` the base score
  is a margin: give `fastsig.logit` of it.
- *Weights.* Those of the rows (of the `DMatrix`, or `sample_weight`) are multiplied in here: XGBoost leaves that to the
  objective, and ignores the parameter ``scale_pos_weight`` for it: give it here.
- *Hessian.* It is at least 1e-16 before weights, as XGBoost's own.
- *dtypes.* XGBoost's margins, labels and results are float32, and nothing is converted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fastsig
from fastsig.interop.boosting import arguments, gradients, mean_label

try:
    import xgboost
except ModuleNotFoundError as missing:
    raise ImportError("fastsig.interop.xgboost needs XGBoost: pip install 'fastsig[xgboost]'") from missing

__all__ = ["BinaryLogistic", "base_score", "probabilities"]

LEAST_HESSIAN = 1e-16  # XGBoost's own


@dataclass(frozen=True)
class BinaryLogistic:
    """The binary cross-entropy of a margin x and a label t: gradient sigmoid(x) - t, Hessian sigmoid'(x).

    One object for both of XGBoost's interfaces: it is called with margins and a `DMatrix` by `xgboost.train`, with labels,
    margins and perhaps weights by `XGBClassifier`. It pickles, and scikit-learn can clone it.

    Parameters
    ----------
    scale_pos_weight : float, default 1
        By what gradient and Hessian of each row with the label 1 are multiplied.

    Raises
    ------
    ValueError
        When called: for labels outside [0, 1], or where weights and labels differ in number.

    Examples
    --------
    >>> import numpy as np, xgboost
    >>> from fastsig.interop.xgboost import BinaryLogistic, base_score
    >>> X = np.float32([[0], [1], [2], [3]])
    >>> y = np.float32([0, 0, 1, 1])
    >>> params = {"objective": "binary:logistic", "base_score": base_score(y), "min_child_weight": 0}
    >>> booster = xgboost.train(params, xgboost.DMatrix(X, y), num_boost_round=10, obj=BinaryLogistic())
    >>> booster.predict(xgboost.DMatrix(X)) > 0.5
    array([False, False,  True,  True])
    """

    scale_pos_weight: float = 1.0

    def __call__(self, first: Any, second: Any, sample_weight: Any = None) -> tuple[Any, Any]:
        """Gradient and Hessian of each row: float32 of shape (rows,).

        Parameters
        ----------
        first, second : ndarray and DMatrix, or ndarray and ndarray
            Margins and the data they belong to; or labels and margins: XGBoost's two orders.
        sample_weight : ndarray, optional
            For the second order.
        """
        return gradients(*arguments(first, second, sample_weight, xgboost.DMatrix), self.scale_pos_weight, LEAST_HESSIAN)


def base_score(label: Any, weight: Any = None, scale_pos_weight: float = 1.0) -> float:
    """The parameter ``base_score`` to begin with: the weighted share of positive labels.

    Parameters
    ----------
    label : array_like of shape (rows,)
        In [0, 1].
    weight : array_like of shape (rows,), optional
        The rows' weights.
    scale_pos_weight : float, default 1
        By what the weight of each row with the label 1 is multiplied.

    Returns
    -------
    float
        A probability, as ``"binary:logistic"`` wants it.

    Examples
    --------
    >>> base_score([0, 0, 0, 1])
    0.25
    """
    return mean_label(label, weight, scale_pos_weight)


def probabilities(margin: Any) -> Any:
    """The probabilities of the positive class of margins: `fastsig.sigmoid`.

    Parameters
    ----------
    margin : array_like
        Of ``booster.predict(data, output_margin=True)``, or of any prediction of a model that was trained without
        ``"binary:logistic"`` among its parameters.

    Returns
    -------
    ndarray
        Of the shape and dtype of `margin`.

    Examples
    --------
    >>> probabilities([0.0, 2.0])
    array([0.5       , 0.88079708])
    """
    return fastsig.sigmoid(margin)
