"""Drift of a chip, watched from the host: the resting potentials, which every recording contains.

The first trace sample of a trial shows each neuron at rest. Its mean over trials, against the same mean from
when the network was attached, says how far the chip's operating point has moved since.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hxtrain.backends import Recording

LIMIT = 2.0
"""Change from which on recalibration is due (trace units, rms over neurons). An estimate: about what a
calibration leaves as spread of the thresholds, and under 3 % of threshold - leak."""
WATCHED = 32
"""Trials of a recording that are looked at, the first ones; more would cost time and tell little."""
TRIALS = 256
"""Least number of trials that a mean is taken over; noise of 1 LSB becomes 0.06 LSB."""
PRECISION = 0.1
"""Largest standard error of a mean (rms over neurons, in units of the limit); more trials are added until then.
Chips that take turns from trial to trial need thousands."""


class DriftMonitor:
    """Says once when the resting potentials have moved too far.

    Args:
        limit: change from which on recalibration is due (trace units, rms over neurons).

    Attributes:
        chip_time: of all recordings (s).
    """

    def __init__(self, limit: float = LIMIT) -> None:
        if not limit > 0:
            raise ValueError(f"drift_limit={limit:g} trace units must be positive")
        self.limit = limit
        self.chip_time = 0.0
        self._first: Tensor | None = None
        self._block = _Block()
        self._reported = False

    def add(self, recording: Recording) -> str | None:
        """Take the resting potentials of a whole recording; return a text when recalibration has become due."""
        self.chip_time += recording.cost.chip_time
        if self._reported:
            return None
        self._block.add(torch.cat([codes[:WATCHED, 0] for codes in recording.traces.values()], dim=1))
        if self._block.trials < TRIALS or self._block.standard_error() > PRECISION * self.limit:
            return None
        mean, self._block = self._block.mean(), _Block()
        if self._first is None:
            self._first = mean
            return None
        moved = float((mean - self._first).square().mean().sqrt())
        if moved <= self.limit:
            return None
        self._reported = True
        return (
            f"recalibration is due: the resting potentials moved by {moved:.1f} LSB (rms) in {self.chip_time:.3g} s of "
            "chip time; the thresholds have probably moved alike; recalibrate and attach again"
        )


class _Block:
    """Sums over consecutive trials."""

    def __init__(self) -> None:
        self.trials, self._sum, self._changes = 0, torch.zeros(()), 0.0
        self._waiting: list[Tensor] = []
        self._last: Tensor | None = None

    def add(self, codes: Tensor) -> None:
        """Add codes `[B, N]`; they are looked at when a sum is asked for."""
        self.trials += len(codes)
        self._waiting.append(codes)

    def _sum_up(self) -> None:
        if not self._waiting:
            return
        values = torch.cat(self._waiting).double()
        self._sum = self._sum + values.sum(0)
        rows = values if self._last is None else torch.cat([self._last, values])
        change = (rows[1:] - rows[:-1]).view(-1)
        self._changes += float(change.dot(change)) / values.shape[1]
        self._waiting, self._last = [], values[-1:]

    def mean(self) -> Tensor:
        """Return each neuron's mean `[N]`."""
        self._sum_up()
        return self._sum / self.trials

    def standard_error(self) -> float:
        """Return the standard error of the means, rms over neurons.

        The variance is half the mean square of the change from one trial to the next, so drift does not count.
        """
        self._sum_up()
        return math.sqrt(self._changes / (2 * (self.trials - 1) * self.trials))
