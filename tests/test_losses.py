"""Losses: torch's meaning, exact terms, a sum that depends on nothing but the elements, and derivatives of the loss."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from conftest import BFLOAT16, bits, numpy_dtype, stale
from hypothesis import given
from hypothesis import strategies as st

import fastsig
from fastsig import losses, parallel, testing
from fastsig.losses import bce_with_logits_loss, focal_loss

FLOATS = ("float32", "float64")
EVERY = ("float16", "float32", "float64", "bfloat16")
INF, NAN = math.inf, math.nan


def data(n, dtype="float64", seed=0, soft=False):
    """Logits of every size, and labels."""
    random = np.random.default_rng([seed, n])
    x = np.where(random.random(n) < 0.8, random.normal(0, 4, n), random.uniform(-120, 120, n))
    t = random.random(n) if soft else random.random(n) < 0.4
    return x.astype(numpy_dtype(dtype)), t.astype(numpy_dtype(dtype))


def same(one, other):
    return np.shape(one) == np.shape(other) and (bits(one) == bits(other)).all()


# --- exact definitions ---------------------------------------------------------------------------------------------------


def exact_bce(x, t, w=1, c=1, smoothing=0):
    """The loss of one element, its first and its second derivative."""
    smoothing = mpmath.mpf(smoothing)
    t = t * (1 - smoothing) + smoothing / 2
    p, q = 1 / (1 + mpmath.exp(-x)), 1 / (1 + mpmath.exp(x))
    value = c * t * mpmath.log(1 + mpmath.exp(-x)) + (1 - t) * mpmath.log(1 + mpmath.exp(x))
    return w * value, w * ((1 - t) * p - c * t * q), w * (1 - t + c * t) * p * q


def exact_focal(x, t, gamma, alpha):
    p, q = 1 / (1 + mpmath.exp(-x)), 1 / (1 + mpmath.exp(x))
    miss, entropy = t * q + (1 - t) * p, t * mpmath.log(1 + mpmath.exp(-x)) + (1 - t) * mpmath.log(1 + mpmath.exp(x))
    a = 1 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
    slope = gamma * miss ** (gamma - 1) * (1 - 2 * t) * p * q * entropy + miss**gamma * ((1 - t) * p - t * q)
    return a * miss**gamma * entropy, a * slope


def errors(got, want, dtype):
    """In units in the last place of the exact results."""
    smallest = float(testing.finfo(dtype).smallest_subnormal)
    spacing = [max(float(np.spacing(numpy_dtype(dtype).type(abs(float(y))))), smallest) for y in want]
    return [float(abs(mpmath.mpf(float(g)) - y) / s) for g, y, s in zip(got, want, spacing, strict=True)]


OPTIONS = [
    {},
    {"pos_weight": 0.25},
    {"sample_weight": 3.0, "pos_weight": 8.0},
    {"sample_weight": 2.0**100},  # makes normal numbers of subnormal losses
    {"sample_weight": 2.0**-100, "pos_weight": 2.0**90},
    {"label_smoothing": 0.1},
    {"label_smoothing": 2.0**-60, "pos_weight": 3.0},
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_hard_labels_are_within_four_ulp(dtype, options):
    """Whatever the weights: what is subnormal in between isn't rounded there."""
    x, t = data(400, dtype)
    got = bce_with_logits_loss(x, t, reduction="none", hess=True, **options)
    smoothing = float(np.dtype(dtype).type(options.get("label_smoothing", 0)))
    with mpmath.workprec(1200):
        w, c = options.get("sample_weight", 1), options.get("pos_weight", 1)
        exact = [exact_bce(mpmath.mpf(float(a)), mpmath.mpf(int(b)), w, c, smoothing) for a, b in zip(x, t, strict=True)]
        exact = list(zip(*exact, strict=True))
        assert max(errors(got[0], exact[0], dtype)) <= 4
        assert max(errors(got[2], exact[2], dtype)) <= 4
        if smoothing == 0:
            assert max(errors(got[1], exact[1], dtype)) <= 4
        else:
            assert max(abs(float(g) - y) for g, y in zip(got[1], exact[1], strict=True)) <= 4 * c * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", FLOATS)
