r"""The twin: an ideal software model of the network, on the grid of the traces.

    I[t+1] = alpha I[t] + W x[t] + V S[t]     V: recurrent weights, if any
    U[t+1] = beta U[t] + I[t+1] - S[t]        soft reset by subtraction, no refractory period
    S[t]   = 1 where U[t] > 1

with float weights (Cramer, Billaudelle et al., PNAS 2022, software reference). `compiled` does these steps on the CPU,
`triton_kernels` on a GPU. For all else, `respond` does it in torch: resets and recurrent synapses only add to the
linear response to x, so the drive of all steps is computed at once, and the loop over time carries what the
population's own spikes leave behind.

`follow` returns the membranes that belong to *given* spikes, such as measured ones (network.traces=spikes_only). These
are linear in x and S, so that no loop over time is left: `U = K (W x + V S) - R S` with the Toeplitz matrices of
the post-synaptic potential, K, and of the reset, `R[t, s] = beta^(t - s - 1)` for t > s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hxtrain.backends import Circuit

from .activity import LayerActivity, layer_activity
from .learning import Fired, GridEvents, Model, UnrecordedMembranes, compiled, decay, gpu, over_time, psp_matrix

if TYPE_CHECKING:
    from .network import Network


def simulate(net: Network, weights: list[Tensor], events: GridEvents, recorded: bool = True) -> list[LayerActivity]:
    """Run the network in software; returns spikes and membranes `[T, B, N]` of each layer.

    Args:
        net: network. weights: of each projection. events: inputs.
        recorded: whether membranes of hidden layers will be needed; else they are computed again if they are.
    """
    result: list[LayerActivity] = []
    before: GridEvents | Fired = events
    for layer, (weight, *own) in zip(net.layers, net.by_layer(weights), strict=True):
        model, recurrent, spiking = net.model(layer), own[0] if own else None, layer.neurons.spiking
        shape = events.steps, events.samples, layer.neurons.size
        membrane: Tensor | UnrecordedMembranes
        if compiled.supports(weight, model):
            keep = recorded or not spiking
            grouped, membrane = compiled.respond(weight, before.grouped, shape, model, spiking, recurrent, keep)
            fired = None if grouped is None else Fired(None, grouped, shape, weight.dtype)
            if grouped is not None and not keep:
                copy = None if recurrent is None else recurrent.detach().clone()
                membrane = UnrecordedMembranes(weight.detach().clone(), copy, before.grouped, grouped, shape, model)
        else:
            inputs = before.grid if isinstance(before, Fired) else before
            spikes, membrane = respond(weight, inputs, shape, model, spiking, recurrent)
            fired = None if spikes is None else Fired(spikes)
        result.append(layer_activity(fired, membrane))
        before = before if fired is None else fired
    return result


def respond(
    weight: Tensor,
    inputs: GridEvents | Tensor,
    shape: tuple[int, int, int],
    model: Model,
    spiking: bool,
    recurrent: Tensor | None,
) -> tuple[Tensor | None, Tensor]:
    """Return spikes (None for a readout) and membranes `[T, B, N]` of a layer.

    Args:
        weight: `[N, J]`.
        inputs: events, or spikes `[T, B, J]`.
        shape: T, B, N.
        model: of the layer.
        spiking: whether it fires. recurrent: weights `[N, N]`, if any.
    """
    drive = inputs @ weight.t() if isinstance(inputs, Tensor) else inputs.drive(weight)
    if gpu.supports(drive, model, recurrent):
        found: tuple[Tensor | None, Tensor] = gpu.kernels().respond(drive.detach(), model, spiking)
        return found
    matrix = psp_matrix(shape[0], model.alpha, model.beta, weight.dtype, weight.device)
    trace = over_time(matrix, drive)
    return (fire(trace, model.alpha, model.beta, recurrent) if spiking else None), trace


def fire(membrane: Tensor, alpha: float, beta: float, recurrent: Tensor | None = None) -> Tensor:
    """Return the spikes of a free membrane `[T, B, N]`, and put their effects into it in place.

    Args:
        membrane: response to the inputs alone; afterwards with resets and recurrent potentials.
        alpha, beta: decay of synaptic current and membrane per step.
        recurrent: weights `[N, N]`, if any.
    """
    spikes = torch.empty_like(membrane)
    missing = torch.zeros_like(membrane[0])
    current = torch.zeros_like(membrane[0])
    for u, s in zip(membrane.unbind(0), spikes.unbind(0), strict=True):
        u.sub_(missing)
        torch.gt(u, 1.0, out=s)
        missing.mul_(beta).add_(s)
        if recurrent is not None:
            missing.sub_(current.addmm_(s, recurrent.t(), beta=alpha))
    return spikes


def hidden_membranes(
    circuit: Circuit, weights: Mapping[str, Sequence[Tensor]], events: GridEvents, fired: Mapping[str, Fired]
) -> dict[str, Tensor]:
    """Return the membranes `[T, B, N]` of all spiking populations, whose spikes are given.

    Args:
        circuit: the network.
        weights: onto each population: feed-forward ones and, if there are, recurrent ones.
        events: input events.
        fired: spikes of each spiking population.
    """
    found: dict[str, Tensor] = {}
    before: GridEvents | Fired = events
    for p in circuit.populations:
        if p.threshold is not None:
            weight, *own = weights[p.name]
            model = Model(decay(circuit.dt, p.tau_syn), decay(circuit.dt, p.tau_mem))
            found[p.name] = follow(weight, own[0] if own else None, before, fired[p.name], model)
            before = fired[p.name]
    return found


def follow(weight: Tensor, recurrent: Tensor | None, inputs: GridEvents | Fired, fired: Fired, model: Model) -> Tensor:
    """Return the membranes `[T, B, N]` of a layer whose spikes are given.

    Args:
        weight: `[N, J]`. recurrent: weights `[N, N]`, if any.
        inputs: events, or the spikes of the layer before.
        fired: the layer's own spikes.
        model: of the layer.
    """
    if compiled.supports(weight, model):
        return compiled.follow(weight, inputs.grouped, fired.grouped, fired.shape, model, recurrent)
    drive = inputs.grid @ weight.t() if isinstance(inputs, Fired) else inputs.drive(weight)
    if recurrent is not None:
        drive = drive + fired.grid @ recurrent.t()
    potential = psp_matrix(len(drive), model.alpha, model.beta, weight.dtype, weight.device)
    reset = psp_matrix(len(drive), 0.0, model.beta, weight.dtype, weight.device)  # as of a current of one step
    return over_time(potential, drive) - over_time(reset, fired.grid)
