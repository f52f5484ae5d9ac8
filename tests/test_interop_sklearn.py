"""scikit-learn's loss by fastsig: a drop-in for the original; and logistic regression, with LogisticRegression's result."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from conftest import as_tuple, assert_same

import fastsig
from fastsig.testing import exact, ulp

pytest.importorskip("sklearn", reason="scikit-learn isn't installed")
import scipy.optimize
import scipy.sparse
import sklearn
import threadpoolctl
from sklearn._loss.loss import HalfBinomialLoss as OriginalLoss
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from fastsig.interop.sklearn import HalfBinomialLoss, logistic_value_and_grad

METHODS = {
    "loss": ("loss",),
    "gradient": ("gradient",),
    "loss_gradient": ("loss", "gradient"),
    "gradient_hessian": ("gradient", "hessian"),
}
UFUNCS = {
    "loss": "bce_with_logits",
    "gradient": "bce_with_logits_grad",
    "loss_gradient": "bce_with_logits_value_and_grad",
    "gradient_hessian": "bce_with_logits_grad_and_hess",
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """On a busy machine a team of OpenMP threads waits for its last member at every node of a tree."""
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        yield


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    X = random.normal(size=(3000, 5))  # noqa: N806
    y = X @ random.normal(size=5) - 1 + random.logistic(size=len(X)) > 0
    return X, y, random.uniform(0.5, 2, len(X))


def margins(dtype, count=500):
    random = np.random.default_rng(1)
    return random.normal(scale=8, size=count).astype(dtype), random.integers(0, 2, count).astype(dtype)


def outs(method, count, dtype):
    return {f"{name}_out": np.empty(count, dtype) for name in METHODS[method]}


# --- the loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", [None, "float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
def test_bits_are_the_ufuncs(method, dtype, out):
    """New arrays, or those that are given, of either dtype."""
    x, y = margins(dtype)
    given = outs(method, len(x), out) if out else {}
    want = [np.asarray(a).astype(out or dtype) for a in as_tuple(getattr(fastsig, UFUNCS[method])(x, y))]
    got = as_tuple(getattr(HalfBinomialLoss(), method)(y, x, **given))
    assert_same(got, tuple(want))
    assert all(any(r is o for o in given.values()) for r in got if given)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
def test_results_are_the_originals(method, dtype, weighted, shape):
    """To rounding; absolutely, since the original's loss cancels for a label of 1 (1.5e-8 of it wrong at x = 18 in float64)."""
    x, y = margins(dtype)
    weight = np.random.default_rng(2).uniform(0.5, 2, len(x)).astype(dtype) if weighted else None
    arguments = {"y_true": y, "raw_prediction": x.reshape(shape), "sample_weight": weight, "n_threads": 2}
    methods = (getattr(loss(), method) for loss in (HalfBinomialLoss, OriginalLoss))
    got, want = (as_tuple(compute(**arguments, **outs(method, len(x), dtype))) for compute in methods)
    for one, other in zip(got, want, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=20 * np.finfo(dtype).eps, atol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_probabilities_keep_their_digits(dtype):
    x = np.array([-100, -30, 0, 30, 40, 100], dtype)
    both = HalfBinomialLoss().predict_proba(x[:, None])
    assert (both.shape, both.dtype) == ((6, 2), x.dtype)
    assert ulp(both[:, 1], exact("sigmoid", x)[0]).max() <= 0.85
    assert ulp(both[:, 0], exact("sigmoid", -x)[0]).max() <= 0.85
    assert (both[:, 0] > 0).all()


def test_what_scikit_learn_inherits():
    """What isn't replaced works with what is."""
    x, y = margins("float64")
    ours, original = HalfBinomialLoss(), OriginalLoss()
    assert isinstance(ours, OriginalLoss)
    assert ours(y, x) == pytest.approx(original(y, x), rel=1e-14)
    assert ours.fit_intercept_only(y) == pytest.approx(original.fit_intercept_only(y), rel=1e-14)
    assert ours.in_y_true_range(y)
    assert_same(ours.link.link(ours.link.inverse(np.zeros(3))), np.zeros(3))
    again = pickle.loads(pickle.dumps(ours))
    assert_same(again.gradient(y, x), ours.gradient(y, x))


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_boosting_with_it(rows, weighted, early):
    X, y, weight = rows  # noqa: N806
    options = {"max_iter": 30, "early_stopping": early, "random_state": 0}
    probabilities = []
    for extra in ({}, {"loss": HalfBinomialLoss()}):
        model = sklearn.base.clone(HistGradientBoostingClassifier(**options, **extra))
        model.fit(X, y, sample_weight=weight if weighted else None)
        probabilities.append(model.predict_proba(X))
    np.testing.assert_allclose(*probabilities, rtol=0, atol=1e-6)
    assert isinstance(model._loss, HalfBinomialLoss)
    assert_same(pickle.loads(pickle.dumps(model)).predict_proba(X), probabilities[1])


# --- logistic regression -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("strength", [1e-3, 1.0, np.inf])
def test_minimum_is_that_of_logistic_regression(rows, strength, weighted, intercept):
    X, y, weight = rows  # noqa: N806
    weight = weight if weighted else None
    theirs = LogisticRegression(C=strength, fit_intercept=intercept, tol=1e-10, max_iter=1000).fit(X, y, sample_weight=weight)
    want = np.append(theirs.coef_[0], theirs.intercept_) if intercept else theirs.coef_[0]
    function = logistic_value_and_grad(X, y, sample_weight=weight, C=strength, fit_intercept=intercept)
    options = {"gtol": 1e-10, "ftol": 1e-16, "maxiter": 1000}
    found = scipy.optimize.minimize(function, np.zeros(len(want)), jac=True, method="L-BFGS-B", options=options)
    np.testing.assert_allclose(found.x, want, rtol=0, atol=1e-6)


def test_value_and_gradient(rows):
    """The sums in so many words, and the gradient by differences."""
    X, y, weight = rows  # noqa: N806
    function = logistic_value_and_grad(X, y, sample_weight=weight, C=0.1)
    w = np.array([1.0, -0.5, 0.25, 2, 0, 0.75])
    value, gradient = function(w)
    z = X @ w[:-1] + w[-1]
    share = weight / weight.sum()
    assert type(value) is float
    assert value == pytest.approx(share @ (np.logaddexp(0, z) - y * z) + w[:-1] @ w[:-1] / (0.2 * weight.sum()), rel=1e-13)
    assert scipy.optimize.check_grad(lambda w: function(w)[0], lambda w: function(w)[1], w) < 1e-6
    assert (gradient.shape, gradient.dtype) == (w.shape, np.float64)
    assert gradient is not function(w)[1]


def test_sparse_and_single_precision(rows):
    X, y, _ = rows  # noqa: N806
    w = np.linspace(-1, 1, 6)
    value, gradient = logistic_value_and_grad(X, y)(w)
    for other, tolerance in ((scipy.sparse.csr_array(X), 1e-12), (X.astype(np.float32), 1e-5), (X.tolist(), 1e-14)):
        got = logistic_value_and_grad(other, y)(w)
        assert got[0] == pytest.approx(value, rel=tolerance)
        np.testing.assert_allclose(got[1], gradient, rtol=0, atol=tolerance)


@pytest.mark.parametrize("labels", [[-1, 1, 1], [0, 1], [0, 1, np.nan]])
def test_labels_that_do_not_fit(labels):
    with pytest.raises(ValueError, match=r"y must have the shape \(3,\) and labels in \[0, 1\]"):
        logistic_value_and_grad(np.zeros((3, 2)), labels)


def test_weights_that_do_not_fit():
    with pytest.raises(ValueError, match=r"sample_weight must have the shape \(3,\)"):
        logistic_value_and_grad(np.zeros((3, 2)), [0, 1, 1], sample_weight=[1, 2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"C": -1.0}, "C must be greater than zero, not -1.0"),
        ({"C": 0.0}, "C must be greater than zero"),
        ({"sample_weight": -np.ones(4)}, "sample_weight must be finite, not negative"),
        ({"sample_weight": np.zeros(4)}, "not all zero"),
        ({"sample_weight": np.ones(3)}, r"sample_weight must have the shape \(4,\), not \(3,\)"),
    ],
)
def test_what_is_wrong_with_an_objective_is_told(wrong, message):
    X, y = np.arange(8.0).reshape(4, 2), np.array([0, 0, 1, 1])  # noqa: N806
    with pytest.raises(ValueError, match=message):
        logistic_value_and_grad(X, y, **wrong)
    with pytest.raises(ValueError, match="there must be 3 coefficients"):
        logistic_value_and_grad(X, y)(np.zeros(2))
