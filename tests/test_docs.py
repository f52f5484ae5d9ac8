"""What is told to people: README, its generated blocks, the command line, the package."""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fastsig
from fastsig.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_readme_examples():
    failed, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried > 5
    assert failed == 0


@pytest.mark.parametrize("module", ["testing", "parallel"])
def test_module_examples(module, words):
    failed, tried = doctest.testmod(importlib.import_module(f"fastsig.{module}"))
    assert tried > 1
    assert failed == 0


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


def test_info(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fastsig"] == fastsig.__version__
    assert {"numpy", "numba", "llvmlite", "processor", "instructions", "threads", "OpenMP runtime", "cache"} <= set(facts)
    assert facts["cache writable"] in ("yes", "no")
    assert main(["info"]) == 0
    assert facts["processor"] in capsys.readouterr().out


def test_help_names_the_commands():
    shown = subprocess.run([sys.executable, "-m", "fastsig", "--help"], capture_output=True, text=True, check=True).stdout
    assert all(command in shown for command in ("info", "verify", "bench"))


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
    assert "fastsig/py.typed" in names
    sources = {f"fastsig/{path.relative_to(ROOT / 'fastsig').as_posix()}" for path in (ROOT / "fastsig").rglob("*.py")}
    assert sources == {n for n in names if n.endswith(".py")}


def test_type_checkers_see_the_dtypes(tmp_path):
    mypy = pytest.importorskip("mypy.api", reason="mypy isn't installed")
    program = tmp_path / "user.py"
    program.write_text(
        "import numpy as np\n"
        "import fastsig\n"
        "x = np.zeros(3, dtype=np.float32)\n"
        "reveal_type(fastsig.sigmoid(x))\n"
        "reveal_type(fastsig.sigmoid_value_and_grad(x)[1])\n"
        "reveal_type(fastsig.sigmoid_vjp(x, x))\n"
        "reveal_type(fastsig.sigmoid(0.5))\n"
    )
    shown, _, status = mypy.run(["--strict", "--no-incremental", str(program)])
    assert status == 0, shown
    revealed = re.findall(r'Revealed type is "(.*)"', shown)
    assert len(revealed) == 4
    assert all("floating[numpy._typing._nbit_base._32Bit]" in r or "float32" in r for r in revealed[:3]), shown
    assert "float64" in revealed[3] or "_64Bit" in revealed[3]
