"""Drift of a chip, watched from the host: the resting potentials, which every recording contains.

The first trace sample of a trial shows each neuron at rest. Its mean over trials, against the same mean from
when the network was attached, says how far the chip's operating point has moved since.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hxtrain.backends import Recording

LIMIT = 2.0
"""Change from which on recalibration is due (trace units, rms over neurons). An estimate: about what a
calibration leaves as spread of the thresholds, and under 3 % of threshold - leak."""
TRIALS = 100
"""Trials that a mean is taken over; noise of 1 LSB per sample becomes 0.14 LSB in the difference of two."""


class DriftMonitor:
    """Says once when the resting potentials have moved too far.

    Args:
        limit: change from which on recalibration is due (trace units, rms over neurons).
        trials: least number of trials that a mean is taken over; runs are added up until it is reached.
    """

    def __init__(self, limit: float = LIMIT, trials: int = TRIALS) -> None:
        if not limit > 0:
            raise ValueError(f"drift limit={limit} trace units must be positive")
        if trials < 1:
            raise ValueError(f"drift trials={trials} must be at least 1")
        self.limit, self.trials = limit, trials
        self.chip_time = 0.0
        self._first: Tensor | None = None
        self._sum: Tensor | None = None
        self._count = 0
        self._reported = False

    def add(self, recording: Recording) -> str | None:
        """Take the resting potentials of a whole recording; return a text when recalibration has become due."""
        self.chip_time += recording.cost.chip_time
        if self._reported:
            return None
        rest = torch.cat([codes[:, 0] for codes in recording.traces.values()], dim=1)
        found = rest.sum(0, dtype=torch.int64)
        self._sum = found if self._sum is None else self._sum + found
        self._count += len(rest)
        if self._count < self.trials:
            return None
        mean = self._sum.double() / self._count
        self._sum, self._count = None, 0
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
