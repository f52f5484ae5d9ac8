"""Zarr arrays for `fastsig.apply_file`: chunk by chunk (or shard by shard), into an array with the same chunks.

Local directories of formats 2 and 3 are read. What is made has the chunks, shards, compressors, names of dimensions and key
encoding of its source; filters (such as a delta, or a scale and an offset) and other attributes (such as units) describe the
numbers that went in, and aren't taken over. Where a chunk is missing, which stands for the fill value, it is missing in the
output too, whose fill value is the function's of the source's.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsig.files import WORKERS, content
from fastsig.partials import partial

try:
    import zarr
except ModuleNotFoundError as missing:
    raise ImportError("fastsig.interop.zarr needs Zarr: pip install 'fastsig[zarr]'") from missing

__all__ = ["Chunks", "Source", "opened"]

ROOM = 32 << 20  # bytes for the chunks that are worked on at a time, with what they are encoded to
DIMENSIONS = "_ARRAY_DIMENSIONS"  # the attribute in which format 2 keeps the dimensions' names


class Source:
    """An array that is read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.stamped = self.stamp()
        try:
            self.array: Any = zarr.open_array(os.path.realpath(path), mode="r")
            self.chunk: tuple[int, ...] = self.array.shards or self.array.chunks
        except Exception as error:  # zarr has many kinds for what is no array, or a damaged one
            raise ValueError(f"{path} is no Zarr array: {type(error).__name__}: {error}") from error
        self.dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        self.shape: tuple[int, ...] = tuple(self.array.shape)

    def stamp(self) -> list[Any]:
        """A digest of the files' names, sizes and times."""
        digest = hashlib.sha256()
        for path in files(self.path):
            state = os.stat(path)
            digest.update(f"{os.path.relpath(path, self.path)} {state.st_size} {state.st_mtime_ns}\n".encode())
        return [digest.hexdigest()]

    def facts(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype.str,
            "shape": self.shape,
            "chunk": self.chunk,
            "stamp": self.stamped,
            "content": content([*files(self.path)]),
        }

    def read(self, region: tuple[slice, ...]) -> npt.NDArray[Any]:
        try:
            return np.asarray(self.array[region])
        except Exception as error:  # each codec has its own way to meet damaged bytes
            raise ValueError(f"{self.path} can't be read at {region}: {type(error).__name__}: {error}") from error


def files(path: str) -> Iterator[str]:
    """All files in a directory, always in the same order."""
    for folder, names, found in os.walk(path):
        names.sort()
        yield from (os.path.join(folder, name) for name in sorted(found))


def opened(path: str) -> Source:
    return Source(path)


class Chunks:
    """Arrays in the making, chunk by chunk."""

    def __init__(
        self, call: Callable[..., None], sources: Sequence[Source], targets: Sequence[str], dtypes: Sequence[np.dtype[Any]]
    ) -> None:
        self.call, self.sources, self.targets, self.dtypes = call, sources, targets, dtypes
        self.shape, self.block = sources[0].shape, sources[0].chunk
        self.grid = [-(-length // side) for length, side in zip(self.shape, self.block, strict=True)]
        self.count = math.prod(self.grid)
        itemsizes = [each.dtype.itemsize for each in sources] + [dtype.itemsize for dtype in dtypes]
        self.workers = max(1, min(WORKERS, ROOM // max(1, 2 * math.prod(self.block) * sum(itemsizes))))
        self.total = math.prod(self.shape) * sum(itemsizes)
        self.outputs: list[Any] = []
        self.synced: set[str] = set()

    def before(self, k: int) -> int:
        return self.total * k // max(self.count, 1)  # as if they were all of one size, which those at the edges aren't

    def create(self) -> None:
        for path, dtype, fill in zip(self.targets, self.dtypes, self.fills(), strict=True):
            zarr.create_array(partial(path), dtype=dtype, fill_value=fill, **likeness(self.sources[0].array))

    def fills(self) -> list[Any]:
        """What stands for a chunk that is missing; in format 2 that may be nothing."""
        values = [each.array.fill_value for each in self.sources]
        if any(value is None for value in values):
            return [None] * len(self.dtypes)
        outputs = [np.empty(1, dtype) for dtype in self.dtypes]
        self.call([np.full(1, value, each.dtype) for value, each in zip(values, self.sources, strict=True)], outputs)
        return [y[0] for y in outputs]

    def check(self, first: int) -> None:
        """An earlier run's arrays are opened later; a missing chunk may be one of fill values."""

    def open(self) -> None:
        self.outputs = [zarr.open_array(partial(path), mode="r+") for path in self.targets]

    def step(self, k: int) -> None:
        place = np.unravel_index(k, self.grid) if self.grid else ()
        region = tuple(slice(int(i) * side, (int(i) + 1) * side) for i, side in zip(place, self.block, strict=True))
        inputs = [each.read(region) for each in self.sources]
        outputs = [np.empty_like(inputs[0], dtype=dtype) for dtype in self.dtypes[1:]]
        first, dtype = inputs[0], self.dtypes[0]  # in place, where that can be
        outputs.insert(0, first if first.dtype == dtype and first.flags.writeable else np.empty_like(first, dtype=dtype))
        self.call(inputs, outputs)
        for array, y in zip(self.outputs, outputs, strict=True):
            array[region] = y

    def sync(self) -> None:
        """What was written since the last time is on the disk."""
        for path in itertools.chain.from_iterable(map(files, map(partial, self.targets))):
            if path not in self.synced:
                with suppress(FileNotFoundError), open(path, "rb") as file:  # it had another name while it was written
                    os.fsync(file.fileno())
                    self.synced.add(path)

    def close(self) -> None:
        self.outputs = []


def likeness(array: Any) -> dict[str, Any]:
    """What an array has in common with the one it is made of."""
    both = {
        "shape": array.shape,
        "chunks": array.chunks,
        "shards": array.shards,
        "compressors": array.compressors or None,
        "filters": None,
        "zarr_format": array.metadata.zarr_format,
    }
    if array.metadata.zarr_format == 2:
        kept = {DIMENSIONS: array.attrs[DIMENSIONS]} if DIMENSIONS in array.attrs else {}
        encoding = {"name": "v2", "separator": array.metadata.dimension_separator}
        return {**both, "order": array.order, "attributes": kept, "chunk_key_encoding": encoding}
    return {**both, "dimension_names": array.metadata.dimension_names, "chunk_key_encoding": array.metadata.chunk_key_encoding}
