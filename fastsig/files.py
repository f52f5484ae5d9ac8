"""Files larger than memory: `apply_file`, and the command `python -m fastsig apply FUNCTION IN OUT`.

A few threads read, compute and write a block each, in buffers that are used again, so that memory doesn't depend on the
file's size. The output gets its name when it is whole and on the disk: see `partials`.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import hashlib
import io
import json
import math
import operator
import os
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

import fastsig
from fastsig import console, ufuncs
from fastsig.partials import Aside, Work, journal, partial, replaced

Path = str | os.PathLike[str]
Paths = Path | Sequence[Path]
# Of 256 MiB of float32 in memory, one thread reads a MiB at a time in 80 ms, takes the sigmoid in 51 (the softplus in 60) and
# writes in 105; in one loop that is 1.3 times the copy. Blocks of 64 KiB to 4 MiB take the same within a tenth.
BLOCK = 1 << 20  # bytes of the widest operand
WORKERS = 3  # while one reads, another computes, and the third writes
SAMPLES, SAMPLE = 16, 4096  # how many, and bytes of each: what tells an input from another of its size and time
CHECKPOINT = 5.0  # seconds after which a run that may be resumed makes sure of what it has written
NPY_MAGIC = b"\x93NUMPY"
ENDS = ("SIGTERM", "SIGHUP")  # Ctrl-C is KeyboardInterrupt already


class Applied(NamedTuple):
    """What `apply_file` has done."""

    shape: tuple[int, ...]
    dtypes: tuple[np.dtype[Any], ...]
    bytes_read: int
    bytes_written: int
    seconds: float


def apply_file(
    function: str | Callable[..., Any],
    source: Paths,
    target: Paths,
    *,
    dtype: npt.DTypeLike | None = None,
    shape: Sequence[int] | int | None = None,
    offset: int = 0,
    out_dtype: npt.DTypeLike | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = False,
) -> Applied:
    """Apply a function to a file of any size, block by block, into another file.

    ``y.npy`` has the bytes of ``np.save("y.npy", function(np.load("x.npy")))``, which would need memory for both arrays; this
    takes some MiB, whatever the size. It is there when it is complete, and not before: an error, Ctrl-C or a full disk leave
    no part of it, nor does an end of the process, but for ``y.npy.partial`` and ``y.npy.journal``.

    Parameters
    ----------
    function : str or numpy.ufunc
        One of fastsig's ufuncs, or its name.
    source : path, or sequence of paths
        The input: a .npy file, a raw binary file, or the directory of a Zarr array (format 2 or 3, with
        ``pip install 'fastsig[zarr]'``). A function of two inputs takes a sequence of two, of the same shape.
    target : path, or sequence of paths
        The output, for a function of two outputs a sequence of two. From a Zarr array, it is one, with the same chunks, shards
        and compressors, but without filters and attributes, which describe the input's numbers. Else a name ending in .npy
        makes a .npy file, in C or Fortran order as the input, and any other name a raw file.
    dtype : dtype, optional
        Of a raw input, such as ``"<f4"``, for which it is required.
    shape : int or sequence of int, optional
        Of a raw input, in C order; by default one dimension, to the end of the file.
    offset : int, optional
        How many bytes of a raw input come before its elements.
    out_dtype : dtype, optional
        What the ufuncs call `dtype`: the one to compute and to write in. By default it follows from the input's, as it does for
        arrays.
    overwrite : bool, optional
        Whether an output that is there is replaced, which happens in the end.
    resume : bool, optional
        Keep what is written if the run is interrupted or fails, and go on from there if an earlier run has kept something.
        It must have been for the same function, options and inputs, unchanged since.
    progress : bool, optional
        Whether a bar on standard error shows how far it is.

    Returns
    -------
    Applied
        A named tuple: `shape`, `dtypes` (one for each output), `bytes_read` and `bytes_written` (of elements; with `resume`,
        by this run) and `seconds`.

    Raises
    ------
    ValueError
        For an unknown function; a file that is malformed, or longer or shorter than it says; shapes that differ; an output that
        is an input; an input that has changed since, or meanwhile.
    TypeError
        For complex, longdouble, structured or object elements; for a raw file without `dtype`, another file with one.
    FileExistsError
        If the output is there already, without `overwrite`.
    OSError
        What the system says, such as that the disk is full: beforehand, if that can be known.
    BlockingIOError
        While another run writes the same output.
    ImportError
        For a Zarr array, without zarr.

    Notes
    -----
    Pages that are read and written stay in the system's cache as long as it likes; they aren't this process's memory. For a
    Zarr array, that grows with the size of a chunk (or shard), from some 8 MiB on. While it runs, calls in this process are
    computed on one thread each, as in ``with fastsig.num_threads(1)``: the blocks are what is parallel. In the main thread,
    SIGTERM and SIGHUP raise SystemExit meanwhile, if they would have ended the process.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fastsig
    >>> folder = tempfile.TemporaryDirectory()
    >>> x, y = (os.path.join(folder.name, name) for name in ("x.npy", "y.npy"))
    >>> np.save(x, np.array([-1.0, 0.0, 1.0], dtype=np.float32))
    >>> fastsig.apply_file("sigmoid", x, y).bytes_written
    12
    >>> np.load(y)
    array([0.26894143, 0.5       , 0.7310586 ], dtype=float32)
    >>> folder.cleanup()
    """
    begin = time.perf_counter()
    ufunc = named(function)
    options = {} if out_dtype is None else {"dtype": as_dtype(out_dtype)}
    raw = RawFormat(None if dtype is None else as_dtype(dtype), shape, operator.index(offset))
    sources = [opened(path, raw) for path in listed(source, ufunc.nin, "input", ufunc.__name__)]
    targets = [os.path.realpath(path) for path in listed(target, ufunc.nout, "output", ufunc.__name__)]
    check_shapes(sources)
    call, dtypes = tried(ufunc, options, sources)
    check_names(targets, sources)
    for path in targets:
        check_target(path, isinstance(sources[0], Flat), overwrite)
    work = planned(call, sources, targets, dtypes)
    facts = {
        "fastsig": fastsig.__version__,
        "function": ufunc.__name__,
        "dtypes": [dtype.str for dtype in dtypes],
        "sources": [source.facts() for source in sources],
        "targets": [os.path.basename(path) for path in targets],
        "block": work.block,
    }
    with stopped_by_signals(), one_thread_each():
        aside = Aside(targets, facts, overwrite, resume)
        try:
            first = aside.begin(work)
            go_through(work, aside, first, console.progress(ufunc.__name__, work.total) if progress else nullcontext(quiet))
            for each in sources:
                if each.stamp() != each.stamped:
                    raise ValueError(f"{each.path} was changed while it was read")
            aside.finish(work)
        except BaseException as error:
            error.add_note(aside.abandon(work))
            raise
        finally:
            work.close()
            aside.close()
    width = sum(each.dtype.itemsize for each in sources), sum(dtype.itemsize for dtype in dtypes)
    elements = (work.total - work.before(first)) // sum(width)
    return Applied(sources[0].shape, tuple(dtypes), elements * width[0], elements * width[1], time.perf_counter() - begin)


# --- what is asked for ---------------------------------------------------------------------------------------------------


def named(function: str | Callable[..., Any]) -> Any:
    """The ufunc, by itself or by its name."""
    name = function if isinstance(function, str) else getattr(function, "__name__", repr(function))
    if name not in fastsig.UFUNCS:
        near = difflib.get_close_matches(name, fastsig.UFUNCS, cutoff=0.4)
        meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(fastsig.UFUNCS)}"
        raise ValueError(f"unknown function {name!r}: {meant}")
    ufunc = getattr(fastsig, name)
    if not isinstance(function, str) and function is not ufunc:
        raise TypeError(f"{function!r} is not fastsig.{name}")
    return ufunc


def as_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        return ufuncs.bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    except ImportError as error:
        raise ImportError("bfloat16 needs ml_dtypes: pip install 'fastsig[bfloat16]'") from error


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    return dtype.name == "bfloat16"


def listed(paths: Paths, count: int, what: str, name: str) -> list[str]:
    """As many paths as the function has inputs, or outputs."""
    found = [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    if len(found) != count:
        alone = name.partition("_and_")[0].removesuffix("_value")
        hint = f" ({alone} and its like have one)" if what == "output" and len(found) == 1 else ""
        raise ValueError(f"{name} has {counted(count, what)}{hint}: {len(found)} given")
    return found


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def check_shapes(sources: Sequence[Source]) -> None:
    first = sources[0]
    for other in sources[1:]:
        if type(other) is not type(first):
            raise ValueError(f"{first.path} and {other.path} must both be Zarr arrays, or neither")
        if other.shape != first.shape:
            raise ValueError(f"the shapes differ: {first.path} has {first.shape}, {other.path} has {other.shape}")
        if isinstance(first, Flat) and isinstance(other, Flat) and first.fortran != other.fortran:
            raise ValueError(f"{first.path} and {other.path} must both be in C order, or both in Fortran order")


def tried(ufunc: Any, options: Mapping[str, Any], sources: Sequence[Source]) -> tuple[Callable[..., Any], list[np.dtype[Any]]]:
    """The function as the blocks call it, and the dtypes of its results; its loop is compiled here, or loaded, or can't be."""
    for source in sources:
        if source.dtype.kind not in "biuf" and not is_bfloat16(source.dtype):
            hint = " (bfloat16 is kept in raw files, of dtype bfloat16)" if source.dtype.str[1:] == "V2" else ""
            raise TypeError(f"{source.path} holds {source.dtype}, and only real numbers can be computed with{hint}")
    one = [np.zeros(1, source.dtype) for source in sources]
    try:
        with np.errstate(all="ignore", invalid="raise"):
            results = ufunc(*one, **options)
    except FloatingPointError as error:  # no input raises it: the loop isn't there
        time.sleep(0.1)  # a Ctrl-C that kept it from being compiled comes a moment after the call
        raise RuntimeError(f"{ufunc.__name__} couldn't be compiled for {', '.join(str(x.dtype) for x in one)}") from error

    def call(inputs: Sequence[npt.NDArray[Any]], outputs: Sequence[npt.NDArray[Any]]) -> None:
        with np.errstate(all="ignore"):  # from out_dtype's conversions
            ufunc(*inputs, out=tuple(outputs), **options)

    return call, [y.dtype for y in (results if isinstance(results, tuple) else (results,))]


