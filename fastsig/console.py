"""What the commands show: progress bars and tables, by rich where it is installed, plainly where it isn't."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar with the time left, on standard error; the block calls `advance(steps, what)`."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        print(f"{description} (pip install 'fastsig[cli]' shows a progress bar)", file=sys.stderr)
        yield lambda steps, what: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
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
    shown = Table(title=title, title_justify="left")
    for k, column in enumerate(columns):
        shown.add_column(column, justify="left" if k == 0 else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    console = Console()
    Console(width=max(console.width, 200) if not console.is_terminal else None).print(shown)
