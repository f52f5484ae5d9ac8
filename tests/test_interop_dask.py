"""Dask's arrays: lazily, with the ufuncs' bits and dtypes, chunk by chunk, by threads and by a cluster's processes."""

from __future__ import annotations

import doctest
import os
import pickle
import threading
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import pytest
from conftest import BFLOAT16, ROOT, as_tuple, assert_same, every_function, inputs, is_nan

import fastsig
from fastsig import losses, parallel, testing

dask = pytest.importorskip("dask", reason="dask isn't installed")
distributed = pytest.importorskip("distributed", reason="distributed isn't installed")
import dask.array as da  # noqa: E402

from fastsig.interop import dask as fd  # noqa: E402

PAIRS = [name for name in fastsig.UFUNCS if getattr(fastsig, name).nout == 2]
SHAPE, CHUNKS = (50, 70), (20, 30)
every_way = pytest.mark.parametrize("module", [fastsig, fd], ids=["ufunc", "interop"])


@pytest.fixture(autouse=True)
def _scheduler():
    """The simplest one, but where a test says otherwise."""
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Of a cluster of two processes, each with two threads."""
    with cluster_of(2, tmp_path_factory.mktemp("dask")) as it:
        yield it


@contextmanager
def cluster_of(processes, directory):
    options = {"host": "127.0.0.1", "local_directory": directory, "scheduler_kwargs": {"dashboard": False}}
    options["dashboard_address"] = "127.0.0.1:0"  # any free port: with None there is a server on 8787, dashboard or not
    with (
        distributed.LocalCluster(n_workers=processes, threads_per_worker=2, processes=True, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as it,
    ):
        yield it


def chunked(arrays, chunks=CHUNKS):
    return [da.from_array(a, chunks=chunks) for a in arrays]


def together(results):
    return dask.compute(*as_tuple(results))


# --- ufuncs --------------------------------------------------------------------------------------------------------------


def test_page():
    pytest.importorskip("xarray", reason="xarray isn't installed")
    failed, tried = doctest.testfile(str(ROOT / "docs" / "dask.md"), module_relative=False)
    assert tried > 10
    assert failed == 0


def test_all_names_are_public():
    assert set(fd.__all__) == {*fastsig.UFUNCS, "bce_with_logits_loss", "focal_loss"}
    with pytest.raises(AttributeError, match="no attribute 'sigmoidal'"):
        _ = fd.sigmoidal


@every_way
@every_function
def test_bits_dtype_and_chunks_are_right(name, module):
    arrays = inputs(name, "float32", SHAPE)
    want = as_tuple(getattr(fastsig, name)(*arrays))
    results = as_tuple(getattr(module, name)(*chunked(arrays)))
    for result in results:
        assert isinstance(result, da.Array)
        assert result.chunks == ((20, 20, 10), (30, 30, 10))
        assert (result.dtype, type(result._meta), result._meta.dtype) == (np.float32, np.ndarray, np.float32)
    assert_same(together(results), want)


DTYPES = [*map(np.dtype, ("e", "f", "d", "?", "b", "B", "h", "i", "q", ">f4", ">f8")), BFLOAT16]


@every_way
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["sigmoid", "silu_value_and_grad", "sigmoid_vjp", "bce_with_logits_value_and_grad"])
def test_dtypes_are_numpys(name, dtype, module):
    """That which is announced, and that of the chunks."""
    ufunc = getattr(fastsig, name)
    arrays = [np.array([0, 1, 1, 0], dtype)] * ufunc.nin
    results = as_tuple(getattr(module, name)(*chunked(arrays, 3)))
    want = as_tuple(ufunc(*arrays))
    assert [r.dtype for r in results] == [w.dtype for w in want]
    assert_same(together(results), want)


@every_way
@pytest.mark.parametrize("other", [1, 0.5, np.float32(0.5), np.float64(0.5), np.array([0.5]), [0.5] * 70, True], ids=repr)
@pytest.mark.parametrize("name", ["bce_with_logits", "bce_with_logits_value_and_grad"])
def test_other_arguments_need_not_be_dasks(name, other, module):
    """A number of Python's sets no dtype, all else does."""
    (x,) = inputs("sigmoid", "float32", SHAPE)
    results = as_tuple(getattr(module, name)(da.from_array(x, chunks=CHUNKS), other))
    want = as_tuple(getattr(fastsig, name)(x, other))
    assert [r.dtype for r in results] == [w.dtype for w in want]
    assert_same(together(results), want)


