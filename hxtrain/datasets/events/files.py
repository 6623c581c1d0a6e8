"""Files of events: opened by each process that reads them, refused if damaged, and noticed if they change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DatasetError

REMEDY = "the file is damaged, incomplete or of another kind; download or write it again"

MOST_COMPRESSION = 1100
"""Largest ratio of sizes that compression (deflate) reaches; arrays that claim more have never been written."""


class Stamp(NamedTuple):
    """What changes when a file is written again.

    Attributes:
        size: size (bytes).
        time: time of the last change (ns).
        node: number of the file in its file system.
    """

    size: int
    time: int
    node: int


def stamp(path: Path) -> Stamp:
    """Return the stamp of a file.

    Raises:
        DatasetError: there is no such file.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; name the folder of the files of events") from None
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def require_unchanged(path: Path, known_stamp: Stamp) -> None:
    """Check that a file is the one that was opened.

    Raises:
        DatasetError: it is another one, or was written to.
    """
    if stamp(path) != known_stamp:
        raise DatasetError(f"{path} changed while it was in use; put the previous file back, or start again with it")


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Turn every error of a library that reads a file into a `DatasetError` that names file and field."""
    try:
        yield
    except DatasetError:
        raise
    except MemoryError as error:
        raise DatasetError(f"{place} does not fit the memory ({error}); {REMEDY}") from error
    except Exception as error:  # HDF5 and zip, header and shape errors share no base class
        raise DatasetError(f"{place} cannot be read ({error}); {REMEDY}") from error


class HDF5:
    """An HDF5 file to read, which each process opens when it needs it; a pickled one carries no open file.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = stamp(path)
        self._file: Any = None
        self._process = 0

    def file(self) -> Any:
        """Return the open file, an `h5py.File`.

        Raises:
            DatasetError: it is no HDF5 file, is damaged, or has changed since this object was made.
        """
        require_unchanged(self.path, self.stamp)
        if self._file is None or self._process != os.getpid():
            import h5py

            with reading(f"{self.path}"):
                self._file = h5py.File(self.path, "r")
                self._process = os.getpid()
        return self._file

    def array(self, name: str, rank: int = 1) -> Any:
        """Return an array of the file, an `h5py.Dataset`.

        Raises:
            DatasetError: there is no array of this name, or it has another number of dimensions.
        """
        import h5py

        with reading(f"{self.path}: {name}"):
            item = self.file().get(name)
            if not isinstance(item, h5py.Dataset):
                present: list[str] = []
                self.file().visit(present.append)
                raise DatasetError(f"{self.path}: expected an array {name}, found {', '.join(present) or 'nothing'}")
            if item.shape is None or len(item.shape) != rank:
                raise DatasetError(f"{self.path}: {name} has shape {item.shape}, expected {rank} dimension(s)")
            if item.size * item.dtype.itemsize > MOST_COMPRESSION * item.id.get_storage_size():
                raise DatasetError(
                    f"{self.path}: {name} claims {item.size} entries, more than its {item.id.get_storage_size()} bytes "
                    f"hold; {REMEDY}"
                )
        return item

    def holds(self, name: str) -> bool:
        """Return whether there is an array of this name."""
        import h5py

        with reading(f"{self.path}: {name}"):
            return isinstance(self.file().get(name), h5py.Dataset)

    def close(self) -> None:
        """Close the file, if this process has opened it; a later read opens it again."""
        file = self._file
        is_mine = self._process == os.getpid()
        self._file = None
        if file is not None and is_mine:
            file.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the open file."""
        return vars(self) | {"_file": None, "_process": 0}
