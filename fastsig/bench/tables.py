"""What was measured, for people: tables in a terminal, and the block in README."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from fastsig import console
from fastsig.bench import limits
from fastsig.bench.cases import CACHED, CONTIGUOUS, NEW, WIDE, Case
from fastsig.bench.peers import ALWAYS, title
from fastsig.bench.results import Results, human_time, in_order, is_loss, number
from fastsig.bench.suite import LARGEST, Bar, bars

LEGEND = "Ratios are fastsig's time over the peer's; ! marks a loss, ~ what others disturbed."


def limit_rate(results: Results, case: Case) -> float | None:
    """GB/s: how fast its arrays can be read and written at all, in any way and on no more threads, without a computation."""
    if case.threads not in {it["threads"] for it in results.limits}:
        return None  # it was measured on one thread and on all
    read, written = len(case.inputs), len(case.outputs)
    counts = {it["threads"] for it in results.limits if it["threads"] <= case.threads}
    rates = (limits.limit(results.limits, read, written, count, case.traffic()) for count in counts)
    return max((rate for rate in rates if rate), default=None)


def of_limit(results: Results, case: Case) -> float | None:
    """Which part of that limit fastsig reaches."""
    row, limit = results.rows.get((case, "fastsig")), limit_rate(results, case)
    return row.rate / limit if row and row.rate and limit and case.layout == CONTIGUOUS else None


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def ratio_cell(results: Results, case: Case, peer: str) -> str:
    row, own, value = results.rows.get((case, peer)), results.rows.get((case, "fastsig")), results.ratio(case, peer)
    if row is not None and row.error:
        return "failed"
    unsure = value is not None and any(it and it.disturbed for it in (row, own))
    return (
        ("~" if unsure else "") + number(value) + (" !" if value is not None and peer not in ALWAYS and is_loss(value) else "")
    )


def row_of(results: Results, case: Case, others: Sequence[str]) -> list[str]:
    own = results.rows.get((case, "fastsig"))
    if own is None or own.seconds is None or own.spread is None:
        cells = ["failed" if own else "–", *"–––"]
    else:
        cells = [
            "~" * own.disturbed + human_time(own.seconds),
            f"{own.spread / own.seconds:.0%}",
            number(own.ns),
            number(own.rate),
        ]
    cells.append(percent(of_limit(results, case)))
    return [f"{case.dtype}, {case.place}", *cells, *(ratio_cell(results, case, name) for name in ("copy", *others))]


def tables(results: Results) -> list[tuple[str, list[str], list[list[str]]]]:
    """A title, columns and rows for each function; peers that appear in none of them have no column."""
    made = []
    cases = results.cases
    for function in dict.fromkeys(case.function for case in cases):
        those = [case for case in cases if case.function == function]
        others = [name for name in results.others if any((case, name) in results.rows for case in those)]
        columns = ["", "fastsig", "±", "ns/element", "GB/s", "of the limit", "/ copy", *(f"/ {title(name)}" for name in others)]
        made.append((function, columns, [row_of(results, case, others) for case in those]))
    return made


def bar_rows(results: Results) -> list[list[str]]:
    """The ratios the package is judged by, and which are missed."""
    judged = ((bar, results.ratio(bar.case, bar.peer, bar.against)) for bar in bars(results.machine["threads"]))
    return [bar_row(bar, value) for bar, value in judged if value is not None]


def bar_row(bar: Bar, value: float) -> list[str]:
    missed = bar.target is not None and round(value, 2) > bar.target
    return [bar.label, number(bar.target), number(value) + (" !" if missed else "")]


LIMITS = ("arrays read, written", "stores", "elements", "threads", "GB/s", "±")


def limit_rows(results: Results) -> list[list[str]]:
    """What the machine itself can do."""
    return [
        [
            f"{it['reads']}, {it['writes']}",
            it["stores"],
            f"{it['size']:,}",
            f"{it['threads']}",
            number(it["rate"]),
            f"{it['spread'] / it['seconds']:.0%}",
        ]
        for it in results.limits
    ]


STARTS = ("process", "time", "±")


def start_rows(results: Results) -> list[list[str]]:
    """What the start of a process takes."""
    return [
        [f"{it['package']}: {it['what']}", human_time(it["seconds"]), f"{it['spread'] / it['seconds']:.0%}"]
        if it["seconds"]
        else [f"{it['package']}: {it['what']}", it["error"], ""]
        for it in results.startup
    ]


def lost(results: Results) -> str:
    """How many comparisons there are, and are lost."""
    if not results.comparisons:
        return "Nothing was compared."
    failed = sum(bool(row.error) for row in results.rows.values() if row.peer == "fastsig")
    told = f"fastsig is slower, by 1 % or more, in {len(results.losses)} of {len(results.comparisons)} comparisons."
    return f"{told} It failed in {failed} cases." if failed else told


def disturbed(results: Results) -> str:
    """How many of the measurements others had a part in, or nothing."""
    watched = sum(row.seconds is not None and row.calm is not None for row in results.rows.values())
    count = len(results.disturbed)
    return f"Others had a share of the processors all through {count} of {watched} measurements." if count else ""


def report(results: Results) -> None:
    """Print everything that was measured, and what wasn't and why."""
    for heading, columns, rows in tables(results):
        console.table(heading, columns, rows)
    if judged := bar_rows(results):
        console.table("bars", ["fastsig / other", "bar", "measured"], judged)
    if results.limits:
        console.table("the machine: arrays moved without a computation", LIMITS, limit_rows(results))
    if results.startup:
        console.table("start-up: whole processes", STARTS, start_rows(results))
    print(" ".join(filter(None, [f"\n{LEGEND}", lost(results), disturbed(results)])))
    for line in (*in_words(results.losses), *(f"not measured: {line}" for line in results.problems)):
        print(f"  {line}")
    print(f"\n{described(results)}")


