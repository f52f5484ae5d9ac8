"""The pictures of the errors: what they show is what `verify` finds, and they are drawn where and as promised."""

from __future__ import annotations

import doctest
import itertools
import sys

import numpy as np
import pytest

from fastsig import plot, testing, verify
from fastsig.bench import accuracy
from fastsig.cli import main
from fastsig.kernels import KERNELS

EXTENDED = np.finfo(np.longdouble).nmant >= 63
WIDE_ENOUGH = pytest.mark.skipif(not EXTENDED, reason="no type wider than float64 here")
DTYPES = ["float32", pytest.param("float64", marks=WIDE_ENOUGH)]
TAIL_BEGINS = {"float32": 88.8, "float64": 709.8}  # exp(-x) overflows beyond
TAIL_ENDS = {"float32": 103.0, "float64": 744.0}
FEW = 60  # points of each bin
ONE = {"float32": 2.0**-23, "float64": 2.0**-52}


def in_tail(found, dtype):
    """The bins in which the sigmoid is subnormal, and two units in the last place or more."""
    return (found["x"][1:] <= -TAIL_BEGINS[dtype]) & (found["x"][:-1] >= -TAIL_ENDS[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", accuracy.FUNCTIONS)
def test_fastsig_keeps_its_bound_in_every_bin(name, dtype):
    (output,), kernel = KERNELS[name].outputs, KERNELS[name]
    largest = 0.0
    for label in accuracy.LABELS if "t" in kernel.inputs else (0,):
        found = accuracy.errors(name, dtype, FEW, label)
        mine = found["peers"]["fastsig"]
        assert mine.shape == found["bound"].shape == (len(found["x"]) - 1,)
        assert (mine <= found["bound"]).all()
        assert not found["lost"]["fastsig"].any()
        relative = found["bound"] == kernel.ulp[dtype]
        if verify.absolute_bound(kernel, output, dtype) is None or "t" in kernel.inputs:
            assert relative.all()
        else:  # the zero of the SiLU's derivative, and little else
            assert 0 < np.sum(~relative) < 10
        largest = max(largest, mine[relative].max())
    recorded = testing.recorded()[name][output][dtype]["error"]
    least = 0.75 if name == "bce_with_logits" else recorded - 0.25  # its worst label lies between 0 and 1
    assert least < largest < recorded + 0.01


def test_every_function_of_one_argument_has_a_picture():
    one = {name for name, kernel in KERNELS.items() if kernel.inputs in (("x",), ("p",)) and "_and_" not in name}
    assert set(accuracy.FUNCTIONS) == one | {"bce_with_logits", "bce_with_logits_grad"}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("peer", "package"), [("SciPy", "scipy"), ("NumPy", "numpy"), ("torch", "torch")])
def test_a_wrong_zero_in_the_tail_is_enormous(peer, package, dtype):
    pytest.importorskip(package, reason=f"{peer} isn't installed")
    found = accuracy.errors("sigmoid", dtype, FEW)
    tail = in_tail(found, dtype)
    assert tail.sum() >= 2
    assert found["subnormal"][tail].all()
    assert found["lost"][peer][tail].all()
    assert found["peers"][peer][tail].max() > {"float32": 1e6, "float64": 1e12}[dtype]
    elsewhere = found["x"][:-1] > -TAIL_BEGINS[dtype] + 1
    assert not found["lost"][peer][elsewhere].any()
    assert found["peers"][peer][elsewhere].max() < 4


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_no_number_is_an_infinite_error(wrong, monkeypatch):
    monkeypatch.setattr(verify, "rivals", lambda name, output: (("NumPy", lambda x: np.full_like(x, wrong)),))
    found = accuracy.errors("sigmoid", "float32", FEW)
    assert np.isinf(found["peers"]["NumPy"]).all()
    assert found["lost"]["NumPy"].all()
    pytest.importorskip("matplotlib", reason="matplotlib isn't installed")
    _, below = accuracy.draw("sigmoid", "float32", FEW).axes
    (line,) = (patch for patch in below.patches if patch.get_label().startswith("NumPy"))
    assert (line.get_data().values == below.get_ylim()[1]).all()  # at the top, not beyond


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_the_saved_output_has_lost(dtype):
    found = accuracy.derivatives(dtype, FEW)
    x, gone = found["edges"][:-1], {"float32": 17.4, "float64": 37.5}[dtype]
    assert found["x"].max() <= 0.85 * ONE[dtype]
    assert (found["y"][x > gone] == 1).all()
    assert (found["y"][x < -1] < 2 * ONE[dtype]).all()
    assert 0.03 < found["y"][(x > gone - 2) & (x < gone - 1)].max() < 1


def test_the_line_of_the_bound_is_at_the_bound():
    pytest.importorskip("matplotlib", reason="matplotlib isn't installed")
    made = accuracy.draw("bce_with_logits", "float32", FEW)
    assert len(made.axes) == 4  # what is lost, and the errors, for either label
    for axes in made.axes[1::2]:
        (bound,) = (patch for patch in axes.patches if patch.get_label() == "fastsig states 1.5")
        assert (bound.get_data().values == 1.5).all()
        (mine,) = (patch for patch in axes.patches if patch.get_label().startswith("fastsig 0"))
        assert all(mine.get_zorder() > other.get_zorder() for other in axes.patches if other is not mine)
        low, high = axes.get_ylim()
        heights = axes.transAxes.inverted().transform(axes.transData.transform([(0, y) for y in (low, 0.5, 1, high)]))[:, 1]
        assert heights[2] - heights[1] > 0.05  # they can be told apart in one picture with the largest


def test_pictures_are_written(tmp_path, capsys):
    image = pytest.importorskip("matplotlib.image", reason="matplotlib isn't installed")
    folder = tmp_path / "new" / "pictures"
    assert main(["verify", "--plot", str(folder), "--functions", "sigmoid_grad", "--dtypes", "float32"]) == 0
    assert "2 pictures" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"accuracy-sigmoid_grad-float32.png", "accuracy-gradient.png"}
    for path in folder.iterdir():
        assert path.stat().st_size < 100_000
        pixels = (image.imread(path)[..., :3] * 255).round().astype(int)
        assert pixels.shape[1] == accuracy.WIDTH * accuracy.DPI
        blue = [int(plot.COLOURS["fastsig"][k : k + 2], 16) for k in (1, 3, 5)]
        assert np.sum(np.abs(pixels - blue).max(axis=-1) <= 1) > 2000  # its line, from one side to the other


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--functions", "sigmoid_vjp"), "unknown function to draw 'sigmoid_vjp': choose from sigmoid, "),
        (("--dtypes", "float16"), "unknown dtype to draw 'float16': choose from float32, float64"),
        (("--table",), "--plot draws instead of checking"),
    ],
)
def test_what_cannot_be_drawn_is_told(arguments, told, tmp_path, capsys):
    assert main(["verify", "--plot", str(tmp_path / "pictures"), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_bad_directory_is_told_before_the_work(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib isn't installed")
    monkeypatch.setattr(accuracy, "errors", lambda *_: pytest.fail("work was done"))
    (tmp_path / "file").write_text("")
    for path in ("file", "file/below", "\0"):
        assert main(["verify", "--plot", str(tmp_path / path)]) == 2
        assert "can't write pictures: " in capsys.readouterr().err


def test_missing_matplotlib_is_told_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["verify", "--plot", str(tmp_path / "pictures")]) == 2
    assert "figures need matplotlib: pip install 'fastsig[plot]'" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_examples():
    pytest.importorskip("matplotlib", reason="matplotlib isn't installed")
    failed, tried = doctest.testmod(accuracy)
    assert tried >= 3
    assert failed == 0


# How linear RGB looks to those without one kind of cone (Machado, Oliveira & Fernandes 2009, severity 1), and to the others.
EYES = {
    "trichromat": np.eye(3),
    "protanope": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranope": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanope": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])


def lab(colour, eye):
    rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    t = XYZ @ np.clip(EYES[eye] @ linear, 0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(t > 216 / 24389, np.cbrt(t), (t * 24389 / 27 + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eye", EYES)
def test_colours_can_be_told_apart(eye):
    seen = {name: lab(colour, eye) for name, colour in plot.COLOURS.items()}
    often = {"fastsig", "numpy", "scipy", "torch", "jax"}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > (26.5 if {one, other} <= often else 22 - 0.5), (one, other)
    if eye == "trichromat":
        assert all(lightness < 80 for lightness, _, _ in seen.values())  # none is lost on white
