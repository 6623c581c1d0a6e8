"""Evaluation of a network on a set of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from hxtrain.backends import Health
from hxtrain.checks import require_kind, whole
from hxtrain.datasets import Dataset, Samples, Source
from hxtrain.datasets.encoders import Encoder, LatencyEncoder
from hxtrain.datasets.source import source as source_of
from hxtrain.execution import device_of
from hxtrain.network import Network
from hxtrain.objectives import Loss
from hxtrain.objectives.heads import head_of
from hxtrain.objectives.losses import check_output, default_loss, predictions

from .cost import CostMeter, Costs, sum_or_none


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        accuracy: Fraction of right answers.
        hidden_spikes_per_sample: Mean number of spikes of all hidden neurons; None without a hidden population.
        confusion: Counts `[classes, classes]`; rows are true classes.
        health: Losses and retries of the device.
        costs: Time and energy of all samples together.
        decision_time: Mean time of a decision (s after the start of the output's trial), see `Loss.decision_times`.
        decision_time_95: 95th percentile of the decision times (s).
        input_events_per_sample: Mean number of input events within the window; None in a checkpoint that lacks it.
        late_input_events_per_sample: Mean number of input events after the window, which have no effect.
    """

    accuracy: float
    hidden_spikes_per_sample: float | None
    confusion: Tensor = field(repr=False)
    health: Health
    costs: Costs
    decision_time: float
    decision_time_95: float
    input_events_per_sample: float | None = None
    late_input_events_per_sample: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return tensors and plain values for a checkpoint."""
        health = asdict(self.health) | {"notes": list(self.health.notes)}
        return {**vars(self), "health": health, "costs": asdict(self.costs)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluation:
        """Return the evaluation of which `as_dict` returned these values."""
        health = Health(**{**values["health"], "notes": tuple(values["health"]["notes"])})
        return cls(**{**values, "health": health, "costs": Costs(**values["costs"])})


@dataclass(frozen=True)
class EvaluationSums:
    """Sums over evaluated samples; the sums of several parts are added with `+`.

    Attributes:
        confusion: Counts `[classes, classes]`; rows are true classes.
        hidden_spikes: Number of spikes of all hidden neurons; None without a hidden population.
        health: Losses and retries of the device.
        costs: Time and energy.
        decision_times: Decision time of each sample (s) `[S]`.
        input_events: Number of input events within the window.
        late_input_events: Number of input events after the window.
    """

    confusion: Tensor
    hidden_spikes: float | None
    health: Health
    costs: Costs
    decision_times: Tensor
    input_events: int
    late_input_events: int

    def __add__(self, other: EvaluationSums) -> EvaluationSums:
        """Return the sums over the samples of both."""
        return EvaluationSums(
            self.confusion + other.confusion,
            sum_or_none(self.hidden_spikes, other.hidden_spikes),
            self.health + other.health,
            self.costs + other.costs,
            torch.cat([self.decision_times, other.decision_times]),
            self.input_events + other.input_events,
            self.late_input_events + other.late_input_events,
        )

    def as_plain(self) -> dict[str, Any]:
        """Return the sums as numbers, text, lists and mappings, which another process can read."""
        health = asdict(self.health) | {"notes": list(self.health.notes)}
        lists = {"confusion": self.confusion.tolist(), "decision_times": self.decision_times.tolist()}
        return {**vars(self), **lists, "health": health, "costs": asdict(self.costs)}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> EvaluationSums:
        """Return the sums of which `as_plain` returned these values."""
        health = Health(**{**values["health"], "notes": tuple(values["health"]["notes"])})
        return cls(
            torch.tensor(values["confusion"], dtype=torch.long),
            values["hidden_spikes"],
            health,
            Costs(**values["costs"]),
            torch.tensor(values["decision_times"], dtype=torch.float64),
            values["input_events"],
            values["late_input_events"],
        )

    def summary(self) -> Evaluation:
        """Return means over the samples."""
        samples = len(self.decision_times)
        return Evaluation(
            accuracy=float(self.confusion.diag().sum()) / samples,
            hidden_spikes_per_sample=None if self.hidden_spikes is None else self.hidden_spikes / samples,
            confusion=self.confusion,
            health=self.health,
            costs=self.costs,
            decision_time=float(self.decision_times.mean()),
            decision_time_95=float(self.decision_times.quantile(0.95)),
            input_events_per_sample=self.input_events / samples,
            late_input_events_per_sample=self.late_input_events / samples,
        )


def evaluate(
    net: Network,
    source: Source | Samples,
    loss: Loss | None = None,
    batch_size: int = 500,
    masks: list[Tensor | None] | None = None,
    *,
    encoder: Encoder | None = None,
) -> Evaluation:
    """Run all samples of a source, without randomness, and compare the answers with the labels.

    Args:
        net: Network, attached to a device or in software.
        source: Input spikes and labels of `S` samples, such as `data.source(data.test, encoder)`; or a part of a data
            set, such as `data.test`, which `encoder` encodes.
        loss: Loss function that turns outputs into answers; None: `MaxOverTime()`, for a spiking output `SpikeCount()`.
        batch_size: Samples per batch.
        masks: Active neurons of each layer, see `Network.forward`; None keeps all.
        encoder: Code from samples to input events; None: `LatencyEncoder()`. A source has its encoder already.

    Raises:
        TypeError: An argument is of the wrong type, such as a whole data set in place of a part of it.
        ValueError: The source is empty, a label exceeds the neurons of the output, or the loss reads another kind of
            output.
    """
    require_kind(net, Network, "net", "evaluate(net, data.test, loss)")
    loss = default_loss(net) if loss is None else loss
    if isinstance(source, Samples):
        source = source_of(source, encoder or LatencyEncoder(), torch_device=net.torch_device)
    elif encoder is not None:
        raise TypeError("encoder: a source has its encoder already; give a part of the data, such as data.test")
    check_evaluation(net, source, loss, batch_size)
    return observe(net, source, loss, batch_size, masks).summary()


def evaluate_tasks(
    net: Network, sources: Sequence[Source], loss: Loss, batch_size: int = 500, masks: list[Tensor | None] | None = None
) -> tuple[Evaluation, list[float]]:
    """Evaluate the samples of several tasks, see `evaluate`; returns what `combined` does.

    Args:
        net: Network, attached to a device or in software.
        sources: Input spikes and labels of each task, in their order.
        loss: Loss of all tasks, which may have a head for each.
        batch_size: Samples per batch.
        masks: Active neurons of each layer; None keeps all.
    """
    sums = []
    for task, source in enumerate(sources):
        check_evaluation(net, source, loss, batch_size)
        with head_of(loss, task):
            sums.append(observe(net, source, loss, batch_size, masks))
    return combined(sums)


def combined(sums: Sequence[EvaluationSums]) -> tuple[Evaluation, list[float]]:
    """Return the evaluation of several tasks together, with the mean of their accuracies, and these accuracies."""
    accuracies = [part.summary().accuracy for part in sums]
    total = sums[0]
    for addend in sums[1:]:
        total = total + addend
    return replace(total.summary(), accuracy=fmean(accuracies)), accuracies


def check_evaluation(net: Network, source: Source, loss: Loss, batch_size: int) -> None:
    """Raise an error for arguments of `evaluate` that are of the wrong type, or do not fit each other."""
    if isinstance(source, Dataset):
        raise TypeError(f"source: expected a part of the data, got {source!r}; give data.test")
    for value, kind, name in ((source, Source, "source"), (loss, Loss, "loss")):
        require_kind(value, kind, name, "evaluate(net, data.test, loss)")
    check_output(net, loss)
    if not len(source) or whole("batch_size", batch_size) < 1:
        raise ValueError(f"{len(source)} samples in batches of {batch_size}: at least one of each is needed")
    outputs = net.layers[-1].neurons.size
    largest = int(source.labels.max())
    if largest >= loss.classes(outputs):
        raise ValueError(f"labels go up to {largest}, but the output has {outputs} neurons; it needs one per class")


@torch.no_grad()
def observe(
    net: Network,
    source: Source,
    loss: Loss,
    batch_size: int,
    masks: list[Tensor | None] | None = None,
    samples: range | None = None,
) -> EvaluationSums:
    """Run samples of a source.

    Args:
        net: See `evaluate`.
        source: See `evaluate`.
        loss: See `evaluate`.
        batch_size: Samples per batch.
        masks: See `evaluate`.
        samples: Consecutive samples to run, possibly none; None for all.
    """
    samples = range(len(source)) if samples is None else samples
    classes = loss.classes(net.layers[-1].neurons.size)
    confusion = torch.zeros(classes, classes, dtype=torch.long)
    spikes = 0.0
    health = Health()
    input_events = 0
    late_input_events = 0
    meter = CostMeter(device_of(net))
    times = [torch.zeros(0, dtype=torch.float64)]
    for indices in torch.split(torch.arange(samples.start, samples.stop), batch_size) if samples else ():
        labels = source.labels[indices]
        activity = net(source.spikes(indices).to(net.torch_device), masks)
        output = loss.read(activity)
        answers = predictions(loss.scores(output)).cpu()
        confusion += torch.bincount(labels * classes + answers, minlength=classes**2).view(classes, classes)
        spikes += activity.hidden_spikes()
        if activity.inputs is not None:
            input_events += activity.inputs.events - activity.inputs.late
            late_input_events += activity.inputs.late
        health = health + activity.health
        meter.add(activity.cost)
        times.append(loss.decision_times(output, net.dt).cpu().double())
    costs = meter.costs()
    hidden_spikes = spikes if len(net.layers) > 1 else None
    return EvaluationSums(confusion, hidden_spikes, health, costs, torch.cat(times), input_events, late_input_events)
