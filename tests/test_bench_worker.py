"""How the benchmark measures: the sentinel sees who else is there, and what was disturbed is measured again, in time."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from fastsig.bench import machine, peers, sentinel
from fastsig.bench.cases import Case
from fastsig.bench.sentinel import CALM, Sample, Sentinel
from fastsig.bench.worker import NOBODY, STOP, VISITS, Plan, Request, Visit, Worker

pytest.importorskip("sklearn", reason="the benchmark's input is made with scikit-learn")

SIZE = 1000


def timings(best, *loops):
    """Samples that took 1, 2, 3 and so on, with the sentinel's loops so many times its best."""
    return [Sample(float(k), best * loop, 0.0) for k, loop in enumerate(loops, 1)]


def test_calm_timings_count():
    it = Sentinel()
    it.look()
    assert 0 < it.best < 1
    found = it.typical(timings(it.best, 1, 2, 1.05, 1.2, 1, 3))
    assert (found.seconds, found.spread, found.calm) == (3, 2, 3)
    found = it.typical(timings(it.best, 1, 2, 2, 1.2, 1, 3))
    assert (found.seconds, found.spread, found.calm) == (3.5, 1.5, 2)  # too few: all of them
    assert not it.calm(Sample(1.0, it.best, 0.5))
    it.best /= 2  # what is known by now
    assert it.count(timings(it.best, 1, 2, 1, 2)) == 2


@pytest.mark.skipif(sentinel.accounts() is None, reason="the system doesn't say for how long a thread waits")
def test_waiting_for_a_processor_is_seen(python):
    """Two programs on one processor: each waits for the other."""
    code = """if True:
        import os, subprocess, sys, time
        from fastsig.bench.sentinel import waited
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        before, end = waited(), time.monotonic() + 60
        while waited() - before < 0.02 and time.monotonic() < end:
            pass
        print(waited() - before >= 0.02)
        other.kill()
        other.wait()
    """
    assert python(code) == "True"


def test_settle_waits_for_threads_that_spin(monkeypatch):
    monkeypatch.setattr(sentinel, "SPINNING", 60.0)
    spun = []

    def spin():
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        spun.append(True)

    def settled():
        spun.clear()
        thread = threading.Thread(target=spin)
        thread.start()
        sentinel.settle()
        done = bool(spun)
        thread.join()
        return done

    assert any(settled() for _ in range(20))  # where others keep the processors busy, a pause may see nothing of it


class Nervous(Sentinel):
    """Disturbed by everything, until it has calmed down."""

    nervous = True

    def calm(self, sample):
        return not self.nervous


def measuring(cases, plan, names=("fastsig", "numpy"), sentinel=None):
    """A worker, and what it tells."""
    told = []
    present = [peers.named(name) for name in names]
    request = Request(cases, names, plan, 1, True)
    return Worker(request, present, lambda *it: told.append(it), [0, NOBODY, 0], sentinel or Sentinel()), told


def rows_of(told):
    return [value for kind, value in told if kind == "row"]


def test_who_was_disturbed_is_visited_again():
    case, plan = Case("sigmoid", "float32", SIZE, 1), Plan(3, 5, 0.0, 0.0, 60)
    it, told = measuring([case], plan, sentinel=Nervous())
    it.all_cases(time.perf_counter() + 60)
    first = rows_of(told)
    assert {row.peer for row in first} == {"fastsig", "numpy"}
    assert all((row.calm, row.disturbed, row.rounds) == (0, True, 3) for row in first)
    told.clear()
    it.sentinel.nervous = False
    it.visits[case].samples["numpy"].clear()  # fastsig has enough, by what is known now
    it.again(time.perf_counter() - 1)
    assert told == []  # no time left
    it.again(time.perf_counter() + 60)
    (again,) = rows_of(told)
    assert (again.peer, again.calm, again.disturbed) == ("numpy", 3, False)
    told.clear()
    it.again(time.perf_counter() + 60)
    assert told == []  # all are calm


def test_samples_of_all_visits_count():
    case, plan = Case("sigmoid", "float32", SIZE, 1), Plan(3, 5, 0.0, 0.0, 60)
    it, told = measuring([case], plan, sentinel=Nervous())
    it.all_cases(time.perf_counter() + 60)
    it.again(time.perf_counter() + 60)
    assert [row.rounds for row in rows_of(told)] == [3 * visit for visit in range(1, VISITS + 2) for _ in it.present]


