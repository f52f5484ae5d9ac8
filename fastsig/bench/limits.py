"""The machine's limits: how fast arrays are moved where nothing is computed, by size, way of storing and number of threads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from fastsig.bench.machine import Advance, free_memory, telling
from fastsig.bench.moving import ITEM, STORAGE, TIMING, Way, laid_out, pace, room, timed, ways
from fastsig.bench.sentinel import Sample, Sentinel, waited

TEAM = 4  # times as long with several threads: where the processors are busy, one of them may wait for milliseconds
FULL = (1000, 10_000, 65_536, 1 << 20, 16 << 20, 64 << 20)  # elements
QUICK = (1000, 65_536, 8 << 20)
LEAST, MOST = 7, 51  # rounds
ENOUGH = {False: 2.0, True: 0.2}  # seconds for one size, quick or not, once it has had the least number of rounds


def limits(threads: int, quick: bool, advance: Advance, sentinel: Sentinel) -> list[dict[str, Any]]:
    """How fast data moves, by every way, in arrays of several sizes: a row each.

    The ways take turns, one timing each per round; what counts is the median of the calm rounds. Sizes that there isn't memory
    for are left out. `advance` gets the seconds that have passed since it was called before, and what is being done.
    """
    tell = telling(advance)
    tell("loops that only move data")
    found = ways(threads)
    sizes = fitting(quick)
    space = np.ones(room(max(sizes, default=0)), np.uint8)  # touched, so that no page is new to any
    rows = []
    for size in sizes:
        arrays = laid_out(size, space)
        runs = {way: way.over(arrays) for way in found}
        samples = turns(runs, ENOUGH[quick], partial(tell, f"moving data, {size:,} elements"), sentinel)
        for way, taken in samples.items():
            middle, bytes = sentinel.typical(taken), (way.reads + way.writes) * size * ITEM
            measured = {**asdict(middle), "rounds": len(taken), "bytes": bytes, "rate": bytes / middle.seconds / 1e9}
            rows.append({**asdict(way), "size": size, "dtype": STORAGE, **measured})
    return rows


def fitting(quick: bool) -> list[int]:
    """The sizes that there is memory for."""
    free = free_memory()
    return [size for size in (QUICK if quick else FULL) if free is None or room(size) <= free]


def unfitting(quick: bool) -> list[int]:
    """The others."""
    return [size for size in (QUICK if quick else FULL) if size not in fitting(quick)]


def turns(
    runs: Mapping[Way, Callable[[int], None]], seconds: float, tell: Callable[[], None], sentinel: Sentinel
) -> dict[Way, list[Sample]]:
    """The timings of one pass, for each way and round; each round begins with another way."""
    alone = {way: pace(run) for way, run in runs.items() if way.threads == 1}
    passes = {way: passes_of(way, alone[replace(way, threads=1)]) for way in runs}
    samples: dict[Way, list[Sample]] = {way: [] for way in runs}
    begin, order, look = time.perf_counter(), list(runs), sentinel.look()
    for done in range(MOST):
        if done >= LEAST and time.perf_counter() - begin > seconds:
            break
        for way in order:
            runs[way](0)  # wakes the team
            before, last = waited(), look
            taken = timed(runs[way], passes[way])
            share, look = (waited() - before) / taken, sentinel.look()
            samples[way].append(Sample(taken / passes[way], max(last, look), share))
        order = order[1:] + order[:1]
        tell()
    return samples


def passes_of(way: Way, pace: float) -> int:
    """How many passes make one timing, given the pace of one thread."""
    return math.ceil(TIMING * (TEAM * way.threads if way.threads > 1 else 1) / pace)


def limit(limits: Iterable[Mapping[str, Any]], reads: int, writes: int, threads: int, bytes_total: int) -> float | None:
    """The highest rate, in GB/s, at which so many arrays of so many bytes in all were moved, however they were stored.

    Between the sizes that were measured it is interpolated, linearly over the logarithm of the bytes; below the smallest and
    above the largest it is theirs. None if these numbers of arrays and threads weren't measured.
    """
    best: dict[int, float] = {}
    for row in limits:
        if (row["reads"], row["writes"], row["threads"]) == (reads, writes, threads):
            best[row["bytes"]] = max(row["rate"], best.get(row["bytes"], 0.0))
    if not best:
        return None
    measured = sorted(best)
    return float(np.interp(math.log(bytes_total), [*map(math.log, measured)], [best[bytes] for bytes in measured]))
