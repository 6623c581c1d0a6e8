"""Drift of a chip, observed from the host through the resting potentials in its recordings.

The first trace sample of a trial shows each neuron at rest, of the populations whose traces are recorded. The
difference between its mean over recent trials and its mean when the network was attached shows how far the chip's
operating point has moved.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hxtrain.backends import Recording

LIMIT = 2.0
"""Change above which recalibration is due (trace units, rms over neurons). An estimate: about the spread of the
thresholds after a calibration, and under 3 % of threshold - leak."""
WATCHED = 32
"""Number of trials at the start of a recording that are evaluated; more would cost time and add little."""
TRIALS = 256
"""Smallest number of trials for a mean; noise of 1 LSB becomes 0.06 LSB."""
PRECISION = 0.1
"""Largest standard error of a mean (rms over neurons, in units of the limit); trials are added until it is reached.
A population of chips, which changes from trial to trial, needs thousands."""


class DriftMonitor:
    """Reports once that the resting potentials have moved too far.

    Args:
        limit: change above which recalibration is due (trace units, rms over neurons).

    Attributes:
        chip_time: chip time of all recordings (s).
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
        """Add the resting potentials of a whole recording; return a text when recalibration becomes due."""
        self.chip_time += recording.cost.chip_time
        if self._reported or not recording.traces:
            return None
        self._block.add(torch.cat([codes[:WATCHED, 0] for codes in recording.traces.values()], dim=1))
        if self._block.trials < TRIALS or self._block.standard_error() > PRECISION * self.limit:
            return None
        mean = self._block.mean()
        self._block = _Block()
        if self._first is None:
            self._first = mean
            return None
        shift = float((mean - self._first).square().mean().sqrt())
        if shift <= self.limit:
            return None
        self._reported = True
        return (
            f"recalibration is due: the resting potentials moved by {shift:.1f} LSB (rms) in {self.chip_time:.3g} s of "
            "chip time; the thresholds have probably moved alike; recalibrate and attach again"
        )


class _Block:
    """Sums over consecutive trials."""

    def __init__(self) -> None:
        self.trials = 0
        self._sum = torch.zeros(())
        self._changes = 0.0
        self._queue: list[Tensor] = []
        self._last: Tensor | None = None

    def add(self, codes: Tensor) -> None:
        """Add codes `[B, N]`; they are summed when a mean or its error is needed."""
        self.trials += len(codes)
        self._queue.append(codes)

    def _sum_up(self) -> None:
        """Add the queued codes to the sums."""
        if not self._queue:
            return
        values = torch.cat(self._queue).double()
        self._sum = self._sum + values.sum(0)
        rows = values if self._last is None else torch.cat([self._last, values])
        change = (rows[1:] - rows[:-1]).view(-1)
        self._changes += float(change.dot(change)) / values.shape[1]
        self._queue = []
        self._last = values[-1:]

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
