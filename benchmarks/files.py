"""Functions of files, against copying the file: `python benchmarks/files.py DIRECTORY` prints it.

The copy reads and writes blocks of the same size, in a plain loop over one buffer, and brings what it has written to the disk,
as `apply_file` does. The two take turns, and what counts is the median of the rounds' ratios: a disk's speed changes from
minute to minute. Warm, the system has the input in its cache; cold, it was made to forget it. The memory is that of a new
process.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastsig
from fastsig import console, files
from fastsig.bench.results import human_time

BAR = 1.3  # of the copy's time
MEMORY = 256  # MiB, at most
GIBI = 1 << 30
CASES = (("sigmoid", "float32"), ("softplus", "float32"), ("sigmoid", "float64"), ("sigmoid", "float16"))
PROGRAM = """
import re, sys
import fastsig
fastsig.apply_file(sys.argv[1], sys.argv[2], sys.argv[3])
with open("/proc/self/status") as file:
    print(re.search(r"VmHWM:\\s*(\\d+)", file.read())[1])
"""


def make(path: Path, dtype: str, size: int) -> None:
    """A .npy file of that many bytes, not all of them alike."""
    block = np.random.default_rng(0).normal(0, 3, 1 << 20).astype(dtype)
    shape = (size // block.itemsize // len(block) * len(block),)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": block.dtype.str, "fortran_order": False, "shape": shape})
        for _ in range(shape[0] // len(block)):
            file.write(block.tobytes())
        file.flush()
        os.fsync(file.fileno())


def copy(source: Path, target: Path) -> None:
    buffer = memoryview(bytearray(files.BLOCK))
    with source.open("rb", buffering=0) as read, target.open("xb", buffering=0) as written:
        while count := read.readinto(buffer):
            written.write(buffer[:count])
        os.fsync(written.fileno())


def forget(path: Path) -> None:
    """The system's cache gives the file up."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remember(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(files.BLOCK):
            pass


def timed(work: Callable[[Path, Path], object], source: Path, target: Path, before: Callable[[Path], None]) -> float:
    target.unlink(missing_ok=True)
    before(source)
    begin = time.perf_counter()
    work(source, target)
    return time.perf_counter() - begin


def contest(name: str, dtype: str, source: Path, cold: bool, rounds: int) -> tuple[str, ...]:
    """A row: the times of both, and the ratio."""
    ways = {"copy": copy, "apply": lambda x, y: fastsig.apply_file(name, x, y)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for k in range(rounds + 1):  # the first is for what is compiled and allocated once
        for way in sorted(ways, reverse=k % 2 == 1):
            took = timed(ways[way], source, source.with_name("out.npy"), forget if cold else remember)
            seconds[way] += [took] if k else []
    ratio = statistics.median(ours / theirs for ours, theirs in zip(seconds["apply"], seconds["copy"], strict=True))
    ours, theirs = (statistics.median(seconds[way]) for way in ("apply", "copy"))
    rate = 2 * source.stat().st_size / ours / 1e9
    state = "cold" if cold else "warm"
    verdict = "" if ratio <= BAR else f"over {BAR}"
    return f"{name} {dtype}", state, human_time(ours), human_time(theirs), f"{rate:.2f}", f"{ratio:.2f}", verdict


def peak(name: str, source: Path) -> int:
    """The most memory, in MiB, that a new process has."""
    target = source.with_name("out.npy")
    target.unlink(missing_ok=True)
    command = [sys.executable, "-c", PROGRAM, name, str(source), str(target)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(re.findall(r"\d+", shown)[-1]) >> 10


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=Path, help="on the disk to be measured: it takes twice the size")
    parser.add_argument("--gib", type=float, default=1, help="the input's size (default 1)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rows = []
    with (
        tempfile.TemporaryDirectory(dir=args.directory) as folder,
        console.progress("Measuring", 2 * len(CASES)) as advance,
    ):
        source = Path(folder) / "in.npy"
        for name, dtype in CASES:
            make(source, dtype, int(args.gib * GIBI))
            used = peak(name, source)
            for cold in (False, True):
                rows.append((*contest(name, dtype, source, cold, args.rounds), f"{used} MiB"))
                advance(1, f"{name} {dtype}")
    columns = ("function", "cache", "apply_file", "copy", "GB/s", "ratio", "", "peak memory")
    console.table(f"{args.gib:g} GiB in {args.directory}, blocks of {files.BLOCK >> 10} KiB", columns, rows)
    return 1 if any(row[6] for row in rows) or any(int(row[7].split()[0]) > MEMORY for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
