"""Threads: how many is a setting, not a result."""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread

import numpy as np
import pytest
from conftest import KINDS, as_tuple, assert_same, inputs

import fastsig
from fastsig import parallel

BIG = 200_000
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
needs_runtime = pytest.mark.skipif(parallel.runtime() is None, reason="there is no OpenMP runtime on this machine")
ANY_NUMBER = "parallel.connect(); parallel.WORDS[parallel.PROCESSORS] = 0"  # of threads, whatever the machine has


@pytest.fixture(autouse=True)
def any_number(words):
    """As many threads as one asks for; and no test leaves its setting to the next."""
    words[parallel.PROCESSORS] = words[parallel.LIMIT] = 0
    words[parallel.QUOTA] = parallel.MOST


@needs_runtime
def test_set_and_get():
    for n in (3, 1, 2, np.int64(5), np.uint8(4)):
        fastsig.set_num_threads(n)
        assert fastsig.get_num_threads() == n
        assert type(fastsig.get_num_threads()) is int


@needs_runtime
def test_context():
    fastsig.set_num_threads(3)
    with fastsig.num_threads(2):
        assert fastsig.get_num_threads() == 2
        with fastsig.num_threads(5):
            assert fastsig.get_num_threads() == 5
        assert fastsig.get_num_threads() == 2
    assert fastsig.get_num_threads() == 3


@needs_runtime
def test_context_restores_after_an_exception():
    fastsig.set_num_threads(3)
    with pytest.raises(KeyError), fastsig.num_threads(1):
        raise KeyError
    assert fastsig.get_num_threads() == 3


@needs_runtime
def test_context_restores_the_default():
    """Not as a number: what the runtime is told later still counts."""
    default = fastsig.get_num_threads()
    with fastsig.num_threads(default + 1):
        assert fastsig.get_num_threads() == default + 1
    assert fastsig.get_num_threads() == default
    assert parallel.WORDS[parallel.LIMIT] == 0


@needs_runtime
def test_context_is_a_decorator_too():
    @fastsig.num_threads(2)
    def threads():
        return fastsig.get_num_threads()

    fastsig.set_num_threads(3)
    assert (threads(), threads(), fastsig.get_num_threads()) == (2, 2, 3)


BAD = [
    (0, ValueError),
    (-1, ValueError),
    (np.int64(-2), ValueError),
    (1.5, TypeError),
    (2.0, TypeError),
    ("2", TypeError),
    (True, TypeError),
    (np.True_, TypeError),
    (None, TypeError),
    ([2], TypeError),
]


@pytest.mark.parametrize(("bad", "error"), BAD, ids=repr)
def test_bad_number(bad, error):
    """The message names the value; the setting stays."""
    before = fastsig.get_num_threads()
    with pytest.raises(error) as caught:
        fastsig.set_num_threads(bad)
    assert repr(bad) in str(caught.value)
    with pytest.raises(error) as caught, fastsig.num_threads(bad):
        pytest.fail("the block was entered")
    assert repr(bad) in str(caught.value)
    assert fastsig.get_num_threads() == before


@pytest.mark.parametrize("number", [100_000, 2**31, 2**32 + 1, 2**64 + 1])
def test_more_threads_than_any_machine_has(python, number):
    """They count as 1,024, and do no harm."""
    code = f"""if True:
        import numpy as np, fastsig
        from fastsig import parallel
        fastsig.set_num_threads({number})
        for _ in range(2):
            print((fastsig.sigmoid(np.zeros(1_000_000, np.float32)) == 0.5).all(), fastsig.get_num_threads() <= 1024)
            {ANY_NUMBER}
    """
    assert python(code).split() == ["True"] * 4


COUNTING = """if True:
    import os, sys
    import numpy as np, fastsig
    from fastsig import parallel
    {many}
    x = np.zeros(1_000_000, np.float32)
    fastsig.sigmoid(x[:10])
    before = len(os.listdir("/proc/self/task"))
    {setting}
    assert (fastsig.sigmoid(x) == 0.5).all()
    print(len(os.listdir("/proc/self/task")) - before)
"""

# --- how many there may be -----------------------------------------------------------------------------------------------

AVAILABLE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
NUMBER = "import fastsig; print(fastsig.get_num_threads())"
several = pytest.mark.skipif(AVAILABLE < 2, reason="there is one processor")
needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="the system doesn't tie processes to processors"
)


@needs_runtime
@several
@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({}, AVAILABLE),
        ({"OMP_NUM_THREADS": 1}, 1),
        ({"FASTSIG_NUM_THREADS": 1}, 1),
        ({"FASTSIG_NUM_THREADS": " 2 ", "OMP_NUM_THREADS": 1}, 2),
        ({"FASTSIG_NUM_THREADS": "", "OMP_NUM_THREADS": 1}, 1),
        ({"FASTSIG_NUM_THREADS": 1000}, AVAILABLE),
        ({"OMP_NUM_THREADS": AVAILABLE + 1}, AVAILABLE),
    ],
    ids=str,
)
def test_variables(python, variables, number):
    """Ours counts before OpenMP's, and none more than the processors."""
    assert python(NUMBER, **variables) == str(number)


