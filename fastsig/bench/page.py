"""The report: one HTML file with everything in it, for a browser without a network, on a telephone as well."""

from __future__ import annotations

from collections.abc import Iterator
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
    text: str = template.render(
        results=results,
        machine=results.machine,
        described=tables.described(results),
        caches={name: tables.human_bytes(size) for name, size in results.machine["caches"].items()},
        taken=human_time(results.seconds),
        lost=tables.lost(results),
        losses=tables.in_words(results.losses),
        problems=results.problems,
        legend=tables.LEGEND,
        functions=tables.tables(results),
        bars=tables.bar_rows(results),
        limits=(tables.LIMITS, tables.limit_rows(results)),
        starts=(tables.STARTS, tables.start_rows(results)),
        pictures=[(name, caption, pictures.svg(figure)) for name, caption, figure in drawn(results)],
    )
    return text


def drawn(results: Results) -> Iterator[pictures.Picture]:
    """Of speed, and of accuracy."""
    yield from pictures.pictures(results)
    yield from accuracy_pictures(results)


def accuracy_pictures(results: Results) -> Iterator[pictures.Picture]:
    """Of the functions that were measured, in float32."""
    measured = {case.function for case in results.cases if case.dtype == "float32" and case.function in BASE}
    functions = [name for name in accuracy.FUNCTIONS if name in measured]
    for name, figure in accuracy.pictures(functions, ("float32",)):
        yield name, "", figure
