"""Penalties that keep what earlier tasks need: synaptic intelligence and elastic weight consolidation.

Both pull each weight to its value at the end of the tasks so far, by its importance for these. A training on a sequence
of tasks calls `consolidate` at the end of each task but the last.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hxtrain.datasets import Source
from hxtrain.network import Activity, Network, Write

from .losses import Loss
from .regularizers import Regularizer


class Passes(NamedTuple):
    """What a penalty may run and measure at the end of a task.

    Attributes:
        source: Training samples of the task, without distortions.
        loss: Loss of the task.
        generator: Source of all random numbers, on the CPU.
    """

    source: Source
    loss: Loss
    generator: torch.Generator


@dataclass
class Consolidation(Regularizer):
    """Base: `strength` times a sum over all weights of importance times squared distance from a reference.

    Importance and reference have one entry per projection `[N, J]`. They are empty up to the end of the first task.
    """

    def prepare(self, net: Network) -> None:
        """Forget all tasks."""
        weights = net.effective_weights()
        self._shapes = [weight.shape for weight in weights]
        self._device = weights[0].device
        self._importance: list[Tensor] = []
        self._reference: list[Tensor] = []

    @property
    def importance(self) -> list[Tensor]:
        """Importance of the weights of each projection `[N, J]` for the tasks so far; empty before the first end."""
        return list(self._importance)

    def penalty(self, activity: Activity, weights: list[Tensor]) -> Tensor:
        """Return the sum over weights of importance times squared distance from the reference."""
        if not self._importance:
            return weights[0].new_zeros(())
        parts = zip(self._importance, weights, self._reference, strict=True)
        distances = [(importance * (weight - reference).square()).sum() for importance, weight, reference in parts]
        return torch.stack(distances).sum()

    def online(self, counts: list[Tensor]) -> list[Tensor]:
        """Return no derivatives: the penalty depends on weights alone."""
        return []

    @abstractmethod
    def consolidate(self, net: Network, passes: Passes) -> None:
        """Take note of the end of a task: what its weights are, and what each of them matters for it."""

    def state_dict(self) -> dict[str, Any]:
        """Return importance and reference, for a checkpoint."""
        return {"importance": list(self._importance), "reference": list(self._reference)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state, see `Regularizer.load_state_dict`.

        Raises:
            ValueError: The state belongs to another penalty or network.
        """
        expected = self.state_dict()
        if state.keys() != expected.keys():
            raise ValueError(f"{type(self).__name__} has a state of {', '.join(expected)}, not of {', '.join(state)}")
        for name, values in state.items():
            if [value.shape for value in values] not in ([], self._shapes):
                raise ValueError(f"{name} of {type(self).__name__} belongs to another network")
            setattr(self, f"_{name}", [value.to(self._device, copy=True) for value in values])


@dataclass
class SynapticIntelligence(Consolidation):
    r"""Importance of a weight by its share in the descent of the loss (Zenke, Poole and Ganguli 2017).

    With g the gradient of the loss without penalties, of the measured pass, and dw the change that is written::

        omega -= g dw                                                in each step
        Omega = max(0, Omega + omega / ((change in the task)^2 + damping))  at the end of a task
        penalty = strength * sum over weights of Omega (w - reference)^2

    As in the authors' code, the sum over tasks is not below 0, while a single task may lower it. Changes are those of
    the weights as the device has them, after optimiser, constraints, rounding and clipping. For gradient flow on a
    quadratic loss `h w^2 / 2`, Omega is h / 2 up to the damping: a strength of 1 is the old loss.

    Attributes:
        damping: Addition to the squared change of a weight in a task, in squares of the weight (`xi` of the paper).
    """

    watches_writes: ClassVar[bool] = True
    reads_loss: ClassVar[bool] = True
    strength: float = 1.0
    damping: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("damping")
        if self.damping == 0:
            raise ValueError("regularizer SynapticIntelligence: damping=0 must be positive; weights may not change")

    def prepare(self, net: Network) -> None:
        """Forget all tasks and steps."""
        super().prepare(net)
        self._path: list[Tensor] = []
        self._start: list[Tensor] = []

    @property
    def path(self) -> list[Tensor]:
        """Share of each weight in the descent of the loss since the start of the task `[N, J]`; empty without steps."""
        return list(self._path)

    def after_write(self, net: Network, write: Write) -> None:
        """Add gradient times change of a step."""
        if write.gradients is None:
            return
        if not self._path:
            self._path = [torch.zeros_like(weight) for weight in write.previous]
            self._start = [weight.clone() for weight in write.previous]
        changes = zip(self._path, write.gradients, write.current, write.previous, strict=True)
        for path, gradient, current, previous in changes:
            if gradient is not None:
                path.addcmul_(gradient, current - previous, value=-1)

    @torch.no_grad()
    def consolidate(self, net: Network, passes: Passes) -> None:
        """Turn the shares into importance, and start anew from the current weights."""
        if not self._path:
            return
        importance = self._importance or [torch.zeros_like(path) for path in self._path]
        ends = net.representable_weights()
        shares = zip(importance, self._path, ends, self._start, strict=True)
        self._importance = [
            (total + path / ((end - start).square() + self.damping)).clamp_(min=0) for total, path, end, start in shares
        ]
        self._reference = [weight.detach().clone() for weight in net.effective_weights()]
        self._path = []
        self._start = []

    def state_dict(self) -> dict[str, Any]:
        """Return importance, reference, and shares and first weights of the current task, for a checkpoint."""
        return {**super().state_dict(), "path": [path.clone() for path in self._path], "start": list(self._start)}