@pytest.mark.parametrize("name", ["sigmoid_vjp", "bce_with_logits_value_and_grad"])
@every_way
def test_broadcasting_and_different_chunks(name, module):
    x, t = inputs(name, "float32", SHAPE)
    for other, chunks in ((t, (15, 70)), (t[0], 25), (t[:, :1], (50, 1)), (t[3, 5], ()), (np.stack([t, t]), (1, 50, 7))):
        results = getattr(module, name)(da.from_array(x, chunks=CHUNKS), da.from_array(other, chunks=chunks))
        assert_same(together(results), as_tuple(getattr(fastsig, name)(x, other)))


@every_way
@pytest.mark.parametrize("name", ["sigmoid", "tanh_value_and_grad"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 1, 3)], ids=str)
def test_few_elements_and_none(name, shape, module):
    arrays = inputs(name, "float32", shape)
    results = as_tuple(getattr(module, name)(*chunked(arrays, 2)))
    assert all(r.shape == shape for r in results)
    assert_same(together(results), as_tuple(getattr(fastsig, name)(*arrays)))


@every_way
@pytest.mark.parametrize("name", ["sigmoid", "tanh_value_and_grad"])
def test_chunks_of_unknown_size(name, module):
    (x,) = inputs(name, "float32", SHAPE)
    lazy = da.from_array(x, chunks=CHUNKS)
    results = as_tuple(getattr(module, name)(lazy[lazy > 0]))
    assert all(np.isnan(r.shape[0]) for r in results)
    assert sorted(together(results)[0].tolist()) == sorted(as_tuple(getattr(fastsig, name)(x[x > 0]))[0].tolist())


@every_way
@pytest.mark.parametrize("name", ["sigmoid", "bce_with_logits_value_and_grad"])
def test_read_only_and_strided_chunks(name, module):
    arrays = inputs(name, "float32", SHAPE)
    lazy = [a.map_blocks(strided, meta=a._meta) for a in chunked(arrays)]
    assert_same(together(getattr(module, name)(*lazy)), as_tuple(getattr(fastsig, name)(*arrays)))


def strided(chunk):
    """The same, read-only, each element away from the next and the last one first; Dask's slices would be copies."""
    view = np.empty([3 * n for n in chunk.shape], chunk.dtype, order="F")[::-3, ::3]
    view[...] = chunk
    view.flags.writeable = False
    return view


