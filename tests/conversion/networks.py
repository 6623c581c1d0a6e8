"""Networks that tests of conversion share."""

from itertools import pairwise

import torch
from torch import nn

from hxtrain.runs.randomness import seeded


def convolutional(seed: int = 0) -> nn.Sequential:
    """Return a small convolutional network for images `[8, 8]` whose normalisation has statistics of its own."""
    with seeded(seed):
        module = nn.Sequential(
            nn.Unflatten(1, (1, 8)),
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False), nn.ReLU()),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(6, 12),
            nn.BatchNorm1d(12),
            nn.ReLU(),
            nn.Linear(12, 3),
        ).double()
        for _ in range(3):
            module(2 * torch.rand(32, 8, 8).double())
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 2)
                nn.init.uniform_(part.bias, -0.3, 0.5)
    return module.eval()


def perceptron(*sizes: int, seed: int = 0, bias: bool = True) -> nn.Sequential:
    """Return fully connected layers with ReLU between them, in double precision."""
    with seeded(seed):
        parts: list[nn.Module] = []
        for sources, targets in pairwise(sizes):
            parts += [nn.Linear(sources, targets, bias=bias), nn.ReLU()]
    return nn.Sequential(*parts[:-1]).double()


def samples(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return values in 0..1, in double precision."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
