"""The worker: it measures, in a process of its own, so that a peer that brings it down costs a row and not the run.

The peers of a case work on the same arrays, are checked before they are timed, and take turns, one timing each per round, so
that a disturbance of the machine meets all of them; what counts is the median of the rounds in which the sentinel saw nobody
else. Cases with too few of those are visited again in the end. Imports, set-up, compilation and the first calls are in no
timing.
"""

from __future__ import annotations

import math
import random
import signal
import time
import timeit
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastsig.bench import limits, machine, peers
from fastsig.bench.cases import MEBI, Arrays, Case, check, make_arrays, unsupported
from fastsig.bench.peers import ALWAYS, Peer
from fastsig.bench.results import Row
from fastsig.bench.sentinel import CALM, Sample, Sentinel, settle, waited

TIMING = 1e-3  # seconds: a shorter timing is repeated until it takes as long
LONG, FEW = 1.0, 3  # seconds of a round from which on so many are enough
VISITS = 4  # more to a case, at most: some peers may be slow after others on some processors, whoever else is there
PREPARING = 0.5  # seconds that come to each case: Numba compiles its peers, results are checked
BRIEF = "sigmoid"  # the function in which a quick run waits for every peer
NOBODY = -1
STOP, PEER, PULSE = range(3)  # shared words: whether to stop; the number of the peer at work; a count of what it has done
Signs = Any  # of them, an array in shared memory
Tell = Callable[[str, Any], None]


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    least: int  # rounds
    most: int
    seconds: float  # for one case, once it has had the least number of rounds
    longest: float  # for one case in which a peer has too few calm samples
    limit: float  # seconds after which no further case is begun; but the cases together have at least a third of them

    def hurried(self, part: float) -> Plan:
        """With this part of the time for each case."""
        return replace(self, seconds=part * self.seconds, longest=part * self.longest)


QUICK = Plan(3, 15, 0.1, 0.2, 18)
FULL = Plan(5, 61, 0.6, 1.5, 515)


@dataclass(frozen=True)
class Request:
    """What a worker is asked for."""

    cases: Sequence[Case]
    peers: Sequence[str]
    plan: Plan
    threads: int
    quick: bool
    machine: bool = True  # whether to describe the machine and measure its limits
    without: frozenset[tuple[str, str]] = frozenset()  # peers that brought a worker down, and in which function


@dataclass
class Visit:
    """What a case has had so far."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)  # calls in each timing
    errors: dict[str, str] = field(default_factory=dict)
    again: int = 0  # times it was visited again

    def lacking(self, sentinel: Sentinel) -> set[str]:
        """Who has too few calm samples."""
        return {name for name, taken in self.samples.items() if sentinel.count(taken) < CALM and name not in self.errors}


def work(request: Request, sender: Any, signs: Signs) -> None:
    """Measure, and send what comes of it: each message is a name and its value."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides
    end = time.perf_counter() + request.plan.limit

    def tell(kind: str, value: Any) -> None:
        sender.send((kind, value))

    present = usable(request, tell, signs)
    sentinel = Sentinel()
    if request.machine:
        tell("machine", machine.described(request.threads))
        told = limits.limits(request.threads, request.quick, lambda seconds, what: tell("advance", (seconds, what)), sentinel)
        tell("limits", told)
        for size in limits.unfitting(request.quick):
            tell("skipped", (f"the machine's limits at {size:,} elements", "not enough memory"))
    worker = Worker(request, present, tell, signs, sentinel)
    end = max(end, time.perf_counter() + request.plan.limit / 3)
    worker.all_cases(end)
    worker.tell_all()
    tell("end", None)
    worker.again(end)
    worker.tell_all()


def usable(request: Request, tell: Tell, signs: Signs) -> list[Peer]:
    """The peers that can take part; all are told of."""
    registered = [peer for peer in peers.ALL_PEERS if peer.name in (*ALWAYS, *request.peers)]
    for name in request.peers:
        if name not in (peer.name for peer in registered):
            tell("peer", (name, "not registered where this process sees it: at the top of a module, not under `if __name__`"))
    present = []
    for peer in registered:
        signs[PEER] = number_of(peer)
        why = peers.unavailable(peer)
        tell("peer", (peer.name, why))
        if not why:
            present.append(peer)
    signs[PEER] = NOBODY
    return present


