"""The documentation: every public name has a full docstring, and a place in the pages that Sphinx makes of them."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from test_docs import ADAPTERS, README, ROOT, run_examples

import fastsig
from fastsig import cli, losses

pytest.importorskip("numpydoc", reason="numpydoc isn't installed: pip install 'fastsig[docs]'")

LOSSES = ("bce_with_logits_loss", "focal_loss")
TOOLS = ("ulp", "exact", "edges", "spaced", "random", "worst")
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
MODULES = ("fastsig", "fastsig.losses", "fastsig.nn", "fastsig.testing", *(f"fastsig.interop.{name}" for name in ADAPTERS))
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
    """A class's own methods, those that it has from ours included; what another library calls is described there."""
    ours = [vars(base) for base in kind.__mro__ if base.__module__.startswith("fastsig.")]
    theirs = {name for base in kind.__mro__ if not base.__module__.startswith("fastsig.") for name in vars(base)}
    own = {name for members in ours for name, it in members.items() if name[0] != "_" and inspect.isfunction(it)}
    return sorted(own - theirs)


def documented(module):
    """A module's public names, and the public methods of its classes."""
    held = importlib.import_module(module)
    names = {"fastsig.losses": LOSSES, "fastsig.testing": TOOLS}.get(module) or held.__all__
    methods = [
        f"{module}.{name}.{it}" for name in names if inspect.isclass(getattr(held, name)) for it in public(getattr(held, name))
    ]
    return [*(f"{module}.{name}" for name in names), *methods]


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module):
    from numpydoc.validate import validate

    if module.startswith("fastsig.interop."):
        pytest.importorskip(module.split(".")[-1], reason=f"{module} can't be imported without its library")
    missing = []
    for name in documented(module):
        ignored = IGNORED_IN_UFUNCS if name.removeprefix("fastsig.") in fastsig.UFUNCS else IGNORED
        missing += [f"{name}: {code} {text}" for code, text in validate(name)["errors"] if code not in ignored]
    assert missing == []


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
    options = ("-W", "-n", "--keep-going", "-q", "-d", folder / "trees")
    command = (sys.executable, "-m", "sphinx", *options, ROOT / "docs", folder / "site")
    made = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder / "site"


def test_every_name_has_its_place(site):
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    places = {line.split(" ")[0] for line in zlib.decompress(inventory).decode().splitlines()}
    ours = {name for module in MODULES if "interop" not in module for name in documented(module)}
    theirs = {f"fastsig.interop.{library}.{name}" for library in ADAPTERS for name in exported(library)}
    assert (ours | theirs) - places == set()


def exported(library):
    """What an adapter has, whether or not it can be imported here."""
    (names,) = re.findall(
        r"^__all__ = (\[.*?\])", (ROOT / "fastsig" / "interop" / f"{library}.py").read_text(), re.MULTILINE | re.DOTALL
    )
    return ast.literal_eval(names.replace("*fastsig.UFUNCS", ", ".join(map(repr, fastsig.UFUNCS))))


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


def test_examples_of_the_first_page():
    assert run_examples((ROOT / "docs" / "index.md").read_text(), "index") > 1


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert [link for link in links if not (ROOT / Path(link)).exists()] == []
    assert {"docs/SECURITY.md", "docs/CONTRIBUTING.md", "docs/CHANGELOG.md"} <= set(links)
