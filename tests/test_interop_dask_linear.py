"""Logistic regression on Dask arrays: scikit-learn's coefficients, whatever the chunks, and whichever worker is lost."""

from __future__ import annotations

import doctest
import itertools
import math
import os
import pickle
import signal
import warnings
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from conftest import assert_same

pytest.importorskip("dask.array", reason="Dask isn't installed")
pytest.importorskip("distributed", reason="distributed isn't installed")
pytest.importorskip("sklearn", reason="scikit-learn isn't installed")
import dask
import dask.array as da
import distributed
import sklearn
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.linear_model import LogisticRegression as Peer
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastsig import regression
from fastsig.interop import dask_linear
from fastsig.interop.dask_linear import LogisticRegression

CLOSE = {"tol": 1e-10, "max_iter": 5000}


def rows(n=2000, features=5, dtype="float64", seed=0, shift=0.0, noise=1.0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, features)) * np.linspace(0.5, 3, features)  # noqa: N806
    y = X @ random.normal(size=features) + shift + noise * random.logistic(size=n) > 0
    return X.astype(dtype), y, random.uniform(0, 2, n)


def chunked(array, size):
    return da.from_array(array, chunks=(size, *array.shape[1:]))


def coefficients(model):
    return np.append(model.coef_, model.intercept_)


# --- a block -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("features", [1, 3, 8, 9, 40, 700])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_a_block(dtype, features, weighted):
    """In so many words."""
    X, y, weight = rows(531, features, dtype)  # noqa: N806
    w = np.linspace(-0.2, 0.3, features + 1)
    z = X.astype(np.float64) @ w[:-1] + w[-1]
    share = weight if weighted else np.ones(len(y))
    slope = share * (expit(z) - y)
    terms = np.column_stack([share * (np.logaddexp(0, z) - y * z), slope[:, None] * X, slope])
    got = regression.sums(X, y, weight if weighted else None, w)
    assert got.shape == (features + 2, 2)
    bound = 1e-14 * (1 + abs(z).max()) * abs(terms).sum(axis=0)
    assert (abs(got.sum(axis=1) - [math.fsum(column) for column in terms.T]) <= bound).all()


@pytest.mark.parametrize("features", [3, 8, 40])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_are_the_same_wherever_a_row_is(dtype, features):
    """Of any part of any array: in another order, with gaps, with columns first, byte-swapped, in parts."""
    X, y, weight = rows(1300, features, dtype)  # noqa: N806
    w = np.linspace(-0.2, 0.3, features + 1)

    def total_of(*blocks):
        return [math.fsum(np.ravel(pairs)) for pairs in zip(*(regression.sums(*block, w) for block in blocks), strict=True)]

    want = total_of((X, y, weight))
    order = np.random.default_rng(1).permutation(len(X))
    wide = np.full((2 * len(X), features + 3), np.nan, dtype)
    wide[::2, 1:-2] = X
    for same in (
        [(X[order], y[order], weight[order])],
        [(np.asfortranarray(X), y, weight)],
        [(wide[::2, 1:-2], y, weight)],
        [(X[::-1], y[::-1], weight[::-1])],
        [(X.astype(X.dtype.newbyteorder()), y, weight)],
        [(X[i:j], y[i:j], weight[i:j]) for i, j in ((0, 1), (1, 1), (1, 18), (18, 1000), (1000, 1300))],
    ):
        assert total_of(*same) == want


# --- against scikit-learn ------------------------------------------------------------------------------------------------

SETS = {
    "plain": {},
    "nearly separable": {"noise": 0.01, "n": 500},
    "unbalanced": {"shift": -9.0, "n": 5000},
    "wide": {"features": 60},
    "float32": {"dtype": "float32"},
}


@pytest.mark.parametrize("settings", [{}, {"C": 0.01}, {"fit_intercept": False}, {"weighted": True}], ids=str)
@pytest.mark.parametrize("data", SETS)
def test_coefficients_are_scikit_learns(data, settings):
    X, y, weight = rows(**SETS[data])  # noqa: N806
    settings = dict(settings)
    weight = weight if settings.pop("weighted", False) else None
    assert 0 < y.mean() < 1
    want = Peer(**settings, **CLOSE).fit(X.astype(np.float64), y, sample_weight=weight)
    got = LogisticRegression(**settings, **CLOSE).fit(
        chunked(X, 1700), chunked(y, 1700), None if weight is None else chunked(weight, 1700)
    )
    np.testing.assert_allclose(coefficients(got), coefficients(want), rtol=0, atol=1e-5)
    assert (got.coef_.shape, got.intercept_.shape) == (want.coef_.shape, want.intercept_.shape)


