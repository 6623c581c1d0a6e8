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
from .store import Integers

MOST_COMPRESSION = 1100
"""Largest ratio of sizes that compression (deflate) reaches; arrays that claim more have never been written."""


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
        return self._file

    def names(self) -> list[str]:
        """Return the names of all arrays and groups."""
        present: list[str] = []
        with reading(f"{self.path}"):
            self.file().visit(present.append)
        return present

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
        array = self.array(name)
        with reading(f"{self.path}: {name}"):
            return whole_numbers(array[()], f"{self.path}: {name}", limit)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return an array of texts."""
        array = self.array(name)
        with reading(f"{self.path}: {name}"):
            return tuple(entry.decode() if isinstance(entry, bytes) else str(entry) for entry in array[()])

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
            place = array.id.get_offset() if hasattr(os, "pread") else None
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

    def _bytes(self, place: int, count: int) -> bytes:
        """Return bytes of the file."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY)
            self._closer = weakref.finalize(self, os.close, self._descriptor)
        pieces = []
        while count:
            piece = os.pread(self._descriptor, count, place)
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