def number_of(peer: Peer) -> int:
    return peers.ALL_PEERS.index(peer)


def impossible(case: Case) -> str:
    """Why a case can't be measured on this machine, or nothing."""
    free = machine.free_memory()
    if why := case.impossible or unsupported(case.dtype):
        return why
    if free is not None and case.memory > free:
        needed, there = (f"{size / MEBI:,.0f}" for size in (case.memory, free))
        return f"needs {needed} MiB of memory, {there} are free"
    return ""


def estimate(case: Case, plan: Plan) -> float:
    """About how many seconds it takes; none, if it can't be measured."""
    return 0.0 if impossible(case) else plan.seconds + PREPARING + case.size * 60e-9 * min(plan.least, FEW)


@dataclass
class Worker:
    """Who measures, and what it has measured."""

    request: Request
    present: Sequence[Peer]
    tell: Tell
    signs: Signs
    sentinel: Sentinel
    visits: dict[Case, Visit] = field(default_factory=dict)

    def all_cases(self, end: float) -> None:
        """Each case once, in less time each where it would otherwise not be enough for all."""
        plan, cases = self.request.plan, self.request.cases
        left = [estimate(case, plan) for case in cases]
        for number, case in enumerate(cases):
            if self.signs[STOP]:
                break
            self.tell("begin", number)
            remaining = end - time.perf_counter()
            if why := impossible(case) or ("no time left" if remaining < 0 else ""):
                self.tell("skipped", (case.label, why))
            else:
                self.attempt(case, plan.hurried(min(1.0, remaining / (sum(left[number:]) or 1.0))))
            self.tell("advance", (left[number], case.label))

    def again(self, end: float) -> None:
        """Those that were disturbed, over and over, as long as there is time."""
        while cases := [it for it, visit in self.visits.items() if visit.again < VISITS and visit.lacking(self.sentinel)]:
            for case in cases:
                if self.signs[STOP] or time.perf_counter() + estimate(case, self.request.plan) > end:
                    return
                self.visits[case].again += 1
                if not impossible(case):  # as it has become, if others took the memory
                    self.tell("advance", (0.0, f"again: {case.label}"))
                    with suppress(Exception):  # it keeps the rows that it has
                        self.measure(case, self.request.plan)

    def attempt(self, case: Case, plan: Plan) -> None:
        try:
            self.measure(case, plan)
        except Exception as error:  # not of a peer's making: no memory, no input
            self.tell("skipped", (case.label, in_words(error)))

    def measure(self, case: Case, plan: Plan) -> None:
        """Time every peer in one case, or, if it had its time before, those who were disturbed.

        What is measured when it is interrupted is told as well. In place, a function is applied to its own results over and
        over; those that would end in somebody's slow case are not measured so.
        """
        arrays = make_arrays(case)
        declined = {peer.name: reason(peer, case, self.request) for peer in self.present}
        taking = [peer for peer in self.present if not declined[peer.name]]
        if visit := self.visits.get(case):
            taking = [peer for peer in taking if peer.name in visit.lacking(self.sentinel)]
        else:
            visit = self.visits[case] = Visit()
            for name, why in declined.items():
                if why:
                    self.tell("declined", (name, why))
        with ExitStack() as stack:
            stack.enter_context(np.errstate(all="ignore"))
            self.set_threads(taking, case.threads, stack, visit)
            timers = self.prepare([peer for peer in taking if peer.name not in visit.errors], arrays, visit)
            self.turns(timers, plan, case.threads, visit)
        self.signs[PEER] = NOBODY
        for peer in taking:
            self.tell_row(case, peer.name, visit)

    def tell_all(self) -> None:
        """All rows once more, by the best that the sentinel has seen by now: what counted as calm at first may not be."""
        for case, visit in self.visits.items():
            for name in visit.samples:
                self.tell_row(case, name, visit)

    def tell_row(self, case: Case, name: str, visit: Visit) -> None:
        traffic = case.traffic(copied=name == "copy")
        if name in visit.errors:
            self.tell("row", Row(case, name, None, None, 0, 0, traffic, visit.errors[name]))
        elif taken := visit.samples.get(name):  # none, if it was stopped before its turn
            found = self.sentinel.typical(taken)
            self.tell(
                "row", Row(case, name, found.seconds, found.spread, len(taken), visit.repeats[name], traffic, "", found.calm)
            )

    def set_threads(self, taking: Iterable[Peer], threads: int, stack: ExitStack, visit: Visit) -> None:
        """Tell all peers how many threads to use."""
        for peer in taking:
            if peer.threads:
                self.signs[PEER] = number_of(peer)
                try:
                    stack.enter_context(peer.threads(threads))
                except Exception as failure:
                    visit.errors[peer.name] = in_words(failure)

    def prepare(self, taking: Iterable[Peer], arrays: Arrays, visit: Visit) -> Timers:
        """Timers of the peers, compiled, warm and checked; what goes wrong goes into the visit's errors."""
        timers: Timers = {}
        for peer in taking:
            if self.signs[STOP]:
                break
            self.signs[PEER] = number_of(peer)
            try:
                call = peer.prepare(arrays.case.function, arrays)
                error = "" if peer.name == "copy" else check(call, arrays, peer.as_array)  # a copy isn't the function
                if not error:
                    timer = timeit.Timer(call)
                    timers[peer.name] = Timed(call, timer, calibrated(timer), waits=peer.all_threads)
            except Exception as failure:  # whatever a peer raises is its own row's business
                error = in_words(failure)
            self.signs[PULSE] += 1
            if error:
                visit.errors[peer.name] = error
        return timers

    def turns(self, timers: Timers, plan: Plan, threads: int, visit: Visit) -> None:
        """The rounds, each in an order of its own, so that none always follows the same one."""
        begin, order = time.perf_counter(), list(timers)
        numbers = {name: number_of(peers.named(name)) for name in order}
        visit.samples = {name: [] for name in order} | visit.samples
        visit.repeats |= {name: timer.repeats for name, timer in timers.items()}
        settle()
        before = self.sentinel.look()
        for done in range(plan.most):
            if self.enough(done, time.perf_counter() - begin, plan, visit):
                break
            random.Random(done).shuffle(order)
            for name in tuple(order):
                if self.signs[STOP]:
                    return
                self.signs[PEER] = numbers[name]
                try:
                    seconds, share = timers[name].once()
                except Exception as failure:
                    visit.errors[name] = in_words(failure)
                    order.remove(name)
                    continue
                finally:
                    self.signs[PULSE] += 1
                if threads > 1:
                    settle()
                after = self.sentinel.look()
                visit.samples[name].append(Sample(seconds, max(before, after), share))
                before = after

    def enough(self, done: int, spent: float, plan: Plan, visit: Visit) -> bool:
        """Whether there were enough rounds in the time that was spent."""
        if done < (FEW if done and spent / done > LONG else plan.least):
            return False
        return spent > (plan.longest if visit.lacking(self.sentinel) else plan.seconds)