@dataclass
class ElasticWeightConsolidation(Consolidation):
    r"""Importance of a weight by the diagonal of the Fisher information (Kirkpatrick et al. 2017).

    The penalty is `strength / 2 * sum over tasks and weights of F (w - w_task)^2`, up to a constant: importance is half
    the sum of all F, and the reference the mean of all w_task with weights F.

    The information is that of the softmax of `Loss.logits` in measured passes. For labels drawn from this softmax, the
    mean of the gradient of a sample's log-likelihood is 0. So for a batch of B samples, B times the squared gradient
    of the mean is an unbiased estimate of F (the estimator of Sophia, Liu et al. 2023), and one backward pass is enough
    for the batch. Its relative standard deviation is about sqrt(2 / number of batches).

    Attributes:
        samples: Number of training samples of a task that are run at its end, drawn at random; 0 for all.
        batch_size: Samples of a batch; fewer give a better estimate in more time.
    """

    strength: float = 100.0
    samples: int = 1000
    batch_size: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 0 or self.batch_size < 1:
            raise ValueError(
                f"regularizer ElasticWeightConsolidation: samples={self.samples} must be at least 0 (all), and "
                f"batch_size={self.batch_size} at least 1"
            )

    def consolidate(self, net: Network, passes: Passes) -> None:
        """Measure the Fisher information, and add it to the importance."""
        if self.strength == 0:
            return
        information = [values / 2 for values in fisher_information(net, passes, self.samples, self.batch_size)]
        weights = [weight.detach().clone() for weight in net.effective_weights()]
        previous = self._importance or [torch.zeros_like(weight) for weight in weights]
        references = self._reference or weights
        self._importance = [total + values for total, values in zip(previous, information, strict=True)]
        self._reference = [
            torch.where(total > 0, reference + (weight - reference) * values / total, weight)
            for total, reference, weight, values in zip(self._importance, references, weights, information, strict=True)
        ]


def fisher_information(net: Network, passes: Passes, samples: int = 0, batch_size: int = 10) -> list[Tensor]:
    """Return the diagonal of the Fisher information of the weights of each projection `[N, J]`, from measured passes.

    Args:
        net: Network, attached to a device or in software.
        passes: Samples, loss and random numbers; see `ElasticWeightConsolidation` for the estimate.
        samples: Number of samples to run, drawn at random; 0 for all.
        batch_size: Samples of a batch.

    Raises:
        ValueError: The loss reads spike times, which have no surrogate gradient.
        DeviceError: The device fails.
    """
    if passes.loss.reads_times:
        raise ValueError(
            f"regularizer=ewc: {type(passes.loss).__name__} reads spike times, which have no surrogate gradient; "
            "choose regularizer=synaptic_intelligence, or another loss"
        )
    order = torch.randperm(len(passes.source), generator=passes.generator)[: samples or None]
    projections = net.projections
    weights = [p.synapses.weight for p in projections if p.synapses.is_trainable]
    sums = [torch.zeros_like(weight) for weight in weights]
    for indices in torch.split(order, batch_size):
        activity = net(passes.source.spikes(indices).to(net.torch_device))
        logits = passes.loss.logits(passes.loss.read(activity))
        shares = torch.softmax(logits.detach().cpu().double(), 1)
        labels = torch.multinomial(shares, 1, generator=passes.generator)[:, 0].to(logits.device)
        gradients = torch.autograd.grad(cross_entropy(logits, labels, reduction="sum"), weights, allow_unused=True)
        for total, gradient in zip(sums, gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient)
    queue = iter(sums)
    return [
        next(queue).div_(len(order)) if p.synapses.is_trainable else torch.zeros_like(p.synapses.weight)
        for p in projections
    ]
