"""Arrays of a user's .npz files, read without pickle and looked up by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import DatasetError
from .split import Array


class Part(NamedTuple):
    """Arrays of the training or the test part of a data set.

    Attributes:
        file: file of the arrays, for errors.
        name: `train` or `test`.
        arrays: arrays of the file, by name.
        is_alone: whether the file holds this part only; otherwise its names tell the part.
    """

    file: Path
    name: str
    arrays: Mapping[str, Array]
    is_alone: bool

    def names(self, *words: str) -> list[str]:
        """Return the names of an array: `times`, or `train_times` in a file of both parts; `x` becomes `x_train`."""
        if self.is_alone:
            return list(words)
        return [f"{word}_{self.name}" if len(word) == 1 else f"{self.name}_{word}" for word in words]

    def holds(self, word: str) -> bool:
        """Return whether there is an array of this name."""
        return self.names(word)[0] in self.arrays

    def find(self, *words: str) -> tuple[str, Array]:
        """Return name and content of the first array with one of the names.

        Raises:
            DatasetError: there is none.
        """
        names = self.names(*words)
        for name in names:
            if name in self.arrays:
                return name, self.arrays[name]
        present = ", ".join(self.arrays) or "none"
        raise DatasetError(f"{self.file}: expected an array {' or '.join(names)}, found {present}")

    def labels(self) -> Tensor:
        """Return class numbers, int64 [N].

        Raises:
            DatasetError: there are none, or they are not integers.
        """
        return self._integers(
            *self.find("labels", "y"),
            "class numbers, integers from 0, whose names an array classes has (np.unique(names, return_inverse=True))",
        )

    def groups(self) -> Tensor | None:
        """Return the number of the speaker, writer or subject of each sample, int64 [N]; None if there is no array.

        Raises:
            DatasetError: they are not integers.
        """
        return self._integers(*self.find("groups"), "numbers of speakers or writers") if self.holds("groups") else None

    def _integers(self, name: str, array: Array, expected: str) -> Tensor:
        """Return an array of integers, int64 [N]."""
        if array.dtype.kind not in "ui":
            raise DatasetError(f"{self.file}: {name} is {array.dtype}; expected {expected}")
        return torch.from_numpy(
            array.astype(np.int64).reshape(len(array), -1).squeeze(1) if array.size else array.reshape(0)
        )


def read_parts(folder: Path, names: Sequence[str]) -> list[Part]:
    """Return the parts in `data.npz`, or in one file for each; nothing without these files.

    Raises:
        DatasetError: a file is damaged, or holds objects.
    """
    if (folder / "data.npz").is_file():
        arrays = read_arrays(folder / "data.npz")
        return [Part(folder / "data.npz", name, arrays, False) for name in names]
    files = [folder / f"{name}.npz" for name in names]
    if not all(file.is_file() for file in files):
        return []
    return [Part(file, name, read_arrays(file), True) for file, name in zip(files, names, strict=True)]


def read_arrays(file: Path) -> dict[str, Array]:
    """Read all arrays of an npz file; objects are refused, since they could run code."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except Exception as error:  # zip, header and shape errors share no base class
        raise DatasetError(f"{file} is no readable .npz file of plain arrays ({error}); write it again") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DatasetError(f"{file}: {name} is no array; write the file again")
    return arrays
