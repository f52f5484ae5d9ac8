"""Ctrl-C: soon, never in the middle of something, and never for nothing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

import pytest

from fastsig import interrupts

needs_signals = pytest.mark.skipif(os.name != "posix", reason="the system has no signals")
pytestmark = needs_signals


@pytest.fixture
def handler():
    """Python's own, whatever the tests were started with."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def press():
    signal.raise_signal(signal.SIGINT)


def test_held(handler):
    """It comes at the end of the block, once."""
    after = []

    def block():
        with interrupts.held() as held:
            press()
            press()
            after.append(held.interrupted)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert after == [True]
    assert signal.getsignal(signal.SIGINT) is handler
    with interrupts.held() as held:
        pass
    assert not held.interrupted


def test_held_within_held(handler):
    """It comes at the end of the outer one."""
    after = []

    def block():
        with interrupts.held():
            with interrupts.held():
                press()
            after.append("inner")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert after == ["inner"]


def test_held_with_an_error(handler):
    """Which isn't lost."""

    def block():
        with interrupts.held():
            press()
            raise KeyError

    with pytest.raises(KeyboardInterrupt) as caught:
        block()
    assert isinstance(caught.value.__context__, KeyError)
    assert signal.getsignal(signal.SIGINT) is handler


def test_safe_point(handler):
    """Where it needn't wait any longer."""
    interrupts.safe_point()
    after = []

    def block():
        with interrupts.held():
            interrupts.safe_point()
            press()
            after.append("pressed")
            interrupts.safe_point()
            after.append("safe")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert after == ["pressed"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_others_handlers():
    """They run at the end of the block, and have their way."""
    pressed = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        with interrupts.held() as held:
            press()
            interrupts.safe_point()
            assert (held.interrupted, pressed) == (True, [])
        assert pressed == [signal.SIGINT]
        assert not interrupts.ends()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL], ids=["ignored", "the system's"])
