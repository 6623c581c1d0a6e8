"""The conversion beside SpikingJelly's: the same outputs with the same thresholds.

The package is no extra, since it pulls torchvision and torchaudio, which it does not need for this:
`pip install --no-deps spikingjelly loguru requests urllib3 idna certifi charset_normalizer`.
"""

import pytest
import torch
from networks import samples
from torch import nn

from hxtrain.conversion import (
    DataNorm,
    Simulation,
    fold_batch_norm,
    from_sequential,
    merge_linear,
    normalise_by_data,
    simulate,
)
from hxtrain.runs.randomness import seeded

ann2snn = pytest.importorskip("spikingjelly.activation_based.ann2snn", exc_type=ImportError)


def test_outputs_are_those_of_spikingjelly_step_by_step() -> None:
    from spikingjelly.activation_based import functional

    with seeded(0):
        parts = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
        module = nn.Sequential(*parts, nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 5)).double()
    x = samples(40, 1, 8, 8)
    module(x)
    module.eval()
    recipe = ann2snn.RateCodingRecipe(dataloader=[(x, torch.zeros(len(x)))], mode="Max")
    spiking = ann2snn.Converter(recipe).convert(module)
    functional.reset_net(spiking)
    network = merge_linear(fold_batch_norm(from_sequential(module, (1, 8, 8))))  # pools without neurons, as there
    network = normalise_by_data(network, x, DataNorm(percentile=100))
    times = [1, 8, 32]
    activity = simulate(network, x, Simulation(steps=32), times=times)
    total = torch.zeros(len(x), 5, dtype=torch.float64)
    for step in range(1, 33):
        total += spiking(x)
        if step in times:
            expected = total / step / network.layers[-1].scale
            output = activity.outputs[times.index(step)]
            torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)
