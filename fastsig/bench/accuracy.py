"""Pictures of the errors: `python -m fastsig verify --plot DIR`.

For each function of one argument, and the cross-entropy of either label, the error in units in the last place all over the
range in which results vary, beside SciPy, NumPy's expression and torch; and what the derivative from the saved output loses.
The truth is `fastsig.testing`'s, the others' formulas are `fastsig.verify`'s.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, TypedDict

import numpy as np

import fastsig
from fastsig import plot, testing, verify
from fastsig.console import progress
from fastsig.kernels import KERNELS
from fastsig.testing import Array

PEERS = dict(zip(verify.PEERS, (2.6, 1.8, 1.0), strict=True))  # the widths of their lines: who is under another shows
LABELS = (0, 1)  # of the cross-entropy, which takes one beside x
FUNCTIONS = tuple(n for n, k in KERNELS.items() if len(k.outputs) == 1 and k.inputs in (("x",), ("p",), ("x", "t")))
DTYPES = ("float32", "float64")
GRADIENT = "sigmoid_grad"  # the function whose picture comes with that of the gradient

ORDINARY = {"float32": 20.0, "float64": 40.0}  # beyond it the axis of x is compressed: the tails
BINS = 300  # half of them in the ordinary range
POINTS = 500  # random ones in each
LINEAR, LOW = 2.0, 3.0  # errors up to the one have a linear axis, larger ones a logarithmic one if there are any over the other
REACH = 40.0  # of the gradient's picture

WIDTH, HEIGHT, DPI = 8.0, 5.8, 150  # inches; at 900 pixels and on a phone the letters are large enough
TITLE, TEXT, LANE, SMALL = 15, 12, 11, 9.5  # points


class Errors(TypedDict):
    """The largest errors in ULP of a function, for each bin of x: what `draw` draws."""

    x: Array  # the bins' edges, one more than there are bins; of logit, its result
    bound: Array  # what fastsig states
    peers: dict[str, Array]  # by the package's name, fastsig last
    lost: dict[str, Array]  # whether some result has no digit right: off by all its size, or no number
    subnormal: Array  # whether some true result is


# --- the command -------------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """`python -m fastsig verify --plot DIR`: what would keep a picture from being written is told before any is drawn."""
    if args.exhaustive or args.table or args.json:
        print("--plot draws instead of checking: --functions and --dtypes go with it, nothing else", file=sys.stderr)
        return 2
    functions = verify.chosen(args.functions, FUNCTIONS, "function to draw")
    dtypes = verify.chosen(args.dtypes, DTYPES, "dtype to draw")
    if functions is None or dtypes is None:
        return 2
    dtypes = tuple(dtype for dtype in dtypes if verify.judgeable(dtype))
    if not dtypes:
        return 2
    drawn = 0
    try:
        plot.figure(1, 1)
        args.plot.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.plot).close()
        with progress("draw", len(functions) * len(dtypes) + (GRADIENT in functions)) as advance:
            for name, picture in pictures(functions, dtypes):
                plot.save(picture, str(args.plot / f"{name}.png"))
                drawn += 1
                advance(1, name)
    except (ImportError, OSError, ValueError) as error:
        print(f"can't write pictures: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"Interrupted: {drawn} pictures were drawn until then.", file=sys.stderr)
        return 130
    print(f"{drawn} pictures in {args.plot}")
    return 0


# --- what is drawn -----------------------------------------------------------------------------------------------------


def errors(function: str, dtype: str, points: int = POINTS, label: int = 0) -> Errors:
    """The largest errors of a function beside those of its peers, by bins of x, each with so many random points.

    Parameters
    ----------
    function : str
        One of `FUNCTIONS`.
    dtype : str
        "float32" or "float64".
    points : int
        Of each bin.
    label : int
        The cross-entropy's t, 0 or 1.

    Returns
    -------
    Errors
        A dict of arrays: `x`, `bound`, `subnormal`, and for each package `peers` and `lost`.

    Examples
    --------
    >>> found = errors("sigmoid", "float32", points=50)
    >>> bool((found["peers"]["fastsig"] <= found["bound"]).all())
    True
    """
    kernel, (output,) = KERNELS[function], KERNELS[function].outputs
    edges = Axis.of(function, dtype).inverse(np.linspace(0, 1, BINS + 1))
    operands = arguments(function, within(edges, points).astype(dtype), label)
    (true,) = testing.exact(function, *operands)
    place = testing.last_place(true, np.dtype(dtype))
    size = np.abs(true) / place
    whole = np.maximum(size, 2).reshape(-1, points)  # of a result of one unit or two, half is lost by rounding
    found = {peer: verify.peer_errors(call, operands, true) for peer, call in verify.rivals(function, output)}
    found["fastsig"] = testing.ulp(getattr(fastsig, function)(*operands), true)
    each = {peer: e.reshape(-1, points) for peer, e in found.items() if e is not None}
    bound = np.full(true.shape, kernel.ulp[dtype])
    if (absolute := verify.absolute_bound(kernel, output, dtype)) is not None:
        where = verify.where_absolute(kernel, output, dict(zip(kernel.inputs, operands, strict=True)))
        bound = np.where(where, absolute / place, bound)
    subnormal = (np.abs(true) < np.finfo(dtype).smallest_normal) & (size >= 0.5)
    return {
        "x": edges,
        "bound": bound.reshape(-1, points).max(axis=1),
        "peers": {peer: e.max(axis=1) for peer, e in each.items()},
        "lost": {peer: np.asarray((e >= whole).any(axis=1)) for peer, e in each.items()},
        "subnormal": np.asarray(subnormal.reshape(-1, points).any(axis=1)),
    }


def within(edges: Array, points: int) -> Array:
    """Random numbers, so many between each edge and the next."""
    share = np.random.default_rng(0).random((len(edges) - 1, points))
    return np.asarray(edges[:-1, None] + np.diff(edges)[:, None] * share).ravel()


def arguments(function: str, x: Array, label: int) -> tuple[Array, ...]:
    """x, or the p of which it is the logit, and the cross-entropy's label."""
    inputs = KERNELS[function].inputs
    if inputs == ("p",):
        info = np.finfo(x.dtype)
        (p,) = testing.exact("sigmoid", x)
        return (np.clip(p.astype(x.dtype), info.smallest_subnormal, 1 - info.epsneg),)
    return (x, np.full_like(x, label))[: len(inputs)]


