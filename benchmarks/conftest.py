"""`pytest benchmarks/` measures, though the project's settings switch pytest-benchmark off for the tests."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if "--benchmark-disable" not in config.invocation_params.args:
        config.option.benchmark_disable = False  # before pytest-benchmark reads it
