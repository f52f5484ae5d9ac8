"""The contract: the coefficients, the definition of an error, the reference, and the functions against it."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest

import fastsig
from fastsig import constants, kernels, testing, verify
from fastsig.cli import main

DTYPES = ("float16", "float32", "float64")
EXTENDED = np.finfo(np.longdouble).nmant >= 63
JUDGED = [
    pytest.param(d, marks=pytest.mark.skipif(d == "float64" and not EXTENDED, reason="no wider type here")) for d in DTYPES
]


def minimax():
    path = Path(__file__).parents[1] / "benchmarks" / "minimax.py"
    spec = importlib.util.spec_from_file_location("minimax", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["minimax"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("format", [constants.FLOAT32, constants.FLOAT64], ids=lambda f: f.name)
def test_coefficients_are_what_the_program_prints(format):
    tool = minimax()
    (fit,) = [fit for fit in tool.FITS if fit.format == format.name]
    coefficients, error = tool.solve(fit)
    assert [c.hex() for c in coefficients] == [c.hex() for c in getattr(format, fit.name)]
    assert error < {"float32": -28.2, "float64": -57.7}[format.name]


@pytest.mark.parametrize("format", [constants.FLOAT32, constants.FLOAT64], ids=lambda f: f.name)
def test_constants_are_what_they_stand_for(format):
    bits, lowest = {"float32": (24, -149), "float64": (53, -1074)}[format.name]
    bias = {"float32": 127, "float64": 1023}[format.name]
    with mp.workdps(60):
        ln2 = mp.log(2)
        assert format.log2e == np.dtype(format.name).type(float(1 / ln2))
        assert abs(ln2 - format.ln2 - format.ln2_rest) < mp.mpf(2) ** (-2 * bits - 2)
        assert format.magic == 1.5 * 2 ** (bits - 1) + bias + mp.log(format.unit, 2)
        assert 1 / (1 + mp.exp(format.subnormal)) < format.smallest
        assert 1 / (1 + mp.exp(np.nextafter(np.dtype(format.name).type(format.subnormal), 0).item())) >= format.smallest
        assert mp.exp(-format.highest) < mp.mpf(2) ** (lowest - 1)  # it rounds to zero
        assert 1 / (1 + mp.exp(format.ordinary)) > format.smallest
        assert mp.exp(-format.vanishing) * mp.mpf(2) ** (bias + 1) < 1.5 * mp.mpf(2) ** lowest


@pytest.mark.parametrize("name", [n for n in testing.EXACT if "value" not in n])
@pytest.mark.parametrize("dtype", JUDGED)
def test_reference_agrees_with_arbitrary_precision(name, dtype):
    kernel = kernels.KERNELS[name]
    x = np.concatenate([testing.edges(dtype), testing.random(dtype, 300)])
    operands = verify.operands_for(kernel, x[np.isfinite(x)])
    (reference,) = testing.exact(name, *operands)
    with mp.workdps(60):
        for got, *numbers in zip(reference, *operands, strict=True):
            values = dict(zip(kernel.inputs, (mp.mpf(float(v)) for v in numbers), strict=True))
            if any(mp.isinf(v) for v in values.values()):
                continue
            truth = definition(name, **values)
            scale = mp.mpf(2) ** (np.finfo(dtype).minexp - np.finfo(dtype).nmant)
            allowed = abs(truth) * mp.mpf(2) ** -(np.finfo(dtype).nmant + testing.MARGIN) + scale / 1024
            assert abs(as_real(got) - truth) <= allowed


def as_real(value):
    numerator, denominator = value.as_integer_ratio()
    return mp.mpf(numerator) / denominator


def definition(name, x=None, y=None, g=1):
    if x is not None:
        e = mp.exp(-x)
        y = 1 / (1 + e)
        slope = e * y * y
    else:
        slope = y * (1 - y)
    return y if name == "sigmoid" else g * slope


def test_ulp_by_hand():
    one = np.float64(1)
    got = np.array([1, 1, 2, 0, -0.0, np.nan, np.nan, np.inf, 1e-45], dtype=np.float32)
    true = np.array([1, one + 2**-24, 1, 0, 0, np.nan, 1, np.inf, 0.7e-45])
    expected = [0, 0.5, 2**23, 0, np.inf, 0, np.inf, 0, pytest.approx(1 - 0.7e-45 * 2.0**149)]
    assert testing.ulp(got, true).tolist() == expected


@pytest.mark.parametrize("dtype", JUDGED)
@pytest.mark.parametrize("name", kernels.KERNELS)
def test_contract(name, dtype):
    """All of float16, and of the others the edges, bit-spaced numbers and random ones."""
    for finding in verify.check((name,), (dtype,)):
        assert finding.error <= finding.bound, f"{finding.error} at {finding.worst}"
        assert finding.count > 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_grad", "sigmoid_value_and_grad"])
def test_contract_for_every_float32(name):
    for finding in verify.check((name,), ("float32",), exhaustive=True):
        assert finding.error <= finding.bound, f"{finding.error} at {finding.worst}"
        assert finding.count > 2**32


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
    finding.include(testing.ulp(np.float32([wrong, wrong]), testing.exact("sigmoid", x)[0]), (x,))
    assert not finding.kept


def test_verify_passes_and_says_so(capsys):
    assert main(["verify", "--functions", "sigmoid_derivative", "--dtypes", "float16"]) == 0
    assert "1 of 1 contracts kept" in capsys.readouterr().out


def test_verify_unknown_names(capsys):
    assert main(["verify", "--functions", "sigmod"]) == 2
    assert "unknown function 'sigmod'" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", DTYPES)
def test_tails_are_not_flushed(dtype):
    """Down to the smallest subnormal, the sigmoid is positive."""
    smallest = np.nextafter(np.dtype(dtype).type(0), 1)
    x = np.log(np.longdouble(smallest)).astype(dtype)
    assert fastsig.sigmoid(x) > 0
    assert fastsig.sigmoid_grad(-x) > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_limits(dtype):
    x = np.array([-np.inf, np.inf, np.nan, 0, -0.0], dtype=dtype)
    assert np.array_equal(fastsig.sigmoid(x), np.array([0, 1, np.nan, 0.5, 0.5], dtype=dtype), equal_nan=True)
    assert np.array_equal(fastsig.sigmoid_grad(x), np.array([0, 0, np.nan, 0.25, 0.25], dtype=dtype), equal_nan=True)
    assert not np.signbit(fastsig.sigmoid(x[:2])).any()


def test_every_kernel_has_a_reference_and_a_name():
    assert set(testing.EXACT) == set(kernels.KERNELS)
    assert set(fastsig.UFUNCS) == set(kernels.KERNELS) | set(kernels.ALIASES)
