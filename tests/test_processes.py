"""Among others' threads and processes: whatever calls, from wherever, nothing crashes, nothing hangs, and no bit changes.

Each test is a program of its own, beside GNU's, LLVM's or Intel's OpenMP runtime or beside none. With -m slow all that there
is runs beside each of them, and for longer.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from functools import partial
from textwrap import dedent

import pytest

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
pytestmark = LINUX

# What each program begins with: the runtime that it is to find; large calls, and whether their bits are those of one thread;
# the numbers of threads. Whoever hangs is ended, and tells where each of its threads was.
BEGIN = """
    import ctypes, faulthandler, os, signal, sys, threading, time
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runtime, slow = os.environ["RUNTIME"], "SLOW" in os.environ
    faulthandler.dump_traceback_later(1700 if slow else 580, exit=True)
    if os.path.isabs(runtime):
        ctypes.CDLL(runtime, ctypes.RTLD_GLOBAL)
    if "FIRST" in os.environ:
        __import__(os.environ["FIRST"])
    import numpy as np, fastsig
    from fastsig import losses, parallel
    if runtime == "none":
        parallel.SYSTEM.clear()

    single, double = np.linspace(-120, 120, 300_001, dtype="f"), np.linspace(-750, 750, 100_003)
    def computed():
        yield fastsig.sigmoid(single)
        yield from fastsig.sigmoid_value_and_grad(double)
        yield np.asarray(losses.bce_with_logits_loss(single, 1.0, grad=False))

    with fastsig.num_threads(1):
        wanted = [y.tobytes() for y in computed()]
    def right():
        return [y.tobytes() for y in computed()] == wanted

    def tasks():
        return len(os.listdir("/proc/self/task"))

    def watched(work):
        "Do it. How many threads were in large calls at once, and how many more the process had than before, at most."
        most, before, done = [0, 0], tasks(), threading.Event()
        def count():
            while not done.wait(0.0005):
                most[:] = max(most[0], parallel.WORDS[parallel.IN_USE]), max(most[1], tasks() - 1 - before)
        counter = threading.Thread(target=count)
        counter.start()
        try:
            work()
        finally:
            done.set()
            counter.join()
        assert parallel.WORDS[parallel.IN_USE] == parallel.WORDS[parallel.BUSY] == 0
        return most

    processors = fastsig.get_num_threads()
    assert right()
    if os.path.isabs(runtime) and "FIRST" not in os.environ:
        assert os.path.samefile(parallel.runtime()[0], runtime), parallel.runtime()
"""

AT_ONCE = """
    def work():
        answers.append(right())
        while time.monotonic() < end:
            answers.append(right())
    answers, many = [], [threading.Thread(target=work) for _ in range(64)]
    end = time.monotonic() + (30 if slow else 1 if runtime == "system" else 0.2)
    used, started = watched(lambda: ([t.start() for t in many], [t.join() for t in many]))
    assert len(answers) >= 64 and all(answers), (len(answers), answers.count(False))
    assert used < 64 + processors, used
    assert started < 64 + 16 * processors, started
    print("64 threads at once:", len(answers), "times right;", used, "threads in use at most,", started, "in the process")
"""

POOL = """
    from concurrent.futures import ThreadPoolExecutor
    def pooled():
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda _: right(), range(2000 if slow else 40)))
    used, started = watched(pooled)
    assert used < 8 + processors, used
    assert started <= 8 + 4 * (processors - 1), started
    print("ThreadPoolExecutor of 8:", used, "threads in use at most,", started, "in the process")
"""

FORK = """
    times = 1000 if slow else 20
    for _ in range(times):
        assert right()
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if right() and fastsig.get_num_threads() == 1 else 1)
        assert right()
        _, status = os.waitpid(child, 0)
        assert status == 0, status
    print("fork:", times, "times")
"""

# Whether it came to an end before its end shows in what it left undone: no time is measured.
INTERRUPT = """
    for threads in [1, processors] if slow else [processors]:
        for _ in range(20 if slow else 1):
            n = 1 << (28 if slow else 27)
            x, y = np.broadcast_to(np.float64(0.5), n), np.zeros(n)
            def press():
                while y[0] == 0:
                    time.sleep(0.001)
                os.kill(os.getpid(), signal.SIGINT)
            presser = threading.Thread(target=press)
            presser.start()
            with fastsig.num_threads(threads):
                try:
                    fastsig.softplus(x, out=y)
                    raise AssertionError("the call came to its end")
                except KeyboardInterrupt:
                    presser.join()
            assert y[-1] == 0, "it did all its work first"
            assert parallel.WORDS[parallel.IN_USE] == parallel.WORDS[parallel.BUSY] == 0
            assert right()
    print("Ctrl-C in a long call")
