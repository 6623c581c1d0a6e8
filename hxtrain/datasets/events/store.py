"""Stores: events of samples that are read as they are needed, from one file, many files, or a library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..errors import DatasetError

Integers = npt.NDArray[np.int64]
LATEST = float(np.finfo(np.float32).max)
"""Largest time (s)."""


class Events(NamedTuple):
    """Events of several samples, one sample after the other.

    Attributes:
        counts: number of events of each sample, int64 [S].
        time: time of each event since the start of its sample (s), any float type [E].
        unit: unit of each event, any integer type [E].
    """

    counts: Integers
    time: npt.NDArray[Any]
    unit: npt.NDArray[Any]


class EventStore(ABC):
    """Base: events of `N` labelled samples that are read as they are needed. It can be pickled.

    Attributes:
        title: file, folder or library, for errors.
        units: number of units.
        labels: class numbers from 0, int64 [N].
        groups: number of the speaker or subject of each sample, int64 [N]; None if unknown.
    """

    title: str
    units: int
    labels: Tensor
    groups: Tensor | None = None

    @abstractmethod
    def read(self, numbers: Integers) -> Events:
        """Return the events of some samples, as the files have them.

        Args:
            numbers: numbers of the samples, ascending, each at most once, int64 [S].

        Raises:
            DatasetError: a file is damaged, or has changed.
        """

    @property
    @abstractmethod
    def identity(self) -> str:
        """What changes whenever the events may have changed: paths, sizes and times of the files, and settings."""

    @property
    def most_events(self) -> int | None:
        """Upper limit of the number of events, known without reading them; None if there is none."""
        return None

    @property
    def newest(self) -> float | None:
        """Time of the last change of a file (s since 1970); None if there are no files to tell."""
        return None

    def place(self, number: int) -> str:
        """Return the name of a sample, for errors."""
        return f"{self.title}, sample {number}"

    def close(self) -> None:  # noqa: B027 - a store without open files has nothing to close
        """Close all files; a later read opens them again."""

    def __len__(self) -> int:
        return len(self.labels)


class Tally(NamedTuple):
    """Numbers that describe samples of events.

    Attributes:
        samples: number of samples.
        events: number of events.
        empty: number of samples without events.
        unsorted: number of samples whose events were not in the order of their times.
        late: number of events that were left out.
    """

    samples: int = 0
    events: int = 0
    empty: int = 0
    unsorted: int = 0
    late: int = 0

    def __add__(self, other: object) -> Tally:  # language: the name that Python gives it
        """Return the sums."""
        if not isinstance(other, Tally):
            return NotImplemented
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))

    def remarks(self, duration: float) -> list[str]:
        """Return what a reader of results needs to know about the events, in sentences."""
        remarks = []
        if self.empty:
            remarks.append(f"{self.empty} of {self.samples} samples have no events.")
        if self.unsorted:
            remarks.append(f"The events of {self.unsorted} samples were not sorted, and are read in the order of time.")
        if self.late:
            remarks.append(f"{self.late} events at or after {duration:g} s were left out (data.settings.duration).")
        return remarks


def cleaned(store: EventStore, numbers: Integers, events: Events, duration: float) -> tuple[Events, Tally]:
    """Return events that are checked, sorted by time within each sample, and before `duration`.

    Equal times keep their order, and equal events all count. Times become float32.

    Args:
        store: origin of the events.
        numbers: numbers of the samples [S].
        events: events of these samples.
        duration: time (s) from which on events are left out, or infinity for none.

    Raises:
        DatasetError: a time is negative, infinite or no number, or a unit does not exist.
    """
    if events.time.dtype == np.float16:  # exact, and quicker
        events = events._replace(time=events.time.astype(np.float32))
    _require_valid(store, numbers, events)
    counts = events.counts
    time = events.time.astype(np.float32, copy=False)
    unit = events.unit
    is_late = time >= duration if duration < np.inf else np.zeros(0, bool)
    late = int(np.count_nonzero(is_late))
    if late:
        counts = counts - per_sample(is_late, counts)
        time = time[~is_late]
        unit = unit[~is_late]
    is_fall = np.diff(time) < 0
    edges = np.cumsum(counts)[:-1]
    is_fall[edges[(edges > 0) & (edges < len(time))] - 1] = False
    unsorted = 0
    if is_fall.any():
        unsorted = int(np.count_nonzero(per_sample(np.append(is_fall, False), counts)))
        order = np.lexsort((time, np.repeat(np.arange(len(counts)), counts)))
        time = time[order]
        unit = unit[order]
    tally = Tally(len(counts), len(time), int(np.count_nonzero(counts == 0)), unsorted, late)
    return Events(counts, time, unit), tally


def per_sample(flags: npt.NDArray[np.bool_], counts: Integers) -> Integers:
    """Return how many events of each sample have a flag [S]."""
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(flags, dtype=np.int64)])
    edges = np.cumsum(counts)
    result: Integers = sums[edges] - sums[edges - counts]
    return result


def _require_valid(store: EventStore, numbers: Integers, events: Events) -> None:
    """Raise an error for the first event that cannot be meant."""
    counts = events.counts
    time = events.time
    unit = events.unit
    total = int(counts.sum())
    if not len(time) == len(unit) == total:
        raise DatasetError(f"{store.title}: {len(time)} times and {len(unit)} units of {total} events; write it again")
    if not total:
        return
    if not (time.min() >= 0 and time.max() <= LATEST):
        event = int(np.flatnonzero(~((time >= 0) & (time <= LATEST)))[0])
        raise DatasetError(
            f"{_place(store, numbers, counts, event)} has time {float(time[event]):g} s; times are finite and >= 0, "
            "counted from the start of each sample: mend the file, or leave the sample out"
        )
    if unit.min() < 0 or unit.max() >= store.units:
        event = int(np.flatnonzero((unit < 0) | (unit >= store.units))[0])
        raise DatasetError(
            f"{_place(store, numbers, counts, event)} has unit {int(unit[event])}, allowed 0..{store.units - 1}; mend "
            "the file, or declare more units"
        )


def _place(store: EventStore, numbers: Integers, counts: Integers, event: int) -> str:
    """Return the name of an event, for an error."""
    edges = np.cumsum(counts)
    sample = int(np.searchsorted(edges, event, side="right"))
    return f"{store.place(int(numbers[sample]))}: event {event - int(edges[sample] - counts[sample])}"