@pytest.mark.parametrize("scheduler", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_local_schedulers(scheduler):
    """Of calls that have a team of threads each, if they may, on several of Dask's threads."""
    arrays = inputs("bce_with_logits_value_and_grad", "float32", (600, 700))
    lazy = chunked(arrays, (150, 350))
    with dask.config.set(scheduler=scheduler, num_workers=4), fastsig.num_threads(3):
        assert_same(together(fd.bce_with_logits_value_and_grad(*lazy)), fastsig.bce_with_logits_value_and_grad(*arrays))
        assert_same(together(fastsig.bce_with_logits(*lazy)), as_tuple(fastsig.bce_with_logits(*arrays)))


def test_masked_arrays():
    x = np.ma.masked_less(np.linspace(-3, 3, 12), -1)
    y, dy = fd.sigmoid_value_and_grad(da.from_array(x, chunks=5))
    assert type(y._meta) is type(dy._meta) is np.ma.MaskedArray
    got = y.compute()
    assert (got.mask == x.mask).all()
    assert (got == fastsig.sigmoid(x)).all()


def test_memory_mapped_files(tmp_path):
    (x,) = inputs("sigmoid", "float32", SHAPE)
    np.save(tmp_path / "x.npy", x)
    mapped = da.from_array(np.load(tmp_path / "x.npy", mmap_mode="r"), chunks=CHUNKS)
    assert_same(together(fd.sigmoid_value_and_grad(mapped)), fastsig.sigmoid_value_and_grad(x))


# --- graphs --------------------------------------------------------------------------------------------------------------


def watched(arrays, seen):
    """Dask's arrays whose chunks, once computed, are noted."""

    def note(chunk):
        seen.append(chunk.shape)
        return chunk

    return [a.map_blocks(note, dtype=a.dtype, meta=a._meta) for a in chunked(arrays)]


@every_way
def test_building_computes_nothing(module):
    seen = []
    results = []
    for name in fastsig.UFUNCS:
        results += as_tuple(getattr(module, name)(*watched(inputs(name, "float32", SHAPE), seen)))
    if module is fd:
        for f in (fd.bce_with_logits_loss, fd.focal_loss):
            results += f(*watched(inputs("bce_with_logits", "float32", SHAPE), seen))
    assert seen == []
    results[0].compute()
    assert len(seen) == 9


def test_building_compiles_nothing_and_names_everything_alike(python, tmp_path):
    """The same keys in every process: a scheduler knows what it has already."""
    code = """if True:
        import os, sys, dask.array as da, fastsig, fastsig.interop.dask as fd
        x = da.ones((6, 8), chunks=3, dtype="f4")
        for name in fastsig.UFUNCS:
            getattr(fd, name)(*[x] * getattr(fastsig, name).nin)
        fd.bce_with_logits_loss(x, x, sample_weight=x, hess=True)
        assert os.listdir(os.environ["FASTSIG_CACHE_DIR"]) == [] and "numba" not in sys.modules
        print(fd.sigmoid(x).name, fd.tanh_value_and_grad(x)[1].name, fd.focal_loss(x, x)[0].name)
    """
    x = da.ones((6, 8), chunks=3, dtype="f4")
    names = [fd.sigmoid(x).name, fd.tanh_value_and_grad(x)[1].name, fd.focal_loss(x, x)[0].name]
    assert python(code, FASTSIG_CACHE_DIR=tmp_path).split() == names
    assert len({fd.focal_loss(x, x, gamma=g)[0].name for g in (1, 2, 3)}) == 3


class Counted(np.ndarray):
    """A NumPy array that notes the ufuncs that are called with it."""

    calls: ClassVar[list[str]] = []
    lock = threading.Lock()

    def __array_ufunc__(self, ufunc, method, *arrays, **options):
        with self.lock:
            self.calls.append(ufunc.__name__)
        return getattr(ufunc, method)(*[np.asarray(a) for a in arrays], **options)


@every_way
@pytest.mark.parametrize("name", PAIRS)
def test_both_results_are_of_one_call_a_chunk(name, module):
    lazy = [a.map_blocks(lambda chunk: chunk.view(Counted)) for a in chunked(inputs(name, "float32", SHAPE))]
    pair = getattr(module, name)(*lazy)
    Counted.calls.clear()
    dask.compute(*pair)
    assert Counted.calls == [name] * 9
    Counted.calls.clear()
    da.stack(pair).compute()
    assert Counted.calls == [name] * 9


@pytest.mark.parametrize("module", [fastsig, fd], ids=["ufunc", "interop"])
def test_graphs_are_small(module):
    """A ufunc is pickled by its name; a thousand chunks take no more than one, but for their sizes."""
    x = da.zeros((1000, 1000), chunks=(1000, 1), dtype="f4")
    for name in fastsig.UFUNCS:
        for result in as_tuple(getattr(module, name)(*[x] * getattr(fastsig, name).nin)):
            kept = pickle.dumps(result.__dask_graph__())
            assert b"numba" not in kept
            assert len(kept) < len(pickle.dumps(da.exp(x).__dask_graph__())) + 1000
    results = fd.bce_with_logits_loss(x, x, hess=True)
    own = len(pickle.dumps(da.exp(x).sum().__dask_graph__()))
    assert all(len(pickle.dumps(r.__dask_graph__())) < own for r in results)


def test_xarray_keeps_coordinates():
    xarray = pytest.importorskip("xarray", reason="xarray isn't installed")
    (x,) = inputs("sigmoid", "float32", SHAPE)
    coordinates = {"row": np.arange(50) * 2.0, "name": ("column", [f"c{k}" for k in range(70)])}
    held = xarray.DataArray(da.from_array(x, chunks=CHUNKS), dims=("row", "column"), coords=coordinates, name="logit")
    y, (_, dy) = fastsig.sigmoid(held), fastsig.sigmoid_value_and_grad(held)
    applied = xarray.apply_ufunc(
        fastsig.sigmoid_value_and_grad, held, dask="parallelized", output_core_dims=[[], []], output_dtypes=["f4", "f4"]
    )
    for result, name in ((y, "sigmoid"), (dy, "sigmoid_grad"), (applied[1], "sigmoid_grad")):
        assert isinstance(result.data, da.Array)
        assert result.dims == held.dims
        assert result.coords.equals(held.coords)
        assert_same(result.values, getattr(fastsig, name)(x))
    dataset = fastsig.sigmoid(held.to_dataset())
    assert dataset.coords.equals(held.coords)
    assert_same(dataset["logit"].values, fastsig.sigmoid(x))


# --- losses --------------------------------------------------------------------------------------------------------------

LOSSES = [
    ("bce_with_logits_loss", {}),
    ("bce_with_logits_loss", {"hess": True, "label_smoothing": 0.25}),
    ("bce_with_logits_loss", {"grad": False}),
    ("focal_loss", {}),
    ("focal_loss", {"alpha": None, "gamma": 1.5}),
    ("focal_loss", {"grad": False}),
]
every_loss = pytest.mark.parametrize(("name", "options"), LOSSES, ids=str)


def logits(dtype, shape=SHAPE):
    """Finite ones with labels, so that sums are numbers."""
    random = np.random.default_rng(0)
    x = random.normal(scale=20, size=shape).astype(dtype)
    return x, random.integers(0, 2, shape).astype(dtype)


def assert_losses_agree(got, want):
    """The derivatives to the bit, the sums to a rounding in their dtype."""
    got, want = as_tuple(got), as_tuple(want)
    if np.ndim(want[0]):
        assert_same(got, want)
    else:
        assert_same(got[1:], want[1:])
        assert got[0].dtype == want[0].dtype
        assert abs(np.float64(got[0]) - np.float64(want[0])) <= max(1e-14, 2 * testing.finfo(got[0].dtype).eps) * abs(
            np.float64(want[0])
        )


@every_loss
@pytest.mark.parametrize("reduction", losses.REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_are_numpys(name, options, reduction, dtype):
    x, t = logits(dtype)
    results = getattr(fd, name)(*chunked([x, t]), reduction=reduction, **options)
    for k, result in enumerate(as_tuple(results)):
        assert result.dtype == dtype
        assert result.chunks == (() if k == 0 and reduction != "none" else ((20, 20, 10), (30, 30, 10)))
    want = getattr(losses, name)(x, t, reduction=reduction, **options)
    assert isinstance(results, tuple) == isinstance(want, tuple)
    assert_losses_agree(together(results), want)


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "int8", ">f4"], ids=str)
def test_losses_of_other_dtypes(dtype):
    x, t = logits(dtype)
    for name in ("bce_with_logits_loss", "focal_loss"):
        results = getattr(fd, name)(*chunked([x, t]))
        want = getattr(losses, name)(x, t)
        assert [r.dtype for r in results] == [w.dtype for w in want]
        assert_losses_agree(together(results), want)


