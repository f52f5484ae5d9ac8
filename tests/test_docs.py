"""What is told to people: README, its generated blocks, the command line, the package."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fastsig
from fastsig import nn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
NEEDING = re.compile(r"<!-- needs: (?P<libraries>[\w ]+) -->\n```python\n(?P<example>.*?)```\n", re.DOTALL)  # installed or not
EXAMPLES = {found["libraries"]: found["example"] for found in NEEDING.finditer(README)}
ADAPTERS = {
    "torch": "torch",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "sklearn": "scikit-learn",
    "jax": "jax",
    "dask": "dask",
    "threadpoolctl": "threadpoolctl",
}


def run_examples(text, name):
    """How many there are; they all give what they say."""
    report = []
    test = doctest.DocTestParser().get_doctest(text, {}, name, "README.md", 0)
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert not report, "".join(report)
    return result.attempted


def test_readme_examples():
    assert run_examples(NEEDING.sub("", README), "README") > 5


@pytest.mark.parametrize("libraries", EXAMPLES)
def test_readme_examples_with_other_libraries(libraries):
    for library in libraries.split():
        pytest.importorskip(library, reason=f"{library} isn't installed")
    assert run_examples(EXAMPLES[libraries], libraries) > 0


def test_readme_has_an_example_of_each_adapter():
    shown = "".join(EXAMPLES.values())
    imports = (
        rf"from fastsig\.interop(\.{name} import| import {name} as)|import fastsig\.interop\.{name}\n" for name in ADAPTERS
    )
    assert [line for line in imports if not re.search(line, shown)] == []


@pytest.mark.parametrize(
    "module", ["testing", "parallel", "losses", "nn", "optimizers", "estimators", "classics", "plot", "files"]
)
def test_module_examples(module, words):
    failed, tried = doctest.testmod(importlib.import_module(f"fastsig.{module}"))
    assert tried > 1
    assert failed == 0


@pytest.mark.parametrize("library", ADAPTERS)
def test_adapter_examples(library):
    pytest.importorskip(library, reason=f"{ADAPTERS[library]} isn't installed")
    adapter = importlib.import_module(f"fastsig.interop.{library}")
    failed, tried = doctest.testmod(adapter)
    assert failed == 0
    assert tried >= 2 * len(adapter.__all__)
    assert {getattr(adapter, name).__module__ for name in adapter.__all__} == {adapter.__name__}


@pytest.mark.parametrize("library", ADAPTERS)
def test_adapter_without_its_library(library, monkeypatch):
    """It says what to install."""
    name = f"fastsig.interop.{library}"
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=rf"{re.escape(name)} needs .*: pip install 'fastsig\[{library}\]'"):
        importlib.import_module(name)
    assert f"\n{library} = [" in (ROOT / "pyproject.toml").read_text()


def test_adapters_are_imported_when_asked_for(python):
    assert python(f"import sys, fastsig.interop; print({set(ADAPTERS)} & set(sys.modules))") == "set()"


@pytest.mark.parametrize("name", ["Network", "MLPClassifier", "MLPRegressor", "SGD", "Adam", "Rprop", "LevenbergMarquardt"])
def test_networks_are_documented(name):
    """Every public method has its sections."""
    kind = getattr(nn, name)
    public = [kind, *(m for key, m in vars(kind).items() if not key.startswith("_") and inspect.isfunction(m))]
    for documented in public:
        for section in ("Parameters", "Raises", "Examples"):
            assert f"{section}\n" in documented.__doc__, f"{documented.__qualname__}: {section}"


def test_generated_blocks_are_current():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks" / "readme.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.current(), "run `python benchmarks/readme.py`"


@pytest.mark.parametrize("marker", ["main-command", "test-command"])
def test_commands_are_one_line_each(marker):
    (command,) = re.findall(rf"<!-- {marker} -->\n```sh\n(.*)\n```", README)
    assert command.startswith("python3 -m venv .venv && ")


def test_every_public_name_is_in_readme():
    assert [name for name in fastsig.__all__ if name not in README] == []


def test_help_names_the_commands():
    shown = subprocess.run([sys.executable, "-m", "fastsig", "--help"], capture_output=True, text=True, check=True).stdout
    assert all(command in shown for command in ("info", "verify", "bench", "apply", "train", "plot"))


def test_wheel_is_universal_and_holds_the_package_alone(tmp_path):
    """Built from a copy, so that the checkout stays as it is."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    made = subprocess.run(build, capture_output=True, text=True)
    if made.returncode and "hatchling" in made.stderr:
        pytest.skip("the build backend can't be fetched here")
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0].split("-")[0] for n in names} == {"fastsig"}
    assert {"fastsig/py.typed", "fastsig/data/freight.csv"} <= set(names)
    sources = {f"fastsig/{path.relative_to(ROOT / 'fastsig').as_posix()}" for path in (ROOT / "fastsig").rglob("*.py")}
    assert sources == {n for n in names if n.endswith(".py")}
