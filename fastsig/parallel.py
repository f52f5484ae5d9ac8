"""Threads: which OpenMP runtime, how many threads, and never twice at once.

The runtime is called directly, by addresses in the words behind every ufunc's data pointer (see `loops`), so that Numba need
not be imported, and one runtime serves the whole process: the one that is loaded already, if any, else the system's.

How many: what `set_num_threads` said, else FASTSIG_NUM_THREADS, else the runtime (OMP_NUM_THREADS, omp_set_num_threads); but
never more than the processors that the calling thread may run on, than the control group's quota pays for, or than other
large calls leave over.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from fastsig import cgroups, interrupts

# The words behind a ufunc's data pointer: where the OpenMP runtime is, and what the loops are to respect.
START = 0  # address of GOMP_parallel, or 0: run serially
THREAD, THREADS, INSIDE, GETPID = 1, 2, 3, 4  # addresses of omp_get_thread_num, omp_get_num_threads, omp_in_parallel, getpid
PID = 5  # the process in which START is valid: a forked child must not enter the runtime
BUSY = 6  # 1 while a call is shared out: one parallel region at a time
LIMIT = 7  # the number of threads to use, or 0: the runtime's own setting
PARALLEL = 8  # bytes of all arrays from which on a call is shared out
STREAM = 9  # bytes of all arrays from which on it writes past the caches
OWN = 10  # address of omp_get_max_threads: the runtime's own setting, of the calling thread
# Address of omp_get_num_procs, or 0: any number. GNU's asks the system each time, and knows that OMP_PROC_BIND may have tied
# the thread to one of the processors that it may use; LLVM's and Intel's keep what they found when they were loaded.
PROCESSORS = 11
QUOTA = 12  # the threads that the control group's quota pays for
IN_USE = 13  # the threads that large calls are using at this moment
STOP = 14  # 1 when the call that is shared out was interrupted
# Addresses of clock and gettid (the main thread's number is that of the process), or GETTID 0: no call ends before its end.
CLOCK, GETTID = 15, 16
POLL, ENDS, TRIP = 17, 18, 19  # addresses of three functions of `interrupts`
LEADER, SINCE = 20, 21  # the thread, beside the main one, that may have a team, and the second in which it last asked
TIME, TGKILL = 22, 23  # addresses of time and tgkill
WORDS = (ctypes.c_int64 * 24)()
# float32 sigmoid on one thread and two, ns an element: 32 KiB 0.43 and 0.53, 64 KiB 0.40 and 0.35, 128 KiB 0.38 and 0.27. Not
# from 64 on: where other jobs keep the processors busy, a team may wait milliseconds for its last member.
WORDS[PARALLEL] = 128 << 10
# The same on two threads, stored plainly and past the caches: 64 MiB 0.24 and 0.34, 128 MiB 0.34 and 0.23.
WORDS[STREAM] = 96 << 20
PF_FORKNOEXEC = 0x40
IMPORTED_IN = os.getpid()
MOST = 1024  # threads; a runtime that is asked for more than the system has to give ends the process
WORDS[QUOTA] = MOST
VARIABLE = "FASTSIG_NUM_THREADS"
LAST_LEVEL = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")

RUNTIMES = re.compile(r"lib(gomp|omp|iomp5)\b[^/]*\.(so|dylib)")
SYSTEM = {"linux": ("libgomp.so.1", "libomp.so.5", "libiomp5.so"), "darwin": ("libomp.dylib",)}
ENTRIES = {
    START: "GOMP_parallel",
    THREAD: "omp_get_thread_num",
    THREADS: "omp_get_num_threads",
    INSIDE: "omp_in_parallel",
    OWN: "omp_get_max_threads",
    PROCESSORS: "omp_get_num_procs",
}


def loaded_runtimes() -> list[str]:
    """The OpenMP runtimes in this process, torch's first: its users expect `torch.set_num_threads` to count."""
    try:
        mapped = os.fsdecode(Path("/proc/self/maps").read_bytes()).split("\n")  # paths may be in any encoding
    except OSError:
        return []
    paths = dict.fromkeys(line.split(maxsplit=5)[5] for line in mapped if line.count(" ") > 4 and "/" in line)
    found = [path for path in paths if RUNTIMES.match(os.path.basename(path))]
    return sorted(found, key=lambda path: "torch" not in path)


def forked() -> bool:
    """Whether this process came of another by a fork without exec; Linux says so itself, elsewhere the import noted it."""
    try:
        return bool(int(Path("/proc/self/stat").read_bytes().rsplit(b")", 1)[1].split()[6]) & PF_FORKNOEXEC)
    except OSError:
        return os.getpid() != IMPORTED_IN


@cache
def runtime() -> tuple[str, ctypes.CDLL] | None:
    """The OpenMP runtime that is used, by its path or name, or None: everything runs serially."""
    if forked() and loaded_runtimes():
        return None  # its threads stayed with the parent
    for name in (*loaded_runtimes(), *SYSTEM.get(sys.platform, ())):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        if all(hasattr(library, entry) for entry in ENTRIES.values()):
            return name, library
    return None


