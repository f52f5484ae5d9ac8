"""Measuring: in a process of its own, so that a peer that brings it down costs a row and not the run.

The peers of a case work on the same arrays, are checked before they are timed, and take turns, one timing each per round, so
that a disturbance of the machine meets all of them; what counts is the median of the rounds. Imports, set-up, compilation and
the first calls are in no timing.
"""

from __future__ import annotations

import math
import multiprocessing
import random
import signal
import statistics
import time
import timeit
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastsig.bench import machine, peers
from fastsig.bench.cases import MEBI, Arrays, Case, check, make_arrays, unsupported
from fastsig.bench.peers import ALWAYS, Peer
from fastsig.bench.results import Results, Row

TIMING = 1e-3  # seconds: a shorter timing is repeated until it takes as long
PATIENCE = 120.0  # seconds without a sign of life after which a peer is given up
DEATHS = 2  # functions in which a peer may bring the process down before it is left out of all
GRACE = 10.0  # seconds in which an interrupted case is to be brought to an end
BRIEF = "sigmoid"  # the function in which a quick run waits for every peer
NOBODY = -1
STOP, PEER, PULSE = range(3)  # shared words: whether to stop; the number of the peer at work; a count of what it has done
Signs = Any  # of them, an array in shared memory
Advance = Callable[[float, str], None]


@dataclass(frozen=True)
class Plan:
    least: int  # rounds
    most: int
    seconds: float  # for one case, once it has had the least number of rounds
    limit: float  # seconds after which no further case is begun


QUICK = Plan(3, 15, 0.1, 12)
FULL = Plan(5, 41, 0.6, 490)


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


# --- the worker --------------------------------------------------------------------------------------------------------


def work(request: Request, sender: Any, signs: Signs) -> None:
    """Measure, and send what comes of it: each message is a name and its value."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides

    def tell(kind: str, value: Any) -> None:
        sender.send((kind, value))

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
    if request.machine:
        tell("machine", machine.described(request.threads))
        tell("limits", machine.limits(request.threads, request.quick, lambda seconds, what: tell("advance", (seconds, what))))
        for size in {*(machine.QUICK if request.quick else machine.FULL)} - {*machine.fitting(request.quick)}:
            tell("skipped", (f"the machine's limits at {size:,} elements", "not enough memory"))
    begin = time.perf_counter()
    for number, case in enumerate(request.cases):
        if signs[STOP]:
            break
        tell("begin", number)
        over = time.perf_counter() - begin > request.plan.limit
        why = "no time left" if over else impossible(case)
        if why:
            tell("skipped", (case.label, why))
        else:
            try:
                measure(case, present, request, tell, signs)
            except Exception as error:  # not of a peer's making: no memory, no input
                tell("skipped", (case.label, in_words(error)))
        tell("advance", (estimate(case, request.plan), case.label))
    tell("end", None)


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
    """About how many seconds it takes."""
    return plan.seconds + case.size * 60e-9 * plan.least


def measure(case: Case, present: Sequence[Peer], request: Request, tell: Callable[[str, Any], None], signs: Signs) -> None:
    """Time every peer in one case; what is measured when it is interrupted is told as well.

    In place, a function is applied to its own results over and over; those that would end in somebody's slow case are not
    measured so.
    """
    arrays = make_arrays(case)
    declined = {peer.name: reason(peer, case, request) for peer in present}
    taking = [peer for peer in present if not declined[peer.name]]
    with ExitStack() as stack:
        stack.enter_context(np.errstate(all="ignore"))
        errors = limited(taking, case.threads, stack, signs)
        timers = prepared([peer for peer in taking if peer.name not in errors], arrays, errors, signs)
        samples = turns(timers, errors, request.plan, signs)
    signs[PEER] = NOBODY
    for name, why in declined.items():
        if why:
            tell("declined", (name, why))
    for peer in taking:
        name, traffic = peer.name, case.traffic(copied=peer.name == "copy")
        if name in errors:
            tell("row", Row(case, name, None, None, 0, 0, traffic, errors[name]))
        elif taken := samples.get(name):
            middle = statistics.median(taken)
            spread = statistics.median(abs(t - middle) for t in taken)
            tell("row", Row(case, name, middle, spread, len(taken), timers[name][1], traffic))


def reason(peer: Peer, case: Case, request: Request) -> str:
    """Why a peer doesn't take part in a case, or nothing."""
    if (peer.name, case.function) in request.without:
        return f"not tried again in {case.function}"
    if request.quick and peer.compiles and case.function != BRIEF:
        return f"compiles for long, so that a quick run has it in {BRIEF} alone"
    return peer.declines(case)