def test_soft_labels_are_within_the_epsilon(dtype):
    """Derivatives that cancel: absolutely."""
    x, t = data(400, dtype, soft=True)
    value, grad, hess = bce_with_logits_loss(x, t, reduction="none", hess=True, label_smoothing=0.25, pos_weight=2.0)
    with mpmath.workprec(1200):
        pairs = [(mpmath.mpf(float(a)), mpmath.mpf(float(b))) for a, b in zip(x, t, strict=True)]
        exact = list(zip(*(exact_bce(a, b, 1, 2, 0.25) for a, b in pairs), strict=True))
        assert max(errors(value, exact[0], dtype)) <= 4
        assert max(errors(hess, exact[2], dtype)) <= 4
        assert max(abs(float(g) - y) for g, y in zip(grad, exact[1], strict=True)) <= 4 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [0.25, None])
def test_focal_loss_is_exact(dtype, gamma, alpha):
    """In the tails, too: where right by far, where wrong by far."""
    x, t = data(300, dtype)
    got = focal_loss(x, t, gamma=gamma, alpha=alpha, reduction="none")
    with mpmath.workprec(1200):
        exact = [exact_focal(mpmath.mpf(float(a)), int(b), gamma, alpha) for a, b in zip(x, t, strict=True)]
        for one, want in zip(got, zip(*exact, strict=True), strict=True):
            assert max(errors(one, want, dtype)) <= 16


@pytest.mark.parametrize("dtype", FLOATS)
def test_focal_loss_of_soft_labels(dtype):
    x, t = data(300, dtype, soft=True)
    value, grad = focal_loss(x, t, reduction="none")
    with mpmath.workprec(1200):
        pairs = [(mpmath.mpf(float(a)), mpmath.mpf(float(b))) for a, b in zip(x, t, strict=True)]
        exact = list(zip(*(exact_focal(a, b, 2, 0.25) for a, b in pairs), strict=True))
        assert max(errors(value, exact[0], dtype)) <= 16
        assert max(abs(float(g) - y) for g, y in zip(grad, exact[1], strict=True)) <= 4 * np.finfo(dtype).eps


def test_without_options_they_are_the_ufuncs():
    for dtype in FLOATS:
        x, t = data(3000, dtype)
        value, grad, hess = bce_with_logits_loss(x, t, reduction="none", hess=True)
        assert same(value, fastsig.bce_with_logits(x, t))
        assert same(grad, fastsig.bce_with_logits_grad(x, t))
        assert same(hess, fastsig.sigmoid_grad(x))
        ones = np.ones((), x.dtype)
        weighted = bce_with_logits_loss(x, t, reduction="none", sample_weight=ones, pos_weight=ones)
        assert np.abs(bits(weighted[0]).astype(np.int64) - bits(value)).max() <= 1


