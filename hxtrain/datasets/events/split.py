"""Samples of events in memory: any number of spikes per unit, recordings of any length, in few bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.intake import as_tensor, index, seconds, size
from hxtrain.backends.spikes import Data, gather

from ..errors import DatasetError
from ..split import Array, checked_groups, checked_labels
from .samples import KIND, EventSamples

LONG = 100
"""Mean number of events of a sample from which it is quicker to copy samples as a whole than event by event."""


@dataclass(frozen=True, eq=False, repr=False)
class EventSplit(EventSamples):
    """Events of `N` labelled samples, grouped by sample and sorted by time: 6 bytes per event up to 32,768 units.

    `from_spikes` and `from_arrays` build it from user data, and check these.

    Attributes:
        time: time of each event since the start of its sample (s), float32 [E].
        unit: unit of each event, int16 or int32 [E].
        offsets: first event of each sample, and the number of events, int64 [N + 1].
        labels: class numbers from 0, int64 [N].
        units: number of units.
        groups: number of the speaker or subject of each sample, int64 [N]; None if unknown.
    """

    time: Tensor
    unit: Tensor
    offsets: Tensor
    labels: Tensor
    units: int
    groups: Tensor | None = None

    @classmethod
    def from_spikes(cls, spikes: Spikes, labels: Data, groups: Data | None = None) -> EventSplit:
        """Build from events of all samples, which `Spikes` takes in many forms.

        Args:
            spikes: events of `N` samples, in any order.
            labels: class numbers from 0, integers `[N]`.
            groups: number of the speaker or subject of each sample, integers `[N]`; None if unknown.

        Raises:
            DatasetError: the arguments are of another type, or their numbers of samples differ.
        """
        if not isinstance(spikes, Spikes):
            raise DatasetError(f"expected Spikes, got {type(spikes).__name__}; make them by Spikes.from_events")
        return cls._checked(spikes.time, spikes.unit, spikes.offsets(), labels, spikes.units, groups)

    @classmethod
    def from_arrays(
        cls,
        time: Data,
        unit: Data,
        offsets: Data,
        labels: Data,
        units: int,
        time_unit: float = 1.0,
        groups: Data | None = None,
    ) -> EventSplit:
        """Build from flat arrays of the events of all samples, one sample after the other.

        Args:
            time: time since the start of the sample, in units of `time_unit` `[E]`.
            unit: unit of each event `[E]`.
            offsets: first event of each sample, and the number of events `[N + 1]`.
            labels: class numbers from 0, integers `[N]`.
            units: number of units.
            time_unit: unit of the times (s), such as 1e-6 for microseconds.
            groups: number of the speaker or subject of each sample, integers `[N]`; None if unknown.

        Raises:
            DatasetError: an array is of another type or length, a value is out of range, or offsets descend.
        """
        try:
            units = size(units, "units")
            times, numbers = seconds(time, "times", time_unit), index(unit, "unit", units)
            edges = index(offsets, "offsets", len(times) + 1)
        except (TypeError, ValueError) as error:
            raise DatasetError(str(error)) from None
        if len(numbers) != len(times):
            raise DatasetError(f"{len(times)} times but {len(numbers)} units of events; they must agree")
        if not len(edges) or int(edges[0]) or int(edges[-1]) != len(times) or bool((edges.diff() < 0).any()):
            raise DatasetError(
                f"offsets must ascend from 0 to the number of events, {len(times)}, and be one more than the samples"
            )
        return cls._checked(times, numbers, edges, labels, units, groups)

    @classmethod
    def _checked(
        cls, time: Tensor, unit: Tensor, offsets: Tensor, labels: Data, units: int, groups: Data | None
    ) -> EventSplit:
        try:
            numbers = as_tensor(labels, "labels")
        except (TypeError, ValueError) as error:
            raise DatasetError(str(error)) from None
        classes = checked_labels(numbers, len(offsets) - 1, KIND).cpu()
        group = checked_groups(groups, len(classes), KIND)
        order = _order(time, offsets)
        if order is not None:
            time, unit = time[order], unit[order]
        small = torch.int16 if units <= torch.iinfo(torch.int16).max + 1 else torch.int32
        group = None if group is None else group.cpu()
        return cls(time.cpu(), unit.to("cpu", small), offsets.cpu(), classes, units, group)

    def __repr__(self) -> str:
        """Describe the samples in a line."""
        return f"EventSplit({len(self)} samples, {len(self.time)} events, {self.units} units)"

    def __getitem__(self, chosen: Any) -> EventSplit:
        """Return some of the samples, see `Samples`; consecutive ones share the memory."""
        if isinstance(chosen, slice) and chosen.step in (None, 1):
            first, last, _ = chosen.indices(len(self))
            offsets = self.offsets[first : max(first, last) + 1]
            part = slice(int(offsets[0]), int(offsets[-1]))
            labels = self.labels[first:last]
            groups = None if self.groups is None else self.groups[first:last]
            return EventSplit(self.time[part], self.unit[part], offsets - offsets[0], labels, self.units, groups)
        numbers = self._rows(chosen)
        time, unit, counts = self._joined(numbers)
        edges = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        groups = None if self.groups is None else self.groups[numbers]
        return EventSplit(time, unit, edges, self.labels[numbers], self.units, groups)

    def events(self, chosen: Any) -> Spikes:
        """Return the events of some samples, see `EventSamples`."""
        numbers = self._rows(chosen)
        time, unit, counts = self._joined(numbers)
        sample = torch.arange(len(numbers)).repeat_interleave(counts)
        return Spikes.trusted(sample, unit.long(), time, len(numbers), self.units)

    def _joined(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return times and units of samples, one after the other `[E]`, and their numbers of events `[S]`."""
        first = self.offsets[numbers]
        last = self.offsets[numbers + 1]
        if len(self.time) < LONG * len(self):
            events = gather(first, last)[1]
            return self.time[events], self.unit[events], last - first
        parts = [slice(start, end) for start, end in zip(first.tolist(), last.tolist(), strict=True)]
        time = torch.cat([self.time[:0], *(self.time[part] for part in parts)])
        return time, torch.cat([self.unit[:0], *(self.unit[part] for part in parts)]), last - first

    def content(self) -> tuple[list[int], Iterable[Array]]:
        """Return the numbers of samples, events and units, and all arrays."""
        arrays = (self.offsets, self.unit.int(), self.time, self.labels)
        return [len(self), len(self.time), self.units], [array.numpy() for array in arrays]


def _order(time: Tensor, offsets: Tensor) -> Tensor | None:
    """Return the order `[E]` that sorts the events of each sample by time; None if they are sorted."""
    falls = time.diff() < 0
    edges = offsets[1:-1]
    falls[edges[(edges > 0) & (edges < len(time))] - 1] = False
    if not bool(falls.any()):
        return None
    order = torch.argsort(time, stable=True)
    sample = torch.arange(len(offsets) - 1, device=time.device).repeat_interleave(offsets.diff())
    return order[torch.argsort(sample[order], stable=True)]
