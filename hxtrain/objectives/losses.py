"""Losses of the readout's membranes, and the scores of classes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, List  # noqa: UP035 - OmegaConf resolves these on every Python

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from hxtrain.backends import Registry, Spikes
from hxtrain.backends.intake import as_tensor
from hxtrain.backends.spikes import GRID_TOLERANCE, Data
from hxtrain.checks import check_types
from hxtrain.network import Activity, Network

from .online import CountErrors, Grid, MaxErrors, MeanErrors, OnlineErrors, SquaredCountErrors


@dataclass
class Loss(ABC):
    """Base: turns the output of a network into scores of the classes, and into a number to minimise.

    A field is a setting, `loss.<field>`. A loss with state, such as the preferred class of each output neuron, makes it
    in `prepare`, learns in `observe`, and gives it to checkpoints; it consists of tensors and plain values.

    Attributes:
        reads: output that the loss reads, a kind of `Network.output_kind`: `membranes` or `spikes`.
        reads_times: whether it reads the times of spikes, which have no surrogate gradient.
    """

    reads: ClassVar[str] = "membranes"
    reads_times: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_types(self, "loss.")

    def outputs(self, classes: int, targets: Spikes | None = None) -> int:
        """Return the number of output neurons that the loss needs; one per class by default.

        Args:
            classes: number of classes of the data.
            targets: target spike trains of the classes, see `Dataset.targets`; None: there are none.

        Raises:
            ValueError: the loss needs target spike trains, and there are none.
        """
        return classes

    def classes(self, outputs: int) -> int:
        """Return the number of classes that the scores of `outputs` neurons tell apart; one per neuron by default."""
        return outputs

    def prepare(self, classes: int, targets: Spikes | None = None) -> None:  # noqa: B027 - a hook
        """Make what the loss needs of a data set, and its state; the arguments are those of `outputs`."""

    def read(self, activity: Activity) -> Tensor:
        """Return what the loss reads of a pass; by default its output `[T, B, N]`, see `Activity.output`."""
        return activity.output

    def online(self, labels: Tensor, outputs: int, grid: Grid) -> OnlineErrors | None:
        """Return the errors of a batch of trials while they run; None: the loss is known at their end alone.

        Args:
            labels: true classes `[B]`.
            outputs: number of output neurons.
            grid: time grid of a trial.

        Raises:
            ValueError: the labels are not numbers of these classes.
        """
        return None

    def observe(self, output: Tensor, labels: Tensor) -> None:  # noqa: B027 - a hook
        """Take note of what `read` returned of a training step and of the true classes `[B]`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned, after `prepare`.

        Raises:
            ValueError: the state belongs to another loss.
        """
        if state:
            raise ValueError(f"there is a state of {', '.join(state)}, but {type(self).__name__} has none")

    @abstractmethod
    def scores(self, output: Tensor) -> Tensor:
        """Return scores `[B, classes]` of an output `[T, B, classes]`; the highest one is the answer."""

    def logits(self, output: Tensor) -> Tensor:
        """Return the inputs of a softmax `[B, classes]` for an output `[T, B, classes]`, for a teacher to compare."""
        return self.scores(output)

    def decision_times(self, output: Tensor, dt: float) -> Tensor:
        """Return the decision time of each sample (s) `[B]`, for an output `[T, B, N]`.

        The answer at a step rests on all steps up to it. The decision time is the time of the first step from which on
        the answer stays the final one. A tie is no answer: if the final answer is a tie, the decision time is the end
        of the recorded window. A loss that reads something else, see `read`, defines decision times of its own.

        Args:
            output: What `read` returned: membranes, of which step k is sampled at `k * dt`; or spikes, of which step k
                is known at its end, `(k + 1) * dt`.
            dt: Width of a step (s).
        """
        decision_steps = self._decision_steps(output)
        if self.reads == "spikes":
            decision_steps = (decision_steps + 1).clamp(max=len(output))
        return decision_steps * dt

    def _decision_steps(self, output: Tensor) -> Tensor:
        """Return the step from which on the answer stays the final one `[B]`; the number of steps for a tie."""
        steps = len(output)
        scores = torch.stack([self.scores(output[: t + 1]) for t in range(steps)])
        answers = torch.stack([predictions(step_scores) for step_scores in scores])
        is_tie = (scores == scores.amax(2, keepdim=True)).sum(2) > 1
        open_until = torch.arange(1, steps + 1, device=output.device)[:, None]
        return ((answers != answers[-1]) | is_tie).mul(open_until).amax(0)

    @abstractmethod
    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return the mean loss of an output `[T, B, classes]` and labels `[B]`, or probabilities `[B, classes]`.

        Raises:
            TypeError: the output is not a tensor, but an activity or a layer.
            ValueError: the labels are not numbers of these classes, or not one per sample.
        """


