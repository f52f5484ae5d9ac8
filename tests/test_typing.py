"""What a type checker sees: the dtypes that NumPy gives, and mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import as_tuple

NAMES = """
import numpy as np
import fastsig
import fastsig.losses
h, f, d = np.ones(3, np.float16), np.ones(3, np.float32), np.ones(3, np.float64)
grid = np.ones((2, 3), np.float32)
truth, small, short, index = np.ones(3, np.bool), np.ones(3, np.int8), np.ones(3, np.uint16), np.ones(3, np.int64)
hs, fs, ds, bs, js = np.float16(1), np.float32(1), np.float64(1), np.bool(True), np.int64(1)
"""
OPERANDS = ("h", "f", "d", "grid", "truth", "small", "short", "index", "hs", "fs", "ds", "bs", "js", "True", "1", "1.0")
LISTS = ("[True]", "[1, 2]", "[0.5, 1]", "[[0.5], [1]]", "[fs]", "(1.0,)")
KEYWORDS = (
    "sigmoid(f, dtype=np.float64)",
    "sigmoid(grid, dtype=np.dtype(np.float16))",
    "sigmoid([1.0], dtype=np.float32)",
    "sigmoid(0.5, dtype=np.float32)",
    "sigmoid(index, dtype=np.float64, casting='unsafe', order='C')",
    "sigmoid(f, out=d)",
    "sigmoid(f, d)",
    "sigmoid([1.0, 2, 3], out=(f,), casting='same_kind')",
    "sigmoid(f, out=f, where=truth)",
    "sigmoid(f, where=truth, out=None, subok=False)",
    "sigmoid_vjp(f, f, dtype=np.float64)",
    "sigmoid_vjp(f, 1.0, dtype=np.float64)",
    "sigmoid_vjp(1, grid, dtype=np.float32)",
    "sigmoid_vjp(1, 2, dtype=np.float32)",
    "sigmoid_vjp(f, f, out=d)",
    "sigmoid_vjp(f, f, d)",
    "sigmoid_vjp([0.5, 1], [1, 2])",
    "sigmoid_value_and_grad(f, dtype=np.float64)",
    "sigmoid_value_and_grad(1.0, dtype=np.float32)",
    "sigmoid_value_and_grad(f, out=(f, d))",
    "sigmoid_value_and_grad(f, f, d)",
    "bce_with_logits_value_and_grad(f, truth, out=(f, d))",
    "bce_with_logits_value_and_grad(f, 1.0, dtype=np.float64)",
    "losses.bce_with_logits_loss(f, truth)",
    "losses.bce_with_logits_loss(d, d, reduction='none', pos_weight=2)",
    "losses.bce_with_logits_loss(f, f, hess=True, label_smoothing=0.1)",
    "losses.bce_with_logits_loss(f, f, hess=True, reduction='none')",
    "losses.bce_with_logits_loss(f, f, grad=False, reduction='sum')",
    "losses.bce_with_logits_loss(f, f, grad=False, reduction='none')",
    "losses.focal_loss(f, f, gamma=1)",
    "losses.focal_loss(f, f, reduction='none')",
    "losses.focal_loss(f, f, grad=False)",
    "losses.focal_loss(f, f, grad=False, reduction='none')",
)
# What types alone don't tell, Python's numbers beside integers, is Any, and may be used as what it is.
INTEGERS = ("truth", "small", "short", "index", "bs", "js")
UNTOLD = {call for a in INTEGERS for b in ("1", "1.0") for call in (f"sigmoid_vjp({a}, {b})", f"sigmoid_vjp({b}, {a})")}
UNTOLD |= {f"bce_with_logits_value_and_grad(1.0, {a})" for a in INTEGERS}
RIGHT = """
import numpy as np
import numpy.typing as npt
import fastsig.losses
import fastsig.nn
from fastsig.typing import OneToOne

def layer(x: npt.NDArray[np.float32], bias: np.float32) -> npt.NDArray[np.float32]:
    y, dy = fastsig.silu_value_and_grad(x)
    return fastsig.silu_vjp(y, bias)

