"""The objectives for XGBoost and LightGBM: models that predict what those of the built-in objectives predict."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from conftest import assert_same

import fastsig

SCALES = (1.0, 3.0)


@pytest.fixture(scope="module")
def rows():
    """Features, labels of which a third are positive, and weights."""
    random = np.random.default_rng(0)
    X = random.normal(size=(3000, 6)).astype(np.float32)  # noqa: N806
    y = (1.5 * X[:, 0] + X[:, 1] - 1 + random.logistic(size=len(X)) > 0).astype(np.float32)
    return X, y, random.uniform(0.5, 3, len(X)).astype(np.float32)


def expected(margin, label, weight, scale, least=0.0):
    dx, ddx = fastsig.bce_with_logits_grad_and_hess(margin, label)
    factor = np.where(label == 1, dx.dtype.type(scale), 1).astype(dx.dtype)
    return tuple(d * factor * weight for d in (dx, np.maximum(ddx, dx.dtype.type(least))))


# --- XGBoost -----------------------------------------------------------------------------------------------------------

PARAMETERS = {"max_depth": 4, "eta": 0.3, "nthread": 1, "min_child_weight": 0.5}


@pytest.fixture
def xgboost():
    return pytest.importorskip("xgboost", reason="xgboost isn't installed")


@pytest.fixture
def fx(xgboost):
    from fastsig.interop import xgboost

    return xgboost


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("weighted", [False, True])
def test_xgboost_train(xgboost, fx, rows, weighted, scale):
    """With the same base score, by probabilities or by margins."""
    X, y, weight = rows  # noqa: N806
    data = xgboost.DMatrix(X, y, weight=weight if weighted else None)
    start = fx.base_score(y, weight if weighted else None, scale)
    logistic = {**PARAMETERS, "objective": "binary:logistic", "base_score": start}
    want = xgboost.train({**logistic, "scale_pos_weight": scale}, data, 50).predict(data)
    ours = xgboost.train(logistic, data, 50, obj=fx.BinaryLogistic(scale))
    np.testing.assert_allclose(ours.predict(data), want, rtol=0, atol=1e-5)
    np.testing.assert_allclose(fx.probabilities(ours.predict(data, output_margin=True)), want, rtol=0, atol=1e-5)
    bare = xgboost.train({**PARAMETERS, "base_score": float(fastsig.logit(start))}, data, 50, obj=fx.BinaryLogistic(scale))
    np.testing.assert_allclose(fx.probabilities(bare.predict(data)), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_xgboost_starts_at_the_same_score(xgboost, fx, rows, weighted):
    """What XGBoost estimates by itself, if it isn't given."""
    if int(xgboost.__version__.split(".")[0]) < 3:
        pytest.skip("before 3.0, XGBoost takes one Newton step instead")
    X, y, weight = rows  # noqa: N806
    weight = weight if weighted else None
    data = xgboost.DMatrix(X, y, weight=weight)
    booster = xgboost.train({**PARAMETERS, "objective": "binary:logistic"}, data, 1)
    estimated = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
    assert float(estimated.strip("[]")) == pytest.approx(fx.base_score(y, weight), rel=1e-6)


def test_xgboost_base_score_by_hand(fx):
    assert fx.base_score([0, 1, 1, 0]) == 0.5
    assert fx.base_score([0, 1], [3, 1]) == 0.25
    assert fx.base_score([0, 1], [3, 1], scale_pos_weight=3) == 0.5


@pytest.mark.parametrize("weighted", [False, True])
def test_xgboost_classifier(xgboost, fx, rows, weighted):
    X, y, weight = rows  # noqa: N806
    pytest.importorskip("sklearn", reason="scikit-learn isn't installed")
    weight = weight if weighted else None
    options = {"n_estimators": 50, "max_depth": 4, "n_jobs": 1, "base_score": fx.base_score(y, weight, 3.0)}
    want = xgboost.XGBClassifier(**options, scale_pos_weight=3.0).fit(X, y, sample_weight=weight)
    ours = xgboost.XGBClassifier(**options, objective=fx.BinaryLogistic(3.0)).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(ours.predict_proba(X), want.predict_proba(X), rtol=0, atol=1e-5)
    assert (ours.predict(X) == want.predict(X)).mean() > 0.999


def test_xgboost_metrics_are_of_probabilities(xgboost, fx, rows):
    X, y, _ = rows  # noqa: N806
    data, seen = xgboost.DMatrix(X, y), {}
    params = {**PARAMETERS, "objective": "binary:logistic", "base_score": fx.base_score(y), "eval_metric": "logloss"}
    options = {"evals": [(data, "train")], "evals_result": seen, "verbose_eval": False}
    booster = xgboost.train(params, data, 20, obj=fx.BinaryLogistic(), **options)
    loss = fastsig.bce_with_logits(booster.predict(data, output_margin=True).astype(float), y).mean()
    assert seen["train"]["logloss"][-1] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_xgboost_derivatives(xgboost, fx, rows, scale):
    """In float32, with the Hessian's least value, whoever calls."""
    X, y, weight = rows  # noqa: N806
    margin = np.linspace(-120, 120, len(y), dtype=np.float32)
    objective = fx.BinaryLogistic(scale)
    want = expected(margin, y, weight, scale, 1e-16)
    assert want[1].min() > 0
    assert {d.dtype for d in want} == {np.dtype(np.float32)}
    assert_same(objective(margin, xgboost.DMatrix(X, y, weight=weight)), want)
    assert_same(objective(y, margin, sample_weight=weight), want)
    unweighted = expected(margin, y, np.float32(1), scale, 1e-16)
    assert_same(objective(margin, xgboost.DMatrix(X, y)), unweighted)
    assert_same(objective(y, margin), unweighted)