def check_names(targets: Sequence[str], sources: Sequence[Source]) -> None:
    """That no file has two parts to play, under whatever names."""
    ours = [*targets, *map(partial, targets), *map(journal, targets)]
    if len(set(ours)) < len(ours):
        raise ValueError(f"the outputs must have names of their own: {', '.join(targets)}")
    for source in sources:
        own = os.path.realpath(source.path)
        for path in ours:
            if path == own or (os.path.exists(path) and os.path.samefile(path, own)):
                raise ValueError(f"the input {source.path} is the output, or has the name of its beginnings: {path}")
            if PurePath(path).is_relative_to(own) or PurePath(own).is_relative_to(path):
                raise ValueError(f"of the input {source.path} and the output {path}, one is inside the other")


def check_target(path: str, flat: bool, overwrite: bool) -> None:
    """That it may be written, before anything is."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "there is no such directory", folder)
    if not flat and path.endswith(".npy"):
        raise ValueError(f"from a Zarr array another one is made: {path} can't be a .npy file")
    if flat and path.endswith(".zarr"):
        raise ValueError(f"a Zarr array is only made of one: {path} can be a .npy file, or a raw one")
    if not os.path.lexists(path):
        return
    if not (os.path.isfile(path) if flat else is_zarr_array(path)):
        raise FileExistsError(errno.EEXIST, f"this isn't a {'file' if flat else 'Zarr array'}, and isn't replaced", path)
    if not overwrite:
        raise FileExistsError(errno.EEXIST, "the output is there already, and is replaced only if asked to (overwrite)", path)
    if not flat and os.path.lexists(replaced(path)):
        raise FileExistsError(errno.EEXIST, "this is in the way of what is to be replaced: move or remove it", replaced(path))


def is_zarr_array(path: str) -> bool:
    """Whether it is the directory of one array, not of a group, nor of anything else."""
    if os.path.isfile(os.path.join(path, ".zarray")):
        return True
    try:
        with open(os.path.join(path, "zarr.json"), encoding="utf-8") as file:
            return bool(json.load(file).get("node_type") == "array")
    except (OSError, ValueError, AttributeError):
        return False


# --- inputs --------------------------------------------------------------------------------------------------------------


class Source(Protocol):
    """An input."""

    path: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stamped: list[Any]  # what `stamp` said when it was opened

    def stamp(self) -> list[Any]: ...
    def facts(self) -> dict[str, Any]: ...


class RawFormat(NamedTuple):
    """What has to be said of a raw file."""

    dtype: np.dtype[Any] | None
    shape: Sequence[int] | int | None
    offset: int

    @property
    def given(self) -> bool:
        return self.dtype is not None or self.shape is not None or self.offset != 0  # to NumPy, float64 equals None


@dataclass
class Flat:
    """A file with its elements one after another: .npy, or raw."""

    path: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool  # of two dimensions or more; for others it makes no difference
    offset: int
    stamped: list[Any]

    def stamp(self) -> list[Any]:
        return file_stamp(os.stat(self.path))

    def facts(self) -> dict[str, Any]:
        """What a later run is to find unchanged."""
        layout = {"dtype": dtype_name(self.dtype), "shape": self.shape, "fortran": self.fortran, "offset": self.offset}
        return {**layout, "stamp": self.stamped, "content": content([self.path])}


def file_stamp(state: os.stat_result) -> list[Any]:
    return [state.st_size, state.st_mtime_ns]


def content(paths: Sequence[str]) -> str:
    """A digest of samples: of two files that were unpacked or copied, size and time may be the same."""
    digest = hashlib.sha256()
    for path in paths[:: -(-len(paths) // SAMPLES) or 1]:
        with open(path, "rb") as file:
            length = os.fstat(file.fileno()).st_size
            for k in range(SAMPLES):
                file.seek(max(0, length - SAMPLE) * k // (SAMPLES - 1))
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name if is_bfloat16(dtype) else dtype.str


def opened(path: str, raw: RawFormat) -> Source:
    """The input, once it is known to be whole."""
    if os.path.isdir(path):
        if raw.given:
            raise TypeError(f"dtype, shape and offset describe raw files, and {path} is a directory")
        return zarr_module().opened(path)  # type: ignore[no-any-return]
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path} must be a file: its size is to be known, and parts are read at any place")
    with open(path, "rb") as file:
        if path.endswith(".npy") or (raw.dtype is None and file.read(len(NPY_MAGIC)) == NPY_MAGIC):
            if raw.given:
                raise TypeError(f"dtype, shape and offset describe raw files: {path} says itself what it holds")
            file.seek(0)
            found = npy(path, file)
        else:
            found = raw_file(path, file, raw)
    needed = found.offset + math.prod(found.shape) * found.dtype.itemsize
    size = found.stamped[0]
    if size != needed and not found.dtype.hasobject:
        states = f"{found.shape} {found.dtype} after {found.offset} bytes"
        how = "is truncated" if size < needed else "goes on after its array"
        raise ValueError(f"{path} {how}: {states} take {needed:,} bytes, and it has {size:,}")
    return found


def zarr_module() -> Any:
    from fastsig.interop import zarr

    return zarr


def npy(path: str, file: io.BufferedReader) -> Flat:
    """What a .npy file's header says."""
    stamped = file_stamp(os.fstat(file.fileno()))
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"version {version} is unknown")
        # The third differs from the second in the names of fields alone, and what has fields can't be computed with.
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        if any(length < 0 for length in shape):
            raise ValueError(f"the shape is {shape}")
    except Exception as error:  # its parser has many: ValueError, SyntaxError, tokenize's own
        raise ValueError(f"{path} has no valid .npy header: {error}") from error
    same = 0 in shape or sum(length > 1 for length in shape) < 2  # in both orders, so that NumPy calls it C
    return Flat(path, dtype, shape, fortran and not same, file.tell(), stamped)


