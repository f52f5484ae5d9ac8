"""The contract: the coefficients, the definition of an error, the reference, and the functions against it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest
from conftest import ALL_DTYPES, numpy_dtype

import fastsig
from fastsig import constants, kernels, testing, verify
from fastsig.cli import main

EXTENDED = np.finfo(np.longdouble).nmant >= 63
JUDGED = [
    pytest.param(d, marks=pytest.mark.skipif(d == "float64" and not EXTENDED, reason="no wider type here")) for d in ALL_DTYPES
]


def minimax():
    path = Path(__file__).parents[1] / "benchmarks" / "minimax.py"
    spec = importlib.util.spec_from_file_location("minimax", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["minimax"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


FITS = minimax().FITS
FORMATS = {format.name: format for format in (constants.FLOAT32, constants.FLOAT64)}


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: f"{fit.name}-{fit.format}")
def test_coefficients_are_what_the_program_prints(fit):
    coefficients, error = minimax().solve(fit)
    assert [c.hex() for c in coefficients] == [c.hex() for c in getattr(FORMATS[fit.format], fit.name)]
    assert error < {"float32": -27.7, "float64": -55.8}[fit.format]


def test_every_polynomial_has_a_fit():
    polynomials = {field.name for field in dataclasses.fields(constants.Format) if "tuple" in str(field.type)}
    assert {(fit.name, fit.format) for fit in FITS} == {(name, format) for name in polynomials for format in FORMATS}


@pytest.mark.parametrize("format", FORMATS.values(), ids=lambda f: f.name)
def test_constants_are_what_they_stand_for(format):
    bits, lowest = {"float32": (24, -149), "float64": (53, -1074)}[format.name]
    bias = {"float32": 127, "float64": 1023}[format.name]
    assert (format.digits, format.bias) == (bits - 1, bias)
    dtype = np.dtype(format.name).type
    with mp.workdps(60):
        ln2 = mp.log(2)
        assert format.log2e == dtype(float(1 / ln2))
        assert abs(ln2 - format.ln2 - format.ln2_rest) < mp.mpf(2) ** (-2 * bits - 2)
        assert abs(ln2 - format.ln2_high - format.ln2_low) < mp.mpf(2) ** (-1.4 * bits)
        for k in (1, 3, -lowest - 1, -lowest):
            assert dtype(k) * dtype(format.ln2_high) == k * mp.mpf(format.ln2_high)  # exactly
        assert format.magic == 1.5 * 2 ** (bits - 1) + bias + mp.log(format.unit, 2)

        def sigmoid(x):
            return 1 / (1 + mp.exp(-x))

        crossings = {
            "subnormal": lambda a: sigmoid(-a),
            "subnormal_silu": lambda a: a * sigmoid(-a),
            "subnormal_silu_grad": lambda a: sigmoid(-a) * (a * sigmoid(a) - 1),
            "subnormal_tanh_grad": lambda a: 4 * sigmoid(-a) * sigmoid(a),
        }
        for name, function in crossings.items():  # subnormal there, and not at the number before, by more than any error
            at = dtype(getattr(format, name))
            assert function(mp.mpf(float(at))) < format.smallest * (1 - mp.mpf(2) ** (2 - bits)), name
            assert function(mp.mpf(float(np.nextafter(at, dtype(0))))) >= format.smallest * (1 + mp.mpf(2) ** (2 - bits)), name
        assert format.highest * mp.exp(-format.highest) < mp.mpf(2) ** (lowest - 1)  # it rounds to zero
        assert 1 / (1 + mp.exp(format.ordinary.most)) > format.smallest
        assert 4 * sigmoid(-2 * format.moderate.most) > format.smallest
        assert 2 * format.moderate.most <= format.ordinary.most
        assert format.unit * mp.mpf(2) ** -mp.ceil(format.highest / ln2) >= format.smallest
        assert format.vanishing * mp.exp(-format.vanishing) * mp.mpf(2) ** (bias + 1) < mp.mpf(2) ** (lowest - 1)
        assert format.unit * mp.mpf(2) ** (format.nearest - format.magic) >= format.smallest
        assert format.share * mp.mpf(2) ** (format.nearest - format.magic) == mp.mpf(2) ** lowest


BASE = [n for n in testing.EXACT if "_and_" not in n]


@pytest.mark.parametrize("name", BASE)
@pytest.mark.parametrize("dtype", JUDGED)
def test_reference_agrees_with_arbitrary_precision(name, dtype):
    kernel, chosen = kernels.KERNELS[name], numpy_dtype(dtype)
    x = np.concatenate([testing.edges(chosen), testing.random(chosen, 300)])
    operands = testing.operands(kernel.inputs, x[np.isfinite(x)])
    (reference,) = testing.exact(name, *operands)
    info = testing.finfo(chosen)
    with mp.workdps(60):
        for got, *numbers in zip(reference, *operands, strict=True):
            values = dict(zip(kernel.inputs, (mp.mpf(float(v)) for v in numbers), strict=True))
            if any(mp.isinf(v) for v in values.values()) or ("p" in values and not 0 < values["p"] < 1):
                continue
            truth, scale = definition(name, **values)
            allowed = scale * mp.mpf(2) ** -(info.nmant + testing.MARGIN - 1) + mp.mpf(2) ** (info.minexp - info.nmant) / 1024
            assert abs(as_real(got) - truth) <= allowed, values


def as_real(value):
    numerator, denominator = value.as_integer_ratio()
    return mp.mpf(numerator) / denominator


def definition(name, x=None, y=None, g=None, t=None, p=None):
    """The textbook's formula, and the size of what it adds up where that may cancel."""
    base, _, form = name.partition("_grad" if name.endswith("_grad") else "_vjp" if name.endswith("_vjp") else "\0")
    if form or name.endswith(("_grad", "_vjp")):
        form = "grad"
    if name.endswith(("_derivative", "_backward")):
        value = y * (1 - y) if name.startswith("sigmoid") else 1 - y * y
        scale = abs(value) if name.startswith("sigmoid") else 1
    elif name == "logit":
        value = mp.log(p) - mp.log1p(-p)
        scale = abs(value)
    else:
        s, c = 1 / (1 + mp.exp(-x)), 1 / (1 + mp.exp(x))
        value = {
            "sigmoid": lambda: s,
            "sigmoidgrad": lambda: s * c,
            "softplus": lambda: mp.log1p(mp.exp(x)),
            "softplusgrad": lambda: s,
            "log_sigmoid": lambda: -mp.log1p(mp.exp(-x)),
            "log_sigmoidgrad": lambda: c,
            "silu": lambda: x * s,
            "silugrad": lambda: s * (1 + x * c),
            "tanh": lambda: mp.tanh(x),
            "tanhgrad": lambda: mp.sech(x) ** 2,
            "bce_with_logits": lambda: t * mp.log1p(mp.exp(-x)) + (1 - t) * mp.log1p(mp.exp(x)),
            "bce_with_logitsgrad": lambda: (1 - t) * s - t * c,
        }[base + form]()
        scale = {"silugrad": s, "bce_with_logitsgrad": max((1 - t) * s, t * c) if t is not None else 0}.get(
            base + form, abs(value)
        )
        scale = max(abs(value), scale) if (base, form) != ("silu", "grad") or -1.5 <= x <= -1 else abs(value)
    return (value, scale) if g is None else (g * value, abs(g) * scale)


