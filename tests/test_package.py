"""What is handed out: the source distribution, the wheel made from it, and a fresh environment that has nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest
from conftest import KINDS, ROOT

import fastsig

pytestmark = pytest.mark.slow
pytest.importorskip("build", reason="build isn't installed")
pytest.importorskip("hatchling", reason="hatchling isn't installed")

FOLDERS = ("fastsig", "tests", "benchmarks", "docs")
MADE = {"__pycache__", "_build", "site"}  # by whoever works in the checkout
EXAMPLES = """
import doctest, sys
import fastsig
runner = doctest.DocTestRunner()
for name in sys.argv[1:]:
    runner.run(doctest.DocTestParser().get_doctest(getattr(fastsig, name).__doc__, {}, name, None, 0))
print(fastsig.__file__, *runner.summarize()[:2])
"""


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The source distribution, and the wheel that is built from what is in it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def fresh(made, tmp_path_factory):
    """The Python of an environment with the wheel and what it depends on; how to run it, outside the checkout."""
    folder = tmp_path_factory.mktemp("fresh")
    (folder / "cache").mkdir(mode=0o700)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "FASTSIG_"))
    }
    environment["FASTSIG_CACHE_DIR"] = str(folder / "cache")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", made[1], env=environment)
    return lambda *arguments: run(python, "-W", "error", *arguments, cwd=folder, env=environment)


def checked_out(folder):
    files = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.as_posix() for path in files if not MADE & set(path.parts) and not path.name.startswith(".")}


def test_source_distribution(made):
    with tarfile.open(made[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    top = {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert names == top | set().union(*map(checked_out, FOLDERS))


def test_wheel(made):
    assert made[1].name == f"fastsig-{fastsig.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(made[1]) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    information = {name.partition("/")[2] for name in names if ".dist-info/" in name}
    assert information == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert {name for name in names if ".dist-info/" not in name} == checked_out("fastsig")
    needed = {
        line.split(": ")[1].split(">")[0]
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist") and ";" not in line
    }
    assert needed == {"numba", "numpy"}


def test_a_fresh_environment(fresh):
    facts = json.loads(fresh("-m", "fastsig", "info", "--json"))
    assert facts["self-check"] == "healthy"
    assert facts["fastsig"] == fastsig.__version__
    assert {facts[name] for name in ("scipy", "torch", "ml_dtypes")} == {"not installed"}
    assert "info" in fresh("-m", "fastsig", "--help")
    file, failed, tried = fresh("-c", EXAMPLES, *KINDS).rsplit(maxsplit=2)
    assert "site-packages" in file
    assert int(failed) == 0
    assert int(tried) >= 2 * len(KINDS)


def test_the_type_checker_finds_the_types(fresh):
    assert (
        fresh("-c", "import fastsig, pathlib; print(pathlib.Path(fastsig.__file__).with_name('py.typed').exists())") == "True\n"
    )