@cache
def connect() -> None:
    """Write what the loops need to know into the words, once."""
    with suppress(OSError, ValueError):  # a last-level cache that is smaller is exceeded earlier
        WORDS[STREAM] = min(WORDS[STREAM], int(LAST_LEVEL.read_text().removesuffix("K\n")) << 10)
    if os.name != "posix":
        return
    library = ctypes.CDLL(None)
    WORDS[GETPID], WORDS[PID] = address(library.getpid), os.getpid()
    WORDS[QUOTA] = min(cgroups.quota() or MOST, MOST)
    WORDS[POLL], WORDS[ENDS], WORDS[TRIP] = map(address, (interrupts.poll, interrupts.ends, interrupts.trip))
    WORDS[CLOCK] = address(library.clock)
    if sys.platform == "linux" and hasattr(library, "gettid") and hasattr(library, "tgkill"):  # musl has one of them
        WORDS[TIME], WORDS[TGKILL], WORDS[GETTID] = map(address, (library.time, library.tgkill, library.gettid))
    os.register_at_fork(after_in_child=disconnect)
    found = runtime()
    if found:
        for word, entry in sorted(ENTRIES.items(), reverse=True):  # START last: it switches the rest on
            WORDS[word] = address(getattr(found[1], entry))
    if "threadpoolctl" in sys.modules:
        with suppress(ImportError):  # one too old to be told of others' threads
            import_module("fastsig.interop.threadpoolctl")


def disconnect() -> None:
    """After a fork: the child has none of the runtime's threads, and entering it would wait for them for ever."""
    WORDS[START] = WORDS[BUSY] = WORDS[IN_USE] = 0
    WORDS[PID] = os.getpid()


def address(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


def from_environment(text: str | None) -> int:
    """The number of threads that FASTSIG_NUM_THREADS asks for; 0, with a warning, if that is nonsense."""
    if text is None or not text.strip():
        return 0
    number = int(text) if re.fullmatch(r"\s*[0-9]{1,9}\s*", text, re.ASCII) else 0
    if 1 <= number <= MOST:
        return number
    complaint = f"{VARIABLE}={text!r} is no number of threads from 1 to {MOST:,}: fastsig goes on as if it weren't set"
    try:
        warnings.warn(complaint, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:  # an error, by the user's wish; but importing a package is no place to fail for that
        print(complaint, file=sys.stderr)
    return 0


WORDS[LIMIT] = from_environment(os.environ.get(VARIABLE))


def most_threads() -> int:
    """What no setting exceeds: the processors that this thread may run on, the control group's quota; 1 without a runtime."""
    connect()
    found = runtime()
    if WORDS[START] == 0 or found is None:
        return 1
    processors = int(found[1].omp_get_num_procs()) if WORDS[PROCESSORS] else MOST
    return max(1, min(processors, WORDS[QUOTA]))


def get_num_threads() -> int:
    """The number of threads that a large call uses.

    Returns
    -------
    int
        What `set_num_threads` set; else ``FASTSIG_NUM_THREADS``; else what the OpenMP runtime would use: ``OMP_NUM_THREADS``,
        or all processors. Never more than the processors that the calling thread may run on, nor than the control group's
        quota of processor time, rounded up. 1 where there is no OpenMP runtime, and in a forked child.

    Notes
    -----
    A call uses fewer where other threads are in large calls already, and one thread inside a parallel region of the same
    runtime: what is in use never exceeds the processors, but for the callers themselves.

    Examples
    --------
    >>> import fastsig
    >>> with fastsig.num_threads(1):
    ...     fastsig.get_num_threads()
    1
    """
    most, found = most_threads(), runtime()
    if most == 1 or found is None:  # a forked child doesn't even ask the runtime
        return 1
    return max(1, min(int(WORDS[LIMIT]) or int(found[1].omp_get_max_threads()), most))


def set_num_threads(n: int) -> None:
    """Set the number of threads that a large call uses, for all threads of this process.

    Parameters
    ----------
    n : int
        At least 1. More than there are processors, or than the control group's quota pays for, count as that many.

    Raises
    ------
    TypeError, ValueError
        If it isn't an integer, or less than 1.

    Examples
    --------
    >>> import fastsig
    >>> fastsig.set_num_threads(2)
    """
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"the number of threads must be an integer, not {n!r}")
    if n.__index__() < 1:
        raise ValueError(f"the number of threads must be at least 1, not {n!r}")
    WORDS[LIMIT] = min(n.__index__(), MOST)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use `n` threads inside a ``with`` block, and as many as before after it.

    Parameters
    ----------
    n : int
        At least 1, as for `set_num_threads`. It counts for all threads of this process, not for the block's own alone.

    Examples
    --------
    >>> import numpy as np
    >>> import fastsig
    >>> with fastsig.num_threads(1):
    ...     y = fastsig.sigmoid(np.zeros(3))
    """
    before = WORDS[LIMIT]
    set_num_threads(n)
    try:
        yield
    finally:
        WORDS[LIMIT] = before
