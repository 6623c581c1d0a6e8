"""Files of events: stamps that tell whether a file changed, and one kind of error for all that can be wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import DatasetError

REMEDY = "the file is damaged, incomplete or of another kind; download or write it again"

MOST_NUMBER = 65_535
"""Largest class, speaker or unit: a larger one is a sign of damage."""


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


def whole_numbers(values: npt.NDArray[Any], place: str, limit: int = MOST_NUMBER) -> Tensor:
    """Return an array of whole numbers, int64 [N].

    Args:
        values: array.
        place: file and name of the array, for errors.
        limit: largest number.

    Raises:
        DatasetError: it holds something else, or numbers that are negative or above `limit`.
    """
    if values.dtype.kind not in "ui":
        raise DatasetError(f"{place} is {values.dtype}, expected whole numbers; write the file again")
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) <= limit:
        raise DatasetError(f"{place} spans {values.min()}..{values.max()}, expected 0 to {limit}; {REMEDY}")
    return torch.from_numpy(values.astype(np.int64))
