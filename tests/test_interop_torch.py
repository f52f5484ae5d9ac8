"""The PyTorch operators: the ufuncs' bits, no copies, every derivative, and PyTorch's own checks of operators."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from conftest import ALL_DTYPES, assert_same, inputs, kernel_of, second_derivative

import fastsig
from fastsig.testing import exact, ulp

torch = pytest.importorskip("torch", reason="torch isn't installed")
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

from fastsig.interop import torch as ft  # noqa: E402

UNARY = ("sigmoid", "log_sigmoid", "softplus", "silu", "tanh")
NAMES = (*UNARY, "bce_with_logits")
OPERATORS = (*UNARY, *(f"{name}_vjp" for name in UNARY), "bce_with_logits", "bce_with_logits_grad")
TAILS = (-100.0, -40.0, -30.0, -17.5, -1.0, -0.25, 0.25, 1.0, 17.5, 30.0, 40.0, 100.0)


def operator(name):
    return getattr(torch.ops.fastsig, name).default


def doubles(name, seed=0, shape=(3, 4)):
    """Arguments for finite differences."""
    random = torch.Generator().manual_seed(seed)
    made = [2 * torch.randn(shape, generator=random, dtype=torch.float64)]
    if operator(name)._schema.arguments[1:]:
        made.append(torch.rand(shape, generator=random, dtype=torch.float64))
    return tuple(x.requires_grad_() for x in made)


def tensors(name, dtype, shape=(1000,)):
    """The same numbers as arrays and as tensors."""
    arrays = inputs(name, dtype, shape)
    if dtype == "bfloat16":
        return arrays, [torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) for a in arrays]
    return arrays, [torch.from_numpy(a) for a in arrays]


# --- forward -----------------------------------------------------------------------------------------------------------


def test_all_functions_are_public():
    assert set(ft.__all__) == set(NAMES)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("name", OPERATORS)
def test_bits_are_the_ufuncs(name, dtype):
    arrays, given = tensors(name, dtype, (37, 41))
    result = operator(name)(*given)
    assert (result.dtype, result.shape, result.device.type) == (given[0].dtype, given[0].shape, "cpu")
    assert_same(ft.array(result), getattr(fastsig, name)(*arrays))


LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.T,
    "every second": lambda x: x[:, ::2],
    "inside": lambda x: x[3:-2, 5:-1],
    "expanded": lambda x: x[:1].expand(len(x), -1),
    "one number": lambda x: x[3, 3],
    "nothing": lambda x: x[:0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["sigmoid", "silu_vjp", "bce_with_logits"])
def test_layouts(name, layout):
    """Any strides; the result's are those of PyTorch's own elementwise functions."""
    _, given = tensors(name, "float32", (40, 60))
    views = [LAYOUTS[layout](x) for x in given]
    result = operator(name)(*views)
    assert result.stride() == torch.empty_like(views[0]).stride()
    assert_same(result.numpy(), getattr(fastsig, name)(*[x.numpy() for x in views]))


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "every second", "expanded"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_is_copied(dtype, layout):
    """An array is the tensor's memory, with its strides, and NumPy allocates none during a call, forward or back."""
    x = LAYOUTS[layout](torch.randn(1000, 1000).to(getattr(torch, dtype)))
    array = ft.array(x)
    assert array.dtype == (np.float32 if dtype == "float32" else ml_dtypes.bfloat16)
    assert array.ctypes.data == x.data_ptr()
    assert array.strides == tuple(step * x.element_size() for step in x.stride())
    if layout == "expanded":
        assert not array.strides[0]
    x = x.detach().requires_grad_()
    g = torch.ones_like(x)
    ft.sigmoid(x).backward(g)  # compiled code is loaded
    tracemalloc.start()
    try:
        ft.sigmoid(x).backward(g)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 0.1 * x.numel() * x.element_size()


def test_written_in_place_through_the_array():
    x = torch.zeros(4, dtype=torch.bfloat16)
    ft.array(x)[1:3] = 1.5
    assert x.tolist() == [0, 1.5, 1.5, 0]