@dataclass
class CrossEntropy(Loss):
    """Base of losses that are the cross-entropy of scores of membranes; a subclass defines `scores`.

    Attributes:
        readout_scale: factor on the membranes before the softmax.
        label_smoothing: share of probability spread over all classes.
    """

    readout_scale: float = 10.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_softmax(self.label_smoothing, readout_scale=self.readout_scale)

    def logits(self, output: Tensor) -> Tensor:
        """Return the inputs of the softmax `[B, classes]` for membranes `[T, B, classes]`."""
        return self.readout_scale * self.scores(output)

    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return the mean cross-entropy; arguments and errors as in `Loss`."""
        return _cross_entropy(self.logits(output), labels, self.label_smoothing)


@dataclass
class MaxOverTime(CrossEntropy):
    """Cross-entropy of the readout's maximum over time (Cramer et al. 2022)."""

    def scores(self, output: Tensor) -> Tensor:
        """Return scores `[B, classes]` of membranes `[T, B, classes]`; equal maxima share the gradient."""
        return _checked(output).amax(dim=0)

    def online(self, labels: Tensor, outputs: int, grid: Grid) -> OnlineErrors:
        """Return the errors of the peaks; arguments and errors as in `Loss`."""
        return MaxErrors(_classes_of(labels, outputs), self.readout_scale, self.label_smoothing, grid.steps)


@dataclass
class MeanOverTime(CrossEntropy):
    """Cross-entropy of the readout's mean over time (for inputs that carry information throughout)."""

    def scores(self, output: Tensor) -> Tensor:
        """Return scores `[B, classes]` of membranes `[T, B, classes]`."""
        return _checked(output).mean(dim=0)

    def online(self, labels: Tensor, outputs: int, grid: Grid) -> OnlineErrors:
        """Return the errors of the mean up to each step; arguments and errors as in `Loss`."""
        return MeanErrors(_classes_of(labels, outputs), self.readout_scale, self.label_smoothing, grid.steps)


@dataclass
class MeanAfter(MeanOverTime):
    """Cross-entropy of the readout's mean from a time on, when the answer is asked for (store and recall).

    Attributes:
        start: time from which on the readout counts (s).
    """

    start: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.start < math.inf:
            raise ValueError(f"loss.start={self.start} must be at least 0 and finite (s)")

    def read(self, activity: Activity) -> Tensor:
        """Return the membranes from the start on `[T - start, B, N]`.

        Raises:
            ValueError: the trial ends before the start, or the pass has no time grid.
        """
        if activity.inputs is None:
            raise ValueError("loss=mean_after reads a pass on a time grid; give what net(spikes) returns")
        return super().read(activity)[self._first(Grid(activity.inputs.steps, activity.inputs.dt)) :]

    def decision_times(self, output: Tensor, dt: float) -> Tensor:
        """Return the decision time of each sample (s) `[B]`, see `Loss.decision_times`."""
        return super().decision_times(output, dt) + math.ceil(self.start / dt - GRID_TOLERANCE) * dt

    def online(self, labels: Tensor, outputs: int, grid: Grid) -> OnlineErrors:
        """Return the errors of the mean up to each step; arguments and errors as in `Loss`."""
        classes = _classes_of(labels, outputs)
        return MeanErrors(classes, self.readout_scale, self.label_smoothing, grid.steps, self._first(grid))

    def _first(self, grid: Grid) -> int:
        """Return the first step that counts."""
        first = math.ceil(self.start / grid.dt - GRID_TOLERANCE)
        if first >= grid.steps:
            raise ValueError(
                f"loss.start={self.start:g} s is not within a trial of {grid.steps * grid.dt:.3g} s; choose an earlier "
                "one, or more network.steps"
            )
        return first


