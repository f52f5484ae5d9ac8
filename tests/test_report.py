"""What a bug report is told: `python -m fastsig info`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import kernel_of

import fastsig
from fastsig import report, testing
from fastsig.cli import main

REPORTED = "import sys; from fastsig.cli import main; print('status', main(['info', '--json']))"


@pytest.fixture
def reported(python):
    """The facts, and the exit status, of another process in this environment."""

    def run(**environment):
        shown, _, status = python(REPORTED, warnings="default", **environment).rpartition("status ")
        return json.loads(shown), int(status)

    return run


def test_facts(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fastsig"] == fastsig.__version__
    assert facts["numpy"] == np.__version__
    assert facts["self-check"] == "healthy"
    assert facts["threads"] == str(fastsig.get_num_threads())
    assert {*report.PACKAGES, *report.FACTS, "python", "platform", "environment"} <= set(facts)
    assert not [fact for fact in facts.values() if "unknown:" in fact]
    assert facts["environment"]["FASTSIG_CACHE_DIR"] in facts["cache"]
    assert facts["cache trusted"].startswith("yes")
    assert facts["warnings"] == []
    assert facts["cache writable"] == "yes"


def test_text(capsys):
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*report.FACTS, "self-check", "healthy", "FASTSIG_CACHE_DIR="))


def test_answers_are_the_sigmoid():
    x = np.array([*report.ANSWERS], np.float32)
    stored = np.array([*report.ANSWERS.values()], np.uint32).view(np.float32)
    assert testing.ulp(stored, testing.exact("sigmoid", x)[0]).max() <= kernel_of("sigmoid").ulp["float32"]


def test_a_wrong_bit_is_unhealthy(monkeypatch, capsys):
    monkeypatch.setitem(report.ANSWERS, 0.0, 0x3F000001)
    assert main(["info", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["self-check"]
    assert told.startswith("unhealthy: 14,28")
    assert "sigmoid(0.0) = np.float32(0.5)" in told


def test_what_is_broken_is_said(reported):
    facts, status = reported(NUMBA_CPU_FEATURES="nonsense", OMP_NUM_THREADS=1)
    assert status == 1
    assert facts["self-check"].startswith("unhealthy: ValueError: NUMBA_CPU_FEATURES must")
    assert facts["processor"].startswith("unknown: ValueError: NUMBA_CPU_FEATURES must be a comma list")
    assert facts["environment"].items() >= {"NUMBA_CPU_FEATURES": "nonsense", "OMP_NUM_THREADS": "1"}.items()
    assert facts["numpy"] == np.__version__  # the rest is there all the same


def test_a_cache_that_others_can_write(python, tmp_path):
    tmp_path.chmod(0o777)
    facts = json.loads(
        python(
            "import json; from fastsig import report; report.ANSWERS.clear(); report.SHARED = 0;"
            "print(json.dumps(report.info()))",
            FASTSIG_CACHE_DIR=tmp_path,
        )
    )  # nothing is compiled for this
    assert facts["cache"].startswith("none")
    assert facts["cache trusted"] == facts["cache writable"] == "no"
    assert f"others can write to {tmp_path}" in facts["cache"]


def test_where_the_number_of_threads_comes_from(reported):
    plain, _ = reported()
    limited, _ = reported(OMP_NUM_THREADS=1)
    if plain["OpenMP runtime"].startswith("none"):
        pytest.skip("there is no OpenMP runtime")
    assert "the OpenMP runtime" in plain["threads from"]
    assert (limited["threads"], limited["threads from"]) == ("1", "OMP_NUM_THREADS")
    assert plain["OpenMP runtime"].split("/")[-1] in plain["runtimes loaded"]
    with fastsig.num_threads(1):
        assert report.threads_from() == "set_num_threads"
