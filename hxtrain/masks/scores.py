"""Scores of synapses: how much a network loses without them, larger is more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hxtrain.datasets import Source
from hxtrain.network import Network
from hxtrain.objectives import Loss

from .budget import Budget, select
from .rate_model import RateModel


def magnitude(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return the magnitudes of weights."""
    return [weight.detach().abs() for weight in weights]


def snip(net: Network, source: Source, loss: Loss, batches: Sequence[Tensor]) -> list[Tensor]:
    """Return `|g w|` of each projection, with the gradient g of the loss of passes as they are measured.

    On a device the passes run on it, so that its mismatch enters the scores (Lee et al. 2019 use one batch of a model).

    Args:
        net: Network, attached to a device or in software.
        source: Samples and their labels.
        loss: Loss of the output.
        batches: Numbers of the samples of each batch.

    Raises:
        ValueError: The loss has no gradient, as that of spike times.
    """
    if getattr(loss, "reads_times", False):
        raise ValueError(
            f"mask=snip: {type(loss).__name__} reads spike times, which have no surrogate gradient; choose another "
            "loss, such as loss=spike_count, or mask=magnitude"
        )
    weights = [projection.synapses.weight for projection in net.projections]
    gradients = [torch.zeros_like(weight) for weight in weights]
    learned = [number for number, weight in enumerate(weights) if weight.requires_grad]
    for indices in batches:
        activity = net(source.spikes(indices).to(net.torch_device))
        output = loss.read(activity)
        answer = loss(output, source.labels[indices].to(output.device))
        parts = torch.autograd.grad(answer, [weights[number] for number in learned], allow_unused=True)
        for number, part in zip(learned, parts, strict=True):
            if part is not None:
                gradients[number] += part / len(batches)
    effective = net.effective_weights()
    return [(gradient * weight).detach().abs() for gradient, weight in zip(gradients, effective, strict=True)]


def active_sources(net: Network, source: Source, batches: Sequence[Tensor]) -> list[Tensor]:
    """Return the sources of each projection that fire at least once in some batches, True in `[J]`."""
    fired = [torch.zeros(p.synapses.inputs, dtype=torch.bool, device=net.torch_device) for p in net.projections]
    sizes = {layer.name: number for number, layer in enumerate(net.layers)}
    with torch.no_grad():
        for indices in batches:
            spikes = source.spikes(indices).to(net.torch_device)
            activity = net(spikes)
            arrivals = net.arrivals(spikes)
            for number, projection in enumerate(net.projections):
                if projection.pre in sizes:
                    counts = activity.layers[sizes[projection.pre]].counts
                    assert counts is not None  # a population with a projection spikes
                    fired[number] |= counts.sum(0) > 0
                else:
                    fired[number][arrivals.unit] = True
    return fired


def grasp(model: RateModel, inputs: Tensor, labels: Tensor, temperature: float = 200.0) -> list[Tensor]:
    """Return `w H g` of each layer: how much the norm of the gradient falls without a weight (Wang et al. 2020).

    Args:
        model: Rate model.
        inputs: Inputs `[B, J]`.
        labels: True classes `[B]`.
        temperature: Divisor of the outputs before the softmax.
    """
    weights = [weight.detach().requires_grad_() for weight in model.weights]
    outputs = model._replace(weights=weights).outputs(inputs) / temperature
    loss = cross_entropy(outputs, labels)
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    flow = sum(((gradient.detach() * gradient).sum() for gradient in gradients), torch.zeros(()))
    products = torch.autograd.grad(flow, weights)
    return [(weight * product).detach() for weight, product in zip(weights, products, strict=True)]


def synflow_masks(model: RateModel, budgets: Sequence[Budget], iterations: int = 100) -> list[Tensor]:
    """Return masks by synaptic flow, without data (Tanaka et al. 2020).

    Each iteration scores `|w| dR/d|w|` of what remains, where R is the sum of the outputs of the linear network of
    magnitudes for inputs of one, and removes an equal factor of the synapses. One shot would cut whole layers.

    Args:
        model: Rate model; biases do not matter.
        budgets: Number of synapses that remain in each layer; with the scope `network` all are equal.
        iterations: Number of iterations.
    """
    densities = [budget.as_density(w.shape[1]) for budget, w in zip(budgets, model.weights, strict=True)]
    masks = [torch.ones_like(weight, dtype=torch.bool) for weight in model.weights]
    for iteration in range(1, iterations + 1):
        scores = [score.masked_fill(~mask, -torch.inf) for score, mask in zip(_flow(model, masks), masks, strict=True)]
        share = iteration / iterations
        stage = [budget.relaxed(share, w.shape[1]) for budget, w in zip(densities, model.weights, strict=True)]
        if iteration == iterations:
            stage = list(budgets)
        if stage[0].scope == "network":
            masks = select(scores, stage[0])
        else:
            masks = [select([score], budget)[0] for score, budget in zip(scores, stage, strict=True)]
    return masks


def _flow(model: RateModel, masks: Sequence[Tensor]) -> list[Tensor]:
    """Return `|w| dR/d|w|` of each layer, divided by their sum, which is R in every layer."""
    sizes = [torch.where(m, w.detach().abs().double(), 0.0) for m, w in zip(masks, model.weights, strict=True)]
    forward = [torch.ones(sizes[0].shape[1], dtype=torch.float64, device=sizes[0].device)]
    for size in sizes:
        flow = size @ forward[-1]
        forward.append(flow / flow.mean().clamp(min=1e-300))
    backward = torch.ones_like(forward[-1])
    scores: list[Tensor] = []
    for size, flow in zip(reversed(sizes), reversed(forward[:-1]), strict=True):
        scores.insert(0, backward[:, None] * size * flow)
        backward = size.t() @ backward
        backward = backward / backward.mean().clamp(min=1e-300)
    return [score / score.sum().clamp(min=1e-300) for score in scores]
