"""Inner loops to machine code: Numba compiles, `store` keeps, llvmlite loads. Numba is imported to compile only.

A loop's object code holds no reference to anything outside itself (but libm's `fma`, on a processor without one), so that
a later process needs llvmlite alone to run it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from fastsig import interrupts, store

SOURCES = (
    "constants",
    "instructions",
    "kernels",
    "lanes",
    "parallel",
    "narrow",
    "frontend",
    "loops",
    "compiler",
)  # all that a loop's code depends on
MORE_SOURCES = ("trainer", "regression", "bench/moving")  # other modules with code to compile, each for itself
SEPARATE = "whole"  # the one function that isn't inlined: it holds the kernel, and is called from several places
LIBM = {"fma", "fmaf"}
HEAD = re.compile(
    r'^(?P<start>define .*?@"?(?P<name>[^"(]+)"?\(.*?) (?P<end>(?:personality .*)?\{)$', re.MULTILINE
)  # of a function
ARM = llvm.get_default_triple().startswith(("aarch64", "arm64"))
LOADED: list[Any] = []  # engines own the code that NumPy points to, for the life of the process


class CompileError(RuntimeError):
    """The compiler produced code that refers to something outside itself."""


@dataclass(frozen=True)
class Target:
    """The processor that code is made for. NUMBA_CPU_NAME and NUMBA_CPU_FEATURES choose another than this machine's."""

    cpu: str
    features: str

    @property
    def register(self) -> int:
        """Bytes of its widest vector register."""
        enabled = self.features.split(",")
        wide = "+avx512f" in enabled and not self.halved
        return 64 if wide else 32 if "+avx" in enabled else 16

    @property
    def halved(self) -> bool:
        """Whether it is to use half of its registers: with NUMBA_CPU_FEATURES="...,+prefer-256-bit"."""
        return "+prefer-256-bit" in self.features.split(",")

    @property
    def half(self) -> bool:
        """Whether it converts float16 itself."""
        return "+f16c" in self.features.split(",") or ARM

    @property
    def instructions(self) -> str:
        """Its instruction set, for people."""
        enabled = self.features.split(",")
        names = {64: "AVX-512", 32: "AVX-512, 256 bits" if "+avx512f" in enabled else "AVX2" if "+avx2" in enabled else "AVX"}
        width = names.get(self.register, "NEON" if ARM else "SSE2")
        fused = "+fma" in enabled or width in ("AVX-512", "NEON")
        return width if fused else f"{width}, no FMA (slow)"


@cache
def target() -> Target:
    cpu = os.environ.get("NUMBA_CPU_NAME")
    features = os.environ.get("NUMBA_CPU_FEATURES", "" if cpu == "generic" else None)
    if features is None:
        features = llvm.get_host_cpu_features().flatten()
    wrong = [feature for feature in features.split(",") if feature and feature[0] not in "+-"]
    if wrong:
        raise ValueError(f"NUMBA_CPU_FEATURES must be a comma list of +feature and -feature, not {wrong[0]!r}")
    if "+avx512f" in features.split(",") and "prefer-256-bit" not in features:
        features += ",-prefer-256-bit"  # Intel targets default to half their registers: a third slower here
    return Target(cpu or llvm.get_host_cpu_name(), features)