Timers = dict[str, tuple[timeit.Timer, int]]


def limited(taking: Iterable[Peer], threads: int, stack: ExitStack, signs: Signs) -> dict[str, str]:
    """Tell all peers how many threads to use; who can't, and why."""
    errors = {}
    for peer in taking:
        if peer.threads:
            signs[PEER] = number_of(peer)
            try:
                stack.enter_context(peer.threads(threads))
            except Exception as failure:
                errors[peer.name] = in_words(failure)
    return errors


def prepared(taking: Iterable[Peer], arrays: Arrays, errors: dict[str, str], signs: Signs) -> Timers:
    """Timers of the peers, compiled, warm and checked, with their numbers of repeats; what goes wrong goes into `errors`."""
    timers = {}
    for peer in taking:
        if signs[STOP]:
            break
        signs[PEER] = number_of(peer)
        try:
            call = peer.prepare(arrays.case.function, arrays)
            error = "" if peer.name == "copy" else check(call, arrays, peer.as_array)  # a copy isn't the function
            if not error:
                timer = timeit.Timer(call)
                timers[peer.name] = timer, calibrated(timer)
        except Exception as failure:  # whatever a peer raises is its own row's business
            error = in_words(failure)
        signs[PULSE] += 1
        if error:
            errors[peer.name] = error
    return timers


def calibrated(timer: timeit.Timer) -> int:
    """How many calls make one timing."""
    repeats = 1
    while (taken := timer.timeit(repeats)) < TIMING:
        repeats = max(2 * repeats, math.ceil(repeats * min(10.0, TIMING / taken)))
    return repeats


def turns(timers: Timers, errors: dict[str, str], plan: Plan, signs: Signs) -> dict[str, list[float]]:
    """The times of the rounds, each in an order of its own, so that none always follows the same one."""
    begin, order = time.perf_counter(), list(timers)
    samples: dict[str, list[float]] = {name: [] for name in order}
    numbers = {name: number_of(peers.named(name)) for name in order}
    for done in range(plan.most):
        if done >= plan.least and time.perf_counter() - begin > plan.seconds:
            break
        random.Random(done).shuffle(order)
        for name in tuple(order):
            if signs[STOP]:
                return samples
            timer, repeats = timers[name]
            signs[PEER] = numbers[name]
            try:
                samples[name].append(timer.timeit(repeats) / repeats)
            except Exception as failure:
                errors[name] = in_words(failure)
                order.remove(name)
            signs[PULSE] += 1
    return samples


def in_words(failure: Exception) -> str:
    return " ".join(f"{type(failure).__name__}: {failure}".split())[:300]


# --- the first process -------------------------------------------------------------------------------------------------


def run(request: Request, results: Results, advance: Advance) -> None:
    """Fill `results`. Where a worker dies, its peer's row says so, and another goes on with that peer left out."""
    deadline = time.monotonic() + request.plan.limit
    while request.cases or request.machine:
        done = attended(request, results, advance)
        if done is None:
            return
        deadline = max(deadline, time.monotonic() + request.plan.limit / 2)  # a death costs the others no time
        request = replace(done, plan=replace(request.plan, limit=max(0.0, deadline - time.monotonic())))