@dataclass(frozen=True)
class Axis:
    """The axis of x, from 0 to 1: half of it is the ordinary range, and the tails beyond are compressed."""

    x: tuple[float, ...]
    place: tuple[float, ...]

    @classmethod
    def of(cls, function: str, dtype: str) -> Axis:
        reach, middle = 1.1 * testing.TAIL[dtype], ORDINARY[dtype]
        if KERNELS[function].inputs == ("p",):  # from the least p to the one next to 1
            low, high = float(np.finfo(dtype).smallest_subnormal), float(np.finfo(dtype).epsneg)
            return cls((np.log(low), -middle, -np.log(high)), (0, 0.25, 1))
        return cls((-reach, -middle, middle, reach), (0, 0.25, 0.75, 1))

    def forward(self, x: Array) -> Array:
        return np.interp(x, self.x, self.place)

    def inverse(self, place: Array) -> Array:
        return np.interp(place, self.place, self.x)


def derivatives(dtype: str, points: int = POINTS) -> dict[str, Array]:
    """The largest relative errors of σ'(x) from x, and from the saved output y, by bins of x in [-REACH, REACH].

    Both are fastsig's own: what y(1 - y) loses was lost when y was rounded.
    """
    edges = np.linspace(-REACH, REACH, BINS + 1)
    x = within(edges, points).astype(dtype)
    (true,) = testing.exact(GRADIENT, x)
    got = {"x": fastsig.sigmoid_grad(x), "y": fastsig.sigmoid_derivative(fastsig.sigmoid(x))}
    wrong = {name: np.abs(g.astype(true.dtype) - true) / true for name, g in got.items()}
    return {"edges": edges, **{name: np.asarray(e.reshape(-1, points).max(axis=1), np.float64) for name, e in wrong.items()}}


# --- how it is drawn ---------------------------------------------------------------------------------------------------


