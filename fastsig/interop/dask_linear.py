"""Logistic regression on Dask arrays: `fastsig.interop.dask.LogisticRegression`.

Each evaluation is one task a block, in which the block is read once and becomes as many numbers as there are coefficients; the
optimiser runs where `fit` was called. What a row adds and how sums are taken is in `fastsig.regression`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Self

import numpy as np

import fastsig
from fastsig import console, losses, regression
from fastsig.optimizers import integer, real

try:
    import dask
    import dask.array as da
except ImportError as missing:
    raise ImportError("fastsig.interop.dask needs Dask: pip install 'fastsig[dask]'") from missing
try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import column_or_1d
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as missing:
    raise ImportError("LogisticRegression needs scikit-learn 1.6: pip install 'fastsig[dask,sklearn]'") from missing

__all__ = ["LogisticRegression"]

Array = np.ndarray[Any, np.dtype[Any]]

LOCAL_ROWS = 1 << 17  # of a block of an array in memory, at least: some half a millisecond's work


class LogisticRegression(ClassifierMixin, BaseEstimator):
    """Logistic regression of two classes, for data beyond one machine's memory.

    With z = x·w + b for the rows x, and t = 1 for the second class and 0 for the first, it minimises

    Σ s·(ln(1 + e^z) - t·z) + w·w / (2·C)

    over w and b, s the rows' weights: what `sklearn.linear_model.LogisticRegression` minimises with its defaults, and by the
    same steps. Data may be Dask arrays, with any scheduler or cluster, or anything that NumPy makes an array of.

    Parameters
    ----------
    C : float, default 1.0
        The inverse of the penalty's strength; infinite for none.
    fit_intercept : bool, default True
        Whether there is a b. It isn't penalised.
    tol : float, default 1e-4
        The fit ends when no component of the gradient, of the mean loss, is larger.
    max_iter : int, default 100
        The most steps.
    verbose : bool, default False
        Whether to show a progress bar.

    Attributes
    ----------
    coef_ : ndarray of shape (1, n_features)
        w, in float64, as all that follows.
    intercept_ : ndarray of shape (1,)
        b, or 0.
    classes_ : ndarray of shape (2,)
        Sorted.
    n_iter_ : ndarray of shape (1,)
        The steps that were taken.
    n_features_in_, feature_names_in_
        As scikit-learn's.

    Raises
    ------
    TypeError, ValueError
        In `fit`, for parameters or data that aren't so. What was fitted before stays.

    Notes
    -----
    A Dask array of rows has all features in one block, or is rechunked so. Chunks of unknown sizes are taken as they are, if
    `y` and `sample_weight` are Dask arrays of as many. `fit` reads the labels once, then all of it once an evaluation, of
    which a step takes one or a few. It computes it anew each time, which is what data beyond memory needs: call `X.persist()`
    first on what fits. Two numbers for each coefficient travel from a block to the client.

    The coefficients are the same, to the bit, whatever the chunks, the order in which they are computed, and the number of
    workers: margins are in float64, and sums are as if they were exact. Scikit-learn's, of float32 data, are float32.

    A worker that is lost costs what it had computed: the cluster computes that again.

    Examples
    --------
    >>> import dask.array as da
    >>> from fastsig.interop.dask import LogisticRegression
    >>> X = da.random.default_rng(0).normal(size=(10_000, 3), chunks=(2_500, 3))
    >>> y = X[:, 0] > X[:, 1] + 0.5
    >>> model = LogisticRegression().fit(X, y)
    >>> bool(model.score(X, y) > 0.99)
    True
    >>> model.predict_proba(X)
    dask.array<probabilities, shape=(10000, 2), dtype=float64, chunksize=(2500, 2), chunktype=numpy.ndarray>
    """

    def __init__(
        self,
        C: float = 1.0,  # noqa: N803  # scikit-learn's name
        *,
        fit_intercept: bool = True,
        tol: float = 1e-4,
        max_iter: int = 100,
        verbose: bool = False,
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Find the coefficients.

        Parameters
        ----------
        X : dask.array.Array or array_like
            (n_samples, n_features), of numbers; finite.
        y : dask.array.Array or array_like
            (n_samples,), of two classes.
        sample_weight : dask.array.Array or array_like, optional
            (n_samples,), finite and not negative.

        Returns
        -------
        LogisticRegression
            Itself.

        Raises
        ------
        TypeError, ValueError
            For parameters or data that aren't so.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` steps weren't enough.

        Examples
        --------
        >>> from fastsig.interop.dask import LogisticRegression
        >>> model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], ["no", "no", "yes", "yes"])
        >>> model.predict([[0.5], [2.5]])
        array(['no', 'yes'], dtype='<U3')
        """
        penalty = math.inf if is_infinite(self.C) else real("C", self.C, above=True)
        tol, max_iter = real("tol", self.tol), integer("max_iter", self.max_iter)
        before = dict(self.__dict__)
        self.__dict__.pop("feature_names_in_", None)
        try:
            data = Data.of_dask(X, y, sample_weight) if is_dask(X) else Data.of_memory(self, X, y, sample_weight)
            classes, weight = data.survey()
            features = int(data.x.shape[1])
            evaluate = partial(data.evaluate, classes[1])
            function = regression.objective(evaluate, weight, 1 / (penalty * weight), bool(self.fit_intercept))
            with progress(bool(self.verbose), max_iter) as advance:
                found = regression.minimize(function, features + bool(self.fit_intercept), tol, max_iter, advance)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        self.classes_, self.n_features_in_ = classes, features
        self.coef_ = found.coefficients[None, :features].copy()
        self.intercept_ = found.coefficients[features:].copy() if self.fit_intercept else np.zeros(1)
        self.n_iter_ = np.array([found.iterations], np.int32)
        if found.trouble:
            hint = "scale the features, or raise max_iter or tol"
            text = f"the fit ended after {found.iterations} steps, and isn't done ({found.trouble}): {hint}"
            warnings.warn(text, ConvergenceWarning, stacklevel=2)
        return self

    def decision_function(self, X: Any) -> Any:  # noqa: N803
        """The margins z = x·w + b: above 0 for the second class.

        Parameters
        ----------
        X : dask.array.Array or array_like
            (n_samples, n_features)

        Returns
        -------
        dask.array.Array or ndarray
            (n_samples,), float64; lazy, if `X` is.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If `X` has another number of features.

        Examples
        --------
        >>> from fastsig.interop.dask import LogisticRegression
        >>> model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        >>> model.decision_function([[1.5]]).round(3) + 0.0
        array([0.])
        """
        return self._of_rows(X, regression.margins, np.empty(0))

    def predict(self, X: Any) -> Any:  # noqa: N803
        """The more probable class.

        Parameters
        ----------
        X : dask.array.Array or array_like
            (n_samples, n_features)

        Returns
        -------
        dask.array.Array or ndarray
            (n_samples,), of the classes' dtype; lazy, if `X` is.

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`.

        Examples
        --------
        See `fit`.
        """
        check_is_fitted(self)
        return self._of_rows(X, partial(regression.labels, self.classes_), self.classes_[:0])

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """The probability of each class: both keep their digits where they are small.

        Parameters
        ----------
        X : dask.array.Array or array_like
            (n_samples, n_features)

        Returns
        -------
        dask.array.Array or ndarray
            (n_samples, 2), float64; lazy, if `X` is.

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`.

        Examples
        --------
        >>> from fastsig.interop.dask import LogisticRegression
        >>> model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        >>> model.predict_proba([[0.0], [3.0]]).round(2)
        array([[0.81, 0.19],
               [0.19, 0.81]])
        """
        return self._of_rows(X, regression.probabilities, np.empty((0, 2)))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """The share of rows whose class is predicted.

        Parameters
        ----------
        X : dask.array.Array or array_like
            (n_samples, n_features)
        y : dask.array.Array or array_like
            (n_samples,)
        sample_weight : dask.array.Array or array_like, optional
            (n_samples,)

        Returns
        -------
        float

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`.

        Examples
        --------
        >>> from fastsig.interop.dask import LogisticRegression
        >>> model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        >>> model.score([[0.0], [3.0]], [0, 0])
        0.5
        """
        if not is_dask(X):
            return float(super().score(X, y, sample_weight))
        check_is_fitted(self)
        data = Data.of_dask(X, y, sample_weight)
        right = da.map_blocks(np.equal, self.predict(data.x), data.y, dtype=bool, meta=np.empty(0, bool))
        weight = da.ones_like(right, dtype=np.float64) if data.weight is None else data.weight
        counted, total = dask.compute((right * weight).sum(), weight.sum())
        return float(counted / total)

    def _of_rows(self, X: Any, function: Callable[..., Array], like: Array) -> Any:  # noqa: N803
        """A function of the rows, the coefficients and the intercept, whose results are `like` that."""
        check_is_fitted(self)
        w, b = self.coef_[0], float(self.intercept_[0])
        if not is_dask(X):
            return function(validate_data(self, X, dtype=[np.float64, np.float32], reset=False), w, b)
        x = rows_of(X)
        if x.shape[1] != len(w):
            raise ValueError(f"X has {x.shape[1]} features, but LogisticRegression is expecting {len(w)} features as input")
        shape = {"drop_axis": 1} if like.ndim == 1 else {"chunks": (x.chunks[0], (2,))}
        name = getattr(function, "func", function).__name__
        return x.map_blocks(function, w, b, dtype=like.dtype, meta=like, token=name, **shape)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


