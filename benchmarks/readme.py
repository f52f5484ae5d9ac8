"""Rewrite README's generated blocks: `python benchmarks/readme.py`, with `--run` after measuring anew.

Options after `--` go to the benchmark: `--run -- --quick` is a try. The speed table comes from benchmarks/results.json, which
`--run` writes; the training table from benchmarks/training.json, which `python benchmarks/training.py --json
benchmarks/training.json` writes; the accuracy table from the kernels' contracts and fastsig/worst.json, to which `python -m
fastsig verify --json` adds.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsig import plot, testing, verify
from fastsig.bench import accuracy, command, pictures, results, tables
from fastsig.kernels import ALIASES, KERNELS

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results.json"
TRAINING = Path(__file__).parent / "training.json"


FIGURES = Path(__file__).parent / "figures"
SHOWN = ("throughput-sigmoid-float32", "peers-float32", "startup")  # of the pictures of speed
PEERS = ("SciPy", "NumPy", "torch")
FUSED = "_and_"  # in the names of functions that give two results, each the bits of another function


def accuracies() -> str:
    """The contract of what is wide, with what was found and how the others do; a line about the small formats."""
    lines = [
        f"| function | dtype | stated | measured | worst input | {' | '.join(PEERS)} |",
        f"|---|---|--:|--:|---|{'--:|' * len(PEERS)}",
    ]
    found = testing.recorded()
    small = []
    for name, kernel in KERNELS.items():
        if FUSED in name:
            continue
        (output,) = kernel.outputs
        names = [name, *(alias for alias, meant in ALIASES.items() if meant == name)]
        for dtype, it in found[name][output].items():
            if dtype not in ("float32", "float64"):
                small.append(it["error"])
                continue
            bound = verify.absolute_bound(kernel, output, dtype)
            stated = f"{kernel.ulp[dtype]:g}" + (f"; {verify.power(bound)}" if bound else "")
            measured = f"{it['error']:.3f}" + (f"; {verify.power(it['crossing'])}" if bound else "")
            inputs = ", ".join(f"{float.fromhex(text):.9g}" for text in it["inputs"])
            others = (verify.human(it.get("peers", {}).get(peer)) for peer in PEERS)
            lines.append(
                f"| {', '.join(f'`{n}`' for n in names)} | {dtype} | {stated} | {measured} | {inputs} | {' | '.join(others)} |"
            )
    bounds = {kernel.ulp[dtype] for kernel in KERNELS.values() for dtype in ("float16", "bfloat16")}
    stated = " and ".join(f"{bound:g}" for bound in sorted(bounds))
    lines += ["", f"float16 and bfloat16, over all their numbers: {stated} stated, {max(small):.4f} measured."]
    return "\n".join(lines)


def training(contests: dict[str, Any]) -> str:
    """The networks' training times, beside the others'; **bold** is over the bar."""
    columns = ("training", "fastsig", "the other", "ratio", "to be at most", "result")
    lines = [f"| {' | '.join(columns)} |", "|---|--:|--:|--:|--:|---|"]
    for it in contests["contests"]:
        ratio = f"{it['ratio']:.3f}" if it["ratio"] <= it["bar"] else f"**{it['ratio']:.3f}**"
        times = results.human_time(it["seconds"]), f"{it['peer']}: {results.human_time(it['peer_seconds'])}"
        result = f"{it['result']} {it['ours']:.4g} and {it['theirs']:.4g}"
        lines.append(f"| {it['label']} | {times[0]} | {times[1]} | {ratio} | {it['bar']:g} | {result} |")
    return "\n".join([*lines, "", f"Medians of {contests['rounds']} rounds, the two in turn: {contests['machine']}."])


def replaced(text: str, marker: str, block: str) -> str:
    """The text with another block between the two comments of this name."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{README} must have {begin} and {end} once")
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{block}\n{end}", text, flags=re.DOTALL)


def rewritten() -> str:
    speed = tables.markdown(results.read(RESULTS))
    text = replaced(README.read_text(encoding="utf-8"), "accuracy", accuracies())
    text = replaced(text, "training", training(json.loads(TRAINING.read_text(encoding="utf-8"))))
    return replaced(text, "benchmark", speed)


def current() -> bool:
    """Whether README says what the results and the contracts say."""
    return RESULTS.exists() and README.read_text(encoding="utf-8") == rewritten()


def redraw() -> None:
    """README's pictures."""
    for name, _, figure in pictures.pictures(results.read(RESULTS)):
        if name in SHOWN:
            plot.save(figure, str(FIGURES / f"{name}.png"))
    plot.save(accuracy.draw("sigmoid", "float32"), str(FIGURES / "accuracy-sigmoid-float32.png"))


def measured(options: Sequence[str]) -> int:
    """Run the benchmark, the whole of it without options; its exit code."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([*options, "--json", str(RESULTS)]))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", action="store_true", help="measure first: minutes")
    given = sys.argv[1:]
    place = given.index("--") if "--" in given else len(given)
    if parser.parse_args(given[:place]).run and (code := measured(given[place + 1 :])):
        return code
    try:
        text = rewritten()
    except FileNotFoundError as error:
        print(f"{error}: `python benchmarks/readme.py --run` measures it", file=sys.stderr)
        return 2
    README.write_text(text, encoding="utf-8")
    redraw()
    return 0


if __name__ == "__main__":
    sys.exit(main())
