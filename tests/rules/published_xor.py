"""XOR of spike times with the network of Bohte, Kok and La Poutré (2002), in an ideal model: epochs by optimiser.

Each of 3 inputs reaches 5 hidden neurons, and each of these the output, over 16 terminals with delays of 1 to 16 us. A
`Network` has delays of inputs alone, so that the layers are put together here: data, loss, gradient and optimisers are
those of the package. Spike times are the first crossings of the threshold in continuous time. Weights are in units of
the published response, whose peak is 1, and are drawn from -0.5 to 1. A training has converged when half the sum of all
squared errors of the four cases is below 1 us^2 (1 ms^2 as published).

    python tests/rules/published_xor.py
"""

import math
from functools import partial
from statistics import median

import torch
from torch import Tensor

import hxtrain as hx
from hxtrain.gradients.spike_time_kernel import Constants
from hxtrain.gradients.spike_times import Guard, LayerTimes, Population, first_times, in_order, spike_time_layers
from hxtrain.objectives import SpikeTimeTargets
from hxtrain.rules import SGD, Optimizer, QuickProp, RProp, SpikePropAd, SpikePropR

TAU = 7e-6
DELAYS = torch.arange(1, 17, dtype=torch.float64) * 1e-6
HIDDEN = 5
END = 40e-6
GRID = 0.1e-6
"""Steps between which a crossing is looked for (s), as published; its time does not depend on them."""
FIXED = Constants(TAU, TAU, math.e / TAU, 0.0, 0.0)
GUARD = Guard(0.7)
"""Slopes are at least 0.1 thresholds per us, as published for ms."""
CASES = 4
LIMIT = 250
"""Epochs of a training that does not converge."""
OPTIMIZERS: dict[str, tuple[Optimizer, float]] = {
    "sgd": (SGD(), 0.007 * CASES),
    "momentum": (SGD(momentum=0.5), 0.004 * CASES),
    "rprop": (RProp([0.5, 1.3], [1e-6, 0.05]), 0.01),
    "quickprop": (QuickProp(), 0.002 * CASES),
    "spikeprop_ad": (SpikePropAd(), 0.2),
    "spikeprop_r": (SpikePropR(), 0.2),
}
"""Optimisers with learning rates; the loss is a mean over the cases, where the published one is a sum."""


def terminals(spikes: hx.Spikes) -> hx.Spikes:
    """Return the spikes of all terminals, with times in the graph."""
    count = len(DELAYS)
    unit = spikes.unit[:, None] * count + torch.arange(count)
    time = spikes.time[:, None] + DELAYS
    sample = spikes.sample.repeat_interleave(count)
    return in_order(hx.Spikes.trusted(sample, unit.flatten(), time.flatten(), spikes.samples, spikes.units * count))


def responses(lags: Tensor) -> Tensor:
    """Return the published response to a spike, a time after it."""
    lags = lags.clamp(min=0) / TAU
    return lags * torch.exp(1 - lags)


def crossings(weight: Tensor, inputs: hx.Spikes) -> hx.Spikes:
    """Return the first spike of each neuron; without one, there is none."""
    times = torch.full((inputs.samples, inputs.units), math.inf, dtype=torch.float64)
    times[inputs.sample, inputs.unit] = inputs.time.detach()
    grid = torch.arange(0, END, GRID, dtype=torch.float64)
    potential = responses((grid[:, None, None] - times).clamp(min=-TAU)) @ weight.detach().t()
    is_above = potential > 1
    sample, unit = is_above.any(0).nonzero(as_tuple=True)
    number = is_above.double().argmax(0)[sample, unit]
    low = potential[number - 1, sample, unit]
    high = potential[number, sample, unit]
    moment = grid[number - 1] + GRID * (1 - low) / (high - low)
    for _ in range(3):  # Newton's method
        lags = (moment[:, None] - times[sample]).clamp(min=0) / TAU
        kernel = torch.exp(1 - lags) * weight.detach()[unit]
        slope = (kernel * (1 - lags) * (lags > 0)).sum(1) / TAU
        moment = moment - ((kernel * lags).sum(1) - 1) / slope
    return in_order(hx.Spikes.trusted(sample, unit, moment, inputs.samples, len(weight)))


def layer(weight: Tensor, inputs: hx.Spikes) -> LayerTimes:
    """Return a layer in the graph of weights and input times, one spike per neuron at most."""
    spikes = crossings(weight, inputs)
    population = Population(FIXED, spikes, (1, spikes.samples, spikes.units))
    (result,) = spike_time_layers([(weight, None)], inputs, [population], END, GUARD)
    return result


def epochs_of(name: str, seed: int, limit: int = LIMIT) -> int | None:
    """Return the epoch in which a training converges; None if it does not within the limit.

    Args:
        name: Key of `OPTIMIZERS`.
        seed: Seed of the weights.
        limit: Largest number of epochs.
    """
    data = hx.load_dataset("xor_times", settings={"copies": 1})
    labels = data.train.labels
    sample = torch.repeat_interleave(torch.arange(CASES), data.train.offsets.diff())
    inputs = terminals(hx.Spikes.trusted(sample, data.train.unit.long(), data.train.time.double(), CASES, 3))
    loss = SpikeTimeTargets()
    loss.prepare(2, data.targets)
    generator = torch.Generator().manual_seed(seed)
    shapes = ((HIDDEN, 3 * len(DELAYS)), (1, HIDDEN * len(DELAYS)))
    weights = [
        torch.nn.Parameter(1.5 * torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5) for shape in shapes
    ]
    settings, rate = OPTIMIZERS[name]
    optimizer = settings.build(weights, rate)
    for epoch in range(1, limit + 1):
        hidden = layer(weights[0], inputs).spikes
        assert hidden is not None
        output = layer(weights[1], terminals(hidden)).spikes
        assert output is not None
        error = loss(first_times(output, END), labels)
        value = float(error.detach())
        if CASES * value < 1:
            return epoch
        for weight in weights:
            weight.grad = None
        error.backward()
        optimizer.step(partial(float, value))
    return None


if __name__ == "__main__":
    for key in OPTIMIZERS:
        epochs = [epochs_of(key, number) for number in range(10)]
        finished = [number for number in epochs if number is not None]
        middle = median(finished) if finished else math.nan
        print(f"{key}: {len(finished)} of {len(epochs)} converge, median {middle:g} epochs, {epochs}", flush=True)
