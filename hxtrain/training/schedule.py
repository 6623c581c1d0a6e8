"""The learning rate as a pure function of the place in a run, so that a resumed run needs no state of it."""

from __future__ import annotations

import math

from .config import LoopConfig


def learning_rate(config: LoopConfig, epoch: int, step: int, steps_per_epoch: int) -> float:
    """Return the optimizer's step size.

    `exponential`: `learning_rate * learning_rate_decay^epoch` (Cramer et al. 2022). `cosine`: half a cosine from
    `learning_rate` down to 0 at the end of the run (Loshchilov and Hutter 2017). Both rise linearly from 0 within the
    first `warmup` epochs.

    Args:
        config: of the run.
        epoch, step: finished ones; steps of this epoch.
        steps_per_epoch: steps of an epoch.
    """
    passed = epoch + step / steps_per_epoch
    rate = config.learning_rate
    if config.schedule == "exponential":
        rate *= config.learning_rate_decay**epoch
    else:
        rate *= (1 + math.cos(math.pi * passed / config.epochs)) / 2
    if passed < config.warmup:
        rate *= (passed + 1 / steps_per_epoch) / config.warmup
    return rate
