"""The gradient of layers whose membranes are held after a spike, through time in torch (decision 0023).

The model of `readable.step_by_step`, with the share f of each step in which a membrane is free, and with c = 1 where a
membrane is carried over from the previous step (f = 1, and no spike there), else 0::

    U[t+1]   = f[t+1] I[t+1] + c[t+1] beta U[t]
    F[t]     = dL/dtrace[t] + surrogate'(U[t] - 1) (dL/dspikes[t] + V^T G[t]) + c[t+1] beta F[t+1]
    G[t-1]   = alpha G[t] + f[t] F[t]

`F = dL/dU` and `G[t] = dL/dI[t+1]`. With f = c = 1 this is the gradient of the models that hold nothing. Where synaptic
inputs saturate, `f[t]` comes on top of the slope of each input (`saturation.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hxtrain.neurons.model import Model


def charges(
    model: Model,
    spikes: Tensor,
    grad_membrane: Tensor,
    slopes: Tensor | None,
    recurrent: Tensor | None,
    gates: Tensor | None = None,
) -> Tensor:
    """Return the gradient of each step's charge at each synaptic input `[T, B, G N]`; G is 1 without a saturation.

    Args:
        model: Model of the layer, with a hold.
        spikes: Spikes `[T, B, N]`.
        grad_membrane: Gradient of each step's membrane `[T, B, N]` without that of later steps and recurrent synapses.
        slopes: Surrogate derivatives `[T, B, N]`; used with recurrent weights.
        recurrent: Recurrent weights of each synaptic input `[G N, N]`; None without recurrence.
        gates: Slopes of the saturation `[T, B, G, N]`; None without a saturation.
    """
    free = free_shares(model, spikes)
    is_reset = (free[1:] < 1) | (spikes[:-1] > 0)
    factors = free[:, :, None] if gates is None else gates * free[:, :, None]
    charge = torch.empty_like(factors)
    charge[-1] = 0
    total = torch.zeros_like(grad_membrane[0])
    for t in range(len(charge) - 1, 0, -1):
        total += grad_membrane[t]
        if recurrent is not None and slopes is not None:
            total.addcmul_(slopes[t], charge[t].flatten(1) @ recurrent)
        torch.mul(charge[t], model.alpha, out=charge[t - 1]).addcmul_(factors[t], total[:, None])
        total.mul_(model.beta).masked_fill_(is_reset[t - 1], 0.0)
    return charge.flatten(2)


def free_shares(model: Model, spikes: Tensor) -> Tensor:
    """Return the share of each step in which membranes are free, `[T, B, N]`, for the spikes of a layer."""
    assert model.hold is not None
    free = torch.ones_like(spikes)
    rest = torch.zeros_like(spikes[0])
    for share, spike in zip(free[1:], spikes[:-1], strict=True):
        rest = torch.where(spike > 0, model.hold, rest)
        torch.sub(share, rest.clamp(max=1), out=share)
        rest = (rest - 1).clamp_(min=0)
    return free
