r"""The readable engine: a layer in torch, on any accelerator and in any precision. It is the reference for the others.

Forwards, the twin::

    I[t+1] = alpha I[t] + W x[t] + V S[t]     V: recurrent weights, if any
    U[t+1] = beta U[t] + I[t+1] - S[t]        soft reset by subtraction, no refractory period
    S[t]   = 1 where U[t] > 1

or, with a refractory period, which holds the membrane at the leak for `hold` steps after a spike (decision 0023)::

    U[t+1] = f[t+1] I[t+1] + (beta U[t] if f[t+1] = 1 and S[t] = 0, else 0)
    f[t+1] = 1 - min(h[t], 1)                 share of the step in which the membrane is free
    h[t]   = hold where S[t], else max(h[t-1] - 1, 0)

Without it, resets and recurrent synapses only add to the linear response to x. So the drive of all steps is computed
at once (`psp.py`), and the loop over time carries the effects of the population's spikes. For prescribed spikes, such
as measured ones, the membranes are linear in x and S and need no loop: `U = K (W x + V S) - R S` with the Toeplitz
matrices of the post-synaptic potential, K, and of the reset, `R[t, s] = beta^(t - s - 1)` for t > s. In long
trials they are the same filters, in blocks of steps (`psp.py`).

Backwards, a measured pass. The measured traces contain the resets, so that for a feed-forward layer::

    dL/dU = dL/dtrace + dL/dspikes * surrogate'(U_measured - 1)
    G     = K^T dL/dU                      one [T, T] product, no loop over time
    dL/dW = sum_t,b G[t, b] x[t, b]^T      a sum over events for event inputs
    dL/dx = G W

which equals step-by-step backpropagation with the measured value injected at every step
(Cramer, Billaudelle et al., PNAS 2022): there `U[t+1] = beta inject(U[t], measured[t]) + I[t+1]`,
and `inject` passes gradients unchanged.

A trace is sampled every 1.7 us, so the trace sample of a bin with a spike precedes the moment at which the membrane
reached its threshold. The spike itself says where the membrane was between the trace samples: at the threshold.
`at_threshold` uses this for the argument of the surrogate (decision 0002).

Recurrent synapses V add `V S[t]` to the current, so that the gradient of a spike needs the charges that it causes::

    G[t]     = dL/dI[t+1]
    dL/dU[t] = dL/dtrace[t] + surrogate'(U[t] - 1) (dL/dspikes[t] + V^T G[t]) + beta dL/dU[t+1]
    G[t-1]   = alpha G[t] + dL/dU[t]
    dL/dV    = sum_t,b G[t, b] S[t, b]^T

from the last step to the first. `saturation.py` has the gradient of synaptic inputs that saturate, `held.py` that of
membranes that are held.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.neurons.events import Grads
from hxtrain.neurons.measured import Codes, SpikeGrid
from hxtrain.neurons.model import Model
from hxtrain.neurons.psp import GridEvents, decaying_sum, potential, potential_gradient

from . import held, saturation
from .engine import Demand, Engine, LayerGradients, ModelLayer, weight_gradient


class GridEngine(Engine):
    """Common part of the engines that hold spikes as grids: the readable one and that for GPUs."""

    @abstractmethod
    def response(
        self, drive: Tensor, model: Model, spiking: bool, recurrent: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        """Return spikes (None for a readout) and membranes `[T, B, N]` of a layer of the twin with the drive `W x`."""

    @abstractmethod
    def charges(
        self,
        model: Model,
        spikes: Tensor | None,
        trace: Tensor,
        grad_spikes: Tensor | None,
        grad_trace: Tensor | None,
        recurrent: Tensor | None,
    ) -> Tensor:
        """Return the gradient of each step's charge `[T, B, N]`; the arguments are as in `charges` below."""

    def bin_spikes(self, spikes: Spikes, dt: float, steps: int, dtype: torch.dtype) -> SpikeGrid:
        """Return measured spikes on the time grid; see `Engine.bin_spikes`."""
        return SpikeGrid(spikes.to_grid(dt, steps, binary=True)).to(dtype)

    def membranes(self, codes: Tensor, unit: float, dtype: torch.dtype, deferred: bool) -> Tensor:
        """Return the membranes of codes; see `Engine.membranes`."""
        trace = codes.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        return trace.sub_(trace[0].clone()).mul_(1 / unit).to(dtype)

    def respond(self, layer: ModelLayer, spiking: bool, recorded: bool) -> tuple[SpikeGrid | None, Tensor]:
        """Run a layer of the twin; see `Engine.respond`. Membranes are always recorded."""
        spikes, trace = self.response(_drive(layer), layer.model, spiking, layer.recurrent)
        return (None if spikes is None else SpikeGrid(spikes)), trace

    def follow(self, layer: ModelLayer, spikes: SpikeGrid) -> Tensor:
        """Return the membranes of a layer with prescribed spikes; see `Engine.follow`."""
        model = layer.model
        drive = _drive(layer)
        if layer.recurrent is not None:
            drive = drive + spikes.grid @ layer.recurrent.t()
        if model.hold is not None:
            return step_by_step(drive, model, spikes.grid)[1]
        return potential(drive, model.alpha, model.beta) - decaying_sum(spikes.grid, model.beta, 1)

    def gradient(
        self,
        layer: ModelLayer,
        spikes: SpikeGrid | None,
        membrane: Tensor | Codes,
        grads: Grads,
        downstream: tuple[Tensor, Tensor] | None,
        demand: Demand,
    ) -> LayerGradients:
        """Return the gradients of a measured layer; see `Engine.gradient`."""
        model = layer.model
        trace = membrane if isinstance(membrane, Tensor) else membrane.trace()
        grid = None if spikes is None else spikes.grid
        grad_spikes = _spike_gradient(grads, downstream, trace)
        if model.saturation is not None:
            return _saturating_gradient(layer, grid, trace, grad_spikes, grads.traces)
        if model.holds_gradient and grid is not None:
            slopes = None if grad_spikes is None and layer.recurrent is None else surrogate_slopes(model, grid, trace)
            grad_membrane = membrane_gradient(model, grid, trace, grad_spikes, grads.traces, slopes)
            charge = held.charges(model, grid, grad_membrane, slopes, layer.recurrent)
        else:
            charge = self.charges(model, grid, trace, grad_spikes, grads.traces, layer.recurrent)
        weight = None
        if demand.weight and isinstance(layer.inputs, GridEvents):
            weight = layer.inputs.weight_gradient(charge)
        elif demand.weight:
            weight = weight_gradient(charge, layer.inputs_as_grid())
        return LayerGradients(charge, weight, weight_gradient(charge, grid) if demand.recurrent else None)


