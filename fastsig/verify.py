"""The contract, checked on this machine: `python -m fastsig verify`.

Every public function in every dtype, against a reference of higher precision: NaN, infinities, signs of zero and the stated
bound. float16 is checked over all its numbers; float32 and float64 over edges, bit-spaced and random ones, or float32 over
all of its 2^32.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

import fastsig
from fastsig import testing
from fastsig.console import progress, table
from fastsig.kernels import ALIASES, KERNELS, Kernel
from fastsig.testing import Array

DTYPES = ("float16", "float32", "float64")
STEPS = {"float16": 1, "float32": 1 << 11, "float64": (1 << 44) - 59}  # between the bit-spaced numbers: about 2^21 of them
STEPS_LONG = {"float16": 1, "float32": 1, "float64": (1 << 40) - 87}
RANDOM = 1 << 20


@dataclass
class Finding:
    """The largest error of one output of one function in one dtype, and where."""

    function: str
    output: str
    dtype: str
    bound: float
    count: int = 0
    error: float = 0.0
    worst: str = ""

    @property
    def kept(self) -> bool:
        return self.error <= self.bound

    def include(self, errors: Array, inputs: tuple[Array, ...]) -> None:
        self.count += errors.size
        where = int(np.argmax(errors))
        if errors[where] > self.error or not self.worst:
            self.error = float(errors[where])
            self.worst = ", ".join(float(x[where]).hex() for x in inputs)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--exhaustive", action="store_true", help="all 2^32 float32 inputs (about half an hour on two cores)")
    parser.add_argument("--functions", help="a comma list of functions; all by default")
    parser.add_argument("--dtypes", help="a comma list of float16, float32, float64; all by default")


def run(args: argparse.Namespace) -> int:
    functions = chosen(args.functions, tuple(KERNELS), "function")
    dtypes = chosen(args.dtypes, DTYPES, "dtype")
    if functions is None or dtypes is None:
        return 2
    judged = tuple(dtype for dtype in dtypes if judgeable(dtype))
    if not judged:
        return 2
    findings = check(functions, judged, args.exhaustive)
    rows = [
        (
            f"{f.function}{'' if f.output == 'y' and f.function == 'sigmoid' else ' → ' + f.output}",
            f.dtype,
            f"{f.bound:g}",
            f"{f.error:.4f}" if np.isfinite(f.error) else "wrong value",
            f.worst,
            f"{f.count:,}",
            "" if f.kept else "VIOLATED",
        )
        for f in findings
    ]
    table("Error in units in the last place", ("function", "dtype", "stated", "measured", "worst input", "inputs", ""), rows)
    broken = [f for f in findings if not f.kept]
    for f in broken:
        print(f"{f.function} in {f.dtype} breaks its contract of {f.bound:g} ULP at {f.worst}: {f.error:.4f}", file=sys.stderr)
    print(f"{len(findings) - len(broken)} of {len(findings)} contracts kept.")
    return 1 if broken else 0


def chosen(text: str | None, known: tuple[str, ...], kind: str) -> tuple[str, ...] | None:
    """The comma list's names, all of them if there is none, or None (told) if one is unknown."""
    names = tuple(ALIASES.get(name.strip(), name.strip()) for name in text.split(",")) if text else known
    for name in names:
        if name not in known:
            print(f"unknown {kind} {name!r}: choose from {', '.join(known)}", file=sys.stderr)
            return None
    return names


def judgeable(dtype: str) -> bool:
    """Whether NumPy has a type here that is wide enough for the reference; told if not."""
    try:
        testing.wide(dtype)
    except NotImplementedError as error:
        print(f"{dtype} is left out: {error}", file=sys.stderr)
        return False
    return True


def check(functions: tuple[str, ...], dtypes: tuple[str, ...], exhaustive: bool = False) -> list[Finding]:
    """Check functions in dtypes, with a progress bar."""
    work = [(KERNELS[name], dtype) for name in functions for dtype in dtypes]
    arrays = {dtype: sum(1 for _ in inputs(dtype, exhaustive, count_only=True)) for dtype in dtypes}
    found: list[Finding] = []
    with progress("verify", sum(arrays[dtype] for _, dtype in work)) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        for kernel, dtype in work:
            findings = [Finding(kernel.name, output, dtype, kernel.ulp[dtype]) for output in kernel.outputs]
            getattr(fastsig, kernel.name)(*(np.zeros(1, dtype),) * len(kernel.inputs))  # compile before the threads start
            waiting = []
            for x in inputs(dtype, exhaustive):
                waiting.append(pool.submit(errors, kernel, x))
                if len(waiting) >= 2 * (os.cpu_count() or 1):
                    collect(findings, waiting.pop(0).result())
                    advance(1, f"{kernel.name} {dtype}")
            for future in waiting:
                collect(findings, future.result())
                advance(1, f"{kernel.name} {dtype}")
            found += findings
    return found


def collect(findings: list[Finding], result: tuple[tuple[Array, ...], list[Array]]) -> None:
    operands, errors = result
    for finding, error in zip(findings, errors, strict=True):
        finding.include(error, operands)


def errors(kernel: Kernel, x: Array) -> tuple[tuple[Array, ...], list[Array]]:
    """The operands made from x, and the error of each output."""
    operands = operands_for(kernel, x)
    got = getattr(fastsig, kernel.name)(*operands)
    true = testing.exact(kernel.name, *operands)
    return operands, [testing.ulp(g, t) for g, t in zip(got if isinstance(got, tuple) else (got,), true, strict=True)]


def operands_for(kernel: Kernel, x: Array) -> tuple[Array, ...]:
    """Logits as they are; values y within [0, 1], where their contract holds; gradients of all sizes."""
    with np.errstate(all="ignore"):
        y = np.where(np.abs(x) <= 1, np.abs(x), np.abs(1 / x)).astype(x.dtype)
    return tuple({"x": x, "y": y, "g": testing.upstream(x)}[name] for name in kernel.inputs)


def inputs(dtype: str, exhaustive: bool, count_only: bool = False) -> Iterator[Array]:
    yield testing.edges(dtype)
    steps = STEPS_LONG if exhaustive else STEPS
    if count_only:
        yield from ([] for _ in range(0, 1 << (8 * np.dtype(dtype).itemsize), steps[dtype] << 20))  # type: ignore[misc]
    else:
        yield from testing.spaced(dtype, steps[dtype])
    yield testing.random(dtype, RANDOM)
