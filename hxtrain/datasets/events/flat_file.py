"""Files of flat arrays, the events of all samples one after the other: HDF5, which is read quickest so, or .npz.

::

    t, unit    or t, x, y, p, or other names that an `AddressLayout` declares [E]
    offsets    first event of each sample, and the number of events [N + 1]
    labels     class of each sample [N]
    groups     number of the speaker or subject of each sample [N], optional
    classes    names of the classes, optional
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hxtrain.backends.files import replacing

from ..errors import DatasetError
from .address import AddressLayout
from .files import MOST_NUMBER
from .hdf5 import HDF5
from .npz import NPZ
from .samples import EventSamples
from .store import Events, EventStore, Integers

HDF5_ENDINGS = (".h5", ".hdf5")
WRITTEN = 256
"""Number of samples that are written at a time."""


class FlatFile(EventStore):
    """A file of flat arrays. Those of an HDF5 file are read as they are needed, those of an .npz file come into memory.

    Args:
        path: path of the file.
        layout: meaning of the arrays.

    Attributes:
        classes: names of the classes; none if the file has no names.

    Raises:
        DatasetError: an array is missing, of another type or length, or holds what cannot be.
    """

    def __init__(self, path: str | Path, layout: AddressLayout) -> None:
        path = Path(path)
        self._file = HDF5(path) if path.suffix.lower() in HDF5_ENDINGS else NPZ(path)
        self.title = str(path)
        self.layout = layout
        self.units = layout.total_units
        try:
            self._names = layout.names(self._file.names(), self.title)
            self.events = self._length()
            self._offsets = self._edges()
            self.labels = self._per_sample("labels")
            self.groups = self._per_sample("groups") if self._file.holds("groups") else None
            self.classes = self._file.texts("classes") if self._file.holds("classes") else ()
        finally:
            self.close()

    def read(self, numbers: Integers) -> Events:
        """Return the events of some samples, see `EventStore`."""
        first = self._offsets[numbers]
        last = self._offsets[numbers + 1]
        columns = {role: self._file.ranges(name, first, last) for role, name in self._names.items()}
        time, unit = self.layout.convert(columns, last - first, self.title)
        return Events(last - first, time, unit)

    @property
    def identity(self) -> str:
        """Path and stamp of the file, and the layout."""
        return f"{self._file.path.resolve()} {self._file.stamp} {self.layout}"

    @property
    def newest(self) -> float:
        """Time of the last change of the file (s since 1970)."""
        return self._file.stamp.time * 1e-9

    @property
    def most_events(self) -> int:
        """Number of events."""
        return self.events

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        self._file.close()

    def _length(self) -> int:
        """Return the number of events."""
        lengths = {name: len(self._file.array(name)) for name in self._names.values()}
        if len(set(lengths.values())) > 1:
            text = ", ".join(f"{length} of {name}" for name, length in lengths.items())
            raise DatasetError(f"{self.title}: arrays of different lengths ({text}); write the file again")
        return next(iter(lengths.values()))

    def _edges(self) -> Integers:
        """Return the first event of each sample, and the number of events."""
        offsets = self._file.integers("offsets", self.events).numpy()
        if not len(offsets) or offsets[0] or offsets[-1] != self.events or (np.diff(offsets) < 0).any():
            raise DatasetError(
                f"{self.title}: offsets must ascend from 0 to the number of events, {self.events}; write the file again"
            )
        return offsets

    def _per_sample(self, name: str) -> Tensor:
        """Return an array with a number for each sample."""
        numbers = self._file.integers(name)
        if len(numbers) != len(self._offsets) - 1:
            raise DatasetError(
                f"{self.title}: {len(numbers)} {name} of {len(self._offsets) - 1} samples; they must agree"
            )
        return numbers


def write_flat(path: str | Path, samples: EventSamples, classes: Sequence[str] = ()) -> None:
    """Write samples of events, in memory or on disk, into an HDF5 file of flat arrays, which takes two passes.

    The times are in seconds, float32: the file is read with `AddressLayout(units=samples.units, time_unit=1)`.

    Args:
        path: path of the file; an existing one is replaced.
        samples: samples, of at most 65,536 units.
        classes: names of the classes.

    Raises:
        DatasetError: there are more units, or no samples.
    """
    import h5py

    if samples.units > MOST_NUMBER + 1 or not len(samples):
        raise DatasetError(
            f"{path}: {len(samples)} samples of {samples.units} units; give some samples, of at most "
            f"{MOST_NUMBER + 1} units, since these are stored as uint16"
        )
    pieces = torch.split(torch.arange(len(samples)), WRITTEN)
    counts = [torch.diff(samples.events(numbers).offsets()) for numbers in pieces]
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), *counts]).cumsum(0).numpy()
    with replacing(Path(path)) as target, h5py.File(target.name, "w") as file:
        file["offsets"] = offsets
        file["labels"] = samples.labels.numpy()
        if samples.groups is not None:
            file["groups"] = samples.groups.numpy()
        if classes:
            file["classes"] = np.array([name.encode() for name in classes])
        times = file.create_dataset("t", (offsets[-1],), np.float32)
        units = file.create_dataset("unit", (offsets[-1],), np.uint16)
        for numbers in pieces:
            spikes = samples.events(numbers)
            part = slice(offsets[int(numbers[0])], offsets[int(numbers[-1]) + 1])
            times[part] = spikes.time.numpy()
            units[part] = spikes.unit.numpy()
