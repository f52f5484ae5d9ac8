"""The command `warmup`: compile everything beforehand, so that no process has to wait for it later.

Processes of its own compile, each told what by a line on its standard input, which it answers by one on its standard output.
Plain pipes, rather than `multiprocessing`: there is no helper process that outlives a signal, and a worker whose parent has
died reads the end of its input.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from threading import current_thread, main_thread
from typing import IO, Any

from fastsig import compiler, console, store
from fastsig.compiler import Program
from fastsig.kernels import ALIASES, KERNELS, TERMS

DTYPES = ("float16", "float32", "float64", "bfloat16")
LOSSES, NETWORKS = "losses", "networks"  # beside the functions' own names
FUNCTIONS = (*KERNELS, *ALIASES, LOSSES, NETWORKS)
MOST_JOBS = 8  # each takes some 200 MB


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compile everything beforehand. In the build of a container, choose a directory that goes into the image with "
        "FASTSIG_CACHE_DIR, and, where it is to run on another processor than it is built on, that one with NUMBA_CPU_NAME and "
        "NUMBA_CPU_FEATURES, in the build and in the image."
    )
    names, dtypes = console.names(FUNCTIONS, "function"), console.names(DTYPES, "dtype")
    parser.add_argument(
        "--functions", type=names, default=FUNCTIONS, metavar="NAME,...", help="all by default; also losses, networks"
    )
    parser.add_argument(
        "--dtypes", type=dtypes, default=DTYPES, metavar="DTYPE,...", help=f"of {', '.join(DTYPES)}: all by default"
    )
    parser.add_argument(
        "--jobs", type=positive, default=0, metavar="N", help="processes at once: one for each processor by default"
    )


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def run(args: argparse.Namespace) -> int:
    reason = store.obstacle()
    if reason:
        print(f"fastsig warmup: nothing can be kept: {reason}", file=sys.stderr)
        return 1
    every = programs(args.functions, args.dtypes)
    wanted = [name for name, program in every.items() if not program.kept]
    with terminating():
        try:
            failed = compiled({name: every[name] for name in wanted}, args.jobs or processors())
        except KeyboardInterrupt:
            done = sum(every[name].kept for name in wanted)
            print(f"\nInterrupted: {done} of {len(wanted)} are compiled; the next time, the others are left.", file=sys.stderr)
            return 130
    for name, why in failed.items():
        print(f"fastsig warmup: {name}: {why}", file=sys.stderr)
    print(f"{len(wanted) - len(failed)} compiled, {len(every) - len(wanted)} there already, in {store.cache_folder()}")
    return 1 if failed else 0


@contextmanager
def terminating() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that the workers are ended as well; the exit status says which it was."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    if current_thread() is not main_thread():  # only there do signals arrive
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def processors() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST_JOBS)


# --- what there is to compile --------------------------------------------------------------------------------------------


def programs(functions: Sequence[str], dtypes: Sequence[str]) -> dict[str, Program]:
    """By the names under which they are kept."""
    return {
        it.name: it for dtype in dtypes if dtype != "bfloat16" or find_spec("ml_dtypes") for it in of_dtype(functions, dtype)
    }


def of_dtype(functions: Sequence[str], dtype: str) -> Iterator[Program]:
    for name in functions:
        if name in (*KERNELS, *ALIASES):
            yield compiler.inner_loop(ALIASES.get(name, name), dtype)
    for name, terms in TERMS.items() if LOSSES in functions else ():
        for outputs in range(1, len(terms.outputs) + 1):
            yield from (compiler.loss_loop(name, dtype, outputs, summed) for summed in (True, False))
    if NETWORKS in functions and dtype in ("float32", "float64"):
        from fastsig import nn

        yield from (nn.compiled(name, dtype) for name in nn.PROGRAMS)


# --- the workers ---------------------------------------------------------------------------------------------------------


def work() -> None:
    """A worker's life: compile what is named, and say that it is done, or why not."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all of them: each ends without a word
    todo = programs(FUNCTIONS, DTYPES)
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        program, why = todo[line.strip()], ""
        try:
            program.address()
        except Exception as error:  # told to the user by the parent
            why = f"{type(error).__name__}: {error}"
        if not why and not program.kept:
            why = store.obstacle() or "it is compiled, but wasn't kept"
        print(program.name, " ".join(why.split()), sep="\t", file=answers, flush=True)


def worker() -> subprocess.Popen[str]:
    code = f"import sys; sys.path[:] = {sys.path!r}; from fastsig.warmup import work; work()"
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def compiled(wanted: Mapping[str, Program], jobs: int) -> dict[str, str]:
    """Have it compiled; what failed, and why."""
    todo, failed = list(wanted)[::-1], dict[str, str]()
    workers: list[subprocess.Popen[str]] = []
    try:
        with console.progress("Compiling", max(1, len(wanted))) as advance, selectors.DefaultSelector() as answers:
            for _ in range(min(jobs, len(wanted))):
                workers.append(worker())
                answers.register(stream(workers[-1].stdout), selectors.EVENT_READ, workers[-1])
                tell(workers[-1], todo)
            while answers.get_map():
                for key, _ in answers.select():
                    name, tab, why = stream(key.data.stdout).readline().rstrip("\n").partition("\t")
                    if not tab:  # it has ended: as it should, with nothing left to do, or by itself
                        answers.unregister(key.fileobj)
                        continue
                    if why:
                        failed[name] = why
                    advance(1, name)
                    tell(key.data, todo)
    finally:
        for process in workers:
            process.kill()
            process.wait()
            stream(process.stdout).close()
            with suppress(BrokenPipeError):
                stream(process.stdin).close()
    lost = [name for name, program in wanted.items() if name not in failed and not program.kept]
    return failed | dict.fromkeys(lost, "its process ended before it was done")


def tell(process: subprocess.Popen[str], todo: list[str]) -> None:
    """Its next task, or that there is none."""
    pipe = stream(process.stdin)
    with suppress(BrokenPipeError):  # it has ended: seen by the end of its answers
        if todo:
            print(todo.pop(), file=pipe, flush=True)
        else:
            pipe.close()


def stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # for the type checker: both are pipes
    return pipe
