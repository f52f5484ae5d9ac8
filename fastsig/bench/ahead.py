"""Compiling ahead: what isn't in the cache yet is compiled before anything is measured, by as many processes as there are
processors. A full run on an empty cache would otherwise spend half of its time on it."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

import numpy as np

import fastsig
from fastsig import store
from fastsig.bench import moving
from fastsig.bench.cases import Case, storage, unsupported
from fastsig.bench.machine import Advance, processors, telling
from fastsig.kernels import KERNELS

LONGEST = 240.0  # seconds; what isn't done by then is compiled in its case
Streams = tuple[int, int]  # of a loop that only moves data
Loop = tuple[str, str]  # a function and a dtype


def compiled(cases: Sequence[Case], quick: bool, advance: Advance) -> None:
    """Have it all in the cache, if there is one. A quick run has no time for more than the machine's limits need."""
    if not store.writable():
        return
    loops = [] if quick else [*dict.fromkeys((case.function, case.dtype) for case in cases if not unsupported(case.dtype))]
    wanted: list[Streams | Loop] = [*moving.STREAMS, *loops]
    context, count = multiprocessing.get_context("spawn"), min(processors(), len(wanted))
    tell, end = telling(advance), time.monotonic() + LONGEST
    working = [
        context.Process(target=compile_all, args=([*islice(wanted, k, None, count)],), daemon=True) for k in range(count)
    ]
    try:
        for process in working:
            process.start()
        for process in working:
            while process.is_alive() and time.monotonic() < end:
                tell("compiling")
                process.join(0.2)
    finally:
        for process in working:
            if process.is_alive():
                process.kill()
            if process.pid:
                process.join()


def compile_all(wanted: Sequence[Streams | Loop]) -> None:
    """One process's share. What can't be compiled has its say where it is measured."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides
    for first, second in wanted:
        with suppress(Exception):
            if isinstance(first, str):
                with np.errstate(all="ignore"):
                    getattr(fastsig, first)(*(np.ones(1, storage(str(second))) for _ in KERNELS[first].inputs))
            else:
                moving.loop(first, int(second))
