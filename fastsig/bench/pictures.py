"""What was measured, as pictures: throughput against size, small calls, the machine's limit, threads, peers, start-up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from fastsig import plot
from fastsig.bench.cases import CACHED, CONTIGUOUS, NEW, WIDE, Case, human_size
from fastsig.bench.peers import ALL_PEERS, title
from fastsig.bench.results import Results, Row, human_time, is_loss
from fastsig.bench.tables import limit_rate, of_limit
from fastsig.plot import COLOURS

SMALL = 1000  # elements: up to here it is the call that costs
FOREIGN = "#999999"  # of peers that are the user's own
MARKERS = "sv^D<>pPXh*d"
PHONE = 6.2  # inches: so wide, the text can still be read where a telephone shows all of it

Picture = tuple[str, str, Any]  # a name, what it shows, and matplotlib's figure


def pictures(results: Results) -> Iterator[Picture]:
    """All for which there is enough in the results."""
    for dtype in WIDE:
        for function in dict.fromkeys(case.function for case in results.cases):
            if len(sizes := swept(results, function, dtype)) >= 4:
                yield throughput(results, function, dtype, sizes)
    for dtype in WIDE:
        if len(small := [case for case in swept(results, "sigmoid", dtype) if case.size <= SMALL]) >= 3:
            yield latency(results, dtype, small)
    for dtype in WIDE:
        if len(alone := family(results, dtype)) >= 2:
            yield compared(results, dtype, alone)
    if len(limited := [case for case in results.cases if counts(results, case)]) >= 2:
        yield limits(results, limited)
    if several := threaded(results):
        yield scaling(results, several)
    if any(it["seconds"] for it in results.startup):
        yield starts(results)


def swept(results: Results, function: str, dtype: str) -> list[Case]:
    """The sizes at which a function was measured on all threads."""
    threads = results.machine["threads"]
    wanted = function, dtype, threads
    return [case for case in results.cases if (case.function, case.dtype, case.threads) == wanted and case.ordinary]


def family(results: Results, dtype: str) -> list[Case]:
    """The functions that were measured in the cache, on one thread."""
    return [case for case in results.cases if (case.dtype, case.size, case.threads) == (dtype, CACHED, 1) and case.ordinary]


def counts(results: Results, case: Case) -> bool:
    """Whether a case can be held against the limit: in the cache on one thread, or far out of it on all."""
    far = case.size >= 16 * CACHED and case.threads == results.machine["threads"]
    return case.ordinary and (far or (case.size, case.threads) == (CACHED, 1)) and of_limit(results, case) is not None


def threaded(results: Results) -> list[Case]:
    """The sigmoid at the sizes that were measured on one thread and on more."""
    those = [case for case in results.cases if (case.function, case.dtype) == ("sigmoid", "float32") and case.ordinary]
    found = {size: {case.threads for case in those if case.size == size} for size in {case.size for case in those}}
    return [case for case in those if 1 in found[case.size] and len(found[case.size]) > 1]


def row_of(results: Results, case: Case, peer: str) -> Row | None:
    """A peer's row; of one that returns new arrays only, that."""
    new_only = any(it.name == peer and CONTIGUOUS not in it.layouts for it in ALL_PEERS)
    row = results.rows.get((replace(case, layout=NEW) if new_only else case, peer))
    return row if row and row.seconds else None


def draw(
    axes: Any,
    results: Results,
    cases: Sequence[Case],
    y: Callable[[Row], float],
    x: Callable[[Case], float],
    without: Sequence[str] = (),
) -> None:
    """A line for each peer, fastsig's over the others'."""
    present = [peer for peer, why in results.peers.items() if not why and peer not in without]
    for k, peer in enumerate(sorted(present, key=lambda name: name == "fastsig")):
        rows = [(x(case), row) for case in cases if (row := row_of(results, case, peer))]
        if not rows:
            continue
        ours, anew = peer == "fastsig", rows[0][1].case.layout == NEW
        axes.plot(
            [place for place, _ in rows],
            [y(row) for _, row in rows],
            color=COLOURS.get(peer, FOREIGN),
            linewidth=2.6 if ours else 1.2,
            linestyle=":" if anew else "-",
            marker="o" if ours else MARKERS[k % len(MARKERS)],
            markersize=5 if ours else 3.5,
            label=f"{title(peer)} ({NEW})" if anew else title(peer),
            zorder=3 if ours else 2,
        )


