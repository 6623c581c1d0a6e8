"""HDF5 files to read: opened by each process that reads them, noticed if they change, refused if damaged."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..errors import DatasetError
from .files import MOST_NUMBER, REMEDY, reading, require_unchanged, stamp, whole_numbers
from .heap import REFERENCE, require_sound_heap
from .store import Integers

MOST_COMPRESSION = 1100
"""Largest ratio of sizes that compression (deflate) reaches; arrays that claim more have never been written."""

CACHE = 1 << 20
"""Size of HDF5's cache of parts of a file other than plain arrays (bytes)."""


class HDF5:
    """An HDF5 file, which each process opens when it needs it; a pickled one carries no open file.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = stamp(path)
        self._file: Any = None
        self._arrays: dict[str, Any] = {}
        self._sound: dict[str, npt.NDArray[np.bool_]] = {}
        self._descriptor: int | None = None
        self._process = 0

    def file(self) -> Any:
        """Return the open file, an `h5py.File`.

        Raises:
            DatasetError: it is no HDF5 file, is damaged, or has changed since this object was made.
        """
        require_unchanged(self.path, self.stamp)
        if self._process != os.getpid():
            self._file = None
            self._arrays = {}
            self._descriptor = None
            self._process = os.getpid()
        if self._file is None:
            import h5py

            with reading(f"{self.path}"):
                self._file = h5py.File(self.path, "r")
                self._limit_cache()
        return self._file

    def names(self) -> list[str]:
        """Return the names of all arrays and groups."""
        present: list[str | bytes] = []
        with reading(f"{self.path}"):
            self.file().visit(present.append)
        return [name if isinstance(name, str) else repr(name) for name in present]  # bytes: no text in any encoding

    def holds(self, name: str) -> bool:
        """Return whether there is an array of this name."""
        import h5py

        with reading(f"{self.path}: {name}"):
            return isinstance(self.file().get(name), h5py.Dataset)

    def array(self, name: str) -> Any:
        """Return an array of one dimension, an `h5py.Dataset`.

        Raises:
            DatasetError: there is no such array, or it claims more than the file holds.
        """
        file = self.file()
        if name in self._arrays:
            return self._arrays[name]
        if not self.holds(name):
            raise DatasetError(
                f"{self.path}: expected an array {name}, found {', '.join(self.names()) or 'nothing'}; write it again"
            )
        with reading(f"{self.path}: {name}"):
            item = file[name]
            if item.shape is None or len(item.shape) != 1:
                raise DatasetError(f"{self.path}: {name} has shape {item.shape}, expected one dimension; {REMEDY}")
            stored = item.id.get_storage_size()
            item.dtype  # noqa: B018 - of a damaged array it may have no equivalent in numpy
            if item.size > MOST_COMPRESSION * stored:
                raise DatasetError(
                    f"{self.path}: {name} claims {item.size} entries, more than its {stored} bytes hold; {REMEDY}"
                )
        self._arrays[name] = item
        return item

    def integers(self, name: str, limit: int = MOST_NUMBER) -> Tensor:
        """Return an array of whole numbers, int64 [N].

        Raises:
            DatasetError: it holds something else, or numbers that are negative or above `limit`.
        """
        with reading(f"{self.path}: {name}"):
            return whole_numbers(self.values(name), f"{self.path}: {name}", limit)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return an array of texts."""
        with reading(f"{self.path}: {name}"):
            return tuple(entry.decode() if isinstance(entry, bytes) else str(entry) for entry in self.values(name))

    def values(self, name: str) -> npt.NDArray[Any]:
        """Return an array."""
        array = self.array(name)
        with reading(f"{self.path}: {name}"):
            if array.dtype.hasobject:
                self.require_sound(name, np.arange(len(array)))
            result: npt.NDArray[Any] = array[()]
            return result

    def require_sound(self, name: str, numbers: Integers) -> None:
        """Check the memory of rows of variable length, which HDF5 does not, see `heap.py`; each row is checked once.

        Args:
            name: name of the array.
            numbers: numbers of the rows [S].

        Raises:
            DatasetError: it is damaged.
        """
        array = self.array(name)
        is_sound = self._sound.setdefault(name, np.zeros(len(array), bool))
        rows = numbers[~is_sound[numbers]]
        if not len(rows):
            return
        with reading(f"{self.path}: {name}"):
            if self._file.id.get_create_plist().get_sizes() != (8, 8) or self._file.userblock_size:
                raise DatasetError(f"{self.path} has addresses of an unusual form; write it again, by h5repack")
            references = self._references(array, rows)
            if references is not None:
                require_sound_heap(references, _width(array), self._bytes, self.stamp.size, f"{self.path}: {name}")
        is_sound[rows] = True

    def ranges(self, name: str, first: Integers, last: Integers) -> npt.NDArray[Any]:
        """Return ascending ranges of an array, joined [E].

        Args:
            name: name of the array.
            first: start of each range [S].
            last: end of each range [S].
        """
        array = self.array(name)
        is_start = np.append(True, first[1:] != last[:-1])[: len(first)]
        starts = first[is_start]
        ends = last[np.append(is_start[1:], True)[: len(first)]]
        with reading(f"{self.path}: {name}"):
            place = array.id.get_offset()
            if place is None:
                pieces = [array[a:b] for a, b in zip(starts, ends, strict=True)]
            else:
                kind = array.dtype
                pieces = [
                    np.frombuffer(self._bytes(place + int(a) * kind.itemsize, int(b - a) * kind.itemsize), kind)
                    for a, b in zip(starts, ends, strict=True)
                ]
            return np.concatenate(pieces) if pieces else np.zeros(0, array.dtype)

    def close(self) -> None:
        """Close the file, if this process has opened it; a later read opens it again."""
        if self._process != os.getpid():
            return
        if self._file is not None:
            self._file.close()
        if self._descriptor is not None:
            self._closer()
        self._file = None
        self._arrays = {}
        self._descriptor = None

    def _references(self, array: Any, rows: Integers) -> npt.NDArray[Any] | None:
        """Return what an array of variable length stores for rows; None if that is compressed."""
        width = REFERENCE.itemsize
        place = array.id.get_offset()
        if place is not None:
            first = int(rows.min())
            stored = np.frombuffer(self._bytes(place + first * width, (int(rows.max()) + 1 - first) * width), REFERENCE)
            return stored[rows - first]
        if array.chunks is None or array.id.get_create_plist().get_nfilters():
            return None
        pieces = [np.zeros(0, REFERENCE)]
        for first in np.unique(rows // array.chunks[0] * array.chunks[0]).tolist():
            info = array.id.get_chunk_info_by_coord((first,))
            if info.byte_offset is not None:
                chunk = np.frombuffer(self._bytes(info.byte_offset, array.chunks[0] * width), REFERENCE)
                pieces.append(chunk[rows[(rows >= first) & (rows < first + array.chunks[0])] - first])
        return np.concatenate(pieces)

    def _limit_cache(self) -> None:
        """Keep HDF5 from caching rows of variable length, whose pieces of memory otherwise grow with the rows read."""
        config = self._file.id.get_mdc_config()
        config.set_initial_size = True
        config.initial_size = CACHE
        config.min_size = CACHE
        config.max_size = CACHE
        self._file.id.set_mdc_config(config)

    def _bytes(self, place: int, count: int) -> bytes:
        """Return bytes of the file."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            self._closer = weakref.finalize(self, os.close, self._descriptor)
        pieces = []
        while count:
            piece = _read(self._descriptor, count, place)
            if not piece:
                raise DatasetError(f"{self.path} ends before its arrays; {REMEDY}")
            pieces.append(piece)
            place += len(piece)
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the open file."""
        hidden: dict[str, Any] = {"_file": None, "_arrays": {}, "_descriptor": None, "_process": 0}
        return {name: value for name, value in vars(self).items() if name != "_closer"} | hidden


def _width(array: Any) -> int:
    """Return the size of an entry of a row of variable length (bytes)."""
    import h5py

    base = h5py.check_vlen_dtype(array.dtype)
    return base.itemsize if isinstance(base, np.dtype) else 1


def _read(descriptor: int, count: int, place: int) -> bytes:
    """Return bytes of an open file, fewer at its end."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, place)
    os.lseek(descriptor, place, os.SEEK_SET)
    return os.read(descriptor, count)