@cache
def machine() -> Any:
    """LLVM's code generator for the target."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    chosen = target()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=chosen.cpu, features=chosen.features, opt=3, codemodel="jitdefault", jit=True
    )


# --- one at a time, and forks --------------------------------------------------------------------------------------------

LOCK = threading.RLock()


def lock() -> threading.RLock:
    """What is held while a loop is loaded or compiled."""
    return LOCK


HELD = threading.local()  # `stack`: what this thread's fork has acquired


def before_fork() -> None:
    with interrupts.held(again=False) as waiting:  # Ctrl-C here would have the fork go on without the lock
        LOCK.acquire()
    HELD.__dict__.setdefault("stack", []).append((LOCK, waiting))


def after_fork() -> None:
    stack = HELD.__dict__.get("stack")
    if stack:  # a hook that was registered while the fork waited has acquired nothing
        acquired, waiting = stack.pop()
        acquired.release()
        _last = waiting.after_return()


def renew_lock() -> None:
    global LOCK
    LOCK = threading.RLock()
    HELD.__dict__.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=renew_lock)


@cache
def hold_forks(compiling: bool = False) -> None:
    """From now on a fork waits for what is compiled or loaded: the child would find Numba's or llvmlite's lock held for ever.

    Hooks run in the reverse order of their registration. Those of logging and of concurrent.futures take locks that Numba
    may want, so ours is registered once more after them, before it compiles; to load code doesn't need their 25 ms.
    """
    if compiling:
        import concurrent.futures.thread  # noqa: F401
        import logging  # noqa: F401

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before_fork, after_in_parent=after_fork)


@dataclass(frozen=True)
class Program:
    """A function to compile, and the name under which it is kept.

    `make` gives its Numba signature and its Python source; `source` is the one of MORE_SOURCES that it comes from, if any.
    """

    name: str
    make: Callable[[Target], tuple[Any, Callable[..., Any]]]
    source: str = ""

    @property
    def path(self) -> Path | None:
        folder = store.cache_folder()
        return folder and folder / f"{self.name}-{fingerprint(self.source)}.o"

    @property
    def kept(self) -> bool:
        return self.path is not None and store.read(self.path) is not None

    @interrupts.held()
    def address(self) -> int:
        """Of the compiled function: loaded, or compiled and kept."""
        path = self.path
        code = store.read(path) if path else None
        hold_forks(compiling=code is None)
        if code is None:
            code = compile_program(self.make)
            if path and unchanged():
                store.write(path, code)
        return load(*code)


def program(name: str, make: Callable[[Target], tuple[Any, Callable[..., Any]]], source: str = "") -> int:
    """The address of a compiled function: loaded, or compiled and kept under `name`."""
    return Program(name, make, source).address()


def inner_loop(name: str, storage: str) -> Program:
    """The inner loop of the public function `name` for arrays of `storage`."""
    return Program(f"{name}-{storage}", lambda chosen: made_loop(name, storage, chosen))


def loss_loop(name: str, storage: str, outputs: int, summed: bool) -> Program:
    """The loop over the terms `name` of a loss."""

    def made(chosen: Target) -> tuple[Any, Callable[..., Any]]:
        from fastsig import loops
        from fastsig.kernels import TERMS

        return loops.SIGNATURE, loops.loss_loop(TERMS[name], storage, chosen.register, chosen.half, outputs, summed)

    return Program(f"{name}-{outputs}-{'sum' if summed else 'each'}-{storage}", made)


# --- compiling ---------------------------------------------------------------------------------------------------------


def made_loop(name: str, storage: str, chosen: Target) -> tuple[Any, Callable[..., Any]]:
    from fastsig import loops
    from fastsig.kernels import KERNELS

    return loops.SIGNATURE, loops.inner_loop(KERNELS[name], storage, chosen.register, chosen.half)


def compile_loop(name: str, storage: str) -> tuple[str, bytes]:
    """The symbol and object code of an inner loop."""
    return compile_program(lambda chosen: made_loop(name, storage, chosen))


def compile_program(make: Callable[[Target], tuple[Any, Callable[..., Any]]]) -> tuple[str, bytes]:
    """The function's symbol and object code."""
    hold_forks(compiling=True)
    from fastsig import frontend, loops

    interrupts.safe_point()
    with numba_as_meant():
        try:
            symbol, module = closed_module(make)
        except Exception as error:
            if frontend.WHOLE:
                raise
            frontend.WHOLE.append(f"{type(error).__name__}: {error}")  # `info` can tell
            loops.sharing.cache_clear()  # of the other target
            loops.watching.cache_clear()
            symbol, module = closed_module(make)
    interrupts.safe_point()
    return symbol, machine().emit_object(module)


def closed_module(make: Callable[[Target], tuple[Any, Callable[..., Any]]]) -> tuple[str, Any]:
    from fastsig import frontend

    symbol, module = frontend.compiled(*make(target()))
    return symbol, closed(str(module), symbol)


@contextmanager
def numba_as_meant() -> Iterator[None]:
    """Numba's settings for debugging the user's own functions (NUMBA_DISABLE_JIT, NUMBA_OPT ...) are not for these."""
    from numba.core import config
    from numba.core.compiler_lock import global_compiler_lock

    meant = {"DISABLE_JIT": 0, "DEBUGINFO_DEFAULT": 0, "BOUNDSCHECK": 0, "OPT": config._OptLevel(3)}
    with global_compiler_lock:  # nor are these for a function that another thread compiles meanwhile
        before = {setting: getattr(config, setting) for setting in meant if hasattr(config, setting)}
        for setting in before:
            setattr(config, setting, meant[setting])
        try:
            yield
        finally:
            for setting, value in before.items():
                setattr(config, setting, value)


