"""Layers of LIF neurons in continuous time, solved from event to event in double precision: a reference for tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from hxtrain.backends import Spikes
from hxtrain.gradients.spike_time_kernel import Constants

Events = list[tuple[float, int]]
"""Time and source of each event, in order of time."""
POINTS = 24
"""Points of a stretch without events at which a crossing is looked for."""


def potential(constants: Constants, membrane: float, current: float, elapsed: float) -> float:
    """Return the membrane a time after it was at a value, without events in between."""
    by_mem = math.exp(-elapsed / constants.tau_mem)
    by_syn = math.exp(-elapsed / constants.tau_syn)
    rate = 1 / constants.tau_syn - 1 / constants.tau_mem
    response = elapsed * by_mem if rate == 0 else (by_mem - by_syn) / rate
    return membrane * by_mem + constants.drive * current * response


def crossing(constants: Constants, membrane: float, current: float, elapsed: float) -> float | None:
    """Return the time at which the membrane first reaches its threshold within a stretch without events."""
    if constants.drive * current <= 1 / constants.tau_mem:  # the membrane cannot rise at its threshold
        return None
    grid = [elapsed * k / POINTS for k in range(1, POINTS + 1)]
    above = next((s for s in grid if potential(constants, membrane, current, s) > 1), None)
    if above is None:
        return None
    low = above - elapsed / POINTS
    high = above
    for _ in range(60):
        middle = (low + high) / 2
        if potential(constants, membrane, current, middle) > 1:
            high = middle
        else:
            low = middle
    return high


@dataclass
class Neuron:
    """State of a neuron since its last event."""

    membrane: float = 0.0
    current: float = 0.0
    held: float = 0.0  # end of its refractory period
    clock: float = 0.0
    spikes: list[float] = field(default_factory=list)

    def until(self, time: float, constants: Constants) -> None:
        """Follow the neuron up to a time; it spikes on the way."""
        while self.clock < time:
            if self.held > self.clock:
                step = min(self.held, time) - self.clock
                self.current *= math.exp(-step / constants.tau_syn)
                self.membrane = constants.reset
                self.clock += step
                continue
            elapsed = time - self.clock
            spike = crossing(constants, self.membrane, self.current, elapsed)
            step = elapsed if spike is None else spike
            self.membrane = potential(constants, self.membrane, self.current, step)
            self.current *= math.exp(-step / constants.tau_syn)
            self.clock += step
            if spike is not None:
                self.spikes.append(self.clock)
                self.membrane = constants.reset
                self.held = self.clock + constants.refractory
                if constants.refractory == 0:
                    self.held = 0.0


def layer(weight: np.ndarray, inputs: Events, constants: Constants, end: float) -> Events:
    """Return the spikes of a layer without recurrence."""
    neurons = [Neuron() for _ in weight]
    for time, source in [*inputs, (end, -1)]:
        for n, neuron in enumerate(neurons):
            neuron.until(time, constants)
            if source >= 0:
                neuron.current += weight[n, source]
    return sorted((time, n) for n, neuron in enumerate(neurons) for time in neuron.spikes)


def network(weights: Sequence[np.ndarray], inputs: Events, constants: Constants, end: float) -> list[Events]:
    """Return the spikes of each layer of a chain."""
    layers = []
    for weight in weights:
        inputs = layer(weight, inputs, constants, end)
        layers.append(inputs)
    return layers


def readout(weight: np.ndarray, inputs: Events, constants: Constants, times: np.ndarray) -> np.ndarray:
    """Return membranes `[T, N]` of leaky integrators at some times."""
    result = np.zeros((len(times), len(weight)))
    for k, moment in enumerate(times):
        for time, source in inputs:
            if time < moment:
                result[k] += potential(constants, 0.0, 1.0, moment - time) * weight[:, source]
    return result


def as_spikes(samples: Sequence[Events], units: int) -> Spikes:
    """Return events of several samples with times in double precision."""
    rows = [(b, unit, time) for b, events in enumerate(samples) for time, unit in events]
    sample, unit, time = zip(*rows, strict=True) if rows else ((), (), ())
    return Spikes.trusted(
        torch.tensor(sample, dtype=torch.int64),
        torch.tensor(unit, dtype=torch.int64),
        torch.tensor(time, dtype=torch.float64),
        len(samples),
        units,
    )
