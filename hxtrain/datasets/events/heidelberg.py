"""Files in the layout of the Heidelberg data sets, HDF5 (Cramer et al. 2022, IEEE TNNLS 33): read and written.

::

    spikes/times     times of each sample (s), variable length, float16 [N]
    spikes/units     unit of each event, variable length, uint16 [N]
    labels           class of each sample [N]
    extra/speaker    number of the speaker of each sample [N], optional; `groups` of the samples
    extra/keys       name of each class, optional
    extra/meta_info  gender, age, body_height of each speaker, optional

The attribute `units` of a written file has the number of units; published files lack it, and have 700.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DatasetError
from .files import MOST_NUMBER, REMEDY, reading
from .hdf5 import HDF5
from .store import Events, EventStore, Integers

UNITS = 700
"""Number of units of the published files."""
TIMES = "spikes/times"
NUMBERS = "spikes/units"
NO_UNITS = np.zeros(0, np.uint8)
MOST_ROWS = 1000
"""Number of scattered samples that HDF5 is asked for at a time; its time rises with the square of it."""


class HeidelbergFile(EventStore):
    """A file in the layout of the Heidelberg data sets; events are read as they are needed.

    Args:
        path: path of the file.
        units: number of units; None: that of the file, or 700 if it names none.

    Attributes:
        classes: names of the classes; numbers if the file has no names.
        meta_info: what the file tells about its speakers, by name.

    Raises:
        DatasetError: an array is missing, of another type or length, or holds what cannot be.
    """

    def __init__(self, path: str | Path, units: int | None = None) -> None:
        self._file = HDF5(Path(path))
        self.title = str(path)
        try:
            self.labels = self._file.integers("labels")
            self.units = self._units(units)
            self._require_layout()
            self.groups = self._file.integers("extra/speaker") if self._file.holds("extra/speaker") else None
            if self.groups is not None and len(self.groups) != len(self):
                raise DatasetError(
                    f"{self.title}: extra/speaker has {len(self.groups)} entries of {len(self)} samples; write it again"
                )
            self.classes = self._classes()
            self.meta_info = self._meta_info()
        finally:
            self.close()

    def read(self, numbers: Integers) -> Events:
        """Return the events of some samples, see `EventStore`; times keep the type of the file."""
        times = self._rows(TIMES, numbers)
        units = self._rows(NUMBERS, numbers)
        counts = np.fromiter(map(len, times), np.int64, len(times))
        is_odd = counts != np.fromiter(map(len, units), np.int64, len(units))
        if is_odd.any():
            row = int(np.flatnonzero(is_odd)[0])
            raise DatasetError(
                f"{self.place(int(numbers[row]))}: {len(times[row])} times and {len(units[row])} units; write it again"
            )
        return Events(counts, np.concatenate([*times, np.zeros(0, np.float16)]), np.concatenate([*units, NO_UNITS]))

    @property
    def identity(self) -> str:
        """Path and stamp of the file, and the number of units."""
        return f"{self._file.path.resolve()} {self._file.stamp} {self.units}"

    @property
    def newest(self) -> float:
        """Time of the last change of the file (s since 1970)."""
        return self._file.stamp.time * 1e-9

    @property
    def most_events(self) -> int:
        """Upper limit of the number of events: what fits the file."""
        width = sum(self._width(name) for name in (TIMES, NUMBERS))
        return self._file.stamp.size // width

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        self._file.close()

    def _rows(self, name: str, numbers: Integers) -> list[npt.NDArray[Any]]:
        """Return an entry of a variable-length array for each sample."""
        array = self._file.array(name)
        self._file.require_sound(name, numbers)
        rows: list[npt.NDArray[Any]] = []
        with reading(f"{self.title}: {name}"):
            for part in np.split(numbers, range(MOST_ROWS, len(numbers), MOST_ROWS)):
                is_run = len(part) and part[-1] - part[0] == len(part) - 1
                rows.extend(array[part[0] : part[-1] + 1] if is_run else array[part])
        return rows

    def _units(self, units: int | None) -> int:
        """Return the number of units."""
        with reading(f"{self.title}: units"):
            value = self._file.file().attrs.get("units", UNITS) if units is None else units
            if np.ndim(value) or int(value) != value or not 0 < int(value) <= MOST_NUMBER + 1:
                raise DatasetError(f"{self.title}: units={value} must be a whole number in 1..{MOST_NUMBER + 1}")
            return int(value)

    def _require_layout(self) -> None:
        """Raise an error unless the arrays of events have the types and lengths of the layout."""
        for name, kinds, expected in ((TIMES, "f", "float16"), (NUMBERS, "ui", "uint16")):
            array = self._file.array(name)
            base = self._base(array)
            if base is None or base.kind not in kinds:
                raise DatasetError(
                    f"{self.title}: {name} is {array.dtype if base is None else base}, expected variable-length arrays "
                    f"of {expected}"
                )
            if len(array) != len(self):
                raise DatasetError(f"{self.title}: {name} has {len(array)} entries of {len(self)} labels; {REMEDY}")

    def _base(self, array: Any) -> np.dtype[Any] | None:
        """Return the type of the entries of a variable-length array; None for another array."""
        import h5py

        base = h5py.check_vlen_dtype(array.dtype)
        return base if isinstance(base, np.dtype) else None

    def _width(self, name: str) -> int:
        base = self._base(self._file.array(name))
        return 1 if base is None else base.itemsize

    def _classes(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        highest = int(self.labels.max()) if len(self.labels) else 0
        if not self._file.holds("extra/keys"):
            return tuple(str(number) for number in range(highest + 1))
        names = self._file.texts("extra/keys")
        if len(names) <= highest:
            raise DatasetError(f"{self.title}: labels go to {highest}, but extra/keys has {len(names)} names")
        return names

    def _meta_info(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of the group of meta information."""
        with reading(f"{self.title}: extra/meta_info"):
            names = self._file.file().get("extra/meta_info", ())
            return {name: self._file.values(f"extra/meta_info/{name}") for name in names}