def test_with_its_defaults_it_takes_the_same_steps():
    X, y, _ = rows()  # noqa: N806
    want, got = Peer().fit(X, y), LogisticRegression().fit(X, y)
    np.testing.assert_allclose(coefficients(got), coefficients(want), rtol=0, atol=1e-9)
    assert_same(got.n_iter_, want.n_iter_)
    assert np.array_equal(got.predict(X), want.predict(X))
    np.testing.assert_allclose(got.predict_proba(X), want.predict_proba(X), rtol=1e-8)
    np.testing.assert_allclose(got.decision_function(X), want.decision_function(X), rtol=0, atol=1e-8)
    assert got.score(X, y) == want.score(X, y)


def test_without_a_penalty():
    X, y, _ = rows()  # noqa: N806
    want, got = (kind(C=np.inf, **CLOSE).fit(X, y) for kind in (Peer, LogisticRegression))
    np.testing.assert_allclose(coefficients(got), coefficients(want), rtol=0, atol=1e-5)


@parametrize_with_checks([LogisticRegression()])
def test_scikit_learns_own_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", DataConversionWarning)
        check(estimator)


# --- chunks --------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_chunks_do_not_show():
    """Not even after many steps of a badly conditioned fit."""
    X, y, weight = rows(3000, 6)  # noqa: N806
    X = X * 10.0 ** np.array([-2, 0, 1, 2, 3, -1]) + [5, 0, 0, 100, 0, 0]  # noqa: N806
    want = LogisticRegression(tol=1e-9, max_iter=80).fit(X, y, weight)
    assert want.n_iter_[0] > 50
    with dask.config.set(scheduler="sync"):
        for size in (1000, 600, (1, 998, 2001)):
            got = LogisticRegression(tol=1e-9, max_iter=80).fit(chunked(X, size), chunked(y, size), chunked(weight, size))
            assert_same(coefficients(got), coefficients(want))


def test_chunks_of_unknown_sizes():
    X, y, weight = rows()  # noqa: N806
    kept = X[:, 0] > -0.2
    parts = [chunked(a, 500)[chunked(kept, 500)] for a in (X, y, weight)]
    assert math.isnan(parts[0].shape[0])
    got = LogisticRegression().fit(*parts)
    assert_same(coefficients(got), coefficients(LogisticRegression().fit(X[kept], y[kept], weight[kept])))
    assert np.array_equal(got.predict(parts[0]).compute(), got.predict(X[kept]))
    assert got.score(*parts) == pytest.approx(got.score(X[kept], y[kept], weight[kept]), rel=1e-12)


def test_features_in_several_chunks():
    X, y, _ = rows()  # noqa: N806
    got = LogisticRegression().fit(da.from_array(X, chunks=(700, 2)), chunked(y, 300))
    assert_same(coefficients(got), coefficients(LogisticRegression().fit(X, y)))
    np.testing.assert_allclose(got.decision_function(da.from_array(X, chunks=(700, 2))), got.decision_function(X), rtol=1e-12)


def test_blocks_without_rows_and_labels_in_memory():
    X, y, weight = rows()  # noqa: N806
    got = LogisticRegression().fit(da.from_array(X, chunks=((0, 1500, 0, 500), 5)), y.tolist(), weight)
    assert_same(coefficients(got), coefficients(LogisticRegression().fit(X, y, weight)))


def test_predictions_are_lazy():
    X, y, _ = rows()  # noqa: N806
    model = LogisticRegression().fit(X, np.where(y, "yes", "no"))

    def fail(block):
        raise AssertionError("computed")

    never = chunked(X, 500).map_blocks(fail, dtype=X.dtype, meta=np.empty((0, 0)))
    for method in (model.predict, model.predict_proba, model.decision_function):
        lazy, want = method(never), method(X)
        assert (lazy.shape, lazy.dtype, lazy.numblocks[0]) == (want.shape, want.dtype, 4)
        got = method(chunked(X, 500)).compute()
        if method == model.predict:
            assert np.array_equal(got, want)
        else:  # BLAS takes other ways for other numbers of rows
            np.testing.assert_allclose(got, want, rtol=1e-12)
    assert model.score(chunked(X, 500), chunked(np.where(y, "yes", "no"), 400)) == model.score(X, np.where(y, "yes", "no"))


