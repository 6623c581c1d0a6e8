r"""The gradient of a layer whose synaptic inputs saturate (decision 0010).

A neuron of `C` merged circuits has `G = 2 C` synaptic inputs g, one for excitation and one for inhibition per circuit.
With the saturation q (`Model.saturation`)::

    I_g[t+1] = alpha I_g[t] + W_g x[t]                          W_g >= 0: the weights of one circuit and sign
    U[t+1]   = beta U[t] + sum_g sign_g q tanh(I_g[t+1] / q)

Backward, with `F = dL/dU` through all later steps, the gradient of a charge that arrives at input g in step t is ::

    F[t]     = dL/dU_direct[t] + beta F[t+1]
    G_g[t-1] = alpha G_g[t] + (1 - tanh(I_g[t] / q)^2) F[t]     (sign_g is in the weights)

where the currents are those of the model for the measured input spikes; all else is as in `readable.py`. In the limit
of infinite q, `G_g` is the gradient of the linear model for every g. The code computes `tanh` by its [5/4] Pade
approximant, limited to 1, whose slope differs from the exact one by less than 0.005.

Synaptic inputs are ordered by circuit, excitation first. A weight of 0 counts as excitatory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hxtrain.neurons.model import Model, Saturation
from hxtrain.neurons.psp import GridEvents, over_time


def by_input(weight: Tensor, saturation: Saturation) -> Tensor:
    """Return signed weights `[N, J]` for each synaptic input `[G N, J]`; weights of other inputs are zero."""
    return (weight * _members(weight, saturation)).flatten(0, 1)


def gradient(
    model: Model,
    weight: Tensor,
    inputs: Tensor | GridEvents,
    grad_membrane: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of each step's charge at each synaptic input `[T, B, G N]` and of the weights `[N, J]`.

    Args:
        model: Model of the layer, with a saturation.
        weight: Weights of the layer `[N, J]`.
        inputs: Spikes `[T, B, J]`, or input events.
        grad_membrane: Gradient of the loss with respect to the membranes `[T, B, N]`, surrogate derivatives included.
    """
    assert model.saturation is not None
    steps, batch, neurons = grad_membrane.shape
    rows = by_input(weight, model.saturation)
    drive = inputs.drive(rows.abs()) if isinstance(inputs, GridEvents) else inputs @ rows.abs().t()
    current = over_time(_decays(steps, model.alpha, drive, 1), drive).view(steps, batch, -1, neurons)
    grad_total = over_time(_decays(steps, model.beta, drive, 0).t(), grad_membrane)
    grad_current = slope(current / model.saturation.limit) * grad_total[:, :, None]
    charge = over_time(_decays(steps, model.alpha, drive, 1).t(), grad_current.flatten(2)).contiguous()
    if isinstance(inputs, GridEvents):
        grad_rows = inputs.weight_gradient(charge)
    else:
        grad_rows = charge.flatten(0, 1).t() @ inputs.flatten(0, 1)
    members = _members(weight, model.saturation)
    return charge, (grad_rows.view(members.shape) * members).sum(0)


def slope(x: Tensor) -> Tensor:
    """Return `1 - tanh(x)^2`, for x >= 0."""
    y = x * x
    return 1 - (x * (945 + y * (105 + y)) / (945 + y * (420 + 15 * y))).clamp(max=1).square()


def _members(weight: Tensor, saturation: Saturation) -> Tensor:
    """Return the synaptic input that each weight belongs to, as zeros and ones `[G, N, J]`."""
    sources = torch.arange(weight.shape[1], device=weight.device) + saturation.first_input
    circuits = torch.arange(saturation.circuits(weight.shape[1]), device=weight.device)
    is_source = circuits[:, None] == sources // saturation.per_circuit
    exciting = (weight >= 0)[None]
    signs = torch.stack([exciting, ~exciting], 1)
    return (is_source[:, None, None] & signs).flatten(0, 1).to(weight.dtype)


def _decays(steps: int, decay: float, like: Tensor, min_lag: int) -> Tensor:
    """Return the Toeplitz matrix `[T, T]` of `decay^(lag - min_lag)` for lags of at least `min_lag` steps."""
    lag = torch.arange(steps)[:, None] - torch.arange(steps)[None, :]
    return torch.where(lag >= min_lag, decay ** (lag - min_lag).clamp(min=0).double(), 0.0).to(like)
