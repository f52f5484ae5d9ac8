"""Files of any size: the bits of arrays, bounded memory, and an output that is whole or isn't there."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import BFLOAT16, ROOT, assert_same, inputs

import fastsig
from fastsig import files
from fastsig.cli import main

MEBI = 1 << 20
BLOCK = 4096  # bytes, so that small files have many blocks


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(files, "BLOCK", BLOCK)


@pytest.fixture
def x(tmp_path):
    """A file of twelve blocks and a part."""
    np.save(tmp_path / "x.npy", inputs("sigmoid", "float32", (100, 125))[0])
    return tmp_path / "x.npy"


def saved(array):
    """The bytes that NumPy would save."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- the bits of arrays --------------------------------------------------------------------------------------------------

ORDERS = {"C": np.ascontiguousarray, "Fortran": np.asfortranarray}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_is_what_numpy_saves(tmp_path, dtype, order, version):
    array = ORDERS[order](inputs("sigmoid", np.dtype(dtype).newbyteorder("=").name, (30, 5, 61))[0].astype(dtype))
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array(file, array, version)
    fastsig.apply_file("sigmoid", tmp_path / "x.npy", tmp_path / "y.npy")
    assert (tmp_path / "y.npy").read_bytes() == saved(fastsig.sigmoid(np.load(tmp_path / "x.npy")))
    assert names(tmp_path) == ["x.npy", "y.npy"]


