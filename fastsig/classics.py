"""The classic networks of the tutorials: XOR, the double moon, and the forecast of road traffic; `python -m fastsig train`."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np

from fastsig.nn import Array, Network
from fastsig.optimizers import SGD, Adam, LevenbergMarquardt, Optimizer

ACTIVATIONS = ("sigmoid", "tanh")
Told = dict[str, Any]  # what happened, for JSON
Outcome = tuple[Told, list[str], Callable[[], Any]]  # that, the same in words, and how to draw it


# --- XOR -----------------------------------------------------------------------------------------------------------------

CASES = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
ANSWERS = np.array([0.0, 1.0, 1.0, 0.0])
XOR_ROUNDS = 10_000
XOR_STEP = SGD(0.05, correction=0.1)
SEEDS = 20


def xor_network(activation: str, seed: int) -> Network:
    """The network 2-5-1, trained as the tutorials do it: online, the cases in their order."""
    network = Network((2, 5, 1), activation=activation, output=activation, reduction="sum", seed=seed)
    return network.fit(CASES, ANSWERS, epochs=XOR_ROUNDS, batch_size=1, optimizer=XOR_STEP, shuffle=False, progress=False)


def xor(activation: str, seeds: int = SEEDS) -> Outcome:
    from fastsig import plot

    networks = [xor_network(activation, seed) for seed in range(seeds)]
    outputs = np.array([network.predict(CASES)[:, 0] for network in networks])
    learned = int(((outputs > 0.5) == (ANSWERS > 0.5)).all(axis=1).sum())
    worst = float(np.abs(outputs - ANSWERS).max())
    told = {
        "rounds": XOR_ROUNDS,
        "learning_rate": XOR_STEP.learning_rate,
        "correction": XOR_STEP.correction,
        "seeds": seeds,
        "learned": learned,
        "largest_error": worst,
        "outputs": outputs.tolist(),
    }
    words = [
        f"XOR by the network 2-5-1, {activation}: {XOR_ROUNDS:,} rounds of online back-propagation with a learning rate of",
        f"{XOR_STEP.learning_rate:g} and a correction of {XOR_STEP.correction:g}.",
        f"All four cases are learned from {learned} of {seeds} seeds; the worst output is off by {worst:.3f}.",
        "From seed 0:",
        *(
            f"  {a:.0f} xor {b:.0f} = {t:.0f}, learned as {y:.3f}"
            for (a, b), t, y in zip(CASES, ANSWERS, outputs[0], strict=True)
        ),
    ]
    title = f"XOR, {activation}: {seeds} seeds"
    return told, words, lambda: plot.losses(title, [network.history for network in networks])


# --- the double moon -----------------------------------------------------------------------------------------------------

RADIUS, WIDTH, DISTANCES = 10.0, 6.0, (1.0, 0.0, -4.0)
TRAINING, FRESH, HIDDEN, MOON_EPOCHS, MOON_BATCH = 2_000, 10_000, 20, 200, 50
MOON_STEP = Adam(0.03)


def double_moon(
    n: int, distance: float, *, radius: float = RADIUS, width: float = WIDTH, seed: int | np.random.Generator | None = None
) -> tuple[Array, Array]:
    """Points of two half-moons, one hanging upside down below and beside the other.

    Parameters
    ----------
    n : int
        How many points, half of them in each.
    distance : float
        How far the lower moon's rim lies below the upper's; negative, they reach into each other.
    radius, width : float
        Of the middle of each ring, and of the ring.
    seed : int or numpy.random.Generator, optional

    Returns
    -------
    x : ndarray
        (n, 2) points, uniform in angle and in distance from their ring's middle.
    t : ndarray
        (n,) 0 for the upper moon, 1 for the lower.

    Raises
    ------
    ValueError
        If there are less than 2 points, or `width` isn't between 0 and twice the radius.

    References
    ----------
    Haykin, "Neural Networks and Learning Machines", 2009, section 1.5.

    Examples
    --------
    >>> from fastsig.classics import double_moon
    >>> x, t = double_moon(1000, 1.0, seed=0)
    >>> x.shape, int(t.sum())
    ((1000, 2), 500)
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, not {n!r}")
    if not 0 < width <= 2 * radius:
        raise ValueError(f"width must be between 0 and twice the radius {radius!r}, not {width!r}")
    random = np.random.default_rng(seed)
    t = np.arange(n) % 2.0
    rings, angles = random.uniform(radius - width / 2, radius + width / 2, n), random.uniform(0, np.pi, n)
    side = 1 - 2 * t
    return np.column_stack([rings * np.cos(angles) + radius * t, side * rings * np.sin(angles) - distance * t]), t


def moons(activation: str, distances: tuple[float, ...] = DISTANCES, seed: int = 0) -> Outcome:
    from fastsig import plot

    words = [
        f"The double moon, radius {RADIUS:g}, width {WIDTH:g}: a network 2-{HIDDEN}-1, {activation}, learns {TRAINING:,}",
        f"points with the binary cross-entropy, {MOON_EPOCHS} epochs in batches of {MOON_BATCH}, by",
        f"Adam at {MOON_STEP.learning_rate:g}.",
    ]
    told, panels = [], {}
    for distance in distances:
        random = np.random.default_rng(seed)
        x, t = double_moon(TRAINING, distance, seed=random)
        fresh, truth = double_moon(FRESH, distance, seed=random)
        mean, deviation = x.mean(axis=0), x.std(axis=0)

        network = Network((2, HIDDEN, 1), activation=activation, loss="bce", seed=seed)
        network.fit((x - mean) / deviation, t, epochs=MOON_EPOCHS, batch_size=MOON_BATCH, optimizer=MOON_STEP, progress=False)

        def probability(points: Array, network: Network = network, mean: Array = mean, deviation: Array = deviation) -> Array:
            return network.predict((points - mean) / deviation)[:, 0]

        right = float(((probability(fresh) > 0.5) == (truth > 0.5)).mean())
        told.append({"distance": distance, "accuracy": right, "loss": network.history[-1], "epochs": MOON_EPOCHS})
        words.append(f"Distance {distance:g}: {right:.2%} of {FRESH:,} fresh points are told apart.")
        panels[f"distance {distance:g}: {right:.2%}"] = x, t, probability
    return {"seed": seed, "moons": told}, words, lambda: plot.boundaries(panels)