# --- torch ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("shape", [(7,), (5, 3), (2, 3, 4), (1,)], ids=str)
def test_arguments_mean_what_they_mean_in_torch(reduction, shape):
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    random = np.random.default_rng(3)
    x, hard = random.normal(0, 3, shape), (random.random(shape) < 0.5).astype(float)
    weights = [None, random.random(shape), random.random(shape[-1:]), np.float64(0.5), np.zeros(shape)]
    positive = [None, random.uniform(0.1, 5, shape[-1:]), np.float64(3)]
    for t, w, c in itertools.product([hard, random.random(shape)], weights, positive):
        loss, grad = bce_with_logits_loss(x, t, sample_weight=w, pos_weight=c, reduction=reduction)
        logits = torch.tensor(x, requires_grad=True)
        tensors = [None if a is None else torch.tensor(a) for a in (w, c)]
        want = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, torch.tensor(t), weight=tensors[0], pos_weight=tensors[1], reduction=reduction
        )
        want.sum().backward()
        np.testing.assert_allclose(loss, want.detach().numpy(), rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(grad, logits.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_label_smoothing_is_torchs_for_two_classes():
    """What its cross-entropy of the logits (x, 0) does."""
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    x, t = data(50)
    x = np.clip(x, -30, 30)
    for smoothing in (0.0, 0.1, 0.5, 1.0):
        logits = torch.tensor(np.stack([np.zeros_like(x), x], 1), requires_grad=True)
        want = torch.nn.functional.cross_entropy(logits, torch.tensor(t.astype(np.int64)), label_smoothing=smoothing)
        want.backward()
        loss, grad = bce_with_logits_loss(x, t, label_smoothing=smoothing)
        np.testing.assert_allclose(loss, want.item(), rtol=1e-13)
        np.testing.assert_allclose(grad, logits.grad.numpy()[:, 1], rtol=1e-9, atol=1e-15)


# --- the sum -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 15, 16, 17, 255, 256, 257, 16383, 16384, 16385, 100_003])
def test_sum_is_exact(n):
    """To 1e-14 here; the blocks are the same for 1e9 terms, and their sums are added exactly."""
    for loss in (bce_with_logits_loss, focal_loss):
        x, t = data(n)
        terms = loss(x, t, reduction="none", grad=False)
        assert loss(x, t, reduction="sum", grad=False) == pytest.approx(math.fsum(terms), rel=1e-14, abs=0)
        assert loss(x, t, grad=False) == pytest.approx(math.fsum(terms) / n, rel=1e-14, abs=0)


def test_sum_of_float32_terms_is_taken_in_float64():
    """Summed one by one in float32 it would stand still at 2^24."""
    n = 1 << 25
    x = np.broadcast_to(np.float32(0), n)
    assert bce_with_logits_loss(x, np.float32(1), reduction="sum", grad=False) == np.float32(n * float(np.float32(np.log(2))))


def test_blocks_bound_the_error_of_1e9_terms():
    """Each of 16 chains adds 2^10 positive terms: 2^10·2^-53 and the 16 more, relative to their sum, is below 1e-12."""
    assert losses.BLOCK == 1 << 14
    assert (losses.BLOCK / 16 + 16) * 2.0**-53 < 1e-12


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", [bce_with_logits_loss, focal_loss])
def test_same_bits_on_any_number_of_threads_and_any_layout(loss, dtype, words):
    x, t = data(3 * 70_001, dtype)
    words[parallel.PARALLEL] = words[parallel.PROCESSORS] = 0
    words[parallel.QUOTA] = parallel.MOST
    shape = (3, 7, 10_000 + 1 - 1)
    x, t = x[: math.prod(shape)].reshape(shape), t[: math.prod(shape)].reshape(shape)
    w = np.random.default_rng(0).random(shape).astype(dtype)
    with fastsig.num_threads(1):
        want = loss(x, t, sample_weight=w)
    for threads in (2, 3, 5):
        with fastsig.num_threads(threads):
            got = loss(x, t, sample_weight=w)
        assert same(got[0], want[0])
        assert same(got[1], want[1])
    order = (2, 0, 1)
    permuted = [np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order)) for a in (x, t, w)]
    reversed_ = [np.ascontiguousarray(a[::-1, :, ::-1])[::-1, :, ::-1] for a in (x, t, w)]
    spaced = [np.repeat(a, 3, -1)[..., ::3] for a in (x, t, w)]
    swapped = [a.astype(a.dtype.newbyteorder()) for a in (x, t, w)]
    for a, b, c in (permuted, reversed_, spaced, swapped, (x, t.astype(np.int8), w), (x, t.astype(bool), w.astype("float64"))):
        got = loss(a, b, sample_weight=c)
        assert same(got[0], want[0])
        assert same(got[1], want[1])


