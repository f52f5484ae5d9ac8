"""The first process: it has workers measure, attends to them, and fills the results, whatever becomes of a worker."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fastsig.bench import ahead, peers
from fastsig.bench.cases import Case
from fastsig.bench.machine import Advance
from fastsig.bench.results import Results, Row
from fastsig.bench.worker import NOBODY, PEER, PULSE, STOP, Request, Signs, estimate, work

PATIENCE = 120.0  # seconds without a sign of life after which a peer is given up
DEATHS = 2  # functions in which a peer may bring the process down before it is left out of all
GRACE = 10.0  # seconds in which an interrupted case is to be brought to an end


def run(request: Request, results: Results, advance: Advance) -> None:
    """Fill `results`. Where a worker dies, its peer's row says so, and another goes on with that peer left out."""
    deadline = time.monotonic() + request.plan.limit
    ahead.compiled(request.cases, request.quick, advance)
    request = replace(request, plan=replace(request.plan, limit=deadline - time.monotonic()))
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
            results.add(value)  # again, if it was visited again
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