def test_lazily_negated_tensors():
    x = torch._neg_view(torch.tensor([1.0, 2.0]))
    assert x.is_neg()
    assert torch.equal(ft.sigmoid(x), ft.sigmoid(torch.tensor([-1.0, -2.0])))


# --- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UNARY)
def test_gradient_in_the_tails(name, dtype):
    """Within the ufunc's bound of the exact one, also where PyTorch's own is 0."""
    x = torch.tensor(TAILS, dtype=getattr(torch, dtype), requires_grad=True)
    g = torch.linspace(-2, 3, len(TAILS), dtype=x.dtype)
    (dx,) = torch.autograd.grad(getattr(ft, name)(x), x, g)
    arrays = x.detach().numpy(), g.numpy()
    assert_same(dx.numpy(), getattr(fastsig, f"{name}_vjp")(*arrays))
    assert ulp(dx.numpy(), exact(f"{name}_vjp", *arrays)[0]).max() <= kernel_of(f"{name}_vjp").ulp[dtype]


def test_what_is_mended():
    """PyTorch's own gradient in float32, which these tests would fail with."""
    x = torch.tensor([30.0], requires_grad=True)
    assert torch.autograd.grad(torch.sigmoid(x), x)[0] == 0
    assert ulp(torch.autograd.grad(ft.sigmoid(x), x)[0].numpy(), exact("sigmoid_grad", np.float32([30]))[0]) < 0.85


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradient_of_the_loss_in_the_tails(dtype):
    logits, labels = np.meshgrid(np.array(TAILS, dtype), np.array([0, 1], dtype))
    x, t = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(labels).requires_grad_()
    dx, dt = torch.autograd.grad(ft.bce_with_logits(x, t).sum(), (x, t))
    assert ulp(dx.numpy(), exact("bce_with_logits_grad", logits, labels)[0]).max() <= 1
    assert torch.equal(dt, -x)


@pytest.mark.parametrize("name", UNARY)
def test_second_derivative_in_the_tails(name):
    """A few roundings."""
    x = torch.tensor(TAILS, requires_grad=True)
    (dx,) = torch.autograd.grad(getattr(ft, name)(x).sum(), x, create_graph=True)
    (ddx,) = torch.autograd.grad(dx.sum(), x)
    want = second_derivative(name, x.detach().numpy())
    normal = np.abs(want) > np.finfo(np.float32).smallest_normal
    assert normal.sum() >= 8
    assert ulp(ddx.numpy(), want)[normal].max() <= 3


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_by_finite_differences(name):
    arguments = doubles(name)
    assert gradcheck(operator(name), arguments, check_batched_grad=True)
    assert gradgradcheck(operator(name), arguments, check_batched_grad=True)


@pytest.mark.parametrize("name", UNARY)
def test_third_derivative(name):
    x = doubles(name)[0]

    def once(x):
        return torch.autograd.grad(getattr(ft, name)(x).sum(), x, create_graph=True)[0]

    assert gradgradcheck(once, (x,))


@pytest.mark.parametrize("name", ["sigmoid_vjp", "bce_with_logits", "bce_with_logits_grad"])
def test_only_what_is_needed_is_differentiated(name):
    x, other = doubles(name)
    for wanted, constant in ((x, other), (other, x)):
        constant = constant.detach()
        arguments = (x.detach(), wanted) if wanted is other else (wanted, constant)
        (got,) = torch.autograd.grad(operator(name)(*arguments).sum(), wanted)
        (want,) = torch.autograd.grad(operator(name)(x, other).sum(), wanted)
        assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_gradients(dtype):
    x = torch.tensor([-9.0, 0.0, 5.0], dtype=getattr(torch, dtype), requires_grad=True)
    ft.sigmoid(x).sum().backward()
    assert x.grad.dtype is x.dtype
    assert_same(ft.array(x.grad), fastsig.sigmoid_grad(ft.array(x.detach())))


