"""What a bug report needs: the command `info`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module, metadata
from typing import Any

import numpy as np

import fastsig

PACKAGES = ("numpy", "numba", "llvmlite", "ml_dtypes", "scipy", "scikit-learn", "torch", "jax", "threadpoolctl")
VARIABLES = ("FASTSIG_", "OMP_", "GOMP_", "KMP_", "NUMBA_", "MKL_", "OPENBLAS_", "NPY_", "LD_PRELOAD", "XDG_CACHE_HOME")
OPENMP = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT")  # what runtimes take a number of threads from
# The sigmoid of some numbers, by its bits: a subnormal result, both sides of zero, 1 before its limit, and the limits. That of
# 0.5 isn't the nearest float32 (it is 0.65 units off): it tells our own arithmetic from another that is right as well.
ANSWERS = {
    -100.0: 0x0000001B,
    -1.0: 0x3E89B2B1,
    0.0: 0x3F000000,
    0.5: 0x3F1F597E,
    20.0: 0x3F800000,
    -np.inf: 0x00000000,
    np.inf: 0x3F800000,
}
SHARED = 100_000  # elements: enough for all threads to have a part in the answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--startup", action="store_true", help="where the time to a first result goes, instead")


def run(args: argparse.Namespace) -> int:
    """The exit status is 1 where the check of the package itself fails: a container's build may rely on it."""
    if args.startup:
        import_module("fastsig.bench.startup").show()
        return 0
    facts = info()
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            for k, line in enumerate(lines(value)):
                print(f"{name if k == 0 else '':{width}}  {line}")
    return 0 if facts["self-check"] == "healthy" else 1


def lines(value: str | Sequence[str] | Mapping[str, str]) -> Sequence[str]:
    if isinstance(value, str):
        return [value]
    return ([f"{name}={text}" for name, text in value.items()] if isinstance(value, Mapping) else value) or ["none"]


def info() -> dict[str, Any]:
    """Everything by its name: text, or a list of it, or for the environment what is set.

    What can't be found out says why: a report is wanted most where something is broken.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")  # they belong into the report, too
        first = {"fastsig": fastsig.__version__, "self-check": attempted(health)}
        facts = {name: attempted(fact) for name, fact in FACTS.items()}
    versions = {package: version(package) for package in PACKAGES} | {"python": python(), "platform": platform.platform()}
    return first | {"warnings": [str(it.message) for it in said]} | versions | facts | {"environment": environment()}


def attempted(fact: Callable[[], str]) -> str:
    try:
        return fact()
    except Exception as error:
        return f"unknown: {type(error).__name__}: {error}"


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def python() -> str:
    free = not getattr(sys, "_is_gil_enabled", lambda: True)()  # before 3.13 nobody asked
    return f"{platform.python_version()} ({platform.python_implementation()}{', free-threaded' if free else ''})"


def health() -> str:
    """One large call, compared with what is known, bit for bit."""
    x = np.resize(np.array([*ANSWERS], np.float32), SHARED)
    want = np.resize(np.array([*ANSWERS.values()], np.uint32), SHARED)
    causes: list[BaseException | None] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda it: causes.append(it.exc_value)  # a loop has no way to raise
    try:
        with np.errstate(all="ignore"):
            y = fastsig.sigmoid(x)
    finally:
        sys.unraisablehook = hook
    wrong = np.flatnonzero(y.view(np.uint32) != want)
    if not wrong.size:
        return "healthy"
    if causes:
        return f"unhealthy: {type(causes[0]).__name__}: {causes[0]}"
    first = wrong[0]
    return f"unhealthy: {wrong.size:,} of {SHARED:,} results are wrong, the first is sigmoid({x[first]}) = {y[first]!r}"


# --- the machine ---------------------------------------------------------------------------------------------------------


def processor() -> str:
    from fastsig import compiler
    from fastsig.bench.machine import cpu

    return f"{compiler.target().cpu} ({cpu()})"


def instructions() -> str:
    from fastsig import compiler

    return compiler.target().instructions


def caches() -> str:
    from fastsig.bench import machine

    return ", ".join(f"{level} {size >> 10:,} KiB" for level, size in machine.caches().items()) or "unknown"


def processors() -> str:
    from fastsig.bench.machine import processors

    return f"{processors()} for this process, of {os.cpu_count()}"


# --- threads -------------------------------------------------------------------------------------------------------------


def threads() -> str:
    return str(fastsig.get_num_threads())


def threads_from() -> str:
    """What the number of threads follows, the strongest first."""
    from fastsig import parallel

    if parallel.get_num_threads() == 1 and not parallel.WORDS[parallel.START]:
        return "the lack of an OpenMP runtime that can be used"
    if parallel.WORDS[parallel.LIMIT]:
        return "FASTSIG_NUM_THREADS, or set_num_threads" if os.environ.get("FASTSIG_NUM_THREADS") else "set_num_threads"
    for variable in OPENMP:
        if os.environ.get(variable):
            return variable
    return "the OpenMP runtime, which counts the processors of this process"


def runtime() -> str:
    from fastsig import parallel

    found = parallel.runtime()
    return found[0] if found else "none: everything runs serially"


def runtimes() -> str:
    """All that are loaded, ours among them: of two in a process, each has threads of its own."""
    from fastsig import parallel

    return ", ".join(parallel.loaded_runtimes()) or "none"


# --- the cache -----------------------------------------------------------------------------------------------------------


def kept() -> str:
    from fastsig import store

    folder, reason = store.found()
    if folder is None:
        return f"none: {reason}"
    files = [*store.entries(folder)]
    return f"{folder} ({len(files)} loops, {sum(file.size for file in files) >> 10:,} KiB)"


def trusted() -> str:
    from fastsig import store

    return "yes: nobody else can write to it" if store.found()[0] else "no"


def writable() -> str:
    from fastsig import store

    return "yes" if store.writable() else "no"


def environment() -> dict[str, str]:
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}


FACTS: dict[str, Callable[[], str]] = {
    "processor": processor,
    "instructions": instructions,
    "caches": caches,
    "processors": processors,
    "threads": threads,
    "threads from": threads_from,
    "OpenMP runtime": runtime,
    "runtimes loaded": runtimes,
    "cache": kept,
    "cache trusted": trusted,
    "cache writable": writable,
}
