"""What was measured: rows, and what isn't there and why; as JSON, as CSV, and read again."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fastsig.bench.cases import DATA, DTYPES, FUNCTIONS, LAYOUTS, Case
from fastsig.bench.peers import ALWAYS, title
from fastsig.bench.sentinel import CALM

FORMAT = 3  # of the file; 2 had no count of calm rounds


@dataclass(frozen=True)
class Row:
    """What one peer took in one case: the median of its calm rounds, and their median absolute deviation from it.

    Where fewer than three were calm, it is of all rounds, and the row counts as disturbed.
    """

    case: Case
    peer: str
    seconds: float | None
    spread: float | None
    rounds: int
    repeats: int  # calls in each timing
    bytes: int  # that have to be read and written
    error: str = ""
    calm: int | None = None  # rounds in which nobody else had a share of the processors; None where nobody looked

    @property
    def disturbed(self) -> bool:
        return self.seconds is not None and self.calm is not None and self.calm < CALM

    @property
    def ns(self) -> float | None:
        """Nanoseconds an element."""
        return None if self.seconds is None else self.seconds / self.case.size * 1e9

    @property
    def rate(self) -> float | None:
        """GB/s, every array counted once."""
        return None if self.seconds is None else self.bytes / self.seconds / 1e9

    def record(self) -> dict[str, Any]:
        """It all in one level, as it is written to files."""
        record = asdict(self)
        return {**record.pop("case"), **record}

    @staticmethod
    def of(record: Mapping[str, Any]) -> Row:
        """The row that `record` gave."""
        where = {each.name: record[each.name] for each in fields(Case)}
        return Row(Case(**where), **{each.name: record[each.name] for each in fields(Row) if each.name != "case"})


@dataclass
class Results:
    """A run."""

    machine: dict[str, Any] = field(default_factory=dict)
    quick: bool = False
    peers: dict[str, str] = field(default_factory=dict)  # why each isn't there, or ""
    rows: dict[tuple[Case, str], Row] = field(default_factory=dict)
    limits: list[dict[str, Any]] = field(default_factory=list)
    startup: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)  # why, and which cases
    declined: dict[str, dict[str, int]] = field(default_factory=dict)  # why which peers don't take part, in how many cases
    seconds: float = 0.0  # that the run took
    interrupted: bool = False

    def add(self, row: Row) -> None:
        self.rows[row.case, row.peer] = row

    def skip(self, label: str, why: str) -> None:
        self.skipped.setdefault(why, []).append(label)

    def ratio(self, case: Case, peer: str, against: Case | None = None) -> float | None:
        """fastsig's time over the peer's."""
        own, other = self.rows.get((case, "fastsig")), self.rows.get((against or case, peer))
        if own is None or other is None or own.seconds is None or other.seconds is None:
            return None
        return own.seconds / other.seconds

    @property
    def cases(self) -> list[Case]:
        """In the order of tables."""
        return in_order(case for case, _ in self.rows)

    @property
    def others(self) -> list[str]:
        """The peers that are compared with."""
        return [name for name, why in self.peers.items() if not why and name not in ALWAYS]

    @property
    def comparisons(self) -> dict[tuple[Case, str], float]:
        """Every comparison with a peer: fastsig's time over its."""
        found = ((key, self.ratio(*key)) for key in self.rows if key[1] not in ALWAYS)
        return {key: value for key, value in found if value is not None}

    @property
    def losses(self) -> dict[tuple[Case, str], float]:
        """Those in which fastsig is slower."""
        return {key: value for key, value in self.comparisons.items() if is_loss(value)}

    @property
    def disturbed(self) -> list[Row]:
        """What was measured in the presence of others."""
        return [row for row in self.rows.values() if row.disturbed]

    @property
    def problems(self) -> list[str]:
        """What isn't measured, and why."""
        missing = [f"{title(name)}: {why}" for name, why in self.peers.items() if why]
        failed = [f"{row.case.label}: {title(row.peer)}: {row.error}" for row in self.rows.values() if row.error]
        skipped = [f"{why}: {'; '.join(labels)}" for why, labels in self.skipped.items()]
        declined = [f"{why}: {counted(those)}" for why, those in self.declined.items()]
        starts = [f"{it['package']}, {it['what']}: {it['error']}" for it in self.startup if it["error"]]
        return [*missing, *failed, *skipped, *declined, *starts]

    def record(self) -> dict[str, Any]:
        """It all as JSON has it."""
        record = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"format": FORMAT, **record, "rows": [row.record() for row in self.rows.values()]}

    @staticmethod
    def of(record: Mapping[str, Any]) -> Results:
        """The results that `record` gave."""
        results = Results(**{each.name: record[each.name] for each in fields(Results) if each.name != "rows"})
        for row in record["rows"]:
            results.add(Row.of(row))
        return results


def counted(those: Mapping[str, int]) -> str:
    """Peers, and in how many cases."""
    return ", ".join(f"{title(peer)} ({count} case{'s' if count > 1 else ''})" for peer, count in those.items())


def is_loss(value: float) -> bool:
    return round(value, 2) > 1


def in_order(cases: Iterable[Case]) -> list[Case]:
    def key(case: Case) -> tuple[int, int, int, int, int, int]:
        where = FUNCTIONS.index(case.function), DTYPES.index(case.dtype), LAYOUTS.index(case.layout), DATA.index(case.data)
        return *where, case.size, case.threads

    return sorted(dict.fromkeys(cases), key=key)


# --- files -------------------------------------------------------------------------------------------------------------


def read(path: Path) -> Results:
    """The results that `write_json` wrote; ValueError says what else is in the file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} holds no JSON: {error}") from None
    if not isinstance(record, dict) or record.get("format") not in (2, FORMAT):
        raise ValueError(f"{path} holds no results of this benchmark (format {FORMAT}): `bench --json FILE` writes them")
    try:
        if record["format"] == 2:
            record["rows"] = [{**row, "calm": None} for row in record["rows"]]
        return Results.of(record)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} holds results that aren't whole: {error}") from None


def write_json(results: Results, path: Path) -> None:
    path.write_text(json.dumps(results.record(), indent=1) + "\n", encoding="utf-8")


def write_csv(results: Results, path: Path) -> None:
    """A line for each row, and fastsig's time over that of the row's peer."""
    columns = [*(each.name for each in fields(Case)), *(each.name for each in fields(Row) if each.name != "case")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "ns_per_element", "GB_per_s", "fastsig_over_peer"])
        for row in results.rows.values():
            record = row.record()
            derived = row.ns, row.rate, results.ratio(row.case, row.peer)
            writer.writerow([*(record[name] for name in columns), *derived])


# --- for people --------------------------------------------------------------------------------------------------------


def human_time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.2f}" if 0.01 <= value < 100 else f"{value:.3g}"