def test_ulp_by_hand():
    one = np.float64(1)
    got = np.array([1, 1, 2, 0, -0.0, np.nan, np.nan, np.inf, 1e-45], dtype=np.float32)
    true = np.array([1, one + 2**-24, 1, 0, 0, np.nan, 1, np.inf, 0.7e-45])
    expected = [0, 0.5, 2**23, 0, np.inf, 0, np.inf, 0, pytest.approx(1 - 0.7e-45 * 2.0**149)]
    assert testing.ulp(got, true).tolist() == expected


@pytest.mark.parametrize("dtype", JUDGED)
@pytest.mark.parametrize("name", kernels.KERNELS)
def test_contract(name, dtype):
    """All of float16 and bfloat16, and of the others the edges, the worst on record, bit-spaced numbers and random ones."""
    for finding in verify.check((name,), (dtype,)):
        assert finding.kept, f"{finding.error} (absolutely {finding.crossing}) at {finding.worst}"
        assert finding.count > 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in BASE if len(kernels.KERNELS[n].inputs) == 1])
def test_contract_for_every_float32(name):
    """Of the functions of one argument; what is computed together has the same bits, as other tests show."""
    for finding in verify.check((name,), ("float32",), exhaustive=True):
        assert finding.kept, f"{finding.error} (absolutely {finding.crossing}) at {finding.worst}"
        assert finding.count > 2**32


@pytest.mark.slow
@pytest.mark.skipif(not EXTENDED, reason="no wider type here")
@pytest.mark.parametrize("name", kernels.KERNELS)
def test_contract_for_ten_million_float64(name):
    for finding in verify.check((name,), ("float64",), exhaustive=True):
        assert finding.kept, f"{finding.error} (absolutely {finding.crossing}) at {finding.worst}"
        assert finding.count > 10**7


# --- what is on record: the largest errors that long runs have found, with their inputs --------------------------------

RECORDED = [
    (name, output, dtype, found)
    for name, outputs in testing.recorded().items()
    for output, dtypes in outputs.items()
    for dtype, found in dtypes.items()
]


def test_everything_is_on_record():
    wanted = {(n, o, d) for n, kernel in kernels.KERNELS.items() for o in kernel.outputs for d in ALL_DTYPES}
    assert {row[:3] for row in RECORDED} == wanted