# --- the data --------------------------------------------------------------------------------------------------------------


class Data:
    """Dask arrays whose blocks of rows belong together, and where they are computed."""

    def __init__(self, x: Any, y: Any, weight: Any, scheduler: str | None) -> None:
        self.x, self.y, self.weight, self.scheduler = x, y, weight, scheduler

    @classmethod
    def of_memory(cls, model: LogisticRegression, X: Any, y: Any, weight: Any) -> Self:  # noqa: N803
        """What is in memory stays in this process: its blocks are for its threads."""
        if is_dask(y) or is_dask(weight):
            raise TypeError("y and sample_weight are Dask arrays, but X isn't: make it one, with dask.array.from_array")
        x, y = validate_data(model, X, y, dtype=[np.float64, np.float32], y_numeric=False)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if weight is not None:
            weight = _check_sample_weight(weight, x, dtype=np.float64, ensure_non_negative=True)
        rows = max(LOCAL_ROWS, -(-len(x) // fastsig.get_num_threads()))
        arrays = [a if a is None else da.from_array(a, chunks=(rows, *a.shape[1:]), name=False) for a in (x, y, weight)]
        return cls(arrays[0], arrays[1], arrays[2], "threads")

    @classmethod
    def of_dask(cls, X: Any, y: Any, weight: Any) -> Self:  # noqa: N803
        x = rows_of(X)
        return cls(x, beside(x, "y", y), None if weight is None else beside(x, "sample_weight", weight), None)

    def survey(self) -> tuple[Array, float]:
        """The two classes, and the sum of the weights: one pass over the labels."""
        several = [a for a in (self.y, self.weight) if a is not None]
        blocks = [a.to_delayed(optimize_graph=False) for a in dask.optimize(*several)]
        tasks = [dask.delayed(regression.surveyed, pure=False)(*each) for each in zip(*blocks, strict=True)]
        found = dask.compute(*tasks, scheduler=self.scheduler)
        classes = np.unique(np.concatenate([classes for classes, _ in found if len(classes)] or [np.empty(0)]))
        weight = losses.added(np.concatenate([total for _, total in found]))
        if not len(classes):
            raise ValueError("X and y have no rows: Found array with 0 sample(s)")
        if len(classes) == 1:
            raise ValueError(f"y must have two classes, but the data contains one class only: {classes[0]!r}")
        if len(classes) > 2:
            named = ", ".join(map(str, classes[: regression.MOST_CLASSES].tolist()))
            more = " and more" if len(classes) > regression.MOST_CLASSES else ""
            raise ValueError(
                f"y must have two classes, but there are {named}{more}. "
                "Only binary classification is supported. The type of the target is multiclass."
            )
        if not weight > 0:
            raise ValueError("sample_weight must be greater than 0 somewhere, but is 0 everywhere")
        return classes, weight

    def evaluate(self, positive: Any, coefficients: Array) -> Sequence[Array]:
        """The blocks' sums. Each is gathered by itself: a task that collected them would wait for the last, on a worker.

        The results have the axes of x, for an axis that is contracted costs a copy of each block.
        """
        results = da.blockwise(
            regression.evaluated, "ik", self.x, "ik", self.y, "i", self.weight, None if self.weight is None else "i",
            positive=positive, coefficients=coefficients, align_arrays=False,
            adjust_chunks={"i": 1, "k": 2 * len(coefficients) + 2}, meta=np.empty((0, 0)),
        )  # fmt: skip
        blocks = dask.compute(*results.to_delayed().ravel(), scheduler=self.scheduler)
        if not np.isfinite(blocks).all() and not coefficients.any():
            raise ValueError("X contains NaN or infinity")
        return [block.reshape(-1, 2) for block in blocks]


def is_infinite(value: Any) -> bool:
    return isinstance(value, float) and value == math.inf


def is_dask(data: Any) -> bool:
    return bool(dask.is_dask_collection(data))


def rows_of(X: Any) -> Any:  # noqa: N803
    """A Dask array of rows, with all features of a row in one block."""
    array = numbers("X", X)
    if array.ndim != 2:
        raise ValueError(f"X must have two dimensions, (n_samples, n_features), not shape {array.shape}. Reshape your data")
    if math.isnan(array.shape[1]) or array.shape[1] == 0:
        raise ValueError(f"X must have features, as many in each row, not shape {array.shape}: 0 feature(s)")
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(f"X must be of real numbers of at most 64 bits, not {array.dtype}")
    return array if array.numblocks[1] == 1 else array.rechunk({1: -1})


def numbers(name: str, data: Any) -> Any:
    if not isinstance(data, da.Array):
        raise TypeError(f"{name} must be a Dask array, not {type(data).__name__}: a Dask data frame has to_dask_array()")
    if type(data._meta) is not np.ndarray:
        raise TypeError(f"{name} must have chunks of NumPy arrays, not of {type(data._meta).__name__}")
    return data


def beside(x: Any, name: str, data: Any) -> Any:
    """One number for each row of x, in blocks as x's."""
    unknown = any(map(math.isnan, x.chunks[0]))
    if not is_dask(data):
        data = np.asarray(data)
        if unknown:
            text = f"X has chunks of unknown sizes: call its compute_chunk_sizes() first, or give {name} as a Dask array"
            raise ValueError(text)
    if data.ndim != 1 or (not unknown and not math.isnan(data.shape[0]) and data.shape[0] != x.shape[0]):
        raise ValueError(f"{name} must have the shape ({x.shape[0]},), for X has {x.shape[0]} rows, not {data.shape}")
    if not is_dask(data):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")
            return da.from_array(data, chunks=(x.chunks[0],), name=False).persist()  # sent once, not with every evaluation
    data = numbers(name, data)
    unknown = unknown or any(map(math.isnan, data.chunks[0]))
    if unknown and data.numblocks[0] != x.numblocks[0]:
        raise ValueError(
            f"X has {x.numblocks[0]} blocks, {name} {data.numblocks[0]}, and their sizes aren't known: "
            "call compute_chunk_sizes() on both"
        )
    return data if unknown or data.chunks == (x.chunks[0],) else data.rechunk((x.chunks[0],))


def progress(wanted: bool, total: int) -> Any:
    """A bar, if it is wanted."""
    return console.progress("fitting", total) if wanted else nullcontext(lambda steps, what: None)
