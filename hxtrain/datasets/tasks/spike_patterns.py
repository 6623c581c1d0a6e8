"""Random spike patterns with random classes: the task of the tempotron (Gütig and Sompolinsky 2006).

In each pattern every input fires at independent uniform times of the window. The class of a pattern is drawn without
regard to its spikes, so that nothing but memory helps: patterns per input measure the load of a neuron, whose capacity
is about 3 (Gütig and Sompolinsky). The published patterns last 500 ms, 33 membrane time constants of 15 ms; the default
window is 25 of the chip's usual 6 us.
"""

from __future__ import annotations

import numpy as np
import torch

from hxtrain.backends import Spikes
from hxtrain.checks import count, not_negative, positive, whole

from ..dataset import Dataset
from ..errors import DatasetError
from .generated import assemble_events, check_settings, noisy_parts

NAME = "spike_patterns"
RULES = {
    "inputs": count,
    "patterns": count,
    "classes": count,
    "duration": positive,
    "spikes": count,
    "trials": count,
    "jitter": not_negative,
    "seed": whole,
}


def spike_patterns(
    inputs: int = 100,
    patterns: int = 100,
    classes: int = 2,
    duration: float = 150e-6,
    spikes: int = 1,
    trials: int = 1,
    jitter: float = 0.0,
    seed: int = 0,
) -> Dataset:
    """Return random patterns with random classes.

    With two classes, the output neuron of `loss=firing` fires for the second and is silent for the first.

    Args:
        inputs: Number of inputs.
        patterns: Number of patterns.
        classes: Number of classes, drawn with equal probability.
        duration: Length of a pattern (s of the device).
        spikes: Number of spikes of each input in a pattern.
        trials: Number of trials of each pattern in the training part, and in the test part.
        jitter: Standard deviation of Gaussian noise on the times, drawn for each trial (s). Without noise both parts
            are the patterns themselves.
        seed: Seed of patterns, classes and noise.

    Raises:
        DatasetError: A setting is out of range.
    """
    settings = dict(locals())
    check_settings(NAME, RULES, settings)
    if classes < 2:
        raise DatasetError(f"data={NAME}: data.settings.classes={classes} must be at least 2")
    if not 0 <= seed < 2**32:
        raise DatasetError(f"data={NAME}: data.settings.seed={seed} must be in 0..{2**32 - 1}")
    numbers = np.random.RandomState(seed)
    times = numbers.uniform(0.0, duration, (patterns, inputs, spikes))
    labels = torch.from_numpy(numbers.randint(classes, size=patterns).astype(np.int64))
    sample, unit, _ = (torch.from_numpy(index).flatten() for index in np.indices(times.shape))
    events = Spikes.from_events(sample, unit, times.reshape(-1), patterns, inputs).ordered()
    parts = noisy_parts(events, labels, trials, jitter, numbers)
    names = ("silent", "fires") if classes == 2 else tuple(map(str, range(classes)))
    note = (
        f"Random patterns of {duration:g} s with random classes, seed {seed}: the test part holds the patterns of the "
        f"training part{f', with another noise of {jitter:g} s' if jitter else ''}. Accuracy measures memory."
    )
    return assemble_events(NAME, parts, names, note)