# --- LightGBM ----------------------------------------------------------------------------------------------------------

OPTIONS = {"verbose": -1, "num_threads": 1, "num_leaves": 15, "deterministic": True, "force_col_wise": True}


@pytest.fixture
def lightgbm():
    return pytest.importorskip("lightgbm", reason="lightgbm isn't installed")


@pytest.fixture
def fl(lightgbm):
    from fastsig.interop import lightgbm

    return lightgbm


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("weighted", [False, True])
def test_lightgbm_train(lightgbm, fl, rows, weighted, scale):
    X, y, weight = rows  # noqa: N806
    weight = weight if weighted else None
    plain = lightgbm.Dataset(X, y, weight=weight, free_raw_data=False)
    want = lightgbm.train({**OPTIONS, "objective": "binary", "scale_pos_weight": scale}, plain, 60).predict(X)
    start = fl.initial_score(y, weight)
    data = lightgbm.Dataset(X, y, weight=weight, init_score=np.full(len(y), start))
    ours = lightgbm.train({**OPTIONS, "objective": fl.Binary(scale)}, data, 60)
    np.testing.assert_allclose(fl.probabilities(ours.predict(X), start), want, rtol=0, atol=1e-5)


def test_lightgbm_without_an_initial_score(lightgbm, fl, rows):
    X, y, _ = rows  # noqa: N806
    data = lightgbm.Dataset(X, y, free_raw_data=False)
    from_zero = {**OPTIONS, "objective": "binary", "boost_from_average": False}
    want = lightgbm.train(from_zero, data, 60).predict(X)
    ours = lightgbm.train({**OPTIONS, "objective": fl.Binary()}, data, 60)
    np.testing.assert_allclose(fl.probabilities(ours.predict(X)), want, rtol=0, atol=1e-5)


def test_lightgbm_initial_score_by_hand(fl):
    assert fl.initial_score([0, 1, 1, 0]) == 0
    assert fl.initial_score([0, 1], [3, 1]) == pytest.approx(-np.log(3))
    assert fl.initial_score([1, 1]) == np.inf


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")  # LightGBM 4.6 with scikit-learn 1.9
@pytest.mark.parametrize("weighted", [False, True])
def test_lightgbm_classifier(lightgbm, fl, rows, weighted):
    X, y, weight = rows  # noqa: N806
    pytest.importorskip("sklearn", reason="scikit-learn isn't installed")
    weight = weight if weighted else None
    options = {"n_estimators": 50, "n_jobs": 1, "verbose": -1, "deterministic": True, "force_col_wise": True}
    want = lightgbm.LGBMClassifier(**options, scale_pos_weight=3.0).fit(X, y, sample_weight=weight).predict_proba(X)[:, 1]
    start = fl.initial_score(y, weight)
    ours = lightgbm.LGBMClassifier(**options, objective=fl.Binary(3.0))
    ours.fit(X, y, sample_weight=weight, init_score=np.full(len(y), start))
    with pytest.warns(UserWarning, match="customized objective function"):
        margin = ours.predict_proba(X)
    np.testing.assert_allclose(fl.probabilities(margin, start), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_lightgbm_derivatives(lightgbm, fl, rows, scale):
    """In float64, whoever calls."""
    X, y, weight = rows  # noqa: N806
    margin = np.linspace(-120, 120, len(y))
    want = expected(margin, y, weight, scale)
    objective = fl.Binary(scale)
    data = lightgbm.Dataset(X, y, weight=weight).construct()
    assert_same(objective(margin, data), want)
    assert_same(objective(y, margin, weight), want)
    assert_same(objective(y, margin), expected(margin, y, 1.0, scale))


# --- both --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["xgboost", "lightgbm"])
def objective(request):
    adapter = request.getfixturevalue({"xgboost": "fx", "lightgbm": "fl"}[request.param])
    return getattr(adapter, {"xgboost": "BinaryLogistic", "lightgbm": "Binary"}[request.param])(2.0)


def test_pickles_and_clones(objective):
    assert pickle.loads(pickle.dumps(objective)) == objective
    base = pytest.importorskip("sklearn.base", reason="scikit-learn isn't installed")
    assert base.clone(objective, safe=False) == objective
    assert "2.0" in repr(objective)


@pytest.mark.parametrize("labels", [[-1.0, 1.0], [0.0, 2.0], [0.0, np.nan]])
def test_labels_of_another_kind_are_refused(objective, labels):
    with pytest.raises(ValueError, match=r"labels must be 0 and 1, .*\(label \+ 1\) / 2"):
        objective(np.array(labels), np.zeros(2))


def test_too_few_weights_are_refused(objective):
    with pytest.raises(ValueError, match="as many weights as labels, not 1 and 2"):
        objective(np.zeros(2), np.zeros(2), np.ones(1))


def test_no_rows(objective):
    assert [len(d) for d in objective(np.zeros(0), np.zeros(0))] == [0, 0]
