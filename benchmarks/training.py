"""Training, against what else would be used: `python benchmarks/training.py` prints it, `--json FILE` keeps it.

Each way trains the same network with the same settings, and is checked before it is timed: that it learned as well, or ended
with the same loss. The ways take turns, a training each per round; what counts is the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier as Peer

import fastsig
from fastsig import classics, console
from fastsig.bench.machine import cpu, processors
from fastsig.bench.results import human_time
from fastsig.losses import bce_with_logits_loss
from fastsig.nn import SGD, Adam, MLPClassifier, Network

Array = np.ndarray[Any, np.dtype[Any]]
Training = Callable[[], float]  # trains anew; how well it did


@dataclass(frozen=True)
class Contest:
    """What is trained, by fastsig and by another, and how the two results must compare."""

    label: str
    peer: str
    bar: float  # fastsig's time over the other's should be no more
    ours: Training
    theirs: Training
    result: str  # what the trainings return
    equal: Callable[[float, float], bool]


# --- XOR -----------------------------------------------------------------------------------------------------------------


def plain_xor() -> float:
    """The same network and algorithm in plain Python; the loss of the last round."""
    draw, rate, correction = random.Random(0).uniform, classics.XOR_STEP.learning_rate, classics.XOR_STEP.correction
    hidden = [[draw(-0.9, 0.9) for _ in range(5)] for _ in range(3)]
    output = [draw(-1, 1) for _ in range(6)]
    hidden_before = [[0.0] * 5 for _ in range(3)]
    output_before = [0.0] * 6
    cases = [((a, b, 1.0), t) for (a, b), t in zip(classics.CASES.tolist(), classics.ANSWERS.tolist(), strict=True)]
    loss = 0.0
    for _ in range(classics.XOR_ROUNDS):
        loss = 0.0
        for x, t in cases:
            h = [1 / (1 + math.exp(-sum(x[i] * hidden[i][j] for i in range(3)))) for j in range(5)]
            h.append(1.0)
            y = 1 / (1 + math.exp(-sum(h[j] * output[j] for j in range(6))))
            loss += (y - t) ** 2 / 2
            delta = (y - t) * y * (1 - y)
            deltas = [delta * output[j] * h[j] * (1 - h[j]) for j in range(5)]
            for j in range(6):
                change = delta * h[j]
                output[j] -= rate * change + correction * output_before[j]
                output_before[j] = change
            for i in range(3):
                for j in range(5):
                    change = deltas[j] * x[i]
                    hidden[i][j] -= rate * change + correction * hidden_before[i][j]
                    hidden_before[i][j] = change
    return loss


def xor() -> Contest:
    return Contest(
        "XOR, 2-5-1 sigmoid, online, 10,000 rounds, float64",
        "plain Python",
        1 / 50,
        lambda: classics.xor_network("sigmoid", 0).history[-1],
        plain_xor,
        "loss",
        lambda ours, theirs: max(ours, theirs) < 0.005,  # other first weights: both have learned it
    )


# --- against scikit-learn ------------------------------------------------------------------------------------------------


def classifier(model: Any, x: Array, y: Array, fresh: Array, truth: Array) -> Training:
    def train() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return float(model.fit(x, y).score(fresh, truth))

    return train


def contest_of_classifiers(label: str, epochs: int, rate: float, data: Sequence[Array]) -> Contest:
    x, fresh, y, truth = data
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (100,),
        "activation": "logistic",
        "learning_rate_init": rate,
        "random_state": 0,
    }
    settings |= {"max_iter": epochs, "n_iter_no_change": epochs + 1, "tol": 0.0}
    return Contest(
        f"{label}, logistic, Adam, batches of 200, {epochs} epochs, float64",
        "scikit-learn",
        0.5,
        classifier(MLPClassifier(**settings), x, y, fresh, truth),
        classifier(Peer(**settings), x, y, fresh, truth),
        "accuracy",
        lambda ours, theirs: ours >= theirs - 0.003,
    )


def moons() -> Contest:
    x, t = classics.double_moon(12_000, 1.0, seed=0)
    data = train_test_split((x - x.mean(axis=0)) / x.std(axis=0), t, train_size=2_000, random_state=0)
    return contest_of_classifiers("MLPClassifier, double moon, 2-100-1", 100, 0.01, data)


def digits() -> Contest:
    x, y = load_digits(return_X_y=True)
    return contest_of_classifiers("MLPClassifier, digits, 64-100-10", 100, 0.003, train_test_split(x / 16, y, random_state=0))


# --- against torch -------------------------------------------------------------------------------------------------------


def epoch(optimizer: str) -> Contest:
    """One epoch of 100 batches, from the same weights, in the same order."""
    import torch

    draw = np.random.default_rng(0)
    x = draw.random((12_800, 784), np.float32)
    classes = draw.integers(0, 10, len(x))
    start = Network((784, 256, 10), loss="cross_entropy", dtype="float32", seed=0)
    step = Adam(0.001) if optimizer == "Adam" else SGD(0.1, momentum=0.9)
    network = Network((784, 256, 10), loss="cross_entropy", dtype="float32", seed=0)

    def ours() -> float:
        network.parameters[...] = start.parameters
        return network.fit(x, classes, epochs=1, batch_size=128, optimizer=step, shuffle=False, progress=False).history[-1]

    inputs, labels = torch.from_numpy(x), torch.from_numpy(classes)
    model = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.Sigmoid(), torch.nn.Linear(256, 10))
    loss_of = torch.nn.CrossEntropyLoss()

    def theirs() -> float:
        with torch.no_grad():
            for layer, weights, biases in zip((model[0], model[2]), start.weights, start.biases, strict=True):
                layer.weight.copy_(torch.from_numpy(weights.T))
                layer.bias.copy_(torch.from_numpy(biases))
        kinds = {"Adam": lambda p: torch.optim.Adam(p, 0.001), "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)}
        descent = kinds[optimizer](model.parameters())
        total = 0.0
        for begin in range(0, len(x), 128):
            descent.zero_grad()
            loss = loss_of(model(inputs[begin : begin + 128]), labels[begin : begin + 128])
            loss.backward()
            descent.step()
            total += loss.item()
        return total / (len(x) / 128)

    return Contest(
        f"an epoch of 784-256-10 sigmoid, softmax, {optimizer}, 100 batches of 128, float32",
        "torch, eager",
        1.0,
        ours,
        theirs,
        "loss",
        lambda ours, theirs: abs(ours - theirs) < 1e-3 * theirs,
    )


# --- the loss ------------------------------------------------------------------------------------------------------------

LOGITS = 1 << 24


def loss_of_torch(x: Array, t: Array) -> Training:
    import torch

    logits, labels = torch.from_numpy(x).requires_grad_(True), torch.from_numpy(t)

    def both() -> float:
        logits.grad = None
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        loss.backward()
        return float(loss.item())

    return both


def loss_of_jax(x: Array, t: Array) -> Training:
    import jax
    import jax.numpy as jnp

    def loss(x: Any, t: Any) -> Any:
        return jnp.mean(jnp.maximum(x, 0) - x * t + jnp.log1p(jnp.exp(-jnp.abs(x))))

    logits, labels, both = jnp.asarray(x), jnp.asarray(t), jax.jit(jax.value_and_grad(loss))
    return lambda: float(jax.block_until_ready(both(logits, labels))[0])


def loss_of_sklearn(x: Array, t: Array) -> Training:
    from sklearn._loss import HalfBinomialLoss

    loss, values, slopes, threads = HalfBinomialLoss(), np.empty_like(x), np.empty_like(x), fastsig.get_num_threads()

    def both() -> float:
        loss.loss_gradient(t, x, loss_out=values, gradient_out=slopes, n_threads=threads)
        return float(values.mean(dtype=np.float64))

    return both


def loss_and_gradient(peer: str, bar: float, theirs: Callable[[Array, Array], Training]) -> Contest:
    """The mean cross-entropy and its gradient of many logits, into memory that is there (torch and JAX make their own)."""
    draw = np.random.default_rng(0)
    x = draw.normal(0, 3, LOGITS).astype(np.float32)
    t = (draw.random(LOGITS) < 0.5).astype(np.float32)
    gradient = np.empty_like(x)
    return Contest(
        "cross-entropy and gradient, mean of 16 Mi float32",
        peer,
        bar,
        lambda: float(bce_with_logits_loss(x, t, out=gradient)[0]),
        theirs(x, t),
        "loss",
        lambda ours, theirs: abs(ours - theirs) < 1e-4 * theirs,
    )


# --- the runner ----------------------------------------------------------------------------------------------------------

CONTESTS: dict[str, Callable[[], Contest]] = {
    "loss-torch": lambda: loss_and_gradient("torch, autograd", 0.15, loss_of_torch),
    "loss-jax": lambda: loss_and_gradient("JAX, jitted", 0.6, loss_of_jax),
    "loss-sklearn": lambda: loss_and_gradient("scikit-learn", 0.25, loss_of_sklearn),
    "xor": xor,
    "moons": moons,
    "digits": digits,
    "epoch-sgd": lambda: epoch("SGD"),
    "epoch-adam": lambda: epoch("Adam"),
}


def measure(contest: Contest, rounds: int) -> dict[str, Any]:
    """Both ways in turn. What they return is compared first, in a round that isn't counted."""
    ours, theirs = contest.ours(), contest.theirs()
    if not contest.equal(ours, theirs):
        raise AssertionError(f"{contest.label}: a {contest.result} of {ours} is not as good as {theirs}")
    times: dict[Training, list[float]] = {contest.ours: [], contest.theirs: []}
    for _ in range(rounds):
        for training, taken in times.items():
            begin = time.perf_counter()
            training()
            taken.append(time.perf_counter() - begin)
    mine, other = (statistics.median(taken) for taken in times.values())
    return {
        "label": contest.label,
        "peer": contest.peer,
        "bar": contest.bar,
        "seconds": mine,
        "peer_seconds": other,
        "ratio": mine / other,
        "result": contest.result,
        "ours": ours,
        "theirs": theirs,
    }


