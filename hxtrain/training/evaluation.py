"""Evaluation of a network on a set of samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from hxtrain.backends import Health
from hxtrain.checks import require_kind, whole
from hxtrain.datasets import ImageDataset, Split
from hxtrain.datasets.encoders import Encoder
from hxtrain.execution import device_of
from hxtrain.network import Network
from hxtrain.objectives import MaxOverTime
from hxtrain.objectives.losses import predictions

from .cost import CostMeter, Costs, decision_times


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        accuracy: fraction of right answers.
        hidden_spikes_per_sample: mean number of spikes of all hidden neurons.
        confusion: counts `[classes, classes]`, rows are true classes.
        health: losses and retries.
        costs: time and energy of all samples together.
        decision_time, decision_time_95: when an answer was found (s after the start of the readout's trial), mean
            and 95th percentile over the samples; see `decision_times`.
        input_events_per_sample: mean number of input events within the window; None in a checkpoint that lacks it.
        late_input_events_per_sample: mean number of those after it, which change nothing.
    """

    accuracy: float
    hidden_spikes_per_sample: float
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
        """Return what `as_dict` was made of."""
        health = Health(**{**values["health"], "notes": tuple(values["health"]["notes"])})
        return cls(**{**values, "health": health, "costs": Costs(**values["costs"])})


def intensities(samples: Tensor) -> Tensor:
    """Return intensities in 0..1 of 8-bit images `[B, H, W]`; features `[B, F]` have them already."""
    return samples.to(torch.float32).mul_(1 / 255) if samples.dtype == torch.uint8 else samples


@dataclass(frozen=True)
class Observed:
    """What was seen of some samples; sums up.

    Attributes:
        confusion: counts `[classes, classes]`, rows are true classes.
        hidden_spikes: number of spikes of all hidden neurons.
        health: losses and retries.
        costs: time and energy.
        decided: when each answer was found (s) `[S]`.
        input_events: number of input events within the window.
        late_input_events: number of those after it.
    """

    confusion: Tensor
    hidden_spikes: float
    health: Health
    costs: Costs
    decided: Tensor
    input_events: int
    late_input_events: int

    def __add__(self, other: Observed) -> Observed:
        """Return what was seen of the samples of both."""
        return Observed(
            self.confusion + other.confusion,
            self.hidden_spikes + other.hidden_spikes,
            self.health + other.health,
            self.costs + other.costs,
            torch.cat([self.decided, other.decided]),
            self.input_events + other.input_events,
            self.late_input_events + other.late_input_events,
        )

    def as_plain(self) -> dict[str, Any]:
        """Return numbers, text, lists and mappings, for another process."""
        health = asdict(self.health) | {"notes": list(self.health.notes)}
        lists = {"confusion": self.confusion.tolist(), "decided": self.decided.tolist()}
        return {**vars(self), **lists, "health": health, "costs": asdict(self.costs)}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Observed:
        """Return what `as_plain` was made of."""
        health = Health(**{**values["health"], "notes": tuple(values["health"]["notes"])})
        return cls(
            torch.tensor(values["confusion"], dtype=torch.long),
            values["hidden_spikes"],
            health,
            Costs(**values["costs"]),
            torch.tensor(values["decided"], dtype=torch.float64),
            values["input_events"],
            values["late_input_events"],
        )

    def summary(self) -> Evaluation:
        """Return means over the samples."""
        samples = len(self.decided)
        return Evaluation(
            accuracy=float(self.confusion.diag().sum()) / samples,
            hidden_spikes_per_sample=self.hidden_spikes / samples,
            confusion=self.confusion,
            health=self.health,
            costs=self.costs,
            decision_time=float(self.decided.mean()),
            decision_time_95=float(self.decided.quantile(0.95)),
            input_events_per_sample=self.input_events / samples,
            late_input_events_per_sample=self.late_input_events / samples,
        )


def evaluate(
    net: Network,
    encoder: Encoder,
    loss: MaxOverTime,
    split: Split,
    classes: int,
    batch_size: int,
    masks: list[Tensor | None] | None = None,
) -> Evaluation:
    """Run all samples of a split and compare the answers with the labels; nothing is jittered.

    Args:
        net: network, attached to a device or not.
        encoder, loss: how samples become spikes, and readouts become answers.
        split: `S` samples and their labels.
        classes: number of classes.
        batch_size: samples per batch.
        masks: kept neurons of each layer, see `Network.forward`; None keeps all.

    Raises:
        TypeError: this is a whole data set, or something else that is no split.
        ValueError: there are no samples, a label beyond the classes, or another number of classes than in the readout.
    """
    _check(net, encoder, loss, split)
    _check_sizes(net, split, whole("classes", classes), whole("batch_size", batch_size))
    return observe(net, encoder, loss, split, classes, batch_size, masks).summary()


def _check(net: Network, encoder: Encoder, loss: MaxOverTime, split: Split) -> None:
    """Refuse what cannot be evaluated."""
    for value, kind, name in ((net, Network, "net"), (encoder, Encoder, "encoder"), (loss, MaxOverTime, "loss")):
        require_kind(value, kind, name, "evaluate(net, encoder, loss, split, classes, batch_size)")
    if isinstance(split, ImageDataset):
        raise TypeError(f"expected a split, got the data set {split.name}; give its part, such as data.test")
    if not isinstance(split, Split):
        raise TypeError(f"expected a Split, got {type(split).__name__}; make one with Split(samples, labels)")


def _check_sizes(net: Network, split: Split, classes: int, batch_size: int) -> None:
    """Refuse sizes that do not go together."""
    if not len(split) or batch_size < 1:
        raise ValueError(f"{len(split)} samples in batches of {batch_size}: at least one of each is needed")
    outputs, largest = net.layers[-1].neurons.size, int(split.labels.max())
    if not largest < classes == outputs:
        raise ValueError(
            f"classes={classes}, but labels go up to {largest} and the readout has {outputs} neurons; all are to agree"
        )


@torch.no_grad()
def observe(
    net: Network,
    encoder: Encoder,
    loss: MaxOverTime,
    split: Split,
    classes: int,
    batch_size: int,
    masks: list[Tensor | None] | None = None,
) -> Observed:
    """Run all samples of a split, which may be empty; arguments as those of `evaluate`."""
    confusion = torch.zeros(classes, classes, dtype=torch.long)
    spikes, health, inputs = 0.0, Health(), [0, 0]
    meter, decided = CostMeter(device_of(net)), [torch.zeros(0, dtype=torch.float64)]
    still = encoder.without_jitter()
    for first in range(0, len(split), batch_size):
        labels = split.labels[first : first + batch_size]
        samples = split.samples[first : first + batch_size].to(net.torch_device)
        activity = net(still(intensities(samples)), masks)
        answers = predictions(loss.scores(activity.readout)).cpu()
        confusion += torch.bincount(labels * classes + answers, minlength=classes**2).view(classes, classes)
        spikes += activity.hidden_spikes()
        if activity.inputs is not None:
            inputs = [inputs[0] + activity.inputs.events - activity.inputs.late, inputs[1] + activity.inputs.late]
        health = health + activity.health
        meter.add(activity.cost)
        decided.append(decision_times(loss, activity.readout, net.dt).cpu().double())
    return Observed(confusion, spikes, health, meter.costs(), torch.cat(decided), *inputs)