@needs_runtime
@several
def test_what_is_set_counts_most(python):
    code = "import fastsig; fastsig.set_num_threads(2); print(fastsig.get_num_threads())"
    assert python(code, FASTSIG_NUM_THREADS=1, OMP_NUM_THREADS=1) == "2"


@pytest.mark.parametrize("text", ["0", "abc", "-3", "10**9", str(10**9), str(10**30), "2.0", "1_0", "\u0662", "1025", "nan"])
def test_nonsense(text):
    """One warning, which names the variable and its value; it is as if it weren't set."""
    with pytest.warns(RuntimeWarning, match=rf"^FASTSIG_NUM_THREADS={re.escape(repr(text))} .* 1 to 1,024") as caught:
        assert parallel.from_environment(text) == 0
    assert len(caught) == 1


@needs_runtime
@pytest.mark.parametrize("how", ["always", "error"])
def test_nonsense_in_the_environment(python, how):
    """It is said once, and as an error it fails nothing: then it goes to standard error."""
    code = """if True:
        import contextlib, io, warnings
        told = io.StringIO()
        with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(told):
            warnings.simplefilter("{how}")
            import fastsig
            print(fastsig.sigmoid(0.0), fastsig.tanh(0.0), fastsig.get_num_threads())
        lines = [str(w.message) for w in caught] + told.getvalue().splitlines()
        print(len(lines), lines[0].split()[0])
    """
    right = f"0.5 0.0 {AVAILABLE}\n1 FASTSIG_NUM_THREADS='abc'"
    assert python(code.format(how=how), FASTSIG_NUM_THREADS="abc") == right


