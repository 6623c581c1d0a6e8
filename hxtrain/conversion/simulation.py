"""A network of rates with spiking neurons in software: steps, soft or hard reset, gated maxima, spiking softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.checks import count, not_negative, number, one_of, positive

from .codes import ConstantCode, InputCode
from .graph import LINEAR, ConversionError, Layer, MaxLayer, RateLayer, RateNetwork, ScalingLayer
from .populations import GatedMaximum, Integrators, LeakyNeurons, Population, Potentials, SpikingSoftmax

SOFT = "soft"
HARD = "hard"
POTENTIAL = "potential"
SPIKES = "spikes"
SOFTMAX = "softmax"


@dataclass(frozen=True)
class Simulation:
    """Settings of the spiking network in software.

    Attributes:
        steps: Number of steps T of a sample.
        code: Input code.
        reset: `soft` subtracts the threshold from the membrane, `hard` sets the membrane to 0.
        initial: Membrane at the start, as share of the threshold; 0.5 rounds rates instead of cutting them.
        adaptation: What a spike adds to the threshold of its neuron, which is 1 without spikes.
        adaptation_steps: Time constant (steps) with which a threshold returns to 1, infinite for never.
        pool_steps: Time constant (steps) of the rate estimate that gates a maximum, infinite for the number of spikes.
        output: What the last layer answers with: mean weighted input (`potential`), firing rate of neurons
            (`spikes`), or rate of the winners that a spiking softmax draws (`softmax`).
        softmax_clock: Probability of a draw of the spiking softmax in a step.
        step: Length of a step in the unit of the time constants of `softlif` layers.
        synapse: Time constant of the synapses onto `softlif` layers, in the same unit; 0: none.
    """

    steps: int = 100
    code: InputCode = field(default_factory=ConstantCode)
    reset: str = SOFT
    initial: float = 0.0
    adaptation: float = 0.0
    adaptation_steps: float = math.inf
    pool_steps: float = math.inf
    output: str = POTENTIAL
    softmax_clock: float = 0.5
    step: float = 1e-3
    synapse: float = 5e-3

    def __post_init__(self) -> None:
        count("simulation.steps", self.steps)
        one_of((SOFT, HARD))("simulation.reset", self.reset)
        one_of((POTENTIAL, SPIKES, SOFTMAX))("simulation.output", self.output)
        number("simulation.initial", self.initial)
        for name in ("adaptation", "synapse"):
            not_negative(f"simulation.{name}", getattr(self, name))
        positive("simulation.step", self.step)
        for name in ("adaptation_steps", "pool_steps"):
            if not getattr(self, name) > 0:
                raise ConversionError(
                    f"simulation.{name}={getattr(self, name)} must be positive, infinite for no decay"
                )
        if not 0 < self.softmax_clock <= 1:
            raise ConversionError(f"simulation.softmax_clock={self.softmax_clock} must be in 0 < x <= 1")


class SpikingActivity(NamedTuple):
    """What a simulation did.

    Attributes:
        rates: Mean output per step of each layer, `[B, N]`; for spiking layers the firing rate, comparable with the
            activations of the network of rates.
        outputs: Mean output of the last layer after each requested number of steps, `[times, B, classes]`.
        spikes: Mean number of spikes per sample of each layer; 0 for a layer without spikes.
        peaks: Largest weighted input of a step in each layer, over steps, samples and neurons.
    """

    rates: tuple[Tensor, ...]
    outputs: Tensor
    spikes: tuple[float, ...]
    peaks: tuple[float, ...]

    def accuracies(self, labels: Tensor) -> list[float]:
        """Return the share of right answers after each requested number of steps, for labels int64 `[B]`."""
        return [float((output.argmax(1) == labels).double().mean()) for output in self.outputs]


@torch.no_grad()
def simulate(
    network: RateNetwork,
    x: Tensor,
    settings: Simulation | None = None,
    generator: torch.Generator | None = None,
    times: Sequence[int] | None = None,
) -> SpikingActivity:
    """Run a network of rates with spiking neurons; layers of a step follow each other without delay.

    Args:
        network: Network whose activations are about in 0..1, see `normalise_by_data`; neurons fire at most once in
            a step.
        x: Samples `[B, ...]`.
        settings: Settings; None: 100 steps of constant currents with soft reset.
        generator: Source of random inputs and winners.
        times: Numbers of steps at which the output is read, ascending; None: at the end.

    Raises:
        ConversionError: A layer has no spiking neuron, a rate does not suit the code, or a generator is missing.
    """
    settings = Simulation() if settings is None else settings
    times = [settings.steps] if times is None else list(times)
    if sorted(times) != times or not times or times[0] < 1 or times[-1] > settings.steps:
        raise ConversionError(f"times={times} must be ascending numbers of steps in 1..{settings.steps}")
    rates = network.input_rates(x)
    settings.code.check(rates, generator)
    populations = _populations(network, rates, settings, generator)
    outputs = []
    for step in range(settings.steps):
        values = settings.code.inputs(rates, step, generator)
        for population in populations:
            values = population(values)
        if step + 1 in times:
            outputs.append(populations[-1].mean)
    return SpikingActivity(
        tuple(population.mean for population in populations),
        torch.stack(outputs),
        tuple(population.n_spikes for population in populations),
        tuple(population.peak for population in populations),
    )


def _populations(
    network: RateNetwork, rates: Tensor, settings: Simulation, generator: torch.Generator | None
) -> list[Population]:
    """Return the neurons of all layers, silent."""
    amplitude = 1.0
    populations = []
    for place, layer in enumerate(network.layers):
        is_output = place == len(network.layers) - 1
        populations.append(_population(layer, amplitude, is_output, rates, settings, generator))
        amplitude = layer.curve.tau_ref / settings.step if isinstance(layer, RateLayer) and layer.curve else 1.0
    return populations


def _population(
    layer: Layer,
    amplitude: float,
    is_output: bool,
    rates: Tensor,
    settings: Simulation,
    generator: torch.Generator | None,
) -> Population:
    batch = len(rates)
    if isinstance(layer, ScalingLayer):
        raise ConversionError(f"{layer.name} is a batch normalisation; call fold_batch_norm")
    if isinstance(layer, MaxLayer):
        return GatedMaximum(layer, batch, rates.dtype, _decay(settings.pool_steps))
    if layer.curve is not None:
        return LeakyNeurons(layer, layer.curve, amplitude, batch, settings.step, settings.synapse)
    if is_output and settings.output == POTENTIAL:
        return Potentials(layer, amplitude, batch)
    if is_output and settings.output == SOFTMAX:
        if generator is None:
            raise ConversionError("simulation.output=softmax needs a generator; pass torch.Generator().manual_seed(0)")
        return SpikingSoftmax(layer, amplitude, batch, settings.softmax_clock, generator)
    if layer.activation == LINEAR and not is_output:
        raise ConversionError(
            f"{layer.name} is linear: its negative values have no firing rate; call signed_neurons or merge_linear"
        )
    return Integrators(
        layer,
        amplitude,
        batch,
        is_soft=settings.reset == SOFT,
        initial=settings.initial,
        adaptation=settings.adaptation,
        decay=_decay(settings.adaptation_steps),
    )


def _decay(steps: float) -> float:
    return math.exp(-1 / steps)