def raw_file(path: str, file: io.BufferedReader, raw: RawFormat) -> Flat:
    """A raw file of which it was said what it holds."""
    if raw.dtype is None:
        raise TypeError(f"{path} is neither a .npy file nor a Zarr array: for a raw file, dtype says what it holds")
    stamped = file_stamp(os.fstat(file.fileno()))
    if raw.offset < 0 or raw.offset > stamped[0]:
        raise ValueError(f"the offset must be between 0 and the file's size, {stamped[0]:,}, not {raw.offset:,}")
    if raw.shape is None:
        count, rest = divmod(stamped[0] - raw.offset, raw.dtype.itemsize or 1)
        if rest:
            raise ValueError(f"{path} has {stamped[0] - raw.offset:,} bytes, which is no whole number of {raw.dtype}")
        shape: tuple[int, ...] = (count,)
    else:
        shape = tuple(map(operator.index, raw.shape if isinstance(raw.shape, Sequence) else [raw.shape]))
    if any(length < 0 for length in shape):
        raise ValueError(f"no length of the shape may be negative: {shape}")
    return Flat(path, raw.dtype, shape, False, raw.offset, stamped)


# --- the work ------------------------------------------------------------------------------------------------------------


class Handle:
    """A file that several threads read or write, each a part of its own.

    os.pread would do without a lock, but not on Windows; and the system lets one writer at a time into a file anyway.
    """

    def __init__(self, path: str, mode: str) -> None:
        self.path, self.lock = path, threading.Lock()
        self.raw: Any = open(path, mode, buffering=0)  # noqa: SIM115

    def read(self, offset: int, array: npt.NDArray[Any]) -> None:
        rest: Any = memoryview(array.view(np.uint8))  # type: ignore[arg-type]  # NumPy's stubs leave it out
        with self.lock:
            self.raw.seek(offset)
            while rest:
                count = self.raw.readinto(rest)
                if not count:
                    raise ValueError(f"{self.path} became shorter while it was read")
                rest = rest[count:]

    def write(self, offset: int, data: Any) -> None:
        rest = memoryview(data)
        with self.lock:
            self.raw.seek(offset)
            while rest:
                rest = rest[self.raw.write(rest) :]