@pytest.mark.parametrize("reduction", losses.REDUCTIONS)
def test_weights_broadcast(reduction):
    x, t = logits("float32")
    random = np.random.default_rng(1)
    columns, rows, each = random.random(70), random.random((50, 1)), random.random(SHAPE)
    for kind in (np.asarray, lambda w: da.from_array(w, chunks=17)):
        for weight in (rows, each, np.float64(3)):
            results = fd.bce_with_logits_loss(
                *chunked([x, t]), sample_weight=kind(weight), pos_weight=kind(columns), hess=True, reduction=reduction
            )
            assert results[1].chunks == ((20, 20, 10), (30, 30, 10))
            want = losses.bce_with_logits_loss(x, t, sample_weight=weight, pos_weight=columns, hess=True, reduction=reduction)
            assert_losses_agree(together(results), want)


def test_labels_of_other_chunks_or_one_for_all():
    x, t = logits("float32")
    lazy = da.from_array(x, chunks=CHUNKS)
    for label in (t, da.from_array(t, chunks=(7, 70)), 1, 0.25, da.from_array(np.float32(1), chunks=())):
        results = fd.bce_with_logits_loss(lazy, label)
        assert results[1].chunks == lazy.chunks
        want = losses.bce_with_logits_loss(x, label.compute() if isinstance(label, da.Array) else label)
        assert_losses_agree(together(results), want)