@given(st.integers(0, 40_000), st.integers(0, 40_000), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_sections_are_the_elements_in_order(i, j, shape):
    array = np.arange(math.prod(shape)).reshape(shape)
    i, j = sorted((i % (array.size + 1), j % (array.size + 1)))
    found = [part.reshape(-1) for part in losses.sections(array, i, j) if part.size]
    assert np.concatenate([np.empty(0, int), *found]).tolist() == list(range(i, j))


def test_large_calls_need_no_large_memory():
    """Not flat, of other dtypes: still in pieces."""
    import tracemalloc

    x = np.zeros((1000, 4000), np.float32)[:, ::2]
    t, out = np.zeros(x.shape, np.int64), np.empty(x.shape, np.float32)
    bce_with_logits_loss(x[:2], t[:2])
    tracemalloc.start()
    try:
        bce_with_logits_loss(x, t, out=out)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# --- results -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reduction", "dtype"),
    [
        pytest.param(reduction, dtype, marks=() if dtype in FLOATS or reduction == "mean" else pytest.mark.slow)
        for reduction in ("none", "sum", "mean")
        for dtype in EVERY
    ],
)
def test_results_have_the_dtype_and_the_shape_of_x(dtype, reduction):
    for shape in [(), (4,), (2, 3), (0,), (0, 3)]:
        x, t = np.ones(shape, numpy_dtype(dtype)), np.ones(shape)
        for loss, more in [(bce_with_logits_loss, {"hess": True}), (focal_loss, {})]:
            value, *gradients = loss(x, t, reduction=reduction, **more)
            assert value.dtype == x.dtype
            assert np.shape(value) == (shape if reduction == "none" else ())
            assert all(g.shape == shape and g.dtype == x.dtype and isinstance(g, np.ndarray) for g in gradients)
            assert isinstance(loss(x, t, reduction=reduction, grad=False), type(value))


def test_integers_and_lists_count_as_float64():
    assert same(bce_with_logits_loss([1, -2], [1, 0])[0], bce_with_logits_loss([1.0, -2.0], [1.0, 0.0])[0])
    assert bce_with_logits_loss(1, True, grad=False).dtype == np.float64


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_small_formats_are_computed_in_float32(dtype):
    """The sum of the terms before they are rounded, and a mean's factor that float16 itself would lose."""
    n = 200_000
    x, t = data(n, dtype)
    wide = [a.astype(np.float32) for a in (x, t)]
    (loss, grad), (want, gradient) = bce_with_logits_loss(x, t), bce_with_logits_loss(*wide)
    assert same(loss, want.astype(x.dtype))
    assert same(grad, gradient.astype(x.dtype))


@pytest.mark.parametrize("loss", [bce_with_logits_loss, focal_loss])
def test_gradient_is_that_of_the_loss(loss):
    """Against the difference quotient, whatever the reduction."""
    x, t = data(40, soft=True)
    x = np.clip(x, -20, 20)
    w, h = np.random.default_rng(5).random(40), 1e-5
    for reduction in ("none", "sum", "mean"):
        grad = loss(x, t, sample_weight=w, reduction=reduction)[1]
        for k in range(len(x)):
            step = np.zeros(40)
            step[k] = h
            up, down = (loss(x + s, t, sample_weight=w, reduction=reduction, grad=False).sum() for s in (step, -step))
            assert grad[k] == pytest.approx((up - down) / (2 * h), rel=1e-4, abs=1e-8)


def test_second_derivative_is_that_of_the_loss():
    x, t = data(40, soft=True)
    x, h = np.clip(x, -20, 20), 1e-5
    options = {"sample_weight": np.linspace(0, 2, 40), "pos_weight": 3.0, "label_smoothing": 0.1}
    hess = bce_with_logits_loss(x, t, hess=True, **options)[2]
    up, down = (bce_with_logits_loss(x + s, t, **options)[1] for s in (h, -h))
    np.testing.assert_allclose(hess, (up - down) / (2 * h), rtol=1e-4, atol=1e-9)


def test_infinite_logits_and_huge_ones():
    x, t = [INF, INF, -INF, -INF, 1e4, 1e4, -1e4, -1e4], [1, 0, 1, 0] * 2
    for loss, options in [
        (bce_with_logits_loss, {}),
        (bce_with_logits_loss, {"pos_weight": 1.0}),
        (focal_loss, {"alpha": None}),
    ]:
        value, grad = loss(x, t, reduction="none", **options)
        assert value.tolist() == [0, INF, INF, 0, 0, 1e4, 1e4, 0]
        assert grad.tolist() == [0, 1, -1, 0] * 2
    assert bce_with_logits_loss(x, t, reduction="none", hess=True)[2].tolist() == [0] * 8


