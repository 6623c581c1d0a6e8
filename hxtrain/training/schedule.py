"""The learning rate as a pure function of epoch and step, so that a resumed run needs no state of a schedule."""

from __future__ import annotations

import math

from .config import CourseConfig


def learning_rate(config: CourseConfig, epoch: int, step: int, steps_per_epoch: int) -> float:
    """Return the optimizer's step size.

    `exponential`: `learning_rate * learning_rate_decay^epoch` (Cramer et al. 2022). `cosine`: half a cosine from
    `learning_rate` down to 0 at the end of the run (Loshchilov and Hutter 2017). Both rise linearly from 0 within the
    first `warmup` epochs.

    Args:
        config: Settings of the run.
        epoch: Number of finished epochs.
        step: Number of finished steps in the current epoch.
        steps_per_epoch: Number of steps in an epoch.
    """
    position = epoch + step / steps_per_epoch
    rate = config.learning_rate
    if config.schedule == "exponential":
        rate *= config.learning_rate_decay**epoch
    else:
        rate *= (1 + math.cos(math.pi * position / config.epochs)) / 2
    if position < config.warmup:
        rate *= (position + 1 / steps_per_epoch) / config.warmup
    return rate
