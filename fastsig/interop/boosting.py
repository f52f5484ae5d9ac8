"""What the objectives of gradient boosting share."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastsig


def arguments(first: Any, second: Any, weight: Any, container: Any) -> tuple[Any, Any, Any]:
    """Margins, labels and weights, from either library's two orders: margins and their data, or labels, margins and weights."""
    if isinstance(second, container):
        return first, np.asarray(second.get_label()), second.get_weight()
    return np.asarray(second), np.asarray(first), weight


def gradients(margin: Any, label: Any, weight: Any, scale_pos_weight: float, least: float = 0.0) -> tuple[Any, Any]:
    """The first and second derivatives of each row's loss, with its weight.

    Neither library multiplies what a custom objective returns by the rows' weights, nor by `scale_pos_weight`: their own
    objectives do so themselves, and so does this.
    """
    if np.shape(margin) != np.shape(label):
        raise ValueError(f"there must be a margin for each label, not shape {np.shape(margin)} and {np.shape(label)}")
    if label.size and not (label.min() >= 0 and label.max() <= 1):
        raise ValueError("labels must be 0 and 1, or between: those of two classes -1 and 1 become (label + 1) / 2")
    if weight is not None and len(weight) not in (0, len(label)):
        raise ValueError(f"there must be as many weights as labels, not {len(weight)} and {len(label)}")
    dx, ddx = fastsig.bce_with_logits_grad_and_hess(margin, label)
    if least:
        np.maximum(ddx, ddx.dtype.type(least), out=ddx)
    if scale_pos_weight != 1:
        factor = np.where(label == 1, dx.dtype.type(scale_pos_weight), dx.dtype.type(1))
        dx *= factor
        ddx *= factor
    if weight is not None and len(weight):
        dx *= weight
        ddx *= weight
    return dx, ddx


def mean_label(label: Any, weight: Any, scale_pos_weight: float = 1.0) -> float:
    """The weighted share of positive labels."""
    label = np.asarray(label, dtype=np.float64)
    factor = np.where(label == 1, scale_pos_weight, 1.0)
    if weight is not None and len(weight):
        factor = factor * np.asarray(weight, dtype=np.float64)
    return float(np.average(label, weights=factor))
