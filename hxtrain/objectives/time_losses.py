"""Losses of the times of first output spikes.

A neuron that does not spike counts as one that spikes at the end of the window. Surrogate gradients do not know spike
times: these losses go with rules that do, `rule=eventprop` or `rule=spikeprop`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, one_hot

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import Data
from hxtrain.network import Activity

from .losses import Loss, class_labels


@dataclass
class TimeLoss(Loss):
    """Base of losses of first-spike times `[B, N]` (s), see `read`.

    A silent neuron has no time, and so no exact gradient. If the loss asks it to spike earlier, it is pushed: one spike
    more counts as `pull` seconds earlier. If the loss asks it to spike later, nothing happens.

    Attributes:
        pull: Time by which one spike more of a silent neuron counts as earlier (s); 0: none.
    """

    reads: ClassVar[str] = "spikes"
    reads_times: ClassVar[bool] = True

    pull: float = field(default=6e-6, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.pull < math.inf:
            raise ValueError(f"loss.pull={self.pull} s must be >= 0 and finite")

    def read(self, activity: Activity) -> Tensor:
        """Return the time of each output neuron's first spike `[B, N]` (s); without a spike, the end of the window.

        Raises:
            ValueError: the pass has no input events, from which the window is known.
        """
        inputs = activity.inputs
        if inputs is None:
            raise ValueError("the activity has no input events, so that its window is unknown; give net(spikes)")
        end = inputs.dt * inputs.steps
        output = activity.layers[-1]
        from hxtrain.gradients.spike_times import first_times  # compiled loops, which few commands need

        times = first_times(output.times(inputs.dt), end).clamp(max=end)
        if self.pull == 0 or output.counts is None or not output.counts.requires_grad:
            return times
        return times + torch.where(times.detach() < end, 0.0, _Pull.apply(output.counts, self.pull))  # type: ignore[no-untyped-call]

    def decision_times(self, output: Tensor, dt: float) -> Tensor:
        """Return the time of the first spike of any output neuron (s) `[B]`, at which the answer is known."""
        return _checked(output).amin(1)

    @abstractmethod
    def scores(self, output: Tensor) -> Tensor:
        """Return scores `[B, classes]` of first-spike times `[B, N]` (s)."""


class _Pull(torch.autograd.Function):
    """No change of times, with the gradient of numbers of spikes where times should be earlier: (counts, pull) -> 0."""

    @staticmethod
    def forward(ctx: Any, counts: Tensor, pull: float) -> Tensor:
        ctx.pull = pull
        return torch.zeros_like(counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.pull * grad.clamp(min=0), None


@dataclass
class FirstSpike(TimeLoss):
    """Base of losses with one output neuron per class, of which the first to spike is the answer."""

    def scores(self, output: Tensor) -> Tensor:
        """Return scores `[B, classes]` of first-spike times `[B, classes]` (s): the times, negative."""
        return -_checked(output)


@dataclass
class TimeToFirstSpike(FirstSpike):
    """Cross-entropy of the softmax of `-t / time_scale`, of first-spike times t (Göltz et al. 2021).

    A common shift of all times does not change it. `early_strength (exp(t_true / early_time) - 1)` of the true neuron
    may be added, which makes answers early, as published.

    Attributes:
        time_scale: difference of times that counts as a factor of e in probability (s).
        label_smoothing: share of probability spread over all classes.
        early_strength: factor of the addition; 0: none.
        early_time: time constant of the addition (s).
    """

    time_scale: float = 1.2e-6
    label_smoothing: float = 0.0
    early_strength: float = 0.0
    early_time: float = 6e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(time_scale=self.time_scale, early_time=self.early_time)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing={self.label_smoothing} must be in 0 <= x < 1")
        if not 0 <= self.early_strength < math.inf:
            raise ValueError(f"loss.early_strength={self.early_strength} must be >= 0 and finite")

    def logits(self, output: Tensor) -> Tensor:
        """Return the inputs of the softmax `[B, classes]` for first-spike times `[B, classes]` (s)."""
        return self.scores(output) / self.time_scale

    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return the mean loss of first-spike times `[B, classes]` (s); labels as in `Loss`."""
        logits = self.logits(output)
        targets = class_labels(labels, logits)
        loss = cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        if self.early_strength == 0:
            return loss
        early = torch.expm1(output / self.early_time) * _shares(targets, output)
        return loss + self.early_strength * early.sum(1).mean()


