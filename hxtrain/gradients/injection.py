r"""The gradient of a measured pass.

In the forward pass, a layer returns its measurement; in the backward pass, the gradient runs through the model of
`psp.py`. The measured traces contain the resets, so that for a feed-forward layer

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

from the last step to the first.

Three engines compute the same. `gradient` in this module, in torch, supports any accelerator and precision, and loops
over time only for a recurrent layer. `compiled`, on the CPU, has a loop over time whose state stays in the cache
(decision 0008). `triton_kernels`, on a GPU, has one whose state stays in registers (decision 0011).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hxtrain.neurons import (
    Codes,
    Fired,
    GridEvents,
    Measured,
    Model,
    UnrecordedMembranes,
    full_precision,
    over_time,
    psp_matrix,
)
from hxtrain.neurons.engines import cpu as compiled
from hxtrain.neurons.engines import gpu
from hxtrain.neurons.events import Grads
from hxtrain.neurons.shapes import require

from . import saturation

M = TypeVar("M", bound=Measured)


class _Stack(torch.autograd.Function):
    """Measured layers: (inputs, weight, recurrent weight, ...) -> (spikes, trace, counts, ...)."""

    @staticmethod
    def forward(
        ctx: Any,
        events: GridEvents | None,
        models: Sequence[Model],
        measured: Sequence[Measured],
        inputs: Tensor | None,
        *weights: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        membranes = [layer.membrane for layer in measured]
        ctx.save_for_backward(inputs, *weights, *(x.codes if isinstance(x, Codes) else x for x in membranes))
        ctx.units = [x.unit if isinstance(x, Codes) else None for x in membranes]
        ctx.events = events
        ctx.models = models
        ctx.fired = [layer.fired for layer in measured]
        ctx.set_materialize_grads(False)
        return tuple(part for layer in measured for part in _stack_results(layer))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        with full_precision(next(x for x in grads if x is not None).device):
            return _backward(ctx, grads)


def _backward(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """Return the gradients of the arguments of `_Stack`, computed from the gradients of its results."""
    count = len(ctx.models)
    inputs, *saved = ctx.saved_tensors
    weights = saved[: 2 * count]
    traces = saved[2 * count :]
    requested = ctx.needs_input_grad[3:]
    grad_weights: list[Tensor | None] = [None] * (2 * count)
    downstream: tuple[Tensor, Tensor] | None = None
    for i in reversed(range(count)):
        layer_grads = grads[3 * i : 3 * i + 3]
        if downstream is None and all(grad is None for grad in layer_grads):
            continue
        stack_inputs = inputs if ctx.events is None else ctx.events
        upstream: Tensor | GridEvents | Fired = ctx.fired[i - 1] if i else stack_inputs
        membrane = traces[i] if ctx.units[i] is None else Codes(traces[i], ctx.units[i])
        weight, recurrent = weights[2 * i : 2 * i + 2]
        layer = _Layer(ctx.models[i], weight, recurrent, ctx.fired[i], membrane, upstream)
        layer_requested = any(requested[: 2 * i + 1]), requested[2 * i + 1], requested[2 * i + 2]
        if not any(layer_requested):
            break  # all weights of this layer and of those upstream are fixed
        charge, grad_weight, grad_recurrent = layer.backward(Grads(*layer_grads), downstream, layer_requested)
        grad_weights[2 * i] = grad_weight
        grad_weights[2 * i + 1] = grad_recurrent
        downstream = None if charge is None else (charge, layer.weight_by_charge())
    grad_inputs = downstream[0] @ downstream[1] if requested[0] and downstream is not None else None
    return None, None, None, grad_inputs, *grad_weights


def _stack_results(layer: Measured) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Return the results of `_Stack` for a layer: an anchor of its spikes, its membranes, and its numbers of spikes.

    An anchor is a tensor with the shape of the values that it represents, and takes no memory. Membranes that are a
    tensor are returned themselves, codes as an anchor.
    """
    membrane = layer.membrane
    counts = layer.counts
    if isinstance(membrane, Tensor):
        trace = membrane.view_as(membrane)
        anchor = membrane.new_empty(()).expand(membrane.shape)
    else:
        trace = torch.empty((), dtype=torch.float32).expand(membrane.shape)
        anchor = torch.empty((), dtype=torch.float32).expand(membrane.shape)
    return anchor if layer.fired is not None else None, trace, None if counts is None else counts.view_as(counts)