def attended(request: Request, results: Results, advance: Advance) -> Request | None:
    """What is still to be done once a worker has ended, if anything.

    On KeyboardInterrupt the worker is given a moment to hand in what it has, and the exception goes on.
    """
    context = multiprocessing.get_context("spawn")  # nothing of ours in it: no threads, no OpenMP runtime
    receiver, sender = context.Pipe(duplex=False)
    signs = context.RawArray("q", [0, NOBODY, 0])
    worker = context.Process(target=work, args=(request, sender, signs), daemon=True)
    reached = Reached()
    with stopped(worker, receiver, signs, lambda message: reached.take(message, results, advance)):
        worker.start()
        sender.close()
        error = listen(worker, receiver, signs, lambda message: reached.take(message, results, advance))
    if reached.ended:
        return None
    guilty = None if signs[PEER] == NOBODY else peers.ALL_PEERS[signs[PEER]].name
    if reached.case is not None:
        return past(request, request.cases[reached.case], guilty, error, results)
    if guilty:  # while it was imported
        results.peers[guilty] = f"not usable: its import {error}"
        return replace(request, peers=[name for name in request.peers if name != guilty])
    if not request.machine:
        raise RuntimeError(f"the benchmark's process {error} before it came to the first case")
    results.skip("the machine's limits", f"the process {error}")
    return replace(request, machine=False)


def past(request: Request, case: Case, guilty: str | None, error: str, results: Results) -> Request:
    """What is still to be done after the death of a worker in the middle of a case."""
    rest = request.cases[request.cases.index(case) :]
    if guilty is None:
        results.skip(case.label, f"the process {error}")
        return replace(request, cases=rest[1:], machine=False)
    results.add(Row(case, guilty, None, None, 0, 0, case.traffic(), f"the process {error}"))
    without = request.without | {(guilty, case.function)}
    if sum(name == guilty for name, _ in without) >= DEATHS:
        without |= {(guilty, other.function) for other in rest}
    return replace(request, cases=rest, machine=False, without=without)


@dataclass
class Reached:
    """How far a worker has come."""

    case: int | None = None
    ended: bool = False

    def take(self, message: tuple[str, Any], results: Results, advance: Advance) -> None:
        kind, value = message
        if kind == "peer":
            results.peers.setdefault(*value)
        elif kind in ("machine", "limits"):
            setattr(results, kind, value)
        elif kind == "begin":
            self.case = value
        elif kind == "row":
            results.rows.setdefault((value.case, value.peer), value)
        elif kind == "skipped":
            results.skip(*value)
        elif kind == "declined":
            peer, why = value
            those = results.declined.setdefault(why, {})
            those[peer] = those.get(peer, 0) + 1
        elif kind == "advance":
            advance(*value)
        elif kind == "end":
            self.ended = True


def listen(worker: Any, receiver: Any, signs: Signs, take: Callable[[tuple[str, Any]], None]) -> str:
    """Take the worker's messages until it has ended or fallen silent; how it ended, if it didn't say that it had done."""
    pulse, heard = signs[PULSE], time.monotonic()
    while True:
        try:
            if receiver.poll(0.5):
                take(receiver.recv())
                heard = time.monotonic()
            elif signs[PULSE] != pulse:
                pulse, heard = signs[PULSE], time.monotonic()
            elif time.monotonic() - heard > PATIENCE:
                worker.kill()
                worker.join()
                return f"gave no answer in {PATIENCE:g} s"
        except (EOFError, OSError):
            worker.join()
            code = worker.exitcode
            return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


@contextmanager
def stopped(worker: Any, receiver: Any, signs: Signs, take: Callable[[tuple[str, Any]], None]) -> Iterator[None]:
    """The worker, at an end whatever happens; interrupted, it brings its last case in."""
    try:
        yield
    except KeyboardInterrupt:
        signs[STOP] = 1
        until = time.monotonic() + GRACE
        try:
            while time.monotonic() < until:
                if receiver.poll(0.1):
                    take(receiver.recv())
        except (EOFError, OSError):
            pass
        raise
    finally:
        if worker.is_alive():
            worker.kill()
        if worker.pid:
            worker.join()
        receiver.close()


def estimated(request: Request) -> float:
    """About how many seconds it all takes."""
    return sum(estimate(case, request.plan) for case in request.cases)
