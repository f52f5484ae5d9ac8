"""The functions for JAX: the ufuncs' bits, under jit, vmap and differentiation, any number of times."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from conftest import ALL_DTYPES, assert_same, inputs, kernel_of, second_derivative

import fastsig
from fastsig.testing import exact, ulp

jax = pytest.importorskip("jax", reason="jax isn't installed")
import jax.numpy as jnp  # noqa: E402

from fastsig.interop import jax as fj  # noqa: E402

UNARY = ("sigmoid", "log_sigmoid", "softplus", "silu", "tanh")
NAMES = (*UNARY, "bce_with_logits")
TAILS = (-87.0, -40.0, -30.0, -17.5, -1.0, -0.25, 0.25, 1.0, 17.5, 30.0, 40.0, 87.0)  # no result is subnormal: XLA flushes them


@pytest.fixture(autouse=True)
def _doubles():
    """float64 as such."""
    with jax.enable_x64(True):
        yield


def total(f):
    return lambda *arguments: f(*arguments).sum()


def test_all_functions_are_public():
    assert set(fj.__all__) == set(NAMES)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_bits_are_the_ufuncs(name, dtype):
    arrays = inputs(name, dtype, (37, 41))
    for f in (getattr(fj, name), jax.jit(getattr(fj, name))):
        result = f(*arrays)
        assert isinstance(result, jax.Array)
        assert_same(np.asarray(result), getattr(fastsig, name)(*arrays))


@pytest.mark.parametrize("name", NAMES)
def test_numbers_and_nothing(name):
    count = getattr(fastsig, name).nin
    f = getattr(fj, name)
    assert float(f(*[0.5] * count)) == getattr(fastsig, name)(*[0.5] * count)
    assert f(*[jnp.zeros((0, 3))] * count).shape == (0, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UNARY)
def test_gradient_in_the_tails(name, dtype):
    """Within the ufunc's bound of the exact one, also where JAX's own is 0."""
    x = np.array(TAILS, dtype)
    g = np.linspace(-2, 3, len(x)).astype(dtype)
    _, pull = jax.vjp(getattr(fj, name), x)
    (dx,) = map(np.asarray, pull(jnp.asarray(g)))
    assert_same(dx, getattr(fastsig, f"{name}_vjp")(x, g))
    assert ulp(dx, exact(f"{name}_vjp", x, g)[0]).max() <= kernel_of(f"{name}_vjp").ulp[dtype]


def test_what_is_mended():
    """JAX's own gradient in float32, which these tests would fail with."""
    x = np.float32(30)
    assert jax.grad(jax.nn.sigmoid)(x) == 0
    assert ulp(jax.grad(fj.sigmoid)(x), exact("sigmoid_grad", np.array([x]))[0]) < 0.85


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradient_of_the_loss_in_the_tails(dtype):
    x, t = np.meshgrid(np.array(TAILS, dtype), np.array([0, 1], dtype))
    dx, dt = jax.jit(jax.grad(total(fj.bce_with_logits), argnums=(0, 1)))(x, t)
    assert ulp(np.asarray(dx), exact("bce_with_logits_grad", x, t)[0]).max() <= 1
    assert_same(np.asarray(dt), -x)


@pytest.mark.parametrize("name", UNARY)
def test_second_derivative_in_the_tails(name):
    x = np.array(TAILS, np.float32)
    for f in (jax.vmap(jax.grad(jax.grad(getattr(fj, name)))), jax.jit(jax.grad(total(jax.grad(total(getattr(fj, name))))))):
        want = second_derivative(name, x)
        normal = np.abs(want) > np.finfo(np.float32).smallest_normal
        assert normal.sum() >= 8
        assert ulp(np.asarray(f(x)), want)[normal].max() <= 3


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_by_finite_differences(name):
    """The first three, in reverse mode."""
    random = np.random.default_rng(0)
    arguments = [random.normal(size=(2, 3)), random.random((2, 3))][: getattr(fastsig, name).nin]
    f = total(getattr(fj, name))
    for _ in range(3):
        grad = jax.grad(f)
        step = 1e-6 * random.normal(size=(2, 3))
        rise = f(arguments[0] + step, *arguments[1:]) - f(arguments[0] - step, *arguments[1:])
        assert float(rise) == pytest.approx(float((2 * step * grad(*arguments)).sum()), rel=1e-4, abs=1e-15)
        f = total(lambda *a, grad=grad: grad(*a) ** 2)


