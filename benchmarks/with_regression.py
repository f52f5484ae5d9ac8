"""Logistic regression on a Dask cluster: `python benchmarks/with_regression.py evaluation|larger`, `--json FILE` keeps it.

`evaluation` times one loss with its gradient, of rows in the workers' memory, against the same written with NumPy: as a
function of a block, in as few passes as NumPy has, and as Dask array expressions. The three take turns, after their results are
compared.

`larger` fits data that are larger than the workers' memory, made anew, block by block, at each evaluation; the workers' memory
is limited, and its peak shown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster, wait

import fastsig
from fastsig import console, regression
from fastsig.bench.machine import cpu
from fastsig.bench.results import human_time
from fastsig.interop import dask_linear

Array = np.ndarray[Any, np.dtype[Any]]
Evaluation = Callable[[Array], Array]  # of coefficients, the last of them the intercept: the loss, and its gradient

MEBIBYTE = 1 << 20
FEATURES = 64  # of what is larger than memory
BLOCK = 1 << 18  # its rows in a block: 64 MiB


@contextmanager
def cluster(workers: int, limit: str | int = 0) -> Iterator[Client]:
    """Processes of one thread each."""
    with (
        LocalCluster(workers, threads_per_worker=1, memory_limit=limit, dashboard_address=":0") as processes,
        Client(processes) as client,
    ):
        yield client


def described(workers: int) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "dask", "distributed"))
    return (
        f"{cpu()}, {workers} worker{'s' if workers > 1 else ''} of one thread, Python {platform.python_version()}, {versions}"
    )


def made(rows: int, features: int, block_info: Any = None) -> Array:
    """A block of features in [-1/2, 1/2), by its number: the same each time."""
    raw = np.random.SFC64(block_info[None]["chunk-location"][0]).random_raw(-(-rows * features // 4))
    whole = raw.view(np.int16)[: rows * features].reshape(rows, features)  # four of each
    return np.asarray(np.multiply(whole, np.float32(2**-16), dtype=np.float32))


def truth(features: int) -> Array:
    return np.linspace(-2, 2, features)


def labelled(x: Array, block_info: Any = None) -> Array:
    random = np.random.Generator(np.random.SFC64([1, block_info[None]["chunk-location"][0]]))
    probability = fastsig.sigmoid(x @ truth(x.shape[1]).astype(np.float32) - np.float32(0.25))
    return np.asarray(random.random(len(x), np.float32) < probability)


def generated(blocks: int, rows: int, features: int) -> tuple[Any, Any]:
    """Rows and their labels, nothing of it computed."""
    x = da.map_blocks(
        made, rows, features, chunks=((rows,) * blocks, (features,)), dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    return x, x.map_blocks(labelled, drop_axis=1, dtype=bool, meta=np.empty(0, bool))


# --- one evaluation ------------------------------------------------------------------------------------------------------


def by_numpy(x: Array, y: Array, coefficients: Array) -> Array:
    """A block's loss and gradient, as well as NumPy does it: in float32, in place, and with one exponential."""
    z = x @ coefficients[:-1].astype(np.float32)
    z += np.float32(coefficients[-1])
    e = np.abs(z)
    np.negative(e, out=e)
    np.exp(e, out=e)
    loss = np.log1p(e)
    loss += np.maximum(z, 0)
    loss -= np.where(y, z, 0)
    total = loss.sum(dtype=np.float64)
    np.divide(np.where(z >= 0, np.float32(1), e), e + 1, out=z)
    z -= y
    return np.asarray(np.concatenate([[total], z @ x, [z.sum(dtype=np.float64)]])[None])


def evaluations(x: Any, y: Any) -> dict[str, Evaluation]:
    data = dask_linear.Data(x, y, None, None)

    def ours(coefficients: Array) -> Array:
        blocks = np.stack(data.evaluate(True, coefficients))
        return np.asarray(blocks.sum(axis=(0, 2)))

    def blocks_by_numpy(coefficients: Array) -> Array:
        results = da.blockwise(
            by_numpy, "ik", x, "ik", y, "i", coefficients=coefficients, align_arrays=False,
            adjust_chunks={"i": 1, "k": len(coefficients) + 1}, meta=np.empty((0, 0)),
        )  # fmt: skip
        return np.asarray(np.concatenate(dask.compute(*results.to_delayed().ravel())).sum(axis=0))

    def expressions(coefficients: Array) -> Array:
        z = x @ coefficients[:-1].astype(np.float32) + np.float32(coefficients[-1])
        loss = (da.maximum(z, 0) - da.where(y, z, 0) + da.log1p(da.exp(-abs(z)))).sum(dtype=np.float64)
        slope = 1 / (1 + da.exp(-z)) - y
        return np.hstack(dask.compute(loss, x.T @ slope, slope.sum(dtype=np.float64)))

    return {"fastsig": ours, "NumPy, a function of a block": blocks_by_numpy, "Dask array expressions": expressions}