@dataclass
class SpikeTimeMSE(FirstSpike):
    """Squared error of time differences: each wrong neuron should spike `margin` after the true one (DelGrad).

    It is the mean over samples of `1/2 sum_n ((t_n - t_true - margin) / margin)^2` over the wrong classes n, and does
    not depend on a common shift of all times.

    Attributes:
        margin: target of the difference (s).
        one_sided: whether a wrong neuron that spikes even later, or never, adds nothing.
    """

    margin: float = 3e-6
    one_sided: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(margin=self.margin)

    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return the mean loss of first-spike times `[B, classes]` (s); labels as in `Loss`."""
        times = _checked(output)
        is_true = _shares(class_labels(labels, times), times)
        lag = (times - (times * is_true).sum(1, keepdim=True)) / self.margin - 1
        if self.one_sided:
            lag = lag.clamp(max=0)
        return (lag.square() * (1 - is_true)).sum(1).mean() / 2


@dataclass
class SpikeTimeTargets(TimeLoss):
    """Squared error of first-spike times from those of the class's target trains (Bohte, Kok and La Poutré 2002).

    It is the mean over samples of `1/2 sum_n ((t_n - target_n) / time_unit)^2`. The answer is the class whose targets
    are nearest. The targets come from the data (`Dataset.targets`), one train per class; only first spikes count.

    Attributes:
        time_unit: unit of the differences (s): 1e-6 gives the published error with 1 us of the device for 1 ms.
    """

    time_unit: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(time_unit=self.time_unit)
        self._targets: Tensor | None = None

    def outputs(self, classes: int, targets: Spikes | None = None) -> int:
        """Return the number of neurons of the target trains; arguments and errors as in `Loss`."""
        return self._trains(targets).units

    def classes(self, outputs: int) -> int:
        """Return the number of classes, which is that of the target trains."""
        return len(self._times())

    def prepare(self, classes: int, targets: Spikes | None = None) -> None:
        """Take the first spike of each target train; arguments and errors as in `Loss`."""
        from hxtrain.gradients.spike_times import first_times

        self._targets = first_times(self._trains(targets), math.inf)
        silent = int((~torch.isfinite(self._targets)).sum())
        if silent:
            raise ValueError(f"loss=spike_time_targets: {silent} target trains have no spike; give each neuron one")

    def scores(self, output: Tensor) -> Tensor:
        """Return scores `[B, classes]` of first-spike times `[B, N]` (s): distances from the targets, negative."""
        times = _checked(output)
        return -torch.cdist(times / self.time_unit, self._times().to(times) / self.time_unit)

    def decision_times(self, output: Tensor, dt: float) -> Tensor:
        """Return the time at which all output neurons have spiked (s) `[B]`."""
        return _checked(output).amax(1)

    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return the mean loss of first-spike times `[B, N]` (s) and class numbers `[B]`."""
        times = _checked(output)
        targets = self._times().to(times)
        numbers = class_labels(labels, times)
        if numbers.is_floating_point():
            raise ValueError("loss=spike_time_targets takes class numbers, not probabilities; leave distillation out")
        return ((times - targets[numbers]) / self.time_unit).square().sum(1).mean() / 2

    def _trains(self, targets: Spikes | None) -> Spikes:
        if targets is None:
            raise ValueError(
                "loss=spike_time_targets needs data with target spike trains (Dataset.targets), such as "
                "data=xor_times; for classes alone take loss=ttfs"
            )
        return targets

    def _times(self) -> Tensor:
        """Return the target times `[classes, N]` (s)."""
        if self._targets is None:
            raise ValueError("loss=spike_time_targets has no targets yet; call loss.prepare(classes, data.targets)")
        return self._targets


def _shares(targets: Tensor, times: Tensor) -> Tensor:
    """Return labels as probabilities `[B, classes]`."""
    return targets if targets.is_floating_point() else one_hot(targets, times.shape[1]).to(times)


def _check_positive(**settings: float) -> None:
    """Refuse settings that are not positive and finite."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"loss.{name}={value} must be positive and finite")


def _checked(output: Any) -> Tensor:
    """Return first-spike times after a check of their type and shape."""
    if not isinstance(output, Tensor) or output.ndim != 2:
        form = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(f"expected first-spike times [B, N], got {form}; give loss.read(activity)")
    return output
