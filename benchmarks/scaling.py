"""How a distributed evaluation grows: `python benchmarks/scaling.py` rewrites docs/scaling.md's tables from what was measured.

`--run` measures anew first, into benchmarks/scaling.json: one loss with its gradient, of float32 rows of 8 features in the
workers' memory, for 1 and 2 workers, some numbers of blocks, and sizes from 10⁵ numbers on. An evaluation's time is fitted by

    fixed + each·blocks + element·numbers / workers

and the tables on paper follow from these three. The other tables are of benchmarks/regression.json, which with_regression.py
writes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastsig.bench.results import human_time

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
MEASURED = Path(__file__).parent / "scaling.json"
REGRESSION = Path(__file__).parent / "regression.json"

FEATURES = 8
WORKERS = (1, 2)
BLOCKS = (1, 4, 16, 64)
NUMBERS = (10**5, 10**6, 10**7, 10**8, 10**9)
MOST = 125_000_000  # numbers of a block: 500 MB
PAPER_WORKERS = (10, 100, 1000)
PAPER_NUMBERS = (10**10, 10**11, 10**12)
MEGABYTE = 1e6


# --- measuring -----------------------------------------------------------------------------------------------------------


def status(field: str) -> int:
    """Of this process's memory, in KiB, by the system."""
    return int(re.findall(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def begin() -> int:
    """What this process's memory holds now; from now on, its peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak() -> int:
    return status("VmHWM")


def measure(rounds: int, most: float) -> dict[str, Any]:
    """Each case's evaluations; of their times the least counts, for others may use the machine."""
    import dask
    from distributed import wait
    from with_regression import cluster, described, generated, truth

    from fastsig.interop.dask_linear import Data

    coefficients, cases = np.append(truth(FEATURES) / 2, 0.1), []
    for workers in WORKERS:
        with cluster(workers) as client:
            for numbers in (count for count in NUMBERS if count <= most):
                for blocks in (count for count in BLOCKS if numbers / count <= MOST):
                    x, y = dask.persist(*generated(blocks, numbers // FEATURES // blocks, FEATURES))
                    wait([x, y])
                    data = Data(x, y, None, None)
                    data.evaluate(True, coefficients)
                    before, times = client.run(begin), []
                    for k in range(rounds):  # with other coefficients each time: Dask knows a result that it still has
                        start = time.perf_counter()
                        data.evaluate(True, coefficients + 0.01 * (k + 1))
                        times.append(time.perf_counter() - start)
                    grown = max(after - before[worker] for worker, after in client.run(peak).items())
                    case = {"workers": workers, "numbers": numbers, "blocks": blocks, "seconds": min(times), "grown": grown}
                    print(case, file=sys.stderr)
                    cases.append(case)
                    del x, y, data
    return {"machine": described(max(WORKERS)), "rounds": rounds, "processors_busy": os.getloadavg()[1], "cases": cases}


# --- what follows from it ------------------------------------------------------------------------------------------------


def fitted(cases: list[dict[str, Any]]) -> tuple[float, float, float]:
    """The three costs in seconds, none negative, with the least sum of squared relative errors."""
    from scipy.optimize import nnls

    terms = np.array([[1.0, case["blocks"], case["numbers"] / min(case["workers"], case["blocks"])] for case in cases])
    seconds = np.array([case["seconds"] for case in cases])
    costs, _ = nnls(terms / seconds[:, None], np.ones(len(cases)))
    return float(costs[0]), float(costs[1]), float(costs[2])


def measured_table(found: dict[str, Any]) -> str:
    fixed, each, element = fitted(found["cases"])
    lines = [
        "| numbers | bytes | blocks | 1 worker | 2 workers | by the formula | memory beside the data |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for numbers, blocks in dict.fromkeys((case["numbers"], case["blocks"]) for case in found["cases"]):
        here = {c["workers"]: c for c in found["cases"] if (c["numbers"], c["blocks"]) == (numbers, blocks)}
        formula = fixed + each * blocks + element * numbers / min(max(WORKERS), blocks)
        times = " | ".join(human_time(here[workers]["seconds"]) if workers in here else "–" for workers in WORKERS)
        grown = max(case["grown"] for case in here.values()) / 1024
        lines.append(
            f"| {power(numbers)} | {megabytes(4 * numbers)} | {blocks} | {times} | {human_time(formula)} | {grown:.0f} MiB |"
        )
    lines += [
        "",
        f"One evaluation, the least of {found['rounds']} times: {found['machine']}. On average {found['processors_busy']:.0f} "
        "programs wanted the machine's processors meanwhile.",
        "",
        f"The formula is **{human_time(fixed)} + {human_time(each)} · blocks + {human_time(element)} · numbers / workers**.",
    ]
    return "\n".join(lines)


def paper_table(found: dict[str, Any]) -> str:
    fixed, each, element = fitted(found["cases"])
    lines = [
        "| numbers | workers | blocks | of | one evaluation | of it, scheduling | of it, work |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for numbers in PAPER_NUMBERS:
        for workers in PAPER_WORKERS:
            blocks = max(workers, math.ceil(numbers / MOST))
            scheduling, work = fixed + each * blocks, element * numbers / workers
            lines.append(
                f"| {power(numbers)} | {workers:,} | {blocks:,} | {megabytes(4 * numbers / blocks)} | "
                f"{human_time(scheduling + work)} | {human_time(scheduling)} | {human_time(work)} |"
            )
    lines += ["", "| workers | a block, so that scheduling takes no more than half | than a tenth |", "|--:|--:|--:|"]
    for workers in (2, *PAPER_WORKERS):
        half = each * workers / element
        lines.append(f"| {workers:,} | {megabytes(4 * half)} | {megabytes(4 * 9 * half)} |")
    return "\n".join(lines)


def evaluation_table(found: list[dict[str, Any]]) -> str:
    ways = list(found[0]["seconds"])
    lines = [f"| blocks | {' | '.join(ways)} |", f"|--:|{'--:|' * len(ways)}"]
    for one in found:
        ours = one["seconds"][ways[0]]
        shown = (
            f"{human_time(s)} ({s / ours:.1f} ×)" if name != ways[0] else human_time(s) for name, s in one["seconds"].items()
        )
        lines.append(f"| {one['blocks']} | {' | '.join(shown)} |")
    first, busy = found[0], ", ".join(f"{one['processors_busy']:.0f}" for one in found)
    lines += [
        "",
        f"{first['rows']:,} rows of {first['features']} float32, medians of {first['rounds']} rounds, the three in turn: "
        f"{first['machine']}, where {busy} programs wanted the processors.",
    ]
    return "\n".join(lines)


def larger_table(found: dict[str, Any]) -> str:
    peaks = " and ".join(f"{mebibytes:.0f}" for mebibytes in found["peak_mebibytes"])
    lines = [
        "| | |",
        "|---|--:|",
        f"| data, made anew at each evaluation | {found['gigabytes']:.1f} GB |",
        f"| rows, features, blocks | {found['rows']:,}, {found['features']}, {found['blocks']} |",
        f"| limit of each of two workers' memory | {found['limit']} |",
        f"| **peak of each worker's memory** | **{peaks} MiB** |",
        f"| steps, evaluations, tol | {found['iterations']}, {found['evaluations']}, {found['tol']:g} |",
        f"| an evaluation, most of it the making of random numbers | {human_time(found['seconds_each'])} |",
        f"| all of it, with the pass over the labels | {human_time(found['seconds'])} |",
        f"| furthest coefficient from the one that made the labels | {found['furthest_from_truth']:.4f} |",
        "",
        f"{found['machine']}, where {found['processors_busy']:.0f} programs wanted the processors.",
    ]
    return "\n".join(lines)


def power(numbers: int) -> str:
    return "10" + str(len(str(numbers)) - 1).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def megabytes(size: float) -> str:
    if size < MEGABYTE:
        return f"{size / 1e3:.3g} kB"
    return f"{size / MEGABYTE:.3g} MB" if size < 1e9 else f"{size / 1e9:,.3g} GB" if size < 1e12 else f"{size / 1e12:,.3g} TB"


# --- the page ------------------------------------------------------------------------------------------------------------


def rewritten(text: str) -> str:
    measured, regression = (json.loads(path.read_text(encoding="utf-8")) for path in (MEASURED, REGRESSION))
    tables = {
        "measured": measured_table(measured),
        "paper": paper_table(measured),
        "evaluation": evaluation_table(regression["evaluation"]),
        "larger": larger_table(regression["larger"]),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if begin not in text or end not in text:
            raise ValueError(f"{PAGE} has no block {name}")
        text = text[: text.index(begin) + len(begin)] + f"\n{table}\n" + text[text.index(end) :]
    return text


def current() -> bool:
    """Whether the page's tables are those of what is on record."""
    text = PAGE.read_text(encoding="utf-8")
    return rewritten(text) == text


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", action="store_true", help="measure anew first")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--most", type=float, default=NUMBERS[-1], help="the most numbers, of 4 bytes in the workers' memory")
    args = parser.parse_args()
    if args.run:
        MEASURED.write_text(json.dumps(measure(args.rounds, args.most), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
