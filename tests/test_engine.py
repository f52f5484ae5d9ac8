"""Machine code: what is in it, its bits on every processor, and when it isn't used; where it is kept, see test_cache."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import platform
import re
import struct
import sys
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from conftest import ALL_DTYPES, KINDS, as_tuple, assert_same, numpy_dtype

import fastsig
from fastsig import compiler
from fastsig.kernels import KERNELS
from fastsig.losses import bce_with_logits_loss, focal_loss

TESTS = Path(__file__).parent
x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86's instruction sets")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
LOOPS = [(k, s) for k in KERNELS for s in ALL_DTYPES]
# Each function in float32, where a literal would show as double, and one of each kind in all dtypes; with -m slow, all.
loops = pytest.mark.parametrize(
    ("kernel", "storage"),
    [pytest.param(k, s, marks=() if s == "float32" or k in KINDS else pytest.mark.slow) for k, s in LOOPS],
)


# --- what is in the code -----------------------------------------------------------------------------------------------


@cache
def compiled(kernel, storage):
    """The optimised IR of a loop and its object code, as `compile_loop` makes them."""
    modules, closed = [], compiler.closed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "closed", lambda *arguments: modules.append(closed(*arguments)) or modules[-1])
        symbol, code = compiler.compile_loop(kernel, storage)
    return modules[0], symbol, code


def undefined(code):
    """The symbols that object code (ELF, 64 bits, little endian) leaves to others."""
    assert code[:6] == b"\x7fELF\2\1"
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, table + k * size) for k in range(count)]
    names = set()
    for _, kind, _, _, start, length, link, _, _, each in sections:
        for entry in range(start, start + length, each) if kind == 2 else ():  # SHT_SYMTAB
            name, _, _, where = struct.unpack_from("<IBBH", code, entry)
            if where == 0 and name:  # SHN_UNDEF
                text = sections[link][4] + name
                names.add(code[text : code.index(b"\0", text)].decode())
    return names


def allowed():
    """Without FMA in the processor, libm's."""
    return set() if "+fma" in compiler.target().features.split(",") else compiler.LIBM