@pytest.mark.parametrize(("name", "output", "dtype", "found"), RECORDED, ids=lambda v: v if isinstance(v, str) else "")
def test_bounds_are_tight(name, output, dtype, found):
    """What is stated isn't much more than what was found: a quarter of a unit, or twice an absolute error."""
    kernel = kernels.KERNELS[name]
    assert found["error"] <= kernel.ulp[dtype]
    largest = max(outputs[dtype]["error"] for outputs in testing.recorded()[name].values())  # one bound for all outputs
    assert kernel.ulp[dtype] <= largest + 0.25
    bound = verify.absolute_bound(kernel, output, dtype)
    assert ("crossing" in found) == (bound is not None)
    if bound:
        assert found["crossing"] <= bound <= 2 * found["crossing"]


@pytest.mark.parametrize("dtype", JUDGED)
@pytest.mark.parametrize("name", kernels.KERNELS)
def test_worst_on_record(name, dtype):
    """The same error as when it was found: the bits have not changed."""
    arguments = testing.worst(name, numpy_dtype(dtype))
    _, judged = verify.judge(kernels.KERNELS[name], arguments)
    for k, (output, it) in enumerate(zip(kernels.KERNELS[name].outputs, judged, strict=True)):
        found = testing.recorded()[name][output][dtype]
        assert it.errors[k] == pytest.approx(found["error"], abs=1e-3)


def test_verify_fails_loudly(monkeypatch, capsys):
    tight = dataclasses.replace(kernels.KERNELS["sigmoid"], ulp={"float16": 0.4})
    monkeypatch.setitem(kernels.KERNELS, "sigmoid", tight)
    assert main(["verify", "--functions", "sigmoid", "--dtypes", "float16"]) == 1
    out, err = capsys.readouterr()
    assert "VIOLATED" in out
    assert "sigmoid in float16 breaks its contract of 0.4 ULP" in err


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.0, 1.0])
def test_verify_notices_a_wrong_special_value(monkeypatch, wrong):
    """One wrong answer, a zero's sign, a NaN, where the truth is the smallest subnormal or zero."""
    x = np.float32([-200, -103.5])
    finding = verify.Finding("sigmoid", "y", "float32", 0.85)
    errors = testing.ulp(np.float32([wrong, wrong]), testing.exact("sigmoid", x)[0])
    finding.include(verify.Judged(errors, 0.0, {}, 2), (x,))
    assert not finding.kept


def test_verify_passes_and_says_so(capsys):
    assert main(["verify", "--functions", "sigmoid_derivative", "--dtypes", "float16"]) == 0
    assert "1 of 1 contracts kept" in capsys.readouterr().out


def test_verify_unknown_names(capsys):
    assert main(["verify", "--functions", "sigmod"]) == 2
    assert "unknown function 'sigmod'" in capsys.readouterr().err


def test_verify_says_what_is_unwritable(tmp_path, capsys):
    assert main(["verify", "--functions", "sigmoid", "--dtypes", "float16", "--json", str(tmp_path)]) == 2
    assert "can't write" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1.0])
def test_verify_notices_what_is_wrong_where_the_bound_is_absolute(wrong):
    x = np.linspace(-1.5, -1, 11, dtype=np.float32)
    kernel = kernels.KERNELS["silu_grad"]
    errors, crossing = verify.relative(kernel, "dy", (x,), np.full_like(x, wrong), testing.exact("silu_grad", x)[0])
    assert errors.max() > kernel.ulp["float32"] or crossing > kernel.absolute["dy"].bound["float32"]


def test_verify_wants_a_file_of_its_own(tmp_path, capsys):
    (tmp_path / "other.json").write_text("[]")
    assert main(["verify", "--functions", "sigmoid", "--dtypes", "float16", "--json", str(tmp_path / "other.json")]) == 2
    assert "can't write" in capsys.readouterr().err


def test_verify_compares_and_records(tmp_path, capsys):
    """Beside SciPy, NumPy and torch where they are installed; the file has what was found, and keeps what was worse before."""
    pytest.importorskip("scipy", reason="SciPy isn't installed")
    path, arguments = tmp_path / "found.json", ["verify", "--functions", "sigmoid", "--dtypes", "float16", "--table", "--json"]
    assert main([*arguments, str(path)]) == 0
    shown = capsys.readouterr().out
    assert "NumPy" in shown
    found = json.loads(path.read_text())
    assert found["sigmoid"]["y"]["float16"]["count"] > 2**16
    assert found["sigmoid"]["y"]["float16"]["peers"]["NumPy"] > 0.51
    found["sigmoid"]["y"]["float16"].update(error=0.505, inputs=["0x1p0"])
    path.write_text(json.dumps(found))
    assert main([*arguments, str(path)]) == 0
    assert json.loads(path.read_text())["sigmoid"]["y"]["float16"]["inputs"] == ["0x1p0"]


