"""The report: one HTML file with everything in it, for a browser without a network, on a telephone as well."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from fastsig.bench import accuracy, pictures, tables
from fastsig.bench.cases import BASE
from fastsig.bench.results import Results, human_time

TEMPLATE = "page.html.jinja"


def write(results: Results, path: Path) -> None:
    path.write_text(html(results), encoding="utf-8")


def html(results: Results) -> str:
    """The report's text."""
    from jinja2 import Environment

    source = resources.files("fastsig.bench").joinpath(TEMPLATE).read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    drawn, problems = [*pictures.pictures(results)], results.problems
    try:
        drawn += accuracy_pictures(results)
    except Exception as error:  # a peer's, and no reason to do without the report
        problems.append(f"pictures of accuracy: {type(error).__name__}: {error}")
    text: str = template.render(
        results=results,
        machine=results.machine,
        caches={name: tables.human_bytes(size) for name, size in results.machine["caches"].items()},
        taken=human_time(results.seconds),
        lost=tables.lost(results),
        disturbed=tables.disturbed(results),
        losses=tables.in_words(results.losses),
        problems=problems,
        legend=tables.LEGEND,
        functions=tables.tables(results),
        bars=tables.bar_rows(results),
        limits=(tables.LIMITS, tables.limit_rows(results)),
        starts=(tables.STARTS, tables.start_rows(results)),
        pictures=[(name, caption, pictures.svg(figure)) for name, caption, figure in drawn],
    )
    return text


def accuracy_pictures(results: Results) -> list[pictures.Picture]:
    """Of the functions that were measured, in float32; not beside a peer whose import fails, or ends the process."""
    broken = [why for name in ("scipy", "torch") if (why := results.peers.get(name, "")).startswith("not usable")]
    if broken:
        raise RuntimeError(broken[0])
    measured = {case.function for case in results.cases if case.dtype == "float32" and case.function in BASE}
    functions = [name for name in accuracy.FUNCTIONS if name in measured]
    return [(name, "", figure) for name, figure in accuracy.pictures(functions, ("float32",))]