@dataclass
class OffsetMean(CrossEntropy):
    """Cross-entropy of the readout's mean over time plus a constant of each class, as conversion measures it.

    A readout has no biases, and on a chip each of its neurons rests at a potential of its own.

    Attributes:
        offsets: constant of each class (threshold - leak); an empty list: 0 for all.
    """

    offsets: List[float] = field(default_factory=list)  # noqa: UP006

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(math.isfinite(offset) for offset in self.offsets):
            raise ValueError(f"loss.offsets={self.offsets} must be finite")

    def prepare(self, classes: int, targets: Spikes | None = None) -> None:
        """Check that there is one offset for each class; the arguments are those of `outputs`.

        Raises:
            ValueError: there is another number of offsets.
        """
        if self.offsets and len(self.offsets) != classes:
            raise ValueError(
                f"loss.offsets has {len(self.offsets)} values, the data has {classes} classes; give one for each, or "
                "leave it out"
            )

    def scores(self, output: Tensor) -> Tensor:
        """Return scores `[B, classes]` of membranes `[T, B, classes]`."""
        mean = _checked(output).mean(dim=0)
        return mean + mean.new_tensor(self.offsets) if self.offsets else mean


@dataclass
class SpikeCount(Loss):
    """Cross-entropy of the numbers of output spikes (rate code; `ce_count_loss` of snnTorch).

    Classes with equal numbers of spikes tie; the answer is the first of them. An output neuron of a chip fires few
    spikes in a window of 20 steps: with a factor of 1 the softmax cannot separate them, and training stalls in ties.

    Attributes:
        count_scale: factor on the numbers of spikes before the softmax; 1 is that of snnTorch.
        label_smoothing: share of probability spread over all classes.
    """

    reads: ClassVar[str] = "spikes"
    count_scale: float = 2.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_softmax(self.label_smoothing, count_scale=self.count_scale)

    def scores(self, output: Tensor) -> Tensor:
        """Return the numbers of spikes `[B, classes]` of spikes `[T, B, classes]`."""
        return _checked(output).sum(dim=0)

    def logits(self, output: Tensor) -> Tensor:
        """Return the inputs of the softmax `[B, classes]` for spikes `[T, B, classes]`."""
        return self.count_scale * self.scores(output)

    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return the mean cross-entropy; arguments and errors as in `Loss`."""
        return _cross_entropy(self.logits(output), labels, self.label_smoothing)

    def online(self, labels: Tensor, outputs: int, grid: Grid) -> OnlineErrors:
        """Return the errors of the numbers up to each step; arguments and errors as in `Loss`."""
        return CountErrors(_classes_of(labels, outputs), self.count_scale, self.label_smoothing, grid.steps)


@dataclass
class SpikeCountMSE(Loss):
    """Mean squared difference of the numbers of output spikes from targets (`mse_count_loss` of snnTorch).

    It is the mean over samples and classes. With probabilities as labels, targets lie between both.

    Attributes:
        true_count: target number of spikes of the true class.
        false_count: target number of spikes of all other classes.
    """

    reads: ClassVar[str] = "spikes"
    true_count: float = 5.0
    false_count: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.false_count < self.true_count < math.inf:
            raise ValueError(
                f"loss.true_count={self.true_count} and loss.false_count={self.false_count} must be in "
                "0 <= false_count < true_count"
            )

    def scores(self, output: Tensor) -> Tensor:
        """Return the numbers of spikes `[B, classes]` of spikes `[T, B, classes]`."""
        return _checked(output).sum(dim=0)

    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return the mean squared difference; arguments and errors as in `Loss`."""
        counts = self.scores(output)
        return mse_loss(counts, self._counts_of(labels, counts))

    def online(self, labels: Tensor, outputs: int, grid: Grid) -> OnlineErrors:
        """Return the errors of the numbers up to each step; arguments and errors as in `Loss`."""
        like = torch.zeros(len(labels), outputs, dtype=torch.get_default_dtype(), device=labels.device)
        return SquaredCountErrors(self._counts_of(labels, like), grid.steps)

    def _counts_of(self, labels: Data, counts: Tensor) -> Tensor:
        """Return the target numbers of spikes `[B, classes]`, of the type of `counts`; labels as in `Loss`."""
        targets = class_labels(labels, counts)
        if not targets.is_floating_point():
            try:
                targets = one_hot(targets, counts.shape[1])
            except RuntimeError:
                raise _no_classes(targets, counts) from None
        return self.false_count + (self.true_count - self.false_count) * targets.to(counts)