@needs_runtime
@needs_affinity
@several
def test_processors_that_a_process_may_use(python):
    """From the beginning, after a change, and back; whatever was set."""
    code = """if True:
        import os
        import numpy as np, fastsig
        all, x = os.sched_getaffinity(0), np.linspace(-9, 9, 1_000_000)
        want = fastsig.sigmoid(x)
        for number in (None, 2):
            if number:
                fastsig.set_num_threads(number)
            for allowed in ({min(all)}, all):
                os.sched_setaffinity(0, allowed)
                print(fastsig.get_num_threads(), np.array_equal(fastsig.sigmoid(x), want))
    """
    first, last = f"1 True {AVAILABLE} True".split(), ["1", "True", "2", "True"]
    assert python(code).split() == first + last
    assert python("import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + NUMBER) == "1"


@LINUX
@needs_runtime
def test_a_quota(python):
    """Of a container: no more threads than it pays for are started."""
    setting = "parallel.connect(); parallel.WORDS[parallel.QUOTA] = {}"
    for quota, started in ((1, "0"), (3, "2")):
        code = COUNTING.format(many=ANY_NUMBER, setting=setting.format(quota))
        assert python(code, OMP_NUM_THREADS=4) == started
        assert python(code, OMP_NUM_THREADS=1, FASTSIG_NUM_THREADS=4) == started


def test_large_calls_share_the_processors(words, dtype):
    """What others use is left to them; afterwards all is free again."""
    (x,) = inputs("sigmoid", dtype, (BIG,))
    want = fastsig.sigmoid(x)
    for others in (0, 1, parallel.MOST, 10 * parallel.MOST):
        words[parallel.IN_USE] = others
        assert_same(fastsig.sigmoid(x), want)
        assert (words[parallel.IN_USE], words[parallel.BUSY]) == (others, 0)


def test_all_numbers_of_threads_agree(ufunc, name, dtype):
    arrays = inputs(name, dtype, (BIG,))
    with fastsig.num_threads(1):
        want = ufunc(*arrays)
    for n in (2, 3, 4, 5, 8, 16, 33):
        with fastsig.num_threads(n):
            assert_same(ufunc(*arrays), want, f"{n} threads,")


def test_more_threads_than_lines(ufunc, name, dtype, words):
    """Some get nothing to do."""
    words[parallel.PARALLEL] = 0
    for n in (0, 1, 2, 63, 64, 65, 200):
        arrays = inputs(name, dtype, (n,))
        with fastsig.num_threads(1):
            want = ufunc(*arrays)
        with fastsig.num_threads(16):
            assert_same(ufunc(*arrays), want, f"{n} elements,")


def test_concurrent_calls(dtype):
    """One of them has the team, the others go on alone."""
    cases = [(getattr(fastsig, name), inputs(name, dtype, (BIG + k,))) for k, name in enumerate(KINDS)]
    wanted = [ufunc(*arrays) for ufunc, arrays in cases]
    together = Barrier(len(cases))

    def work(case):
        ufunc, arrays = case
        together.wait(60)
        return [ufunc(*arrays) for _ in range(10)]

    with ThreadPoolExecutor(len(cases)) as pool:
        for results, want in zip(pool.map(work, cases), wanted, strict=True):
            for result in results:
                assert_same(result, want)


def test_setting_while_computing(dtype):
    """Calls go on while another thread changes the number."""
    (x,) = inputs("sigmoid", dtype, (BIG,))
    want, done = fastsig.sigmoid(x), []

    def change():
        for k in range(2000):
            fastsig.set_num_threads(1 + k % 4)
            if done:
                break

    other = Thread(target=change)
    other.start()
    try:
        for _ in range(50):
            assert_same(fastsig.sigmoid(x), want)
    finally:
        done.append(True)
        other.join()


def test_large_and_not_contiguous(ufunc, name, dtype):
    arrays = inputs(name, dtype, (300, 700))
    want = as_tuple(ufunc(*arrays))
    assert_same(ufunc(*[np.asfortranarray(a) for a in arrays]), want)
    assert_same(ufunc(*[a.T for a in arrays]), tuple(a.T for a in want))
    assert_same(ufunc(*[a[::-1, ::2] for a in arrays]), tuple(a[::-1, ::2] for a in want))


# --- in other processes ------------------------------------------------------------------------------------------------


@LINUX
@needs_runtime
@pytest.mark.parametrize("n", [1, 2, 4])
def test_as_many_threads_run(python, n):
    assert python(COUNTING.format(many=ANY_NUMBER, setting=""), OMP_NUM_THREADS=n) == str(n - 1)
    assert python(COUNTING.format(many=ANY_NUMBER, setting=f"fastsig.set_num_threads({n})"), OMP_NUM_THREADS=3) == str(n - 1)


@LINUX
@needs_runtime
def test_small_calls_start_no_threads(python):
    assert python(COUNTING.format(many=ANY_NUMBER, setting="x = x[:1000]"), OMP_NUM_THREADS=4) == "0"


@needs_runtime
def test_the_runtimes_own_setting_counts(python):
    code = """if True:
        import fastsig
        from fastsig import parallel
        {many}
        parallel.runtime()[1].omp_set_num_threads(5)
        print(fastsig.get_num_threads())
    """
    assert python(code.format(many=ANY_NUMBER)) == "5"


def test_torchs_setting_counts(python):
    pytest.importorskip("torch")
    code = """if True:
        import torch, fastsig
        from fastsig import parallel
        {many}
        for n in (1, 3):
            torch.set_num_threads(n)
            print(fastsig.get_num_threads())
    """
    assert python(code.format(many=ANY_NUMBER), warnings="default").split() == ["1", "3"]


def test_without_a_runtime(python):
    code = """if True:
        import numpy as np, fastsig
        from fastsig import parallel
        parallel.SYSTEM.clear()
        assert parallel.runtime() is None
        fastsig.set_num_threads(4)
        assert (fastsig.sigmoid(np.zeros(1_000_000, np.float32)) == 0.5).all()
        print(fastsig.get_num_threads())
    """
    assert python(code) == "1"


@LINUX
@needs_runtime
def test_one_team_beside_the_main_threads(python):
    """GNU's runtime keeps a team for each caller: of those that live one has any, and another when it has ended."""
    code = f"""if True:
        import os, threading
        import numpy as np, fastsig
        from fastsig import parallel
        {ANY_NUMBER}
        fastsig.set_num_threads(3)
        x, before, go = np.zeros(1_000_000, np.float32), len(os.listdir("/proc/self/task")), threading.Event()
        def work(called):
            assert (fastsig.sigmoid(x) == 0.5).all()
            called.set()
            go.wait()
        def call(count):
            threads = []
            for _ in range(count):
                called = threading.Event()
                threads.append(threading.Thread(target=work, args=(called,)))
                threads[-1].start()
                called.wait()
            print(len(os.listdir("/proc/self/task")) - before - count)
            go.set()
            [thread.join() for thread in threads]
            go.clear()
        call(1)
        parallel.WORDS[parallel.SINCE] = 2**40  # it is never too long ago
        call(2)
        parallel.WORDS[parallel.SINCE] = 2**40
        work(go)
        print(len(os.listdir("/proc/self/task")) - before)
    """
    assert python(code).split() == ["2", "2", "2"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has such files")
def test_names_in_any_encoding(python, tmp_path):
    """Mapped files, and programs, may have names that aren't UTF-8."""
    code = """if True:
        import mmap, os, sys
        import numpy as np
        path = os.fsencode(sys.argv[1]) + b"/\\xfc.bin"
        with open(path, "w+b") as file:
            file.truncate(4096)
            mapped = mmap.mmap(file.fileno(), 4096)
        with open("/proc/self/comm", "wb") as name:
            name.write(b"\\xc3")
        import fastsig
        print(fastsig.sigmoid(np.zeros(3)).tolist(), fastsig.get_num_threads() >= 1)
    """
    assert python(code, tmp_path) == "[0.5, 0.5, 0.5] True"
