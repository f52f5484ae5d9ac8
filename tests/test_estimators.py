"""The estimators: scikit-learn's own checks, and agreement with its models."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn isn't installed")

from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier as Peer
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastsig.nn import MLPClassifier, MLPRegressor, Network


@parametrize_with_checks([MLPClassifier(), MLPRegressor()])
def test_scikit_learns_own_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # they stop early
        check(estimator)


def blobs(classes, n=300, seed=0):
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n)
    angle = 2 * np.pi * y / classes
    return np.column_stack([np.cos(angle), np.sin(angle)]) * 3 + random.normal(size=(n, 2)), y


@pytest.mark.parametrize("labels", [("no", "yes"), (3, 1, 2), (-1, 1)])
def test_classes_of_any_kind(labels):
    x, y = blobs(len(labels))
    y = np.array(labels)[y]
    model = MLPClassifier((10,), learning_rate_init=0.01, max_iter=3000, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.9
    assert model.classes_.tolist() == sorted(labels)
    probabilities = model.predict_proba(x)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (model.classes_[probabilities.argmax(axis=1)] == model.predict(x)).all()


def test_several_labels():
    x, y = blobs(4)
    y = np.column_stack([y > 1, y % 2]).astype(int)
    model = MLPClassifier((10,), learning_rate_init=0.01, max_iter=3000, random_state=0).fit(x, y)
    assert (model.predict(x) == y).mean() > 0.9
    assert model.out_activation_ == "sigmoid"


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_the_same_steps_as_scikit_learn(solver):
    """From its first weights, in the samples' own order, scikit-learn's classifier arrives at the same network."""
    x, y = blobs(3, n=120)
    settings = {"hidden_layer_sizes": (7,), "activation": "logistic", "solver": solver, "alpha": 0.1, "batch_size": 40}
    settings |= {"shuffle": False, "max_iter": 20, "n_iter_no_change": 30, "learning_rate_init": 0.01, "epsilon": 1e-12}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = Peer(**{**settings, "learning_rate_init": 1e-300}, random_state=0).fit(x, y)
        peer = Peer(**settings, random_state=0).fit(x, y)
    network = Network((2, 7, 3), loss="cross_entropy", seed=0)
    for own, given in zip(network.weights + network.biases, start.coefs_ + start.intercepts_, strict=True):
        own[...] = given
    network.fit(x, y, epochs=20, batch_size=40, shuffle=False, optimizer=MLPClassifier(**settings)._optimizer(40))
    for own, given in zip(network.weights + network.biases, peer.coefs_ + peer.intercepts_, strict=True):
        np.testing.assert_allclose(own, given, rtol=1e-7, atol=1e-9)


def test_numbers_are_predicted():
    x = np.linspace(-2, 2, 200)[:, None]
    for y in (np.sin(2 * x[:, 0]), np.hstack([np.sin(2 * x), np.abs(x)])):
        model = MLPRegressor((30,), activation="tanh", learning_rate_init=0.01, max_iter=2000, random_state=0).fit(x, y)
        assert model.score(x, y) > 0.95
        assert model.predict(x).shape == y.shape


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("activation must be one of .* not 'relu'", {"activation": "relu"}),
        ("solver must be one of 'adam', 'sgd', not 'lbfgs'", {"solver": "lbfgs"}),
        ("alpha must be a finite number at least 0, not -1", {"alpha": -1}),
        ("learning_rate_init must be a finite number greater than 0, not 0", {"learning_rate_init": 0}),
        ("max_iter must be at least 1, not 0", {"max_iter": 0}),
        ("batch_size must be at least 1, not 0", {"batch_size": 0}),
        ("hidden_layer_sizes must be at least 1, not 0", {"hidden_layer_sizes": (3, 0)}),
    ],
)
def test_wrong_settings_leave_the_model_as_it_was(text, settings):
    x, y = blobs(2)
    model = MLPClassifier((3,), max_iter=500, learning_rate_init=0.1, random_state=0).fit(x, y)
    before = model.network_.parameters.tobytes()
    with pytest.raises(ValueError, match=text):
        model.set_params(**settings).fit(x, y)
    assert model.network_.parameters.tobytes() == before


def test_without_scikit_learn(python):
    """nn works without it, and says what is missing."""
    code = """
import sys
sys.modules["sklearn"] = None
from fastsig import nn
nn.Network((2, 1)).predict([0, 1])
try:
    nn.MLPClassifier
except ImportError as error:
    print(error)
"""
    assert python(code) == "MLPClassifier and MLPRegressor need scikit-learn 1.6: pip install 'fastsig[sklearn]'"


def test_a_failed_fit_leaves_the_fitted_model():
    x, y = load_iris(return_X_y=True)
    model = fitted(x, y)
    want = model.predict_proba(x)
    with pytest.raises(ValueError, match="solver must be one of"):
        model.set_params(solver="adma").fit(x[:, :2], y == 1)
    assert (model.predict_proba(x) == want).all()
    assert list(model.classes_) == [0, 1, 2]


def test_a_warning_that_is_an_error_keeps_a_whole_model():
    x, y = load_iris(return_X_y=True)
    model = MLPClassifier((5,), max_iter=5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning):
            model.fit(x, y)
    assert model.predict(x).shape == y.shape


def fitted(x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return MLPClassifier((5,), max_iter=20, random_state=0).fit(x, y)
