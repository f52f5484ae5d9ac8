"""Figures, by matplotlib: the curve of the sigmoid (`python -m fastsig plot FILE`), and what the classic networks draw."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import fastsig

Array = np.ndarray[Any, np.dtype[Any]]

BLUE, ORANGE, GREEN, GREY = "#1f6fb4", "#e07b1a", "#2a8f4a", "#777777"
POINTS = 1000  # of a curve
GRID = 300  # by as many points a decision boundary is looked for


def figure(width: float, height: float, columns: int = 1) -> tuple[Any, Sequence[Any]]:
    """An empty figure of inches, and its axes side by side. It is no part of pyplot, and needs no screen."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'fastsig[plot]'") from error
    made = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(1, columns, squeeze=False)[0]
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
    made.savefig(path)


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