def evaluation(rows: int, features: int, blocks: int, rounds: int) -> dict[str, Any]:
    with cluster(2):
        x, y = dask.persist(*generated(blocks, rows // blocks, features))
        wait([x, y])
        ways = evaluations(x, y)
        coefficients = np.append(truth(features) / 2, 0.1)
        results = [way(coefficients) for way in ways.values()]
        for name, result in zip(ways, results, strict=True):
            if not np.allclose(result, results[0], rtol=1e-4, atol=1e-4 * rows):
                raise AssertionError(f"{name}: {result} is not {results[0]}")
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for k in range(rounds):
            for name, way in ways.items():
                begin = time.perf_counter()
                way(coefficients + 0.01 * (k + 1))  # others each time: Dask knows a result that it still has
                taken[name].append(time.perf_counter() - begin)
    seconds = {name: statistics.median(times) for name, times in taken.items()}
    return {
        "rows": rows,
        "features": features,
        "blocks": blocks,
        "rounds": rounds,
        "seconds": seconds,
        "processors_busy": os.getloadavg()[1],
        "machine": described(2),
    }


# --- larger than memory --------------------------------------------------------------------------------------------------


def peak() -> int:
    """The most memory that this process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def larger(gigabytes: float, limit: str, tol: float) -> dict[str, Any]:
    blocks = int(np.ceil(gigabytes * 1e9 / (BLOCK * FEATURES * 4)))
    times: list[float] = []

    class Timed(dask_linear.Data):
        def evaluate(self, positive: Any, coefficients: Array) -> Any:
            begin = time.perf_counter()
            try:
                return super().evaluate(positive, coefficients)
            finally:
                times.append(time.perf_counter() - begin)
                print(f"evaluation {len(times)}: {human_time(times[-1])}", file=sys.stderr)

    with cluster(2, limit) as client:
        x, y = generated(blocks, BLOCK, FEATURES)
        begin = time.perf_counter()
        data = Timed(x, y, None, None)
        classes, weight = data.survey()
        function = regression.objective(lambda w: data.evaluate(classes[1], w), weight, 1 / weight, True)
        with console.progress("fitting", 100) as advance:
            found = regression.minimize(function, FEATURES + 1, tol, 100, advance)
        seconds = time.perf_counter() - begin
        peaks = list(client.run(peak).values())
    return {
        "gigabytes": x.nbytes / 1e9,
        "rows": x.shape[0],
        "features": FEATURES,
        "blocks": blocks,
        "limit": limit,
        "tol": tol,
        "seconds": seconds,
        "processors_busy": os.getloadavg()[1],
        "evaluations": len(times),
        "seconds_each": statistics.median(times),
        "iterations": found.iterations,
        "trouble": found.trouble,
        "furthest_from_truth": float(abs(found.coefficients[:-1] - truth(FEATURES)).max()),
        "peak_mebibytes": [kibibytes / 1024 for kibibytes in peaks],
        "machine": described(2),
    }


# --- the command ---------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("evaluation", "larger"))
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--blocks", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--gigabytes", type=float, default=20.2)
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--limit", default="1GiB", help="of a worker's memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results there")
    args = parser.parse_args()
    found: Any
    if args.what == "evaluation":
        found = [evaluation(args.rows, args.features, blocks, args.rounds) for blocks in args.blocks]
        rows = [
            [f"{one['blocks']} blocks", name, human_time(s), f"{s / one['seconds']['fastsig']:.2f}"]
            for one in found
            for name, s in one["seconds"].items()
        ]
        console.table("One evaluation", ("rows in", "by", "time", "over fastsig's"), rows)
    else:
        found = larger(args.gigabytes, args.limit, args.tol)
        console.table("Larger than memory", ("what", "how much"), [[key, str(value)] for key, value in found.items()])
    if args.json:
        kept = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else {}
        args.json.write_text(json.dumps({**kept, args.what: found}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