def test_an_interrupted_visit_keeps_what_was_told():
    case, plan = Case("sigmoid", "float32", SIZE, 1), Plan(3, 5, 0.0, 0.0, 60)
    it, told = measuring([case], plan, sentinel=Nervous())
    it.all_cases(time.perf_counter() + 60)
    first = rows_of(told)
    told.clear()
    it.signs[STOP] = 1
    it.measure(case, plan)
    it.again(time.perf_counter() + 60)
    assert rows_of(told) == first


def test_what_counted_as_calm_is_told_again_when_it_no_longer_does():
    case, plan = Case("sigmoid", "float32", SIZE, 1), Plan(3, 5, 0.0, 0.0, 60)
    it, told = measuring([case], plan, ("numpy",), Nervous())
    it.sentinel.nervous = False
    it.all_cases(time.perf_counter() + 60)
    it.sentinel.nervous = True
    it.tell_all()
    before, after = rows_of(told)
    assert (before.calm, after.calm) == (3, 0)
    assert before == dataclasses.replace(after, calm=3)


def test_rounds_go_on_while_a_peer_lacks_calm_ones():
    it, _ = measuring([], Plan(3, 9, 1.0, 2.0, 60))
    it.sentinel.look()
    calm, disturbed = timings(it.sentinel.best, *[1] * CALM), timings(it.sentinel.best, *[2] * CALM)
    plan, quiet, loud = it.request.plan, Visit({"numpy": calm}), Visit({"numpy": calm, "torch": disturbed})
    assert [it.enough(done, spent, plan, quiet) for done, spent in ((0, 0.0), (2, 1.5), (3, 0.9), (3, 1.1))] == [0, 0, 0, 1]
    assert [it.enough(done, spent, plan, loud) for done, spent in ((3, 1.1), (3, 2.1))] == [0, 1]
    loud.errors["torch"] = "gone"
    assert it.enough(3, 1.1, plan, loud)


def test_few_rounds_are_enough_where_they_are_long():
    it, _ = measuring([], Plan(5, 9, 1.0, 2.0, 60))
    assert [it.enough(done, 1.5 * done, it.request.plan, Visit()) for done in (1, 2, 3)] == [0, 0, 1]
    assert [it.enough(done, 0.9 * done, it.request.plan, Visit()) for done in (3, 4, 5)] == [0, 0, 1]


@pytest.mark.skipif(machine.free_memory() is None, reason="the system doesn't say how much memory is free")
def test_every_case_has_its_time():
    """Where there isn't enough for all, each has less of it; one that there isn't the memory for takes none."""
    huge, *cases = [Case("sigmoid", "float32", size, 1) for size in (10**15, 10, 20, 30, 40)]
    it, told = measuring([huge, *cases], Plan(3, 10**9, 60.0, 60.0, 60))
    it.all_cases(time.perf_counter() + 4)
    ((label, why),) = [value for kind, value in told if kind == "skipped"]
    assert label == huge.label
    assert "MiB of memory" in why
    assert {row.case for row in rows_of(told)} == {*cases}
    assert min(row.rounds for row in rows_of(told)) > 3


def test_what_is_not_begun_says_so():
    it, told = measuring([Case("sigmoid", "float32", 10, 1)], Plan(3, 5, 0.1, 0.1, 60))
    it.all_cases(time.perf_counter() - 1)
    assert ("skipped", ("sigmoid float32, 10, 1 thread", "no time left")) in told
    assert rows_of(told) == []


@pytest.mark.slow
def test_loops_are_compiled_ahead(python, tmp_path):
    """By other processes, into the cache; a loop that can't be is no reason to stop."""
    tmp_path.chmod(0o700)
    code = """if True:
        from fastsig.bench import ahead, moving
        from fastsig.bench.cases import Case
        moving.STREAMS = ((7, 7),)
        ahead.compiled([Case("tanh_derivative", "float32", 10, 1)], False, lambda seconds, what: None)
    """
    python(code, FASTSIG_CACHE_DIR=tmp_path)
    assert [path.name.rsplit("-", 1)[0] for path in tmp_path.glob("*.o")] == ["tanh_derivative-float32"]
