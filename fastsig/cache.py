"""The command `cache`: what is kept, what it takes, and away with it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from fastsig import compiler, store
from fastsig.store import Entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for machines")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--clear", action="store_true", help="remove all compiled code; each function is compiled anew when used"
    )
    which.add_argument("--clear-old", action="store_true", help="remove what other versions and processors have left")


def run(args: argparse.Namespace) -> int:
    folder, reason = store.found()
    if folder is None:
        print(f"fastsig cache: {reason}", file=sys.stderr)
        return 1
    kept = list(store.entries(folder))
    if args.clear or args.clear_old:
        return clear([entry for entry in kept if args.clear or entry.fingerprint not in compiler.current()], args.json)
    facts = state(kept)
    print(json.dumps(facts, indent=2) if args.json else told(facts))
    return 0


def clear(unwanted: Sequence[Entry], as_json: bool) -> int:
    gone = store.remove(unwanted)
    size = sum(entry.size for entry in gone)
    print(json.dumps({"removed": len(gone), "bytes": size}) if as_json else f"removed {counted(len(gone), size)}")
    if len(gone) < len(unwanted):
        print(f"fastsig cache: {len(unwanted) - len(gone)} can't be removed, by this user or from this disk", file=sys.stderr)
        return 1
    return 0


def state(kept: Sequence[Entry]) -> dict[str, Any]:
    """The facts, for `info` too."""
    own = [entry for entry in kept if entry.fingerprint in compiler.current()]
    others = [entry for entry in kept if entry.fingerprint not in compiler.current()]
    return {
        "folder": str(store.found()[0]),
        "writable": store.writable(),
        "loops": len(own),
        "bytes": sum(entry.size for entry in own),
        "others": len(others),
        "others_bytes": sum(entry.size for entry in others),
        "others_unused_days": round(min((entry.age for entry in others), default=0.0), 1),
    }


def told(facts: dict[str, Any]) -> str:
    lines = {
        "folder": facts["folder"],
        "writable": "yes" if facts["writable"] else f"no: {store.obstacle()}",
        "this version": f"{counted(facts['loops'], facts['bytes'])}, for this processor",
        "others": f"{counted(facts['others'], facts['others_bytes'])}, of other versions or for other processors",
    }
    if facts["others"]:
        lines["others"] += f", unused for {facts['others_unused_days']:g} days; after {store.UNUSED} they go by themselves"
    return "\n".join(f"{name:12}  {text}" for name, text in lines.items())


def counted(files: int, size: int) -> str:
    return f"{files} loop{'s' * (files != 1)}, {size / 1e6:.1f} MB"