LIMITS = {  # at -inf, inf, 0 and -0
    "sigmoid": [0.0, 1.0, 0.5, 0.5],
    "sigmoid_grad": [0.0, 0.0, 0.25, 0.25],
    "softplus": [0.0, np.inf, np.log(2), np.log(2)],
    "log_sigmoid": [-np.inf, -0.0, -np.log(2), -np.log(2)],
    "silu": [-0.0, np.inf, 0.0, -0.0],
    "silu_grad": [-0.0, 1.0, 0.5, 0.5],
    "tanh": [-1.0, 1.0, 0.0, -0.0],
    "tanh_grad": [0.0, 0.0, 1.0, 1.0],
    "logit": [np.nan, np.nan, -np.inf, -np.inf],
}


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("name", LIMITS)
def test_limits(name, dtype):
    dtype = numpy_dtype(dtype)
    x = np.array([-np.inf, np.inf, 0, -0.0, np.nan], dtype)
    want = np.array([*LIMITS[name], np.nan]).astype(dtype)
    got = getattr(fastsig, name)(x)
    np.testing.assert_array_equal(got.astype(float), want.astype(float))
    number = ~np.isnan(want)
    assert (np.signbit(got) == np.signbit(want))[number].all()


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_tails_are_not_flushed(dtype):
    """Down to the smallest subnormal, results are numbers, where SciPy's, NumPy's and torch's are 0."""
    dtype = numpy_dtype(dtype)
    smallest = np.array([1], f"u{dtype.itemsize}").view(dtype)
    x = np.log(smallest.astype(np.longdouble)).astype(dtype)
    for name in ("sigmoid", "softplus", "log_sigmoid_grad"):
        assert (getattr(fastsig, name)(-x if "log" in name else x) > 0).all()
    assert (fastsig.sigmoid_grad(-x) > 0).all()
    assert (fastsig.log_sigmoid(-x) < 0).all()
    assert (fastsig.silu(x) < 0).all()
    assert (fastsig.silu_grad(x) < 0).all()
    assert (fastsig.tanh_grad(x / dtype.type(2)) > 0).all()


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_logit_outside_is_nan(dtype):
    """Without a warning."""
    dtype = numpy_dtype(dtype)
    smallest = np.array([1], f"u{dtype.itemsize}").view(dtype)
    p = np.concatenate([np.array([-1, 2, -np.inf, np.inf, -0.5, 1.5], dtype), -smallest])
    with np.errstate(all="raise"):
        assert np.isnan(fastsig.logit(np.tile(p, 100))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_outside_are_computed(dtype):
    """As the formula says, not rejected."""
    x = np.array([-3, -0.5, 0, 2, 40], dtype)
    for t in (-2, -0.25, 1.5, 100):
        t = np.dtype(dtype).type(t)
        wide = x.astype(np.longdouble)
        loss = np.maximum(wide, 0) - wide * t + np.log1p(np.exp(-np.abs(wide)))
        np.testing.assert_allclose(fastsig.bce_with_logits(x, t), loss, rtol=1e-5 if dtype == "float32" else 1e-13)
        grad = 1 / (1 + np.exp(-wide)) - t
        np.testing.assert_allclose(fastsig.bce_with_logits_grad(x, t), grad, rtol=1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_cross_entropy_at_the_ends(dtype):
    """An infinite logit with its own label loses nothing, with the other one infinitely; NaN on either side is NaN."""
    dtype = numpy_dtype(dtype)
    x = np.array([np.inf, np.inf, -np.inf, -np.inf, np.nan, 1, np.nan], dtype)
    t = np.array([1, 0, 0, 1, 0, np.nan, np.nan], dtype)
    value, grad = fastsig.bce_with_logits_value_and_grad(x, t)
    np.testing.assert_array_equal(value.astype(float), [0, np.inf, 0, np.inf, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(grad.astype(float), [0, 1, 0, -1, np.nan, np.nan, np.nan])
    grad, hess = fastsig.bce_with_logits_grad_and_hess(x, t)
    np.testing.assert_array_equal(hess.astype(float), [0, 0, 0, 0, np.nan, np.nan, np.nan])


def test_every_kernel_has_a_reference_and_a_name():
    assert set(testing.EXACT) == set(kernels.KERNELS)
    assert set(fastsig.UFUNCS) == set(kernels.KERNELS) | set(kernels.ALIASES)


def test_worst_inputs_of_an_alias_are_the_functions():
    for alias, name in kernels.ALIASES.items():
        assert testing.worst(alias, np.float32)[0].size > 0
        assert (testing.worst(alias, np.float32)[0] == testing.worst(name, np.float32)[0]).all()
