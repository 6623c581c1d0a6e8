r"""Random manifolds: classes whose information lies in the times of spikes alone (Zenke and Vogels 2021).

Each class is a smooth random function from D intrinsic coordinates x in 0..1 to the spike times of N units, each of
which fires `spikes` times in every sample. For a unit and a spike::

    f(x) = product over d of sum over k = 0 .. K-1 of a_dk / (k + 1)^alpha sin(2 pi (k b_dk x_d + c_dk))

with a, b and c uniform in 0..1, and `a_d0 = 0` (the constant term), K the smallest number with `K^-alpha < 1e-3`, at
most 1000. Times are f, scaled for each unit and spike so that the samples of the class span the whole duration. The
larger alpha, the smoother the manifold and the easier the task; a larger D makes it harder. The number of spikes says
nothing about the class.

The published benchmark has 20 units, alpha = 3, D = 1, 10 classes with 1000 samples each, and 100 ms.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from hxtrain.backends import Spikes
from hxtrain.checks import count, not_negative, positive

from ..dataset import Dataset, content_sha256
from ..errors import DatasetError
from ..events import EventSplit
from .generated import Floats, check_settings, natural

NAME = "random_manifolds"
RULES = {
    "classes": count,
    "units": count,
    "dimensions": count,
    "alpha": not_negative,
    "spikes": count,
    "samples": count,
    "duration": positive,
    "seed": natural,
}
PRECISION = 1e-3
"""Weight of the last term of the series."""
MAX_TERMS = 1000
TEST_SHARE = 0.2


def random_manifolds(
    classes: int = 10,
    units: int = 20,
    dimensions: int = 1,
    alpha: float = 3.0,
    spikes: int = 1,
    samples: int = 1000,
    duration: float = 30e-6,
    seed: int = 0,
) -> Dataset:
    """Return spike times on smooth random manifolds; the last fifth of each class's samples is the test part.

    Args:
        classes: Number of manifolds.
        units: Number of input units.
        dimensions: Number of intrinsic coordinates.
        alpha: Smoothness, the exponent with which the series falls off.
        spikes: Number of spikes of each unit.
        samples: Number of samples of each class.
        duration: Time of the last possible spike (s); published 100 ms, over the speed-up of the device.
        seed: Seed of manifolds and samples.

    Raises:
        DatasetError: A setting is out of range.
    """
    check_settings(NAME, RULES, locals())
    if samples < 5:
        raise DatasetError(
            f"data={NAME}: data.settings.samples={samples} must be at least 5, a fifth of which is the test part"
        )
    numbers = np.random.Generator(np.random.PCG64(seed))
    times = np.stack([_class_times(numbers, units * spikes, dimensions, alpha, samples) for _ in range(classes)])
    border = samples - round(TEST_SHARE * samples)
    train, test = (_events(part * duration, units, numbers) for part in (times[:, :border], times[:, border:]))
    return Dataset(
        NAME,
        train,
        test,
        tuple(map(str, range(classes))),
        units,
        "Zenke and Vogels 2021, doi:10.1162/neco_a_01367; generated",
        "none: numbers drawn by this package",
        f"{dimensions}-dimensional manifolds of smoothness {alpha:g}, seed {seed}; equal in law to the published data, "
        "which are drawn anew for every study.",
        content_sha256(train, test),
    )


def series_length(alpha: float) -> int:
    """Return the number of terms of the series."""
    return MAX_TERMS if alpha <= 0 else min(math.ceil(PRECISION ** (-1 / alpha)), MAX_TERMS)


def manifold(x: Floats, factors: Floats, alpha: float) -> Floats:
    """Return the values `[S]` of a random function.

    Args:
        x: Coordinates of samples `[S, D]`.
        factors: Numbers a, b and c of each term `[3, D, K]`.
        alpha: Exponent with which the series falls off.
    """
    amplitude, frequency, phase = factors
    terms = np.arange(amplitude.shape[1])
    waves = np.sin(2 * np.pi * (terms * frequency * x[:, :, None] + phase))
    values: Floats = (amplitude / (terms + 1.0) ** alpha * waves).sum(2).prod(1)
    return values


def _class_times(numbers: np.random.Generator, functions: int, dimensions: int, alpha: float, samples: int) -> Floats:
    """Return the times `[S, functions]` of a class, in 0..1."""
    x = numbers.random((samples, dimensions))
    factors = numbers.random((functions, 3, dimensions, series_length(alpha)))
    factors[:, 0, :, 0] = 0
    values = np.stack([manifold(x, function, alpha) for function in factors], axis=1)
    low = values.min(0)
    scaled: Floats = (values - low) / np.maximum(values.max(0) - low, 1e-7)
    return scaled


def _events(times: Floats, units: int, numbers: np.random.Generator) -> EventSplit:
    """Return samples in random order, of times `[classes, S, units * spikes]` (s)."""
    classes, samples, functions = times.shape
    order = numbers.permutation(classes * samples)
    flat = times.reshape(-1, functions)[order]
    labels = torch.from_numpy(np.repeat(np.arange(classes), samples)[order])
    sample = torch.arange(len(flat)).repeat_interleave(functions)
    unit = torch.from_numpy(np.tile(np.arange(functions) % units, len(flat)))
    events = Spikes.from_events(sample, unit, torch.from_numpy(flat.reshape(-1)), len(flat), units)
    return EventSplit.from_spikes(events, labels)