def slope(activation: OneToOne, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return activation(x)

slope(fastsig.tanh_grad, np.zeros(3))
loss, gradient = fastsig.losses.bce_with_logits_loss(np.zeros(3), [0, 1, 1], reduction=str("mean"))
network = fastsig.nn.Network((2, 5, 1), activation="tanh", seed=0).fit([[0, 1], [1, 0]], [0, 1], epochs=2)
answer: npt.NDArray[np.float64] = network.predict([[0, 1]])
threads: int = fastsig.get_num_threads()
with fastsig.num_threads(1):
    fastsig.set_num_threads(2)
inputs: int = fastsig.sigmoid.nin
"""
WRONG = {
    "fastsig.sigmoid(x, wehre=True)": "call-overload",
    "fastsig.sigmoid(x, casting='sometimes')": "call-overload",
    "fastsig.sigmoid(x, x, x)": "call-overload",
    "fastsig.sigmoid()": "call-overload",
    "fastsig.sigmoid_vjp(x)": "call-overload",
    "fastsig.sigmod(x)": "attr-defined",
    "double: npt.NDArray[np.float64] = fastsig.sigmoid(x)": "assignment",
    "y, dy = fastsig.sigmoid(0.5)": "misc",
    "fastsig.set_num_threads('two')": "arg-type",
    "fastsig.losses.focal_loss(x, x, alfa=0.5)": "call-overload",
    "fastsig.nn.SGD('fast')": "arg-type",
}


def calls():
    """Every pair of operands, in functions of each kind."""
    one = [f"{name}({x})" for name in ("sigmoid", "sigmoid_value_and_grad") for x in (*OPERANDS, *LISTS)]
    two = [f"sigmoid_vjp({a}, {b})" for a in OPERANDS for b in OPERANDS]
    few = [f"bce_with_logits_value_and_grad({a}, {b})" for a in ("f", "d", "fs", "1.0") for b in ("f", "truth", "index", "1.0")]
    return [*one, *two, *few, *KEYWORDS]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """By file and line what mypy says, strict: one run for all of them."""
    mypy = pytest.importorskip("mypy.api", reason="mypy isn't installed")
    folder = tmp_path_factory.mktemp("user")
    (folder / "dtypes.py").write_text(NAMES + "".join(f"reveal_type(fastsig.{call})\n" for call in calls()))
    (folder / "right.py").write_text(RIGHT)
    lines = "".join(f"{line}\n" for line in WRONG)
    (folder / "wrong.py").write_text(
        f"import numpy as np\nimport numpy.typing as npt\nimport fastsig.losses\nx = np.zeros(3, np.float32)\n{lines}"
    )
    shown, _, _ = mypy.run(
        ["--strict", "--show-error-codes", "--cache-dir", str(folder / "cache"), *map(str, folder.glob("*.py"))]
    )
    found = re.findall(r"^(.*?):(\d+): (?:error|note): (.*)$", shown, re.MULTILINE)
    said = {}
    for path, line, text in found:
        said.setdefault((Path(path).name, int(line)), []).append(text)
    return said


def test_dtypes_are_those_that_numpy_gives(seen):
    wrong = []
    namespace = {}
    exec(NAMES, namespace)  # the same lines that mypy reads
    start = NAMES.count("\n") + 1
    for k, call in enumerate(calls()):
        (text,) = seen["dtypes.py", start + k]
        got = as_tuple(eval(f"fastsig.{call}", namespace))
        want = [(isinstance(result, np.ndarray), result.dtype.itemsize * 8) for result in got]
        types = re.findall(
            r"(ndarray\[.*?, )?(?:numpy\.dtype\[)?numpy\.float(?:ing\[numpy\._typing\._nbit_base\._)?(\d\d)", text
        )
        told = [(bool(array), int(width)) for array, width in types]
        if told != want and not (call in UNTOLD and "ndarray" not in text):
            wrong.append(f"{call}: {text}; it is {want}")
    assert not wrong, "\n".join(wrong)


def test_shapes_stay(seen):
    start = NAMES.count("\n") + 1
    for call in ("sigmoid(grid)", "sigmoid_vjp(grid, grid)", "sigmoid(grid, dtype=np.dtype(np.float16))"):
        (text,) = seen["dtypes.py", start + calls().index(call)]
        assert "tuple[int, int]" in text.replace("builtins.", "")


def test_a_program_that_is_right(seen):
    assert [texts for (file, _), texts in seen.items() if file == "right.py"] == []


def test_mistakes_are_errors(seen):
    for k, (line, code) in enumerate(WRONG.items()):
        assert f"[{code}]" in "".join(seen.get(("wrong.py", 5 + k), [])), line