def test_losses_of_few_elements_and_none():
    for shape in ((), (0,), (3, 0), (1,)):
        x, t = logits("float64", shape)
        for reduction in losses.REDUCTIONS:
            results = together(fd.bce_with_logits_loss(*chunked([x, t], 2), reduction=reduction))
            assert_same(results, losses.bce_with_logits_loss(x, t, reduction=reduction))


@pytest.mark.parametrize("reduction", losses.REDUCTIONS)
def test_losses_of_chunks_of_unknown_size(reduction):
    """A mean counts them."""
    x, t = logits("float64", (100,))
    lazy, labels = chunked([x, t], 30)
    weights = da.from_array(np.abs(x), chunks=30)
    results = fd.bce_with_logits_loss(lazy[lazy > 0], labels[lazy > 0], sample_weight=weights[lazy > 0], reduction=reduction)
    assert np.isnan(results[1].shape[0])
    want = losses.bce_with_logits_loss(x[x > 0], t[x > 0], sample_weight=np.abs(x[x > 0]), reduction=reduction)
    assert_losses_agree(together(results), want)


def test_weights_broadcast_to_chunks_of_unknown_size():
    x, t = logits("float64")
    rows = np.arange(50) % 3 > 0
    lazy, labels = (a[da.from_array(rows, chunks=20)] for a in chunked([x, t]))
    columns = np.random.default_rng(1).random(70)
    for weight in (columns, columns[None], da.from_array(columns, chunks=9), np.float64(2), np.ones((1, 1))):
        results = fd.bce_with_logits_loss(lazy, labels, sample_weight=weight)
        want = losses.bce_with_logits_loss(x[rows], t[rows], sample_weight=np.asarray(weight))
        assert_losses_agree(together(results), want)


def test_infinite_losses_and_nan():
    """No warning, in any chunk."""
    x, t = np.array([np.inf, 3, -np.inf, 1e308, -1e308, -1e308]), np.array([0.0, 1, 0, 1, 1, 1])
    for k in (slice(None), slice(1, None), slice(3, None)):
        got = fd.bce_with_logits_loss(*chunked([x[k], t[k]], 2), reduction="sum", grad=False).compute()
        assert got == losses.bce_with_logits_loss(x[k], t[k], reduction="sum", grad=False) == np.inf
    assert is_nan(fd.focal_loss(*chunked([np.array([1, np.nan, 2]), np.ones(3)], 2), grad=False).compute())


def test_a_loss_goes_over_each_chunk_once():
    seen = []
    x, t = logits("float32")
    (lazy,) = watched([x], seen)
    loss, grad, hess = fd.bce_with_logits_loss(lazy, da.from_array(t, chunks=CHUNKS), hess=True)
    dask.compute(loss, grad, hess)
    assert len(seen) == 9


