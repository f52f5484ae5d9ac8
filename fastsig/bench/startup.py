"""Start-up: what a whole process takes, from its start to its end, to import a package or to have a first result from it.

Every program runs in a process of its own, of this interpreter, in an empty directory. They take turns, so that a disturbance
of the machine meets all of them; what counts is the median of the rounds.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import fastsig
from fastsig import compiler, console, store
from fastsig.bench.machine import Advance, telling

IMPORT, FIRST, COLD = "import", "first result", "first result, nothing cached"
LIMIT = {False: 38.0, True: 4.6}  # seconds for everything, quick or not
MOST = 11  # rounds
LIGHT = 3  # rounds of the light programs in the quick form; the others have one, if there is time left


@dataclass(frozen=True, eq=False)
class Program:
    """What one process does, and about how long it takes."""

    what: str
    package: str
    code: str
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)  # {new}: an empty directory; {kept}: one for all rounds
    prepared: bool = False  # whether its first run isn't counted: it fills the cache

    @property
    def light(self) -> bool:
        return self.seconds < 1


ARRAY = "import numpy as np\nx = np.zeros(8, np.float32)\n"
NUMBA = """import math, numba
@numba.njit
def sigmoid(x):
    y = np.empty_like(x)
    for i in range(x.size):
        y[i] = 1 / (1 + math.exp(-x[i]))
    return y
"""
FASTSIG = f"{ARRAY}import fastsig\nassert fastsig.sigmoid(x)[0] == 0.5"
JAX = f"{ARRAY}import jax\nassert jax.jit(jax.nn.sigmoid)(x)[0] == 0.5"
ON_CPU = {"JAX_PLATFORMS": "cpu"}
KEPT_BY_JAX = {
    "JAX_COMPILATION_CACHE_DIR": "{kept}",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # by default it keeps only what took a second, or is large
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
PROGRAMS = (
    Program(IMPORT, "numpy", "import numpy", 0.1),
    Program(IMPORT, "fastsig", "import fastsig", 0.1),
    Program(IMPORT, "scipy", "from scipy.special import expit", 0.3),
    Program(FIRST, "fastsig", FASTSIG, 0.2, prepared=True),
    Program(FIRST, "scipy", f"{ARRAY}from scipy.special import expit\nassert expit(x)[0] == 0.5", 0.3),
    Program(COLD, "numba", f"{ARRAY}{NUMBA}assert sigmoid(x)[0] == 0.5", 1.0),
    Program(COLD, "fastsig", FASTSIG, 2.5, {"FASTSIG_CACHE_DIR": "{new}"}),
    Program(IMPORT, "torch", "import torch", 1.6),
    Program(IMPORT, "jax", "import jax", 1.0, ON_CPU),
    Program(FIRST, "torch", f"{ARRAY}import torch\nassert torch.sigmoid(torch.from_numpy(x))[0] == 0.5", 1.7),
    Program(FIRST, "jax", JAX, 1.0, {**ON_CPU, **KEPT_BY_JAX}, prepared=True),
    Program(COLD, "jax", JAX, 1.0, ON_CPU),
)


def startup(quick: bool, advance: Advance, rows: list[dict[str, Any]]) -> None:
    """What each program takes: a row each, put into `rows`, also where it is interrupted.

    One whose package isn't installed, that fails or was left out says so in "error". fastsig's ordinary first result is with
    this user's own cache, once the loop is in it. `advance` gets the seconds that have passed since it was called before, and
    what is being done.
    """
    begin, tell = time.perf_counter(), telling(advance)
    samples: dict[Program, list[float]] = {program: [] for program in PROGRAMS}
    errors = {program: unavailable(program) for program in PROGRAMS}
    waiting = {program for program in PROGRAMS if program.prepared}
    why = "interrupted"
    try:
        with tempfile.TemporaryDirectory(prefix="fastsig-startup-") as folder:
            for program in order(quick):
                for counts in (False, True) if program in waiting else (True,):
                    left = LIMIT[quick] - (time.perf_counter() - begin)
                    if errors[program] or median(samples[program] or [program.seconds]) > left:
                        break
                    tell(f"{program.what}, {program.package}")
                    seconds, errors[program] = run(program, Path(folder), left)
                    if counts and not errors[program]:
                        samples[program].append(seconds)
                    waiting.discard(program)
        why = f"left out: no time for it in {LIMIT[quick]:g} s"
        tell("")
    finally:
        rows += [row(program, samples[program], errors[program] or why) for program in PROGRAMS]


def order(quick: bool) -> Iterator[Program]:
    """The programs' turns: all in each round, the light ones twice, or, in the quick form, first."""
    light, heavy = ([program for program in PROGRAMS if program.light is light] for light in (True, False))
    if quick:
        yield from (*light * LIGHT, *heavy)
        return
    for _ in range(MOST):
        half = len(heavy) // 2
        yield from (*light, *heavy[:half], *light, *heavy[half:])
        light, heavy = light[1:] + light[:1], heavy[1:] + heavy[:1]  # each round begins with another


