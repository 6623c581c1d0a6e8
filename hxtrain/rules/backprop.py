"""One training step: forward on the device, loss, gradient, optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.intake import as_tensor
from hxtrain.checks import require_kind
from hxtrain.finite import all_finite, first_not_finite
from hxtrain.network import Activity, Network
from hxtrain.objectives import Regularizer
from hxtrain.objectives.losses import check_output
from hxtrain.objectives.regularizers import listed


class LossNotFiniteError(ValueError):
    """The loss, a penalty or a gradient is NaN or infinite; no weight is changed."""


class Step(NamedTuple):
    """Measurements of a step: activity of the network, and loss without regularisers."""

    activity: Activity
    loss: float


def train_step(
    net: Network,
    loss: Callable[[Tensor, Tensor], Tensor],
    regularizers: Iterable[Regularizer] | Mapping[str, Regularizer],
    optimizer: torch.optim.Optimizer,
    spikes: Spikes,
    labels: Tensor,
    masks: list[Tensor | None] | None = None,
    before_step: Callable[[Step], None] = lambda step: None,
) -> Step:
    """Run a batch, and change the weights by the gradient of the measured pass.

    Args:
        net: Network, attached to a device or in software.
        loss: Function of the output `[T, B, classes]`, see `Activity.output`, and the labels `[B]`, such as
            `MaxOverTime()`.
        regularizers: Penalties to minimise in addition: a list, or a mapping by name as in `RunConfig`.
        optimizer: Optimiser over `net.parameters()`; existing gradients are cleared.
        spikes: Input events of `B` samples.
        labels: True classes `[B]`.
        masks: Active neurons of each layer; None keeps all.
        before_step: Called with the step once the gradients exist, before the optimiser uses them.

    Raises:
        DeviceError: The device fails; no weight is changed.
        TypeError: An argument is of the wrong type.
        ValueError: The loss is not a single number that depends on the output, gradients are switched off, nothing is
            learned, or the loss or a penalty reads another kind of output.
        LossNotFiniteError: The loss, its sum with the penalties, or a gradient is not finite; no weight is changed.
    """
    penalty_functions = _check_kinds(net, loss, regularizers, optimizer)
    activity: Activity = net(spikes, masks)
    weights = net.effective_weights()
    output = activity.output
    answer = loss(output, as_tensor(labels, "labels").to(output.device))
    _check_answer(answer)
    value = float(answer.detach())
    if not math.isfinite(value):
        raise LossNotFiniteError(f"the loss is {value}")
    penalties = [(r, r(activity, weights)) for r in penalty_functions if r.strength > 0]
    total = sum((penalty for _, penalty in penalties), start=answer)
    if not math.isfinite(float(total.detach())):
        raise LossNotFiniteError(_not_finite(penalties))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None  # as optimizer.zero_grad does, without its bookkeeping for torch's profiler
    total.backward()  # type: ignore[no-untyped-call]
    step = Step(activity, value)
    before_step(step)
    _check_gradients(net)
    optimizer.step()
    _clamp(net)
    return step


def _check_kinds(
    net: Network,
    loss: Callable[[Tensor, Tensor], Tensor],
    regularizers: Iterable[Regularizer] | Mapping[str, Regularizer],
    optimizer: torch.optim.Optimizer,
) -> list[Regularizer]:
    """Return the regularisers after a check of the types of all arguments, and of what they need of the network."""
    require_kind(net, Network, "net", "train_step(net, loss, regularizers, optimizer, spikes, labels)")
    require_kind(optimizer, torch.optim.Optimizer, "optimizer", "give torch.optim.Adam(net.parameters())")
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(f"loss: expected a function of output and labels, got {loss!r:.60}; give MaxOverTime()")
    penalties = listed(regularizers)
    net.check_training()
    check_output(net, loss, *penalties)
    return penalties


def _check_answer(answer: Tensor) -> None:
    """Raise an error unless the result of a loss function is a single number with a gradient."""
    if not torch.is_grad_enabled():
        raise ValueError("gradients are switched off; call train_step outside torch.no_grad()")
    if not isinstance(answer, Tensor) or answer.numel() != 1 or not answer.requires_grad:
        shape = f" {list(answer.shape)}" if isinstance(answer, Tensor) else ""
        raise ValueError(
            f"the loss function gave {type(answer).__name__}{shape}, expected a tensor of one number with a gradient; "
            "compute it from the output [T, B, classes] by torch's functions, without .detach() or .item()"
        )


def _not_finite(penalties: Sequence[tuple[Regularizer, Tensor]]) -> str:
    """Return a text that names the penalty that is not finite, or the sum of loss and penalties."""
    for regularizer, penalty in penalties:
        value = float(penalty.detach())
        if not math.isfinite(value):
            return f"the penalty of {type(regularizer).__name__} is {value}"
    return "the sum of loss and penalties is not finite"


def _check_gradients(net: Network) -> None:
    """Raise an error if a gradient is not finite; an optimiser would spread it over all weights."""
    if all_finite([p.grad for p in net.parameters() if p.grad is not None]):
        return
    name = first_not_finite((name, p.grad) for name, p in net.named_parameters() if p.grad is not None)
    raise LossNotFiniteError(f"the gradient of {name} is not finite")


def _clamp(net: Network) -> None:
    """Clamp learned float weights to the range that the device can represent."""
    with torch.no_grad():
        for projection, limit in zip(net.projections, net.weight_limits(), strict=True):
            if limit is not None and projection.synapses.learned:
                projection.synapses.weight.clamp_(-limit, limit)
