"""The command line: `python -m fastsig info | verify | bench | apply | train | plot | warmup | cache`."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import Any

import fastsig

COMMANDS = {
    "info": "versions, processor, threads, cache: what a bug report needs",
    "verify": "check the accuracy contract on this machine",
    "bench": "time it against what is installed, on this machine",
    "apply": "apply a function to a file of any size, block by block",
    "train": "the tutorials' networks: XOR, the double moon, the forecast of road traffic",
    "plot": "draw the sigmoid and its derivative",
    "warmup": "compile everything beforehand",
    "cache": "show what is compiled and kept, or clear it",
}
# Where a command is, if not in the module of its name.
MODULES = {"info": "report", "apply": "files", "bench": "bench.command", "train": "classics"}


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
    return import_module(f"fastsig.{MODULES.get(command, command)}")
