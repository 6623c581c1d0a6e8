"""The content of a foreign HDF5 file as plain values, with flat memory.

A file of a few bytes can announce arrays of any size: compressed zeros, a fill value, a chunk that is larger than the
array. So shapes, types, chunks and links are checked before h5py allocates anything. Nothing outside the file is
opened.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .errors import ExchangeError

LARGEST_FILE = 2**28
"""Largest file that is read (bytes)."""
MOST_BYTES = 2**28
"""Greatest size of all arrays together, once they are read (bytes)."""
LARGEST_CHUNK = 2**26
"""Largest chunk of an array, which HDF5 decompresses as a whole (bytes)."""
MOST_ITEMS = 10_000
"""Greatest number of groups and arrays."""
MOST_TEXTS = 8192
"""Greatest number of texts in an array."""
MOST_CHARACTERS = 2**22
"""Greatest length of all texts together."""
DEEPEST = 10
"""Greatest depth of nested groups."""
FILTERS = ("gzip", "lzf", "szip", None)
"""Compressions that HDF5 has itself; others would load a plug-in."""
NUMBERS = "fiub"
"""Kinds of numbers, as numpy spells them."""


def read_tree(path: Path, group: str) -> dict[str, Any]:
    """Return a group of a file as nested dictionaries of arrays, numbers and texts.

    Raises:
        ExchangeError: The file cannot be read, or holds something that no file of a network needs.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ExchangeError(f"{path} cannot be read ({error.strerror}); give the path of a NIR file") from error
    if size > LARGEST_FILE:
        raise ExchangeError(f"{path} has {size} bytes; files of networks have at most {LARGEST_FILE}")
    try:
        with h5py.File(path, "r", rdcc_nbytes=0) as file:
            reader = _Reader(path)
            root = reader.child(file, group, group)
            if not isinstance(root, h5py.Group):
                raise ExchangeError(f"{path} has no group {group!r}; it is no NIR file")
            return reader.contents(reader.tree(root, group, 0), group)
    except ExchangeError:
        raise
    except MemoryError as error:
        raise ExchangeError(f"{path} needs more memory than there is; it is damaged or hostile") from error
    except Exception as error:  # h5py raises nearly anything for damaged bytes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ExchangeError(f"{path} is no readable HDF5 file ({reason}); write it again with `nir.write`") from error


class _Reader:
    """What is left of the limits while a file is read.

    Args:
        path: Path of the file, for errors.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = MOST_BYTES
        self._items = MOST_ITEMS
        self._characters = MOST_CHARACTERS

    def tree(self, group: h5py.Group, name: str, depth: int) -> dict[str, Any]:
        """Return a group as nested dictionaries of arrays that are checked, and not read yet."""
        if depth > DEEPEST:
            raise self._refusal(name, f"is nested more than {DEEPEST} deep")
        values: dict[str, Any] = {}
        for key in group:
            label = f"{name}/{key}"
            item = self.child(group, key, label)
            if isinstance(item, h5py.Group):
                values[key] = self.tree(item, label, depth + 1)
            elif isinstance(item, h5py.Dataset):
                self._check(item, label)
                values[key] = item
            else:
                raise self._refusal(label, f"is a {type(item).__name__}, neither a group nor an array")
        return values

    def child(self, group: h5py.Group, key: str, label: str) -> Any:
        """Return an item of a group; links that lead elsewhere are not followed."""
        self._items -= 1
        if self._items < 0:
            raise self._refusal(label, f"is one of more than {MOST_ITEMS} groups and arrays")
        link = group.get(key, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise self._refusal(label, f"is a {type(link).__name__}, which leads elsewhere")
        return group.get(key)

    def contents(self, tree: dict[str, Any], name: str) -> dict[str, Any]:
        """Return nested dictionaries with the values of their arrays."""
        return {
            key: self.contents(item, f"{name}/{key}") if isinstance(item, dict) else self._values(item, f"{name}/{key}")
            for key, item in tree.items()
        }

    def _check(self, dataset: h5py.Dataset, label: str) -> None:
        """Check type and sizes of an array, and count its bytes."""
        if dataset.shape is None:
            raise self._refusal(label, "is an empty dataset")
        if dataset.is_virtual or dataset.external:
            raise self._refusal(label, "lies in other files")
        if dataset.compression not in FILTERS or dataset.id.get_create_plist().get_nfilters() > 3:
            raise self._refusal(label, f"has the filter {dataset.compression!r}, which needs a plug-in")
        is_text = h5py.check_string_dtype(dataset.dtype) is not None
        if not is_text and dataset.dtype.kind not in NUMBERS:
            raise self._refusal(label, f"is of type {dataset.dtype}; only numbers and texts are read")
        size = math.prod(dataset.shape) * dataset.dtype.itemsize
        chunk = math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
        if size > self._bytes or chunk > LARGEST_CHUNK or dataset.dtype.itemsize > MOST_CHARACTERS:
            raise self._refusal(
                label,
                f"has the shape {_short(dataset.shape)} of {dataset.dtype} in chunks of {_short(dataset.chunks)}; a "
                "file "
                f"may hold {MOST_BYTES} bytes in chunks of {LARGEST_CHUNK}",
            )
        self._bytes -= size

    def _values(self, dataset: h5py.Dataset, label: str) -> Any:
        """Return an array, a number, a text or texts."""
        if h5py.check_string_dtype(dataset.dtype) is not None:
            return self._texts(dataset, label)
        value = dataset[()]
        return value if isinstance(value, np.ndarray) else value.item()

    def _texts(self, dataset: h5py.Dataset, label: str) -> Any:
        """Return a text, or an array of texts; each is read by itself, since many may stand for the same long one."""
        count = math.prod(dataset.shape)
        if count > MOST_TEXTS:
            raise self._refusal(label, f"has {count} texts; at most {MOST_TEXTS} are read")
        if dataset.shape == ():
            return self._text(dataset[()], label)
        texts = [self._text(dataset[index], label) for index in np.ndindex(dataset.shape)]
        return np.array(texts, dtype=object).reshape(dataset.shape)

    def _text(self, value: Any, label: str) -> str:
        self._characters -= len(value)
        if self._characters < 0:
            raise self._refusal(label, f"is one of texts of more than {MOST_CHARACTERS} characters")
        return value.decode("utf8") if isinstance(value, bytes) else str(value)

    def _refusal(self, label: str, reason: str) -> ExchangeError:
        return ExchangeError(f"{self._path}: {label} {reason}; write the graph anew with `nir.write`")


def _short(shape: Any) -> str:
    text = str(None if shape is None else list(shape))
    return text if len(text) <= 60 else f"{text[:57]}..."
