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
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .psp import GridEvents, over_time
from .surrogate import Surrogate


class _Layer(torch.autograd.Function):
    """A measured layer: (weight, inputs) -> (spikes, trace)."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        inputs: Tensor | None,
        events: GridEvents | None,
        spikes: Tensor | None,
        trace: Tensor,
        matrix: Tensor,
        surrogate: Surrogate,
        slope: float,
        at_threshold: bool,
    ) -> tuple[Tensor | None, Tensor]:
        ctx.save_for_backward(weight, inputs, trace, matrix, spikes if at_threshold else None)
        ctx.events, ctx.surrogate, ctx.slope = events, surrogate, slope
        ctx.set_materialize_grads(False)
        return (None if spikes is None else spikes.view_as(spikes)), trace.view_as(trace)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_trace: Tensor | None) -> tuple[Any, ...]:
        weight, inputs, trace, matrix, spikes = ctx.saved_tensors
        grad_membrane = grad_trace
        if grad_spikes is not None:
            grad_membrane = ctx.surrogate(_distance(trace, spikes), ctx.slope).mul_(grad_spikes)
            if grad_trace is not None:
                grad_membrane = grad_membrane.add_(grad_trace)
        if grad_membrane is None:
            return (None,) * 9
        charge = over_time(matrix.t(), grad_membrane)
        grad_weight = grad_inputs = None
        if ctx.needs_input_grad[0]:
            grad_weight = _weight_gradient(charge, inputs, ctx.events)
        if ctx.needs_input_grad[1]:
            grad_inputs = charge @ weight
        return grad_weight, grad_inputs, None, None, None, None, None, None, None


def _distance(trace: Tensor, spikes: Tensor | None) -> Tensor:
    """Return the membrane's distance from the threshold; zero at the spikes given."""
    distance = trace - 1
    return distance if spikes is None else distance.addcmul_(distance, spikes, value=-1)


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

    Returns:
        Spikes and trace with the values given and the gradient of the model.
    """
    if isinstance(inputs, GridEvents):
        dense, events = None, inputs
    else:
        dense, events = inputs, None
    result: tuple[Tensor | None, Tensor] = _Layer.apply(  # type: ignore[no-untyped-call]
        weight, dense, events, spikes, trace, matrix, surrogate, slope, at_threshold
    )
    return result
