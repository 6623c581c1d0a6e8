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

Recurrent synapses V share the synaptic inputs: their currents are a part of `I_g`, and the gradient of a spike needs
the charges that it causes at all inputs::

    F[t] = dL/dtrace[t] + surrogate'(U[t] - 1) (dL/dspikes[t] + sum_g sign_g V_g^T G_g[t]) + beta F[t+1]

A refractory period that gradients know (`held.py`) multiplies the slope of each input by the share of the step in which
the membrane is free, and stops F at membranes that are not carried over.

Synaptic inputs are ordered by circuit, excitation first. A weight of 0 counts as excitatory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hxtrain.neurons.model import Model, Saturation
from hxtrain.neurons.psp import GridEvents, decaying_sum, decaying_sum_of_later

from . import held


def by_input(weight: Tensor, saturation: Saturation, circuits: int) -> Tensor:
    """Return signed weights `[N, J]` for each synaptic input `[G N, J]`; weights of other inputs are zero.

    Args:
        weight: Weights `[N, J]`.
        saturation: Saturation of these weights' inputs.
        circuits: Number of circuits of a neuron, G / 2.
    """
    return (weight * _members(weight, saturation, circuits)).flatten(0, 1)


def gradient(
    model: Model,
    weight: Tensor,
    inputs: Tensor | GridEvents,
    spikes: Tensor | None,
    grad_membrane: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of each step's charge at each synaptic input `[T, B, G N]` and of the weights `[N, J]`.

    Args:
        model: Model of the layer, with a saturation.
        weight: Weights of the layer `[N, J]`.
        inputs: Spikes `[T, B, J]`, or input events.
        spikes: Spikes of the layer `[T, B, N]`; None for a readout.
        grad_membrane: Gradient of the loss with respect to the membranes `[T, B, N]`, surrogate derivatives included.
    """
    saturation = model.saturation
    assert saturation is not None
    circuits = saturation.circuits(weight.shape[1])
    gates = _gates(model, _drive(by_input(weight, saturation, circuits).abs(), inputs), len(weight))
    if model.holds_gradient and spikes is not None:
        charge = held.charges(model, spikes, grad_membrane, None, None, gates)
    else:
        grad_total = decaying_sum_of_later(grad_membrane, model.beta, 0)
        grad_current = gates * grad_total[:, :, None]
        charge = decaying_sum_of_later(grad_current.flatten(2), model.alpha, 1).contiguous()
    return charge, _weight_gradient(weight, saturation, circuits, inputs, charge)


def recurrent_gradient(
    model: Model,
    weights: tuple[Tensor, Tensor],
    inputs: Tensor | GridEvents,
    spikes: Tensor,
    grad_membrane: Tensor,
    slopes: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of each step's charge `[T, B, G N]`, of the weights and of the recurrent weights.

    Args:
        model: Model of the layer, with a saturation of both weights.
        weights: Weights of the layer `[N, J]` and its recurrent weights `[N, N]`.
        inputs: Spikes `[T, B, J]`, or input events.
        spikes: Spikes of the layer `[T, B, N]`.
        grad_membrane: Gradient of the membranes `[T, B, N]` without that through recurrent synapses and later steps.
        slopes: Surrogate derivatives `[T, B, N]`.

    Raises:
        ValueError: the model has no saturation of the recurrent weights.
    """
    weight, recurrent = weights
    saturation = model.saturation
    assert saturation is not None
    shared = saturation.shared()
    neurons = slopes.shape[2]
    circuits = saturation.circuits(weight.shape[1], neurons)
    feedback_rows = by_input(recurrent, shared, circuits)
    drive = _drive(by_input(weight, saturation, circuits).abs(), inputs)
    drive = drive + _drive(feedback_rows.abs() * (saturation.limit / shared.limit), spikes)
    gates = _gates(model, drive, neurons)
    if model.holds_gradient:
        charge = held.charges(model, spikes, grad_membrane, slopes, feedback_rows, gates)
    else:
        charge = _charges_through_time(model, feedback_rows, grad_membrane, slopes, gates)
    grad_recurrent = _weight_gradient(recurrent, shared, circuits, spikes, charge)
    return charge, _weight_gradient(weight, saturation, circuits, inputs, charge), grad_recurrent


def _charges_through_time(
    model: Model, feedback_rows: Tensor, grad_membrane: Tensor, slopes: Tensor, gates: Tensor
) -> Tensor:
    """Return the gradient of each step's charge at each synaptic input `[T, B, G N]` of a recurrent layer.

    Args:
        model: Model of the layer.
        feedback_rows: Recurrent weights of each synaptic input `[G N, N]`.
        grad_membrane: As in `recurrent_gradient`.
        slopes: As in `recurrent_gradient`.
        gates: Slopes of the saturation `[T, B, G, N]`.
    """
    charge = slopes.new_zeros(gates.shape)
    total = torch.zeros_like(slopes[0])
    for t in range(len(charge) - 1, 0, -1):
        feedback = charge[t].flatten(1) @ feedback_rows
        total = model.beta * total + grad_membrane[t] + slopes[t] * feedback
        charge[t - 1] = model.alpha * charge[t] + gates[t] * total[:, None]
    return charge.flatten(2)


def slope(x: Tensor) -> Tensor:
    """Return `1 - tanh(x)^2`, for x >= 0."""
    y = x * x
    return 1 - (x * (945 + y * (105 + y)) / (945 + y * (420 + 15 * y))).clamp(max=1).square()


def _drive(rows: Tensor, inputs: Tensor | GridEvents) -> Tensor:
    """Return the summed weights of each step's inputs at each synaptic input, `[T, B, G N]`."""
    return inputs.drive(rows) if isinstance(inputs, GridEvents) else inputs @ rows.t()


def _gates(model: Model, drive: Tensor, neurons: int) -> Tensor:
    """Return the slopes of the saturation at the currents that a drive `[T, B, G N]` causes, `[T, B, G, N]`."""
    assert model.saturation is not None
    steps, batch, _ = drive.shape
    current = decaying_sum(drive, model.alpha, 1).view(steps, batch, -1, neurons)
    return slope(current / model.saturation.limit)


def _weight_gradient(
    weight: Tensor, saturation: Saturation, circuits: int, inputs: Tensor | GridEvents, charge: Tensor
) -> Tensor:
    """Return the gradient of weights `[N, J]` from that of the charges at all synaptic inputs `[T, B, G N]`."""
    if isinstance(inputs, GridEvents):
        grad_rows = inputs.weight_gradient(charge)
    else:
        grad_rows = charge.flatten(0, 1).t() @ inputs.flatten(0, 1)
    members = _members(weight, saturation, circuits)
    return (grad_rows.view(members.shape) * members).sum(0)


def _members(weight: Tensor, saturation: Saturation, circuits: int) -> Tensor:
    """Return the synaptic input that each weight belongs to, as zeros and ones `[G, N, J]`."""
    sources = torch.arange(weight.shape[1], device=weight.device) + saturation.first_input
    numbers = torch.arange(circuits, device=weight.device)
    is_source = numbers[:, None] == sources // saturation.per_circuit
    exciting = (weight >= 0)[None]
    signs = torch.stack([exciting, ~exciting], 1)
    return (is_source[:, None, None] & signs).flatten(0, 1).to(weight.dtype)