def test_a_weight_of_zero_leaves_out():
    x, t = np.array([INF, -INF, 3.0, -1e4]), np.array([0.0, 1.0, 0.0, 1.0])
    for loss in (bce_with_logits_loss, focal_loss):
        value, grad = loss(x, t, sample_weight=np.zeros(4), reduction="none")
        assert value.tolist() == [0] * 4
        assert np.abs(grad).tolist() == [0] * 4
    loss, grad = bce_with_logits_loss([2.0, INF], [1, 0], sample_weight=[1, 0])
    assert loss == bce_with_logits_loss(2.0, 1, grad=False) / 2
    assert bce_with_logits_loss([1.0, 2.0], [1, 0], pos_weight=0.0, reduction="none", grad=False)[0] == 0


def test_no_weight_and_a_loss_that_overflows():
    """In whatever company."""
    for x in ([-80.0], [-80.0, -1000.0]):
        value = bce_with_logits_loss(np.float32(x), 1, sample_weight=0.0, pos_weight=3e38, reduction="none")[0]
        assert value.tolist() == [0] * len(x)


def test_weights_need_not_fit_into_a_small_format():
    for dtype in ("float16", "bfloat16"):
        x, t = np.array([1, -2, 3], numpy_dtype(dtype)), np.array([0, 1, 0], numpy_dtype(dtype))
        for weight in (1e5, 1e-9):
            got = bce_with_logits_loss(x, t, sample_weight=np.float32([weight] * 3), pos_weight=1 / weight)
            want = bce_with_logits_loss(x.astype("f4"), t.astype("f4"), sample_weight=np.float32(weight), pos_weight=1 / weight)
            with np.errstate(all="ignore"):
                assert same(got[0], want[0].astype(x.dtype))
                assert same(got[1], want[1].astype(x.dtype))


def test_sum_of_bfloat16_is_rounded_once():
    x = np.array([128, 129, -20], BFLOAT16)
    assert float(bce_with_logits_loss(x, 0, reduction="sum", grad=False)) == 258  # a little more than 257, half way


def test_nan_shows():
    for loss in (bce_with_logits_loss, focal_loss):
        for x, t, w in [(NAN, 1, 1), (1.0, NAN, 1), (1.0, 1, NAN), (NAN, 0, 0), (1.0, NAN, 0)]:
            value, grad = loss([x, 0.5], [t, 1.0], sample_weight=[w, 1.0], reduction="none")
            assert np.isnan(value).tolist() == np.isnan(grad).tolist() == [True, False]
            assert np.isnan(loss([x, 0.5], [t, 1.0], sample_weight=[w, 1.0], grad=False))


def test_focal_loss_is_never_nan():
    """For any logit, label and gamma."""
    x = np.concatenate([s * 2.0 ** np.arange(-1074, 1024, 7) for s in (1, -1)] + [np.array([0.0, -0.0, INF, -INF])])
    narrow = np.concatenate([s * np.float32(2) ** np.arange(-149, 128, dtype=np.float32) for s in (1, -1)])
    for t in (0.0, 1.0, 0.5, 1e-300, 1e-310, 5e-324, 1 - 2.0**-53):
        for gamma in (0.0, 1e-3, 0.5, 1.0, 2.0, 100.0, 1e6):
            value, grad = focal_loss(x, t, gamma=gamma, reduction="none")
            assert not np.isnan(value).any()
            assert np.isfinite(grad).all()
            single = focal_loss(narrow, np.float32(t), gamma=gamma, reduction="none")
            assert np.isfinite(single).all()


def test_empty():
    for loss in (bce_with_logits_loss, focal_loss):
        assert np.isnan(loss([], [], grad=False))
        assert loss([], [], grad=False, reduction="sum") == 0
        assert loss([], [], reduction="none")[0].shape == loss([], [])[1].shape == (0,)