COLUMNS = ("training", "fastsig", "the other", "ratio", "result")


def row(found: dict[str, Any]) -> list[str]:
    over = found["ratio"] > found["bar"]
    digits = 4 if found["result"] == "accuracy" else 3
    return [
        found["label"],
        human_time(found["seconds"]),
        f"{found['peer']}: {human_time(found['peer_seconds'])}",
        f"{found['ratio']:.3f}" if not over else f"**{found['ratio']:.3f}**",
        f"{found['result']} {found['ours']:.{digits}g} and {found['theirs']:.{digits}g}",
    ]


@contextmanager
def threads_of_all(threads: int) -> Iterator[None]:
    """As many for BLAS, torch and fastsig."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpoolctl.threadpool_limits(threads), fastsig.num_threads(threads):
            yield
    finally:
        torch.set_num_threads(before)


def described(threads: int) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "scikit-learn", "torch", "jax"))
    return f"{cpu()}, {threads} thread{'s' if threads > 1 else ''}, Python {platform.python_version()}, {versions}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=processors(), help="for each (default: all processors)")
    parser.add_argument("--only", choices=CONTESTS, nargs="*", default=list(CONTESTS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results there")
    args = parser.parse_args()
    with threads_of_all(args.threads):
        found = [measure(CONTESTS[name](), args.rounds) for name in args.only]
    results = {"machine": described(args.threads), "rounds": args.rounds, "contests": found}
    console.table("Training", COLUMNS, [row(one) for one in found])
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