def closed(assembly: str, symbol: str) -> Any:
    """The module with `symbol` alone visible and the rest inlined: Numba's error paths go, and all they refer to."""
    # LLVM follows the preference for half of its registers only where no function asks for wider vectors.
    preference = '"min-legal-vector-width"="0" "prefer-vector-width"="256" ' if target().halved else ""

    def marked(head: re.Match[str]) -> str:
        """In text: llvmlite 0.45 takes a function's attribute for its result's."""
        inlining = "" if head["name"] == symbol else "noinline " if SEPARATE in head["name"] else "alwaysinline "
        return f"{head['start']} {preference}{inlining}{head['end']}"

    module = llvm.parse_assembly(HEAD.sub(marked, assembly))
    for function in module.functions:
        if not function.is_declaration and function.name != symbol:
            function.linkage = "internal"
    inline(module)
    optimise(module)
    outside = foreign(module)
    if outside:  # LLVM 20 sees only then what LLVM 22 saw at once
        optimise(module)
        outside = foreign(module)
    if outside:
        raise CompileError(f"the compiled function {symbol} refers to {', '.join(sorted(outside))}")
    return module


def foreign(module: Any) -> set[str]:
    """The functions that it refers to, and that are neither LLVM's nor libm's."""
    return {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")} - LIBM


def optimise(module: Any) -> None:
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.loop_unrolling = True
    builder = llvm.create_pass_builder(machine(), tuning)
    builder.getModulePassManager().run(module, builder)


def inline(module: Any) -> None:
    """Bring a function together, so that it is seen that nothing in it can raise: `whole` tells its callers the same."""
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_ipsccp_pass()
    passes.run(module, llvm.create_pass_builder(machine(), llvm.create_pipeline_tuning_options(speed_level=0)))


def load(symbol: str, code: bytes) -> int:
    """Object code to the address of its symbol."""
    if b"\0fma" in code:
        libm = ctypes.CDLL("libm.so.6" if sys.platform == "linux" else None)
        for function in LIBM:
            address = ctypes.cast(getattr(libm, function), ctypes.c_void_p).value
            llvm.add_symbol(function, address)
    generator = machine_for_loading()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), generator)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    LOADED.append(engine)
    return int(engine.get_function_address(symbol))


def machine_for_loading() -> Any:
    """A code generator of the engine's own: it takes possession of it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(jit=True)


# --- what the code depends on ------------------------------------------------------------------------------------------


def digests() -> dict[str, bytes]:
    """Of each source as it is on the disk."""
    here = Path(__file__).parent
    return {source: hashlib.sha256((here / f"{source}.py").read_bytes()).digest() for source in (*SOURCES, *MORE_SOURCES)}


IMPORTED = digests()  # before any of them but this one is imported


def unchanged() -> bool:
    """Whether the sources are still those that this process has imported: else what it compiles is nobody else's.

    An upgrade under a running process would otherwise have it keep the old version's code as the new one's.
    """
    try:
        return digests() == IMPORTED and as_written()
    except OSError:
        return False


@cache
def as_written() -> bool:
    """Whether what Python keeps of the sources (.pyc) is what they say: it goes by their size and time alone."""
    for source in (*SOURCES, *MORE_SOURCES):
        path = str(Path(__file__).parent / f"{source}.py")
        if Path(cache_from_source(path)).exists():
            loader = SourceFileLoader(f"fastsig.{source.replace('/', '.')}", path)
            if loader.get_code(loader.name) != loader.source_to_code(loader.get_data(path), path):
                return False
    return True


@cache
def fingerprint(more: str = "") -> str:
    """A digest of all that the code depends on: our sources (and one more), the compilers' versions, the processor."""
    digest = hashlib.sha256()
    for source in (*SOURCES, more) if more else SOURCES:
        digest.update(IMPORTED[source])
    chosen = target()
    numba = find_spec("numba")  # its version by its file: importing it would take longer than all the rest
    digest.update((Path(numba.origin).parent / "_version.py").read_bytes() if numba and numba.origin else b"")
    facts = (llvmlite.__version__, sys.version, llvm.get_default_triple(), chosen.cpu, chosen.features)
    digest.update("\n".join(facts).encode())
    return digest.hexdigest()[:32]


def current() -> set[str]:
    """The fingerprints of this version on this processor."""
    return {fingerprint(more) for more in ("", *MORE_SOURCES)}
