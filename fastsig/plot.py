"""Figures, by matplotlib: the curve of the sigmoid (`python -m fastsig plot FILE`), and what the classic networks draw."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

import fastsig

Array = np.ndarray[Any, np.dtype[Any]]

BLUE, ORANGE, GREEN, GREY = "#1f6fb4", "#e07b1a", "#2a8f4a", "#777777"
POINTS = 1000  # of a curve
GRID = 300  # by as many points a decision boundary is looked for
# Who is who wherever packages are compared. Any two are 22 apart or more in CIELAB, to a protanope, deuteranope or tritanope
# too (Machado, Oliveira & Fernandes 2009), and those drawn most often 27: found by a random search for that.
COLOURS = {
    "fastsig": "#0b4ea2",
    "copy": "#bbbbbb",
    "math": "#bda548",
    "numpy": "#f8ad00",
    "tanh": "#720000",
    "scipy": "#009654",
    "numexpr": "#49255f",
    "vectorize": "#c83a80",
    "parallel": "#e268c4",
    "torch": "#c40000",
    "jax": "#00cbfe",
    "sklearn": "#762d3c",
}


def figure(
    width: float, height: float, columns: int = 1, rows: Sequence[float] = (1.0,), dpi: float = 100
) -> tuple[Any, Sequence[Any]]:
    """An empty figure of inches, and its axes row by row, `rows` being their heights in proportion.

    It is no part of pyplot, and needs no screen.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'fastsig[plot]'") from error
    made = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(made)
    axes = list(made.subplots(len(rows), columns, squeeze=False, height_ratios=rows).ravel())
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.25)
    return made, axes


def curve(reach: float = 10.0) -> Any:
    """The sigmoid and its derivative over [-reach, reach] in one figure.

    Parameters
    ----------
    reach : float
        Positive.

    Returns
    -------
    matplotlib.figure.Figure
        To be saved by its `savefig`.

    Raises
    ------
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> from fastsig.plot import curve
    >>> [line.get_label() for line in curve().axes[0].lines]
    ['sigmoid(x)', "sigmoid'(x)"]
    """
    made, (axes,) = figure(7, 4.5)
    x = np.linspace(-reach, reach, POINTS)
    y, dy = fastsig.sigmoid_value_and_grad(x)
    axes.plot(x, y, color=BLUE, label="sigmoid(x)")
    axes.plot(x, dy, color=ORANGE, label="sigmoid'(x)")
    axes.set(title="The sigmoid and its derivative", xlabel="x", xlim=(-reach, reach))
    axes.legend()
    return made


def losses(title: str, curves: Sequence[Sequence[float]]) -> Any:
    """The loss of each round, on logarithmic axes, a curve for each network."""
    made, (axes,) = figure(7, 4.5)
    for history in curves:
        axes.plot(np.arange(1, len(history) + 1), history, color=BLUE, alpha=0.4, linewidth=1)
    axes.set(title=title, xlabel="round", ylabel="loss", xscale="log", yscale="log")
    return made


def boundaries(panels: Mapping[str, tuple[Array, Array, Callable[[Array], Array]]]) -> Any:
    """For each title, the points of two classes, and where the network's probability of the second is a half."""
    made, all_axes = figure(5.5 * len(panels), 4.6, len(panels))
    for axes, (title, (x, t, probability)) in zip(all_axes, panels.items(), strict=True):
        low, high = x.min(axis=0) - 1.5, x.max(axis=0) + 1.5
        across, up = (np.linspace(low[k], high[k], GRID) for k in range(2))
        grid = np.stack(np.meshgrid(across, up), axis=-1)
        p = probability(grid.reshape(-1, 2)).reshape(GRID, GRID)
        axes.contourf(across, up, p, levels=[0, 0.5, 1], colors=[BLUE, ORANGE], alpha=0.15)
        axes.contour(across, up, p, levels=[0.5], colors="black", linewidths=1.2)
        for label, color in ((0, BLUE), (1, ORANGE)):
            axes.scatter(*x[t == label].T, s=3, color=color, linewidths=0, label=f"class {label}")
        axes.set(title=title, aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    all_axes[0].legend(loc="lower left", markerscale=4)
    return made


def forecasts(years: Array, truth: Mapping[str, Array], fits: Mapping[str, Array], ahead: Array) -> Any:
    """For each quantity the truth, what each network makes of the same years, and its forecast of those ahead."""
    made, all_axes = figure(6 * len(truth), 4.5, len(truth))
    for k, (axes, (title, values)) in enumerate(zip(all_axes, truth.items(), strict=True)):
        axes.plot(years, values, "o", color=GREY, label="truth")
        for (label, fit), color in zip(fits.items(), (BLUE, ORANGE, GREEN), strict=False):
            axes.plot(years, fit[: len(years), k], color=color, label=label)
            axes.plot(ahead, fit[len(years) :, k], "D", color=color, label=f"{label}: forecast")
        axes.set(title=title, xlabel="year")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    return made


def save(made: Any, path: str) -> None:
    """Write the figure; OSError or ValueError say what is wrong with the path."""
    if not os.path.splitext(path)[1]:
        raise ValueError(f"the file's name must end in .png (or .svg, .pdf), not {path!r}")
    if not path.lower().endswith(".png"):
        made.savefig(path)
        return
    image = import_module("PIL.Image")  # matplotlib needs it itself
    full = io.BytesIO()
    made.savefig(full, format="png")
    # of 256 colours: 25 to 42 % of the bytes, and no colour of the benchmark's figures is off by more than 19 of 255
    few = image.open(full).convert("RGB").quantize(method=image.Quantize.MAXCOVERAGE)
    few.save(path, optimize=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.png", help="where the figure goes (.svg and .pdf do as well)")


def run(args: argparse.Namespace) -> int:
    try:
        save(curve(), args.file)
    except (ImportError, OSError, ValueError) as error:
        print(f"fastsig plot: {error}", file=sys.stderr)
        return 2
    print(f"The sigmoid and its derivative over [-10, 10], {POINTS:,} points each: {args.file}")
    return 0