def draw(function: str, dtype: str, points: int = POINTS) -> Any:
    """The picture of `errors`; for the cross-entropy one below the other for t = 0 and t = 1.

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
    >>> draw("sigmoid", "float32", points=50).get_suptitle()
    'sigmoid(x) in float32: error in units in the last place'
    """
    inputs = KERNELS[function].inputs
    labels = LABELS if "t" in inputs else LABELS[:1]
    lost = "no digit right (relative error of 1 or more)"
    made, axes = plot.figure(WIDTH, HEIGHT * (1 + 0.7 * (len(labels) - 1)), rows=(1.3, 5.5) * len(labels), dpi=DPI)
    found = [errors(function, dtype, points, label) for label in labels]
    largest = max(worst[np.isfinite(worst)].max(initial=0) for each in found for worst in each["peers"].values())
    for k, (label, each) in enumerate(zip(labels, found, strict=True)):
        above, below = axes[2 * k : 2 * k + 2]
        lanes(above, each, f"t = {label}: {lost}" if "t" in inputs else lost)
        lines(below, each, f"fastsig states {KERNELS[function].ulp[dtype]:g}", largest)
        across(above, function, dtype)
        across(below, function, dtype)
        above.tick_params(labelbottom=False, bottom=False)
    compressed = "spaced by its logit, compressed left of the line" if "p" in inputs else "compressed beyond the dotted lines"
    axes[-1].set_xlabel(f"{inputs[0]} ({compressed})", fontsize=TEXT)
    made.suptitle(f"{function}({', '.join(inputs)}) in {dtype}: error in units in the last place", fontsize=TITLE)
    shown = axes[1].get_legend_handles_labels()
    axes[0].legend(*shown, loc="lower center", bbox_to_anchor=(0.5, 1.2), ncols=3, frameon=False, fontsize=TEXT)
    note = (
        f"For each of {BINS} intervals of {inputs[0]} the largest error at {points} random points; fastsig's line lies on top."
    )
    if function == "silu_grad":
        bound = KERNELS[function].absolute["dy"].bound[dtype]
        note += f"\nRound its zero at −1.28 the stated bound is absolute: $2^{{{np.log2(bound):.4g}}}$."
    made.supxlabel(note, fontsize=SMALL, color=plot.GREY)
    return made


def across(axes: Any, function: str, dtype: str) -> None:
    """The axis of x."""
    axis = Axis.of(function, dtype)
    axes.set_xscale("function", functions=(axis.forward, axis.inverse))
    axes.set_xlim(axis.x[0], axis.x[-1])
    if KERNELS[function].inputs == ("p",):
        small = {"float32": (44, 25, 8, 4), "float64": (300, 150, 16, 8)}[dtype]
        digits = {"float32": (4, 7), "float64": (8, 15)}[dtype]
        ticks = {float(d * -np.log(10)): f"$10^{{-{d}}}$" for d in small}
        ticks |= {0.0: "½"} | {float(d * np.log(10)): f"$1-10^{{-{d}}}$" for d in digits}
    else:
        places = {"float32": (10, 20, 60, 104), "float64": (20, 40, 400, 745)}[dtype]
        ticks = {float(sign * x): f"{sign * x:d}".replace("-", "−") for x in (0, *places) for sign in (1, -1)}
    axes.set_xticks(list(ticks), list(ticks.values()), fontsize=TEXT)
    axes.minorticks_off()
    for end in axis.x[1:-1]:
        axes.axvline(end, color=plot.GREY, linewidth=0.8, linestyle=":")


def lines(axes: Any, found: Errors, stated: str, largest: float) -> None:
    """The errors of each package, fastsig's on top and strongest, and what it states."""
    top = LOW if largest < LOW else 10 ** np.ceil(np.log10(largest) + 0.2)
    steps = partial(axes.stairs, edges=found["x"], baseline=None, antialiased=False)
    worst = found["peers"]["fastsig"]
    steps(worst, color=plot.COLOURS["fastsig"], linewidth=2.8, zorder=4, label=f"fastsig {fastsig.__version__}")
    steps(found["bound"], color="black", linewidth=1.3, linestyle="--", zorder=3, label=stated)
    for peer, width in PEERS.items():
        if peer in found["peers"]:
            shown = np.minimum(found["peers"][peer], top)
            steps(shown, color=plot.COLOURS[peer.lower()], linewidth=width, zorder=2, label=f"{peer} {version(peer)}")
    for k, (start, stop) in enumerate(runs(found["subnormal"])):
        ends = found["x"][start], found["x"][stop]
        axes.axvspan(*ends, color=plot.GREY, alpha=0.15, linewidth=0, zorder=0, label=None if k else "subnormal result")
    ticks = {0: "0", 0.5: "½", 1: "1", 2: "2"}
    if top > LOW:
        axes.set_yscale("symlog", linthresh=LINEAR, linscale=np.log10(top / LINEAR) / 2)  # a third of the height
        decades = round(np.log10(top))
        step = -(-decades // 4)
        ticks |= {10**k: f"$10^{{{k}}}$" if k > 1 else "10" for k in range(step, decades + 1, step)}
    axes.set_ylim(-top / 30 if top == LOW else -0.1, top)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=TEXT)
    axes.minorticks_off()
    axes.set_ylabel("error in ULP", fontsize=TEXT)


