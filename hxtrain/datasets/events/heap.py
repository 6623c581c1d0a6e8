"""Check of the heap in which an HDF5 file keeps rows of variable length, before HDF5 reads it.

HDF5 2.0 never returns from a heap with a stretch of zeros, as incomplete copies have them: free space of size 0 is
followed by itself. The format is that of "Global Heap" in the HDF5 File Format Specification 3.0, section III.E.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DatasetError

REFERENCE = np.dtype([("count", "<u4"), ("address", "<u8"), ("index", "<u4")])
"""What an array of variable length stores for each row: number of entries, and place of the heap that has them."""
MAGIC = b"GCOL"
HEADER = 16
"""Bytes before the pieces of a heap, and before the content of each piece."""
ALIGNMENT = 8


def require_sound_heap(
    references: npt.NDArray[Any], width: int, read: Callable[[int, int], bytes], size: int, place: str
) -> None:
    """Check the heaps of rows of variable length.

    Args:
        references: what the array stores for each row, of type `REFERENCE`.
        width: size of an entry of a row (bytes).
        read: function from a position and a number of bytes of the file to these bytes.
        size: size of the file (bytes).
        place: file and array, for errors.

    Raises:
        DatasetError: a heap is damaged, or a row claims more than it holds.
    """
    references = references[references["count"] > 0]
    addresses, numbers = np.unique(references["address"], return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    edges = np.searchsorted(numbers[order], np.arange(len(addresses) + 1))
    for number, address in enumerate(addresses.tolist()):
        header = read(address, HEADER) if address + HEADER <= size else b""
        length = int.from_bytes(header[8:], "little")
        is_heap = header[:4] == MAGIC and HEADER <= length <= size - address
        pieces = _pieces(read(address, length)) if is_heap else {}
        for row in references[order[edges[number] : edges[number + 1]]]:
            if pieces.get(int(row["index"]), -1) < int(row["count"]) * width:
                raise DatasetError(f"{place}: the rows at byte {address} are damaged; download or write the file again")


def _pieces(heap: bytes) -> dict[int, int]:
    """Return the size of each piece of a heap by its number; nothing if they do not lead to the end of the heap."""
    pieces: dict[int, int] = {}
    place = HEADER
    while place + HEADER <= len(heap):
        index = int.from_bytes(heap[place : place + 2], "little")
        length = int.from_bytes(heap[place + 8 : place + HEADER], "little")
        step = length if index == 0 else HEADER + -(-length // ALIGNMENT) * ALIGNMENT
        if step < HEADER:
            return {}
        pieces[index] = length
        place += step
    return pieces if place <= len(heap) else {}
