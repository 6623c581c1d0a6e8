r"""The twin: an ideal software model of the network, on the grid of the traces.

    I[t+1] = alpha I[t] + W x[t] + V S[t]     V: recurrent weights, if any
    U[t+1] = beta U[t] + I[t+1] - S[t]        soft reset by subtraction, no refractory period
    S[t]   = 1 where U[t] > 1

Weights are floats (Cramer, Billaudelle et al., PNAS 2022, software reference). `compiled` computes these steps on the
CPU, `triton_kernels` on a GPU. `respond` covers all other cases in torch: resets and recurrent synapses only add to the
linear response to x, so the drive of all steps is computed at once, and the loop over time carries the effects of the
population's spikes.

`follow` returns the membranes that belong to *given* spikes, such as measured ones (network.traces=spikes_only). These
are linear in x and S and need no loop over time: `U = K (W x + V S) - R S` with the Toeplitz matrices of
the post-synaptic potential, K, and of the reset, `R[t, s] = beta^(t - s - 1)` for t > s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hxtrain.backends import Circuit
from hxtrain.neurons import Fired, GridEvents, Model, UnrecordedMembranes, decay, over_time, psp_matrix
from hxtrain.neurons.engines import cpu as compiled
from hxtrain.neurons.engines import gpu

from .activity import LayerActivity, layer_activity
from .layers import Layer


def simulate(
    layers: Sequence[Layer],
    models: Sequence[Model],
    weights: Sequence[Sequence[Tensor]],
    events: GridEvents,
    recorded: bool = True,
) -> list[LayerActivity]:
    """Run layers in software; returns spikes and membranes `[T, B, N]` of each layer.

    Args:
        layers: layers from the first to the output.
        models: model of each layer.
        weights: float weights onto each layer: feed-forward ones and, if there are, recurrent ones.
        events: input events.
        recorded: whether membranes of hidden layers are stored; if not, they are computed again on demand.
    """
    result: list[LayerActivity] = []
    upstream: GridEvents | Fired = events
    for layer, model, (weight, *recurrent_weights) in zip(layers, models, weights, strict=True):
        recurrent = recurrent_weights[0] if recurrent_weights else None
        spiking = layer.neurons.spiking
        shape = events.steps, events.samples, layer.neurons.size
        membrane: Tensor | UnrecordedMembranes
        if compiled.supports(weight, model):
            is_stored = recorded or not spiking
            grouped, membrane = compiled.respond(weight, upstream.grouped, shape, model, spiking, recurrent, is_stored)
            fired = None if grouped is None else Fired(None, grouped, shape, weight.dtype)
            if grouped is not None and not is_stored:
                copy = None if recurrent is None else recurrent.detach().clone()
                membrane = UnrecordedMembranes(weight.detach().clone(), copy, upstream.grouped, grouped, shape, model)
        else:
            inputs = upstream.grid if isinstance(upstream, Fired) else upstream
            spikes, membrane = respond(weight, inputs, shape, model, spiking, recurrent)
            fired = None if spikes is None else Fired(spikes)
        result.append(layer_activity(fired, membrane))
        upstream = upstream if fired is None else fired
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
        weight: feed-forward weights `[N, J]`.
        inputs: input events, or spikes `[T, B, J]`.
        shape: numbers of time steps, samples and neurons, `(T, B, N)`.
        model: model of the layer.
        spiking: whether the layer fires.
        recurrent: recurrent weights `[N, N]`; None if there are none.
    """
    drive = inputs @ weight.t() if isinstance(inputs, Tensor) else inputs.drive(weight)
    if gpu.supports(drive, model, recurrent):
        response: tuple[Tensor | None, Tensor] = gpu.kernels().respond(drive.detach(), model, spiking)
        return response
    matrix = psp_matrix(shape[0], model.alpha, model.beta, weight.dtype, weight.device)
    trace = over_time(matrix, drive)
    return (fire(trace, model.alpha, model.beta, recurrent) if spiking else None), trace


def fire(membrane: Tensor, alpha: float, beta: float, recurrent: Tensor | None = None) -> Tensor:
    """Return the spikes of a free membrane `[T, B, N]`, and add their effects to the membrane in place.

    Args:
        membrane: response to the inputs alone, to which resets and recurrent potentials are added.
        alpha: decay of the synaptic current per step.
        beta: decay of the membrane per step.
        recurrent: recurrent weights `[N, N]`; None if there are none.
    """
    spikes = torch.empty_like(membrane)
    offset = torch.zeros_like(membrane[0])
    current = torch.zeros_like(membrane[0])
    for u, s in zip(membrane.unbind(0), spikes.unbind(0), strict=True):
        u.sub_(offset)
        torch.gt(u, 1.0, out=s)
        offset.mul_(beta).add_(s)
        if recurrent is not None:
            offset.sub_(current.addmm_(s, recurrent.t(), beta=alpha))
    return spikes


def hidden_membranes(
    circuit: Circuit, weights: Mapping[str, Sequence[Tensor]], events: GridEvents, fired: Mapping[str, Fired]
) -> dict[str, Tensor]:
    """Return the membranes `[T, B, N]` of all spiking populations for given spikes.

    Args:
        circuit: circuit of the network.
        weights: weights onto each population: feed-forward ones, then recurrent ones if any.
        events: input events.
        fired: spikes of each spiking population.
    """
    membranes: dict[str, Tensor] = {}
    upstream: GridEvents | Fired = events
    for p in circuit.populations:
        if p.threshold is not None:
            weight, *recurrent = weights[p.name]
            model = Model(decay(circuit.dt, p.tau_syn), decay(circuit.dt, p.tau_mem))
            membranes[p.name] = follow(weight, recurrent[0] if recurrent else None, upstream, fired[p.name], model)
            upstream = fired[p.name]
    return membranes


def follow(weight: Tensor, recurrent: Tensor | None, inputs: GridEvents | Fired, fired: Fired, model: Model) -> Tensor:
    """Return the membranes `[T, B, N]` of a layer for given spikes.

    Args:
        weight: feed-forward weights `[N, J]`.
        recurrent: recurrent weights `[N, N]`; None if there are none.
        inputs: input events, or the spikes of the upstream layer.
        fired: spikes of the layer.
        model: model of the layer.
    """
    if compiled.supports(weight, model):
        return compiled.follow(weight, inputs.grouped, fired.grouped, fired.shape, model, recurrent)
    drive = inputs.grid @ weight.t() if isinstance(inputs, Fired) else inputs.drive(weight)
    if recurrent is not None:
        drive = drive + fired.grid @ recurrent.t()
    potential = psp_matrix(len(drive), model.alpha, model.beta, weight.dtype, weight.device)
    reset = psp_matrix(len(drive), 0.0, model.beta, weight.dtype, weight.device)  # as for a current of one step
    return over_time(potential, drive) - over_time(reset, fired.grid)
