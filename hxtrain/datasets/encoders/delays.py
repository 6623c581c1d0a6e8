"""Delayed terminals: every input spike reaches the network several times, each time later, over separate weights.

Programmable delays of synapses are rare on chips; copies of inputs with shifted spikes do the same for the first layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import List  # noqa: UP035 - OmegaConf resolves these on every Python

import torch

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import Data

from .base import Limit
from .events import EventEncoder


@dataclass
class DelayedEventEncoder(EventEncoder):
    """Recorded events, each as several spikes of different inputs (Bohte, Kok and La Poutré 2002).

    An event of unit n at t becomes a spike of input `k N + n` at `t / speedup + delays[k]` for each delay k, where N is
    the number of units; where `EventEncoder` takes fewer inputs than units, n and N are those of its inputs. The
    published delays are 1 to 16 ms; the default ones are as many microseconds.

    Attributes:
        speedup: Factor by which recordings pass faster than they were made, see `EventEncoder`.
        first: First unit in use, see `EventEncoder`.
        stride: Number of neighbouring units per input, see `EventEncoder`.
        pooled: Whether an input gets the events of all its units, see `EventEncoder`.
        delays: Delay of each copy of the inputs (s).
        jitter: Standard deviation of noise on the times of events (s), the same for all copies.
        grid: Width of bins (s) of the times of events, before the delays.
    """

    delays: List[float] = field(default_factory=lambda: [k * 1e-6 for k in range(1, 17)])  # noqa: UP006

    def limits(self) -> Sequence[Limit]:
        """Return the conditions on the settings."""
        is_valid = len(self.delays) > 0 and all(0 <= delay < math.inf for delay in self.delays)
        return (*super().limits(), Limit("delays", is_valid, "at least one delay, finite delays >= 0 s"))

    def units(self, features: int) -> int:
        """Return the number of network inputs: one for each unit in use and each delay."""
        return self.inputs(features) * len(self.delays)

    def __call__(self, samples: Data | Spikes, generator: torch.Generator | None = None) -> Spikes:
        """Encode events; arguments and errors as in `Encoder`."""
        events = super().__call__(samples, generator)
        delays = torch.tensor(self.delays, dtype=torch.float64, device=events.time.device)
        copies = torch.arange(len(delays), device=events.time.device) * events.units
        time = (events.time.double()[:, None] + delays).float()
        unit = events.unit[:, None] + copies
        sample = events.sample.repeat_interleave(len(delays))
        return Spikes.trusted(sample, unit.flatten(), time.flatten(), events.samples, events.units * len(delays))