# --- what PyTorch asks of an operator ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATORS)
def test_opcheck(name):
    torch.library.opcheck(operator(name), doubles(name))
    torch.library.opcheck(operator(name), tuple(x.detach().T[::2] for x in doubles(name)), test_utils="test_faketensor")


@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_vjp", "bce_with_logits"])
def test_vmap(name):
    arguments = [x.detach() for x in doubles(name, shape=(5, 3, 4))]
    assert torch.equal(torch.vmap(operator(name))(*arguments), operator(name)(*arguments))
    for axis in (1, 2):
        moved = torch.vmap(operator(name), in_dims=axis)(*arguments)
        assert torch.equal(moved, operator(name)(*[x.movedim(axis, 0) for x in arguments]))
    if len(arguments) == 2:
        x, other = arguments
        got = torch.vmap(operator(name), in_dims=(0, None))(x, other[0])
        assert torch.equal(got, operator(name)(x, other[:1].expand_as(x)))
        got = torch.vmap(operator(name), in_dims=(None, 0))(x[0], other)
        assert torch.equal(got, operator(name)(x[:1].expand_as(x), other))


def test_compiles_as_one_graph():
    """Without a break, and its gradient with it."""

    def f(x, t):
        return (ft.bce_with_logits(2 * x, t) + ft.silu(x)).mean()

    x, t = (a.detach().float() for a in doubles("bce_with_logits"))
    grads = []
    for g in (f, torch.compile(f, fullgraph=True, backend="aot_eager")):
        x = x.detach().requires_grad_()
        g(x, t).backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, rtol=1e-6, atol=0)
    torch.compiler.reset()


def test_without_data():
    assert ft.sigmoid(torch.empty(3, 4, device="meta")).shape == (3, 4)


def test_a_parameter_learns():
    """One weight, by gradient descent: the logit of the labels' mean."""
    weight = torch.nn.Parameter(torch.tensor(5.0))
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0])
    optimizer = torch.optim.SGD([weight], lr=4)
    for _ in range(60):
        optimizer.zero_grad()
        ft.bce_with_logits(weight.expand(4), labels).mean().backward()
        optimizer.step()
    assert float(weight.detach()) == pytest.approx(np.log(0.25 / 0.75), abs=1e-5)


# --- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.uint8])
def test_other_dtypes(dtype):
    with pytest.raises(TypeError, match=rf"float32 and float64 are taken, not {dtype}: convert it by x\.to"):
        ft.sigmoid(torch.ones(3).to(dtype))


def test_labels_of_another_dtype_or_shape():
    x = torch.zeros(3)
    with pytest.raises(TypeError, match=r"same dtype, not torch.float32 and torch.int64.*t\.to\(x\.dtype\)"):
        ft.bce_with_logits(x, torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"same shape, not \(3,\) and \(3, 1\)"):
        ft.bce_with_logits(x, torch.ones(3, 1))


def test_other_layouts_and_devices():
    """A device that this machine needn't have: PyTorch's fake tensors say that they are there."""
    with pytest.raises(ValueError, match=r"dense CPU tensors, not on torch.sparse_coo: .*to_dense"):
        ft.sigmoid(torch.ones(3).to_sparse())
    with FakeTensorMode(), pytest.raises(ValueError, match=r"dense CPU tensors, not on cuda: .*cpu\(\)"):
        ft.bce_with_logits(torch.ones(3, device="cuda"), torch.ones(3, device="cuda"))


def test_bfloat16_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r"pip install 'fastsig\[bfloat16\]'"):
        ft.sigmoid(torch.ones(3, dtype=torch.bfloat16))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own, at its first dual
def test_forward_mode_is_refused():
    """PyTorch would take the operators for constant, silently."""
    x, one = torch.tensor([0.0, 1.0]), torch.ones(2)
    for function in (
        ft.sigmoid,
        lambda x: ft.bce_with_logits(x, torch.ones(2)),
        lambda x: ft.bce_with_logits(torch.ones(2), x),
    ):
        with pytest.raises(NotImplementedError, match="forward-mode"):
            torch.func.jvp(function, (x,), (one,))
