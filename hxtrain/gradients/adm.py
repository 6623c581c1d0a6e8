r"""Approximate derivatives of spiking neurons from their spikes alone (Lee et al., Frontiers in Neuroscience 14, 2020).

A neuron without leak fires in proportion to its summed input. A leak costs spikes; the authors correct the derivative
of the number of spikes n by the leaky sum of the neuron's own spikes at the end of the trial::

    a' = 1[n > 0] (1 + ln(lambda) LF / n) / theta      LF = sum over spikes k of lambda^(T - t_k)

Here the threshold theta is 1, lambda = beta is the decay of the membrane per step, and T the last step. As in the
authors' code, an error that reaches a spike belongs to the inputs since the last spike of the neuron, summed without a
leak; synaptic currents, which the authors do not have, last as long as they do in the model. With the gradient e of the
spikes and alpha, the decay of the currents, from the last step to the first::

    v[t]     = a' e[t] where the neuron fires, else v[t + 1]
    G[t - 1] = alpha G[t] + v[t]           gradient of the charge that arrives in step t - 1
    dL/dW    = sum_t,b G[t, b] x[t, b]^T   dL/dx = G W

No membrane of a hidden population is read. A readout is linear, and its gradient exact. Recurrent weights get the
gradient of their charges; errors do not travel through recurrent synapses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hxtrain.neurons import GridEvents, MeasuredLayer, Model, full_precision
from hxtrain.neurons.threads import edges_of, run_loop

from . import adm_kernel as kernel
from .gradient import Gradient
from .injection import measured_layers

M = TypeVar("M", bound=MeasuredLayer)


def derivative(spikes: Tensor, decay: float) -> Tensor:
    """Return the approximate derivative a' of the number of spikes `[B, N]`.

    Args:
        spikes: Spikes of a population `[T, B, N]`.
        decay: Decay of the membrane per step, lambda.
    """
    steps = len(spikes)
    weights = decay ** torch.arange(steps - 1, -1, -1, dtype=spikes.dtype, device=spikes.device)
    leaky = torch.tensordot(weights, spikes, 1)
    counts = spikes.sum(0)
    return torch.where(counts > 0, 1 + math.log(decay) * leaky / counts.clamp(min=1), 0.0)


def charges(spikes: Tensor, errors: Tensor, alpha: float, beta: float) -> Tensor:
    """Return the gradient of the charge that arrives in each step `[T, B, N]`.

    Args:
        spikes: Spikes of a population `[T, B, N]`.
        errors: Gradient of each spike `[T, B, N]`.
        alpha: Decay of the synaptic currents per step.
        beta: Decay of the membranes per step.
    """
    slopes = derivative(spikes, beta)
    if spikes.device.type == "cpu":
        result = torch.empty_like(spikes)
        number = result.numpy().dtype.type
        arrays = (
            spikes.contiguous().numpy(),
            errors.to(spikes).contiguous().numpy(),
            slopes.numpy(),
            number(alpha),
            result.numpy(),
        )
        run_loop(kernel.charges, edges_of(spikes.shape[1], spikes.numel()), *arrays)
        return result
    credits = errors * slopes
    fires = spikes > 0
    value = torch.zeros_like(errors[0])
    charge = torch.zeros_like(errors[0])
    result = torch.zeros_like(errors)
    for t in range(len(spikes) - 1, 0, -1):
        value = torch.where(fires[t], credits[t], value)
        charge = torch.add(value, charge, alpha=alpha)
        result[t - 1] = charge
    return result


class _Population(torch.autograd.Function):
    """A measured population: (upstream spikes, weights, recurrent weights) -> (spikes, numbers of spikes)."""

    @staticmethod
    def forward(
        ctx: Any,
        upstream: Tensor | GridEvents,
        layer: MeasuredLayer,
        model: Model,
        weight: Tensor,
        recurrent: Tensor | None,
        *spikes: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weight, recurrent, *spikes)
        ctx.upstream = upstream
        ctx.fired = layer.fired
        ctx.model = model
        ctx.set_materialize_grads(False)
        anchor = weight.new_empty(())
        shape = layer.membrane.shape
        return anchor.expand(shape), anchor.expand(shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_counts: Tensor | None) -> tuple[Any, ...]:
        weight, _, *upstream = ctx.saved_tensors
        if grad_spikes is None and grad_counts is None:
            return (None,) * (5 + len(upstream))
        with full_precision(weight.device):
            spikes = ctx.fired.grid
            errors = torch.zeros_like(spikes) if grad_spikes is None else grad_spikes
            errors = errors if grad_counts is None else errors + grad_counts
            charge = charges(spikes, errors, ctx.model.alpha, ctx.model.beta)
            is_weight, is_recurrent = ctx.needs_input_grad[3:5]
            grad_weight = _onto(charge, upstream[0] if upstream else ctx.upstream) if is_weight else None
            grad_recurrent = _onto(charge, spikes) if is_recurrent else None
            return None, None, None, grad_weight, grad_recurrent, *(charge @ weight for _ in upstream)


def _onto(charge: Tensor, inputs: Tensor | GridEvents) -> Tensor:
    """Return the gradient of weights `[N, J]`, of charges `[T, B, N]` and inputs `[T, B, J]`."""
    if isinstance(inputs, GridEvents):
        return inputs.weight_gradient(charge)
    return charge.flatten(0, 1).t() @ inputs.flatten(0, 1)


@dataclass
class ADMGradient(Gradient):
    """Approximate derivatives of the numbers of spikes, for losses of membranes or spikes; it has no settings."""

    reads_membranes: ClassVar[bool] = False

    def attach(
        self,
        weights: Sequence[tuple[Tensor, Tensor | None]],
        events: GridEvents,
        layers: Sequence[M],
        models: Sequence[Model],
    ) -> list[M]:
        """Return the measured layers with approximate gradients; see `Gradient.attach` for the arguments."""
        result: list[M] = []
        upstream: Tensor | GridEvents = events
        for pair, layer, model in zip(weights, layers, models, strict=True):
            if layer.fired is None:
                result += measured_layers([pair], upstream, [layer], [model])
                continue
            spikes = () if isinstance(upstream, GridEvents) else (upstream,)
            anchors = _Population.apply(upstream, layer, model, *pair, *spikes)  # type: ignore[no-untyped-call]
            attached = replace(layer, anchors=(anchors[0], None, anchors[1]))
            result.append(attached)
            upstream = attached.spikes if attached.spikes is not None else events
        return result

    def check(self, recurrent: Sequence[bool], saturation: float | None) -> list[str]:
        """Refuse a saturation; see `Gradient.check` for the arguments."""
        if saturation is None:
            return []
        return [f"saturation={saturation:g} is not known to gradient=adm; leave it out"]