# --- refusals ------------------------------------------------------------------------------------------------------------


class Foreign:
    """The least that Dask takes for an array of another library; like CuPy's, it knows nothing of our ufuncs."""

    def __init__(self, array):
        self.array = np.asarray(array)
        self.shape, self.dtype, self.ndim = self.array.shape, self.array.dtype, self.array.ndim

    def __getitem__(self, key):
        return Foreign(self.array[key])

    def astype(self, dtype, **_):
        return Foreign(self.array.astype(dtype))

    def __array_ufunc__(self, *_, **__):
        return NotImplemented

    def __array_function__(self, *_, **__):
        return NotImplemented


def test_other_chunks_than_numpys():
    x = da.from_array(Foreign(np.ones(6)), chunks=3, asarray=False)
    plain = da.ones(6, chunks=3)
    wrong = [lambda: fastsig.tanh_value_and_grad(x), lambda: fd.bce_with_logits_loss(plain, plain, sample_weight=x)]
    wrong += [lambda name=name: getattr(fd, name)(*[plain, x][-getattr(fastsig, name).nin :]) for name in fastsig.UFUNCS]
    for call in wrong:
        with pytest.raises(TypeError, match=r"chunks that are NumPy arrays, not .*Foreign: convert them by x\.map_blocks"):
            call()
    with pytest.raises(TypeError, match="'Foreign'"):  # NumPy's own
        fastsig.sigmoid(x).compute()


def test_what_is_no_dask_array():
    for name in ("sigmoid", "tanh_value_and_grad", "bce_with_logits", "bce_with_logits_loss", "focal_loss"):
        count = 1 if name in fastsig.UFUNCS and getattr(fastsig, name).nin == 1 else 2
        with pytest.raises(TypeError, match=rf"fastsig\.interop\.dask\.{name} takes Dask arrays, not ndarray"):
            getattr(fd, name)(*[np.ones(3)] * count)


@pytest.mark.parametrize("dtype", ["complex64", "longdouble", "U1", "O"])
@every_way
def test_other_dtypes(dtype, module):
    """At once, where it is known; NumPy's own error."""
    x = da.from_array(np.zeros(4).astype(dtype), chunks=2)
    for name in ("sigmoid", "tanh_value_and_grad") if module is fd else ("tanh_value_and_grad",):
        with pytest.raises(TypeError, match="not supported for the input types"):
            getattr(module, name)(x)
    with pytest.raises(TypeError):
        fastsig.sigmoid(x)
    with pytest.raises(TypeError, match="x must be of float16"):
        fd.focal_loss(x, 1)


def test_arguments_that_do_not_fit():
    x = da.ones((4, 6), chunks=2)
    for call, told in (
        (lambda: fd.sigmoid_vjp(x, x[:3]), "could not be broadcast"),
        (lambda: fastsig.bce_with_logits_value_and_grad(x, x[:3]), "could not be broadcast"),
        (lambda: fd.bce_with_logits_loss(x, x[0]), r"t must have x's shape \(4, 6\), or be one label for all, not"),
        (lambda: fd.bce_with_logits_loss(x, x[:, :1]), "t must have x's shape"),
        (lambda: fd.focal_loss(x[0], x), "t must have x's shape"),
        (lambda: fd.focal_loss(x, x, sample_weight=x[:, 0]), r"sample_weight must broadcast to x's shape .* not .*\(4,\)"),
        (lambda: fd.focal_loss(x, x, reduction="max"), "reduction must be one of"),
        (lambda: fd.focal_loss(x, x, gamma=-1), "gamma must lie between 0"),
        (lambda: fd.bce_with_logits_loss(x, x, label_smoothing=2), "label_smoothing must lie between"),
        (lambda: fd.bce_with_logits_loss(x, x, hess=True, grad=False), "leave grad=True"),
        (lambda: fd.focal_loss(x[x > 0], x.rechunk(4)[x.rechunk(4) > 0]), "as many chunks as x"),
        (lambda: fd.focal_loss(x[x > 0], da.ones(1)), "as many chunks as x"),
        (lambda: fd.focal_loss(x, x, sample_weight=-x), "sample_weight must not be negative"),
    ):
        with pytest.raises(ValueError, match=told):
            together(call())
    for call in (lambda: fd.sigmoid(x, x), lambda: fd.sigmoid_vjp(x)):
        with pytest.raises(TypeError, match="argument"):
            call()
    for options in ({"out": (x, x)}, {"where": x > 0}, {"dtype": "f4"}):
        with pytest.raises(TypeError, match=f"tanh_value_and_grad takes no {next(iter(options))}"):
            fastsig.tanh_value_and_grad(x, **options)