class _Layer(NamedTuple):
    """The data of a layer from which its gradient is computed: model, weights, measurement and inputs."""

    model: Model
    weight: Tensor
    recurrent: Tensor | None
    fired: Fired | None
    membrane: Tensor | Codes
    inputs: Tensor | GridEvents | Fired

    def backward(
        self,
        grads: Grads,
        downstream: tuple[Tensor, Tensor] | None,
        requested: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of charges, weights and recurrent weights.

        Args:
            grads: Gradients of spikes, membranes and numbers of spikes.
            downstream: Gradient of the charges and weights of the downstream layer, if any.
            requested: Whether the gradients of the inputs and upstream weights, of the weights and of the recurrent
                weights are requested.
        """
        for_upstream, for_weight, for_recurrent = requested
        is_dense_saturating = self.model.saturation is not None and isinstance(self.inputs, Tensor)
        if self.recurrent is None and compiled.supports(self._like, self.model) and not is_dense_saturating:
            charge, grad_weight = self._backward_compiled(grads, downstream, for_upstream, for_weight)
        else:
            charge, grad_weight = self._backward_in_torch(grads, downstream, for_weight)
        if for_weight and grad_weight is None:
            grad_weight = _product(charge, self._grid)
        return charge, grad_weight, _product(charge, self._spikes) if for_recurrent else None

    def _backward_compiled(
        self, grads: Grads, downstream: tuple[Tensor, Tensor] | None, for_upstream: bool, for_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        inputs = self.inputs
        fired = None
        if self.fired is not None and self.model.at_threshold:
            fired = self.fired.grouped
        if self.model.saturation is not None:
            assert not isinstance(inputs, Tensor)
            return compiled.saturating_gradient(
                self.model, self.weight, fired, self.membrane, grads, downstream, inputs.grouped, for_upstream
            )
        events = None if isinstance(inputs, Tensor) or not for_weight else inputs.grouped
        charges = for_upstream or (for_weight and events is None)
        return compiled.gradient(self.model, fired, self.membrane, grads, downstream, events, charges)

    def _backward_in_torch(
        self, grads: Grads, downstream: tuple[Tensor, Tensor] | None, for_weight: bool
    ) -> tuple[Tensor, Tensor | None]:
        membrane = self.membrane
        grad_trace = grads.traces
        trace = membrane if isinstance(membrane, Tensor) else membrane.trace()
        grad_spikes = _spike_gradient(grads, downstream, trace)
        if self.model.saturation is not None:
            sources = self.inputs if isinstance(self.inputs, GridEvents) else self._grid
            assert sources is not None
            grad_membrane = _membrane(self.model, self._spikes, trace, grad_spikes, grad_trace)
            return saturation.gradient(self.model, self.weight, sources, grad_membrane)
        events = self.inputs if isinstance(self.inputs, GridEvents) and for_weight else None
        return gradient(self.model, self._spikes, trace, grad_spikes, grad_trace, events, self.recurrent)

    @property
    def _like(self) -> Tensor:
        return self.membrane if isinstance(self.membrane, Tensor) else self.weight

    @property
    def _spikes(self) -> Tensor | None:
        return None if self.fired is None else self.fired.grid

    @property
    def _grid(self) -> Tensor | None:
        """The inputs as a grid `[T, B, J]`; None for input events."""
        if isinstance(self.inputs, GridEvents):
            return None
        return self.inputs.grid if isinstance(self.inputs, Fired) else self.inputs

    def weight_by_charge(self) -> Tensor:
        """Return the weights of each charge; a saturating layer has one charge per synaptic input."""
        return self.weight if self.model.saturation is None else saturation.by_input(self.weight, self.model.saturation)


def _spike_gradient(grads: Grads, downstream: tuple[Tensor, Tensor] | None, trace: Tensor) -> Tensor | None:
    """Return the total gradient of the spikes `[T, B, N]`; None if nothing depends on them."""
    parts = [] if grads.spikes is None else [grads.spikes]
    if grads.counts is not None:
        parts.append(grads.counts.expand_as(trace))
    if downstream is not None:
        parts.append(downstream[0] @ downstream[1])
    return sum(parts[1:], parts[0]) if parts else None


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
        model: Model of the layer.
        spikes: Measured spikes `[T, B, N]`; used if the model takes membranes to be at the threshold.
        trace: Measured membranes `[T, B, N]`.
        grad_spikes: Gradient of the loss with respect to the spikes `[T, B, N]`, if any.
        grad_trace: Gradient of the loss with respect to the membranes `[T, B, N]`; not None if `grad_spikes` is.
        events: Input events; None if the gradient of the weights is not requested.
        recurrent: Recurrent weights `[N, N]`; None without recurrence.
    """
    if gpu.supports(trace, model, recurrent):
        charge = gpu.kernels().charges(model, spikes, trace, grad_spikes, grad_trace)
    elif recurrent is None:
        grad_membrane = _membrane(model, spikes, trace, grad_spikes, grad_trace)
        matrix = psp_matrix(len(trace), model.alpha, model.beta, trace.dtype, trace.device)
        charge = over_time(matrix.t(), grad_membrane)
    else:
        slopes = _slopes(model, spikes, trace)
        grad_membrane = _membrane(model, spikes, trace, grad_spikes, grad_trace, slopes)
        charge = _charge_through_time(grad_membrane, slopes, recurrent, model.alpha, model.beta)
    return charge, None if events is None else events.weight_gradient(charge)


def _membrane(
    model: Model,
    spikes: Tensor | None,
    trace: Tensor,
    grad_spikes: Tensor | None,
    grad_trace: Tensor | None,
    slopes: Tensor | None = None,
) -> Tensor:
    """Return the gradient of each step's membrane `[T, B, N]` without that of later steps.

    `slopes` are the surrogate derivatives, computed if they are None; all other arguments are as in `gradient`.
    """
    if grad_spikes is None:
        return torch.zeros_like(trace) if grad_trace is None else grad_trace
    by_spikes = _slopes(model, spikes, trace).mul_(grad_spikes) if slopes is None else slopes * grad_spikes
    return by_spikes if grad_trace is None else by_spikes.add_(grad_trace)


def _slopes(model: Model, spikes: Tensor | None, trace: Tensor) -> Tensor:
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


def _product(charge: Tensor | None, inputs: Tensor | None) -> Tensor | None:
    """Return the gradient of the weights of inputs `[T, B, J]`; None without charges or inputs."""
    if charge is None or inputs is None:
        return None
    return charge.flatten(0, 1).t() @ inputs.flatten(0, 1)


def measured_layers(
    weights: Sequence[tuple[Tensor, Tensor | None]],
    inputs: Tensor | GridEvents,
    measured: Sequence[M],
    models: Sequence[Model],
) -> list[M]:
    """Put consecutive measured layers into the graph.

    Args:
        weights: Float weights `[N, J]` of each layer, and its recurrent weights `[N, N]`, if any.
        inputs: Spikes `[T, B, J]`, or input events.
        measured: Measured layers.
        models: Models of the layers, through which gradients run.

    Returns:
        The layers with the measured values and the gradients of the models.

    Raises:
        ValueError: the shapes or types of the arguments do not match.
    """
    _check_layers(weights, inputs, measured)
    events = inputs if isinstance(inputs, GridEvents) else None
    grid = None if isinstance(inputs, GridEvents) else inputs
    measured = [
        replace(layer, membrane=layer.trace) if isinstance(layer.membrane, UnrecordedMembranes) else layer
        for layer in measured
    ]
    results = _Stack.apply(  # type: ignore[no-untyped-call]
        events, models, measured, grid, *(weight for pair in weights for weight in pair)
    )
    return [_layer_in_graph(layer, *results[3 * i : 3 * i + 3]) for i, layer in enumerate(measured)]


def _check_layers(
    weights: Sequence[tuple[Tensor, Tensor | None]], inputs: Tensor | GridEvents, measured: Sequence[Measured]
) -> None:
    """Refuse a layer whose parts differ in their shape `T, B, N`, or whose weights do not fit the upstream layer.

    The arguments are as in `measured_layers`.
    """
    if isinstance(inputs, GridEvents):
        steps = inputs.steps
        samples = inputs.samples
        sources = inputs.units
    else:
        steps, samples, sources = inputs.shape
    for number, (layer, (weight, recurrent)) in enumerate(zip(measured, weights, strict=True)):
        neurons = len(weight)
        dtype = weight.dtype
        shape = (steps, samples, neurons)
        require(f"weights of layer {number}", weight, (neurons, sources), dtype)
        require(f"recurrent weights of layer {number}", recurrent, (neurons, neurons), dtype)
        require(f"numbers of spikes of layer {number}", layer.counts, (samples, neurons), dtype)
        for name, part in (("membranes", layer.membrane), ("spikes", layer.fired)):
            if part is not None and tuple(part.shape) != shape:
                raise ValueError(f"{name} of layer {number}: expected {shape}, got {tuple(part.shape)}")
        sources = neurons


def _layer_in_graph(layer: M, spikes: Tensor | None, membrane: Tensor, counts: Tensor | None) -> M:
    """Return a layer in the graph, from the results of `_Stack` for it."""
    value = membrane if isinstance(layer.membrane, Tensor) else layer.membrane
    return replace(layer, membrane=value, counts=counts, anchors=(spikes, membrane))
