"""Write files in the layout of the Heidelberg data sets, sample by sample, in constant memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import Self

from hxtrain.backends.files import replacing

from ..errors import DatasetError
from ..split import Array
from .files import MOST_NUMBER
from .heidelberg import NUMBERS, TIMES
from .samples import EventSamples

FLOATS = ("float16", "float32", "float64")
CHUNK = 1024
"""Entries of a chunk of the arrays that grow."""


class HeidelbergWriter:
    """A file in the layout of the Heidelberg data sets (`heidelberg.py`) that grows by samples, a context manager.

    The file appears under its name when the block ends; after an error nothing does.

    Args:
        path: path of the file; an existing one is replaced.
        keys: names of the classes.
        units: number of units, which the file names in an attribute.
        time_type: type of the times; the published one is float16, which has steps of 0.5 ms (1 ms) up to 1 s (2 s).
        meta_info: arrays that describe the speakers, such as `gender`, `age`, by name.
    """

    def __init__(
        self,
        path: str | Path,
        keys: Sequence[str],
        units: int = 700,
        time_type: npt.DTypeLike = np.float16,
        meta_info: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.keys = tuple(keys)
        self.units = units
        self.time_type = np.dtype(time_type)
        self.meta_info = dict(meta_info or {})
        if not self.keys:
            raise DatasetError("keys: expected the names of the classes, found none")
        if self.time_type.name not in FLOATS:
            raise DatasetError(f"time_type={self.time_type} must be one of {', '.join(FLOATS)}")
        if not 0 < units <= MOST_NUMBER + 1:
            raise DatasetError(f"units={units} must be within 1..{MOST_NUMBER + 1}, since numbers are stored as uint16")
        self._has_speakers: bool | None = None
        self._samples = 0
        self._file: Any = None
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        """Open the file."""
        import h5py

        with ExitStack() as exits:
            target = exits.enter_context(replacing(self.path))
            self._file = exits.enter_context(h5py.File(target.name, "w"))
            self._make_arrays()
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, and give it its name unless there was an error."""
        self._exits.__exit__(kind, error, trace)

    def append(
        self,
        times: Sequence[npt.ArrayLike],
        units: Sequence[npt.ArrayLike],
        labels: npt.ArrayLike,
        speakers: npt.ArrayLike | None = None,
    ) -> None:
        """Append samples; their events are sorted by time.

        Args:
            times: times of the events of each sample (s).
            units: units of the events of each sample.
            labels: class of each sample.
            speakers: number of the speaker of each sample; None: unknown, then for all samples of the file.

        Raises:
            DatasetError: a value does not fit, or the numbers of samples differ; then nothing is appended.
        """
        count = len(times)
        classes = _numbers(labels, count, len(self.keys), f"{self.path}: labels")
        people = None if speakers is None else _numbers(speakers, count, MOST_NUMBER + 1, f"{self.path}: speakers")
        if len(units) != count:
            raise DatasetError(f"{self.path}: {count} samples of times but {len(units)} of units; they must agree")
        if self._has_speakers not in (None, people is not None):
            raise DatasetError(f"{self.path}: name the speakers of all samples, or of none")
        rows = [
            self._row(time, unit, self._samples + row)
            for row, (time, unit) in enumerate(zip(times, units, strict=True))
        ]
        self._has_speakers = people is not None
        last = self._samples + count
        for name in (TIMES, NUMBERS):
            self._file[name].resize((last,))
        for number, (time, unit) in enumerate(rows, self._samples):
            self._file[TIMES][number] = time
            self._file[NUMBERS][number] = unit
        self._extend("labels", classes, last)
        if people is not None:
            self._extend("extra/speaker", people, last)
        self._samples = last

    def _row(self, times: npt.ArrayLike, units: npt.ArrayLike, number: int) -> tuple[Array, Array]:
        """Return the events of a sample in the types of the file, sorted by time."""
        place = f"{self.path}: sample {number}"
        time = np.asarray(times)
        unit = np.asarray(units)
        if time.ndim != 1 or time.shape != unit.shape or time.dtype.kind not in "fui":
            raise DatasetError(f"{place}: times {time.dtype} {time.shape}, units {unit.shape}; expected two arrays [E]")
        largest = np.finfo(self.time_type).max
        if len(time) and not (time.min() >= 0 and time.max() <= largest):
            raise DatasetError(
                f"{place}: times span {time.min():g}..{time.max():g} s, expected 0 to {largest:g}; "
                "count them in seconds from the start of each sample"
            )
        order = np.argsort(time, kind="stable")
        return time[order].astype(self.time_type), _numbers(unit, len(unit), self.units, f"{place}: units")[order]

    def _make_arrays(self) -> None:
        """Make the arrays of the file, all empty."""
        import h5py

        file = self._file
        file.attrs["units"] = self.units
        for name, kind in ((TIMES, self.time_type), (NUMBERS, np.dtype(np.uint16))):
            file.create_dataset(name, (0,), h5py.vlen_dtype(kind), maxshape=(None,), chunks=(CHUNK,))
        file.create_dataset("labels", (0,), np.uint16, maxshape=(None,), chunks=(CHUNK,))
        file.create_dataset("extra/keys", data=np.array([key.encode() for key in self.keys]))
        for name, values in self.meta_info.items():
            file.create_dataset(f"extra/meta_info/{name}", data=np.asarray(values))

    def _extend(self, name: str, values: npt.NDArray[np.uint16], last: int) -> None:
        """Append values to an array."""
        array = self._file.require_dataset(
            name, (last - len(values),), np.uint16, exact=True, maxshape=(None,), chunks=(CHUNK,)
        )
        array.resize((last,))
        array[last - len(values) :] = values


def write_heidelberg(
    path: str | Path,
    samples: EventSamples,
    keys: Sequence[str],
    time_type: npt.DTypeLike = np.float16,
    meta_info: Mapping[str, Any] | None = None,
) -> None:
    """Write samples of events, in memory or on disk, into a file in the layout of the Heidelberg data sets.

    Args:
        path: path of the file; an existing one is replaced.
        samples: samples; their groups become the speakers.
        keys: names of the classes.
        time_type: type of the times, see `HeidelbergWriter`.
        meta_info: arrays that describe the speakers, by name.

    Raises:
        DatasetError: a value does not fit the layout.
    """
    with HeidelbergWriter(path, keys, samples.units, time_type, meta_info) as file:
        for numbers in torch.split(torch.arange(len(samples)), CHUNK // 4):
            spikes = samples.events(numbers)
            edges = spikes.offsets()[1:-1]
            file.append(
                [part.numpy() for part in spikes.time.tensor_split(edges)],
                [part.numpy() for part in spikes.unit.tensor_split(edges)],
                samples.labels[numbers],
                None if samples.groups is None else samples.groups[numbers],
            )


def _numbers(values: npt.ArrayLike, count: int, limit: int, place: str) -> npt.NDArray[np.uint16]:
    """Return whole numbers in `0..limit - 1` as uint16 `[count]`."""
    array = np.asarray(values)
    if array.shape != (count,) or (array.size and array.dtype.kind not in "ui"):
        raise DatasetError(f"{place} are {array.dtype} {list(array.shape)}, expected whole numbers [{count}]")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < limit:
        raise DatasetError(f"{place} span {array.min()}..{array.max()}, allowed 0..{limit - 1}")
    return array.astype(np.uint16)
