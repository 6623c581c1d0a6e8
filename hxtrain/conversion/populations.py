"""Neurons of the simulation, one class per kind of layer; they keep their state from step to step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .graph import MaxLayer, RateLayer
from .softlif import LIFCurve


class Population(ABC):
    """Base: a layer that turns the output of the layer upstream into its own, step by step.

    Attributes:
        total: Sum of the outputs over the steps, `[B, N]`.
        steps: Number of steps so far.
        peak: Largest weighted input of a step.
    """

    def __init__(self, batch: int, size: int, dtype: torch.dtype) -> None:
        self.total = torch.zeros(batch, size, dtype=dtype)
        self.steps = 0
        self.peak = 0.0

    @abstractmethod
    def advance(self, values: Tensor) -> Tensor:
        """Return the output `[B, N]` of a step for the output `[B, sources]` of the layer upstream."""

    def __call__(self, values: Tensor) -> Tensor:
        """Return the output of a step, and add it to the sums."""
        result = self.advance(values)
        self.total += result
        self.steps += 1
        return result

    @property
    def mean(self) -> Tensor:
        """Mean output per step, `[B, N]`."""
        return self.total / self.steps

    @property
    def n_spikes(self) -> float:
        """Mean number of spikes per sample."""
        return float(self.total.sum()) / len(self.total)


class Weighted(Population):
    """Base: a layer with weights.

    Args:
        layer: Layer of rates.
        amplitude: What one spike upstream counts.
        batch: Number of samples.
    """

    def __init__(self, layer: RateLayer, amplitude: float, batch: int) -> None:
        super().__init__(batch, layer.targets, layer.weight.dtype)
        self.layer = layer
        self.amplitude = amplitude

    def currents(self, values: Tensor) -> Tensor:
        """Return the weighted input with the bias, `[B, N]`."""
        current = self.layer.currents(values if self.amplitude == 1 else values * self.amplitude)
        self.peak = max(self.peak, float(current.max()))
        return current


class Potentials(Weighted):
    """An output without spikes: the weighted input itself."""

    def advance(self, values: Tensor) -> Tensor:
        """Return the weighted input."""
        return self.currents(values)

    @property
    def n_spikes(self) -> float:
        """No spikes."""
        return 0.0


class Integrators(Weighted):
    """Integrate-and-fire neurons with threshold 1.

    `V <- V + W s + b`; where `V >= theta` a spike, and `V <- V - theta` (soft) or `V <- 0` (hard). With the soft reset
    the firing rate is the activation, cut to 0..1, up to 1 / T; the hard one loses what exceeds the threshold
    (Rueckauer et al. 2017; Han et al. 2020, residual membrane potential).

    Args:
        layer: Layer of rates.
        amplitude: What one spike upstream counts.
        batch: Number of samples.
        is_soft: Whether a spike subtracts the threshold.
        initial: Membrane at the start.
        adaptation: What a spike adds to the threshold.
        decay: Factor of the added part in each step.
    """

    def __init__(
        self,
        layer: RateLayer,
        amplitude: float,
        batch: int,
        *,
        is_soft: bool,
        initial: float,
        adaptation: float,
        decay: float,
    ) -> None:
        super().__init__(layer, amplitude, batch)
        self.is_soft = is_soft
        self.adaptation = adaptation
        self.decay = decay
        self.membrane = torch.full_like(self.total, initial)
        self.excess = torch.zeros_like(self.total) if adaptation > 0 else None

    def advance(self, values: Tensor) -> Tensor:
        """Return the spikes of a step, 0 or 1."""
        self.membrane += self.currents(values)
        threshold = torch.ones_like(self.membrane) if self.excess is None else 1 + self.excess
        spikes = (self.membrane >= threshold).to(self.membrane.dtype)
        self.membrane = self.membrane - spikes * threshold if self.is_soft else self.membrane * (1 - spikes)
        if self.excess is not None:
            self.excess = self.excess * self.decay + self.adaptation * spikes
        return spikes


class SpikingSoftmax(Weighted):
    """A stochastic winner-take-all: at the ticks of a random clock one neuron fires, drawn by the softmax of membranes.

    Membranes integrate and are not reset (Rueckauer et al. 2017).

    Args:
        layer: Layer of rates.
        amplitude: What one spike upstream counts.
        batch: Number of samples.
        clock: Probability of a tick in a step.
        generator: Source of ticks and winners.
    """

    def __init__(
        self, layer: RateLayer, amplitude: float, batch: int, clock: float, generator: torch.Generator
    ) -> None:
        super().__init__(layer, amplitude, batch)
        self.clock = clock
        self.generator = generator
        self.membrane = torch.zeros_like(self.total)

    def advance(self, values: Tensor) -> Tensor:
        """Return the spikes of a step, one per sample at most."""
        self.membrane += self.currents(values)
        winners = torch.multinomial(self.membrane.softmax(1), 1, generator=self.generator)
        ticks = torch.rand(len(winners), 1, generator=self.generator) < self.clock
        return torch.zeros_like(self.membrane).scatter(1, winners, ticks.to(self.membrane.dtype))


class GatedMaximum(Population):
    """A maximum that passes the spikes of the source with the highest rate estimate (Rueckauer et al. 2017).

    The gate moves only to a source whose estimate is higher than that of the open one. With the first of equals
    instead, two sources of about the same rate that fire in turn would both pass, and double the rate.

    Args:
        layer: Windows.
        batch: Number of samples.
        dtype: Type of the outputs.
        decay: Factor of the estimate in each step; 1: the number of spikes so far.
    """

    def __init__(self, layer: MaxLayer, batch: int, dtype: torch.dtype, decay: float) -> None:
        super().__init__(batch, layer.targets, dtype)
        self.layer = layer
        self.decay = decay
        self.estimate = torch.zeros(batch, layer.sources, dtype=dtype)
        self.gates = torch.zeros(batch, layer.targets, 1, dtype=torch.int64)

    def advance(self, values: Tensor) -> Tensor:
        """Return the output of the gates."""
        self.estimate = self.estimate * self.decay + values
        windows = self.layer.windows
        estimates = self.estimate[:, windows]
        highest = estimates.max(2, keepdim=True)
        is_overtaken = highest.values > estimates.gather(2, self.gates)
        self.gates = torch.where(is_overtaken, highest.indices, self.gates)
        return values[:, windows].gather(2, self.gates).squeeze(2)


class LeakyNeurons(Weighted):
    """LIF neurons whose rate is a `LIFCurve`: exact between steps, with spike times and refractory time within a step.

    A spike stands for the rate `tau_ref / step` of one step, so that mean outputs are comparable with the curve. The
    membrane follows a constant current exactly, and the excess over the threshold gives the time of the crossing.

    Args:
        layer: Layer of rates.
        curve: Time constants and threshold.
        amplitude: What one spike upstream counts.
        batch: Number of samples.
        step: Length of a step.
        synapse: Time constant of a low-pass filter on the currents; 0: none.
    """

    def __init__(
        self, layer: RateLayer, curve: LIFCurve, amplitude: float, batch: int, step: float, synapse: float
    ) -> None:
        super().__init__(layer, amplitude, batch)
        self.curve = curve
        self.step = step
        self.share = 1 - math.exp(-step / synapse) if synapse > 0 else 1.0
        self.current = torch.zeros_like(self.total)
        self.membrane = torch.zeros_like(self.total)
        self.rest = torch.zeros_like(self.total)

    def advance(self, values: Tensor) -> Tensor:
        """Return the spikes of a step, 0 or 1."""
        self.current += self.share * (self.currents(values) - self.current)
        current = self.current / self.curve.threshold
        free = (self.step - self.rest).clamp(0, self.step)
        self.membrane += (self.membrane - current) * torch.expm1(-free / self.curve.tau_mem)
        is_spike = self.membrane > 1
        surplus = ((self.membrane - 1) / (current - 1)).where(is_spike, torch.zeros_like(current))
        elapsed = -self.curve.tau_mem * torch.log1p(-surplus)  # since the crossing
        self.rest = torch.where(is_spike, self.curve.tau_ref - elapsed, self.rest - self.step).clamp(min=0)
        self.membrane = torch.where(is_spike, torch.zeros_like(self.membrane), self.membrane)
        return is_spike.to(self.total.dtype)

    @property
    def mean(self) -> Tensor:
        """Firing rate as share of the largest one, `[B, N]`."""
        return super().mean * (self.curve.tau_ref / self.step)
