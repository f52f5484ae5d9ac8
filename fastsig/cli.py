"""The command line: `python -m fastsig info | verify | bench | train | plot | warmup | cache`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import import_module, metadata
from typing import Any

import fastsig

COMMANDS = {
    "info": "versions, processor, threads, cache: what a bug report needs",
    "verify": "check the accuracy contract on this machine",
    "bench": "time it against what is installed, on this machine",
    "train": "the tutorials' networks: XOR, the double moon, the forecast of road traffic",
    "plot": "draw the sigmoid and its derivative",
    "warmup": "compile everything beforehand",
    "cache": "show what is compiled and kept, or clear it",
}
MODULES = {"bench": "bench.command", "train": "classics"}  # where a command is, if not in the module of its name


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fastsig", description=(fastsig.__doc__ or "").split("\n")[0])
    parser.add_argument("--version", action="version", version=fastsig.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wanted = argv if argv is not None else sys.argv[1:]
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name in wanted:  # the others' modules stay unread
            module(name).add_arguments(command)
    args = parser.parse_args(argv)
    try:
        return int(module(args.command).run(args))
    except BrokenPipeError:  # the reader of the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def module(command: str) -> Any:
    return sys.modules[__name__] if command == "info" else import_module(f"fastsig.{MODULES.get(command, command)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--startup", action="store_true", help="where the time to a first result goes, instead")


def run(args: argparse.Namespace) -> int:
    if args.startup:
        import_module("fastsig.bench.startup").show()
        return 0
    facts = info()
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name:{width}}  {value}")
    return 0


def info() -> dict[str, str]:
    """What a bug report needs."""
    from fastsig import compiler, parallel, store

    target, runtime, folder = compiler.target(), parallel.runtime(), store.cache_folder()
    kept = sorted(folder.glob("*.o")) if folder else []
    return {
        "fastsig": fastsig.__version__,
        **{package: version(package) for package in ("numpy", "numba", "llvmlite", "ml_dtypes", "scipy", "torch")},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": target.cpu,
        "instructions": target.instructions,
        "threads": str(parallel.get_num_threads()),
        "OpenMP runtime": runtime[0] if runtime else "none: everything runs serially",
        "cache": f"{folder} ({len(kept)} loops)" if folder else "none: each process compiles anew",
        "cache writable": "yes" if store.writable() else "no",
    }


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