def lanes(axes: Any, found: Errors, title: str) -> None:
    """For each package a bar over the x where it has lost all digits."""
    peers = ["fastsig", *(peer for peer in found["lost"] if peer != "fastsig")]
    for k, peer in enumerate(peers):
        bars = [(found["x"][start], found["x"][stop] - found["x"][start]) for start, stop in runs(found["lost"][peer])]
        axes.broken_barh(bars, (k + 0.1, 0.8), color=plot.COLOURS[peer.lower()], linewidth=0)
    axes.set_ylim(len(peers), 0)
    axes.set_yticks(np.arange(len(peers)) + 0.5, peers, fontsize=LANE)
    axes.set_title(title, fontsize=TEXT, loc="left")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(left=False)
    axes.grid(False)
    axes.set_facecolor("#f6f6f6")


def runs(mask: Array) -> list[tuple[int, int]]:
    """Where it holds without a gap: the first of each run, and the one after its last."""
    ends = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [(int(start), int(stop)) for start, stop in zip(ends[::2], ends[1::2], strict=True)]


def draw_gradient(dtypes: Sequence[str] = DTYPES, points: int = POINTS) -> Any:
    """The picture of `derivatives`: what σ'(x) loses when it is computed from the saved output, as frameworks do.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    made, (axes,) = plot.figure(WIDTH, HEIGHT, dpi=DPI)
    for k, dtype in enumerate(dtypes):
        found = derivatives(dtype, points)
        steps = partial(axes.stairs, edges=found["edges"], baseline=None, antialiased=False)
        labels = (None, None) if k else ("from the input x: sigmoid_grad(x)", "from the saved output y: y·(1 − y)")
        steps(found["x"], color=plot.COLOURS["fastsig"], linewidth=2.8, zorder=3, label=labels[0])
        steps(found["y"], color=plot.ORANGE, linewidth=2.2, label=labels[1])
        axes.text(1 - REACH, 3 * found["y"][: BINS // 4].max(), dtype, fontsize=TEXT)
        one = -np.log(np.finfo(dtype).epsneg / 2)  # from here on the sigmoid rounds to 1
        axes.plot(one, 1, "o", color=plot.ORANGE, zorder=4)
        axes.annotate(f"0 from x = {one:.1f}", (one, 1), (0, 7), textcoords="offset points", ha="right", fontsize=TEXT)
    axes.axhline(1, color="black", linewidth=1)
    axes.annotate("no digit right", (1 - REACH, 1), (0, 7), textcoords="offset points", fontsize=TEXT)
    axes.set(xlim=(-REACH, REACH), yscale="log", ylim=(1e-17, 1e2))
    axes.set_xlabel("x", fontsize=TEXT)
    axes.set_ylabel("relative error", fontsize=TEXT)
    ticks = {10.0**k: f"$10^{{{k}}}$" if k else "1" for k in range(-16, 1, 4)}
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.tick_params(labelsize=TEXT)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize=TEXT)
    made.suptitle("The derivative of the sigmoid, from its input and from its output", fontsize=TITLE)
    note = f"For each of {BINS} intervals of x the largest error at {points} random points."
    made.supxlabel(note, fontsize=SMALL, color=plot.GREY)
    return made


def pictures(functions: Sequence[str] = FUNCTIONS, dtypes: Sequence[str] = DTYPES) -> Iterator[tuple[str, Any]]:
    """Each picture with its name, "accuracy-FUNCTION-DTYPE", and "accuracy-gradient" where sigmoid_grad is among them."""
    for function in functions:
        for dtype in dtypes:
            yield f"accuracy-{function}-{dtype}", draw(function, dtype)
    if GRADIENT in functions:
        yield "accuracy-gradient", draw_gradient(dtypes)
