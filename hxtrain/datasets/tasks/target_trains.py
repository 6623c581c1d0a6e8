"""Random input spikes with target spike trains: the task of ReSuMe and SuperSpike (Ponulak and Kasiński 2010).

A pattern is a Poisson train of each input. Each output neuron has a train of spikes that it should fire in answer to
the pattern, at random times with a smallest distance. There is one class per pattern, and `Dataset.targets` holds its
trains. Published: 400 inputs of 5 Hz for 400 ms, 40 membrane time constants of 10 ms. The defaults are the same numbers
of spikes in 25 time constants of the chip's usual 6 us.
"""

from __future__ import annotations

import numpy as np
import torch

from hxtrain.backends import Spikes
from hxtrain.checks import count, not_negative, positive, whole

from ..dataset import Dataset
from ..errors import DatasetError
from .generated import Floats, assemble_events, check_settings, noisy_parts

NAME = "target_trains"
RULES = {
    "inputs": count,
    "outputs": count,
    "patterns": count,
    "rate": positive,
    "duration": positive,
    "target_spikes": count,
    "interval": not_negative,
    "start": not_negative,
    "trials": count,
    "jitter": not_negative,
    "seed": whole,
}


def target_trains(
    inputs: int = 400,
    outputs: int = 1,
    patterns: int = 1,
    rate: float = 13e3,
    duration: float = 150e-6,
    target_spikes: int = 8,
    interval: float = 8e-6,
    start: float = 15e-6,
    trials: int = 1,
    jitter: float = 0.0,
    seed: int = 0,
) -> Dataset:
    """Return Poisson patterns with target spike trains.

    Args:
        inputs: Number of inputs.
        outputs: Number of output neurons.
        patterns: Number of patterns, each a class of its own.
        rate: Rate of each input (Hz of the device).
        duration: Length of a pattern (s of the device).
        target_spikes: Number of target spikes of each output neuron in a pattern.
        interval: Smallest distance of two target spikes of a neuron (s).
        start: Earliest time of a target spike (s): membranes rise first.
        trials: Number of trials of each pattern in the training part, and in the test part.
        jitter: Standard deviation of Gaussian noise on the input times, drawn for each trial (s). Without noise both
            parts are the patterns themselves.
        seed: Seed of inputs, targets and noise.

    Raises:
        DatasetError: A setting is out of range, or the target spikes do not fit.
    """
    settings = dict(locals())
    check_settings(NAME, RULES, settings)
    if not 0 <= seed < 2**32:
        raise DatasetError(f"data={NAME}: data.settings.seed={seed} must be in 0..{2**32 - 1}")
    spare = duration - start - (target_spikes - 1) * interval
    if spare <= 0:
        raise DatasetError(
            f"data={NAME}: {target_spikes} target spikes {interval:g} s apart (data.settings.interval) do not fit "
            f"between data.settings.start={start:g} s and data.settings.duration={duration:g} s; lower target_spikes, "
            "interval or start, or raise duration"
        )
    numbers = np.random.RandomState(seed)
    events = _poisson(numbers, patterns, inputs, rate, duration)
    places = np.sort(numbers.uniform(0.0, spare, (patterns, outputs, target_spikes)))
    times = start + places + interval * np.arange(target_spikes)
    labels = torch.arange(patterns)
    parts = noisy_parts(events, labels, trials, jitter, numbers)
    note = (
        f"Poisson inputs of {rate:g} Hz for {duration:g} s, seed {seed}: the test part holds the patterns of the "
        f"training part{f', with another noise of {jitter:g} s' if jitter else ''}. Accuracy measures memory."
    )
    return assemble_events(NAME, parts, tuple(map(str, range(patterns))), note, _spikes(times))


def _poisson(numbers: np.random.RandomState, patterns: int, inputs: int, rate: float, duration: float) -> Spikes:
    """Return Poisson trains of each input in each pattern."""
    counts = numbers.poisson(rate * duration, patterns * inputs)
    place = np.repeat(np.arange(patterns * inputs), counts)
    times = numbers.uniform(0.0, duration, len(place))
    return Spikes.from_events(place // inputs, place % inputs, times, patterns, inputs).ordered()


def _spikes(times: Floats) -> Spikes:
    """Return times `[P, N, K]` as events of `P` samples and `N` units."""
    sample, unit, _ = (torch.from_numpy(index).flatten() for index in np.indices(times.shape))
    return Spikes.from_events(sample, unit, times.reshape(-1), times.shape[0], times.shape[1]).ordered()
