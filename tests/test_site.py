"""The documentation: every public name has a full docstring, and a place in the pages that Sphinx makes of them."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_docs import ADAPTERS, README, ROOT, run_examples

import fastsig
from fastsig import cli, losses, nn

pytest.importorskip("numpydoc", reason="numpydoc isn't installed: pip install 'fastsig[docs]'")

LOSSES = ("bce_with_logits_loss", "focal_loss")
TOOLS = ("ulp", "exact", "edges", "spaced", "random", "worst")
ADAPTERS_HERE = [name for name in ADAPTERS if find_spec(name)]
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
# What numpydoc would like, and we don't
IGNORED = {
    "SA01": "no 'See Also': the suffixes say what belongs together, and a page has the family",
    "ES01": "no extended summary where the first line says it all",
    "RT02": "a result's name says what it is",
    "SS05": "it takes plurals for verbs",
    "YD01": "a context manager that gives nothing yields nothing",
}
IGNORED_IN_UFUNCS = IGNORED | {
    "GL02": "there are no closing quotes: the text is put together",
    "PR01": "the signature, with x1 and x2, is NumPy's",
    "PR02": "the same",
}


def public(kind):
    """A class's own methods and properties, inherited ones of ours included."""
    ours = [vars(base) for base in kind.__mro__ if base.__module__.startswith("fastsig.")]
    return {name for members in ours for name, it in members.items() if name[0] != "_" and inspect.isfunction(it)}


def documented():
    """Every public name, and every public method of a public class."""
    names = [*(f"fastsig.{name}" for name in fastsig.__all__), *(f"fastsig.losses.{name}" for name in LOSSES)]
    names += [f"fastsig.testing.{name}" for name in TOOLS]
    for name in nn.__all__:
        names += [f"fastsig.nn.{name}", *(f"fastsig.nn.{name}.{method}" for method in sorted(public(getattr(nn, name))))]
    for library in ADAPTERS_HERE:
        module = importlib.import_module(f"fastsig.interop.{library}")
        names += [f"{module.__name__}.{name}" for name in module.__all__]
    return names


@pytest.mark.parametrize("name", documented())
def test_docstring(name):
    from numpydoc.validate import validate

    ignored = IGNORED_IN_UFUNCS if name.split(".")[-1] in fastsig.UFUNCS and name.count(".") == 1 else IGNORED
    assert [f"{code}: {text}" for code, text in validate(name)["errors"] if code not in ignored] == []


def test_losses_are_all_there_are():
    made = {
        name
        for name, it in vars(losses).items()
        if inspect.isfunction(it) and "\nExamples\n" in inspect.cleandoc(it.__doc__ or "")
    }
    assert made == set(LOSSES)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, made anew: not a warning, whether of a link that leads nowhere or of markup, and nothing from a network."""
    for tool in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(tool, reason=f"{tool} isn't installed: pip install 'fastsig[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-n",
        "--keep-going",
        "-q",
        "-d",
        folder / "trees",
        ROOT / "docs",
        folder / "site",
    ]
    made = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder / "site"


def test_every_name_has_its_place(site):
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    places = {line.split(" ")[0] for line in zlib.decompress(inventory).decode().splitlines()}
    inherited = {f"fastsig.nn.MLP{kind}.{name}" for kind in ("Classifier", "Regressor") for name in ("partial_fit", "score")}
    assert set(documented()) - places - inherited == set()


def test_pages(site):
    assert {path.stem for path in site.glob("*.html")} >= {*PAGES}
    shown = (site / "commands.html").read_text()
    assert all(f"python -m fastsig {command}" in shown for command in cli.COMMANDS)
    assert (site / "benchmarks.html").read_text().count("<table") > 4
    assert len(list((site / "_images").glob("*.png"))) >= len(list((ROOT / "benchmarks" / "figures").glob("*.png")))


def test_pages_need_no_network(site):
    """Nothing is loaded from elsewhere: links may lead there."""
    loaded = re.compile(
        r"<(?:script|img|link|iframe)[^>]*(?:src|href)=[\"'](?:https?:)?//|url\([\"']?https?://|@import [\"']https?:"
    )
    assert [page.name for page in site.rglob("*") if page.suffix in (".html", ".css") and loaded.search(page.read_text())] == []


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_the_pages(page):
    run_examples((ROOT / "docs" / f"{page}.md").read_text(), page)


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert [link for link in links if not (ROOT / Path(link)).exists()] == []
    assert {"docs/SECURITY.md", "docs/CONTRIBUTING.md", "docs/CHANGELOG.md"} <= set(links)