def in_words(slower: Mapping[tuple[Case, str], float]) -> list[str]:
    """Losses, one line for each place."""
    found: dict[str, list[str]] = {}
    for case in in_order(case for case, _ in slower):
        peers = (f"{title(name)} {number(value)}" for (where, name), value in slower.items() if where == case)
        found.setdefault(case.place, []).append(f"{case.function} {case.dtype} ({', '.join(peers)})")
    return [f"size {place}: {', '.join(those)}" for place, those in found.items()]


def described(results: Results) -> str:
    """The machine, in a sentence."""
    it = results.machine
    versions = ", ".join(map(" ".join, it["versions"].items()))
    threads = f"{it['threads']} thread{'s' if it['threads'] > 1 else ''} (OpenMP: {it['openmp'] or 'none'})"
    caches = ", ".join(f"{name} {human_bytes(size)}" for name, size in it["caches"].items())
    load = "" if it["load"] is None else f"load average {it['load']:.2f} at the start"
    return ", ".join(filter(None, [it["cpu"], caches, threads, load, it["system"], f"Python {it['python']}", versions])) + "."


def human_bytes(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


# --- README ------------------------------------------------------------------------------------------------------------

HEADLINES = (1, 1000, *LARGEST.values())


def markdown(results: Results) -> str:
    """The block for README: the sigmoid, its family in the cache, in new arrays, and past the caches; other losses in words."""
    cases = results.cases
    alone = [case for case in cases if case.size == CACHED and case.threads == 1]
    sigmoid = [case for case in cases if case.function == "sigmoid" and case.dtype in WIDE and case.layout != NEW]
    threads = results.machine["threads"]
    headlines = [
        case for case in sigmoid if case in alone or (case.size in HEADLINES and case.ordinary and case.threads == threads)
    ]
    family = [case for case in alone if case.ordinary and case not in headlines]
    anew = [case for case in cases if case.layout == NEW]
    large = [
        case
        for case in cases
        if case.size == LARGEST.get(case.dtype) and case.ordinary and case.threads == threads and case not in headlines
    ]
    lines = [
        described(results),
        "",
        "fastsig's time per element, its traffic, which part that is of what the same arrays take to be moved"
        " without a computation, and its time over that of each peer in the same run: below 1 it is faster, **bold** it is"
        " slower, – means that there is no such thing. Results are preallocated, unless it says so, and all have the same"
        " number of threads; `copy` is `numpy.copyto` of as many arrays as go in or come out, whichever are more.",
    ]
    for heading, shown in (
        ("The sigmoid:", [(f"{case.dtype}, {case.place}", case) for case in headlines]),
        (f"Its family, at {CACHED:,} elements, 1 thread:", [(f"`{case.function}` {case.dtype}", case) for case in family]),
        ("Results in new arrays:", [(f"`{case.function}` {case.label.removeprefix(case.function)}", case) for case in anew]),
        ("Past the caches:", [(f"`{case.function}` {case.dtype}, {case.place}", case) for case in large]),
    ):
        if shown:
            lines += ["", heading, "", *markdown_table(results, shown)]
    if limited := arithmetic(results, large):
        lines += ["", f"More than 1.15 of the copy, beside what the arithmetic alone takes: {'; '.join(limited)}."]
    told = {*headlines, *family, *anew, *large}
    untold = {key: value for key, value in results.losses.items() if key[0] not in told or key[1] in UNLISTED}
    if untold:
        lines += ["", f"Slower elsewhere, too: {'; '.join(in_words(untold))}."]
    if note := disturbed(results):
        lines += ["", f"{note} Their ratios are marked by ~."]
    if notes := results.problems:
        lines += ["", "<details>", f"<summary>What isn't measured, and why ({len(notes)})</summary>", ""]
        lines += [*(f"- {note}" for note in notes), "", "</details>"]
    return "\n".join(lines)


UNLISTED = ("math",)  # its losses are told in words


def arithmetic(results: Results, large: Iterable[Case]) -> list[str]:
    """For what takes more than 1.15 of a copy past the caches: its time there and, shared among the threads, in the cache."""
    told = []
    for case in large:
        own, inside = (results.rows.get((it, "fastsig")) for it in (case, replace(case, size=CACHED, threads=1)))
        over = results.ratio(case, "copy")
        if own and inside and own.ns and inside.ns and over and over > 1.15:
            told.append(
                f"`{case.function}` {case.dtype} {number(own.ns)} ns for {number(inside.ns / case.threads)} in the cache"
            )
    return told


def markdown_table(results: Results, shown: Sequence[tuple[str, Case]]) -> list[str]:
    """A row for each case, under its name; a column for each peer that there is something of."""
    others = [
        name for name in results.others if name not in UNLISTED and any((case, name) in results.rows for _, case in shown)
    ]
    columns = ["", "ns/element", "GB/s", "of the limit", *(title(name) for name in others), "copy"]
    lines = [f"| {' | '.join(columns)} |", f"|---{'|--:' * (len(columns) - 1)}|"]
    for name, case in shown:
        own = results.rows.get((case, "fastsig"))
        cells = [number(own.ns if own else None), number(own.rate if own else None), percent(of_limit(results, case))]
        for peer in (*others, "copy"):
            cell = ratio_cell(results, case, peer)
            cells.append(f"**{cell[:-2]}**" if cell.endswith(" !") else cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