class Blocks:
    """Of files whose elements are one after another."""

    def __init__(
        self, call: Callable[..., None], sources: Sequence[Flat], targets: Sequence[str], dtypes: Sequence[np.dtype[Any]]
    ) -> None:
        self.call, self.sources, self.targets, self.dtypes = call, sources, targets, dtypes
        self.size = math.prod(sources[0].shape)
        self.itemsizes = [each.dtype.itemsize for each in sources], [dtype.itemsize for dtype in dtypes]
        self.block = BLOCK // max(map(max, self.itemsizes))  # elements
        self.count = -(-self.size // self.block)
        self.workers = WORKERS
        self.width = sum(map(sum, self.itemsizes))
        self.total = self.size * self.width
        self.heads = [
            npy_head(sources[0], dtype) if path.endswith(".npy") else b"" for path, dtype in zip(targets, dtypes, strict=True)
        ]
        self.inputs: list[Handle] = []
        self.outputs: list[Handle] = []
        self.buffers: list[tuple[list[npt.NDArray[Any]], ...]] = []  # last in, first out: a thread finds its own again

    def before(self, k: int) -> int:
        return min(k * self.block, self.size) * self.width

    def lengths(self) -> list[int]:
        return [len(head) + self.size * dtype.itemsize for head, dtype in zip(self.heads, self.dtypes, strict=True)]

    def create(self) -> None:
        """New files; an error if a disk has no room for them."""
        check_room(self.targets, self.lengths())
        for path, head in zip(self.targets, self.heads, strict=True):
            with open(partial(path), "xb") as file:
                file.write(head)

    def check(self, first: int) -> None:
        """That the files are what an earlier run had written before it came to this block."""
        there = [os.path.getsize(partial(path)) for path in self.targets]
        elements = min(first * self.block, self.size)
        least = [len(head) + elements * dtype.itemsize for head, dtype in zip(self.heads, self.dtypes, strict=True)]
        if any(size < needed for size, needed in zip(there, least, strict=True)):
            raise ValueError("the partial output is shorter than its journal says")
        check_room(self.targets, [whole - size for whole, size in zip(self.lengths(), there, strict=True)])

    def open(self) -> None:
        self.inputs = [Handle(each.path, "rb") for each in self.sources]
        self.outputs = [Handle(partial(path), "r+b") for path in self.targets]
        for each, handle in zip(self.sources, self.inputs, strict=True):
            if file_stamp(os.fstat(handle.raw.fileno())) != each.stamped:
                raise ValueError(f"{each.path} was changed while it was looked at")
        for _ in range(min(self.workers, self.count)):
            inputs = [np.empty(self.block, each.dtype) for each in self.sources]
            outputs = [np.empty(self.block, dtype) for dtype in self.dtypes]
            if inputs[0].dtype == outputs[0].dtype:
                outputs[0] = inputs[0]  # in place: the whole takes a tenth less than in two buffers
            self.buffers.append((inputs, outputs))

    def step(self, k: int) -> None:
        start = k * self.block
        n = min(self.block, self.size - start)
        buffers = self.buffers.pop()  # there are as many as threads
        try:
            inputs, outputs = ([array[:n] for array in arrays] for arrays in buffers)
            for each, handle, x in zip(self.sources, self.inputs, inputs, strict=True):
                handle.read(each.offset + start * x.itemsize, x)
            self.call(inputs, outputs)
            for head, handle, y in zip(self.heads, self.outputs, outputs, strict=True):
                handle.write(len(head) + start * y.itemsize, y.view(np.uint8))
        finally:
            self.buffers.append(buffers)

    def sync(self) -> None:
        for handle in self.outputs:
            os.fsync(handle.raw.fileno())

    def close(self) -> None:
        for handle in (*self.inputs, *self.outputs):
            handle.raw.close()


def npy_head(source: Flat, dtype: np.dtype[Any]) -> bytes:
    """What `numpy.save` would begin the file with."""
    if is_bfloat16(dtype):
        raise ValueError("a .npy file can't say that it holds bfloat16: write a raw one, under another name")
    head = io.BytesIO()
    facts = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": source.fortran, "shape": source.shape}
    np.lib.format.write_array_header_1_0(head, facts)
    return head.getvalue()


def planned(call: Callable[..., None], sources: Sequence[Any], targets: Sequence[str], dtypes: Sequence[np.dtype[Any]]) -> Work:
    if not isinstance(sources[0], Flat):
        return zarr_module().Chunks(call, sources, targets, dtypes)  # type: ignore[no-any-return]
    for path in targets:
        if sources[0].fortran and not path.endswith(".npy"):
            raise ValueError(f"{sources[0].path} is in Fortran order, which a raw file can't say: write a .npy file")
    return Blocks(call, sources, targets, dtypes)


def check_room(targets: Sequence[str], lengths: Sequence[int]) -> None:
    """An error, if a disk has no room for that many more bytes."""
    needed: dict[int, int] = {}
    for path, length in zip(targets, lengths, strict=True):
        folder = os.path.dirname(path)
        device = os.stat(folder).st_dev
        needed[device] = needed.get(device, 0) + length
        free = shutil.disk_usage(folder).free
        if needed[device] > free:
            text = f"the output takes {needed[device]:,} bytes more, and {free:,} are free there"
            raise OSError(errno.ENOSPC, text, folder)


def quiet(steps: float, what: str) -> None:
    """No progress is shown."""


def go_through(work: Work, aside: Aside, first: int, shown: Any) -> None:
    """All blocks from this one on; after each, those before it are done."""
    begin = checked = time.perf_counter()
    with shown as advance, ThreadPoolExecutor(work.workers, "fastsig-file") as pool:
        advance(work.before(first), "")
        ahead: deque[tuple[int, Future[None]]] = deque()
        try:
            for k in range(first, work.count + work.workers):
                if k < work.count:
                    ahead.append((k, pool.submit(work.step, k)))
                if not ahead or (k < work.count and len(ahead) <= work.workers):
                    continue
                done, future = ahead.popleft()
                future.result()
                aside.done = done + 1
                now = time.perf_counter()
                moved = work.before(done + 1)
                speed = rate(moved - work.before(first), now - begin)
                advance(moved - work.before(done), f"{human_bytes(moved)} of {human_bytes(work.total)}, {speed}")
                if aside.resume and now - checked > CHECKPOINT:
                    aside.checkpoint(work)
                    checked = time.perf_counter()
        finally:
            for _, future in ahead:
                future.cancel()


def rate(moved: float, seconds: float) -> str:
    return f"{human_bytes(moved / max(seconds, 1e-9))}/s"


def human_bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):  # noqa: B007
        if count < 1000:
            break
        count /= 1000
    return f"{count:.3g} {unit}"


