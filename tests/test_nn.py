"""The network: its gradients, its two ways to train, what it refuses, and its files."""

from __future__ import annotations

import _thread
import copy
import pickle
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsig import nn, parallel
from fastsig.nn import SGD, Adam, LevenbergMarquardt, Network, Rprop

ACTIVATIONS = ("sigmoid", "tanh", "silu", "linear")
LOSSES = [("squared", output) for output in ACTIVATIONS] + [("bce", "sigmoid"), ("cross_entropy", "softmax")]
STEPS = {
    "plain": SGD(0.1),
    "correction": SGD(0.1, correction=0.05),
    "momentum": SGD(0.02, momentum=0.9),
    "nesterov": SGD(0.02, momentum=0.9, nesterov=True, weight_decay=0.01),
    "everything": SGD(0.05, momentum=0.5, correction=0.02, weight_decay=0.1),
    "adam": Adam(0.01, weight_decay=0.01),
    "rprop": Rprop(0.01, weight_decay=0.01),
}


def problem(loss, n=20, inputs=3, outputs=4, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, inputs))
    t = random.normal(size=(n, outputs))
    if loss == "bce":
        t = random.choice([0.0, 1.0, 0.25], (n, outputs))
    elif loss == "cross_entropy":
        t = random.dirichlet(np.ones(outputs), n)
        t[::2] = np.eye(outputs)[random.integers(0, outputs, n)][::2]
    return x, t, random.choice([0.0, 0.5, 1.0, 3.0], n)


def loss_of(network, x, t, weights):
    network.forward(x)
    return network.backward(t, weights)[0]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("loss", "output"), LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_is_the_difference_quotient(activation, loss, output, weighted):
    """Central differences of fourth order, h = 1e-3: they are right to about 1e-11."""
    network = Network((3, 5, 4, 4), activation=activation, output=output, loss=loss, seed=1)
    x, t, weights = problem(loss)
    weights = weights if weighted else None
    network.forward(x)
    _, gradient = network.backward(t, weights)
    h, numerical = 1e-3, np.empty_like(gradient)
    for k in range(gradient.size):
        at = network.parameters[k]
        values = []
        for step in (-2, -1, 1, 2):
            network.parameters[k] = at + step * h
            values.append(loss_of(network, x, t, weights))
        network.parameters[k] = at
        numerical[k] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    assert np.abs(gradient - numerical).max() < 2e-10 * max(1, np.abs(gradient).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("loss", "output"), LOSSES)
@pytest.mark.parametrize("batch", [1, 7, None])
def test_the_compiled_loop_and_blas_train_alike(loss, output, step, batch, dtype):
    """The same samples in the same order: the parameters differ by rounding, which few steps don't amplify."""
    x, t, weights = problem(loss)
    activation = ACTIVATIONS[:2] if batch == 1 else ACTIVATIONS[2:]
    trained = []
    for compiled in (True, False):
        network = Network((3, 9, 5, 4), activation=activation, output=output, loss=loss, dtype=dtype, seed=2)
        network.fit(x, t, epochs=3, batch_size=batch, optimizer=STEPS[step], sample_weight=weights, compiled=compiled)
        trained.append(network)
    one, other = trained
    eps = np.finfo(dtype).eps
    if step in ("adam", "rprop"):  # a gradient that is nearly 0 has its sign, and with it a whole step, from the rounding
        close = np.abs(one.parameters - other.parameters) < 1e4 * eps
        assert close.mean() > 0.9
    else:
        assert np.abs(one.parameters - other.parameters).max() < 300 * eps
    np.testing.assert_allclose(one.history, other.history, rtol=1000 * eps)


