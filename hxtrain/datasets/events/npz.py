"""Files of numpy arrays to read, with the interface of `HDF5`: all arrays come into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..arrays import read_arrays
from ..errors import DatasetError
from ..split import Array
from .files import MOST_NUMBER, require_unchanged, stamp, whole_numbers
from .store import Integers


class NPZ:
    """An .npz file, which each process reads when it needs it; a pickled one carries no arrays.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = stamp(path)
        self._arrays: dict[str, Array] | None = None

    def names(self) -> list[str]:
        """Return the names of all arrays."""
        return list(self._content())

    def holds(self, name: str) -> bool:
        """Return whether there is an array of this name."""
        return name in self._content()

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return an array of one dimension.

        Raises:
            DatasetError: there is no such array.
        """
        arrays = self._content()
        if name not in arrays:
            raise DatasetError(f"{self.path}: expected an array {name}, found {', '.join(arrays) or 'nothing'}")
        if arrays[name].ndim != 1:
            raise DatasetError(f"{self.path}: {name} has shape {arrays[name].shape}, expected one dimension")
        return arrays[name]

    def integers(self, name: str, limit: int = MOST_NUMBER) -> Tensor:
        """Return an array of whole numbers, int64 [N].

        Raises:
            DatasetError: it holds something else, or numbers that are negative or above `limit`.
        """
        return whole_numbers(self.array(name), f"{self.path}: {name}", limit)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return an array of texts."""
        return tuple(str(entry) for entry in self.array(name))

    def ranges(self, name: str, first: Integers, last: Integers) -> npt.NDArray[Any]:
        """Return ranges of an array, joined [E]."""
        array = self.array(name)
        return np.concatenate([array[:0], *(array[a:b] for a, b in zip(first, last, strict=True))])

    def close(self) -> None:
        """Forget the arrays; a later read brings them back."""
        self._arrays = None

    def _content(self) -> dict[str, Array]:
        require_unchanged(self.path, self.stamp)
        if self._arrays is None:
            self._arrays = read_arrays(self.path)
        return self._arrays

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the arrays."""
        return vars(self) | {"_arrays": None}