def legend(figure: Any, axes: Any) -> None:
    """Below the picture, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def throughput(results: Results, function: str, dtype: str, cases: Sequence[Case]) -> Picture:
    """Every array counted once, as in a copy; the limit is what moving as many arrays takes."""
    figure, (axes,) = plot.figure(PHONE, 5)
    draw(axes, results, cases, lambda row: row.rate or 0, lambda case: case.size)
    case = cases[0]
    places = [size for size in sorted({case.size for case in cases}) if size >= SMALL]
    rates = [limit_rate(results, replace(case, size=size)) for size in places]
    if any(rates):
        shown = [(size, rate) for size, rate in zip(places, rates, strict=True) if rate]
        axes.plot(*zip(*shown, strict=True), color="black", linestyle="--", linewidth=1, label="the machine's limit")
    itemsize = case.traffic() // case.size
    for name, size in results.machine["caches"].items():
        axes.axvline(size / itemsize, color="#888888", linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        axes.annotate(
            name, (size / itemsize, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=8, color="#666666"
        )
    what = f"{function} {dtype}, {case.threads} thread{'s' if case.threads > 1 else ''}"
    axes.set(xscale="log", yscale="log", xlabel="elements", ylabel="GB/s, every array counted once")
    axes.set_title(what, pad=16)
    legend(figure, axes)
    caption = f"Throughput of {what}, by size: higher is better. Marked are the sizes at which its arrays fill a cache"
    return f"throughput-{function}-{dtype}", f"{caption}.", figure


def latency(results: Results, dtype: str, cases: Sequence[Case]) -> Picture:
    figure, (axes,) = plot.figure(PHONE, 4.6)
    draw(axes, results, cases, lambda row: (row.seconds or 0) * 1e9, lambda case: case.size)
    axes.set(xscale="log", yscale="log", xlabel="elements", ylabel="ns a call", title=f"Small arrays: sigmoid {dtype}")
    legend(figure, axes)
    return f"latency-{dtype}", f"What one call of the sigmoid takes for small {dtype} arrays: lower is better.", figure


def compared(results: Results, dtype: str, cases: Sequence[Case]) -> Picture:
    """fastsig's time over each peer's, a line of dots for each function."""
    figure, (axes,) = plot.figure(PHONE, 1.9 + 0.27 * len(cases))
    names = [case.function for case in cases]
    for k, peer in enumerate(results.others):
        found = [(value, row) for row, case in enumerate(cases) if (value := results.ratio(case, peer)) is not None]
        if found:
            colour = COLOURS.get(peer, FOREIGN)
            values, rows = zip(*found, strict=True)
            axes.scatter(values, rows, color=colour, marker=MARKERS[k % len(MARKERS)], s=22, label=title(peer), zorder=2)
            lost = [(value, row) for value, row in found if is_loss(value)]
            if lost:
                axes.scatter(*zip(*lost, strict=True), s=90, facecolors="none", edgecolors="black", linewidths=1, zorder=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", yticks=range(len(cases)), yticklabels=names, ylim=(len(cases) - 0.5, -0.5))
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel="fastsig's time / the peer's: left of 1 it is faster", title=f"{dtype}, {CACHED:,} elements, one thread")
    legend(figure, axes)
    caption = f"fastsig's time over each peer's, {dtype}, {human_size(CACHED)} elements, one thread; losses have a ring."
    return f"peers-{dtype}", caption, figure


def limits(results: Results, cases: Sequence[Case]) -> Picture:
    figure, (axes,) = plot.figure(PHONE, 1.2 + 0.22 * len(cases))
    values = [100 * (of_limit(results, case) or 0) for case in cases]
    rows = range(len(cases))
    axes.barh(
        rows, values, color=[COLOURS["fastsig"] if case.size > CACHED else COLOURS["numpy"] for case in cases], height=0.7
    )
    axes.axvline(100, color="black", linewidth=1)
    axes.set(yticks=rows, yticklabels=[f"{case.function} {case.dtype}, {human_size(case.size)}" for case in cases])
    axes.set(ylim=(len(cases) - 0.5, -0.5), xlabel="% of the limit")
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title("How close to moving the arrays alone", loc="right", fontsize=11)
    caption = (
        "fastsig's throughput as a part of what reading and writing as many arrays of that size takes without a computation:"
        " in the cache on one thread (pale), larger on all threads (dark)."
    )
    return "limit", caption, figure


def scaling(results: Results, cases: Sequence[Case]) -> Picture:
    at = sorted({case.size for case in cases})
    serial = [peer.name for peer in ALL_PEERS if not peer.threads]
    figure, all_axes = plot.figure(PHONE, 3.8, len(at))
    for axes, size in zip(all_axes, at, strict=True):
        those = [case for case in cases if case.size == size]
        single = next(case for case in those if case.threads == 1)
        base = {peer: row.seconds for peer in results.peers if (row := row_of(results, single, peer)) and row.seconds}
        threads = [case.threads for case in those]
        axes.plot(threads, threads, color="black", linewidth=1, linestyle="--", label="ideal")

        def gain(row: Row, base: Mapping[str, float] = base) -> float:
            return base.get(row.peer, 0) / (row.seconds or 1)

        draw(axes, results, those, gain, lambda case: case.threads, without=serial)
        axes.set(title=f"{human_size(size)}", xlabel="threads", xticks=threads)
    all_axes[0].set_ylabel("times as fast as on one")
    legend(figure, all_axes[0])
    return "threads", "What more threads give: the sigmoid in float32, for those who can be told their number.", figure


def starts(results: Results) -> Picture:
    rows = [it for it in results.startup if it["seconds"]]
    figure, (axes,) = plot.figure(PHONE, 1.2 + 0.32 * len(rows))
    colours = [COLOURS.get(it["package"], FOREIGN) for it in rows]
    axes.barh(range(len(rows)), [it["seconds"] for it in rows], xerr=[it["spread"] for it in rows], color=colours, height=0.7)
    for k, it in enumerate(rows):
        axes.annotate(f" {human_time(it['seconds'])}", (it["seconds"] + it["spread"], k), va="center", fontsize=8)
    names = [f"{it['package']}: {it['what']}" for it in rows]
    axes.set(yticks=range(len(rows)), yticklabels=names, ylim=(len(rows) - 0.5, -0.5))
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel="seconds, the whole process")
    axes.margins(x=0.15)
    axes.set_title("Start-up", loc="right", fontsize=11)
    return "startup", "Whole processes, from their start to their end: what an import and a first result take.", figure


# --- files -------------------------------------------------------------------------------------------------------------


def save(results: Results, folder: Path) -> None:
    """Write all as PNG."""
    for name, _, figure in pictures(results):
        figure.savefig(folder / f"{name}.png", dpi=150)


def svg(figure: Any) -> str:
    """The figure as a piece of HTML: its text stays text."""
    import matplotlib

    text = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fastsig"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :]