def test_mixed_second_derivative_of_the_loss():
    x, t = np.float64([0.5, -2]), np.float64([0.25, 1])
    across = jax.jacrev(jax.grad(total(fj.bce_with_logits)), argnums=1)(x, t)
    assert (np.asarray(across) == -np.eye(2)).all()


def test_hessian_by_reverse_mode():
    x = np.float64([0.5, -2])
    hessian = jax.jacrev(jax.grad(total(fj.softplus)))(x)
    assert_same(np.asarray(hessian), np.diag(fastsig.sigmoid_grad(x)))


@pytest.mark.parametrize("name", ["sigmoid", "bce_with_logits"])
def test_vmap(name):
    """Over any axis, of some of the arguments, nested, and of gradients."""
    arrays = inputs(name, "float32", (4, 5, 6))
    f = getattr(fj, name)
    want = getattr(fastsig, name)(*arrays)
    assert_same(np.asarray(jax.jit(jax.vmap(f))(*arrays)), want)
    assert_same(np.asarray(jax.vmap(jax.vmap(f), in_axes=1, out_axes=1)(*arrays)), want)
    assert_same(np.asarray(jax.vmap(f, in_axes=2, out_axes=2)(*arrays)), want)
    if len(arrays) == 2:
        x, t = arrays
        for axes, pair in (((0, None), (x, t[0])), ((None, 0), (x[0], t))):
            assert_same(np.asarray(jax.vmap(f, in_axes=axes)(*pair)), fastsig.bce_with_logits(*pair))
        crossed = jax.vmap(jax.vmap(f, in_axes=(None, 0)), in_axes=(0, None))(x[0], t[0])
        assert_same(np.asarray(crossed), fastsig.bce_with_logits(x[0][:, None], t[0][None]))


def test_subnormal_results_arrive():
    """XLA's threads flush subnormal numbers; a callback on one of them doesn't."""
    x = np.full(100_000, -100, np.float32)
    assert_same(np.asarray(jax.jit(fj.sigmoid)(x)), fastsig.sigmoid(x))


def test_many_large_callbacks_end(python):
    """In a process of its own: callbacks that wait for their own arguments hang."""
    code = """if True:
        import jax, jax.numpy as jnp
        from fastsig.interop.jax import sigmoid, bce_with_logits
        x = jnp.linspace(-9, 9, 4_000_000)
        step = jax.jit(jax.grad(lambda x: bce_with_logits(2 * sigmoid(x) + sigmoid(-x), jnp.ones_like(x)).sum()))
        for _ in range(5):
            x = x - step(x)
        print(bool(jnp.isfinite(x).all()))
    """
    assert python(code, timeout=100) == "True"


@pytest.mark.parametrize("value", [3, True, 1j, np.arange(3), np.ones(2, ml_dtypes.float8_e4m3fn)], ids=repr)
def test_other_dtypes(value):
    with pytest.raises(TypeError, match=r"are taken, not \w+: convert it first"):
        fj.sigmoid(value)


def test_labels_of_another_dtype_or_shape():
    x = jnp.zeros(3)
    with pytest.raises(TypeError, match=r"same dtype, not float64 and int64: t\.astype\(x\.dtype\)"):
        fj.bce_with_logits(x, jnp.ones(3, int))
    with pytest.raises(ValueError, match=r"same shape, not \(3,\) and \(3, 1\)"):
        fj.bce_with_logits(x, jnp.ones((3, 1)))


def test_forward_mode_is_refused():
    for f in (jax.hessian(total(fj.sigmoid)), jax.jacfwd(fj.sigmoid)):
        with pytest.raises(TypeError, match="forward-mode"):
            f(jnp.zeros(2))