# --- signals and threads ---------------------------------------------------------------------------------------------------


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """What would end the process raises SystemExit, so that nothing is left behind."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    caught = []
    if threading.current_thread() is threading.main_thread():
        known = [getattr(signal, name) for name in ENDS if hasattr(signal, name)]
        caught = [number for number in known if signal.getsignal(number) is signal.SIG_DFL]
    for number in caught:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


LOCK = threading.Lock()
RUNNING: list[object] = []  # those that go on at the same time
SETTING = ExitStack()  # is left with the last of them


@contextmanager
def one_thread_each() -> Iterator[None]:
    """The blocks are computed side by side, on a thread each; teams of threads would wait for each other."""
    me = object()
    with LOCK:
        if not RUNNING:
            SETTING.enter_context(fastsig.num_threads(1))
        RUNNING.append(me)
    try:
        yield
    finally:
        with LOCK:
            RUNNING.remove(me)
            if not RUNNING:
                SETTING.close()


# --- the command -----------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything `run_command` reads."""
    add = parser.add_argument
    add("function", metavar="FUNCTION", help="such as sigmoid")
    add("files", nargs="+", metavar="IN OUT", help="as many files as the function has inputs, then its outputs")
    add("--dtype", help="of a raw input, such as float32 or >f8")
    add("--shape", type=lengths, help="of a raw input, such as 1000,784; otherwise one dimension")
    add("--offset", type=int, default=0, metavar="BYTES", help="of a raw input: what comes before its elements")
    add("--out-dtype", metavar="DTYPE", help="to compute and to write in, if not the one that follows from the input's")
    add("--overwrite", action="store_true", help="replace an output that is there already")
    add("--resume", action="store_true", help="keep what an interrupted run has written, and go on from what one has kept")


