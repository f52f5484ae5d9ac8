"""Control groups: how many processors' time a container is given, where that is less than the machine has.

Linux tells in files: /proc/self/cgroup the group of each hierarchy, /proc/self/mountinfo where the hierarchies are, and in
each group (and in those above it, which limit it too) `cpu.max` in version 2, in version 1 `cpu.cfs_quota_us` and
`cpu.cfs_period_us`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROCESS = Path("/proc/self")


def quota(process: Path = PROCESS) -> int | None:
    """The number of threads that the process's quota of processor time pays for, rounded up; None where there is no quota.

    Parameters
    ----------
    process : Path
        The directory of the process in /proc, where its files `cgroup` and `mountinfo` are.
    """
    shares = [share for group in groups(process) if (share := share_of(group)) is not None]
    return max(1, math.ceil(min(shares))) if shares else None


def groups(process: Path) -> Iterator[Path]:
    """The directories of the process's groups that may limit its processors, and of all groups above them."""
    try:
        member = dict(memberships(os.fsdecode((process / "cgroup").read_bytes())))
        mounts = os.fsdecode((process / "mountinfo").read_bytes()).split("\n")  # names may be in any encoding
    except OSError:
        return
    for line in mounts:
        left, _, right = line.partition(" - ")
        kind, _, options = [*right.split(" "), "", ""][:3]
        controller, fields = "" if kind == "cgroup2" else "cpu", left.split(" ")
        limiting = kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(","))
        if not limiting or controller not in member or len(fields) < 5:
            continue
        root, place = unescaped(fields[3]), unescaped(fields[4])
        # In a container without a namespace for groups, the mount shows the container's own group alone, by its full name.
        try:
            inside = PurePosixPath(member[controller]).relative_to(root)
        except ValueError:
            inside = PurePosixPath()
        if ".." in inside.parts:  # the process was moved out of its namespace's group: what can be seen isn't its own
            continue
        group = Path(place) / inside
        yield group
        yield from list(group.parents)[: len(inside.parts)]


def memberships(text: str) -> Iterator[tuple[str, str]]:
    """The process's group for each controller; "" stands for version 2, which has one for all."""
    for line in filter(None, text.split("\n")):
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        for controller in controllers.split(","):
            yield controller, group


def unescaped(field: str) -> str:
    """A path as it is: the kernel writes blanks and backslashes as octal numbers."""
    for number in (0o40, 0o11, 0o12, 0o134):  # the backslash last
        field = field.replace(f"\\{number:03o}", chr(number))
    return field


def share_of(group: Path) -> float | None:
    """How many processors' time a group may use."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            given, period = " ".join((group / file).read_text().strip() for file in files).split()[:2]
            if int(given) > 0 and int(period) > 0:  # "max", or -1: no limit
                return int(given) / int(period)
        except (OSError, ValueError):
            continue
    return None
