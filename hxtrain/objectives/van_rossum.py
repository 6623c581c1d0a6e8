r"""The van Rossum distance of spike trains (van Rossum 2001), with the double exponential of Zenke and Ganguli 2018.

Spike trains are filtered and compared, `D = sum over t, n of ((a * S)[t, n] - (a * S_target)[t, n])^2`, with::

    c[t+1] = rise c[t] + S[t]           rise  = exp(-dt / tau_rise)
    m[t+1] = decay m[t] + c[t+1]        decay = exp(-dt / tau_decay)         (a * S)[t] = scale m[t]

`scale` gives `a` unit energy: the distance of a train from one with a spike more is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import Data
from hxtrain.network import Activity
from hxtrain.neurons import decay, over_time, psp_kernel, psp_matrix

from .losses import Loss, class_labels

CHUNK = 256
"""Steps that are filtered at a time by one product; its cost grows with the square."""


class Kernel(NamedTuple):
    """The filter of spike trains on a time grid.

    Attributes:
        rise: Decay of the first stage per step.
        decay: Decay of the second stage per step.
        scale: Factor that gives the filter unit energy.
    """

    rise: float
    decay: float
    scale: float


@dataclass
class VanRossum(Loss):
    """Half the van Rossum distance of the output's spike trains from target trains; the nearest class is the answer.

    Targets are those of the data (`Dataset.targets`). For data without target trains, each class has an output neuron
    that should fire at equal intervals, while all others are silent. The shorter the time constants, the more the times
    of spikes count and not only their number; with very short ones an error vanishes before its cause is trained, and
    random feedback fails.

    Attributes:
        tau_rise: time constant of the first stage of the filter (s); published 5 ms, over the
            speed-up of the device.
        tau_decay: time constant of the second stage of the filter (s); published 10 ms, over the
            speed-up.
        start: time of the first target spike, for data without target trains (s).
        interval: time between target spikes, for data without target trains (s).
    """

    reads: ClassVar[str] = "spikes"
    tau_rise: float = 20e-6
    tau_decay: float = 20e-6
    start: float = 10e-6
    interval: float = 5e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tau_rise", "tau_decay", "interval"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"loss.{name}={getattr(self, name)} must be positive and finite (s)")
        if not 0 <= self.start < math.inf:
            raise ValueError(f"loss.start={self.start} must be at least 0 and finite (s)")
        self._classes = 0
        self._trains: Spikes | None = None
        self._traces: Tensor | None = None
        self._grid: tuple[float, int] | None = None

    def outputs(self, classes: int, targets: Spikes | None = None) -> int:
        """Return the number of output neurons: that of the target trains, or one per class."""
        return classes if targets is None else targets.units

    def classes(self, outputs: int) -> int:
        """Return the number of classes that are told apart."""
        return self._classes or outputs

    def prepare(self, classes: int, targets: Spikes | None = None) -> None:
        """Take note of the target trains; the arguments are those of `Loss.outputs`."""
        self._classes = classes
        self._trains = targets
        self._grid = None

    def kernel(self, dt: float) -> Kernel:
        """Return the filter on a time grid with steps of `dt` (s)."""
        rise, fall = decay(dt, self.tau_rise), decay(dt, self.tau_decay)
        energy = (1 + rise * fall) / ((1 - rise**2) * (1 - fall**2) * (1 - rise * fall))
        return Kernel(rise, fall, 1 / math.sqrt(energy))

    def trains(self, duration: float) -> Spikes:
        """Return the target trains, of sample c for class c.

        Args:
            duration: Length of a trial (s).

        Raises:
            ValueError: The loss is not prepared, or a trial ends before the first target spike.
        """
        if self._trains is not None:
            return self._trains
        if not self._classes:
            raise ValueError("loss=van_rossum knows no classes yet; call loss.prepare(classes, targets)")
        if self.start >= duration:
            raise ValueError(
                f"loss.start={self.start:g} s is not within a trial of {duration:.3g} s; choose an earlier one, or "
                "more network.steps"
            )
        number = math.ceil((duration - self.start) / self.interval - 1e-9)
        time = self.start + self.interval * torch.arange(number, dtype=torch.float64)
        neuron = torch.arange(self._classes).repeat_interleave(number)
        return Spikes.from_events(neuron, neuron, time.repeat(self._classes), self._classes, self._classes)

    def read(self, activity: Activity) -> Tensor:
        """Return the filtered spike trains of the output `[T, B, N]`.

        Raises:
            ValueError: The pass has no time grid.
        """
        spikes = activity.layers[-1].spikes
        if spikes is None or activity.inputs is None:
            raise ValueError("loss=van_rossum reads spikes of a pass on a time grid; end the network in a spiking LIF")
        self._set_targets(spikes, activity.inputs.dt)
        return filtered(spikes, self.kernel(activity.inputs.dt))

    def _set_targets(self, spikes: Tensor, dt: float) -> None:
        """Filter the target trains for the grid of spikes `[T, B, N]`, unless they are at hand."""
        steps, _, outputs = spikes.shape
        traces = self._traces
        if (
            self._grid == (dt, steps)
            and traces is not None
            and (traces.dtype, traces.device)
            == (
                spikes.dtype,
                spikes.device,
            )
        ):
            return
        if not self._classes:
            self._classes = outputs
        trains = self.trains(dt * steps)
        if trains.units != outputs:
            raise ValueError(
                f"target trains are for {trains.units} neurons, but the output has {outputs}; give it as many"
            )
        with torch.no_grad():
            grid = trains.to(spikes.device).to_grid(dt, steps).to(spikes.dtype)
            self._traces = filtered(grid, self.kernel(dt))
        self._grid = (dt, steps)

    def _targets(self, output: Tensor) -> Tensor:
        """Return the filtered target trains `[T, classes, N]` up to the last step of an output `[T, B, N]`."""
        if self._traces is None or self._grid is None:
            raise ValueError("loss=van_rossum compares filtered trains; give loss.read(activity), not activity.output")
        return self._traces[: len(output)].to(output)

    def scores(self, output: Tensor) -> Tensor:
        """Return the negative distance `[B, classes]` of filtered trains `[T, B, N]` from the target of each class."""
        targets = self._targets(output)
        energy = output.square().sum((0, 2))[:, None] + targets.square().sum((0, 2))[None, :]
        return 2 * torch.einsum("tbn,tcn->bc", output, targets) - energy

    def decision_times(self, output: Tensor, dt: float) -> Tensor:
        """Return the decision time of each sample (s) `[B]`, see `Loss.decision_times`.

        The filtered trains of step k hold the spikes of earlier steps, and are known at `k * dt`.
        """
        return self._decision_steps(output) * dt

    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return half the mean distance of filtered trains `[T, B, N]` from the targets of their classes.

        Raises:
            ValueError: the labels are not numbers of these classes, or the output is not what `read` returned.
        """
        targets = self._targets(output)
        classes = targets.shape[1]
        numbers = class_labels(labels, output.new_empty(output.shape[1], classes))
        if numbers.is_floating_point():
            raise ValueError("loss=van_rossum compares with the train of one class; labels are no probabilities")
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < classes:
            raise ValueError(
                f"labels span {int(numbers.min())}..{int(numbers.max())}, but {classes} classes have target trains"
            )
        return (output - targets[:, numbers]).square().sum() / (2 * output.shape[1])


