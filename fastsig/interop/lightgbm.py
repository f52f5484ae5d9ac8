"""LightGBM's binary objective: gradient and Hessian in one pass.

    from fastsig.interop.lightgbm import Binary, initial_score, probabilities
    start = initial_score(y)
    data = lightgbm.Dataset(X, y, init_score=np.full(len(y), start))
    booster = lightgbm.train({"objective": Binary()}, data)
    p = probabilities(booster.predict(X), start)

The model is that of the built-in objective, to rounding. What is to know about it:

- *Margins.* A model with an objective from outside predicts margins (logits), `LGBMClassifier.predict_proba` too (it warns),
  and its `predict` then gives no classes. `probabilities` converts them; metrics get margins.
- *Initial score.* ``boost_from_average`` works for LightGBM's own objectives only. Begin at `initial_score` by
  ``Dataset(init_score=)`` or ``fit(init_score=)``, and add it to the predictions, which leave it out: the second argument of
  `probabilities`. Without one, training begins at 0, as the built-in objective does with ``boost_from_average=False``.
- *Weights.* Those of the rows are multiplied in here: LightGBM leaves that to the objective, and ignores the parameters
  ``scale_pos_weight`` and ``is_unbalance`` for it: give the former here.
- *Hessian.* As it is: LightGBM's own has no lower bound either (``min_sum_hessian_in_leaf`` guards its sums).
- *dtypes.* LightGBM's margins are float64 and its labels float32: it is computed in float64, and LightGBM rounds the results
  to float32, as those of its own objective.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import fastsig
from fastsig.interop.boosting import arguments, gradients, mean_label

try:
    import lightgbm
except ModuleNotFoundError as missing:
    raise ImportError("fastsig.interop.lightgbm needs LightGBM: pip install 'fastsig[lightgbm]'") from missing

__all__ = ["Binary", "initial_score", "probabilities"]


@dataclass(frozen=True)
class Binary:
    """The binary cross-entropy of a margin x and a label t: gradient sigmoid(x) - t, Hessian sigmoid'(x).

    One object for both of LightGBM's interfaces: it is called with margins and a `Dataset` by `lightgbm.train`, with labels,
    margins and weights by `LGBMClassifier`. It pickles, and scikit-learn can clone it.

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
    >>> import numpy as np, lightgbm
    >>> from fastsig.interop.lightgbm import Binary, probabilities
    >>> X = np.arange(40.0)[:, None]
    >>> y = np.arange(40) >= 20
    >>> booster = lightgbm.train({"objective": Binary(), "verbose": -1, "min_data_in_leaf": 5}, lightgbm.Dataset(X, y))
    >>> probabilities(booster.predict([[0.0], [39.0]])).round(2)
    array([0., 1.])
    """

    scale_pos_weight: float = 1.0

    def __call__(self, first: Any, second: Any, weight: Any = None) -> tuple[Any, Any]:
        """Gradient and Hessian of each row: of shape (rows,), float64 where the margins are.

        Parameters
        ----------
        first, second : ndarray and Dataset, or ndarray and ndarray
            Margins and the data they belong to; or labels and margins: LightGBM's two orders.
        weight : ndarray, optional
            For the second order.
        """
        return gradients(*arguments(first, second, weight, lightgbm.Dataset), self.scale_pos_weight)


def initial_score(label: Any, weight: Any = None) -> float:
    """The margin to begin at: the logit of the weighted share of positive labels.

    LightGBM's own estimate takes the rows' weights into account and `scale_pos_weight` not.

    Parameters
    ----------
    label : array_like of shape (rows,)
        In [0, 1].
    weight : array_like of shape (rows,), optional
        The rows' weights.

    Returns
    -------
    float
        Infinite if all labels are the same.

    Examples
    --------
    >>> round(initial_score([0, 0, 0, 1]), 6)
    -1.098612
    """
    return float(fastsig.logit(mean_label(label, weight)))


def probabilities(margin: Any, initial: Any = 0.0) -> Any:
    """The probabilities of the positive class: `fastsig.sigmoid` of the margins and the score that training began at.

    Parameters
    ----------
    margin : array_like
        What the model predicts.
    initial : array_like, default 0
        The initial score, which predictions leave out.

    Returns
    -------
    ndarray
        Of the broadcast shape.

    Examples
    --------
    >>> probabilities([0.0, 2.0])
    array([0.5       , 0.88079708])
    """
    return fastsig.sigmoid(np.asarray(margin) + initial)
