"""Spikes of a graph in other simulators, bin by bin against the twin."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.network import LIF, Linear, Network, Recurrent

from .chain import read_chain
from .errors import ExchangeError
from .simulators import SIMULATORS, output_of
from .to_nir import DIALECTS, to_nir

STEPS = 100
RATE = 0.2
"""Share of the bins of an input that hold a spike."""
TOLERANCE = 1e-4
"""Difference of membranes that rounding explains; spikes are 0 or 1."""


class Agreement(NamedTuple):
    """Agreement of a simulator with the twin.

    Attributes:
        simulator: Name of the simulator.
        networks: Number of networks that it took.
        bins: Number of bins of output spikes that were compared.
        spikes: Number of the twin's spikes in these.
        differing: Number of bins that differ.
        refusals: Its refusals, once each.
    """

    simulator: str
    networks: int
    bins: int
    spikes: int
    differing: int
    refusals: tuple[str, ...]


def random_network(seed: int) -> Network:
    """Return a network of random size, weights and time constants, every second one recurrent.

    Its neurons reset to 0, its output spikes, and its populations fire in some of the steps.
    """
    generator = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    def time() -> float:
        return float(2e-6 + 10e-6 * torch.rand((), generator=generator))

    sizes = [whole(3, 16) for _ in range(whole(2, 4))]
    modules: list[Any] = []
    for inputs, size in pairwise(sizes):
        modules += [Linear(inputs, size), LIF(size, time(), time(), refractory=0.0)]
        if seed % 2:
            modules.append(Recurrent(size))
    net = Network(*modules, steps=STEPS, seed=seed)
    with torch.no_grad():
        for projection in net.projections:
            weight = projection.synapses.weight
            drawn = torch.randn(weight.shape, generator=generator)
            is_recurrent = projection.pre == projection.post
            weight.copy_((0.3 * drawn if is_recurrent else 0.3 * drawn + 0.05) / (weight.shape[1] / 5) ** 0.5)
    return net


def random_spikes(inputs: int, steps: int, seed: int, samples: int = 1) -> Tensor:
    """Return random zeros and ones `[T, B, J]`."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(steps, samples, inputs, generator=generator) < RATE).float()


def expected_output(net: Network, spikes: Tensor, is_omitted: bool) -> Tensor:
    """Return the output of the twin `[T, B, N]`: spikes, membranes, or what enters a readout that a graph omits."""
    with torch.no_grad():
        layers = net(Spikes.from_grid(spikes, net.dt)).layers
        if is_omitted:
            hidden = layers[-2].spikes
            assert hidden is not None
            entering: Tensor = hidden @ net.effective_weights()[-1].t()
            return entering
    fired = layers[-1].spikes
    membranes: Tensor = layers[-1].trace
    return membranes if fired is None else fired


def differing_bins(name: str, graph: Any, net: Network, spikes: Tensor, dt: float) -> tuple[int, Tensor]:
    """Return in how many bins a simulator's output differs from the twin's, and the twin's in these bins.

    Each population of the twin fires a step later than in most simulators.

    Args:
        name: Name in `SIMULATORS`.
        graph: Graph of the network.
        net: Network.
        spikes: Input `[T, 1, J]`.
        dt: Time step of the graph (s).

    Raises:
        ExchangeError: The simulator refuses the graph, or gives an output of another shape.
    """
    is_omitted = read_chain(graph).readout is not None
    expected = expected_output(net, spikes, is_omitted)
    output = output_of(name, graph, spikes, dt)
    if output.shape != expected.shape:
        raise ExchangeError(f"{name} gives an output of shape {list(output.shape)}, expected {list(expected.shape)}")
    lag = (len(net.layers) - is_omitted) * SIMULATORS[name].lag
    compared = expected[lag:]
    return int(((output[: len(output) - lag] - compared).abs() > TOLERANCE).sum()), compared


def agreement(
    simulators: Collection[str], networks: int, report: Callable[[int], None] = lambda count: None
) -> list[Agreement]:
    """Compare random networks, every second one recurrent, in simulators with the twin.

    Args:
        simulators: Names in `SIMULATORS`.
        networks: Number of networks.
        report: Function that is called with the number of finished networks.
    """
    totals = {name: torch.zeros(4, dtype=torch.int64) for name in simulators}
    refusals: dict[str, dict[str, None]] = {name: {} for name in simulators}
    for seed in range(networks):
        net = random_network(seed)
        spikes = random_spikes(net.layers[0].linear.inputs, net.steps, seed)
        for name in simulators:
            dialect = SIMULATORS[name].dialect
            graph = to_nir(net, dialect=dialect)
            try:
                differing, compared = differing_bins(name, graph, net, spikes, DIALECTS[dialect].step or net.dt)
            except ExchangeError as error:
                refusals[name][str(error)] = None
                continue
            totals[name] += torch.tensor([1, compared.numel(), int(compared.sum()), differing])
        report(seed + 1)
    return [_total(name, totals[name].tolist(), tuple(refusals[name])) for name in simulators]


def _total(name: str, totals: list[int], refusals: tuple[str, ...]) -> Agreement:
    networks, bins, spikes, differing = totals
    return Agreement(name, networks, bins, spikes, differing, refusals)