@pytest.mark.parametrize("labels", [("no", "yes"), (-1, 1), (1.5, 7.0), (False, True)])
def test_classes_of_any_kind(labels):
    X, y, _ = rows()  # noqa: N806
    named = np.array(labels)[y.astype(int)]
    model = LogisticRegression().fit(chunked(X, 400), chunked(named, 400))
    assert model.classes_.tolist() == list(labels)
    assert_same(coefficients(model), coefficients(LogisticRegression().fit(X, y)))
    assert (model.predict(X) == np.array(labels)[Peer().fit(X, y).predict(X).astype(int)]).all()


def test_features_of_any_numbers():
    X, y, _ = rows()  # noqa: N806
    whole = np.round(X).astype(np.int16)
    want = LogisticRegression().fit(whole.astype(np.float64), y)
    for kind in ("int16", "int64", "float16", ">f8", ">f4"):
        got = LogisticRegression().fit(chunked(whole.astype(kind), 900), chunked(y, 900))
        np.testing.assert_allclose(coefficients(got), coefficients(want), rtol=1e-12)


def test_both_probabilities_keep_their_digits():
    model = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])
    model.coef_, model.intercept_ = np.array([[1.0]]), np.zeros(1)
    low, high = model.predict_proba(np.array([[-100.0], [100.0]]))
    assert low[1] == high[0] == pytest.approx(math.exp(-100), rel=1e-14)


# --- what goes wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"C": 0}, "C must be a finite number greater than 0, not 0"),
        ({"C": -1.0}, "C must be a finite number greater than 0"),
        ({"C": np.nan}, "C must be a finite number greater than 0"),
        ({"tol": -1e-3}, "tol must be a finite number at least 0"),
        ({"max_iter": 0}, "max_iter must be at least 1, not 0"),
    ],
)
def test_wrong_settings_leave_the_model_as_it_was(settings, message):
    X, y, _ = rows()  # noqa: N806
    model = LogisticRegression().fit(X, y)
    before = coefficients(model)
    with pytest.raises(ValueError, match=message):
        model.set_params(**settings).fit(X, y)
    assert_same(coefficients(model), before)


