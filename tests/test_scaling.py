"""The page on how a distributed fit grows: its tables, and what they are computed from."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("scipy", reason="SciPy isn't installed")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    spec = importlib.util.spec_from_file_location("scaling", BENCHMARKS / "scaling.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_current(tool):
    assert tool.current(), "run `python benchmarks/scaling.py`"


def test_a_stale_table_shows(tool, tmp_path, monkeypatch):
    text = tool.PAGE.read_text()
    page = tmp_path / "scaling.md"
    monkeypatch.setattr(tool, "PAGE", page)
    page.write_text(text.replace("| 1 worker |", "| one worker |"))
    assert not tool.current()
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no block measured"):
        tool.current()


def test_costs_are_found_again(tool):
    """From times that follow the formula."""
    cases = [
        {"workers": w, "blocks": b, "numbers": n, "seconds": 4e-3 + 5e-4 * b + 2e-9 * n / min(w, b)}
        for w in (1, 2)
        for b in (1, 4, 16)
        for n in (10**5, 10**8)
    ]
    assert tool.fitted(cases) == pytest.approx((4e-3, 5e-4, 2e-9), rel=1e-6)
