"""What all tests share: a cache of their own, inputs that hold everything, comparison by bits, and other processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis
import ml_dtypes
import numpy as np
import pytest

import fastsig
from fastsig import parallel, testing
from fastsig.kernels import ALIASES, KERNELS

ROOT = Path(fastsig.__file__).parents[1]
DTYPES = ("float16", "float32", "float64")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ALL_DTYPES = (*DTYPES, "bfloat16")
UNSIGNED = {2: np.uint16, 4: np.uint32, 8: np.uint64}
REACH = {"float16": 20.0, "bfloat16": 110.0, "float32": 110.0, "float64": 760.0}  # results are subnormal just inside
STALE = b"\xa5"  # the byte that outputs are filled with beforehand

hypothesis.settings.register_profile("fastsig", deadline=None, database=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("fastsig")


def pytest_configure(config):
    """Code is compiled for this run of the tests, unless FASTSIG_CACHE_DIR names a directory that outlives it."""
    if not os.environ.get("FASTSIG_CACHE_DIR"):
        os.environ["FASTSIG_CACHE_DIR"] = config.made_cache = tempfile.mkdtemp(prefix="fastsig-tests-")  # mode 0o700


def pytest_unconfigure(config):
    if hasattr(config, "made_cache"):
        shutil.rmtree(config.made_cache, ignore_errors=True)


def kernel_of(name):
    return KERNELS[ALIASES.get(name, name)]


def kinds_of_loops():
    """The first function with each kind of loop: loops know of a kernel no more than this."""
    first = {}
    for name in fastsig.UFUNCS:
        kernel = kernel_of(name)
        kind = len(kernel.inputs), len(kernel.outputs), kernel.ordinary is not None, kernel.needs_subnormals
        first.setdefault(kind, name)
    return tuple(first.values())


KINDS = kinds_of_loops()
# How an array is gone through doesn't depend on the function, so the tests of that take one of each kind; with -m slow, all.
every_function = pytest.mark.parametrize("name", fastsig.UFUNCS)
EACH_KIND = [pytest.param(n, marks=() if n in KINDS else pytest.mark.slow) for n in fastsig.UFUNCS]


@pytest.fixture(params=EACH_KIND)
def name(request):
    return request.param


@pytest.fixture
def ufunc(name):
    return getattr(fastsig, name)


@pytest.fixture(params=DTYPES)
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture
def words():
    """The words that the loops obey, put back afterwards."""
    parallel.connect()
    before = list(parallel.WORDS)
    yield parallel.WORDS
    parallel.WORDS[:] = before


@pytest.fixture
def python():
    """Run Python code in another process, with the given environment variables added; what it prints is returned.

    Warnings are errors there too, unless asked otherwise.
    """

    def run(code, *arguments, warnings="error", timeout=300, path=ROOT, **environment):
        # coverage, profilers and the like may not change what is loaded: only what is named here is passed on
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "FASTSIG_CACHE_DIR", "LD_LIBRARY_PATH") if key in os.environ}
        done = subprocess.run(
            [sys.executable, "-P", "-X", "faulthandler", "-W", warnings, "-c", code, *map(str, arguments)],
            env={**kept, "PYTHONPATH": str(path), **{key: str(value) for key, value in environment.items()}},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Exception ignored" not in done.stderr, done.stderr
        return done.stdout.strip()

    return run


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


def bits(array):
    """The elements as unsigned integers: NaN equals NaN, and 0.0 isn't -0.0."""
    array = np.asarray(array)
    native = array.astype(array.dtype.newbyteorder("="), order="C", copy=True)
    return native.view(UNSIGNED[native.itemsize])


def assert_same(got, want, what=""):
    """Every output has the same shape, dtype and bits."""
    for k, (one, other) in enumerate(zip(as_tuple(got), as_tuple(want), strict=True)):
        assert np.shape(one) == np.shape(other), f"{what} output {k}"
        assert np.asarray(one).dtype == np.asarray(other).dtype, f"{what} output {k}"
        differing = np.argwhere(np.atleast_1d(bits(one) != bits(other)))
        assert not len(differing), (
            f"{what} output {k}: {len(differing)} of {np.size(one)} differ, the first at {differing[0]}: "
            f"{np.atleast_1d(one)[tuple(differing[0])]!r} is not {np.atleast_1d(other)[tuple(differing[0])]!r}"
        )


def specials(dtype):
    """Zeros, infinities, NaN, and each power of two, subnormal or not, with its neighbours; of both signs."""
    info = testing.finfo(dtype)
    powers = np.ldexp(1.0, np.arange(info.minexp - info.nmant, info.maxexp)).astype(dtype)
    pattern = powers.view(UNSIGNED[dtype.itemsize])
    around = (powers, powers * dtype.type(1.5), (pattern - 1).view(dtype), (pattern + 1).view(dtype))
    half = np.concatenate([np.array([0, info.max, np.inf], dtype), *around])
    return np.concatenate([half, -half, np.array([np.nan, np.nan], dtype)])


def inputs(name, dtype, shape=(1000,), seed=0):
    """Arguments in which everything occurs: usual and huge numbers, tails, specials, any bit pattern. NaN is always np.nan."""
    dtype, count = numpy_dtype(dtype), int(np.prod(shape))
    arrays = []
    for k in range(getattr(fastsig, name).nin):
        random = np.random.default_rng([seed, k, count])
        reach = REACH[dtype.name]
        pattern = random.integers(0, 2 ** (8 * dtype.itemsize), count, UNSIGNED[dtype.itemsize]).view(dtype)
        pattern[is_nan(pattern)] = np.nan
        kinds = np.stack(
            [
                random.normal(size=count).astype(dtype),
                random.uniform(0, 1, count).astype(dtype),
                random.uniform(-reach, reach, count).astype(dtype),
                pattern,
                random.choice(specials(dtype), count),
            ]
        )
        arrays.append(kinds[random.integers(0, len(kinds), count), np.arange(count)].reshape(shape))
    return arrays


def numpy_dtype(name):
    return BFLOAT16 if name == "bfloat16" else np.dtype(name)


def is_nan(array):
    with np.errstate(invalid="ignore"):  # ml_dtypes meets a signalling NaN with a warning
        return np.isnan(array)


def signalling(dtype):
    """NaN that raises "invalid" wherever arithmetic meets it."""
    infinity = bits(np.array(np.inf, dtype))
    return np.array([infinity + 1, infinity + 1 | (infinity + infinity & ~infinity)], infinity.dtype).view(dtype)


def stale(count, dtype):
    """An array in which each element is recognisably not a result."""
    return np.frombuffer(bytearray(STALE * count * np.dtype(dtype).itemsize), dtype)


def at_byte(array, offset):
    """A copy of the array that begins `offset` bytes after a cache line."""
    space = np.zeros(array.nbytes + 128, np.uint8)
    start = -space.ctypes.data % 64 + offset
    view = space[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def every_float16():
    return np.arange(2**16, dtype=np.uint16).view(np.float16)


def second_derivative(name, x):
    """Of a function of one float32, in float64."""
    s, half, wide = testing.exact("sigmoid_grad", x)[0], testing.exact("tanh", x / 2)[0], x.astype(np.float64)
    return {
        "sigmoid": -s * half,
        "log_sigmoid": -s,
        "softplus": s,
        "silu": s * (2 - wide * half),
        "tanh": -2 * np.tanh(wide) * testing.exact("tanh_grad", x)[0],
    }[name]
