r"""Correlation of output spikes and target spike trains (Schreiber et al. 2003).

Trains are smoothed with a Gaussian of width sigma to functions x (output) and d (target). Over all output neurons::

    C = <x, d> / (|x| |d|)        in 0..1; 1 for equal trains, 0 for a silent output

The products are sums over the steps of the pass. Measured spikes enter with their measured times, not their steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import Data
from hxtrain.network import Activity
from hxtrain.neurons.conversion import on_grid

from .losses import Loss, class_labels

REACH = 5.0
"""Distance from a spike at which its Gaussian is left out, in widths."""


@dataclass
class TrainCorrelation(Loss):
    """One minus the correlation of the output with the target spike trains of the true class.

    The answer is the class with the best correlated trains.

    Attributes:
        sigma: Width of the Gaussian (s of the device); 2 ms are published for biological times.
    """

    reads: ClassVar[str] = "spikes"
    sigma: float = 2e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"loss.sigma={self.sigma} s must be positive and finite")
        self._targets: Spikes | None = None

    @property
    def targets(self) -> Spikes:
        """Target spike trains, of sample c for class c.

        Raises:
            ValueError: There are none.
        """
        if self._targets is None:
            raise ValueError(
                "loss=correlation needs target spike trains; choose data that have them (data=target_trains), or give "
                "them by loss.prepare(classes, targets)"
            )
        return self._targets

    def outputs(self, classes: int, targets: Spikes | None = None) -> int:
        """Return the number of output neurons, that of the target trains."""
        self.prepare(classes, targets)
        return self.targets.units

    def classes(self, outputs: int) -> int:
        """Return the number of classes, one for each sample of the targets."""
        return self.targets.samples

    def prepare(self, classes: int, targets: Spikes | None = None) -> None:
        """Take the target spike trains of the classes."""
        self._targets = targets

    def read(self, activity: Activity) -> Tensor:
        """Return the correlation up to each step with the trains of each class `[T, B, classes]`.

        Raises:
            ValueError: The output has another number of neurons than the targets, or the pass has no time grid.
        """
        inputs = activity.inputs
        if inputs is None:
            raise ValueError("the pass has no input events, and so no time grid; give what net(spikes) returns")
        spikes = activity.output
        layer = activity.layers[-1]
        targets = self.targets.to(spikes.device)
        if spikes.shape[2] != targets.units:
            raise ValueError(
                f"the output has {spikes.shape[2]} neurons, but the targets {targets.units}; give it as many"
            )
        smoothed = self._smoothed(layer.times(inputs.dt), inputs.dt, inputs.steps).to(spikes.dtype)
        if spikes.requires_grad:
            by_step = self._kernel(inputs.dt, inputs.steps).to(spikes) @ spikes.flatten(1)
            smoothed = smoothed + (by_step - by_step.detach()).view_as(smoothed)
        if layer.events is None:
            targets = on_grid(targets, inputs.dt)
        return _correlations(smoothed, self._smoothed(targets, inputs.dt, inputs.steps).to(spikes.dtype))

    def _smoothed(self, spikes: Spikes, dt: float, steps: int) -> Tensor:
        """Return trains smoothed at the time of each step, float64 `[T, B, N]`."""
        reach = math.ceil(REACH * self.sigma / dt)
        result = torch.zeros(steps + 2 * reach, spikes.samples * spikes.units, dtype=torch.float64)
        result = result.to(spikes.time.device)
        time = spikes.time.double()
        nearest = spikes.bins(dt)
        row = spikes.sample * spikes.units + spikes.unit
        is_inside = nearest < steps
        for distance in range(-reach, reach + 1):
            step = nearest + distance
            height = (-0.5 * ((step * dt - time) / self.sigma).square()).exp()
            place = ((step + reach) * result.shape[1] + row)[is_inside]
            result.view(-1).index_add_(0, place, height[is_inside])
        return result[reach : reach + steps].view(steps, spikes.samples, spikes.units)

    def _kernel(self, dt: float, steps: int) -> Tensor:
        """Return the Gaussian between all pairs of steps `[T, T]`."""
        times = dt * torch.arange(steps, dtype=torch.float64)
        return (-0.5 * ((times[:, None] - times) / self.sigma).square()).exp()

    def scores(self, output: Tensor) -> Tensor:
        """Return the correlation with the trains of each class `[B, classes]`, of what `read` returned."""
        return output[-1]

    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return one minus the mean correlation with the trains of the true classes.

        Args:
            output: What `read` returned.
            labels: True classes `[B]`.
        """
        scores = self.scores(output)
        numbers = class_labels(labels, scores)
        return 1 - scores.gather(1, numbers[:, None]).mean()


def _correlations(output: Tensor, targets: Tensor) -> Tensor:
    """Return the correlation up to each step of trains `[T, B, N]` and `[T, C, N]`, `[T, B, C]`."""
    products = torch.einsum("tbn,tcn->tbc", output, targets).cumsum(0)
    lengths = output.square().sum(2).cumsum(0)[:, :, None] * targets.square().sum(2).cumsum(0)[:, None]
    is_defined = lengths > 0
    return torch.where(is_defined, products / lengths.where(is_defined, torch.ones_like(lengths)).sqrt(), 0.0)
