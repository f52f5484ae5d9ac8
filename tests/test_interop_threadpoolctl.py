"""threadpoolctl's limits reach fastsig."""

from __future__ import annotations

import pytest
from conftest import assert_same, inputs

import fastsig
from fastsig import parallel

threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl isn't installed")
pytestmark = pytest.mark.skipif(parallel.runtime() is None, reason="there is no OpenMP runtime on this machine")


@pytest.fixture(autouse=True)
def controller(words):
    """As many threads as one asks for."""
    words[parallel.PROCESSORS] = 0
    words[parallel.QUOTA] = parallel.MOST
    return pytest.importorskip("fastsig.interop.threadpoolctl").Controller


def listed():
    return [library for library in threadpoolctl.threadpool_info() if library["internal_api"] == "fastsig"]


def test_listed():
    fastsig.set_num_threads(3)
    (facts,) = listed()
    assert (facts["user_api"], facts["num_threads"], facts["version"]) == ("openmp", 3, fastsig.__version__)
    assert facts["runtime"] == parallel.runtime()[0]


@pytest.mark.parametrize("choice", [{}, {"user_api": "openmp"}])
@pytest.mark.parametrize("before", [0, 3])
def test_limits(words, choice, before):
    """And gives back what was set, or that nothing was: then the runtime's own setting counts again."""
    words[parallel.LIMIT] = before
    default = fastsig.get_num_threads()
    (x,) = inputs("sigmoid", "float32", (200_000,))
    want = fastsig.sigmoid(x)
    with threadpoolctl.threadpool_limits(1, **choice):
        assert fastsig.get_num_threads() == 1
        assert_same(fastsig.sigmoid(x), want)
        with threadpoolctl.threadpool_limits(5, **choice):
            assert fastsig.get_num_threads() == 5
        assert fastsig.get_num_threads() == 1
    assert words[parallel.LIMIT] == before
    assert fastsig.get_num_threads() == default


def test_limits_of_others():
    fastsig.set_num_threads(3)
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert fastsig.get_num_threads() == 3
    with threadpoolctl.threadpool_limits({"libllvmlite": 2}):
        assert fastsig.get_num_threads() == 2


def test_an_exception_restores():
    fastsig.set_num_threads(3)
    with pytest.raises(KeyError), threadpoolctl.threadpool_limits(1):
        raise KeyError
    assert fastsig.get_num_threads() == 3


def test_as_a_decorator():
    fastsig.set_num_threads(3)
    limited = threadpoolctl.ThreadpoolController().wrap(limits=1)(fastsig.get_num_threads)
    assert (limited(), fastsig.get_num_threads()) == (1, 3)


NAMES = "print(*[it['internal_api'] for it in threadpoolctl.threadpool_info() if it['internal_api'] == 'fastsig'])"


@pytest.mark.parametrize(
    ("code", "known"),
    [
        ("import threadpoolctl, fastsig; fastsig.sigmoid(0.0)", True),
        ("import threadpoolctl, fastsig.interop.threadpoolctl", True),
        ("import fastsig.interop.threadpoolctl, threadpoolctl", True),
        ("import fastsig; fastsig.sigmoid(0.0); import threadpoolctl", False),
        ("import threadpoolctl; threadpoolctl.threadpool_info(); import fastsig; fastsig.sigmoid(0.0)", True),
        ("import threadpoolctl; del threadpoolctl.register; import fastsig; fastsig.sigmoid(0.0)", False),
    ],
)
def test_when_it_is_registered(python, code, known):
    """At the first call, once, if threadpoolctl is there by then and takes libraries of others; or with the module."""
    assert python(f"{code}\n{NAMES}") == ("fastsig" if known else "")
