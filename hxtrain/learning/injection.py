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

from the last step to the first: the only loop over time, and there is none forward.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .psp import GridEvents, over_time
from .surrogate import Surrogate


class Feedback(NamedTuple):
    """Recurrent synapses: weights `[N, N]`, decay of current (`alpha`) and membrane (`beta`) per step."""

    weight: Tensor
    alpha: float
    beta: float


class _Layer(torch.autograd.Function):
    """A measured layer: (weight, recurrent weight, inputs) -> (spikes, trace)."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        recurrent: Tensor | None,
        inputs: Tensor | None,
        events: GridEvents | None,
        spikes: Tensor | None,
        trace: Tensor,
        matrix: Tensor,
        surrogate: Surrogate,
        slope: float,
        at_threshold: bool,
        decays: tuple[float, float] | None,
    ) -> tuple[Tensor | None, Tensor]:
        kept = spikes if at_threshold or recurrent is not None else None
        ctx.save_for_backward(weight, recurrent, inputs, trace, matrix, kept)
        ctx.events, ctx.surrogate, ctx.slope = events, surrogate, slope
        ctx.at_threshold, ctx.decays = at_threshold, decays
        ctx.set_materialize_grads(False)
        return (None if spikes is None else spikes.view_as(spikes)), trace.view_as(trace)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_trace: Tensor | None) -> tuple[Any, ...]:
        weight, recurrent, inputs, trace, matrix, spikes = ctx.saved_tensors
        if grad_spikes is None and grad_trace is None:
            return (None,) * 11
        slopes: Any = None
        if grad_spikes is not None or recurrent is not None:
            slopes = ctx.surrogate(_distance(trace, spikes if ctx.at_threshold else None), ctx.slope)
        grad_membrane: Any = grad_trace
        if grad_spikes is not None:
            grad_membrane = slopes.mul_(grad_spikes) if recurrent is None else slopes * grad_spikes
            if grad_trace is not None:
                grad_membrane = grad_membrane.add_(grad_trace)
        if recurrent is None:
            charge = over_time(matrix.t(), grad_membrane)
        else:
            charge = _charge_through_time(grad_membrane, slopes, recurrent, *ctx.decays)
        grad_weight = grad_recurrent = grad_inputs = None
        if ctx.needs_input_grad[0]:
            grad_weight = _weight_gradient(charge, inputs, ctx.events)
        if ctx.needs_input_grad[1]:
            grad_recurrent = _weight_gradient(charge, spikes, None)
        if ctx.needs_input_grad[2]:
            grad_inputs = charge @ weight
        return grad_weight, grad_recurrent, grad_inputs, *(None,) * 8


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


def _weight_gradient(charge: Tensor, inputs: Tensor | None, events: GridEvents | None) -> Tensor:
    if events is not None:
        return events.weight_gradient(charge)
    assert inputs is not None
    return charge.flatten(0, 1).t() @ inputs.flatten(0, 1)


def measured_layer(
    weight: Tensor,
    inputs: Tensor | GridEvents,
    spikes: Tensor | None,
    trace: Tensor,
    matrix: Tensor,
    surrogate: Surrogate,
    slope: float,
    at_threshold: bool = True,
    feedback: Feedback | None = None,
) -> tuple[Tensor | None, Tensor]:
    """Put a measured layer into the graph.

    Args:
        weight: float weights `[N, J]`.
        inputs: spikes of the layer before `[T, B, J]`, or input events.
        spikes: measured spikes `[T, B, N]`; None for a readout.
        trace: measured membrane `[T, B, N]`, leak 0, threshold 1.
        matrix: `[T, T]` of `psp_matrix`.
        surrogate, slope: derivative of the spike.
        at_threshold: take the membrane to be at its threshold in bins with a spike, instead of the
            sample of that bin.
        feedback: recurrent synapses of the layer, if any.

    Returns:
        Spikes and trace with the values given and the gradient of the model.
    """
    if isinstance(inputs, GridEvents):
        dense, events = None, inputs
    else:
        dense, events = inputs, None
    recurrent = None if feedback is None else feedback.weight
    decays = None if feedback is None else (feedback.alpha, feedback.beta)
    result: tuple[Tensor | None, Tensor] = _Layer.apply(  # type: ignore[no-untyped-call]
        weight, recurrent, dense, events, spikes, trace, matrix, surrogate, slope, at_threshold, decays
    )
    return result