"""

COMMON = {"at once": AT_ONCE, "pool": POOL, "fork": FORK, "interrupt": INTERRUPT}

MULTIPROCESSING = """
    import multiprocessing
    if __name__ == "__main__":
        with multiprocessing.get_context("{}").Pool(2) as pool:
            for y in pool.map(fastsig.sigmoid, [single] * (100 if slow else 8)):
                assert y.tobytes() == wanted[0]
            assert right()
            number = pool.apply(fastsig.get_num_threads)
            assert number == (1 if "{}" == "fork" else processors), number
        print("{}")
"""

# Inside a parallel loop the functions are compiled into it: they start no threads at all.
PRANGE = """
    import numba
    numba.config.THREADING_LAYER = "{}"
    function = fastsig.sigmoid if slow else fastsig.sigmoid_derivative  # which is soon compiled
    @numba.njit(parallel=True)
    def rows(x, y):
        for i in numba.prange(len(x)):
            for j in range(x.shape[1]):
                y[i, j] = function(x[i, j])
    x = single[:300_000].reshape(300, 1000)
    y, want = np.empty_like(x), function(x).tobytes()
    for _ in range(200 if slow else 5):
        rows(x, y)
        assert y.tobytes() == want
        assert right()
    assert numba.threading_layer() == "{}"
    before = tasks()
    used, started = watched(lambda: [rows(x, y) for _ in range(100)])
    assert (used, started, tasks()) == (0, 0, before)
    def from_another_thread():
        assert right()
    if "{}" != "workqueue":  # which ends the process where two threads enter it
        other = threading.Thread(target=lambda: [rows(x, np.empty_like(x)) for _ in range(20)])
        other.start()
        assert all(right() for _ in range(20))
        other.join()
    print("prange on {}: no threads beside Numba's")
"""

JOBLIB = """
    from joblib import Parallel, delayed
    count = 200 if slow else 20
    if "{}" == "threading":
        def work():
            for y in Parallel(n_jobs=4, backend="threading")(delayed(fastsig.sigmoid)(single) for _ in range(count)):
                assert y.tobytes() == wanted[0]
        used, started = watched(work)
        assert used < 4 + processors, used
    else:
        for y in Parallel(n_jobs=2, backend="loky")(delayed(fastsig.sigmoid)(single) for _ in range(count)):
            assert y.tobytes() == wanted[0]
        numbers = Parallel(n_jobs=2, backend="loky")(delayed(fastsig.get_num_threads)() for _ in range(4))
        assert 2 * max(numbers) <= max(2, processors), numbers
        from joblib.externals.loky import get_reusable_executor
        get_reusable_executor().shutdown()
    assert right()
    print("joblib's {}")
"""

DASK = """
    from distributed import Client
    if __name__ == "__main__":
        processes = {}
        threads = 1 if processes else 4
        with Client(processes=processes, n_workers=1, threads_per_worker=threads, dashboard_address=None) as client:
            def work():
                for y in client.gather(client.map(lambda k: fastsig.sigmoid(single), range(200 if slow else 20), pure=False)):
                    assert y.tobytes() == wanted[0]
            used, started = watched(work)
            assert used < 4 + processors, used
            number = client.submit(fastsig.get_num_threads).result()
            assert number == (1 if processes else processors), number
            assert right()
        print("Dask")
"""

TORCH = """
    torch = sys.modules["torch"]
    t, shared = torch.linspace(-9, 9, 2_000_001), "torch" in parallel.runtime()[0]
    want = torch.sigmoid(t)
    assert shared, parallel.runtime()
    before = tasks()
    for _ in range(200 if slow else 20):
        assert torch.equal(torch.sigmoid(t), want) and right()
    assert tasks() == before, "torch's threads are ours"
    other = threading.Thread(target=lambda: [torch.sigmoid(t) for _ in range(100)])
    other.start()
    assert all(right() for _ in range(20))
    other.join()
    torch.set_num_threads(1)
    assert fastsig.get_num_threads() == 1 and right()
    print("torch: one team for both")
"""

SKLEARN = """
    from sklearn.cluster import KMeans
    rows = np.random.default_rng(0).normal(size=(20_000, 8))
    fit = lambda: KMeans(8, n_init=1, max_iter=20, random_state=0).fit(rows).inertia_
    want = fit()
    for _ in range(20 if slow else 3):
        assert np.isclose(fit(), want) and right()
    other = threading.Thread(target=lambda: [fit() for _ in range(3)])
    other.start()
    assert all(right() for _ in range(20))
    other.join()
    print("scikit-learn")