def lengths(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.strip())


def run(args: argparse.Namespace) -> int:
    """Apply, tell, and give the exit code: 2 if it can't be done, 130 if it was interrupted, 143 after SIGTERM."""
    try:
        ufunc = named(args.function)
        if len(args.files) != ufunc.nin + ufunc.nout:
            takes = f"takes {counted(ufunc.nin, 'input')} and gives {counted(ufunc.nout, 'output')}"
            raise ValueError(f"{args.function} {takes}: {counted(len(args.files), 'file')} named")
        sources, targets = args.files[: ufunc.nin], args.files[ufunc.nin :]
        options = {name: getattr(args, name) for name in ("dtype", "shape", "offset", "out_dtype", "overwrite", "resume")}
        done = apply_file(args.function, sources, targets, progress=True, **options)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        return told(error, str(error), 2)
    except KeyboardInterrupt as error:
        return told(error, "interrupted", 130)
    except SystemExit as error:
        return told(error, f"ended by signal {int(error.code or 0) - 128}", int(error.code or 0))
    kinds = " and ".join(str(dtype) for dtype in done.dtypes)
    size = f"{human_bytes(done.bytes_read)} read and {human_bytes(done.bytes_written)} written"
    speed = rate(done.bytes_read + done.bytes_written, done.seconds)
    print(f"{', '.join(targets)}: {done.shape} {kinds}, {size} in {done.seconds:.1f} s, {speed}")
    return 0


def told(error: BaseException, text: str, code: int) -> int:
    print("; ".join([f"fastsig apply: {text}", *getattr(error, "__notes__", ())]), file=sys.stderr)
    return code
