"""Pre-training of an artificial neural network as a stack of denoising auto-encoders, without labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, mse_loss

from hxtrain.conversion.softlif import SoftLIF
from hxtrain.runs.randomness import epoch_order, generator


@dataclass(frozen=True)
class Pretraining:
    """Settings of the pre-training.

    Attributes:
        epochs: Passes over the samples for each hidden layer.
        zeros: Share of the inputs of a layer that is set to 0.
        learning_rate: Learning rate of Adam.
        batch_size: Samples per step.
        seed: Seed of the order of samples and of the zeros.
    """

    epochs: int
    zeros: float
    learning_rate: float
    batch_size: int
    seed: int


def pretrain(model: nn.Sequential, samples: Tensor, settings: Pretraining) -> list[float]:
    """Train each hidden layer to restore its inputs from inputs of which some are 0 (Vincent et al. 2008).

    The layers follow each other, the first one first. The decoder has the transposed weights and a bias of its own;
    the loss is the mean squared error. A zero is what a missing spike is, so that features lean less on single inputs.

    Args:
        model: Fully connected network: `Linear` layers with an activation behind all but the last.
        samples: Intensities `[B, ...]` in 0..1.
        settings: Epochs, zeros, learning rate, batch size and seed.

    Returns:
        Mean squared error of each hidden layer in its last epoch.

    Raises:
        ValueError: The network has a layer of another kind.
    """
    layers = hidden_layers(model)
    rates = samples.flatten(1)
    errors = []
    for number, (weights, activation) in enumerate(layers):
        errors.append(_restore(weights, activation, rates, settings, number))
        with torch.no_grad():
            rates = activation(weights(rates))
    return errors


def hidden_layers(model: nn.Sequential) -> list[tuple[nn.Linear, nn.Module]]:
    """Return the hidden layers of a fully connected network with their activations.

    Raises:
        ValueError: The network has a layer of another kind, or none that is hidden.
    """
    parts = [part for part in model if not isinstance(part, nn.Flatten | nn.Dropout)]
    for part in parts:
        if not isinstance(part, nn.Linear | nn.ReLU | SoftLIF):
            raise ValueError(
                f"{type(part).__name__} cannot be pre-trained as an auto-encoder; take model=mlp, or leave "
                "trainer.pretraining_epochs at 0"
            )
    pairs = list(zip(parts[:-1:2], parts[1:-1:2], strict=True))
    if not pairs:
        raise ValueError("there is no hidden layer to pre-train; give model.hidden, or trainer.pretraining_epochs=0")
    return pairs  # type: ignore[return-value]


def _restore(weights: nn.Linear, activation: nn.Module, rates: Tensor, settings: Pretraining, number: int) -> float:
    """Train one layer; return its mean squared error in the last epoch."""
    offset = nn.Parameter(torch.zeros(weights.in_features, device=rates.device, dtype=rates.dtype))
    optimizer = torch.optim.Adam([*weights.parameters(), offset], lr=settings.learning_rate)
    error = 0.0
    for epoch in range(settings.epochs):
        source = generator(settings.seed, "pretraining", number, epoch)
        order = epoch_order(settings.seed, epoch, len(rates))
        error = 0.0
        for indices in torch.split(order, settings.batch_size):
            clean = rates[indices.to(rates.device)]
            remaining = torch.rand(clean.shape, generator=source) >= settings.zeros
            code = activation(weights(clean * remaining.to(clean.device)))
            loss = mse_loss(linear(code, weights.weight.T, offset), clean)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            error += float(loss.detach()) * len(indices) / len(rates)
    return error
