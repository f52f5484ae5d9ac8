"""What fastsig costs on Dask's arrays, beyond what Dask costs: `python benchmarks/with_dask.py` prints it.

First, the processor time of a chunk in which there is next to nothing to compute: of `fastsig.sigmoid`, against
`dask.array.exp`, and that against itself, which tells how far two equal ones lie apart here. Processor time, for it is what the
chunk costs, whatever else the machine has to do. Then, how many threads there are, and what they do.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import distributed
import numpy as np

import fastsig
from fastsig import console
from fastsig.bench.machine import cpu, processors
from fastsig.interop import dask as fd

Work = Callable[[], Any]


# --- a chunk's overhead --------------------------------------------------------------------------------------------------

WAYS: dict[str, Callable[[Any], Any]] = {
    "dask.array.exp": da.exp,
    "dask.array.exp, again": lambda x: da.exp(x),
    "fastsig.sigmoid": lambda x: fastsig.sigmoid(x),
    "fastsig.interop.dask.sigmoid": fd.sigmoid,
    "fastsig.interop.dask.tanh_value_and_grad": fd.tanh_value_and_grad,
}
FIRST = next(iter(WAYS))


def chunks_of(count: int, size: int) -> Any:
    return da.from_array(np.random.default_rng(0).normal(size=count * size).astype(np.float32), chunks=size).persist()


def in_turn(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each, round by round, beginning with another one each time; a first round isn't counted."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for k in range(rounds + 1):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            begin = time.process_time()
            works[name]()
            if k:
                taken[name].append(time.process_time() - begin)
    return taken


def persisted(way: Callable[[Any], Any], x: Any) -> Any:
    return dask.persist(way(x))


def overhead(count: int, size: int, rounds: int) -> list[list[str]]:
    """Rows: building a graph and computing it, per chunk, and how much more than the first way in the same round."""
    x = chunks_of(count, size)
    built = {name: partial(way, x) for name, way in WAYS.items()}
    done = {name: partial(persisted, way, x) for name, way in WAYS.items()}
    graphs, times = in_turn(built, rounds), in_turn(done, rounds)
    rows = []
    for name, seconds in times.items():
        more = sorted(1e6 * (s - first) / count for s, first in zip(seconds, times[FIRST], strict=True))
        low, middle, high = statistics.quantiles(more, n=4)
        rows.append(
            [
                name,
                f"{1e3 * statistics.median(graphs[name]):.2f} ms",
                f"{1e6 * statistics.median(seconds) / count:.1f} µs",
                "" if name == FIRST else f"{middle:+.1f} µs ({low:+.1f} to {high:+.1f})",
            ]
        )
    return rows


# --- threads -------------------------------------------------------------------------------------------------------------


@contextmanager
def watching() -> Iterator[dict[str, float]]:
    """How many threads of this process there were at most, and were running at once on average; Linux tells."""
    found, over = {"threads": 0.0, "running": 0.0}, threading.Event()

    def look() -> None:
        running, looks, me = 0, 0, str(threading.get_native_id())
        while not over.wait(0.002):
            states = [state_of(task) for task in os.listdir("/proc/self/task") if task != me]
            found["threads"] = max(found["threads"], len(states))
            running, looks = running + states.count("R"), looks + 1
            found["running"] = running / looks

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def state_of(task: str) -> str:
    try:
        return Path(f"/proc/self/task/{task}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


def threads_at_work(count: int, rounds: int) -> list[list[str]]:
    """Rows: large chunks on Dask's threads, fastsig's own as they are and one for each."""
    x = chunks_of(count, 1 << 20)
    rows = []
    for label, threads in (("as they are", fastsig.get_num_threads()), ("num_threads(1)", 1)):
        with fastsig.num_threads(threads), dask.config.set(scheduler="threads", num_workers=processors()):
            taken, busy = [], []
            for k in range(rounds + 1):
                with watching() as found:
                    begin, used = time.perf_counter(), time.process_time()
                    total = fastsig.sigmoid(x).sum().compute()
                    seconds, used = time.perf_counter() - begin, time.process_time() - used
                assert 0 < total < x.size
                if k:
                    taken.append(seconds)
                    busy.append(used / seconds)
        rows.append(
            [
                label,
                f"{1e3 * statistics.median(taken):.0f} ms",
                f"{statistics.median(busy):.2f}",
                f"{found['running']:.2f}",
                f"{found['threads']:.0f}",
            ]
        )
    return rows


def threads_of_a_worker() -> list[str]:
    """How many a large call adds to those of a worker."""
    x = np.zeros(1 << 22, np.float32)
    fastsig.sigmoid(x[:10])
    before = len(os.listdir("/proc/self/task"))
    fastsig.sigmoid(x)
    added = len(os.listdir("/proc/self/task")) - before
    return [os.environ.get("OMP_NUM_THREADS", "not set"), str(fastsig.get_num_threads()), str(added)]


@contextmanager
def cluster(processes: int) -> Iterator[Any]:
    with (
        tempfile.TemporaryDirectory() as directory,
        distributed.LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=directory,
        ) as it,
        distributed.Client(it, set_as_default=False) as client,
    ):
        yield client


# --- the runner ----------------------------------------------------------------------------------------------------------


def described() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "dask", "distributed"))
    return f"{cpu()}, {processors()} processors, Python {platform.python_version()}, {versions}, load {os.getloadavg()[0]:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--chunks", type=int, default=1000)
    parser.add_argument("--size", type=int, default=1000, help="elements of a chunk (default: 1,000)")
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()
    print(described())
    for scheduler in ("sync", "threads"):
        with dask.config.set(scheduler=scheduler):
            rows = overhead(args.chunks, args.size, args.rounds)
        title = f"{args.chunks:,} chunks of {args.size:,} float32, scheduler {scheduler}"
        console.table(title, ("", "graph built", "a chunk", "more than the first"), rows)
    if sys.platform == "linux":
        columns = ("fastsig's threads", "48 Mi float32", "processors used", "threads running", "threads at most")
        console.table("on Dask's threads", columns, threads_at_work(48, max(args.rounds // 3, 3)))
        with cluster(processors()) as client:
            rows = [[str(k), *facts] for k, facts in enumerate(client.run(threads_of_a_worker).values())]
        console.table("on a cluster", ("worker", "OMP_NUM_THREADS", "threads used", "threads started"), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