def check_output(net: Network, *parts: object) -> None:
    """Refuse losses and penalties that read another kind of output than the network has.

    Args:
        net: network whose output is read.
        parts: losses and penalties; those without `reads`, such as functions, are not checked.

    Raises:
        ValueError: a loss or a penalty reads spikes of a readout, or membranes of a spiking output.
    """
    for part in parts:
        reads = getattr(part, "reads", None)
        if reads is not None and reads != net.output_kind:
            neurons = net.layers[-1].neurons
            end = "LIF" if reads == "spikes" else "LI"
            raise ValueError(
                f"{type(part).__name__} reads {reads} of the output, but the network ends in "
                f"{type(neurons).__name__}({neurons.size}), whose output is {net.output_kind}; end it in "
                f"{end}({neurons.size}) (network.output={reads}), or choose another loss or penalty: MaxOverTime "
                "(loss=max_over_time) reads membranes, SpikeCount (loss=spike_count) spikes"
            )


def read_output(loss: Any, activity: Activity) -> Tensor:
    """Return what a loss, or a function of output and labels, reads of a pass."""
    return loss.read(activity) if isinstance(loss, Loss) else activity.output


def default_loss(net: Network) -> Loss:
    """Return the usual loss for the output of a network: `MaxOverTime` of membranes, `SpikeCount` of spikes."""
    return MaxOverTime() if net.output_kind == "membranes" else SpikeCount()


def _check_softmax(label_smoothing: float, **scale: float) -> None:
    """Refuse a factor before the softmax that is not positive and finite, and a label smoothing out of range."""
    for name, value in scale.items():
        if not 0 < value < math.inf:
            raise ValueError(f"loss.{name}={value} must be positive and finite")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"loss.label_smoothing={label_smoothing} must be in 0 <= x < 1")


def _cross_entropy(logits: Tensor, labels: Data, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy of logits `[B, classes]`; labels and errors are those of `Loss`."""
    targets = class_labels(labels, logits)
    try:
        return cross_entropy(logits, targets, label_smoothing=label_smoothing)
    except IndexError:  # torch checks the values anyway; on a GPU it raises another error
        raise _no_classes(targets, logits) from None


def _classes_of(labels: Tensor, outputs: int) -> Tensor:
    """Return class numbers, int64 `[B]`, after a check; errors are those of `Loss.online`."""
    scores = torch.empty(len(labels), outputs, device="meta")
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are {labels.dtype} {list(labels.shape)}, expected class numbers, int64 [B]")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < outputs:
        raise _no_classes(labels, scores)
    return labels.long()


def _no_classes(labels: Tensor, scores: Tensor) -> ValueError:
    """Return the error for labels that are no numbers of the classes of scores `[B, classes]`."""
    return ValueError(
        f"labels span {int(labels.min())}..{int(labels.max())}, but the output has {scores.shape[1]} "
        f"classes, 0..{scores.shape[1] - 1}; give it as many neurons as there are classes"
    )


def class_labels(labels: Data, logits: Tensor) -> Tensor:
    """Return labels as int64 `[B]` on the accelerator of the logits; probabilities `[B, classes]` get their type.

    Raises:
        ValueError: the labels are not whole numbers, or their number differs from that of the logits.
    """
    targets = as_tensor(labels, "labels").to(logits.device)
    if targets.is_floating_point() and targets.shape == logits.shape:
        return targets.to(logits.dtype)
    if targets.shape != logits.shape[:1] or targets.is_floating_point() or targets.dtype == torch.bool:
        raise ValueError(
            f"labels are {targets.dtype} {list(targets.shape)}, expected class numbers, int64 [{len(logits)}], one for "
            "each sample of the output [T, B, classes]"
        )
    return targets.long()


def _checked(output: Tensor) -> Tensor:
    """Return an output after a check of its type and shape.

    Raises:
        TypeError: the output is not a tensor, but an activity or a layer.
        ValueError: the output does not have three dimensions.
    """
    if not isinstance(output, Tensor):
        raise TypeError(f"expected an output [T, B, classes], got {type(output).__name__}; give activity.output")
    if output.ndim != 3:
        raise ValueError(f"the output has shape {list(output.shape)}, expected [T, B, classes]; give activity.output")
    return output


def predictions(scores: Tensor) -> Tensor:
    """Return the most likely class of each sample `[B]`."""
    return torch.argmax(scores, dim=1)


LOSSES: Registry[type[Loss]] = Registry("losses", "loss", Loss)
"""Losses by name."""
