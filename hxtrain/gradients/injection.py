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

from the last step to the first.

Engines that compute the same: `readable` here, in torch, for any device and precision, without a loop over time unless
the layer is recurrent; `compiled`, on the CPU, whose loop over time stays in the cache (decision 0008); and
`triton_kernels`, on a GPU, where it stays in registers (decision 0011).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hxtrain.neurons import Codes, Fired, GridEvents, Measured, Model, Unrecorded, full_precision, over_time, psp_matrix
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
        ctx.events, ctx.models, ctx.fired = events, models, [layer.fired for layer in measured]
        ctx.set_materialize_grads(False)
        return tuple(part for layer in measured for part in _in_graph(layer))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        with full_precision(next(x for x in grads if x is not None).device):
            return _backward(ctx, grads)


def _backward(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """Return the gradients of what `_Stack` takes, of those of what it returns."""
    count = len(ctx.models)
    inputs, *saved = ctx.saved_tensors
    weights, traces, needed = saved[: 2 * count], saved[2 * count :], ctx.needs_input_grad[3:]
    found: list[Tensor | None] = [None] * (2 * count)
    behind: tuple[Tensor, Tensor] | None = None
    for i in reversed(range(count)):
        if behind is None and all(grad is None for grad in grads[3 * i : 3 * i + 3]):
            continue
        outside = inputs if ctx.events is None else ctx.events
        before: Tensor | GridEvents | Fired = ctx.fired[i - 1] if i else outside
        membrane = traces[i] if ctx.units[i] is None else Codes(traces[i], ctx.units[i])
        weight, recurrent = weights[2 * i : 2 * i + 2]
        layer = _Layer(ctx.models[i], weight, recurrent, ctx.fired[i], membrane, before)
        own = Grads(*grads[3 * i : 3 * i + 3])
        wanted = any(needed[: 2 * i + 1]), needed[2 * i + 1], needed[2 * i + 2]
        charge, found[2 * i], found[2 * i + 1] = layer.backward(own, behind, wanted)
        behind = None if charge is None else (charge, layer.weight_by_charge())
    grad_inputs = behind[0] @ behind[1] if needed[0] and behind is not None else None
    return None, None, None, grad_inputs, *found


def _in_graph(layer: Measured) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Return what `_Stack` gives of a layer: what stands for its spikes, its membranes, and its numbers of spikes.

    What stands for them has their shape and takes no memory; a membrane that is at hand stands for itself.
    """
    membrane, counts = layer.membrane, layer.counts
    if isinstance(membrane, Tensor):
        trace, anchor = membrane.view_as(membrane), membrane.new_empty(()).expand(membrane.shape)
    else:
        trace, anchor = (torch.empty((), dtype=torch.float32).expand(membrane.shape) for _ in range(2))
    return anchor if layer.fired is not None else None, trace, None if counts is None else counts.view_as(counts)


class _Layer(NamedTuple):
    """What the gradient of a layer needs: model, weights, what was measured, and its inputs."""

    model: Model
    weight: Tensor
    recurrent: Tensor | None
    fired: Fired | None
    membrane: Tensor | Codes
    inputs: Tensor | GridEvents | Fired

    def backward(
        self,
        grads: Grads,
        behind: tuple[Tensor, Tensor] | None,
        wanted: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of charges, weights and recurrent weights.

        Args:
            grads: of spikes, membranes and numbers of spikes.
            behind: gradient of the charges of the layer behind, and its weights.
            wanted: which gradients are.
        """
        lower, for_weight, for_recurrent = wanted
        graded = self.model.saturation is not None and isinstance(self.inputs, Tensor)
        if self.recurrent is None and compiled.supports(self._like, self.model) and not graded:
            charge, grad_weight = self._compiled(grads, behind, lower, for_weight)
        else:
            charge, grad_weight = self._readable(grads, behind, for_weight)
        if for_weight and grad_weight is None:
            grad_weight = _product(charge, self._grid)
        return charge, grad_weight, _product(charge, self._spikes) if for_recurrent else None

    def _compiled(
        self, grads: Grads, behind: tuple[Tensor, Tensor] | None, lower: bool, for_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        inputs, fired = self.inputs, None
        if self.fired is not None and self.model.at_threshold:
            fired = self.fired.grouped
        if self.model.saturation is not None:
            assert not isinstance(inputs, Tensor)
            return compiled.saturating_gradient(
                self.model, self.weight, fired, self.membrane, grads, behind, inputs.grouped, lower
            )
        given = None if isinstance(inputs, Tensor) or not for_weight else inputs.grouped
        charges = lower or (for_weight and given is None)
        return compiled.gradient(self.model, fired, self.membrane, grads, behind, given, charges)

    def _readable(
        self, grads: Grads, behind: tuple[Tensor, Tensor] | None, for_weight: bool
    ) -> tuple[Tensor, Tensor | None]:
        membrane, grad_trace = self.membrane, grads.traces
        trace = membrane if isinstance(membrane, Tensor) else membrane.trace()
        grad_spikes = _summed(grads, behind, trace)
        if self.model.saturation is not None:
            sources = self.inputs if isinstance(self.inputs, GridEvents) else self._grid
            assert sources is not None
            later = _membrane(self.model, self._spikes, trace, grad_spikes, grad_trace)
            return saturation.gradient(self.model, self.weight, sources, later)
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
        """Return the weights of each charge, of which a saturating layer has one per synaptic input."""
        return self.weight if self.model.saturation is None else saturation.by_input(self.weight, self.model.saturation)


def _summed(grads: Grads, behind: tuple[Tensor, Tensor] | None, trace: Tensor) -> Tensor | None:
    """Return the gradient of the spikes `[T, B, N]` from all that depends on them; None if nothing does."""
    parts = [] if grads.spikes is None else [grads.spikes]
    if grads.counts is not None:
        parts.append(grads.counts.expand_as(trace))
    if behind is not None:
        parts.append(behind[0] @ behind[1])
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
        model: of the layer.
        spikes: as measured `[T, B, N]`; in use where the model or recurrence asks for them.
        trace: as measured `[T, B, N]`.
        grad_spikes, grad_trace: gradients of the loss `[T, B, N]`; not both None.
        events: inputs; None: no gradient of weights.
        recurrent: weights `[N, N]`, if any.
    """
    if gpu.takes(trace, model, recurrent):
        charge = gpu.kernels().charges(model, spikes, trace, grad_spikes, grad_trace)
    elif recurrent is None:
        grad_membrane = _membrane(model, spikes, trace, grad_spikes, grad_trace)
        matrix = psp_matrix(len(trace), model.alpha, model.beta, trace.dtype, trace.device)
        charge = over_time(matrix.t(), grad_membrane)
    else:
        slopes = _slopes(model, spikes, trace)
        outside = _membrane(model, spikes, trace, grad_spikes, grad_trace, slopes)
        charge = _charge_through_time(outside, slopes, recurrent, model.alpha, model.beta)
    return charge, None if events is None else events.weight_gradient(charge)


def _membrane(
    model: Model,
    spikes: Tensor | None,
    trace: Tensor,
    grad_spikes: Tensor | None,
    grad_trace: Tensor | None,
    slopes: Tensor | None = None,
) -> Tensor:
    """Return the gradient of each step's membrane `[T, B, N]`, later steps aside.

    `slopes` are the surrogate's, if at hand; for all else see `gradient`.
    """
    if grad_spikes is None:
        return torch.zeros_like(trace) if grad_trace is None else grad_trace
    by_spikes = _slopes(model, spikes, trace).mul_(grad_spikes) if slopes is None else slopes * grad_spikes
    return by_spikes if grad_trace is None else by_spikes.add_(grad_trace)


def _slopes(model: Model, spikes: Tensor | None, trace: Tensor) -> Tensor:
    """Return the surrogate's derivatives `[T, B, N]`.

    Raises:
        ValueError: the surrogate, a function of the user's own, returns something else.
    """
    found = model.surrogate(_distance(trace, spikes if model.at_threshold else None), model.slope)
    if not isinstance(found, Tensor) or found.shape != trace.shape:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"surrogate {model.surrogate!r:.80} must return a tensor {tuple(trace.shape)}, got {shape}")
    return found.to(trace)


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


def _product(charge: Tensor | None, inputs: Tensor | None) -> Tensor | None:
    """Return the gradient of weights behind inputs `[T, B, J]`."""
    if charge is None or inputs is None:
        return None
    return charge.flatten(0, 1).t() @ inputs.flatten(0, 1)


def measured_layers(
    weights: Sequence[tuple[Tensor, Tensor | None]],
    inputs: Tensor | GridEvents,
    measured: Sequence[M],
    models: Sequence[Model],
) -> list[M]:
    """Put measured layers into the graph, one behind the other.

    Args:
        weights: of each layer: float weights `[N, J]`, and those of its own synapses `[N, N]`, if any.
        inputs: spikes `[T, B, J]`, or input events.
        measured: each layer as measured.
        models: through which gradients run.

    Returns:
        The layers with the values given and the gradient of the models.

    Raises:
        ValueError: a shape or type does not match the others.
    """
    _check_layers(weights, inputs, measured)
    dense, events = (None, inputs) if isinstance(inputs, GridEvents) else (inputs, None)
    measured = [
        replace(layer, membrane=layer.trace) if isinstance(layer.membrane, Unrecorded) else layer for layer in measured
    ]
    flat = _Stack.apply(  # type: ignore[no-untyped-call]
        events, models, measured, dense, *(weight for pair in weights for weight in pair)
    )
    return [_placed(layer, *flat[3 * i : 3 * i + 3]) for i, layer in enumerate(measured)]


def _check_layers(
    weights: Sequence[tuple[Tensor, Tensor | None]], inputs: Tensor | GridEvents, measured: Sequence[Measured]
) -> None:
    """Refuse layers unless each one's parts have one shape `T, B, N`, and its weights lead to it from the one before.

    Arguments as those of `measured_layers`.
    """
    if isinstance(inputs, GridEvents):
        steps, samples, sources = inputs.steps, inputs.samples, inputs.units
    else:
        steps, samples, sources = inputs.shape
    for number, (layer, (weight, recurrent)) in enumerate(zip(measured, weights, strict=True)):
        neurons, dtype = len(weight), weight.dtype
        shape = (steps, samples, neurons)
        require(f"weights of layer {number}", weight, (neurons, sources), dtype)
        require(f"recurrent weights of layer {number}", recurrent, (neurons, neurons), dtype)
        require(f"numbers of spikes of layer {number}", layer.counts, (samples, neurons), dtype)
        for name, part in (("membranes", layer.membrane), ("spikes", layer.fired)):
            if part is not None and tuple(part.shape) != shape:
                raise ValueError(f"{name} of layer {number}: expected {shape}, got {tuple(part.shape)}")
        sources = neurons


def _placed(layer: M, spikes: Tensor | None, membrane: Tensor, counts: Tensor | None) -> M:
    """Return a layer in the graph, of what `_Stack` gives of it."""
    kept = membrane if isinstance(layer.membrane, Tensor) else layer.membrane
    return replace(layer, membrane=kept, counts=counts, anchors=(spikes, membrane))