def test_sums_that_overflow_are_infinite():
    assert bce_with_logits_loss(np.float16([6e4] * 4), np.float16(0), reduction="sum", grad=False) == INF
    assert bce_with_logits_loss([1.7e308] * 40_000, 0, reduction="sum", grad=False) == INF
    assert bce_with_logits_loss([INF, 1.0], [0, 0], reduction="sum", grad=False) == INF


def test_no_warning_or_error_of_floating_point():
    x = np.array([INF, -INF, NAN, 1e300, -1e-320, 0.0])
    with np.errstate(all="raise"):
        for loss in (bce_with_logits_loss, focal_loss):
            loss(x, np.ones(6), sample_weight=np.zeros(6))
            loss(x.reshape(2, 3)[:, ::-1], np.ones((2, 3), int))
            loss([], [])
            loss(np.float16([6e4] * 4), 0, reduction="sum")
            for huge in (1e300, 1e-300, np.array(NAN, BFLOAT16)):
                loss(np.float32([1, -2]), 1, sample_weight=huge)
                loss(np.float32([1, -2]), [1, 0], sample_weight=[huge, huge])
                loss(np.float32([1, -2]), huge)


# --- out -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", EVERY)
def test_out_is_the_gradients_buffer(dtype):
    x, t = data(20_001, dtype)
    want = bce_with_logits_loss(x, t, hess=True)
    g, h = stale(len(x), x.dtype), stale(len(x), x.dtype)
    got = bce_with_logits_loss(x, t, out=g)
    assert got[1] is g
    assert same(g, want[1])
    got = bce_with_logits_loss(x, t, hess=True, out=(None, h))
    assert got[2] is h
    assert same(h, want[2])
    assert same(got[1], want[1])


def test_out_may_lie_over_the_inputs():
    """Exactly, or shifted; the labels as well as the logits."""
    for n in (10, 40_000):
        both = np.concatenate(data(2 * n, "float32"))
        want = bce_with_logits_loss(both[:n].copy(), both[n : 2 * n].copy())
        for start in (0, n, 3, n - 5):
            space = both.copy()
            got = bce_with_logits_loss(space[:n], space[n : 2 * n], out=space[start : start + n])
            assert same(got[0], want[0])
            assert same(space[start : start + n], want[1])
        square = both[:n].reshape(10, -1).copy()
        want = bce_with_logits_loss(square[:, ::2].copy(), 1)
        got = bce_with_logits_loss(square[:, ::2], 1, out=square[:, 1::2] if square.shape[1] % 2 == 0 else None)
        assert same(got[1], want[1])


def test_out_of_a_subclass():
    """Its memory is used, not its methods."""
    x, t = data(64)
    x, t = x.reshape(8, 8), t.reshape(8, 8)
    want = bce_with_logits_loss(x, t)[1]
    around = np.full((24, 8), 7.0)
    got = bce_with_logits_loss(x, t, out=around[8:16].view(np.matrix))[1]
    assert isinstance(got, np.matrix)
    assert same(around[8:16], want)
    assert (around[:8] == 7).all()
    assert (around[16:] == 7).all()
    hidden = np.ma.array(np.zeros((16, 8)), mask=True, hard_mask=True)[::2]
    bce_with_logits_loss(x, t, out=hidden)
    assert same(hidden.data, want)


def test_inputs_are_not_changed():
    x, t = data(1000)
    w = np.ones(1000)
    for a in (x, t, w):
        a.flags.writeable = False
    kept = [a.copy() for a in (x, t, w)]
    bce_with_logits_loss(x, t, sample_weight=w)
    focal_loss(x[::2], t[::2], sample_weight=w[::2])
    assert all(same(a, b) for a, b in zip((x, t, w), kept, strict=True))


# --- bad input -----------------------------------------------------------------------------------------------------------

