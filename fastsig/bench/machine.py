"""The machine: what it is, and what of it is free."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fastsig
from fastsig import parallel

Advance = Callable[[float, str], object]  # told the seconds that have passed since it was last told, and what is next
PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "numexpr", "torch", "jax", "ml_dtypes", "scikit-learn", "matplotlib")
LEVELS = {"1": "L1d", "2": "L2", "3": "L3"}


def free_memory() -> int | None:
    """The bytes this process may still take, where Linux says so; a tenth is left alone."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    try:  # in a container
        limit, used = (Path("/sys/fs/cgroup", name).read_text() for name in ("memory.max", "memory.current"))
        free = min(free, int(limit) - int(used))
    except (OSError, ValueError):  # none, or no limit
        pass
    return free * 9 // 10


def processors() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu() -> str:
    """The processor's name, as it gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()


def caches() -> dict[str, int]:
    """The bytes of each level's data cache that one core sees, shared or not; what isn't known isn't there."""
    if sys.platform == "darwin":
        found = {
            level: sysctl(f"hw.perflevel0.{level.lower()}cachesize", f"hw.{level.lower()}cachesize")
            for level in LEVELS.values()
        }
        return {level: int(size) for level, size in found.items() if size.isdigit() and int(size)}
    number = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    sizes = {}
    for place in sorted(Path(f"/sys/devices/system/cpu/cpu{number}/cache").glob("index*")):
        try:
            kind, level, size = ((place / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction" and level in LEVELS:
                sizes[LEVELS[level]] = int(size.removesuffix("K")) << 10
        except (OSError, ValueError):  # a virtual machine may tell some, or nothing
            continue
    return sizes


def sysctl(*names: str) -> str:
    """What macOS says of the first of these that it knows, or nothing."""
    for name in names if sys.platform == "darwin" else ():
        done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return ""


def described(threads: int) -> dict[str, Any]:
    """The machine and its software, for the results."""
    versions = {"fastsig": fastsig.__version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    found = parallel.runtime()
    return {
        "cpu": cpu(),
        "caches": caches(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "threads": threads,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "openmp": "/".join(Path(found[0]).parts[-3:]) if found else None,  # whose it is, not where it is installed
    }


def telling(advance: Advance) -> Callable[[str], None]:
    """`advance` with the seconds since the last call put in."""
    last = time.perf_counter()

    def tell(what: str) -> None:
        nonlocal last
        now = time.perf_counter()
        advance(now - last, what)
        last = now

    return tell
