"""What the commands show: progress bars and tables, by rich where it is installed, plainly where it isn't."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


def names(valid: Sequence[str], what: str) -> Callable[[str], tuple[str, ...]]:
    """An argument's type: a comma list of some of these names, with a word of help for a misspelt one."""

    def parse(text: str) -> tuple[str, ...]:
        given = tuple(name.strip() for name in text.split(","))
        for name in given:
            if name not in valid:
                near = difflib.get_close_matches(name, valid, cutoff=0.4)
                meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(valid)}"
                raise argparse.ArgumentTypeError(f"unknown {what} {name!r}: {meant}")
        return given

    return parse


@contextmanager
def progress(description: str, total: float) -> Iterator[Callable[[float, str], None]]:
    """A bar with the time left, on standard error; the block calls `advance(steps, what)`."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    except ImportError:
        print(f"{description} (pip install 'fastsig[cli]' shows a progress bar)", file=sys.stderr)
        yield lambda steps, what: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, what="")
        yield lambda steps, what: bar.update(task, advance=steps, what=what)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns, numbers to the right."""
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        print(f"\n{title}")
        for row in (columns, *rows):
            print(
                "  ".join(
                    cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
                )
            )
        return
    console = Console()
    width = console.width if console.is_terminal else max(console.width, 200)
    for group in fitting([columns, *rows], width):
        shown = Table(title=escape(title), title_justify="left")
        for k in group:
            shown.add_column(escape(columns[k]), justify="left" if k == 0 else "right", no_wrap=True)
        for row in rows:
            shown.add_row(*(escape(row[k]) for k in group))
        Console(width=width).print(shown)


def fitting(lines: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Which columns go side by side, the first in each group, so that none is cut off."""
    sizes = [max(map(len, column)) + 3 for column in zip(*lines, strict=True)]
    groups, room = [[0]], width - 1 - sizes[0]
    for k, size in enumerate(sizes[1:], 1):
        if size > room and len(groups[-1]) > 1:
            groups.append([0])
            room = width - 1 - sizes[0]
        groups[-1].append(k)
        room -= size
    return groups
