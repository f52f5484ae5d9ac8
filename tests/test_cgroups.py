"""What a container's quota of processor time says about threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastsig import cgroups

BOTH = "24 1 0:20 / / rw - ext4 /dev/vda rw\n"  # of `mountinfo`: what isn't about groups


@pytest.fixture
def machine(tmp_path):
    """A process's files and its groups': a mapping of paths to contents, in which {here} stands for the directory."""

    def make(cgroup, mounts, files):
        for name, content in {"proc/cgroup": cgroup, "proc/mountinfo": BOTH + mounts, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content.format(here=tmp_path))
        return cgroups.quota(tmp_path / "proc")

    return make


SECOND = "30 24 0:26 / {here}/fs rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
FIRST = "31 24 0:27 / {here}/fs/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
FIRST_MEMORY = "32 24 0:28 / {here}/fs/memory rw,nosuid - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("limit", "threads"),
    [
        ("max 100000", None),
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("400000 50000", 8),
        ("200001 100000", 3),
        ("max", None),
        ("", None),
        ("0 100000", None),
        ("100000 0", None),
        ("many few", None),
    ],
)
def test_second_version(machine, limit, threads):
    assert machine("0::/a/b\n", SECOND, {"fs/a/b/cpu.max": limit + "\n"}) == threads


def test_groups_above_count_too(machine):
    files = {"fs/a/b/cpu.max": "max 100000\n", "fs/a/cpu.max": "300000 100000\n", "fs/a/b/c/cpu.max": "500000 100000\n"}
    assert machine("0::/a/b/c\n", SECOND, files) == 3
    assert machine("0::/a/b/c\n", SECOND, {**files, "fs/a/b/cpu.max": "200000 100000\n"}) == 2


def test_another_group_does_not_count(machine):
    assert machine("0::/a\n", SECOND, {"fs/b/cpu.max": "100000 100000\n", "fs/a/b/cpu.max": "100000 100000\n"}) is None


@pytest.mark.parametrize(("quota", "threads"), [("-1", None), ("100000", 1), ("250000", 3), ("0", None)])
def test_first_version(machine, quota, threads):
    files = {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": "100000\n"}
    files = {f"fs/cpu,cpuacct/box/{name}": content for name, content in files.items()}
    assert machine("4:memory:/other\n3:cpu,cpuacct:/box\n", FIRST_MEMORY + FIRST, files) == threads


def test_first_version_without_its_period(machine):
    assert machine("3:cpu,cpuacct:/box\n", FIRST, {"fs/cpu,cpuacct/box/cpu.cfs_quota_us": "100000\n"}) is None


def test_both_versions_at_once(machine):
    """As under systemd's hybrid arrangement: the controller for processors is in one of them."""
    files = {"fs/cpu,cpuacct/box/cpu.cfs_quota_us": "200000\n", "fs/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n"}
    unified = "33 24 0:29 / {here}/fs/unified rw - cgroup2 cgroup2 rw\n"
    assert machine("3:cpu,cpuacct:/box\n0::/a\n", unified + FIRST, {**files, "fs/unified/a/cgroup.procs": ""}) == 2


def test_inside_a_container(machine):
    """Whose mount shows its own group alone: with a namespace under the name /, without one under its full name."""
    limit = {"fs/cpu.max": "200000 100000\n"}
    assert machine("0::/\n", SECOND, limit) == 2
    own = SECOND.replace("0:26 / ", "0:26 /docker/0123 ")
    assert machine("0::/docker/0123\n", own, limit) == 2
    assert machine("0::/docker/0123/inner\n", own, {**limit, "fs/inner/cpu.max": "100000 100000\n"}) == 1
    assert machine("0::/elsewhere\n", own, limit) == 2


def test_moved_out_of_its_namespace(machine):
    assert machine("0::/../other\n", SECOND, {"fs/cpu.max": "100000 100000\n"}) is None


def test_a_place_with_blanks(machine):
    mounts = "30 24 0:26 / {here}/my\\040fs\\134x rw - cgroup2 cgroup2 rw\n"
    assert machine("0::/a b\n", mounts, {"my fs\\x/a b/cpu.max": "100000 100000\n"}) == 1


def test_no_such_files(tmp_path):
    """On systems that have no control groups."""
    assert cgroups.quota(tmp_path) is None


@pytest.mark.parametrize("nonsense", ["", "\n", "0\n", "0:\n", ":::\n", "30 24 - cgroup2\n", "a b c d e f - cgroup2 x y\n"])
def test_nonsense(machine, tmp_path, nonsense):
    assert machine(nonsense, SECOND, {}) is None
    (tmp_path / "proc" / "cgroup").write_text("0::/\n")
    (tmp_path / "proc" / "mountinfo").write_text(nonsense)
    assert cgroups.quota(tmp_path / "proc") is None


ASK = "import fastsig; from fastsig import cgroups; print(cgroups.quota(), fastsig.get_num_threads())"


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only Linux's root may make a control group")
@pytest.mark.parametrize("version", [1, 2])
def test_a_real_group(version):
    """A process in a group of its own, with the time of one processor and of one and a half."""
    place = Path("/sys/fs/cgroup/cpu") if version == 1 else Path("/sys/fs/cgroup")
    if not (place / "cpu.cfs_quota_us" if version == 1 else place / "cgroup.controllers").exists():
        pytest.skip(f"the system has no control groups of version {version} for processors")
    group = place / f"fastsig-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        for share, threads in ((1.0, 1), (1.5, 2)):
            quota = f"{share * 100_000:.0f}"
            try:
                if version == 1:
                    (group / "cpu.cfs_period_us").write_text("100000")
                (group / ("cpu.cfs_quota_us" if version == 1 else "cpu.max")).write_text(quota)
            except OSError as error:
                pytest.skip(f"the group takes no quota: {error}")
            enter = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0'); "
            done = subprocess.run([sys.executable, "-c", enter + ASK], capture_output=True, text=True, timeout=60, check=True)
            asked, used = done.stdout.split()
            assert int(asked) == threads
            assert int(used) <= threads
    finally:
        group.rmdir()
