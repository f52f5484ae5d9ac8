"""The documentation's configuration: `python -m sphinx -W -n docs site` makes the pages, without a network."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

import fastsig
from fastsig import cli
from fastsig.kernels import ALIASES

INTEROP = Path(fastsig.__file__).with_name("interop")
LAZY = {"dask": ("LogisticRegression",)}  # names that an adapter takes from another module when they are asked for
PARTS = ("dask_linear", "zarr")  # modules that others stand for
ADAPTERS = sorted(path.stem for path in INTEROP.glob("*.py") if path.stem not in PARTS and "\n__all__ = " in path.read_text())

OWN_METHODS = "fit, predict, predict_proba, decision_function, score"  # not those that scikit-learn makes up

project, author = "fastsig", "the authors of fastsig"
release = version = fastsig.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode", "numpydoc", "myst_parser"]
html_theme, html_title = "furo", f"fastsig {release}"
html_static_path, html_css_files = ["static"], ["tables.css"]
html_show_copyright = html_copy_source = html_show_sourcelink = False
myst_heading_anchors = 3
autodoc_typehints = "none"  # numpydoc's sections tell more
autodoc_member_order = "bysource"
autodoc_mock_imports = [
    *ADAPTERS,
    "distributed",
    "zarr",
]  # torch and JAX take seconds to import, and most of this is about neither
autodoc_mock_imports.remove("sklearn")  # whose base classes' methods are part of ours
numpydoc_show_class_members = False
default_role = "py:obj"  # `name` in a docstring is a link where that is one of ours, and code where it isn't
nitpick_ignore_regex = [("py:obj", r"(?!fastsig\.[\w.]+$).*")]


def functions() -> str:
    """A section for each family of functions; a ufunc is no function to autodoc unless it is told."""
    family, lines = "", list[str]()
    for name in fastsig.UFUNCS:
        base = ALIASES.get(name, name)
        if not family or not f"{base}_".startswith(f"{family}_"):
            family = base
            lines.append(f"\n## {family}\n")
        lines.append(directive(f"autofunction:: fastsig.{name}"))
    others = [name for name in fastsig.__all__ if name not in (*fastsig.UFUNCS, *fastsig.THREADS)]
    lines += ["\n## Others\n", *(directive(f"autofunction:: fastsig.{name}") for name in others)] if others else []
    return "\n".join(lines)


def adapters() -> str:
    """A section for each adapter: what its module tells, and what it has."""
    sections = []
    for name in ADAPTERS:
        module = f"fastsig.interop.{name}"
        sections += [f"\n## {name}\n", directive(f"automodule:: {module}", ":members:")]
        sections += [directive(f"autoclass:: {module}.{each}", ":members: " + OWN_METHODS) for each in LAZY.get(name, ())]
    return "\n".join(sections)


def commands() -> str:
    """What each command says of itself."""
    return "\n".join(f"\n## {name}\n\n```text\n{help_of(name)}```\n" for name in cli.COMMANDS)


def more() -> str:
    """The pages that the index doesn't place itself."""
    here = Path(__file__).parent
    placed = set((here / "index.md").read_text().split())
    return "\n".join(sorted(page.stem for page in here.glob("*.md") if page.stem not in {"index", *placed}))


def directive(*lines: str) -> str:
    return "```{eval-rst}\n.. " + "\n   ".join(lines) + "\n```"


def help_of(command: str) -> str:
    os.environ["COLUMNS"] = "92"  # what fits a page
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        cli.main([command, "--help"])
    return shown.getvalue().replace("usage: fastsig", "usage: python -m fastsig")


GENERATED = {"<!-- functions -->": functions, "<!-- adapters -->": adapters, "<!-- commands -->": commands, "@more@": more}


def generate(app: Any, page: str, source: list[str]) -> None:
    """What the package knows of itself isn't written a second time."""
    for mark, text in GENERATED.items():
        if mark in source[0]:
            source[0] = source[0].replace(mark, text())
    source[0] = source[0].replace("](../README.md", "](guide.md")  # which is README, for whoever reads a page in the repository


def marked_up(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """What reads well in the source, and would mean something else to docutils: bars, and code after a module's summary."""
    for k, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[k] = re.sub(r"(?<![`|])\|(?![|`])", r"\\|", line)
    if what == "module" and len(lines) > 2 and lines[2].startswith("    "):
        lines[1:1] = ["", "::"]


def setup(app: Any) -> None:
    app.connect("source-read", generate)
    app.connect("autodoc-process-docstring", marked_up, priority=100)  # before numpydoc's
