"""Ctrl-C: a long call ends before its end, and a first call isn't torn from the compiler.

A ufunc's loop has no way to raise. But if it just returns when Python has noted a SIGINT, and Python's own handler is in force,
that handler raises KeyboardInterrupt before any of the user's code can see what the loop left undone, unless C code calls the
ufunc and goes on (`map`, `list.extend`): what that collects may be unfinished. With any other handler
nothing can be said of what comes after it, so then the call goes on to its end. (Whoever set a wakeup file descriptor, as
asyncio does, hears of that SIGINT twice: when it came and when it is given back.)
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

Question = ctypes.CFUNCTYPE(ctypes.c_int)

# For the loops, which hold no lock. `poll` tells whether a SIGINT waits for the main thread, and takes it; no line of Python
# runs for that, in which a handler could run, and raise into nowhere.
poll = Question(ctypes.pythonapi.PyOS_InterruptOccurred)
trip = ctypes.pythonapi.PyErr_SetInterrupt  # gives the SIGINT back


def will_raise() -> int:
    """Whether KeyboardInterrupt will follow, once the handler runs."""
    handler = signal.getsignal(signal.SIGINT)
    holder = getattr(handler, "__self__", None)
    return int(handler is signal.default_int_handler or (isinstance(holder, Held) and holder.raises))


ends = Question(will_raise)


@dataclass
class Held:
    """Whether there was a SIGINT meanwhile, and whether it will raise KeyboardInterrupt."""

    raises: bool = False
    interrupted: bool = False

    def note(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def after_return(self) -> Any:
        """What gives the SIGINT back when it goes out of scope: as a local variable, once its function has run to its end.

        For functions that C calls, which have no way to raise: handlers run after each call that Python code itself makes.
        """
        return capsule(1, None, ctypes.cast(trip, ctypes.c_void_p)) if self.interrupted else None


capsule = ctypes.pythonapi.PyCapsule_New
capsule.restype, capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


@contextmanager
def held(again: bool = True) -> Iterator[Held]:
    """Ctrl-C waits for the end of the block (and of those around it); then, with `again`, its handler runs.

    Numba imported by half can't be imported again in the same process, nor does all of it bear being stopped anywhere.
    """
    handler = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    found = Held(handler is signal.default_int_handler)
    if not callable(handler) or isinstance(getattr(handler, "__self__", None), Held):
        yield found  # not for this thread; ignored, or left to the system; or held already
        return
    try:
        signal.signal(signal.SIGINT, found.note)
    except ValueError:  # `threading` takes another thread for the main one: the first that imported it
        handler = None
    if handler is None:
        yield found
        return
    try:
        yield found
    except KeyboardInterrupt:  # of a safe point
        again = False
        raise
    finally:
        signal.signal(signal.SIGINT, handler)
        if again and found.interrupted:
            trip()


def safe_point() -> None:
    """Inside `held`: here KeyboardInterrupt does no harm, so that a Ctrl-C that waits needn't wait any longer."""
    holder = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    here = threading.current_thread() is threading.main_thread()
    if here and isinstance(holder, Held) and holder.interrupted and holder.raises:
        raise KeyboardInterrupt
