"""The sentinel: whether the processor was all ours while something was timed.

Neighbours come and go by the second: other virtual machines on the same hardware, which no system tells of, and other programs.
The first slow down a loop whose time is known; of the second Linux says how long a thread had to wait for a processor. What was
timed in their presence is left out where enough remains. `bench --compare` tells how far two runs agree.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

import numpy as np

from fastsig.bench.moving import Way, laid_out, pace, room, timed

SIZE = 1000  # elements: both arrays are in the first cache
LENGTH = 60e-6  # seconds of the loop: long enough to be timed within a few percent, short beside a timing
SLOWER = 1.1  # times the best the loop has had: what takes longer was disturbed
WAITED = 0.05  # of a timing: two that share a processor take turns of milliseconds, and have a third of it or more
CALM = 3  # samples, of which a median is taken
SPINNING = 20e-3  # seconds: GNU's OpenMP team spins for 8 to 10 ms after its last call
PAUSE, WORKING = 5e-4, 1e-4  # seconds of a pause, and of processors' time in it if somebody spins


@dataclass(frozen=True)
class Sample:
    """One timing: the seconds of a call, those of the sentinel's slower loop before or after, the part spent in waiting."""

    seconds: float
    loop: float
    waited: float


@dataclass(frozen=True)
class Typical:
    """The median of some timings, their median absolute deviation from it, and how many of them were calm."""

    seconds: float
    spread: float
    calm: int


class Sentinel:
    """The loop, and the best time it has had."""

    def __init__(self) -> None:
        self.run = Way(1, 1, "plain", 1).over(laid_out(SIZE, np.ones(room(SIZE), np.uint8)))
        self.passes = math.ceil(LENGTH / pace(self.run))
        self.best = math.inf

    def look(self) -> float:
        """The seconds that the loop takes now: the better of two, for the first may find the processor asleep."""
        taken = min(timed(self.run, self.passes), timed(self.run, self.passes))
        self.best = min(self.best, taken)
        return taken

    def calm(self, sample: Sample) -> bool:
        """Whether nobody disturbed it, by the best that is known by now."""
        return sample.loop <= SLOWER * self.best and sample.waited <= WAITED

    def count(self, samples: Sequence[Sample]) -> int:
        """How many were calm."""
        return sum(map(self.calm, samples))

    def typical(self, samples: Sequence[Sample]) -> Typical:
        """What the calm ones have in common, or, of fewer than three of those, all."""
        calm = [it.seconds for it in samples if self.calm(it)]
        taken = calm if len(calm) >= CALM else [it.seconds for it in samples]
        middle = median(taken)
        return Typical(middle, median(abs(it - middle) for it in taken), len(calm))


def waited() -> float:
    """The seconds that this thread has had to wait for a processor so far; 0 where the system doesn't say."""
    file = accounts()
    return int(os.pread(file, 64, 0).split()[1]) * 1e-9 if file is not None else 0.0


@cache
def accounts() -> int | None:
    """Linux's account of this thread's time, kept open: reading it takes 2 µs. It belongs to the thread that asks first."""
    try:
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        return file if len(os.pread(file, 64, 0).split()) == 3 else None
    except OSError:
        return None


def settle() -> None:
    """Wait until no team of threads spins any more, on the processors of whoever is timed next."""
    end = time.perf_counter() + SPINNING
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(PAUSE)
        if time.process_time() - before < WORKING:
            break