def unavailable(program: Program) -> str:
    """Why it can't run, or nothing."""
    if not find_spec(program.package):
        return "not installed"
    if (program.what, program.package) == (FIRST, "fastsig") and store.cache_folder() is None:
        return "there is no cache: python -m fastsig info"
    return ""


def run(program: Program, folder: Path, seconds: float) -> tuple[float, str]:
    """Its time, or what went wrong; it has so many seconds."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="new-") as new:
        environment = {**os.environ, "PYTHONPATH": search_path()}
        environment |= {key: value.format(new=new, kept=folder / "kept") for key, value in program.environment.items()}
        command = [sys.executable, "-P", "-c", program.code]
        begin = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return seconds, f"not done when the time was over, after {seconds:.1f} s"
        except OSError as error:
            return 0.0, f"can't be started: {error}"
        taken = time.perf_counter() - begin
    told = done.stderr.decode(errors="replace").strip().splitlines()
    return taken, "" if done.returncode == 0 else told[-1] if told else f"exit status {done.returncode}"


def search_path() -> str:
    """PYTHONPATH as it is, but for any directory; and this fastsig, if it was found in one that isn't searched anyway."""
    given = [os.path.abspath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    own = str(Path(fastsig.__file__).parents[1])
    return os.pathsep.join(given if own in (*given, *site.getsitepackages(), site.getusersitepackages()) else [own, *given])


def row(program: Program, samples: list[float], error: str) -> dict[str, Any]:
    """Its times, or why there are none."""
    middle = median(samples) if samples else None
    spread = median(abs(seconds - middle) for seconds in samples) if middle is not None else None
    found = {"what": program.what, "package": program.package, "seconds": middle, "spread": spread}
    return {**found, "rounds": len(samples), "error": "" if samples else error}


# --- where the time goes -------------------------------------------------------------------------------------------------

STAGES = """if True:
    import json, sys, time
    told, last = {}, time.perf_counter()
    def done(stage):
        global last
        told[stage] = time.perf_counter() - last
        last = time.perf_counter()
    import numpy as np
    x = np.zeros(8, np.float32)
    done("import NumPy")
    import fastsig
    done("import fastsig")
    sigmoid = fastsig.sigmoid
    done("make the ufunc, import llvmlite")
    from fastsig import compiler
    program = compiler.inner_loop("sigmoid", "float32")
    code = program.path and compiler.store.read(program.path)
    done("look into the cache")
    if code is None or "cold" in sys.argv:
        compiler.hold_forks(compiling=True)
        from numba import njit
        done("import Numba")
        from fastsig import frontend, loops
        done("teach it our instructions")
        with compiler.numba_as_meant():
            symbol, module = frontend.compiled(*program.make(compiler.target()))
        done("Numba: types, LLVM's language")
        module = compiler.closed(str(module), symbol)
        done("LLVM: optimise")
        code = symbol, compiler.machine().emit_object(module)
        done("LLVM: machine code")
    compiler.load(*code)
    done("load it")
    print(json.dumps(told))
"""


def stages(cold: bool) -> dict[str, float]:
    """The seconds that a first result takes in a new process, stage by stage, with what is cached or as if nothing were."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-c", STAGES, *(["cold"] if cold else [])],
        env={**os.environ, "PYTHONPATH": search_path()},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    whole, told = time.perf_counter() - begin, json.loads(done.stdout)
    return {**told, "Python itself": whole - sum(told.values()), "the whole process": whole}


def show() -> None:
    """A table of both, in milliseconds: of three processes each, the quickest."""
    compiler.inner_loop("sigmoid", "float32").address()  # so that it is cached, if it can be
    warm, cold = (min((stages(how) for _ in range(3)), key=lambda told: told["the whole process"]) for how in (False, True))
    rows = [[stage, f"{1e3 * warm[stage]:.0f}" if stage in warm else "", f"{1e3 * cold[stage]:.0f}"] for stage in cold]
    console.table("The first sigmoid of float32, ms", ["stage", "cached", "nothing cached"], rows)