def test_no_handler(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        with interrupts.held():
            assert signal.getsignal(signal.SIGINT) is handler
            if handler == signal.SIG_IGN:
                press()
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread(handler):
    """There no handler can be changed; nor does any run there."""
    said = []

    def work():
        with interrupts.held() as held:
            interrupts.safe_point()
            said.append(held.interrupted)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == [False]


def test_after_return(handler):
    """It comes when the function that C called is over: as its local variables go."""
    steps = []

    def called_by_c():
        with interrupts.held(again=False) as held:
            press()
        _last = held.after_return()
        steps.append("end")

    def block():
        ctypes.CFUNCTYPE(None)(called_by_c)()
        steps.append("after")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert steps == ["end"]


# --- in calls ------------------------------------------------------------------------------------------------------------

BEGIN = """if True:
    import os, signal, sys, threading, time
    import numpy as np, fastsig
    from fastsig import losses, parallel
    signal.signal(signal.SIGINT, signal.default_int_handler)
    def press_when(begun):
        def press():
            while not begun():
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=press).start()
"""
LONG = 1 << 27  # float64; of the output, memory is used as far as it is written
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a call goes on to its end")


@needs_linux
@pytest.mark.parametrize("threads", [1, 2])
def test_a_long_call(python, threads):
    """And the next one is whole. Where it is the first of its function, too."""
    code = f"""
    fastsig.set_num_threads({threads})
    x, y = np.broadcast_to(0.5, {LONG}), np.zeros({LONG})
    for _ in range(2):
        y = np.zeros({LONG})
        press_when(lambda: y[0])
        try:
            fastsig.sigmoid(x, out=y)
            print("not interrupted")
        except KeyboardInterrupt:
            print(y[0] != 0, y[-1] == 0, parallel.WORDS[parallel.IN_USE])
    print(len(set(fastsig.sigmoid(x[:3_000_000]))))
    """
    assert python(BEGIN + code).splitlines() == ["True True 0"] * 2 + ["1"]


@needs_linux
def test_a_long_loss(python):
    code = """
    x = np.zeros(1 << 26)
    want = losses.bce_with_logits_loss(x[:100_000], 1.0, grad=False)
    grad = np.zeros_like(x)
    press_when(lambda: grad[0])
    result = None
    try:
        result = losses.bce_with_logits_loss(x, 1.0, out=grad)
    except KeyboardInterrupt:
        print(grad[0] != 0, grad[-1] == 0, result, parallel.WORDS[parallel.IN_USE])
    print(losses.bce_with_logits_loss(x[:100_000], 1.0, grad=False) == want)
    """
    assert python(BEGIN + code).splitlines() == ["True True None 0", "True"]


def test_a_handler_that_does_not_raise(python):
    """Then the result is needed: it is whole."""
    code = f"""
    pressed = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    fastsig.set_num_threads(1)
    x, y = np.broadcast_to(0.5, {LONG} // 2), np.zeros({LONG} // 2)
    press_when(lambda: y[0])
    fastsig.sigmoid(x, out=y)
    print(len(pressed), y[0] == y[-1] != 0, (y == y[0]).all())
    """
    assert python(BEGIN + code) == "1 True True"


def test_a_call_in_another_thread(python):
    """It is the main thread that is interrupted."""
    code = f"""
    x, y = np.broadcast_to(0.5, {LONG} // 2), np.zeros({LONG} // 2)
    done, interrupted = [], False
    threading.Thread(target=lambda: done.append(fastsig.sigmoid(x, out=y))).start()
    press_when(lambda: y[0])
    while not (done and interrupted):  # an interrupted `join` would take the thread for ended
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            interrupted = True
    print((y == y[0]).all())
    """
    assert python(BEGIN + code) == "True"


FIRST = """
    y = None
    threading.Timer({}, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        y = fastsig.sigmoid_derivative(np.zeros(5))
        time.sleep(100)
    except KeyboardInterrupt:
        print(y)
    print(fastsig.sigmoid_derivative(np.full(3, 0.5)))
"""


@pytest.mark.parametrize(
    "pause", [0.3, *(pytest.param(pause, marks=pytest.mark.slow) for pause in (0, 0.01, 0.1, 0.6, 1, 2, 4))]
)
def test_a_first_call(python, tmp_path, pause):
    """Before a result can be seen; and what was being compiled can be compiled again. (Or it came after the call.)"""
    said = python(BEGIN + FIRST.format(pause), FASTSIG_CACHE_DIR=tmp_path)
    assert said in ("None\n[0.25 0.25 0.25]", "[0. 0. 0. 0. 0.]\n[0.25 0.25 0.25]")


def test_a_main_thread_that_threading_does_not_know(python):
    """It takes the thread in which it is first imported for the main one."""
    code = """if True:
        import _thread, sys
        assert "threading" not in sys.modules
        def work():
            try:
                import numpy as np, fastsig
                print(fastsig.sigmoid(np.zeros(2)).tolist())
            finally:
                done.release()
        done = _thread.allocate_lock()
        done.acquire()
        _thread.start_new_thread(work, ())
        done.acquire()
    """
    assert python(code).startswith("[0.5, 0.5]")


@pytest.mark.skipif(sys.platform != "linux", reason="calls end early on Linux alone")
def test_who_listens_to_signals_hears_of_it_twice_at_most(python):
    code = """if True:
        import os, signal, socket, threading, time
        import numpy as np, fastsig
        told, ours = socket.socketpair()
        told.setblocking(False)
        ours.setblocking(False)
        handled = []
        signal.signal(signal.SIGINT, lambda number, frame: handled.append(number))
        x = np.zeros(80_000_000, np.float32)
        y = np.empty_like(x)
        fastsig.set_num_threads(1)
        fastsig.tanh(x[:9], out=y[:9])
        signal.set_wakeup_fd(ours.fileno())
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
        out, n = fastsig.tanh(x[::2], out=y[::2]), 0
        while not handled:
            time.sleep(0.01)
        print(len(handled), 1 <= len(told.recv(999)) <= 2)
    """
    assert python(code, warnings="ignore") == "1 True"
