"""A control for the meaning of spike times: the same numbers of spikes per unit, at times that say nothing of the unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from .split import EventSplit


def with_shuffled_times(samples: EventSplit, seed: int) -> EventSplit:
    """Return samples whose spikes have exchanged their times within each sample, at random.

    Each unit keeps its number of spikes, and each sample keeps its set of times, so that counts per unit and the
    activity over time are as before; only which unit fires at which time is lost.

    Args:
        samples: samples of events.
        seed: seed of the exchange.
    """
    numbers = np.random.RandomState(seed)
    sample = np.repeat(np.arange(len(samples)), np.diff(samples.offsets.numpy()))
    order = np.lexsort((numbers.uniform(size=len(sample)), sample))
    return replace(samples, unit=samples.unit[torch.from_numpy(order)])
