r"""The gradient of a measured pass.

Forward, a layer returns what was measured; backward, the gradient runs through the model of
`psp.py`. With measured traces the resets are in the data, so that for a feed-forward layer

    dL/dU = dL/dtrace + dL/dspikes * surrogate'(U_measured - 1)
    G     = K^T dL/dU                      one [T, T] product, no loop over time
    dL/dW = sum_t,b G[t, b] x[t, b]^T      a sum over events for event inputs
    dL/dx = G W

which equals step-by-step backpropagation with the measured value injected at every step
(Cramer, Billaudelle et al., PNAS 2022): there `U[t+1] = beta inject(U[t], measured[t]) + I[t+1]`,
and `inject` passes gradients unchanged.

A trace is sampled every 1.7 us, so the sample of a bin with a spike was taken some time before the
membrane reached its threshold. The spike itself says where the membrane was between the samples:
at the threshold. `at_threshold` uses this for the surrogate's argument (decision 0002).

Recurrent synapses V add `V S[t]` to the current, so that a spike's gradient needs the charges behind it::

    G[t]     = dL/dI[t+1]
    dL/dU[t] = dL/dtrace[t] + surrogate'(U[t] - 1) (dL/dspikes[t] + V^T G[t]) + beta dL/dU[t+1]
    G[t-1]   = alpha G[t] + dL/dU[t]
    dL/dV    = sum_t,b G[t, b] S[t, b]^T

from the last step to the first.

Two engines compute the same: `readable` here, in torch, for any device and precision, without a loop over time unless
the layer is recurrent; and `compiled`, on the CPU, whose loop over time stays in the cache (decision 0008).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import compiled
from .compiled import Grouped
from .model import Model
from .psp import GridEvents, over_time, psp_matrix


class _Layer(torch.autograd.Function):
    """A measured layer: (weight, recurrent weight, inputs) -> (spikes, trace, numbers of spikes)."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        recurrent: Tensor | None,
        inputs: Tensor | None,
        events: GridEvents | None,
        grouped: Grouped | None,
        spikes: Tensor | None,
        trace: Tensor,
        counts: Tensor | None,
        model: Model,
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        kept = spikes if model.at_threshold or recurrent is not None else None
        ctx.save_for_backward(weight, recurrent, inputs, trace, kept)
        ctx.events, ctx.grouped, ctx.model = events, grouped, model
        ctx.set_materialize_grads(False)
        return _seen(spikes), trace.view_as(trace), _seen(counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        weight, recurrent, inputs, trace, spikes = ctx.saved_tensors
        grad_spikes, grad_trace, grad_counts = grads
        if all(grad is None for grad in grads):
            return (None,) * 9
        for_weight, for_recurrent, for_inputs = ctx.needs_input_grad[:3]
        model, events = ctx.model, ctx.events if for_weight else None
        fast = compiled.supports(trace, model)
        if recurrent is None and fast:
            grouped = None
            if for_weight:
                grouped = ctx.grouped if events is None else events.grouped
            charges = for_inputs or (for_weight and grouped is None)
            charge, grad_weight = compiled.gradient(
                model, spikes, trace, grad_spikes, grad_counts, grad_trace, grouped, charges
            )
        else:
            if grad_counts is not None:
                grad_spikes = grad_counts.expand_as(trace) if grad_spikes is None else grad_spikes + grad_counts
            charge, grad_weight = gradient(model, spikes, trace, grad_spikes, grad_trace, events, recurrent)
        if for_weight and grad_weight is None:
            grad_weight = _product(charge, inputs)
        grad_recurrent = _product(charge, spikes) if for_recurrent else None
        grad_inputs = None
        if for_inputs and charge is not None:
            grad_inputs = compiled.grad_inputs(charge, weight) if fast else charge @ weight
        return grad_weight, grad_recurrent, grad_inputs, *(None,) * 6


def _seen(tensor: Tensor | None) -> Tensor | None:
    """Return an output that shares an input's memory."""
    return None if tensor is None else tensor.view_as(tensor)


def gradient(
    model: Model,
    spikes: Tensor | None,
    trace: Tensor,
    grad_spikes: Tensor | None,
    grad_trace: Tensor | None,
    events: GridEvents | None,
    recurrent: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of each step's charge `[T, B, N]` and of the weights of input events `[N, J]`.

    Args:
        model: of the layer.
        spikes: as measured `[T, B, N]`; in use where the model or recurrence asks for them.
        trace: as measured `[T, B, N]`.
        grad_spikes, grad_trace: gradients of the loss `[T, B, N]`; not both None.
        events: inputs; None: no gradient of weights.
        recurrent: weights `[N, N]`, if any.
    """
    slopes: Any = None
    if grad_spikes is not None or recurrent is not None:
        slopes = model.surrogate(_distance(trace, spikes if model.at_threshold else None), model.slope)
    grad_membrane: Any = grad_trace
    if grad_spikes is not None:
        grad_membrane = slopes.mul_(grad_spikes) if recurrent is None else slopes * grad_spikes
        if grad_trace is not None:
            grad_membrane = grad_membrane.add_(grad_trace)
    if recurrent is None:
        matrix = psp_matrix(len(trace), model.alpha, model.beta, trace.dtype, trace.device)
        charge = over_time(matrix.t(), grad_membrane)
    else:
        charge = _charge_through_time(grad_membrane, slopes, recurrent, model.alpha, model.beta)
    return charge, None if events is None else events.weight_gradient(charge)


def _distance(trace: Tensor, spikes: Tensor | None) -> Tensor:
    """Return the membrane's distance from the threshold; zero at the spikes given."""
    distance = trace - 1
    return distance if spikes is None else distance.addcmul_(distance, spikes, value=-1)


def _charge_through_time(grad_membrane: Tensor, slopes: Tensor, recurrent: Tensor, alpha: float, beta: float) -> Tensor:
    """Return the gradient `[T, B, N]` of the charge that arrives in each step of a recurrent layer.

    Args:
        grad_membrane: what comes from outside the layer. slopes: surrogate derivatives.
        recurrent: weights `[N, N]`. alpha, beta: decay of synaptic current and membrane per step.
    """
    charge = torch.empty_like(slopes)
    charge[-1] = 0
    behind, fed_back = torch.zeros_like(charge[0]), torch.empty_like(charge[0])
    for t in range(len(charge) - 1, 0, -1):
        torch.mm(charge[t], recurrent, out=fed_back)
        behind.mul_(beta).add_(grad_membrane[t]).addcmul_(slopes[t], fed_back)
        torch.add(behind, charge[t], alpha=alpha, out=charge[t - 1])
    return charge


def _product(charge: Tensor | None, inputs: Tensor) -> Tensor | None:
    """Return the gradient of weights behind inputs `[T, B, J]`."""
    return None if charge is None else charge.flatten(0, 1).t() @ inputs.flatten(0, 1)


def measured_layer(
    weight: Tensor,
    inputs: Tensor | GridEvents,
    spikes: Tensor | None,
    trace: Tensor,
    model: Model,
    recurrent: Tensor | None = None,
    counts: Tensor | None = None,
    grouped: Grouped | None = None,
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Put a measured layer into the graph.

    Args:
        weight: float weights `[N, J]`.
        inputs: spikes of the layer before `[T, B, J]`, or input events.
        spikes: measured spikes `[T, B, N]`; None for a readout.
        trace: measured membrane `[T, B, N]`, leak 0, threshold 1.
        model: through which gradients run.
        recurrent: weights of the layer's own synapses `[N, N]`, if any.
        counts: numbers of spikes `[B, N]`, the sum of `spikes`, if wanted in the graph.
        grouped: the spikes of the layer before once more, as events, if at hand: saves a product with many zeros.

    Returns:
        Spikes, trace and counts with the values given and the gradient of the model.
    """
    dense, events = (None, inputs) if isinstance(inputs, GridEvents) else (inputs, None)
    result: tuple[Tensor | None, Tensor, Tensor | None] = _Layer.apply(  # type: ignore[no-untyped-call]
        weight, recurrent, dense, events, grouped, spikes, trace, counts, model
    )
    return result
