"""Say row by row what became better, stayed the same or became worse: `python benchmarks/compare.py OLD NEW`.

OLD and NEW are JSON files, of `python -m fastsig bench --json` or of `pytest benchmarks --benchmark-json`; or revisions, such
as `HEAD~3` and `HEAD`: then both are checked out aside, and the benchmark is run on them in turn, with the options after `--`.
The exit code is 1 if anything became worse.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from fastsig import console
from fastsig.bench import compare
from fastsig.bench.compare import Name, Time

ROOT = Path(__file__).parents[1]
DEFAULT = ["--quick", "--peers", "numpy,scipy,torch"]


def measured(revisions: Sequence[str], rounds: int, options: Sequence[str]) -> list[dict[Name, Time]]:
    """The times of both revisions, each run `rounds` times, in turn: of each row the median of its medians and spreads."""
    found: list[list[dict[Name, Time]]] = [[] for _ in revisions]
    with ExitStack() as stack:
        aside = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trees = [aside / f"{k}" for k, _ in enumerate(revisions)]
        for tree, revision in zip(trees, revisions, strict=True):
            git = ["git", "-C", str(ROOT), "worktree"]
            subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
            stack.callback(subprocess.run, [*git, "remove", "--force", str(tree)], check=True)
        for turn in range(rounds):
            for tree, revision, times in zip(trees, revisions, found, strict=True):
                print(f"{revision}, {turn + 1} of {rounds}", file=sys.stderr)
                times.append(one_run(tree, aside / "results.json", options))
    return [joined(times) for times in found]


def one_run(tree: Path, into: Path, options: Sequence[str]) -> dict[Name, Time]:
    command = [sys.executable, "-P", "-m", "fastsig", "bench", *options, "--json", str(into)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run(command, check=True, cwd=into.parent, env=environment, stdout=subprocess.DEVNULL)
    return compare.read(into)


def joined(runs: Sequence[dict[Name, Time]]) -> dict[Name, Time]:
    """One time for each row that all runs have, of those in which it was calm, if it was in any.

    Its spread is that of the rounds or of the runs, whichever is larger.
    """
    found = {}
    for name in runs[0]:
        if all(name in run for run in runs):
            every = [run[name] for run in runs]
            taken = [it for it in every if it.calm] or every
            middle = statistics.median(it.seconds for it in taken)
            apart = statistics.median(abs(it.seconds - middle) for it in taken)
            spread = max(apart, statistics.median(it.spread for it in taken))
            found[name] = Time(middle, spread, any(it.calm for it in every))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], epilog="options after -- go to the benchmark")
    parser.add_argument("old", help="a JSON file or a revision")
    parser.add_argument("new", help="another")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each revision (default: 3)")
    given = sys.argv[1:]
    options = given[given.index("--") + 1 :] if "--" in given else DEFAULT
    args = parser.parse_args(given[: given.index("--")] if "--" in given else given)
    try:
        if Path(args.old).is_file() and Path(args.new).is_file():
            old, new = (compare.read(Path(name)) for name in (args.old, args.new))
        else:
            old, new = measured((args.old, args.new), args.rounds, options)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"{args.old} and {args.new} must be two JSON files or two revisions: {error}", file=sys.stderr)
        return 2
    judged = compare.verdicts(old, new)
    console.table(f"{args.old} → {args.new}", compare.COLUMNS, compare.table(judged))
    print(compare.summary(judged))
    print(compare.agreement(old, new))
    for line in compare.unjudged(old, new):
        print(f"  {line}")
    return int(any(it.word == "worse" for it in judged))


if __name__ == "__main__":
    sys.exit(main())
