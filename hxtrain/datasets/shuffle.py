"""A control of what spike times tell: the times of each unit are shuffled over all samples of a part.

Every sample keeps the number of events of every unit, and every unit its distribution of times. What remains for a
network are the counts. Within a sample alone there is nothing to shuffle: events of one unit are alike.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .dataset import Dataset
from .errors import DatasetError
from .events import EventSplit, StoredEvents
from .split import Samples

NOTE = "The spike times of each unit are shuffled over the samples of a part, as a control."


def with_shuffled_times(data: Dataset) -> Dataset:
    """Return a data set with the times of each unit shuffled over the samples, in each part apart from the others.

    The order is the same in every run. The hash remains that of the samples as they were.

    Raises:
        DatasetError: the samples are no events.
    """
    return replace(
        data,
        train=shuffled_times(data.train, "train"),
        test=shuffled_times(data.test, "test"),
        validation=None if data.validation is None else shuffled_times(data.validation, "validation"),
        note=f"{data.note} {NOTE}".strip(),
    )


def shuffled_times(samples: Samples, name: str) -> EventSplit:
    """Return events in memory with the times of each unit in another order, the same one for each `name`.

    Raises:
        DatasetError: the samples are no events.
    """
    if isinstance(samples, StoredEvents):
        loaded = samples.load()
        assert loaded is not None  # there is no limit
        samples = loaded[0]
    if not isinstance(samples, EventSplit):
        raise DatasetError(f"shuffled_times: only events have times to shuffle, not {samples.kind}; leave this out")
    events = len(samples.time)
    random = torch.Generator().manual_seed(int.from_bytes(name.encode()[:7], "little"))
    origin = torch.randperm(events, generator=random)
    origin = origin[torch.argsort(samples.unit[origin], stable=True)]
    target = torch.argsort(samples.unit, stable=True)
    time = torch.empty_like(samples.time)
    time[target] = samples.time[origin]
    return EventSplit.from_arrays(
        time, samples.unit, samples.offsets, samples.labels, samples.units, groups=samples.groups
    )
