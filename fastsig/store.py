"""The cache: where compiled code is kept, by whom it may have been put there, and what becomes of it.

A file holds one function's object code, under the function's name and the fingerprint of all that the code depends on. It is
written whole or not at all, and believed only if it is whole, bears its own name and is the user's.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MAGIC = b"fastsig1"
KEPT = re.compile(r"(?P<name>.+)-(?P<fingerprint>[0-9a-f]{32})\.o")
ASIDE = ".fastsig-"  # how the name of a file begins that is being written
DAY = 86_400  # seconds
UNUSED = 90  # days after which what no process has used is removed
ABANDONED = 1  # days after which a file that is still being written isn't any more: its writer was killed


# --- the place -----------------------------------------------------------------------------------------------------------


def default_folder() -> Path:
    chosen = os.environ.get("FASTSIG_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "fastsig" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fastsig"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastsig"


@cache
def found() -> tuple[Path | None, str]:
    """The directory, made if need be; or None, and why there is no safe one."""
    try:
        folder = default_folder().expanduser().resolve()
        for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is not a directory")
        reason = untrusted(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
        return None, f"there is no cache directory ({error})"
    return (None, f"the cache directory {folder} is not used: {reason}") if reason else (folder, "")


@cache
def cache_folder() -> Path | None:
    """Where compiled loops are kept, or None, with one warning, where there is no safe place."""
    folder, reason = found()
    if folder is None:
        explain(reason)
    return folder


def untrusted(folder: Path) -> str | None:
    """Why code from this directory isn't run: what is in it is executed, so nobody else may be able to put anything there.

    The directories above it may be sticky, as /tmp is, and writable by the user's own group, as with umask 002.
    """
    if not hasattr(os, "getuid"):
        return None
    for place in (folder, *folder.parents):
        state = place.stat()
        own_group = state.st_uid == os.getuid() and state.st_gid == os.getgid()
        others = stat.S_IWOTH if own_group and place != folder else stat.S_IWGRP | stat.S_IWOTH
        if state.st_mode & others and (place == folder or not state.st_mode & stat.S_ISVTX):
            return f"others can write to {place} (chmod go-w would mend that)"
        if state.st_uid not in (os.getuid(), 0):
            return f"{place} belongs to another user"
    return None


def obstacle() -> str:
    """Why nothing can be kept, or nothing: tried, for a user's permissions don't tell of a disk's."""
    folder, reason = found()
    if folder is None:
        return reason
    try:
        tempfile.TemporaryFile(dir=folder, prefix=ASIDE).close()
    except OSError as error:
        return f"the cache directory {folder} can't be written ({error.strerror or error})"
    return ""


def writable() -> bool:
    return not obstacle()


@cache
def explain(reason: str) -> None:
    """Warn, but never fail: where warnings are errors, the text goes to standard error and the result is right all the same."""
    text = f"fastsig compiles anew in each process, for {reason}. Set FASTSIG_CACHE_DIR to a directory that only you can write."
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:
        print(text, file=sys.stderr)


# --- one file ------------------------------------------------------------------------------------------------------------


def read(path: Path) -> tuple[str, bytes] | None:
    """What `write` wrote, or None if it isn't there, isn't whole or isn't ours alone."""
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            data = file.read()
    except OSError:
        return None
    if hasattr(os, "getuid") and (state.st_uid not in (os.getuid(), 0) or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return None  # somebody else's, or anybody's
    head = len(MAGIC) + 32
    body = data[head:]
    if data[:head] != MAGIC + digest(path, body):
        return None
    if time.time() - state.st_mtime > DAY:  # a file's time is that of its use, to the day: many disks keep none of reading
        with suppress(OSError):
            os.utime(path)
    (length,) = struct.unpack_from("<I", body)
    return body[4 : 4 + length].decode(), body[4 + length :]


def write(path: Path, code: tuple[str, bytes]) -> str:
    """Put it there whole or not at all; a full or read-only disk costs the next process a compilation, and a warning.

    Why it could not be written is returned as well. A new file is a good time to sweep: it comes with every new version.
    """
    symbol = code[0].encode()
    body = struct.pack("<I", len(symbol)) + symbol + code[1]
    try:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=ASIDE)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(MAGIC + digest(path, body) + body)
            os.replace(aside, path)
        except BaseException:  # also where the user interrupts it
            Path(aside).unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = f"the cache directory {path.parent} can't be written ({error.strerror or error})"
        explain(reason)
        return reason
    sweep(path.parent)
    return ""


def digest(path: Path, body: bytes) -> bytes:
    """What a file under this name must begin with to be whole, and its own."""
    return hashlib.sha256(path.name.encode() + body).digest()


# --- all of them ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A file of the cache: of one function, or on its way to become that."""

    path: Path
    fingerprint: str  # of what its code depends on, or nothing as long as it is being written
    size: int  # bytes
    age: float  # days since it was last used


def entries(folder: Path) -> Iterator[Entry]:
    """What is kept there. Files of other names are none of ours, and are let alone."""
    now = time.time()
    with suppress(OSError), os.scandir(folder) as files:
        for file in files:
            kept = KEPT.fullmatch(file.name)
            if kept or file.name.startswith(ASIDE):
                with suppress(OSError):  # another process has removed it meanwhile
                    state = file.stat(follow_symlinks=False)
                    fingerprint = kept["fingerprint"] if kept else ""
                    yield Entry(Path(file.path), fingerprint, state.st_size, max(0.0, (now - state.st_mtime) / DAY))


def remove(unwanted: Iterable[Entry]) -> list[Entry]:
    """Those that are gone now. Who has loaded one keeps it, and who wants one compiles it anew."""
    gone = []
    for entry in unwanted:
        with suppress(OSError):
            entry.path.unlink(missing_ok=True)
            gone.append(entry)
    return gone


@cache
def sweep(folder: Path) -> None:
    """Once in a process: remove what nobody uses any more, that of old versions in the end.

    By age alone, for a home directory may serve several machines, each with a fingerprint of its own.
    """
    remove(entry for entry in entries(folder) if entry.age > (UNUSED if entry.fingerprint else ABANDONED))
