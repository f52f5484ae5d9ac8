"""Two runs beside each other: which rows are better, the same or worse, and how much of a change is noise."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastsig.bench import results
from fastsig.bench.results import Results

FLOOR = 0.03  # relative: two runs of the same code on an idle machine differ by as much
SIGMA = 1.4826  # of normal errors, over their median absolute deviation
LEAST = 3  # rounds
WIDTH = 3  # sigmas: what is beyond is no noise
Name = tuple[str, str]  # a case, and who was timed in it


@dataclass(frozen=True)
class Time:
    """A median, and the median absolute deviation of the rounds from it."""

    seconds: float
    spread: float


@dataclass(frozen=True)
class Verdict:
    """What became of one row: the new time over the old one, freed of what befell the machine, and the noise in that."""

    name: Name
    old: float
    new: float
    change: float
    noise: float

    @property
    def word(self) -> str:
        return "same" if abs(self.change - 1) <= self.noise else "better" if self.change < 1 else "worse"


def verdicts(old: Mapping[Name, Time], new: Mapping[Name, Time], ours: str = "fastsig") -> list[Verdict]:
    """A verdict for each row of `ours` that both runs have.

    Who else was timed in the same case is the measure of the machine: those programs are the same in both runs, so the median
    of their changes is taken out of ours, and how far they lie apart counts as noise, as does the spread of rounds.
    """
    judged = []
    for name in [name for name in new if name in old and name[1] == ours]:
        peers = [it for it in new if it in old and it[0] == name[0] and it[1] != ours]
        others = [new[it].seconds / old[it].seconds for it in peers]
        drift = statistics.median(others) if others else 1.0
        apart = SIGMA * statistics.median(abs(it / drift - 1) for it in others) if others else 0.0
        theirs = SIGMA * statistics.median(spread_of(it, old, new) for it in peers) if peers else 0.0
        noise = max(FLOOR, WIDTH * math.hypot(apart, theirs, SIGMA * spread_of(name, old, new)))
        judged.append(Verdict(name, old[name].seconds, new[name].seconds, new[name].seconds / old[name].seconds / drift, noise))
    return judged


def spread_of(name: Name, old: Mapping[Name, Time], new: Mapping[Name, Time]) -> float:
    """The relative spread of a row's rounds in both runs."""
    return math.hypot(*(time.spread / time.seconds for time in (old[name], new[name])))


def times(measured: Results) -> dict[Name, Time]:
    """Those of a run of `python -m fastsig bench`; what had too few rounds, as when it was interrupted, doesn't count."""
    return {
        (case.label, peer): Time(row.seconds, row.spread)
        for (case, peer), row in measured.rows.items()
        if row.seconds is not None and row.spread is not None and row.rounds >= LEAST
    }


def times_of_pytest(record: Mapping[str, Any]) -> dict[Name, Time]:
    """Those of a JSON file of pytest-benchmark, whose groups are our cases."""
    found = {}
    for it in record["benchmarks"]:
        stats = it["stats"]
        peer = it.get("extra_info", {}).get("peer", it["name"])
        found[it["group"] or it["fullname"], peer] = Time(stats["median"], stats["iqr"] / 2)
    return found


def read(path: Path) -> dict[Name, Time]:
    """The times in a file of either kind."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} holds no JSON: {error}") from None
    if isinstance(record, dict) and "benchmarks" in record:
        try:
            return times_of_pytest(record)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} holds no results of pytest-benchmark: {error}") from None
    return times(results.read(path))


COLUMNS = ("", "before", "after", "change", "noise", "")


def table(judged: Sequence[Verdict]) -> list[list[str]]:
    """The verdicts for people."""
    human = results.human_time
    return [[it.name[0], human(it.old), human(it.new), f"{it.change - 1:+.1%}", f"± {it.noise:.1%}", it.word] for it in judged]


def summary(judged: Sequence[Verdict]) -> str:
    """How many of each."""
    counts = {word: sum(it.word == word for it in judged) for word in ("better", "same", "worse")}
    told = ", ".join(f"{count} {word}" for word, count in counts.items())
    return f"Against the earlier run: {told}. Changes are freed of what all peers of a row share, which is the machine's."


def unmatched(old: Mapping[Name, Time], new: Mapping[Name, Time], ours: str = "fastsig") -> list[str]:
    """Our rows that only one of the runs has."""
    told = []
    for those, others, where in ((old, new, "earlier"), (new, old, "later")):
        missing = [name[0] for name in those if name[1] == ours and name not in others]
        if missing:
            told.append(f"only in the {where} run: {'; '.join(missing)}")
    return told
