"""Samples of events that stay on disk: a batch is read when it is needed, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hxtrain.backends import Spikes

from ..split import Array
from .samples import EventSamples
from .split import EventSplit
from .store import Events, EventStore, Integers, Tally, cleaned

BLOCK = 256
"""Number of samples that are read at a time where all are needed."""
EVENT_BYTES = 6
"""Memory of an event in an `EventSplit`, up to 32,768 units (bytes)."""


class StoredEvents(EventSamples):
    """Labelled samples of events on disk. Only labels, groups and numbers of samples are in memory.

    A choice of samples, such as `samples[:100]`, reads nothing. `events` reads the chosen samples in the order of the
    file, checks them as `EventSplit` does, and returns them in the order of the index. Unsorted events are sorted by
    time, equal ones all count, and a sample may be empty.

    Args:
        store: events.
        duration: time (s) from which on events are left out, or infinity for none.
        numbers: samples of the store in use, int64 [N]; None: all.
        labels: class numbers of these samples, int64 [N]; None: those of the store.
    """

    def __init__(
        self,
        store: EventStore,
        duration: float = np.inf,
        numbers: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        self.store = store
        self.duration = duration
        self.numbers = torch.arange(len(store)) if numbers is None else numbers
        self.units = store.units
        self.labels = store.labels[self.numbers] if labels is None else labels
        self.groups = None if store.groups is None else store.groups[self.numbers]

    def __repr__(self) -> str:
        """Describe the samples in a line."""
        return f"StoredEvents({len(self)} samples, {self.units} units, {self.store.title})"

    def __getitem__(self, chosen: Any) -> StoredEvents:
        """Return some of the samples, see `Samples`; nothing is read."""
        rows = self._rows(chosen)
        return StoredEvents(self.store, self.duration, self.numbers[rows], self.labels[rows])

    def relabelled(self, labels: Tensor) -> StoredEvents:
        """Return the same samples with other labels, see `Samples`; nothing is read."""
        return StoredEvents(self.store, self.duration, self.numbers, labels)

    def events(self, chosen: Any) -> Spikes:
        """Return the events of some samples, see `EventSamples`.

        Raises:
            DatasetError: a file is damaged, or has changed.
        """
        rows = self._rows(chosen)
        events = self._ordered(self.numbers[rows].numpy())[0]
        sample = torch.from_numpy(np.repeat(np.arange(len(rows)), events.counts))
        unit = torch.from_numpy(events.unit.astype(np.int64))
        time = torch.from_numpy(np.require(events.time, requirements=["C", "W"]))
        return Spikes.trusted(sample, unit, time, len(rows), self.units)

    def load(self, limit: float = np.inf) -> tuple[EventSplit, Tally] | None:
        """Return all samples in memory, and what was read; None if they have more than `limit` events."""
        small = torch.int16 if self.units <= torch.iinfo(torch.int16).max + 1 else torch.int32
        tally = Tally()
        times = [torch.zeros(0)]
        units = [torch.zeros(0, dtype=small)]
        counts = [torch.zeros(1, dtype=torch.int64)]
        for events, part in self.blocks():
            times.append(torch.from_numpy(np.ascontiguousarray(events.time)))
            units.append(torch.from_numpy(events.unit.astype(np.int64, copy=False)).to(small))
            counts.append(torch.from_numpy(events.counts))
            tally += part
            if tally.events > limit:
                return None
        offsets = torch.cat(counts).cumsum(0)
        split = EventSplit(torch.cat(times), torch.cat(units), offsets, self.labels, self.units, self.groups)
        return split, tally

    def tally(self) -> Tally:
        """Read all samples once, and return what was read."""
        return sum((part for _, part in self.blocks()), Tally())

    def blocks(self) -> Iterator[tuple[Events, Tally]]:
        """Return the events of all samples in order, block by block, and what was read."""
        for numbers in torch.split(self.numbers, BLOCK):
            yield self._ordered(numbers.numpy())

    def content(self) -> tuple[list[int], Iterable[Array]]:
        """Return sizes, and pieces of the arrays of an `EventSplit` with these events: all is read three times."""
        counts = [events.counts for events, _ in self.blocks()]
        offsets = np.concatenate([np.zeros(1, np.int64), *counts]).cumsum()
        return [len(self), int(offsets[-1]), self.units], self._pieces(offsets)

    def close(self) -> None:
        """Close all files; a later read opens them again."""
        self.store.close()

    def _pieces(self, offsets: Integers) -> Iterator[Array]:
        """Return the pieces of all arrays in turn."""
        yield offsets
        for events, _ in self.blocks():
            yield events.unit.astype(np.int32, copy=False)
        for events, _ in self.blocks():
            yield events.time
        yield self.labels.numpy()

    def _read(self, numbers: Integers) -> tuple[Events, Tally]:
        """Return checked events of ascending samples."""
        return cleaned(self.store, numbers, self.store.read(numbers), self.duration)

    def _ordered(self, numbers: Integers) -> tuple[Events, Tally]:
        """Return checked events of samples in any order."""
        if len(numbers) < 2 or bool((np.diff(numbers) > 0).all()):
            return self._read(numbers)
        ascending, places = np.unique(numbers, return_inverse=True)
        events, tally = self._read(ascending)
        ends = np.cumsum(events.counts)
        parts = [slice(end - count, end) for end, count in zip(ends[places], events.counts[places], strict=True)]
        time = np.concatenate([events.time[part] for part in parts])
        return Events(events.counts[places], time, np.concatenate([events.unit[part] for part in parts])), tally