# --- road traffic --------------------------------------------------------------------------------------------------------

NOISE, FREIGHT_ROUNDS, LIMIT = 0.01, 50_000, 0.65e-3
FREIGHT_STEPS: dict[str, Optimizer] = {"gradient descent": SGD(0.035), "Levenberg-Marquardt": LevenbergMarquardt()}
# Population (10,000), vehicles (10,000), road area (10,000 km²) of the two years to come
AHEAD = np.array([[73.39, 3.9635, 0.9880], [75.55, 4.0975, 1.0268]])
TARGETS = ("passengers (10,000)", "freight (10,000 t)")


def freight_data() -> tuple[Array, Array, Array]:
    """Years, what is known of them, and what is to be forecast: the textbook's 20 rows.

    Returns
    -------
    years : ndarray
        (20,)
    x : ndarray
        (20, 3): population in 10,000, vehicles in 10,000, road area in 10,000 km².
    t : ndarray
        (20, 2): passengers in 10,000, freight in 10,000 t.

    Raises
    ------
    OSError
        If the package's data file is missing.

    Examples
    --------
    >>> from fastsig.classics import freight_data
    >>> years, x, t = freight_data()
    >>> years[0], x[0], t[0]
    (np.float64(1990.0), array([20.55,  0.6 ,  0.09]), array([5126., 1237.]))
    """
    with files("fastsig").joinpath("data/freight.csv").open(encoding="utf-8") as file:
        rows = np.array([[float(cell) for cell in row] for row in list(csv.reader(file))[1:]])
    return rows[:, 0], rows[:, 1:4], rows[:, 4:]


def scaled(values: Array, known: Array) -> Array:
    """To [-1, 1] by the least and the largest of what is known."""
    low, high = known.min(axis=0), known.max(axis=0)
    return np.asarray(2 * (values - low) / (high - low) - 1)


def restored(values: Array, known: Array) -> Array:
    low, high = known.min(axis=0), known.max(axis=0)
    return np.asarray(low + (values + 1) / 2 * (high - low))


def freight(activation: str, seed: int = 0) -> Outcome:
    from fastsig import plot

    years, x, t = freight_data()
    noise = np.random.default_rng(seed).normal(0, NOISE, t.shape)
    inputs, ahead = scaled(x, x), years[-1] + 1 + np.arange(len(AHEAD))
    words = [
        f"Road traffic 1990-2009 by a network 3-8-2, {activation} and linear: inputs and targets scaled to [-1, 1], noise of",
        f"deviation {NOISE:g} on the targets, full batches, {FREIGHT_ROUNDS:,} rounds at most, or until the summed squared",
        f"error is {LIMIT:g}.",
    ]
    told, fits = [], {}
    for name, step in FREIGHT_STEPS.items():
        network = Network((3, 8, 2), activation=activation, reduction="sum", seed=seed)
        network.fit(
            inputs,
            scaled(t, t) + noise,
            epochs=FREIGHT_ROUNDS,
            batch_size=None,
            optimizer=step,
            shuffle=False,
            error_limit=LIMIT / 2,  # the loss is half of the squared error
            progress=False,
        )
        error, rounds = 2 * network.history[-1], len(network.history)
        fits[name] = restored(network.predict(scaled(np.vstack([x, AHEAD]), x)), t)
        forecast = fits[name][len(years) :]
        told.append(
            {"optimizer": name, "rounds": rounds, "error": error, "limit_met": error <= LIMIT, "forecast": forecast.tolist()}
        )
        met = "met" if error <= LIMIT else "not met"
        words.append(f"{name}: {rounds:,} rounds, error {error:.3g}, the limit {met}. Forecast:")
        words += [
            f"  {year:.0f}: {passengers:,.0f} x 10,000 passengers, {load:,.0f} x 10,000 t"
            for year, (passengers, load) in zip(ahead, forecast, strict=True)
        ]
    expected = NOISE**2 * t.size
    words += [
        f"The noise alone has a summed square of about {expected:g}: a network that meets the limit has learned noise as well,",
        "and its forecast, outside of what it was shown, depends on the seed. Gradient descent doesn't get there.",
    ]
    result = {"seed": seed, "limit": LIMIT, "runs": told}
    return result, words, lambda: plot.forecasts(years, dict(zip(TARGETS, t.T, strict=True)), fits, ahead)


# --- the command ---------------------------------------------------------------------------------------------------------

NETWORKS: dict[str, Callable[[str], Outcome]] = {"xor": xor, "moons": moons, "freight": freight}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", choices=NETWORKS, help="which of the classic networks")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="sigmoid", help="of the hidden units (default: sigmoid)")
    parser.add_argument("--plot", metavar="FILE.png", help="draw what was learned")
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    result, words, draw = NETWORKS[args.network](args.activation)
    if args.plot:
        from fastsig import plot

        try:
            plot.save(draw(), args.plot)
        except (ImportError, OSError, ValueError) as error:
            print(f"fastsig train: {error}", file=sys.stderr)
            return 2
        words.append(f"The figure is in {args.plot}.")
    told = {"network": args.network, "activation": args.activation, **result}
    print(json.dumps(told, indent=2) if args.json else "\n".join(words))
    return 0
