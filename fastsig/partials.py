"""Outputs while they aren't whole: written beside their places, and renamed in the end.

Next to OUT.partial lies OUT.journal, which is locked while somebody writes, and tells a later run what it may go on with.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

fcntl: Any
try:
    import fcntl
except ImportError:  # on Windows nobody is kept from writing the same output at the same time
    fcntl = None

HEAD = b'{"block"'  # what a journal begins with
FACTS = {"sources": "the input", "dtypes": "the result's dtype", "fastsig": "the version of fastsig"}  # for people


class Work(Protocol):
    """An output in the making: blocks, each of which can be computed without the others."""

    count: int  # of blocks
    total: int  # bytes read and written in all
    block: Any  # what tells one division into blocks from another
    workers: int  # blocks computed at a time

    def before(self, k: int) -> int: ...  # bytes read and written for the blocks before this one
    def create(self) -> None: ...
    def check(self, first: int) -> None: ...
    def open(self) -> None: ...
    def step(self, k: int) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


def partial(target: str) -> str:
    return f"{target}.partial"


def journal(target: str) -> str:
    return f"{target}.journal"


class Aside:
    """Outputs until they are whole: beside their places, each with a journal that is locked meanwhile.

    A journal's first line says what is being made of what; each further one, in the first output's, how many blocks are written
    and on the disk.
    """

    def __init__(self, targets: Sequence[str], facts: Mapping[str, Any], overwrite: bool, resume: bool) -> None:
        self.targets, self.overwrite, self.resume = targets, overwrite, resume
        self.facts = json.dumps(facts, sort_keys=True).encode() + b"\n"
        self.journals: list[Any] = []  # those that are locked
        self.ours = self.ending = False
        self.done = self.count = 0

    def begin(self, work: Work) -> int:
        """The first block to be computed, with everything before it in place."""
        self.count = work.count
        heads, lines = [], []
        for path in self.targets:
            file = open(journal(path), "a+b")  # noqa: SIM115
            lock(file, journal(path))
            self.journals.append(file)
            file.seek(0)
            head, *rest = file.read().splitlines(keepends=True) or [b""]
            if head and not head.startswith(HEAD):
                raise FileExistsError(errno.EEXIST, "this is in the way, and no journal", journal(path))
            if not head and os.path.lexists(partial(path)):
                raise FileExistsError(errno.EEXIST, "this is in the way, and has no journal", partial(path))
            heads.append(head)
            whole = [line for line in rest if line.endswith(b"\n")]  # one without was being written when the process ended
            if self.resume and len(whole) < len(rest):
                file.truncate(len(head) + sum(map(len, whole)))  # or the next would be appended to it
            lines += whole
        if self.resume and lines and all(os.path.lexists(partial(path)) for path in self.targets):
            if any(head != self.facts for head in heads) or not all(line.strip().isdigit() for line in lines):
                raise ValueError(difference(heads[0], self.facts, journal(self.targets[0])))
            done = max(int(line) for line in lines)
            if done > work.count:
                raise ValueError(f"{journal(self.targets[0])} is damaged: without resuming, it begins anew")
            work.check(done)
            self.ours, self.done = True, done
        else:
            self.ours = True
            self.remove()
            for file in self.journals:
                file.truncate(0)
                file.write(self.facts)
                file.flush()
            work.create()
        work.open()
        return self.done

    def checkpoint(self, work: Work) -> None:
        """What is done is on the disk, and the journal says so."""
        work.sync()
        first = self.journals[0]
        first.write(b"%d\n" % self.done)
        first.flush()
        os.fsync(first.fileno())

    def finish(self, work: Work) -> None:
        """The outputs get their names.

        The directory isn't made to reach the disk as well: after a power cut the output has its name or hasn't, and it would be
        a second wait for whatever else is being written there.
        """
        work.sync()
        work.close()  # some systems don't rename what is open
        for path in self.targets:
            if not self.overwrite and os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, "the output came into being meanwhile, and isn't replaced", path)
        self.ending = True
        for path in self.targets:
            put(partial(path), path)
        self.forget()

    def abandon(self, work: Work) -> str:
        """After an error; says what is left."""
        if not self.ours:
            self.forget(lambda file: os.fstat(file.fileno()).st_size == 0)  # made just now
            return "nothing was written"
        part = f"{100 * self.done // max(self.count, 1)} % had been written"
        if self.resume and self.done and all(os.path.lexists(partial(path)) for path in self.targets):
            with suppress(OSError, ValueError):  # then the journal's last line holds, for what it says
                self.checkpoint(work)
            return f"{part}, and {partial(self.targets[0])} is kept: the same with resume goes on from there"
        work.close()
        complete = [path for path in self.targets if self.ending and not os.path.lexists(partial(path))]
        self.remove()
        self.forget()
        return f"complete: {', '.join(complete)}" if complete else f"{part}, and is removed again"

    def remove(self) -> None:
        for path in map(partial, self.targets):
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.unlink(path)

    def forget(self, which: Callable[[Any], bool] = lambda file: True) -> None:
        """Journals are removed, while they are locked."""
        for file in filter(which, self.journals):
            if fcntl is None:  # on Windows, what is open can't be removed
                file.close()
            with suppress(FileNotFoundError):
                os.unlink(file.name)

    def close(self) -> None:
        for file in self.journals:
            file.close()


def difference(head: bytes, facts: bytes, path: str) -> str:
    """What is other than it was when the journal was begun."""
    now = json.loads(facts)
    try:
        then = json.loads(head)
        changed = [key for key in ("fastsig", "function", "sources", "dtypes", *now) if now[key] != then.get(key)]
    except (ValueError, AttributeError):
        changed = []
    if not changed:
        return f"{path} is damaged: without resuming, it begins anew"
    return f"{FACTS.get(changed[0], changed[0])} is no longer as it was when {path} was begun: without resuming, it begins anew"


def lock(file: Any, path: str) -> None:
    """Held until the file is closed, also by the end of the process."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise BlockingIOError(errno.EWOULDBLOCK, "another run is writing this output", path) from None
    except OSError:
        return  # some network's file systems have no locks
    if not os.path.exists(path) or not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
        file.close()
        raise BlockingIOError(errno.EWOULDBLOCK, "another run has just ended: try again", path)


def replaced(target: str) -> str:
    """Where a directory is for the moment in which another takes its name."""
    return f"{target}.replaced"


def put(made: str, path: str) -> None:
    """Rename; a directory that is replaced is there, or its successor is, but for a moment."""
    if not os.path.isdir(made):
        if os.path.exists(path):
            shutil.copymode(path, made)
        os.replace(made, path)
        return
    if not os.path.lexists(path):
        os.rename(made, path)
        return
    old = replaced(path)
    try:
        os.rename(path, old)
        os.rename(made, path)
    except BaseException:
        if not os.path.lexists(path):
            os.rename(old, path)
        raise
    shutil.rmtree(old)