def filtered(spikes: Tensor, kernel: Kernel) -> Tensor:
    """Return filtered spike trains `[T, B, N]`, in the graph of the spikes."""
    steps, samples, neurons = spikes.shape
    chunk = min(steps, CHUNK)
    matrix = psp_matrix(chunk, kernel.rise, kernel.decay, spikes.dtype, spikes.device)
    powers = torch.arange(chunk + 1, dtype=torch.float64)
    rises = (kernel.rise**powers).to(spikes)
    decays = (kernel.decay**powers).to(spikes)
    response = psp_kernel(chunk + 1, kernel.rise, kernel.decay).to(spikes)
    current = spikes.new_zeros(samples, neurons)
    potential = spikes.new_zeros(samples, neurons)
    parts: list[Tensor] = []
    for part in torch.split(spikes, chunk):
        size = len(part)
        free = decays[:size, None, None] * potential + kernel.rise * response[:size, None, None] * current
        parts.append(over_time(matrix[:size, :size], part) + free)
        if size == chunk and chunk < steps:
            late = torch.einsum("t,tbn->bn", response[1:].flip(0), part)
            potential = decays[chunk] * potential + kernel.rise * response[chunk] * current + late
            current = rises[chunk] * current + torch.einsum("t,tbn->bn", rises[:chunk].flip(0), part)
    return kernel.scale * torch.cat(parts)


class DifferenceTraces:
    """Filtered differences of spike trains, a window of steps at a time.

    Args:
        distance: Distance whose filter is used.
        dt: Width of a step (s).
    """

    def __init__(self, distance: VanRossum, dt: float) -> None:
        self.kernel = distance.kernel(dt)
        self.current: Tensor | None = None
        self.potential: Tensor | None = None

    def observe(self, differences: Tensor) -> Tensor:
        """Return the filtered differences of the next steps, of differences `[W, B, N]`."""
        current = torch.zeros_like(differences[0]) if self.current is None else self.current
        potential = torch.zeros_like(differences[0]) if self.potential is None else self.potential
        traces = torch.empty_like(differences)
        for trace, difference in zip(traces, differences, strict=True):
            trace.copy_(potential)
            current = self.kernel.rise * current + difference
            potential = self.kernel.decay * potential + current
        self.current = current
        self.potential = potential
        return traces.mul_(self.kernel.scale)
