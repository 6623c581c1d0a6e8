"""Measured layers in the autograd graph.

In the forward pass, a layer returns its measurement; in the backward pass, the gradient runs through the model. The
engines in `neurons/engines` compute it, layer by layer from the last to the first; `readable.py` has the equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hxtrain.neurons import Codes, GridEvents, MeasuredLayer, Model, SpikeGrid, full_precision
from hxtrain.neurons.engines import Demand, ModelLayer, engine_for
from hxtrain.neurons.engines.saturation import by_input
from hxtrain.neurons.events import Grads
from hxtrain.neurons.shapes import Requirement, require_all

M = TypeVar("M", bound=MeasuredLayer)


class _Stack(torch.autograd.Function):
    """Measured layers: (inputs, weight, recurrent weight, ...) -> (spikes, trace, counts, ...)."""

    @staticmethod
    def forward(
        ctx: Any,
        events: GridEvents | None,
        models: Sequence[Model],
        measured: Sequence[MeasuredLayer],
        inputs: Tensor | None,
        *weights: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        membranes = [layer.membrane for layer in measured]
        ctx.save_for_backward(inputs, *weights, *(x.codes if isinstance(x, Codes) else x for x in membranes))
        ctx.codes = [x if isinstance(x, Codes) else None for x in membranes]  # their tensors are saved and checked
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
    membranes = [codes or trace for codes, trace in zip(ctx.codes, traces, strict=True)]
    stack_inputs = inputs if ctx.events is None else ctx.events
    engines = [
        engine_for(
            membrane if isinstance(membrane, Tensor) else weights[2 * i],
            ctx.models[i],
            weights[2 * i + 1],
            backward=True,
            dense=i == 0 and isinstance(stack_inputs, Tensor),
        )
        for i, membrane in enumerate(membranes)
    ]
    downstream: tuple[Tensor, Tensor] | None = None
    for i in reversed(range(count)):
        layer_grads = grads[3 * i : 3 * i + 3]
        if downstream is None and all(grad is None for grad in layer_grads):
            continue
        upstream: SpikeGrid | GridEvents | Tensor = ctx.fired[i - 1] if i else stack_inputs
        weight, recurrent = weights[2 * i : 2 * i + 2]
        demand = Demand(any(requested[: 2 * i + 1]), requested[2 * i + 1], requested[2 * i + 2])
        if not any(demand):
            break  # all weights of this layer and of those upstream are fixed
        layer = ModelLayer(ctx.models[i], weight, recurrent, upstream)
        result = engines[i].gradient(layer, ctx.fired[i], membranes[i], Grads(*layer_grads), downstream, demand)
        grad_weights[2 * i] = result.weight
        grad_weights[2 * i + 1] = result.recurrent
        downstream = None if result.charge is None else (result.charge, _weight_by_charge(layer))
    grad_inputs = downstream[0] @ downstream[1] if requested[0] and downstream is not None else None
    return None, None, None, grad_inputs, *grad_weights


def _weight_by_charge(layer: ModelLayer) -> Tensor:
    """Return the weights of each charge; a saturating layer has one charge per synaptic input."""
    limits = layer.model.saturation
    if limits is None:
        return layer.weight
    return by_input(layer.weight, limits, limits.circuits(*reversed(layer.weight.shape)))


def _stack_results(layer: MeasuredLayer) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Return the results of `_Stack` for a layer: an anchor of its spikes, its membranes, and an anchor of its counts.

    An anchor is a tensor with the shape of the values that it represents, and takes no memory. Membranes that are a
    tensor are returned themselves, codes as an anchor.
    """
    membrane = layer.membrane
    shape = membrane.shape
    like = membrane if isinstance(membrane, Tensor) else torch.empty((), dtype=torch.float32)
    trace = membrane.view_as(membrane) if isinstance(membrane, Tensor) else like.expand(shape)
    if layer.fired is None:
        return None, trace, None
    return like.new_empty(()).expand(shape), trace, like.new_empty(()).expand(shape[1:])


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
        layer if isinstance(layer.membrane, Tensor | Codes) else replace(layer, membrane=layer.trace)
        for layer in measured
    ]
    results = _Stack.apply(  # type: ignore[no-untyped-call]
        events, models, measured, grid, *(weight for pair in weights for weight in pair)
    )
    return [_layer_in_graph(layer, *results[3 * i : 3 * i + 3]) for i, layer in enumerate(measured)]


def _check_layers(
    weights: Sequence[tuple[Tensor, Tensor | None]], inputs: Tensor | GridEvents, measured: Sequence[MeasuredLayer]
) -> None:
    """Refuse a layer whose parts differ in their shape `T, B, N`, or whose weights do not fit the upstream layer.

    The arguments are as in `measured_layers`.
    """
    steps, samples, sources = inputs.shape
    requirements: list[Requirement] = []
    for number, (layer, (weight, recurrent)) in enumerate(zip(measured, weights, strict=True)):
        neurons = len(weight)
        shape = (steps, samples, neurons)
        requirements.append((f"weights of layer {number}", weight, (neurons, sources)))
        requirements.append((f"recurrent weights of layer {number}", recurrent, (neurons, neurons)))
        for name, part in (("membranes", layer.membrane), ("spikes", layer.fired)):
            if part is not None and tuple(part.shape) != shape:
                raise ValueError(f"{name} of layer {number}: expected {shape}, got {tuple(part.shape)}")
        sources = neurons
    require_all(weights[0][0].dtype, *requirements)


def _layer_in_graph(layer: M, spikes: Tensor | None, membrane: Tensor, counts: Tensor | None) -> M:
    """Return a layer in the graph, from the results of `_Stack` for it."""
    value = membrane if isinstance(layer.membrane, Tensor) else layer.membrane
    return replace(layer, membrane=value, anchors=(spikes, membrane, counts))
