"""What depends on the versions of Python, NumPy and Numba: `.ci/run` runs this file alone on each of them."""

from __future__ import annotations

import json
import sys
import sysconfig

import numpy as np
import pytest
from conftest import ALL_DTYPES, assert_same, inputs
from test_engine import BITS, LOSSES, digests

import fastsig

CALLED_BY_NUMBA = """if True:
    import numpy as np
    from numba import njit
    import fastsig

    @njit
    def called(x):
        return fastsig.sigmoid(x)

    x = np.linspace(-120, 120, 1001, dtype=np.float32)
    print((called(x).view("u4") == fastsig.sigmoid(x).view("u4")).all())
"""


@pytest.mark.parametrize(("name", "storage"), [*(("sigmoid", s) for s in ALL_DTYPES), ("bce_with_logits_grad", "float32")])
def test_functions_have_the_bits_on_record(name, storage):
    key = f"{name} {storage}"
    assert digests([name], [storage])[key] == json.loads(BITS.read_text())[key]


def test_losses_have_the_bits_on_record():
    key = f"{LOSSES} float32"
    assert digests([LOSSES], ["float32"])[key] == json.loads(BITS.read_text())[key]


def test_every_function_is_one_of_numpys():
    for name in fastsig.UFUNCS:
        assert type(getattr(fastsig, name)) is np.ufunc


def test_numpys_ways_of_calling():
    for dtype in ("float32", "float64"):
        (x,) = inputs("sigmoid", dtype, (7, 1001))
        want = fastsig.sigmoid(x)
        assert_same(fastsig.sigmoid(x.T).T, want)
        assert_same(fastsig.sigmoid(x.astype(x.dtype.newbyteorder())), want)
        mask = x < 1
        out = fastsig.sigmoid(x, where=mask, out=np.zeros_like(x))
        assert_same(out, np.where(mask, want, x.dtype.type(0)))
        assert_same(fastsig.sigmoid(x[:, ::-3], out=x[:, ::-3]), want[:, ::-3])
        large = np.tile(want, 30)
        with fastsig.num_threads(2):
            assert_same(fastsig.sigmoid(large), np.tile(fastsig.sigmoid(want), 30))


def test_code_is_kept_for_the_next_process(python):
    """Which needs no Numba."""
    code = """if True:
        import sys, numpy as np, fastsig
        fastsig.sigmoid(np.float32(1))
        print("numba" in sys.modules)
    """
    python(code)
    assert python(code) == "False"


@pytest.mark.slow  # the tests of `overloads` say more
def test_call_from_the_users_compiled_code(python):
    assert python(CALLED_BY_NUMBA, warnings="default") == "True"


# --- free-threaded Python ----------------------------------------------------------------------------------------------

WITH_LOCK = [
    "3.11.7 (main, May  9 2026, 07:35:25) [GCC 12.2.0]",
    "3.13.0 (tags/v3.13.0:60403a5, Oct  7 2024, 09:38:07) [MSC v.1941 64 bit (AMD64)]",
    "3.12.4 | packaged by conda-forge | (main, Jun 17 2024, 10:23:07) [GCC 12.3.0]",
]
WITHOUT = {
    "3.13.0 experimental free-threading build (main, Oct  7 2024, 10:58:01) [GCC 12.2.0]": "python3.13",
    "3.14.0 free-threading build (main, Oct  7 2025, 15:35:21) [Clang 20.1.4 ]": "python3.14",
    "3.13.1 experimental free-threading build | packaged by conda-forge | (main, Jan 13 2025) \n[GCC 13.3.0]": "python3.13",
}


@pytest.mark.parametrize("version", WITHOUT)
def test_python_without_its_lock_is_refused(version):
    with pytest.raises(ImportError, match=f"free-threaded.*the ordinary build, {WITHOUT[version]}\\.") as caught:
        fastsig.refuse_free_threading(version)
    assert version.splitlines()[0] in str(caught.value)


@pytest.mark.parametrize("version", WITH_LOCK)
def test_python_with_its_lock_is_not(version):
    fastsig.refuse_free_threading(version)


def test_refusal_comes_before_all_else(python):
    """Before NumPy or Numba, of which there may be none."""
    code = f"""if True:
        import sys
        sys.version = {next(iter(WITHOUT))!r}
        try:
            import fastsig
        except ImportError as error:
            print("free-threaded" in str(error), "numpy" in sys.modules)
    """
    assert python(code) == "True False"


def test_this_python_is_known_by_its_name():
    assert bool(sysconfig.get_config_var("Py_GIL_DISABLED")) == ("free-threading" in sys.version)