"""


def library(distribution, name):
    """Where an installed distribution has its shared library."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} isn't installed")
    for file in files:
        if file.name == name:
            return os.path.realpath(file.locate())
    pytest.skip(f"{distribution} has no {name} for this system")


RUNTIMES = {
    "GNU's": lambda: "system",
    "LLVM's": lambda: library("cmeel-libomp", "libomp.so"),
    "Intel's": lambda: library("intel-openmp", "libiomp5.so"),
    "none": lambda: "none",
}
each_runtime = pytest.mark.parametrize("runtime", RUNTIMES)


@pytest.fixture
def program(python):
    """Run these parts, beside the runtime that is given by its name."""

    def run(runtime, *parts, slow=False, **environment):
        code = "\n".join(map(dedent, (BEGIN, *parts)))
        environment |= {"RUNTIME": RUNTIMES[runtime](), **({"SLOW": 1} if slow else {})}
        said = python(code, warnings="ignore", timeout=1800 if slow else 600, **environment)
        print(said)
        return said.splitlines()

    return run


@each_runtime
def test_common_ways(program, runtime):
    assert len(program(runtime, *COMMON.values())) == len(COMMON)


@pytest.mark.slow
@each_runtime
@pytest.mark.parametrize("way", COMMON)
def test_common_ways_for_long(program, runtime, way):
    assert program(runtime, COMMON[way], slow=True)


CASES = {
    "fork": (MULTIPROCESSING.replace("{}", "fork"), {}),
    "spawn": (MULTIPROCESSING.replace("{}", "spawn"), {}),
    "forkserver": (MULTIPROCESSING.replace("{}", "forkserver"), {}),
    "prange on omp": (PRANGE.replace("{}", "omp"), {}),
    "prange on tbb": (PRANGE.replace("{}", "tbb"), {}),
    "prange on workqueue": (PRANGE.replace("{}", "workqueue"), {}),
    "joblib's threads": (JOBLIB.replace("{}", "threading"), {}),
    "loky": (JOBLIB.replace("{}", "loky"), {}),
    "Dask's threads": (DASK.replace("{}", "False"), {}),
    "Dask's processes": (DASK.replace("{}", "True"), {}),
    "torch": (TORCH, {"FIRST": "torch"}),
    "scikit-learn": (SKLEARN, {"FIRST": "sklearn.cluster"}),
}
NEEDS = {"joblib": "joblib", "loky": "joblib", "Dask": "distributed", "torch": "torch", "scikit": "sklearn"}
BY_DEFAULT = ("fork", "prange on omp", "joblib's threads", "loky", "Dask's threads", "torch")


def run_case(program, runtime, case, slow):
    for start, module in NEEDS.items():
        if case.startswith(start):
            pytest.importorskip(module)
    code, environment = CASES[case]
    if case.endswith("tbb"):
        code = f"ctypes.CDLL({library('tbb', 'libtbb.so.12')!r}, ctypes.RTLD_GLOBAL)\n" + dedent(code)
    assert len(program(runtime, code, slow=slow, **environment)) == 1


@pytest.mark.parametrize("case", BY_DEFAULT)
def test_beside_others(program, case):
    run_case(program, "GNU's", case, slow=False)


@pytest.mark.slow
@each_runtime
@pytest.mark.parametrize("case", CASES)
def test_beside_others_for_long(program, runtime, case):
    if case == "torch" and runtime != "GNU's":
        pytest.skip("torch brings GNU's, and fastsig takes torch's where it is loaded")
    run_case(program, runtime, case, slow=True)


ONE = """
    assert processors == 1, processors
    used, started = watched(lambda: [right() for _ in range(5)])
    assert (used <= 1, started) == (True, 0), (used, started)
    print("one thread")
"""


@pytest.fixture
def one_processor():
    """For the processes that a test starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    "runtime", [name if name == "GNU's" else pytest.param(name, marks=pytest.mark.slow) for name in RUNTIMES]
)
def test_one_processor(program, runtime, one_processor):
    assert program(runtime, ONE, NUMBA_NUM_THREADS=1)


@pytest.mark.slow
@each_runtime
def test_one_thread_for_numba(program, runtime):
    run_case(partial(program, NUMBA_NUM_THREADS=1), runtime, "prange on omp", slow=False)