WRONG = [
    ({"t": [1.0]}, ValueError, r"t must have x's shape \(2,\), or be one label for all, not shape \(1,\)"),
    ({"t": [[1.0, 0.0]]}, ValueError, r"t must have x's shape"),
    ({"reduction": "avg"}, ValueError, "reduction must be one of 'none', 'sum', 'mean', not 'avg'"),
    ({"sample_weight": [1.0, -0.5]}, ValueError, "sample_weight must not be negative, but its least entry is -0.5"),
    (
        {"sample_weight": [1.0, 2.0, 3.0]},
        ValueError,
        r"sample_weight must broadcast to x's shape \(2,\), not have shape \(3,\)",
    ),
    ({"x": 1j}, TypeError, "x must be of float16"),
    ({"x": ["a", "b"]}, TypeError, "x must be of float16"),
    ({"t": np.zeros(2, object)}, TypeError, "t must be of float16"),
    ({"sample_weight": "heavy"}, TypeError, "sample_weight must be of float16"),
    ({"out": [0.0, 0.0]}, TypeError, "out must be an ndarray"),
    ({"out": np.zeros(3)}, ValueError, r"out must be a writeable array of shape \(2,\) and dtype float64, not"),
    ({"out": np.zeros(2, np.float32)}, ValueError, "dtype float32"),
    ({"out": np.broadcast_to(0.0, 2)}, ValueError, "read-only"),
    ({"out": (np.zeros(2), np.zeros(2))}, ValueError, "out must have room for 1 result, not 2"),
    ({"reduction": np.array(["mean"])}, ValueError, "reduction must be one of"),
    ({"sample_weight": [NAN, -5.0]}, ValueError, "sample_weight must not be negative, but its least entry is -5.0"),
    ({"out": np.zeros(2), "grad": False}, ValueError, "there is no gradient with grad=False"),
]
TWICE = np.zeros(2)
BCE_ONLY = [
    ({"pos_weight": -1.0}, ValueError, "pos_weight must not be negative, but its least entry is -1.0"),
    ({"label_smoothing": 1.5}, ValueError, "label_smoothing must lie between 0 and 1, not 1.5"),
    ({"label_smoothing": "0.1"}, TypeError, "label_smoothing must be a number, not '0.1'"),
    ({"label_smoothing": NAN}, ValueError, "label_smoothing must lie between 0 and 1, not nan"),
    ({"hess": True, "grad": False}, ValueError, "leave grad=True"),
    ({"hess": True, "out": (TWICE, TWICE)}, ValueError, "two arrays that don't overlap"),
]
FOCAL_ONLY = [
    ({"gamma": -1}, ValueError, r"gamma must lie between 0 and 1e\+06, not -1"),
    ({"alpha": -1}, ValueError, "alpha must lie between 0 and 1, not -1; None weighs both classes alike"),
    ({"alpha": 2}, ValueError, "alpha must lie between 0 and 1, not 2"),
]


@pytest.mark.parametrize(
    ("loss", "wrong", "error", "message"),
    [(bce_with_logits_loss, *case) for case in WRONG + BCE_ONLY] + [(focal_loss, *case) for case in WRONG + FOCAL_ONLY],
)
def test_what_is_wrong_is_told(loss, wrong, error, message):
    right = {"x": [1.0, 2.0], "t": [1.0, 0.0]}
    given = {**right, **wrong}
    with pytest.raises(error, match=message):
        loss(given.pop("x"), given.pop("t"), **given)


def test_one_weight_a_row_is_hinted_at():
    with pytest.raises(ValueError, match=r"pass sample_weight\[:, None\]"):
        bce_with_logits_loss(np.zeros((3, 2)), np.zeros((3, 2)), sample_weight=np.ones(3))


def test_bfloat16_is_a_numpy_dtype():
    assert BFLOAT16.name in EVERY


@pytest.mark.slow
def test_sum_of_1e9_terms():
    """To 1e-12, on any number of threads."""
    n, x = 10**9, np.broadcast_to(np.float64(0.3), 10**9)
    term = float(fastsig.bce_with_logits(0.3, 1.0))
    got = bce_with_logits_loss(x, 1.0, reduction="sum", grad=False)
    assert got == pytest.approx(n * term, rel=1e-12, abs=0)
    with fastsig.num_threads(1):
        assert same(bce_with_logits_loss(x, 1.0, reduction="sum", grad=False), got)