@loops
def test_code_refers_to_nothing_outside(kernel, storage):
    module, symbol, code = compiled(kernel, storage)
    declared = {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")}
    assert declared <= allowed()
    assert not [g.name for g in module.global_variables if g.is_declaration]
    assert [f.name for f in module.functions if not f.is_declaration and f.linkage == llvm.Linkage.external] == [symbol]
    if sys.platform == "linux":
        assert undefined(code) <= allowed()


@loops
def test_arithmetic_is_what_was_written(kernel, storage):
    """In its own format, nothing reassociated or contracted, each fma explicit and as wide as the vectors."""
    module, _, _ = compiled(kernel, storage)
    text = str(module)
    assert not re.search(r"\b(fast|contract|reassoc|arcp|afn|nsz|nnan|ninf)\b(?=.*\b(float|double|half)\b)", text)
    own, other = ("double", "float") if storage == "float64" else ("float", "double")
    assert not re.search(rf"\b{other}\b", text)
    assert "x86_fp80" not in text
    bits = 64 if own == "double" else 32
    assert re.search(rf"call <(\d+) x {own}> @llvm\.fma\.v\1f{bits}\(", text)
    if storage == "float16":
        assert not re.search(r"\bf(add|sub|mul|div) .*\bhalf\b", text)  # comparing is exact in any format


# --- what is imported --------------------------------------------------------------------------------------------------


def test_import_is_light(python):
    code = """if True:
        import sys
        import fastsig
        dir(fastsig)
        print({"numba", "llvmlite", "fastsig.kernels", "fastsig.lanes"} & set(sys.modules))
    """
    assert python(code) == "set()"


def test_a_warm_cache_needs_no_numba(python):
    code = """if True:
        import sys
        import numpy as np, fastsig
        for name in sys.argv[1].split(","):
            for dtype in "efd":
                f = getattr(fastsig, name)
                f(*[np.ones(100_000, dtype)] * f.nin)
        print(fastsig.sigmoid(0.0), "numba" in sys.modules)
    """
    python(code, ",".join(KINDS))  # warms it
    assert python(code, ",".join(KINDS)) == "0.5 False"


# --- Numba, narrowed -----------------------------------------------------------------------------------------------------


def test_this_numba_fits(python, tmp_path):
    """A first result doesn't take all of Numba: a version that needs it would be told here. The user's own has everything."""
    code = """if True:
        import sys
        import numpy as np, fastsig
        from fastsig import frontend
        print(fastsig.sigmoid_derivative(np.float32(0.5)), frontend.WHOLE, "numba.np.arraymath" in sys.modules)
        import numba
        from numba.core.registry import cpu_target
        from numba.core.target_extension import current_target
        @numba.njit
        def user(x, word):
            return np.sort(x).sum() + min(9, len(word))
        print(user(np.arange(4.0), "eleven"), type(user).__name__, current_target())
        print(fastsig.tanh_derivative(np.float32(0.5)), frontend.WHOLE, user.overloads.popitem()[1].library.codegen is
              cpu_target.target_context.codegen())
    """
    lines = python(code, FASTSIG_CACHE_DIR=tmp_path).splitlines()
    assert lines == ["0.25 [] False", "12.0 CPUDispatcher cpu", "0.75 [] True"]


def test_a_numba_that_does_not_fit(python, tmp_path):
    """Then it is all of Numba that compiles, to the same bits."""
    code = """if True:
        import numpy as np, fastsig
        from fastsig import frontend, narrow
        del narrow.Context.post_lowering, narrow.Context.refresh
        narrow.Context.load_additional_registries = None
        x = np.linspace(-20, 20, 1001, dtype=np.float32)
        print(fastsig.sigmoid_derivative(x).tobytes().hex())
        print(len(frontend.WHOLE), fastsig.sigmoid_backward(x, x)[0], len(frontend.WHOLE))
    """
    result, told = python(code, FASTSIG_CACHE_DIR=tmp_path).splitlines()
    x = np.linspace(-20, 20, 1001, dtype=np.float32)
    assert_same(np.frombuffer(bytes.fromhex(result), np.float32), fastsig.sigmoid_derivative(x))
    assert told == f"1 {fastsig.sigmoid_backward(x, x)[0]} 1"


def test_kernels_do_not_branch_on_values(python):
    """Python would take either branch for all lanes."""
    code = """if True:
        import llvmlite.ir as ir
        from numba import types
        from fastsig import lanes
        from fastsig.constants import FLOAT32
        for wrong in (lambda x, f: f.one if x < f.zero else x, lambda x, f: x if x else f.zero, lambda x, f: x + 1.0):
            try:
                lanes.output_type(wrong, (lanes.Lanes(types.float32, 4),), FLOAT32)
            except TypeError as error:
                print(error)
    """
    told = python(code).splitlines()
    assert told == ["a kernel can't branch on its values: use select"] * 2 + ["add isn't defined for Lanes(float32, 4), 1.0"]


# --- the same bits on every processor ------------------------------------------------------------------------------------

FINGERPRINT = "from fastsig import compiler; print(compiler.fingerprint())"
WIDE = "+avx,+avx2,+fma,+f16c,+sse4.2,+popcnt,+bmi,+bmi2,+avx512f,+avx512vl,+avx512dq,+avx512bw,+avx512cd"
TARGETS = {
    "AVX-512, 512 bits": ("skylake-avx512", WIDE),
    "AVX-512, 256 bits": ("skylake-avx512", WIDE + ",+prefer-256-bit"),
    "AVX2": ("haswell", "+avx,+avx2,+fma,+f16c,+sse4.2,+popcnt,+bmi,+bmi2"),
    "AVX2 without F16C": ("haswell", "+avx,+avx2,+fma,-f16c,+sse4.2,+popcnt,+bmi,+bmi2"),
    "AVX without FMA": ("sandybridge", "+avx,-fma,-f16c,+sse4.2,+popcnt"),
    "generic": ("generic", None),
}


def chosen(target):
    cpu, features = TARGETS[target]
    return {"NUMBA_CPU_NAME": cpu} | ({} if features is None else {"NUMBA_CPU_FEATURES": features})


@x86
def test_fingerprints_of_processors(python):
    features = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx"}
    prints = [python(FINGERPRINT, **environment) for environment in (*map(chosen, TARGETS), features, {})]
    assert len(set(prints)) == len(prints)


BITS = TESTS / "bits.json"  # a digest of each function's results in each dtype; `python tests/test_engine.py` writes it anew


def every_pattern(dtype, seed):
    """Numbers all over the format, by their bits, NaN left out: all of the small formats, 2^16 of the others."""
    unsigned = np.uint64(2654435761 + 2 * seed) if seed else np.uint64(1)
    width = 8 * dtype.itemsize
    spread = (np.arange(1 << 16, dtype=np.uint64) * unsigned) % np.uint64(1 << 16)
    whole = spread << np.uint64(width - 16) | (spread * np.uint64(40503) & np.uint64((1 << width - 16) - 1))
    x = whole.astype(f"u{dtype.itemsize}").view(dtype)
    with np.errstate(invalid="ignore"):
        return np.where(np.isnan(x), np.zeros_like(x), x)


def grid(kernel, storage):
    """The arguments: labels, values and probabilities within their range."""
    dtype = numpy_dtype(storage)
    arrays = []
    for seed, name in enumerate(kernel.inputs):
        x = every_pattern(dtype, seed)
        if name in "ytp":
            with np.errstate(all="ignore"):
                a = np.abs(x)
                x = np.where(a <= 1, a, (1 / a).astype(dtype))
            x[:: 3 if name == "t" else 1 << 20] = 1
        if name == "x":  # a third of them where most happens
            x[::3] = np.linspace(-20, 20, len(x[::3])).astype(dtype)
        arrays.append(x)
    return arrays


LOSSES = "losses"


def summed(x, t):
    """What the losses give, their sums first, for logits that don't overflow them."""
    x = np.where(np.abs(x) <= 1e4, x, x.dtype.type(0))
    weighted = bce_with_logits_loss(x, t, hess=True, sample_weight=np.abs(t), pos_weight=3, label_smoothing=0.1)
    return *bce_with_logits_loss(x, t, hess=True), *weighted, *focal_loss(x, t)


def digests(functions, storages):
    """A digest of each function's results in each dtype: one call, and one that is shorter than a register."""
    found = {}
    for name in functions:
        for storage in storages:
            arrays = grid(KERNELS["bce_with_logits" if name == LOSSES else name], storage)
            function = summed if name == LOSSES else getattr(fastsig, name)
            digest = hashlib.sha256()
            for part in (slice(None), slice(5, 12)):
                for a in as_tuple(function(*[a[part] for a in arrays])):
                    digest.update(np.where(np.isnan(a), np.full_like(a, np.nan), a).tobytes())
            found[f"{name} {storage}"] = digest.hexdigest()[:16]
    return found


DIGESTS = """if True:
    import json, sys
    sys.path.insert(0, sys.argv[1])
    from fastsig import compiler
    from test_engine import digests
    print(compiler.target().instructions)
    print(json.dumps(digests(sys.argv[2].split(","), sys.argv[3].split(","))))
"""


def lacks(target):
    """The features of a target that this machine doesn't have."""
    here = llvm.get_host_cpu_features() if platform.machine() in ("x86_64", "AMD64") else {}
    wanted = (TARGETS[target][1] or "").split(",")
    return [f[1:] for f in wanted if f.startswith("+") and f != "+prefer-256-bit" and not here.get(f[1:], False)]


# The smaller formats are float32 and one conversion, which depends on the kind of loop alone; with -m slow, all.
ON_RECORD = [
    pytest.param(name, storage, marks=() if storage in ("float32", "float64") or name in KINDS else pytest.mark.slow)
    for name in (*KERNELS, LOSSES)
    for storage in ALL_DTYPES
]


@pytest.mark.parametrize(("name", "storage"), ON_RECORD)
def test_same_bits_as_on_record(name, storage):
    """Those that every processor so far has given."""
    assert digests((name,), (storage,)) == {f"{name} {storage}": json.loads(BITS.read_text())[f"{name} {storage}"]}


SOME = ("sigmoid_value_and_grad", "logit", "silu", "tanh", "bce_with_logits")


@x86
@pytest.mark.parametrize(
    ("target", "functions", "storages"),
    [
        ("AVX2", (*SOME, LOSSES), ("float32",)),
        ("AVX2", ("sigmoid_vjp",), ALL_DTYPES),
        ("AVX2 without F16C", ("sigmoid",), ("float16",)),
        ("AVX-512, 512 bits", (*SOME, LOSSES), ("float32",)),
        ("AVX-512, 256 bits", SOME, ("float32",)),
        ("generic", (*SOME, LOSSES), ("float32",)),
        ("generic", ("sigmoid_vjp",), ALL_DTYPES),
        *(pytest.param(target, (*KERNELS, LOSSES), ALL_DTYPES, marks=pytest.mark.slow) for target in TARGETS),
    ],
    ids=lambda value: value if isinstance(value, str) else str(len(value)),
)
def test_same_bits_on_other_processors(python, target, functions, storages):
    if missing := lacks(target):
        pytest.skip(f"this machine has no {', no '.join(missing)}: it can't run {target}")
    program = DIGESTS, TESTS, ",".join(functions), ",".join(storages)
    instructions, there = python(*program, timeout=3000, **chosen(target)).splitlines()
    assert instructions.startswith({"generic": "SSE2"}.get(target, re.split("[, ]", target)[0]))
    known = json.loads(BITS.read_text())
    assert json.loads(there) == {f"{name} {storage}": known[f"{name} {storage}"] for name in functions for storage in storages}


@x86
def test_code_without_fma_refers_to_libm_alone(python):
    code = """if True:
        import sys
        sys.path.insert(0, sys.argv[1])
        from fastsig import compiler
        from test_engine import undefined
        for storage in ("float16", "float32", "float64"):
            print(*undefined(compiler.compile_loop("sigmoid_value_and_grad", storage)[1]))
    """
    if sys.platform == "linux":
        assert python(code, TESTS, **chosen("generic")).splitlines() == ["fmaf", "fmaf", "fma"]


# --- first calls, forks, other processes ---------------------------------------------------------------------------------


def test_first_calls_at_once(python, tmp_path):
    """Sixteen threads want a function that isn't compiled: it is compiled once, and all get its results."""
    code = """if True:
        import threading
        import numpy as np, fastsig
        from fastsig import compiler
        compiled, original, together, right = [], compiler.made_loop, threading.Barrier(16), []
        compiler.made_loop = lambda *which: compiled.append(which[:2]) or original(*which)
        def work(n):
            together.wait(60)
            dtype = ("float32", "float64")[n % 2]
            right.append((fastsig.sigmoid(np.zeros(n * 1000 + 1, dtype)) == 0.5).all())
        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print(len(right), all(right), sorted(compiled))
    """
    assert python(code, FASTSIG_CACHE_DIR=tmp_path) == "16 True [('sigmoid', 'float32'), ('sigmoid', 'float64')]"


def test_first_use_of_a_name_at_once(python):
    """All threads get the same ufunc."""
    code = """if True:
        import threading
        import fastsig
        together, got = threading.Barrier(16), []
        def work():
            together.wait(60)
            got.append(fastsig.sigmoid)
        threads = [threading.Thread(target=work) for _ in range(16)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print(len(got), len(set(map(id, got))), got[0] is fastsig.sigmoid)
    """
    assert python(code) == "16 1 True"


def test_a_loop_that_cannot_be_had(python, tmp_path):
    """NumPy's loops have no way to raise: all is NaN, with NumPy's warning; the reason is told, the next call tries again."""
    code = """if True:
        import sys, warnings
        import numpy as np, fastsig
        told = []
        sys.unraisablehook = lambda report: told.append(type(report.exc_value).__name__)
        sys.modules["numba"] = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = fastsig.sigmoid_value_and_grad(np.ones((3, 1000))[:, ::2])
        print(all(np.isnan(r).all() for r in results), {str(w.message) for w in caught}, set(told))
        del sys.modules["numba"]
        print(fastsig.sigmoid_value_and_grad(0.0))
    """
    failed, mended = python(code, FASTSIG_CACHE_DIR=tmp_path).splitlines()
    assert failed == "True {'invalid value encountered in sigmoid_value_and_grad'} {'ModuleNotFoundError'}"
    assert mended == "(np.float64(0.5), np.float64(0.25))"


FORKED = """if True:
    import os, signal, sys
    {before}
    import numpy as np, fastsig
    x = np.zeros(1_000_000, np.float32)
    def right():
        return bool((fastsig.sigmoid(x) == 0.5).all() and (fastsig.sigmoid_grad(x.astype("d")) == 0.25).all())
    {here}
    for _ in range({times}):
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # whoever hangs is ended
            os._exit(0 if right() and fastsig.get_num_threads() == {threads} else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
    {after}
    print(right())
"""


@forks
def test_fork_after_a_parallel_call(python):
    code = FORKED.format(before="", here="fastsig.set_num_threads(2); right()", times=2, threads=1, after="")
    assert python(code, warnings="default") == "True"


@forks
def test_fork_before_the_first_call(python):
    """Nothing has happened yet, so that the child may have threads of its own."""
    threads = "min(3, len(os.sched_getaffinity(0)))"
    code = FORKED.format(before="", here="", times=2, threads=threads, after="")
    assert python(code, warnings="default", OMP_NUM_THREADS=3) == "True"


@forks
def test_fork_while_others_compute(python):
    """A fork may happen inside another thread's parallel call."""
    here = "import threading; go = True; work = lambda: [right() for _ in iter(lambda: go, False)]; right(); "
    here += "others = [threading.Thread(target=work) for _ in range(2)]; [t.start() for t in others]"
    code = FORKED.format(before="", here=here, times=20, threads=1, after="go = False; [t.join() for t in others]")
    assert python(code, warnings="default", OMP_NUM_THREADS=2) == "True"


@forks
@pytest.mark.parametrize("library", ["torch", "sklearn"])
def test_fork_after_another_library_used_the_runtime(python, library):
    """It is theirs that is shared, and that the child can't enter, even if we hadn't called it before the fork."""
    pytest.importorskip(library)
    before = {
        "torch": "import torch; torch.set_num_threads(2); torch.exp(torch.ones(2_000_000))",
        "sklearn": "import numpy as np; from sklearn.metrics import pairwise_distances_argmin as f; "
        "f(np.random.rand(3000, 8), np.random.rand(3000, 8))",
    }[library]
    code = FORKED.format(before=before, here="", times=1, threads="fastsig.get_num_threads()", after="")
    assert python(code, warnings="default", OMP_NUM_THREADS=2) == "True"


@pytest.mark.parametrize("method", [pytest.param("fork", marks=forks), "spawn"])
def test_pickles_between_processes(python, method):
    code = """if True:
        import multiprocessing, sys
        import numpy as np, fastsig
        if __name__ == "__main__":
            arrays = [np.full(100_000, k, np.float32) for k in range(4)]
            wanted = [fastsig.sigmoid(a) for a in arrays]
            with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
                print(all(map(np.array_equal, pool.map(fastsig.sigmoid, arrays), wanted)))
    """
    assert python(code, method, warnings="default") == "True"


def test_pickles_of_other_processes(python, ufunc, name):
    code = f"import pickle, fastsig; print(pickle.dumps(fastsig.{name}).hex())"
    assert pickle.loads(bytes.fromhex(python(code))) is ufunc


def test_code_that_was_loaded_equals_code_that_was_compiled(python, tmp_path, dtype):
    code = """if True:
        import sys
        import numpy as np, fastsig
        x = np.linspace(-20, 20, 1001).astype(sys.argv[1])
        print(fastsig.sigmoid_grad(x).tobytes().hex())
    """
    x = np.linspace(-20, 20, 1001).astype(dtype)
    for _ in range(2):
        got = np.frombuffer(bytes.fromhex(python(code, dtype.name, FASTSIG_CACHE_DIR=tmp_path)), dtype)
        assert_same(got, fastsig.sigmoid_grad(x))


# --- found by trying to break it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["NUMBA_DISABLE_JIT", "NUMBA_DEBUGINFO", "NUMBA_BOUNDSCHECK"])
def test_numbas_debugging_settings_are_not_for_us(python, setting, tmp_path):
    code = "import fastsig; print(fastsig.sigmoid(0.0))"
    assert python(code, FASTSIG_CACHE_DIR=tmp_path / "cache", **{setting: 1}) == "0.5"


@forks
def test_fork_while_another_thread_compiles(python, tmp_path):
    """At any time: while Numba is imported, while it works, afterwards. The fork waits, and the child finds all it needs."""
    code = """if True:
        import os, signal, sys, threading, time
        import numpy as np, fastsig
        sigmoid = fastsig.sigmoid
        thread = threading.Thread(target=lambda: sigmoid(np.zeros(5)))
        thread.start()
        time.sleep(float(sys.argv[1]))
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if (sigmoid(np.zeros(5)) == 0.5).all() else 3)
        thread.join()
        print(os.waitpid(child, 0)[1])
    """
    for k, pause in enumerate((0.05, 0.2, 0.5, 1)):
        folder = tmp_path / str(k)
        for _ in range(2):  # the second time it is loaded
            assert python(code, pause, FASTSIG_CACHE_DIR=folder, warnings="ignore", timeout=100) == "0", pause


@forks
def test_a_forked_child_that_imports_first(python):
    pytest.importorskip("torch", reason="torch isn't installed")
    code = """if True:
        import os, signal
        import numpy as np, torch
        torch.set_num_threads(2)
        torch.exp(torch.ones(4_000_000))
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            import fastsig
            os._exit(0 if (fastsig.sigmoid(np.zeros(1_000_000, "f")) == 0.5).all() else 3)
        print(os.waitpid(child, 0)[1])
    """
    assert python(code, warnings="ignore") == "0"


if __name__ == "__main__":
    BITS.write_text(json.dumps(digests((*KERNELS, LOSSES), ALL_DTYPES), indent=1) + "\n")
