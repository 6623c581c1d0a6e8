r"""Store and recall: a bit is to be kept until it is asked for (Bellec et al. 2018 and 2020).

The inputs are four groups of units: the bits 0 and 1, the command to store and the command to recall. A trial has
periods of equal length. In every period but the last a random bit is shown, by Poisson spikes of its group. In one of
them the command to store is given. In the last period the command to recall is given, and no bit is shown. The class is
the bit that was shown with the command to store. Only a network that remembers it for `delay` periods can tell.
"""

from __future__ import annotations

import numpy as np
import torch

from hxtrain.backends import Spikes
from hxtrain.checks import count, not_negative, positive

from ..dataset import Dataset, content_sha256
from ..events import EventSplit
from .generated import Floats, check_settings, natural

NAME = "store_recall"
RULES = {
    "units": count,
    "delay": count,
    "wait": natural,
    "period": positive,
    "rate": positive,
    "noise": not_negative,
    "train": count,
    "test": count,
    "seed": natural,
}
GROUPS = 4
STORE = 2
RECALL = 3
"""Numbers of the groups of the commands; those of the bits are 0 and 1."""


def store_recall(
    units: int = 10,
    delay: int = 2,
    wait: int = 1,
    period: float = 20e-6,
    rate: float = 150e3,
    noise: float = 0.0,
    train: int = 2000,
    test: int = 500,
    seed: int = 0,
) -> Dataset:
    """Return trials of store and recall; the class is the stored bit.

    Args:
        units: Number of units of each of the four groups.
        delay: Periods from the command to store to the command to recall, at least 1.
        wait: Periods before the command to store.
        period: Length of a period (s); published 200 ms, over the speed-up of the device.
        rate: Rate of the units of a group that is on (1/s); published 50 Hz, times the speed-up.
        noise: Rate of all units at all times (1/s).
        train: Number of training trials.
        test: Number of test trials.
        seed: Seed of bits and spikes.

    Raises:
        DatasetError: A setting is out of range.
    """
    check_settings(NAME, RULES, locals())
    numbers = np.random.Generator(np.random.PCG64(seed))
    training = _trials(numbers, train, units, wait, delay, period, (rate, noise))
    testing = _trials(numbers, test, units, wait, delay, period, (rate, noise))
    return Dataset(
        NAME,
        training,
        testing,
        ("0", "1"),
        GROUPS * units,
        "Bellec et al. 2018, arXiv:1803.09574; generated",
        "none: numbers drawn by this package",
        f"One bit, kept for {delay} periods of {period:.3g} s, seed {seed}.",
        content_sha256(training, testing),
    )


def _trials(
    numbers: np.random.Generator,
    samples: int,
    units: int,
    wait: int,
    delay: int,
    period: float,
    rates: tuple[float, float],
) -> EventSplit:
    """Return trials with the stored bits as labels; `rates` are those of a group that is on, and of noise."""
    periods = wait + delay + 1
    bits = numbers.integers(0, 2, (samples, periods - 1))
    is_on = np.zeros((samples, periods, GROUPS), bool)
    is_on[np.arange(samples)[:, None], np.arange(periods - 1)[None, :], bits] = True
    is_on[:, wait, STORE] = True
    is_on[:, -1, RECALL] = True
    expected: Floats = period * (rates[0] * is_on + rates[1])
    number = numbers.poisson(np.repeat(expected, units, axis=2))  # [samples, periods, units of all groups]
    sample, place, unit = (np.repeat(index, number.reshape(-1)) for index in np.indices(number.shape).reshape(3, -1))
    time = (place + numbers.random(len(place))) * period
    events = Spikes.from_events(sample, unit, time, samples, GROUPS * units)
    return EventSplit.from_spikes(events, torch.from_numpy(bits[:, wait]))