def steps_of(network, x, t, optimizer, count):
    """What the optimisers are, in NumPy's plain words, from the gradient of all samples."""
    w = network.parameters
    decayed = np.zeros_like(w)
    for part in network.views(decayed)[0]:
        part[...] = optimizer.weight_decay
    v, previous, m, s = (np.zeros_like(w) for _ in range(4))
    sizes = np.full_like(w, optimizer.learning_rate)
    for k in range(1, count + 1):
        network.forward(x)
        g = network.backward(t)[1] + decayed * w
        if isinstance(optimizer, SGD):
            v = optimizer.momentum * v + g
            ahead = g + optimizer.momentum * v if optimizer.nesterov else v
            w -= optimizer.learning_rate * ahead + optimizer.correction * previous
            previous = g
        elif isinstance(optimizer, Adam):
            m = optimizer.beta_1 * m + (1 - optimizer.beta_1) * g
            s = optimizer.beta_2 * s + (1 - optimizer.beta_2) * g * g
            mean, square = m / (1 - optimizer.beta_1**k), s / (1 - optimizer.beta_2**k)
            w -= optimizer.learning_rate * mean / (np.sqrt(square) + optimizer.epsilon)
        else:
            sizes = np.where(g * previous > 0, np.minimum(sizes * optimizer.growth, optimizer.largest), sizes)
            sizes = np.where(g * previous < 0, np.maximum(sizes * optimizer.shrinkage, optimizer.smallest), sizes)
            previous = np.where(g * previous < 0, 0, g)
            w -= sizes * np.sign(previous)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_optimizers_are_their_formulas(step, compiled):
    x, t, _ = problem("squared")
    network, plain = (Network((3, 5, 4), activation="tanh", seed=3) for _ in range(2))
    network.fit(x, t, epochs=8, batch_size=None, optimizer=STEPS[step], compiled=compiled, shuffle=False)
    steps_of(plain, x, t, STEPS[step], 8)
    np.testing.assert_allclose(network.parameters, plain.parameters, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_keeps_its_digits(dtype):
    """Where the right class is certain, loss and gradient are small, not 0; no logit overflows."""
    network = Network((3, 3), loss="cross_entropy", dtype=dtype, seed=0)
    network.parameters[...] = 0.0
    network.weights[0][...] = np.eye(3)
    small = np.exp(np.longdouble(-40))
    network.forward([[40.0, 0.0, 0.0]])
    loss, gradient = network.backward([0])
    expected = np.array([-2 * small, small, small])
    np.testing.assert_allclose(float(loss), float(2 * small), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(network.views(gradient)[1][0], expected.astype(dtype), rtol=4 * np.finfo(dtype).eps)
    y = network.forward([[3e4, -3e4, 0.0]])
    loss, gradient = network.backward([1])
    assert y.tolist() == [[1, 0, 0]]
    assert loss == 6e4
    assert network.views(gradient)[1][0].tolist() == [1, -1, 0]


@given(st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_softmax_is_a_distribution(classes, seed):
    random = np.random.default_rng(seed)
    network = Network((4, classes), loss="cross_entropy", seed=seed)
    network.parameters = random.normal(0, 30, network.parameters.size)
    p = network.predict(random.normal(size=(7, 4)))
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_any_sizes_train_alike(layers, batch, seed):
    random = np.random.default_rng(seed)
    x, t = random.normal(size=(17, layers[0])), random.normal(size=(17, layers[-1]))
    one, other = (Network(layers, activation="tanh", seed=seed) for _ in range(2))
    for network, compiled in ((one, True), (other, False)):
        network.fit(x, t, epochs=2, batch_size=batch, optimizer=SGD(0.01, momentum=0.5), compiled=compiled)
    np.testing.assert_allclose(one.parameters, other.parameters, rtol=0, atol=1e-12)


@pytest.mark.parametrize("compiled", [True, False])
def test_how_it_is_sliced_changes_nothing(compiled, monkeypatch):
    """Training in one call, and in calls of any length, gives the same bits; so do slices of no time."""
    x, t, _ = problem("squared")

    def trained(*counts, slice=nn.SLICE):
        monkeypatch.setattr(nn, "SLICE", slice)
        network = Network((3, 6, 4), seed=4)
        for count in counts:
            network.partial_fit(x, t, epochs=count, batch_size=6, optimizer=Adam(0.01), compiled=compiled)
        return network

    whole = trained(60)
    for other in (trained(60, slice=0.0), trained(1, 20, 39)):
        assert other.parameters.tobytes() == whole.parameters.tobytes()
        assert other.history == whole.history


@pytest.mark.parametrize("compiled", [True, False])
def test_training_ends_at_the_error_limit(compiled):
    x, t, _ = problem("squared")
    whole = Network((3, 6, 4), seed=5).fit(x, t, epochs=200, batch_size=5, compiled=compiled)
    limit = whole.history[57]
    network = Network((3, 6, 4), seed=5).fit(x, t, epochs=200, batch_size=5, error_limit=limit, compiled=compiled)
    assert network.history == whole.history[: whole.history.index(limit) + 1]
    assert len(network.history) <= 58


@pytest.mark.parametrize("compiled", [True, False])
def test_weights_are_repetitions(compiled):
    """In full batches a sample of weight 3 is as good as three of them, and one of weight 0 as none."""
    x, t, _ = problem("squared", n=6)
    weights = np.array([3, 0, 1, 2, 0, 1])
    one, other = (Network((3, 5, 4), seed=6) for _ in range(2))
    settings = {"epochs": 20, "batch_size": None, "optimizer": SGD(0.1), "compiled": compiled}
    one.fit(x, t, sample_weight=weights, **settings)
    other.fit(np.repeat(x, weights, axis=0), np.repeat(t, weights, axis=0), **settings)
    np.testing.assert_allclose(one.parameters, other.parameters, rtol=0, atol=1e-13)
    np.testing.assert_allclose(one.history, other.history, rtol=1e-13)


def test_the_sum_is_the_mean_times_the_samples():
    x, t, _ = problem("squared")
    one = Network((3, 5, 4), reduction="mean", seed=7).fit(x, t, epochs=9, batch_size=None, optimizer=SGD(0.2))
    other = Network((3, 5, 4), reduction="sum", seed=7).fit(x, t, epochs=9, batch_size=None, optimizer=SGD(0.2 / len(x)))
    np.testing.assert_allclose(one.parameters, other.parameters, rtol=0, atol=1e-13)
    np.testing.assert_allclose(np.array(one.history) * len(x), other.history, rtol=1e-13)


def test_levenberg_and_marquardt_reach_what_descent_does_not():
    x = np.linspace(-1, 1, 40)[:, None]
    t = np.hstack([x**3, np.sin(3 * x)])
    for output in ("linear", "tanh"):
        network = Network((1, 8, 2), activation="tanh", output=output, seed=8)
        network.fit(x, t * 0.9, epochs=100, batch_size=None, optimizer=LevenbergMarquardt())
        other = Network((1, 8, 2), activation="tanh", output=output, seed=8)
        other.fit(x, t * 0.9, epochs=5000, batch_size=None, optimizer=SGD(0.3))
        assert network.history[-1] < other.history[-1] / 10
        assert (np.diff(network.history) <= 0).all()


def test_the_jacobian_is_the_gradients():
    x, t, _ = problem("squared")
    network = Network((3, 5, 4), activation="silu", output="tanh", reduction="sum", seed=9)
    work = nn.Workspace(network, len(x))
    residuals = work.forward(x) - t
    jacobian = np.empty((len(x), 4, network.parameters.size))
    work.differentiate(jacobian)
    network.forward(x)
    _, gradient = network.backward(t)
    np.testing.assert_allclose(np.einsum("no,nop->p", residuals, jacobian), gradient, rtol=0, atol=1e-12)


def test_same_seed_same_network():
    x, t, _ = problem("squared")
    one, other = (Network((3, 5, 4), seed=10).fit(x, t, epochs=5) for _ in range(2))
    assert one.parameters.tobytes() == other.parameters.tobytes()
    assert Network((3, 5, 4), seed=11).parameters.tobytes() != Network((3, 5, 4), seed=12).parameters.tobytes()


# --- what is handed in ---------------------------------------------------------------------------------------------------

X, T = np.zeros((4, 3)), np.zeros((4, 2))
WRONG_NETWORKS = {
    "layers must be at least two sizes": {"layers": (3,)},
    r"layers\[1\] must be at least 1, not 0": {"layers": (3, 0, 2)},
    r"layers\[0\] must be an integer, not 2.5": {"layers": (2.5, 2)},
    "activation must be one of 'linear', 'sigmoid', 'tanh', 'silu', not 'relu'": {"activation": "relu"},
    "activation must be one name, or one for each of the 1 hidden": {"activation": ("tanh", "tanh")},
    "loss must be one of 'squared', 'bce', 'cross_entropy', not 'hinge'": {"loss": "hinge"},
    "output with the loss 'bce' must be one of 'sigmoid', not 'tanh'": {"loss": "bce", "output": "tanh"},
    "reduction must be one of 'mean', 'sum', not 'max'": {"reduction": "max"},
    "dtype must be one of 'float32', 'float64', not 'float16'": {"dtype": "float16"},
    "seed must be None, an integer of at least 0 or a numpy.random.Generator, not -1": {"seed": -1},
}


@pytest.mark.parametrize("text", WRONG_NETWORKS)
def test_wrong_networks(text):
    with pytest.raises((TypeError, ValueError), match=text):
        Network(**{"layers": (3, 4, 2), **WRONG_NETWORKS[text]})


WRONG_SETTINGS = {
    "learning_rate must be a finite number greater than 0, not -1": lambda: SGD(-1),
    "momentum must be a finite number at least 0 and less than 1, not 1.0": lambda: SGD(0.1, momentum=1.0),
    "weight_decay must be a finite number at least 0, not -0.1": lambda: Adam(weight_decay=-0.1),
    "correction must be a finite number at least 0, not nan": lambda: SGD(correction=float("nan")),
    "beta_2 must be a finite number at least 0 and less than 1, not 2": lambda: Adam(beta_2=2),
    "growth must be a finite number greater than 1, not 0.5": lambda: Rprop(growth=0.5),
    "damping must be a finite number greater than 0 and less than 1e.12, not 'much'": lambda: LevenbergMarquardt("much"),
}


@pytest.mark.parametrize("text", WRONG_SETTINGS)
def test_wrong_settings(text):
    with pytest.raises(ValueError, match=text):
        WRONG_SETTINGS[text]()


def with_one(array, value):
    array = array.copy()
    array[2, 1] = value
    return array


WRONG_DATA = {
    r"x must have the shape \(n, 3\), not \(4, 2\)": {"x": T},
    r"x must have the shape \(n, 3\), not \(3,\)": {"x": X[0]},
    "x must hold at least one sample": {"x": X[:0], "t": T[:0]},
    r"x must be finite in float64, but x\[2, 1\] is nan": {"x": with_one(X, np.nan)},
    "x must hold real numbers, not complex128": {"x": X * 1j},
    r"t must have the shape \(4, 2\), not \(3, 2\)": {"t": T[:3]},
    r"t must be finite in float64, but t\[2, 1\] is inf": {"t": with_one(T, np.inf)},
    r"sample_weight must have the shape \(4,\), not \(3,\)": {"sample_weight": np.ones(3)},
    "sample_weight must be at least 0, but holds -1.0": {"sample_weight": [1, -1, 1, 1]},
    "sample_weight must be greater than 0 somewhere": {"sample_weight": np.zeros(4)},
    "epochs must be at least 1, not 0": {"epochs": 0},
    "epochs must be an integer, not 1.5": {"epochs": 1.5},
    "batch_size must be at least 1, not -3": {"batch_size": -3},
    "optimizer must be one of 'sgd', 'adam', 'rprop', 'levenberg_marquardt'.*not 'lbfgs'": {"optimizer": "lbfgs"},
    "error_limit must be a finite number at least 0, not -1": {"error_limit": -1},
    "needs the loss 'squared' and batch_size=None, not 'squared' and 2": {"optimizer": "levenberg_marquardt", "batch_size": 2},
}


@pytest.mark.parametrize("text", WRONG_DATA)
def test_wrong_data_leaves_the_network_as_it_was(text):
    random = np.random.default_rng(0)
    network = Network((3, 4, 2), seed=0).fit(random.normal(size=(4, 3)), random.normal(size=(4, 2)), epochs=2)
    before = pickle.dumps(network)
    with pytest.raises((TypeError, ValueError), match=text):
        network.fit(**{"x": X, "t": T, **WRONG_DATA[text]})
    assert pickle.dumps(network) == before


@pytest.mark.parametrize(
    ("loss", "t", "text"),
    [
        ("bce", [[0.0, 1.5]], r"t must be in \[0, 1\] for the loss 'bce', but holds 1.5"),
        ("cross_entropy", [[0.5, -0.5]], "t must be at least 0 for the loss 'cross_entropy', but holds -0.5"),
        ("cross_entropy", [2], "t must hold classes from 0 to 1, but holds 2"),
        ("cross_entropy", [0.5], "t must hold integers, the numbers of the classes"),
    ],
)
def test_wrong_targets(loss, t, text):
    with pytest.raises((TypeError, ValueError), match=text):
        Network((3, 2), loss=loss, seed=0).fit([[1.0, 2.0, 3.0]], t)


@pytest.mark.parametrize("further", [False, True])
@pytest.mark.parametrize("compiled", [True, False])
def test_divergence_is_an_error_and_undone(compiled, further):
    x, t, _ = problem("squared")
    network, other = (Network((3, 4), seed=0).fit(x, t, epochs=2, optimizer=SGD(0.01)) for _ in range(2))
    train = network.partial_fit if further else network.fit
    with pytest.raises(FloatingPointError, match=r"the loss is (inf|nan) in epoch \d+; with SGD\(learning_rate=1e\+200"):
        train(x, t, epochs=50, optimizer=SGD(1e200), compiled=compiled)
    assert pickle.dumps(network) == pickle.dumps(other)
    for each in (network, other):
        each.partial_fit(x, t, epochs=3, optimizer=SGD(0.01), compiled=compiled)
    assert network.parameters.tobytes() == other.parameters.tobytes()


def test_backward_needs_forward():
    network = Network((3, 2), seed=0)
    with pytest.raises(RuntimeError, match="backward needs a call of forward"):
        network.backward(T)
    network.forward(X)
    network.backward(T)
    with pytest.raises(RuntimeError, match="backward needs a call of forward"):
        network.backward(T)


@pytest.mark.parametrize("compiled", [True, False])
def test_an_interruption_keeps_what_was_learned(compiled):
    random = np.random.default_rng(0)
    x, t = random.normal(size=(500, 3)), random.normal(size=(500, 4))
    network = Network((3, 30, 4), seed=0)
    start = network.parameters.copy()
    timer = threading.Timer(0.5, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        network.fit(x, t, epochs=10_000_000, compiled=compiled)
    timer.join()
    assert len(network.history) > 1
    assert network.history[-1] < network.history[0]
    assert np.abs(network.parameters - start).max() > 0.01
    assert network.partial_fit(x, t, epochs=2, compiled=compiled).history[-1] < network.history[0]


def test_nothing_is_allocated_in_a_step():
    """The memory that a training asks for doesn't grow with the epochs, but for their losses."""
    random = np.random.default_rng(0)
    x, t = random.normal(size=(1000, 50)), random.normal(size=(1000, 20))
    network = Network((50, 40, 20), seed=0)
    peaks = []
    for epochs in (2, 40):
        tracemalloc.start()
        network.fit(x, t, epochs=epochs, batch_size=100, compiled=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20_000  # a batch's values alone are 32,000 bytes


def test_layers_are_computed_on_one_thread(words):
    """However large: BLAS has threads of its own, and two teams would wait for each other's processors."""
    words[parallel.PARALLEL] = 4096
    for loss in ("squared", "bce"):
        network = Network((3, 100, 50), loss=loss, seed=0)
        work = nn.Workspace(network, 64)
        calls = [operands for layer in work.activate for _, x, (y, s) in layer for operands in [(x, y, s)]]
        calls += nn.pieces(*[np.zeros((64, 50))] * 4)
        assert sum(operands[0].size for operands in calls) == 64 * 100 + 64 * 50
        assert all(sum(array.nbytes for array in operands) < 4096 for operands in calls)


def test_progress_is_shown_when_asked(capsys):
    Network((3, 2), seed=0).fit(X, T, epochs=3, progress=True)
    Network((3, 2), seed=0).fit(X, T, epochs=3)
    assert capsys.readouterr().out == ""


# --- copies and files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("loss", "output"), LOSSES)
def test_files_and_copies_are_exact(loss, output, dtype, tmp_path):
    x, t, _ = problem(loss)
    network = Network((3, 5, 6, 4), activation=("tanh", "silu"), output=output, loss=loss, dtype=dtype, seed=0)
    network.fit(x, t, epochs=3)
    network.save(tmp_path / "network.npz")
    others = [Network.load(tmp_path / "network.npz"), pickle.loads(pickle.dumps(network)), copy.deepcopy(network)]
    for other in others:
        assert repr(other) == repr(network)
        assert other.parameters.tobytes() == network.parameters.tobytes()
        assert other.history == network.history
        assert other.predict(x).tobytes() == network.predict(x).tobytes()
    network.fit(x, t, epochs=3)
    for other in others:  # the order of the samples goes on alike, too
        assert other.fit(x, t, epochs=3).parameters.tobytes() == network.parameters.tobytes()


def test_wrong_files(tmp_path):
    network = Network((2, 3, 1), seed=0)
    good = tmp_path / "good.npz"
    network.save(good)
    content = dict(np.load(good))
    files = {
        "text": b"layers: 2, 3, 1",
        "empty": b"",
        "cut": good.read_bytes()[:-300],
        "array": None,
        "other": {"a": np.zeros(3)},
        "later": {**content, "format": np.array("fastsig.Network 9")},
        "short": {**content, "parameters": content["parameters"][:-1]},
        "nan": {**content, "parameters": np.full_like(content["parameters"], np.nan)},
        "relu": {**content, "activations": np.array(["relu", "linear"])},
        "pickle": {**content, "history": np.array([{}], dtype=object)},
        "generator": {**content, "generator": np.array('{"bit_generator": "os"}')},
    }
    for name, stored in files.items():
        path = tmp_path / name
        with path.open("wb") as file:
            if isinstance(stored, dict):
                np.savez(file, **stored)
            elif stored is None:
                np.save(file, np.zeros(3))
            else:
                file.write(stored)
        with pytest.raises(ValueError, match=rf"path must name a file that Network.save wrote, not '.*{name}'"):
            Network.load(path)
    with pytest.raises(FileNotFoundError):
        Network.load(tmp_path / "nowhere")


def test_a_failed_save_leaves_the_file(tmp_path, monkeypatch):
    network = Network((2, 1), seed=0)
    network.save(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    monkeypatch.setattr(np, "savez", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network.save(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_later_process_compiles_nothing(python):
    """The loops come from the cache, and Numba isn't imported."""
    code = """
import sys
import numpy as np
from fastsig.nn import Network
x = np.zeros((64, 3))
for compiled in (True, False):
    Network((3, 4, 2), seed=0).fit(x, x[:, :2], epochs=2, compiled=compiled)
print("numba" in sys.modules)
"""
    python(code, warnings="ignore")
    assert python(code) == "False"


# --- hard to break --------------------------------------------------------------------------------------------------------

CASES, ANSWERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]]), np.array([0, 1, 1, 0.0])


def test_threads_that_train_one_network_take_turns():
    network = Network((2, 5, 1), seed=0).partial_fit(CASES, ANSWERS, optimizer="sgd")
    x = np.random.default_rng(0).random((20_000, 2))

    def little():
        for _ in range(30):
            network.partial_fit(CASES, ANSWERS, epochs=20, optimizer="sgd")

    threads = [
        threading.Thread(target=little),
        threading.Thread(target=lambda: network.partial_fit(x, x.sum(1), epochs=5, batch_size=1, optimizer="sgd")),
    ]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(network.history) == 1 + 30 * 20 + 5
    assert np.isfinite(network.parameters).all()


def test_what_a_pickle_brings_is_copied():
    """It may be read-only memory of another."""
    buffers = []
    data = pickle.dumps(Network((2, 5, 1), seed=0), protocol=5, buffer_callback=buffers.append)
    raw = [bytes(b) for b in buffers]
    given = [bytes(bytearray(b)) for b in raw]
    network = pickle.loads(data, buffers=given).fit(CASES, ANSWERS, epochs=5)
    assert network.parameters.flags.writeable
    assert given == raw
    assert copy.copy(network).fit(CASES, ANSWERS, epochs=1).parameters is not network.parameters


@pytest.mark.parametrize("name", ["layers", "loss", "reduction", "activations", "dtype"])
def test_what_a_network_was_made_with_stays(name):
    network = Network((2, 5, 1), seed=0)
    with pytest.raises(AttributeError, match=f"{name} can't be changed"):
        setattr(network, name, getattr(network, name))


def test_parameters_keep_their_place():
    network = Network((2, 5, 1), seed=0)
    with pytest.raises(ValueError, match=r"own its data|resize"):
        network.parameters.resize(1)
    for wrong in (np.zeros(5), 1.0, np.full(21, np.nan)):
        with pytest.raises(ValueError, match="parameters"):
            network.parameters = wrong
    network.parameters -= 1.0
    assert network.parameters.shape == (21,)


def test_same_samples_after_an_early_stop():
    """However many orders were drawn before it."""
    random = np.random.default_rng(0)
    x = random.random((400, 2))
    ends = set()
    for at_a_time in (1, 3, None):
        network = Network((2, 8, 1), seed=0)
        data = nn.Data(x, x[:, :1] * x[:, 1:], None, 32, True)
        list(nn.run_epochs(network, nn.Descent(Adam(0.003), network), data, 500, 5e-3, True, at_a_time))
        ends.add(network._generator.bit_generator.state["state"]["state"])
    assert len(ends) == 1


def test_forward_keeps_its_input():
    network, buffer = Network((2, 3, 1), seed=0), CASES.copy()
    network.forward(buffer)
    want = network.backward(ANSWERS)[1]
    network.forward(buffer)
    buffer[:] = 9
    assert (network.backward(ANSWERS)[1] == want).all()


def test_a_last_step_that_diverges_is_told():
    network = Network((2, 5, 1), seed=0)
    before = network.parameters.copy()
    with pytest.raises(FloatingPointError, match="aren't finite"):
        network.fit(CASES * 1e5, ANSWERS * 1e5, epochs=1, batch_size=None, optimizer=SGD(1e307))
    assert (network.parameters == before).all()


def test_levenberg_marquardt_begins_again():
    x = np.random.default_rng(0).random((30, 2))
    options = {"epochs": 100, "batch_size": None, "optimizer": LevenbergMarquardt()}
    network = Network((2, 1), seed=0).partial_fit(x, x[:, 0] + np.sin(9 * x[:, 1]), **options)
    assert network.partial_fit(x, 7 * x[:, 0], **options).history[-1] < 1e-20


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("generator", '{"bit_generator": "MT19937", "state": {"key": [0], "pos": 1000000000}}'),
        ("generator", "[" * 100_000),
        ("layers", np.array([10**6, 10**6])),
        ("layers", np.array([2.9, 5, 1])),
    ],
)
def test_no_file_is_trusted(field, value, tmp_path):
    Network((2, 5, 1), seed=0).save(tmp_path / "right.npz")
    stored = dict(np.load(tmp_path / "right.npz"))
    np.savez(tmp_path / "wrong.npz", **{**stored, field: np.array(value)})
    with pytest.raises(ValueError, match="path must name a file that Network"):
        Network.load(tmp_path / "wrong.npz")
    with pytest.raises(ValueError, match="seed must be a Generator over PCG64"):
        Network((2, 1), seed=np.random.Generator(np.random.MT19937(0)))