# --- on a cluster --------------------------------------------------------------------------------------------------------


def on_cluster(client, results):
    return client.gather(client.compute(list(results)))


@pytest.mark.parametrize("name", ["sigmoid", "bce_with_logits_value_and_grad"])
def test_cluster(client, name):
    """Chunks that a worker has made, that have travelled (they are read-only then), and of unknown size."""
    arrays = inputs(name, "float32", SHAPE)
    lazy = chunked(arrays)
    travelled = [da.from_delayed(client.scatter(a), a.shape, a.dtype).rechunk(CHUNKS).T[::-1, ::3] for a in arrays]
    ways = [(m, given) for m in (fastsig, fd) for given in (lazy, travelled, [a[lazy[0] > 0] for a in lazy])]
    got = on_cluster(client, [one for module, given in ways for one in as_tuple(getattr(module, name)(*given))])
    want = as_tuple(getattr(fastsig, name)(*arrays))
    count = len(want)
    for k in (0, 3 * count):
        assert_same(tuple(got[k : k + count]), want)
        assert_same(tuple(got[k + count : k + 2 * count]), tuple(w.T[::-1, ::3] for w in want))
        for unknown, whole in zip(got[k + 2 * count : k + 3 * count], want, strict=True):
            assert sorted(unknown.tolist()) == sorted(whole[arrays[0] > 0].tolist())


def test_cluster_computes_losses(client):
    for dtype in ("float32", BFLOAT16):
        x, t = logits(dtype)
        for name, options in LOSSES[:4]:
            got = on_cluster(client, as_tuple(getattr(fd, name)(*chunked([x, t]), **options)))
            assert_losses_agree(tuple(got), getattr(losses, name)(x, t, **options))


def test_cluster_keeps_xarrays_coordinates(client):
    xarray = pytest.importorskip("xarray", reason="xarray isn't installed")
    (x,) = inputs("sigmoid", "float32", (50,))
    held = xarray.DataArray(da.from_array(x, chunks=20), dims="row", coords={"row": np.arange(50)})
    (got,) = on_cluster(client, [fastsig.sigmoid(held)])
    assert got.coords.equals(held.coords)
    assert_same(got.values, fastsig.sigmoid(x))


def threads_of_a_worker():
    """What Dask has set, what counts, and how many threads a large call adds to a worker's own."""
    x = np.zeros(1_000_000, np.float32)
    fastsig.sigmoid(x[:10])
    before = os.listdir("/proc/self/task")
    fastsig.sigmoid(x)
    return os.environ["OMP_NUM_THREADS"], fastsig.get_num_threads(), len({*os.listdir("/proc/self/task")} - {*before})


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts threads in /proc")


@needs_proc
def test_workers_start_no_threads_of_their_own(client):
    """Dask sets OMP_NUM_THREADS=1 for them."""
    assert set(client.run(threads_of_a_worker).values()) == {("1", 1, 0)}


@needs_proc
@pytest.mark.slow
@pytest.mark.skipif(parallel.runtime() is None, reason="there is no OpenMP runtime on this machine")
def test_workers_follow_what_dask_sets(tmp_path):
    with dask.config.set({"distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": 3}), cluster_of(1, tmp_path) as it:
        assert list(it.run(threads_of_a_worker).values()) == [("3", 3, 2)]