@dataclass(frozen=True)
class Timed:
    """A peer's call, how many of them make one timing, and whether this thread waits in it for others of the peer's."""

    call: Callable[[], object]
    timer: timeit.Timer
    repeats: int
    waits: bool

    def once(self) -> tuple[float, float]:
        """The seconds of a call, and the part of the timing in which this thread waited for a processor.

        Short calls follow one that isn't timed: it wakes the team of threads, and fills the caches after the peer before.
        """
        if self.repeats > 1:
            self.call()
        before = waited()
        seconds = self.timer.timeit(self.repeats)
        return seconds / self.repeats, 0.0 if self.waits else (waited() - before) / seconds


Timers = dict[str, Timed]


def reason(peer: Peer, case: Case, request: Request) -> str:
    """Why a peer doesn't take part in a case, or nothing."""
    if (peer.name, case.function) in request.without:
        return f"not tried again in {case.function}"
    if request.quick and peer.compiles and case.function != BRIEF:
        return f"compiles for long, so that a quick run has it in {BRIEF} alone"
    return peer.declines(case)


def calibrated(timer: timeit.Timer) -> int:
    """How many calls make one timing."""
    repeats = 1
    while (taken := timer.timeit(repeats)) < TIMING:
        repeats = max(2 * repeats, math.ceil(repeats * min(10.0, TIMING / taken)))
    return repeats


def in_words(failure: Exception) -> str:
    return " ".join(f"{type(failure).__name__}: {failure}".split())[:300]