class ReadableEngine(GridEngine):
    """The reference."""

    def response(
        self, drive: Tensor, model: Model, spiking: bool, recurrent: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        """Return spikes and membranes of a layer of the twin; see `GridEngine.response`."""
        return response(drive, model, spiking, recurrent)

    def charges(
        self,
        model: Model,
        spikes: Tensor | None,
        trace: Tensor,
        grad_spikes: Tensor | None,
        grad_trace: Tensor | None,
        recurrent: Tensor | None,
    ) -> Tensor:
        """Return the gradient of each step's charge; see `GridEngine.charges`."""
        return charges(model, spikes, trace, grad_spikes, grad_trace, recurrent)


READABLE = ReadableEngine()


def _drive(layer: ModelLayer) -> Tensor:
    """Return `W x`, the summed weights of each step's inputs `[T, B, N]`."""
    inputs = layer.inputs_as_grid()
    if inputs is not None:
        return inputs @ layer.weight.t()
    assert isinstance(layer.inputs, GridEvents)
    return layer.inputs.drive(layer.weight)


def _saturating_gradient(
    layer: ModelLayer, spikes: Tensor | None, trace: Tensor, grad_spikes: Tensor | None, grad_trace: Tensor | None
) -> LayerGradients:
    """Return the gradients of a layer whose synaptic inputs saturate; the other arguments are as in `charges`."""
    model = layer.model
    inputs = layer.inputs.grid if isinstance(layer.inputs, SpikeGrid) else layer.inputs
    if layer.recurrent is None:
        grad_membrane = membrane_gradient(model, spikes, trace, grad_spikes, grad_trace)
        return LayerGradients(*saturation.gradient(model, layer.weight, inputs, spikes, grad_membrane), None)
    assert spikes is not None
    slopes = surrogate_slopes(model, spikes, trace)
    grad_membrane = membrane_gradient(model, spikes, trace, grad_spikes, grad_trace, slopes)
    weights = layer.weight, layer.recurrent
    return LayerGradients(*saturation.recurrent_gradient(model, weights, inputs, spikes, grad_membrane, slopes))


def response(
    drive: Tensor, model: Model, spiking: bool, recurrent: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """Return spikes (None for a readout) and membranes `[T, B, N]` of a layer of the twin.

    Args:
        drive: Summed weights `W x` of each step's inputs, `[T, B, N]`.
        model: Model of the layer.
        spiking: Whether the neurons spike; False for a readout.
        recurrent: Recurrent weights `[N, N]`; None without recurrence.
    """
    if spiking and model.hold is not None:
        return step_by_step(drive, model, None, recurrent)
    trace = potential(drive, model.alpha, model.beta)
    return (fire(trace, model.alpha, model.beta, recurrent) if spiking else None), trace


def step_by_step(
    drive: Tensor, model: Model, prescribed: Tensor | None, recurrent: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return spikes and membranes `[T, B, N]` of a layer of the twin whose membranes are held after a spike.

    Args:
        drive: Summed weights `W x` of each step's inputs, `[T, B, N]`.
        model: Model of the layer, with a hold.
        prescribed: Spikes `[T, B, N]` in place of the model's; None: those of the model.
        recurrent: Recurrent weights `[N, N]`; None without recurrence.
    """
    assert model.hold is not None
    trace = torch.empty_like(drive)
    spikes = torch.empty_like(drive) if prescribed is None else prescribed
    membrane, current, rest = (torch.zeros_like(drive[0]) for _ in range(3))
    for t, arriving in enumerate(drive):
        trace[t] = membrane
        if prescribed is None:
            torch.gt(membrane, 1.0, out=spikes[t])
        spike = spikes[t]
        current = torch.add(arriving, current, alpha=model.alpha)
        if recurrent is not None:
            current.addmm_(spike, recurrent.t())
        rest = torch.where(spike > 0, model.hold, rest)
        at_leak = (rest > 0) | (spike > 0)
        membrane = (1 - rest.clamp(max=1)) * current + torch.where(at_leak, 0.0, model.beta * membrane)
        rest = (rest - 1).clamp_(min=0)
    return spikes, trace


def fire(membrane: Tensor, alpha: float, beta: float, recurrent: Tensor | None = None) -> Tensor:
    """Return the spikes of a free membrane `[T, B, N]`, and add their effects to the membrane in place.

    Args:
        membrane: Response to the inputs alone, to which resets and recurrent potentials are added.
        alpha: Decay of the synaptic current per step.
        beta: Decay of the membrane per step.
        recurrent: Recurrent weights `[N, N]`; None without recurrence.
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


def charges(
    model: Model,
    spikes: Tensor | None,
    trace: Tensor,
    grad_spikes: Tensor | None,
    grad_trace: Tensor | None,
    recurrent: Tensor | None = None,
) -> Tensor:
    """Return the gradient of each step's charge `[T, B, N]`.

    Args:
        model: Model of the layer.
        spikes: Measured spikes `[T, B, N]`; used if the model takes membranes to be at the threshold.
        trace: Measured membranes `[T, B, N]`.
        grad_spikes: Gradient of the loss with respect to the spikes `[T, B, N]`, if any.
        grad_trace: Gradient of the loss with respect to the membranes `[T, B, N]`, if any.
        recurrent: Recurrent weights `[N, N]`; None without recurrence.
    """
    if recurrent is None:
        grad_membrane = membrane_gradient(model, spikes, trace, grad_spikes, grad_trace)
        return potential_gradient(grad_membrane, model.alpha, model.beta)
    slopes = surrogate_slopes(model, spikes, trace)
    grad_membrane = membrane_gradient(model, spikes, trace, grad_spikes, grad_trace, slopes)
    return _charge_through_time(grad_membrane, slopes, recurrent, model.alpha, model.beta)


def membrane_gradient(
    model: Model,
    spikes: Tensor | None,
    trace: Tensor,
    grad_spikes: Tensor | None,
    grad_trace: Tensor | None,
    slopes: Tensor | None = None,
) -> Tensor:
    """Return the gradient of each step's membrane `[T, B, N]` without that of later steps.

    `slopes` are the surrogate derivatives, computed if they are None; all other arguments are as in `charges`.
    """
    if grad_spikes is None:
        return torch.zeros_like(trace) if grad_trace is None else grad_trace
    by_spikes = surrogate_slopes(model, spikes, trace).mul_(grad_spikes) if slopes is None else slopes * grad_spikes
    return by_spikes if grad_trace is None else by_spikes.add_(grad_trace)


def _spike_gradient(grads: Grads, downstream: tuple[Tensor, Tensor] | None, trace: Tensor) -> Tensor | None:
    """Return the total gradient of the spikes `[T, B, N]`; None if nothing depends on them."""
    parts = [] if grads.spikes is None else [grads.spikes]
    if grads.counts is not None:
        parts.append(grads.counts.expand_as(trace))
    if downstream is not None:
        parts.append(downstream[0] @ downstream[1])
    return sum(parts[1:], parts[0]) if parts else None


def surrogate_slopes(model: Model, spikes: Tensor | None, trace: Tensor) -> Tensor:
    """Return the surrogate derivatives `[T, B, N]`.

    Raises:
        ValueError: the surrogate, a function of the user, returns something else.
    """
    slopes = model.surrogate(_distance(trace, spikes if model.at_threshold else None), model.slope)
    if not isinstance(slopes, Tensor) or slopes.shape != trace.shape:
        shape = tuple(slopes.shape) if isinstance(slopes, Tensor) else type(slopes).__name__
        raise ValueError(f"surrogate {model.surrogate!r:.80} must return a tensor {tuple(trace.shape)}, got {shape}")
    return slopes.to(trace)


def _distance(trace: Tensor, spikes: Tensor | None) -> Tensor:
    """Return the membrane's distance from the threshold; zero at `spikes`, unless they are None."""
    distance = trace - 1
    return distance if spikes is None else distance.addcmul_(distance, spikes, value=-1)


def _charge_through_time(grad_membrane: Tensor, slopes: Tensor, recurrent: Tensor, alpha: float, beta: float) -> Tensor:
    """Return the gradient `[T, B, N]` of the charge that arrives in each step of a recurrent layer.

    Args:
        grad_membrane: Gradient of the membranes `[T, B, N]` without that through recurrent synapses and later steps.
        slopes: Surrogate derivatives `[T, B, N]`.
        recurrent: Recurrent weights `[N, N]`.
        alpha: Decay of the synaptic current per step.
        beta: Decay of the membrane per step.
    """
    charge = torch.empty_like(slopes)
    charge[-1] = 0
    total = torch.zeros_like(charge[0])
    feedback = torch.empty_like(charge[0])
    for t in range(len(charge) - 1, 0, -1):
        torch.mm(charge[t], recurrent, out=feedback)
        total.mul_(beta).add_(grad_membrane[t]).addcmul_(slopes[t], feedback)
        torch.add(total, charge[t], alpha=alpha, out=charge[t - 1])
    return charge
