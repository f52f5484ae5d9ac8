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
NEAR = 0.1  # relative: what two runs of the same code are to agree within
Name = tuple[str, str]  # a case, and who was timed in it


@dataclass(frozen=True)
class Time:
    """A median, and the median absolute deviation of the rounds from it."""

    seconds: float
    spread: float
    calm: bool = True  # whether nobody else had a share of the processors, as far as that is known


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
    of their changes is taken out of ours, and how far they lie apart counts as noise, as does the spread of rounds. What was
    disturbed in either run is neither judged nor a measure.
    """
    judged = []
    both = calm_in_both(old, new)
    for name in [name for name in both if name[1] == ours]:
        peers = [it for it in both if it[0] == name[0] and it[1] != ours]
        others = [new[it].seconds / old[it].seconds for it in peers]
        drift = statistics.median(others) if others else 1.0
        apart = SIGMA * statistics.median(abs(it / drift - 1) for it in others) if others else 0.0
        theirs = SIGMA * statistics.median(spread_of(it, old, new) for it in peers) if peers else 0.0
        noise = max(FLOOR, WIDTH * math.hypot(apart, theirs, SIGMA * spread_of(name, old, new)))
        judged.append(Verdict(name, old[name].seconds, new[name].seconds, new[name].seconds / old[name].seconds / drift, noise))
    return judged


def calm_in_both(old: Mapping[Name, Time], new: Mapping[Name, Time]) -> list[Name]:
    """What was measured undisturbed in either run."""
    return [name for name, it in new.items() if it.calm and name in old and old[name].calm]


def agreement(old: Mapping[Name, Time], new: Mapping[Name, Time], ours: str = "fastsig") -> str:
    """How far two runs agree on the ratios of our times to the others', with and without what was disturbed in either.

    Where both are runs of the same code on the same machine, it says what the benchmark is worth there.
    """
    calm, every = (differences(names, old, new, ours) for names in (calm_in_both(old, new), [*new]))
    told = [f"{agreeing(calm)} where nobody disturbed either run" if calm else "nothing was undisturbed in both runs"]
    if len(every) > len(calm):
        told.append(f"{agreeing(every)} in all")
    return f"The ratios of the two runs: {'; '.join(told)}." if every else "The two runs have no ratios in common."


def differences(names: Sequence[Name], old: Mapping[Name, Time], new: Mapping[Name, Time], ours: str) -> list[float]:
    """How far the runs lie apart on each ratio, in order."""
    found, present = [], {*names}
    for name in names:
        own = name[0], ours
        if name != own and own in present and name in old and own in old:
            before, now = (run[own].seconds / run[name].seconds for run in (old, new))
            found.append(max(now / before, before / now) - 1)
    return sorted(found)


def agreeing(apart: Sequence[float]) -> str:
    """The part of the ratios that are near each other, the median difference and the ninth decile, in words."""
    near = sum(it <= NEAR for it in apart) / len(apart)
    middle, most = statistics.median(apart), apart[math.ceil(0.9 * len(apart)) - 1]
    return f"{near:.1%} of {len(apart)} agree within {NEAR:.0%}, median {middle:.1%}, ninth decile {most:.1%},"


def spread_of(name: Name, old: Mapping[Name, Time], new: Mapping[Name, Time]) -> float:
    """The relative spread of a row's rounds in both runs."""
    return math.hypot(*(time.spread / time.seconds for time in (old[name], new[name])))


def times(measured: Results) -> dict[Name, Time]:
    """Those of a run of `python -m fastsig bench`; what had too few rounds, as when it was interrupted, doesn't count."""
    return {
        (case.label, peer): Time(row.seconds, row.spread, not row.disturbed)
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


def unjudged(old: Mapping[Name, Time], new: Mapping[Name, Time], ours: str = "fastsig") -> list[str]:
    """Our rows that aren't judged, and why: only one of the runs has them, or they were disturbed."""
    both = [name for name in new if name in old and name[1] == ours]
    disturbed = [name[0] for name in both if not (old[name].calm and new[name].calm)]
    told = [f"not judged, for others had a share of the processors: {'; '.join(disturbed)}"] if disturbed else []
    for those, others, where in ((old, new, "earlier"), (new, old, "later")):
        missing = [name[0] for name in those if name[1] == ours and name not in others]
        if missing:
            told.append(f"only in the {where} run: {'; '.join(missing)}")
    return told