@pytest.mark.parametrize(
    "array",
    [
        np.float32(3),
        np.zeros((), ">f8"),
        np.zeros(0, np.float32),
        np.zeros((0, 5), np.int16),
        np.zeros((3, 0, 2), np.float16, order="F"),
        np.arange(5.0).reshape(1, 5, order="F"),
        np.arange(BLOCK // 8, dtype=np.float64),
        np.arange(BLOCK // 8 + 1, dtype=np.float64),
        np.arange(3000) % 7 > 3,
        *(np.arange(-1500, 1500).astype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_shapes_and_dtypes_are_as_for_arrays(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    done = fastsig.apply_file(fastsig.tanh, tmp_path / "x.npy", tmp_path / "y.npy")
    want = fastsig.tanh(array)
    assert (tmp_path / "y.npy").read_bytes() == saved(want)
    assert done[:4] == (array.shape, (want.dtype,), array.nbytes, want.nbytes)


def test_functions_of_several_inputs_and_outputs(tmp_path):
    arrays = inputs("bce_with_logits", "float32", (3, 700))
    paths = [tmp_path / name for name in ("x.npy", "t.npy", "loss.npy", "gradient.npy")]
    for path, array in zip(paths, arrays, strict=False):
        np.save(path, array)
    fastsig.apply_file("bce_with_logits_value_and_grad", paths[:2], paths[2:])
    assert_same(tuple(map(np.load, paths[2:])), fastsig.bce_with_logits_value_and_grad(*arrays))
    fastsig.apply_file("bce_with_logits", paths[:2], paths[2], overwrite=True)
    assert_same(np.load(paths[2]), fastsig.bce_with_logits(*arrays))


def test_out_dtype_is_that_of_ufuncs(x):
    y = x.with_name("y.npy")
    for dtype in ("float16", "float64"):
        fastsig.apply_file("silu", x, y, out_dtype=dtype, overwrite=True)
        with np.errstate(all="ignore"):
            assert y.read_bytes() == saved(fastsig.silu(np.load(x), dtype=dtype, casting="same_kind"))
    for dtype in ("int32", "complex64", ">f4"):
        refused(x, TypeError, "", out_dtype=dtype, overwrite=True)


@pytest.mark.parametrize("offset", [0, 1, 24])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "int16", "bfloat16"])
def test_raw_files(tmp_path, offset, dtype):
    dtype = BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
    array = np.linspace(-20, 20, 2700).astype(dtype)
    (tmp_path / "x.bin").write_bytes(b"?" * offset + array.tobytes())
    done = fastsig.apply_file("sigmoid", tmp_path / "x.bin", tmp_path / "y.bin", dtype=dtype, offset=offset)
    want = fastsig.sigmoid(array)
    assert (tmp_path / "y.bin").read_bytes() == want.tobytes()
    assert (done.shape, done.dtypes) == (array.shape, (want.dtype,))
    if dtype != BFLOAT16:
        fastsig.apply_file("sigmoid", tmp_path / "x.bin", tmp_path / "y.npy", dtype=dtype, shape=(27, 100), offset=offset)
        assert (tmp_path / "y.npy").read_bytes() == saved(want.reshape(27, 100))


# --- Zarr ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def zarr():
    return pytest.importorskip("zarr", reason="zarr isn't installed")


def zarr_layouts(zarr):
    blosc, gzip = zarr.codecs.BloscCodec(cname="lz4", clevel=3), zarr.codecs.GzipCodec(level=2)
    return {
        "v3": {"chunks": (7, 11), "compressors": blosc, "dimension_names": ("row", "column"), "dtype": "f4"},
        "v3 sharded": {"chunks": (5, 5), "shards": (10, 15), "compressors": gzip, "dtype": "f8", "fill_value": -1.5},
        "v3 plain": {"chunks": (40, 33), "compressors": None, "dtype": "i2"},
        "v2": {"zarr_format": 2, "chunks": (9, 33), "order": "F", "dtype": ">f4", "fill_value": None},
        "v2 nested": {
            "zarr_format": 2,
            "chunks": (9, 9),
            "dtype": "f2",
            "fill_value": 2,
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
        },
    }


@pytest.mark.parametrize("layout", ["v3", "v3 sharded", "v3 plain", "v2", "v2 nested"])
def test_zarr(zarr, tmp_path, layout):
    """Of two thirds of an array chunks are there; the others are the fill value."""
    made = zarr.create_array(tmp_path / "x.zarr", shape=(40, 33), **zarr_layouts(zarr)[layout])
    made[:30] = np.linspace(-30, 30, 990).reshape(30, 33)
    fastsig.apply_file("sigmoid", tmp_path / "x.zarr", tmp_path / "y.zarr")
    array = zarr.open_array(tmp_path / "y.zarr", mode="r")
    assert_same(array[:], fastsig.sigmoid(made[:]))
    for fact in ("chunks", "shards", "compressors"):
        assert getattr(array, fact) == getattr(made, fact)
    for fact in ("zarr_format", "dimension_names", "chunk_key_encoding", "dimension_separator"):
        assert getattr(array.metadata, fact, None) == getattr(made.metadata, fact, None)
    if made.fill_value is not None:
        assert array.nchunks_initialized == made.nchunks_initialized
    assert names(tmp_path) == ["x.zarr", "y.zarr"]


def test_what_describes_the_input_alone_is_not_taken_over(zarr, tmp_path):
    """Filters and attributes; what names the dimensions is."""
    numcodecs = pytest.importorskip("numcodecs")
    settings = {"chunks": (30,), "dtype": "i4", "filters": [numcodecs.Delta(dtype="i4")], "zarr_format": 2}
    made = zarr.create_array(tmp_path / "x.zarr", shape=(100,), **settings)
    made[:] = np.arange(-50, 50)
    made.attrs.update({"_ARRAY_DIMENSIONS": ["time"], "scale_factor": 0.01})
    fastsig.apply_file("sigmoid", tmp_path / "x.zarr", tmp_path / "y.zarr", out_dtype="f4")
    array = zarr.open_array(tmp_path / "y.zarr", mode="r")
    assert_same(array[:], fastsig.sigmoid(made[:], dtype="f4"))
    assert array.filters == ()
    assert dict(array.attrs) == {"_ARRAY_DIMENSIONS": ["time"]}


def test_zarr_of_two_inputs_and_outputs(zarr, tmp_path):
    arrays = inputs("bce_with_logits", "float32", (20, 9))
    for name, array, chunks in zip("xt", arrays, [(6, 6), (20, 5)], strict=True):
        zarr.create_array(tmp_path / name, shape=array.shape, dtype=array.dtype, chunks=chunks)[:] = array
    fastsig.apply_file("bce_with_logits_grad_and_hess", [tmp_path / "x", tmp_path / "t"], [tmp_path / "g", tmp_path / "h"])
    got = tuple(zarr.open_array(tmp_path / name)[:] for name in "gh")
    assert_same(got, fastsig.bce_with_logits_grad_and_hess(*arrays))


@pytest.mark.parametrize("shape", [(), (0, 4)])
def test_zarr_without_elements_or_dimensions(zarr, tmp_path, shape):
    zarr.create_array(tmp_path / "x.zarr", shape=shape, dtype="f4", fill_value=3)
    fastsig.apply_file("sigmoid", tmp_path / "x.zarr", tmp_path / "y.zarr")
    assert_same(np.asarray(zarr.open_array(tmp_path / "y.zarr")[...]), np.full(shape, fastsig.sigmoid(np.float32(3))))


def test_zarr_inside_groups(zarr, tmp_path):
    """Arrays of one group, the output beside the input; and only an array is replaced."""
    group = zarr.create_group(tmp_path / "data.zarr")
    group.create_array("x", shape=(10,), dtype="f4")[:] = np.arange(10)
    fastsig.apply_file("tanh", tmp_path / "data.zarr" / "x", tmp_path / "data.zarr" / "y")
    assert_same(zarr.open_group(tmp_path / "data.zarr")["y"][:], fastsig.tanh(np.arange(10, dtype=np.float32)))
    shutil.copytree(tmp_path / "data.zarr" / "x", tmp_path / "x.zarr")
    for target in (tmp_path / "data.zarr", tmp_path / "data.zarr" / "x" / "y"):
        with pytest.raises((ValueError, FileExistsError)):
            fastsig.apply_file("tanh", tmp_path / "data.zarr" / "x", target, overwrite=True)
    with pytest.raises(FileExistsError, match="isn't a Zarr array"):
        fastsig.apply_file("tanh", tmp_path / "x.zarr", tmp_path / "data.zarr", overwrite=True)
    fastsig.apply_file("sigmoid", tmp_path / "x.zarr", tmp_path / "data.zarr" / "y", overwrite=True)
    assert_same(zarr.open_group(tmp_path / "data.zarr")["y"][:], fastsig.sigmoid(np.arange(10, dtype=np.float32)))


def test_damaged_zarr(zarr, tmp_path):
    array = zarr.create_array(tmp_path / "x.zarr", shape=(100,), chunks=(10,), dtype="f4")
    array[:] = np.arange(100)
    chunk = tmp_path / "x.zarr" / "c" / "7"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"x\.zarr can't be read at"):
        fastsig.apply_file("sigmoid", tmp_path / "x.zarr", tmp_path / "y.zarr")
    assert names(tmp_path) == ["x.zarr"]
    (tmp_path / "x.zarr" / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match="no Zarr array"):
        fastsig.apply_file("sigmoid", tmp_path / "x.zarr", tmp_path / "y.zarr")
    with pytest.raises(ValueError, match="no Zarr array"):
        fastsig.apply_file("sigmoid", tmp_path, tmp_path.with_name("y.zarr"))


def test_without_zarr(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    monkeypatch.delitem(sys.modules, "fastsig.interop.zarr", raising=False)
    monkeypatch.delattr("fastsig.interop.zarr", raising=False)
    (tmp_path / "x.zarr").mkdir()
    with pytest.raises(ImportError, match=r"pip install 'fastsig\[zarr\]'"):
        fastsig.apply_file("sigmoid", tmp_path / "x.zarr", tmp_path / "y.zarr")
    assert "\nzarr = [" in (ROOT / "pyproject.toml").read_text()


# --- what is wrong is said before anything is written ----------------------------------------------------------------------


def refused(x, error, match, *, function="sigmoid", target="y.npy", **options):
    before = {path: path.stat().st_mtime_ns for path in x.parent.iterdir()}
    with pytest.raises(error, match=match or "."):
        fastsig.apply_file(function, x, x.parent / target if isinstance(target, str) else target, **options)
    assert {path: path.stat().st_mtime_ns for path in x.parent.iterdir()} == before


def test_unknown_functions(x):
    refused(x, ValueError, "unknown function 'sigmiod': did you mean sigmoid", function="sigmiod")
    refused(x, ValueError, "there are sigmoid, expit", function="qqqq")
    refused(x, TypeError, "is not fastsig", function=np.tanh)
    refused(x, ValueError, "unknown function 'exp'", function=np.exp)
    refused(x, ValueError, "has 2 inputs: 1 given", function="sigmoid_vjp")
    refused(x, ValueError, r"has 2 outputs \(sigmoid and its like have one\)", function="sigmoid_value_and_grad")


@pytest.mark.parametrize(
    "array",
    [
        np.ones(3, complex),
        np.ones(3, np.longdouble),
        np.array([1, None]),
        np.array(["a"]),
        np.zeros(3, "f4,i2"),
        np.zeros(3, "M8[s]"),
        np.ones(3, BFLOAT16),
    ],
    ids=lambda array: array.dtype.name,
)
def test_other_dtypes_are_refused(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    refused(tmp_path / "x.npy", TypeError, "")


def test_truncated_and_malformed_files(x):
    """Cut anywhere, with anything changed in its header: NumPy's own result or an error, and nothing in between."""
    whole = x.read_bytes()
    for length in [*range(0, 129, 8), 1000, len(whole) - 1]:
        x.write_bytes(whole[:length])
        refused(x, ValueError, "no valid .npy header|is truncated")
    x.write_bytes(whole + b"\0")
    refused(x, ValueError, "goes on after its array")
    chance = random.Random(0)
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(128)] = chance.choice(b"\0 '(),:-0123456789<>{}fFTabcdeistru\xff")
        x.write_bytes(changed)
        try:
            fastsig.apply_file("sigmoid", x, x.with_name("y.npy"), overwrite=True)
        except (ValueError, TypeError):
            continue
        assert x.with_name("y.npy").read_bytes() == saved(fastsig.sigmoid(np.load(x)))


def test_what_is_said_of_raw_files(x):
    raw = x.with_name("x.bin")
    raw.write_bytes(bytes(1001))
    refused(raw, TypeError, "neither a .npy file nor a Zarr array")
    refused(raw, ValueError, "no whole number of float32", dtype="f4")
    refused(raw, ValueError, "take 1,200 bytes", dtype="f4", shape=300)
    refused(raw, ValueError, "goes on after", dtype="f4", shape=(2, 100))
    refused(raw, TypeError, "integer", dtype="f4", shape=(2.0, 100))
    refused(raw, ValueError, "take 1,200 bytes", dtype="f4", shape=np.int64(300))
    refused(raw, ValueError, "negative", dtype="f4", shape=(-1, 100))
    refused(raw, ValueError, "offset must be", dtype="f4", offset=-1)
    refused(raw, ValueError, "offset must be", dtype="f4", offset=1002)
    refused(raw, TypeError, "complex", dtype="c16", offset=9)
    refused(x, TypeError, "says itself what it holds", dtype="f4")
    np.save(x, np.asfortranarray(np.load(x)))
    refused(x, ValueError, "Fortran order, which a raw file can't say", target="y.bin")


def test_inputs_that_differ(x):
    other = x.with_name("g.npy")
    for array, why in ((np.load(x).T, "shapes differ"), (np.asfortranarray(np.load(x)), "both be in C order")):
        np.save(other, array)
        with pytest.raises(ValueError, match=why):
            fastsig.apply_file("sigmoid_vjp", [x, other], x.with_name("y.npy"))


def test_the_input_is_never_the_output(x):
    link, symlink = x.with_name("hard.npy"), x.with_name("soft.npy")
    os.link(x, link)
    symlink.symlink_to(x.name)
    for target in (x, link, symlink, x.parent / ".." / x.parent.name / "x.npy"):
        refused(x, ValueError, "is the output", target=target, overwrite=True)
    for name in ("y.npy.partial", "y.npy.journal"):
        os.link(x, x.with_name(name))
        refused(x, ValueError, "is the output", overwrite=True)
        x.with_name(name).unlink()
    with pytest.raises(ValueError, match="names of their own"):
        fastsig.apply_file("tanh_value_and_grad", x, [x.with_name("y.npy")] * 2)


def test_outputs_that_are_in_the_way(x):
    y = x.with_name("y.npy")
    y.write_text("precious")
    refused(x, FileExistsError, "there already")
    y.unlink()
    y.mkdir()
    refused(x, FileExistsError, "isn't a file", overwrite=True)
    y.rmdir()
    refused(x, FileExistsError, "isn't a file", target="/dev/null", overwrite=True)
    for name, content in (("y.npy.partial", ""), ("y.npy.partial", "mine"), ("y.npy.journal", "mine")):
        x.with_name(name).write_text(content)
        refused(x, FileExistsError, "in the way", overwrite=True)
        x.with_name(name).unlink()
    refused(x, FileNotFoundError, "no such directory", target="nowhere/y.npy")
    refused(x, ValueError, "only made of one", target="y.zarr")


def test_an_output_is_replaced_in_the_end(x):
    """With its permissions, through a symbolic link, and not before."""
    y, link = x.with_name("y.npy"), x.with_name("link.npy")
    y.write_text("precious")
    y.chmod(0o640)
    link.symlink_to("y.npy")
    fastsig.apply_file("sigmoid", x, link, overwrite=True)
    assert link.is_symlink()
    assert y.read_bytes() == saved(fastsig.sigmoid(np.load(x)))
    assert y.stat().st_mode & 0o777 == 0o640


WITHOUT_RIGHTS = """
import os, sys
import fastsig
from fastsig import files
fastsig.tanh([1.0])  # what has to be read, root alone may be able to read
if os.getuid() == 0:
    os.setuid(65534)
try:
    fastsig.apply_file("tanh", sys.argv[1], sys.argv[2])
except PermissionError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions are others on Windows")
def test_unwritable_directories(python):
    """Root gives up its rights first."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", np.zeros(3))
        os.chmod(folder, 0o555)
        assert "Permission denied" in python(WITHOUT_RIGHTS, f"{folder}/x.npy", f"{folder}/y.npy")
        os.chmod(folder, 0o755)
        assert os.listdir(folder) == ["x.npy"]


# --- nothing is left half done -------------------------------------------------------------------------------------------


def test_a_full_disk_is_foreseen(x, monkeypatch):
    big = x.with_name("big.bin")
    with open(big, "wb") as file:
        file.truncate(2 * shutil.disk_usage(x.parent).free // 4 * 4)  # a hole, which takes no room
    refused(big, OSError, "are free there", target="y.bin", dtype="f4")


# The command, in a process in which something happens before block 7 of 13 is computed: {event} says what.
EVENTFUL = """
import os, resource, signal, sys, time
from fastsig import cli, files
signal.signal(signal.SIGINT, signal.default_int_handler)
files.BLOCK, files.CHECKPOINT = 4096, float(sys.argv[1])
step = {work}.step
def eventful(work, k):
    if k == 7:
        {event}
    step(work, k)
{work}.step = eventful
sys.exit(cli.main(["apply", *sys.argv[2:]]))
"""
SIGNALLED = "os.kill(os.getpid(), signal.{}); time.sleep(0.5)"
BLOCKS, CHUNKS = "files.Blocks", "__import__('fastsig.interop.zarr').interop.zarr.Chunks"
AFTER_SOME = [50_000 - k * BLOCK for k in range(3, 9)]  # bytes left; three or four blocks are on their way at a time
AT_ONCE, NEVER = 0, 1e9  # when a run that may be resumed makes sure of what it has written


def eventful(event, *arguments, checkpoint=NEVER, work=BLOCKS):
    program = EVENTFUL.format(event=event, work=work)
    command = [sys.executable, "-W", "error", "-c", program, str(checkpoint), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_an_interrupted_run_leaves_nothing(x, name, code):
    done = eventful(SIGNALLED.format(name), "sigmoid", x, x.with_name("y.npy"))
    assert done.returncode == code, done.stderr
    assert re.search(r"[2-6]\d % had been written, and is removed again", done.stderr)
    assert "Traceback" not in done.stderr
    assert names(x.parent) == ["x.npy"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_an_interrupted_run_is_resumed(x, name):
    y = x.with_name("y.npy")
    done = eventful(SIGNALLED.format(name), "sigmoid", x, y, "--resume", checkpoint=AT_ONCE)
    assert done.returncode
    assert "Traceback" not in done.stderr
    assert names(x.parent) == ["x.npy", "y.npy.journal", "y.npy.partial"]
    if name != "SIGKILL":
        assert "y.npy.partial is kept" in done.stderr
    rest = fastsig.apply_file("sigmoid", x, y, resume=True)
    assert rest.bytes_read in AFTER_SOME
    assert y.read_bytes() == saved(fastsig.sigmoid(np.load(x)))
    assert names(x.parent) == ["x.npy", "y.npy"]


def test_an_end_without_warning_costs_a_new_beginning(x):
    eventful(SIGNALLED.format("SIGKILL"), "sigmoid", x, x.with_name("y.npy"))
    assert names(x.parent) == ["x.npy", "y.npy.journal", "y.npy.partial"]
    assert fastsig.apply_file("tanh", x, x.with_name("y.npy")).bytes_read == 50_000
    assert x.with_name("y.npy").read_bytes() == saved(fastsig.tanh(np.load(x)))
    assert names(x.parent) == ["x.npy", "y.npy"]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """What a run that was interrupted, to be resumed, has left."""
    folder = tmp_path_factory.mktemp("interrupted")
    np.save(folder / "x.npy", inputs("sigmoid", "float32", (100, 125))[0])
    done = eventful(SIGNALLED.format("SIGTERM"), "sigmoid", folder / "x.npy", folder / "y.npy", "--resume")
    assert done.returncode == 143, done.stderr
    return folder


@pytest.fixture
def kept(interrupted, x):
    """The output of that run, in another place: nothing says where."""
    shutil.copytree(interrupted, x.parent, dirs_exist_ok=True)
    return x.with_name("y.npy")


def changed_content(x, y):
    os.utime(x, (1, 1))


def another_of_its_size_and_time(x, y):
    times = os.stat(x)
    np.save(x, np.load(x)[::-1])
    os.utime(x, ns=(times.st_atime_ns, times.st_mtime_ns))


def changed_length(x, y):
    np.save(x, np.ones(20_000, np.float32))


def shortened(x, y):
    os.truncate(files.partial(y), 2 * BLOCK)


def damaged_journal(x, y):
    head, _ = (y.parent / files.journal(y.name)).read_text().split("\n", 1)
    (y.parent / files.journal(y.name)).write_text(head[:-9] + "\n7\n")


def garbage_in_the_journal(x, y):
    with open(files.journal(y), "a") as file:
        file.write("x\n")


def too_many_blocks_in_the_journal(x, y):
    with open(files.journal(y), "a") as file:
        file.write("99999\n")


def impossible_journal(x, y):
    with open(files.journal(y), "a") as file:
        file.write("14\n")


@pytest.mark.parametrize(
    "event",
    [
        changed_content,
        another_of_its_size_and_time,
        changed_length,
        shortened,
        damaged_journal,
        garbage_in_the_journal,
        impossible_journal,
        too_many_blocks_in_the_journal,
    ],
)
def test_what_has_changed_is_not_resumed(x, kept, event):
    event(x, kept)
    refused(x, ValueError, "as it was|damaged|shorter", resume=True)
    fastsig.apply_file("sigmoid", x, kept)
    assert kept.read_bytes() == saved(fastsig.sigmoid(np.load(x)))


@pytest.mark.parametrize(("what", "options"), [("function", {"function": "tanh"}), ("dtype", {"out_dtype": "f8"})])
def test_another_task_is_not_resumed(x, kept, what, options):
    refused(x, ValueError, f"{what} is no longer as it was", resume=True, **options)
    assert fastsig.apply_file("sigmoid", x, kept, resume=True).bytes_read in AFTER_SOME


def test_what_comes_after_a_torn_line_is_no_part_of_it(x, kept):
    """Resumed and interrupted again, the journal has whole lines alone."""
    with open(files.journal(kept), "a") as file:
        file.write("1")
    eventful(SIGNALLED.format("SIGTERM"), "sigmoid", x, kept, "--resume", checkpoint=AT_ONCE)
    _, *lines = kept.with_name(f"{kept.name}.journal").read_text().splitlines()
    assert len(lines) > 1
    assert max(map(int, lines)) <= 13
    fastsig.apply_file("sigmoid", x, kept, resume=True)
    assert kept.read_bytes() == saved(fastsig.sigmoid(np.load(x)))


def test_a_described_file_is_not_described_again(x):
    """Not even as float64, which to NumPy is the same as nothing."""
    for dtype in ("f4", "f8"):
        refused(x, TypeError, "describe raw files", dtype=dtype)


def test_a_torn_line_of_the_journal_counts_for_nothing(x, kept):
    with open(files.journal(kept), "a") as file:
        file.write("12")
    assert fastsig.apply_file("sigmoid", x, kept, resume=True).bytes_read in AFTER_SOME
    assert kept.read_bytes() == saved(fastsig.sigmoid(np.load(x)))


def test_only_one_writes_an_output(x, kept):
    fcntl = pytest.importorskip("fcntl", reason="no locks on files here")
    with open(files.journal(kept), "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for resume in (False, True):
            refused(x, BlockingIOError, "another run", resume=resume)
    fastsig.apply_file("sigmoid", x, kept, resume=True)


def test_only_one_writes_a_second_output(x):
    fcntl = pytest.importorskip("fcntl", reason="no locks on files here")
    y, dy = x.with_name("y.npy"), x.with_name("dy.npy")
    with open(files.journal(dy), "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fastsig.apply_file("tanh_value_and_grad", x, [y, dy])
    assert names(x.parent) == ["dy.npy.journal", "x.npy"]


def test_an_input_that_changes_meanwhile(x):
    for event in ("open(sys.argv[3], 'ab').write(bytes(4))", "os.truncate(sys.argv[3], 20_000)"):
        done = eventful(event, "sigmoid", x, x.with_name("y.npy"))
        assert done.returncode == 2
        assert "was changed while it was read" in done.stderr or "became shorter" in done.stderr
        assert names(x.parent) == ["x.npy"]
        np.save(x, np.zeros((100, 125), np.float32))


def test_an_output_that_comes_meanwhile(x):
    done = eventful("open(sys.argv[4], 'w').write('precious')", "sigmoid", x, x.with_name("y.npy"))
    assert done.returncode == 2
    assert "meanwhile" in done.stderr
    assert x.with_name("y.npy").read_text() == "precious"
    assert names(x.parent) == ["x.npy", "y.npy"]


LIMITED = "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))"


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_can_not_grow(x, overwrite):
    y = x.with_name("y.npy")
    if overwrite:
        y.write_text("precious")
    done = eventful(LIMITED, "sigmoid", x, y, *["--overwrite"] * overwrite)
    assert done.returncode == 2
    assert "File too large" in done.stderr
    assert "removed" in done.stderr
    assert names(x.parent) == ["x.npy"] + ["y.npy"] * overwrite
    assert not overwrite or y.read_text() == "precious"


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for 200,000 bytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up(x, small_disk):
    """Beforehand, on the way, and then there is room again."""
    y = small_disk / "y.npy"
    (small_disk / "filler").write_bytes(bytes(170_000))
    with pytest.raises(OSError, match="are free there") as caught:
        fastsig.apply_file("sigmoid", x, y)
    assert caught.value.errno == errno.ENOSPC
    (small_disk / "filler").unlink()
    event = f"open('{small_disk}/filler', 'wb', 0).write(bytes(200_000))"
    for options in ([], ["--resume"]):
        done = eventful(event, "sigmoid", x, y, *options)
        assert done.returncode == 2
        assert "No space left on device" in done.stderr
        assert names(small_disk) == ["filler"] + ["y.npy.journal", "y.npy.partial"] * bool(options)
        (small_disk / "filler").unlink()
    assert 0 < fastsig.apply_file("sigmoid", x, y, resume=True).bytes_read < 50_000
    assert y.read_bytes() == saved(fastsig.sigmoid(np.load(x)))


def test_zarr_is_resumed(zarr, tmp_path):
    """In the end it replaces what was there."""
    x, y = tmp_path / "x.zarr", tmp_path / "y.zarr"
    array = zarr.create_array(x, shape=(1300,), chunks=(100,), dtype="f4")
    array[:] = np.linspace(-9, 9, 1300)
    fastsig.apply_file("tanh", x, y)
    for kept, resume in (([], []), (["y.zarr.journal", "y.zarr.partial"], ["--resume"])):
        done = eventful(SIGNALLED.format("SIGTERM"), "sigmoid", x, y, "--overwrite", *resume, work=CHUNKS)
        assert done.returncode == 143, done.stderr
        assert names(tmp_path) == ["x.zarr", "y.zarr", *kept]
    assert 0 < fastsig.apply_file("sigmoid", x, y, resume=True, overwrite=True).bytes_read < 1300 * 4
    assert_same(zarr.open_array(y)[:], fastsig.sigmoid(array[:]))
    assert names(tmp_path) == ["x.zarr", "y.zarr"]


# --- what it takes -------------------------------------------------------------------------------------------------------

MEMORY = """
import pathlib, re, sys
from fastsig import cli
code = cli.main(["apply", *sys.argv[1:]])
print(re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no VmHWM in /proc elsewhere")


@needs_proc
@pytest.mark.parametrize("size", [300 * MEBI, pytest.param(4096 * MEBI, marks=pytest.mark.slow)])
def test_memory_is_bounded(tmp_path, python, size):
    """For a file that is larger than the bound; of a hole, so that none needs to be kept."""
    with open(tmp_path / "x.bin", "wb") as file:
        file.truncate(size)
    shown = python(MEMORY, "sigmoid", tmp_path / "x.bin", tmp_path / "y.bin", "--dtype", "float32")
    assert int(shown.split()[-1]) * 1024 <= 256 * MEBI
    assert (tmp_path / "y.bin").stat().st_size == size
    with open(tmp_path / "y.bin", "rb") as file:
        file.seek(size - 8)
        assert_same(np.frombuffer(file.read(), np.float32), np.float32([0.5, 0.5]))


@needs_proc
@pytest.mark.slow
def test_memory_is_bounded_where_it_has_to_compile(tmp_path, python, zarr):
    """Numba, rich and zarr in one process, and chunks of 4 MiB."""
    array = zarr.create_array(tmp_path / "x.zarr", shape=(1 << 28,), chunks=(1 << 20,), dtype="f4", fill_value=1)
    array[: 1 << 26] = np.random.default_rng(0).normal(size=1 << 26)  # the rest is missing
    (tmp_path / "cache").mkdir(mode=0o700)
    shown = python(
        MEMORY,
        "sigmoid",
        tmp_path / "x.zarr",
        tmp_path / "y.zarr",
        FASTSIG_CACHE_DIR=tmp_path / "cache",
    )
    assert int(shown.split()[-1]) * 1024 <= 256 * MEBI


def test_threads_are_as_before(x, words):
    """Also of two runs at once, and after errors."""
    fastsig.set_num_threads(2)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(fastsig.apply_file, "sigmoid", x, x.with_name(f"{k}.npy")) for k in range(8)]
    assert {run.result().bytes_read for run in runs} == {50_000}
    assert fastsig.get_num_threads() == 2
    with pytest.raises(FileExistsError):
        fastsig.apply_file("sigmoid", x, x.with_name("0.npy"))
    assert fastsig.get_num_threads() == 2


def test_signal_handlers_are_as_before(x):
    before = signal.getsignal(signal.SIGTERM)
    fastsig.apply_file("sigmoid", x, x.with_name("y.npy"))
    assert signal.getsignal(signal.SIGTERM) == before


def written_since(path, earlier):
    try:
        return path.stat().st_mtime_ns > earlier
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_killed_at_any_time(tmp_path):
    """Whatever ends it, and whenever: no output, or all of it; and what is kept is gone on from."""
    array = np.resize(inputs("sigmoid", "float32", (MEBI,))[0], 48 * MEBI)
    np.save(tmp_path / "x.npy", array)
    command = [sys.executable, "-m", "fastsig", "apply", "sigmoid", "x.npy", "y.npy", "--resume"]
    chance, resumed = random.Random(0), 0
    for attempt in range(30):
        running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
        earlier = os.stat(tmp_path / "y.npy.partial").st_mtime_ns if (tmp_path / "y.npy.partial").exists() else 0
        while running.poll() is None and not written_since(tmp_path / "y.npy.partial", earlier):
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(chance.uniform(0, 0.3))
        running.send_signal((signal.SIGTERM, signal.SIGKILL)[attempt % 2])
        running.communicate()
        if (tmp_path / "y.npy").exists():
            assert (tmp_path / "y.npy").read_bytes() == saved(fastsig.sigmoid(array))
            (tmp_path / "y.npy").unlink()
        else:
            resumed += (tmp_path / "y.npy.journal").exists()
        assert set(names(tmp_path)) <= {"x.npy", "y.npy.journal", "y.npy.partial"}
    assert resumed
    fastsig.apply_file("sigmoid", tmp_path / "x.npy", tmp_path / "y.npy", resume=True)
    assert (tmp_path / "y.npy").read_bytes() == saved(fastsig.sigmoid(array))


# --- the command -----------------------------------------------------------------------------------------------------------


def test_command(x, capsys):
    y = x.with_name("y.npy")
    assert main(["apply", "sigmoid", str(x), str(y)]) == 0
    assert "(100, 125) float32, 50 kB read and 50 kB written" in capsys.readouterr().out
    assert y.read_bytes() == saved(fastsig.sigmoid(np.load(x)))
    assert main(["apply", "sigmoid", str(x), str(y)]) == 2
    assert "there already" in capsys.readouterr().err
    assert main(["apply", "silu", str(x), str(y), "--overwrite", "--out-dtype", "float64"]) == 0
    assert_same(np.load(y), fastsig.silu(np.load(x), dtype="f8"))
    assert (
        main(["apply", "tanh", str(y), str(x.with_name("z.bin")), "--dtype", ">i2", "--shape", "2,100", "--offset", "128"]) == 2
    )
    assert "says itself" in capsys.readouterr().err


def test_command_of_raw_files(tmp_path, capsys):
    raw, npy = str(tmp_path / "x.bin"), str(tmp_path / "y.npy")
    np.arange(200, dtype=">i2").tofile(raw)
    assert main(["apply", "tanh", raw, npy, "--dtype", ">i2", "--shape", "3,50", "--offset", "100"]) == 0
    assert_same(np.load(npy), fastsig.tanh(np.arange(50, 200, dtype=np.int16)).reshape(3, 50))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sigmod", "x", "y"], "did you mean sigmoid"),
        (["sigmoid", "x"], "takes 1 input and gives 1 output: 1 file named"),
        (["sigmoid_vjp", "x", "y"], "takes 2 inputs and gives 1 output: 2 files named"),
        (["sigmoid", "nowhere", "y"], "No such file or directory: 'nowhere'"),
        (["sigmoid", __file__, "y", "--dtype", "float33"], "float33"),
    ],
)
def test_command_says_what_is_wrong(arguments, said, capsys):
    assert main(["apply", *arguments]) == 2
    assert said in capsys.readouterr().err
