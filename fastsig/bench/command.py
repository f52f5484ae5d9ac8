"""The command `python -m fastsig bench`: what is asked for, where it goes, and what is told in the end."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from fastsig import console, parallel
from fastsig.bench import compare, machine, runner, startup, suite, tables, worker
from fastsig.bench.cases import DATA, DTYPES, FUNCTIONS, LAYOUTS, MEBI
from fastsig.bench.peers import ALL_PEERS
from fastsig.bench.results import Results, write_csv, write_json

OPENING, ENDING = 6.0, {True: 8.0, False: 60.0}  # seconds that come to those of the cases, in a quick run and a full one


def positive(text: str) -> int:
    digits = text.strip()
    try:
        n = int(digits.removesuffix("Mi")) * (MEBI if digits.endswith("Mi") else 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number: {text!r} (such as 65536 or 64Mi)") from None
    if n < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1: {text!r}")
    return n


def threads(text: str) -> int:
    n = positive(text)
    if n > parallel.MOST:
        raise argparse.ArgumentTypeError(f"must be at most {parallel.MOST}: {text!r}")
    return n


def positives(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything `run` reads."""
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer cases and rounds: half a minute instead of minutes")
    names = tuple(peer.name for peer in ALL_PEERS)
    for option, what, valid in (
        ("functions", "function", FUNCTIONS),
        ("peers", "peer", names),
        ("dtypes", "dtype", DTYPES),
        ("layouts", "layout", LAYOUTS),
        ("data", "kind of data", DATA),
    ):
        add(f"--{option}", type=console.names(valid, what), default=valid, metavar="NAMES", help=f"of {', '.join(valid)}")
    add("--sizes", type=positives, default=(), metavar="NUMBERS", help="of elements, such as 1000,65536,64Mi")
    add("--threads", type=threads, metavar="N", help="for all peers alike (default: one per processor)")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured to this file")
    add("--csv", type=Path, metavar="FILE", help="a line for each row")
    add("--plot", type=Path, metavar="DIR", help="draw pictures into this directory")
    add("--html", type=Path, metavar="FILE", help="write a report with tables and pictures, in one file")
    add("--compare", type=Path, metavar="FILE", help="say what became better or worse since the results in this JSON file")


def run(args: argparse.Namespace) -> int:
    """Measure, report, and give the exit code: 1 if fastsig itself failed, 2 if it can't begin, 130 if it was interrupted."""
    try:
        earlier = prepared(args)
    except (ImportError, OSError, ValueError) as error:
        print(f"fastsig bench: {error}", file=sys.stderr)
        return 2
    count = args.threads or machine.processors()
    chosen = suite.chosen_cases(count, args.quick, args.functions, args.dtypes, args.sizes, args.layouts, args.data)
    plan = worker.QUICK if args.quick else worker.FULL
    request = worker.Request(chosen, args.peers, plan, count, args.quick)
    results = Results(quick=args.quick)
    begin = time.perf_counter()
    try:
        with console.progress("Measuring", OPENING + runner.estimated(request) + ENDING[args.quick]) as advance:
            runner.run(request, results, advance)
            if args.peers == tuple(peer.name for peer in ALL_PEERS):
                startup.startup(args.quick, advance, results.startup)
            else:
                results.skip("start-up", "measured where all peers take part")
    except KeyboardInterrupt:
        results.interrupted = True
    except RuntimeError as error:
        print(f"fastsig bench: {error}", file=sys.stderr)
        if not results.rows:
            return 2
        results.skip("what was still to come", str(error))
    results.seconds = time.perf_counter() - begin
    if not results.rows:
        print("interrupted before the first measurement" if results.interrupted else "nothing was measured", file=sys.stderr)
        for line in results.problems:
            print(f"  {line}", file=sys.stderr)
        return 130 if results.interrupted else 2
    return finish(args, results, earlier)


def prepared(args: argparse.Namespace) -> dict[compare.Name, compare.Time]:
    """What is compared with; all that would otherwise be missing or wrong after the last measurement is told now."""
    if not find_spec("sklearn"):  # broken, it has its say in the worker
        raise ImportError("the benchmark's input is made with scikit-learn: pip install 'fastsig[bench]'")
    for option, library in (("plot", "matplotlib"), ("html", "matplotlib"), ("html", "jinja2")):
        if getattr(args, option) and not find_spec(library):
            raise ImportError(f"--{option} needs {library}: pip install 'fastsig[bench]'")
    earlier = compare.read(args.compare) if args.compare else {}
    files = [path for path in (args.json, args.csv, args.html) if path]
    for path in files:
        must_be_writable(path)
    if len({path.resolve() for path in files}) < len(files):
        raise ValueError("--json, --csv and --html must name different files")
    if args.plot:
        if args.plot.exists() and not args.plot.is_dir():
            raise NotADirectoryError(f"{args.plot} is not a directory")
        args.plot.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.plot).close()
    return earlier


def must_be_writable(path: Path) -> None:
    """OSError, if no file of this name can be written; a file that is there stays as it is."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{path} can't be written")
    try:
        if not path.exists():
            tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise type(error)(f"{path} can't be written: {error.strerror}") from None


def finish(args: argparse.Namespace, results: Results, earlier: dict[compare.Name, compare.Time]) -> int:
    """Write and report what there is; one file that can't be written costs no other."""
    failed = False

    def keep(write: Callable[[], None]) -> None:
        nonlocal failed
        try:
            write()
        except KeyboardInterrupt:
            results.interrupted = True
        except Exception as error:  # whatever it is, the other files are still to be written
            failed = True
            print(f"can't write the results: {type(error).__name__}: {error}", file=sys.stderr)

    if args.json:
        keep(lambda: write_json(results, args.json))
    if args.csv:
        keep(lambda: write_csv(results, args.csv))
    tables.report(results)
    if args.compare:
        report_changes(results, earlier)
    if args.plot:
        from fastsig.bench import pictures

        keep(lambda: pictures.save(results, args.plot))
    if args.html:
        from fastsig.bench import page

        keep(lambda: page.write(results, args.html))
    if results.interrupted:
        print("Interrupted: this is what was measured until then.", file=sys.stderr)
        return 130
    return 1 if failed or any(row.peer == "fastsig" and row.error for row in results.rows.values()) else 0


def report_changes(results: Results, earlier: dict[compare.Name, compare.Time]) -> None:
    """What became better or worse."""
    now = compare.times(results)
    judged = compare.verdicts(earlier, now)
    console.table("changes", compare.COLUMNS, compare.table(judged))
    print(compare.summary(judged))
    print(compare.agreement(earlier, now))
    for line in compare.unjudged(earlier, now):
        print(f"  {line}")
