"""Files of one recording each: what they hold, by field.

========== ==========================================================================================================
ending     content
========== ==========================================================================================================
.bin       5 bytes per event: x, y, polarity (1 bit) and time in microseconds (23 bits), as N-MNIST and N-Caltech101;
           y = 240 marks an overflow of the time, 2^13 microseconds (Orchard et al. 2015, and their code)
.aedat     AER-DAT2.0 of the camera DVS128: lines with #, then address and time in microseconds, 32 bits each,
           big-endian; x in bits 1-7, y in 8-14, the polarity in bit 0, as recorded (jAER)
.npy       a structured array
.npz       an array per field, or one structured array
.h5 .hdf5  the same; arrays may be in one group
========== ==========================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import read_arrays
from ..errors import DatasetError
from .files import reading
from .hdf5 import HDF5

Columns = Mapping[str, npt.NDArray[Any]]
OVERFLOW_ROW = 240
OVERFLOW_TIME = 2**13
"""Microseconds that an overflow stands for."""
AER_MAGIC = b"#!AER-DAT2.0"


def read_recording(file: Path) -> Columns:
    """Return the fields of a file, by name.

    Raises:
        DatasetError: the file is damaged, or of another kind.
    """
    return READERS[file.suffix.lower()](file)


def read_bin(file: Path) -> Columns:
    """Return the events of a file of 5 bytes per event."""
    raw = np.fromfile(file, np.uint8)
    if len(raw) % 5:
        raise DatasetError(f"{file} has {len(raw)} bytes, no multiple of 5 per event; it is incomplete, fetch it again")
    words = raw.reshape(-1, 5).astype(np.int64)
    y = words[:, 1]
    is_overflow = y == OVERFLOW_ROW
    time = (words[:, 2] & 0x7F) << 16 | words[:, 3] << 8 | words[:, 4]
    time += OVERFLOW_TIME * np.cumsum(is_overflow)
    columns = {"x": words[:, 0], "y": y, "t": time, "p": words[:, 2] >> 7}
    return {name: values[~is_overflow] for name, values in columns.items()} if is_overflow.any() else columns


def read_aedat(file: Path) -> Columns:
    """Return the events of a file of the format AER-DAT2.0, recorded by a DVS128."""
    raw = file.read_bytes()
    if not raw.startswith(AER_MAGIC):
        raise DatasetError(f"{file} does not start with {AER_MAGIC.decode()}; other versions are read through tonic")
    start = 0
    while raw[start : start + 1] == b"#":
        end = raw.find(b"\n", start)
        start = len(raw) if end < 0 else end + 1
    if (len(raw) - start) % 8:
        raise DatasetError(f"{file} has {len(raw) - start} bytes of events, no multiple of 8; fetch it again")
    words = np.frombuffer(raw, ">u4", offset=start).reshape(-1, 2).astype(np.int64)
    address = words[:, 0]
    return {"x": address >> 1 & 0x7F, "y": address >> 8 & 0x7F, "t": words[:, 1], "p": address & 1}


def read_npy(file: Path) -> Columns:
    """Return the fields of a structured array."""
    with file.open("rb") as stream:
        return _fields(file, np.load(stream, allow_pickle=False))


def read_npz(file: Path) -> Columns:
    """Return the arrays of a file; or the fields of its only array."""
    arrays = read_arrays(file)
    return _fields(file, *arrays.values()) if len(arrays) == 1 else arrays


def read_hdf5(file: Path) -> Columns:
    """Return the arrays of a file, from its only group if it has one; or the fields of its only array."""
    content = HDF5(file)
    try:
        group: Any = content.file()
        while len(group) == 1 and hasattr(next(iter(group.values())), "keys"):
            group = next(iter(group.values()))
        prefix = group.name.rstrip("/")
        arrays = {name: content.values(f"{prefix}/{name}") for name in group if hasattr(group[name], "dtype")}
    finally:
        content.close()
    return _fields(file, *arrays.values()) if len(arrays) == 1 else arrays


def _fields(file: Path, array: npt.NDArray[Any]) -> Columns:
    """Return the fields of a structured array."""
    if not array.dtype.names:
        raise DatasetError(f"{file} holds an array {array.dtype} {list(array.shape)}; expected one with named fields")
    return {name: array[name] for name in array.dtype.names}


def _refusing(reader: Callable[[Path], Columns]) -> Callable[[Path], Columns]:
    """Return a reader whose every error names the file."""

    def read(file: Path) -> Columns:
        with reading(str(file)):
            return reader(file)

    return read


READERS: Mapping[str, Callable[[Path], Columns]] = {
    ".bin": _refusing(read_bin),
    ".aedat": _refusing(read_aedat),
    ".npy": _refusing(read_npy),
    ".npz": _refusing(read_npz),
    ".h5": _refusing(read_hdf5),
    ".hdf5": _refusing(read_hdf5),
}
"""Readers of files by their ending."""