X, Y, WEIGHT = rows(40, 3)
WITH_NAN, WITH_INF = X.copy(), X.copy()
WITH_NAN[17, 1], WITH_INF[39, 2] = np.nan, np.inf


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((WITH_NAN, Y), ValueError, "X contains NaN or infinity"),
        ((WITH_INF, Y), ValueError, "X contains NaN or infinity"),
        ((X, np.where(Y, 1.0, np.nan)), ValueError, "y contains NaN"),
        ((X, Y[:-1]), ValueError, r"y must have the shape \(40,\), for X has 40 rows, not \(39,\)"),
        ((X, Y, WEIGHT[:-1]), ValueError, r"sample_weight must have the shape \(40,\)"),
        ((X, Y, -WEIGHT), ValueError, "sample_weight must be finite and not negative"),
        ((X, Y, 0 * WEIGHT), ValueError, "sample_weight must be greater than 0 somewhere"),
        ((X, Y, WEIGHT + np.inf), ValueError, "sample_weight must be finite"),
        ((X[:0], Y[:0]), ValueError, "no rows"),
        ((X[:, :0], Y), ValueError, r"0 feature\(s\)"),
        ((X, Y[:, None]), ValueError, "y must have the shape"),
        ((X[:, 0], Y), ValueError, "X must have two dimensions"),
        ((X, np.zeros(40)), ValueError, "y must have two classes, but the data contains one class only: np.float64"),
        ((X, np.arange(40) % 3), ValueError, "y must have two classes, but there are 0, 1, 2. Only binary"),
        ((X, np.arange(40)), ValueError, "8, 9 and more"),
        ((X.astype(complex), Y), TypeError, "X must be of real numbers of at most 64 bits, not complex128"),
        ((X.astype("U5"), Y), TypeError, "X must be of real numbers"),
    ],
)
def test_wrong_data(arguments, error, message):
    lazy = [da.from_array(a, chunks=(max(len(a) // 3, 1), *a.shape[1:])) for a in arguments]
    model = LogisticRegression()
    with pytest.raises(error, match=message), dask.config.set(scheduler="sync"):
        model.fit(*lazy)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_blocks_that_do_not_match():
    """Of unknown sizes, it shows only where they are computed."""
    lazy, labels = chunked(X, 10), chunked(Y, 10)
    with pytest.raises(ValueError, match=r"a block of X has \d+ rows, that of y"):
        LogisticRegression().fit(lazy[chunked(X[:, 0] > 0, 10)], labels[chunked(X[:, 1] > 0, 10)])
    with pytest.raises(ValueError, match="X has 4 blocks, y 2, and their sizes aren't known"):
        LogisticRegression().fit(lazy[labels], chunked(Y, 20)[chunked(Y, 20)])
    with pytest.raises(ValueError, match="call its compute_chunk_sizes"):
        LogisticRegression().fit(lazy[labels], Y)


def test_chunks_that_are_not_numpys():
    masked = chunked(X, 10).map_blocks(np.ma.masked_invalid)
    assert isinstance(masked._meta, np.ma.MaskedArray)
    with pytest.raises(TypeError, match="X must have chunks of NumPy arrays, not of MaskedArray"):
        LogisticRegression().fit(masked, chunked(Y, 10))
    hidden = chunked(X, 10).map_blocks(np.ma.masked_invalid, meta=np.empty((0, 0)))
    with pytest.raises(TypeError, match="X must have chunks of NumPy arrays, not of MaskedArray"):
        LogisticRegression().fit(hidden, chunked(Y, 10))
    with pytest.raises(TypeError, match="y and sample_weight are Dask arrays, but X isn't"):
        LogisticRegression().fit(X, chunked(Y, 10))
    with pytest.raises(TypeError, match="X must be a Dask array, not Delayed"):
        LogisticRegression().fit(dask.delayed(X), Y)


def test_predicting_what_does_not_fit():
    model = LogisticRegression().fit(X, Y)
    with pytest.raises(ValueError, match="X has 2 features, but LogisticRegression is expecting 3"):
        model.predict(chunked(X[:, :2], 10))
    with pytest.raises(NotFittedError):
        LogisticRegression().predict_proba(chunked(X, 10))


def test_too_few_steps():
    with pytest.warns(ConvergenceWarning, match="the fit ended after 2 steps, and isn't done"):
        model = LogisticRegression(max_iter=2).fit(chunked(X, 10), chunked(Y, 10))
    assert model.n_iter_.tolist() == [2]


def test_examples():
    pytest.importorskip("fastsig.interop.dask", reason="the examples import the class from there")
    failed, tried = doctest.testmod(dask_linear)
    assert failed == 0
    assert tried > 10


@pytest.mark.parametrize(("library", "extra"), [("dask", r"'fastsig\[dask\]'"), ("sklearn", r"'fastsig\[dask,sklearn\]'")])
def test_without_its_libraries(python, library, extra):
    code = f"""
import sys
sys.modules["{library}"] = None
try:
    import fastsig.interop.dask_linear
except ImportError as error:
    print(error)
"""
    assert python(code).endswith(f"pip install {extra}".replace("\\", ""))


# --- how it is used ------------------------------------------------------------------------------------------------------


def test_progress_is_shown_if_wanted(capfd, monkeypatch):
    pytest.importorskip("rich", reason="rich isn't installed")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as if there were a terminal
    LogisticRegression().fit(chunked(X, 10), chunked(Y, 10))
    assert capfd.readouterr() == ("", "")
    LogisticRegression(verbose=True).fit(chunked(X, 10), chunked(Y, 10))
    out, err = capfd.readouterr()
    assert out == ""
    assert "fitting" in err


def test_models_pickle_and_clone():
    model = LogisticRegression(C=2.0).fit(X, Y)
    assert_same(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))
    assert sklearn.base.clone(model).get_params() == model.get_params()


def test_one_task_a_block():
    """Data that are made in the task that evaluates them aren't kept, and labels made of them don't make them anew."""
    made = []

    def make(block_info=None):
        made.append(1)
        return X

    lazy = da.map_blocks(make, chunks=((40, 40), (3,)), dtype=float, meta=np.empty((0, 0)))
    labels = lazy[:, 0] > 0
    with dask.config.set(scheduler="sync"), pytest.warns(ConvergenceWarning):
        LogisticRegression(max_iter=1).fit(lazy, labels)
    evaluations = len(made) // 2 - 1  # without the pass over the labels
    assert len(made) % 2 == 0
    assert 2 <= evaluations <= 4


# --- a cluster -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    settings = {"distributed.worker.daemon": True, "distributed.logging.distributed": "error"}
    options = {
        "host": "127.0.0.1",
        "local_directory": tmp_path_factory.mktemp("dask"),
        "scheduler_kwargs": {"dashboard": False},
    }
    options["dashboard_address"] = "127.0.0.1:0"  # any free port: with None there is a server on 8787, dashboard or not
    with (
        dask.config.set(settings),
        distributed.LocalCluster(2, threads_per_worker=1, silence_logs=50, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def made_of(block_info=None, fatal=None):
    """A block of rows by its number; the one to be computed after the file `fatal` appears costs the process."""
    if fatal:
        with suppress(FileNotFoundError):
            os.unlink(fatal)  # of two at once, one can
            os.kill(os.getpid(), signal.SIGKILL)
    random = np.random.default_rng(block_info[None]["chunk-location"][0])
    return random.normal(size=(500, 4)).astype(np.float32)


def generated(blocks, fatal=None):
    return da.map_blocks(
        made_of, fatal=fatal, chunks=((500,) * blocks, (4,)), dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )


def test_on_a_cluster_it_is_the_same(client):
    lazy = generated(3)
    labels = lazy.sum(axis=1) > 0.3
    X, y = dask.compute(lazy, labels, scheduler="sync")  # noqa: N806
    want = LogisticRegression(tol=0.01).fit(X, y)
    with client.as_current():
        for data in ((lazy, labels), dask.persist(lazy, labels), (lazy, y)):
            got = LogisticRegression(tol=0.01).fit(*data)
            assert_same(coefficients(got), coefficients(want))
        assert got.score(lazy, labels) == want.score(X, y)


def at_step(monkeypatch, number, action):
    """Do something in the midst of a fit."""

    @contextmanager
    def progress(wanted, total):
        steps = itertools.count(1)
        yield lambda *_: action() if next(steps) == number else None

    monkeypatch.setattr(dask_linear, "progress", progress)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
@pytest.mark.parametrize("when", ["idle, with what it kept", "at work"])
def test_a_worker_killed_costs_no_result(client, monkeypatch, tmp_path, when):
    """By its process id, in the midst of the fit."""
    fatal = tmp_path / "fatal"
    lazy = generated(4, str(fatal))
    labels = lazy.sum(axis=1) > 0.3
    want = LogisticRegression(tol=1e-3).fit(*dask.compute(lazy, labels, scheduler="sync"))
    before = client.run(os.getpid)
    with client.as_current():
        if when == "at work":
            at_step(monkeypatch, 3, fatal.touch)
        else:
            lazy, labels = dask.persist(lazy, labels)
            distributed.wait([lazy, labels])
            at_step(monkeypatch, 3, lambda: os.kill(next(iter(before.values())), signal.SIGKILL))
        model = LogisticRegression(tol=1e-3).fit(lazy, labels)
    assert model.n_iter_[0] > 3
    assert_same(coefficients(model), coefficients(want))
    client.wait_for_workers(2)
    assert len(set(before.values()) - set(client.run(os.getpid).values())) == 1


@pytest.mark.parametrize(
    "y",
    [
        np.array([1j, 0, 1, 0]),
        np.array(["2020-01-01", "NaT", "2020-01-01", "NaT"], "M8[D]"),
        np.array(["a", np.nan, "a", np.nan], object),
    ],
    ids=["complex", "NaT", "NaN among objects"],
)
def test_labels_that_are_none(y):
    with pytest.raises(ValueError, match="complex numbers or missing values"):
        regression.surveyed(y)


def test_weights_that_are_no_real_numbers():
    with pytest.raises(TypeError, match="real numbers, not complex128"):
        regression.surveyed(np.zeros(2), np.ones(2, complex))
