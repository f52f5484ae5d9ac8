"""The classic networks: what they promise, their data, their figures, and the commands."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from fastsig import classics, plot

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def command():
    """`python -m fastsig` in a process of its own: status, standard output and error."""

    def run(*arguments, status=0):
        line = [sys.executable, "-m", "fastsig", *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300)
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


def pixels(path):
    image = pytest.importorskip("matplotlib.image", reason="matplotlib isn't installed").imread(path)
    return (image[..., :3] * 255).round().astype(int)


def colours(path, colour):
    """How many pixels have this colour, as good as."""
    wanted = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])
    return int((np.abs(pixels(path) - wanted).max(axis=-1) < 40).sum())


@pytest.mark.parametrize("activation", classics.ACTIVATIONS)
def test_xor_is_learned_from_every_seed(activation):
    told, words, _ = classics.xor(activation)
    assert told["learned"] == told["seeds"] == 20
    assert told["largest_error"] < 0.1
    assert "All four cases are learned from 20 of 20 seeds" in "\n".join(words)


@pytest.mark.parametrize("activation", classics.ACTIVATIONS)
def test_moons_are_told_apart(activation):
    told, words, _ = classics.moons(activation)
    assert [moon["distance"] for moon in told["moons"]] == [1, 0, -4]
    assert all(moon["accuracy"] >= 0.995 for moon in told["moons"])
    assert "Distance 1: 100.00% of 10,000 fresh points" in "\n".join(words)


@pytest.mark.parametrize("distance", [1.0, 0.0, -4.0])
def test_double_moon_is_where_it_should_be(distance):
    x, t = classics.double_moon(4001, distance, seed=1)
    assert abs(t.sum() - 2000) <= 1
    for label, middle, side in ((0, (0, 0), 1), (1, (10, -distance), -1)):
        across, up = (x[t == label] - middle).T
        assert (side * up >= 0).all()
        radius = np.hypot(across, up)
        assert radius.min() >= 7
        assert radius.max() <= 13
        assert radius.max() - radius.min() > 5.9


@pytest.mark.parametrize(("n", "width"), [(1, 6.0), (10, 0.0), (10, 21.0)])
def test_wrong_moons(n, width):
    with pytest.raises(ValueError, match=r"(n|width) must be"):
        classics.double_moon(n, 1.0, width=width)


@pytest.mark.parametrize("activation", classics.ACTIVATIONS)
def test_freight_is_forecast(activation):
    told, words, _ = classics.freight(activation)
    descent, damped = told["runs"]
    assert descent["rounds"] == 50_000
    assert not descent["limit_met"]
    assert 0.01 < descent["error"] < 0.04
    assert damped["limit_met"]
    assert damped["error"] <= 0.65e-3
    text = "\n".join(words)
    assert "the limit not met" in text
    assert "the limit met" in text
    for run in told["runs"]:
        assert np.shape(run["forecast"]) == (2, 2)
        assert all(f"{passengers:,.0f} x 10,000 passengers" in text for passengers, _ in run["forecast"])


def test_levenberg_and_marquardt_meet_the_limit_from_every_seed():
    assert all(classics.freight("sigmoid", seed)[0]["runs"][1]["limit_met"] for seed in range(5))


def test_freight_data_is_the_textbooks():
    years, x, t = classics.freight_data()
    assert years.tolist() == list(range(1990, 2010))
    assert x.sum(axis=0) == pytest.approx([792.69, 37.75, 7.57])
    assert t.sum(axis=0) == pytest.approx([422175, 188028])
    assert classics.AHEAD.tolist() == [[73.39, 3.9635, 0.9880], [75.55, 4.0975, 1.0268]]


@pytest.mark.parametrize("network", classics.NETWORKS)
def test_train_command(network, command, tmp_path):
    path = tmp_path / "figure.png"
    shown = command("train", network, "--activation", "tanh", "--plot", path)
    assert "tanh" in shown
    assert f"The figure is in {path}." in shown
    assert path.read_bytes().startswith(PNG)
    assert colours(path, plot.BLUE) > 500
    told = json.loads(command("train", network, "--json"))
    assert (told["network"], told["activation"]) == (network, "sigmoid")


def test_plot_command(command, tmp_path):
    path = tmp_path / "curve.png"
    assert str(path) in command("plot", path)
    assert path.read_bytes().startswith(PNG)
    assert colours(path, plot.BLUE) > 500
    assert colours(path, plot.ORANGE) > 500


def test_the_curve_is_the_sigmoid():
    (axes,) = plot.curve().axes
    value, slope = axes.lines
    assert axes.get_title()
    assert axes.get_legend()
    for line in (value, slope):
        assert line.get_xdata().tolist() == np.linspace(-10, 10, 1000).tolist()
    x = value.get_xdata()
    np.testing.assert_allclose(value.get_ydata(), 1 / (1 + np.exp(-x)), rtol=1e-14)
    np.testing.assert_allclose(slope.get_ydata(), np.exp(-x) / (1 + np.exp(-x)) ** 2, rtol=1e-14)


def test_boundary_is_drawn_where_the_network_is_undecided():
    x = np.array([[-1.0, 0.0], [1.0, 0.0]])
    made = plot.boundaries({"half": (x, np.array([0.0, 1.0]), lambda points: 1 / (1 + np.exp(-points[:, 0])))})
    (line,) = made.axes[0].collections[1].get_paths()
    assert np.abs(line.vertices[:, 0]).max() < 0.01


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("plot", "/nowhere/at/all.png"), "fastsig plot: "),
        (("plot", "figure"), "the file's name must end in .png"),
        (("plot", "figure.xyz"), "xyz"),
        (("train", "xor", "--plot", "/nowhere/at/all.png"), "fastsig train: "),
        (("train", "and"), "invalid choice: 'and'"),
        (("train", "xor", "--activation", "relu"), "invalid choice: 'relu'"),
    ],
)
def test_commands_say_what_is_wrong(arguments, text, command):
    shown = command(*arguments, status=2)
    assert text in shown
    assert "Traceback" not in shown


def test_without_matplotlib(python):
    code = """
import sys
sys.modules["matplotlib"] = None
from fastsig.cli import main
print(main(["plot", "curve.png"]))
"""
    assert python(code) == "2"
