"""Optimisers by name: what they build, and which settings they refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hxtrain.rules import OPTIMIZERS, SGD, Adam, Optimizer

BUILT: list[tuple[Optimizer, Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]]] = [
    (Adam(), lambda weights: torch.optim.Adam(weights, lr=0.01, fused=True)),
    (Adam([0.8, 0.99], 1e-3), lambda weights: torch.optim.Adam(weights, 0.01, (0.8, 0.99), 1e-3, fused=True)),
    (SGD(), lambda weights: torch.optim.SGD(weights, lr=0.01, fused=True)),
    (SGD(0.9, True), lambda weights: torch.optim.SGD(weights, 0.01, 0.9, nesterov=True, fused=True)),
]


@pytest.mark.parametrize(("settings", "reference"), BUILT, ids=[str(settings) for settings, _ in BUILT])
def test_an_optimizer_is_that_of_torch_bit_by_bit(
    settings: Optimizer, reference: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
) -> None:
    weights = []
    for build in (lambda parameters: settings.build(parameters, 0.01), reference):
        generator = torch.Generator().manual_seed(3)
        weight = torch.nn.Parameter(torch.randn(7, 5, generator=generator))
        optimizer = build([weight])
        for _ in range(20):
            weight.grad = torch.randn(7, 5, generator=generator)
            optimizer.step()
        weights.append(weight.detach())
    assert torch.equal(*weights)


def test_optimizers_are_registered() -> None:
    assert {"adam": Adam, "sgd": SGD}.items() <= dict(OPTIMIZERS).items()


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Adam([0.9]), r"optimizer.betas=\[0.9\] must be two numbers in 0 <= x < 1"),
        (lambda: Adam([0.9, 1.0]), r"optimizer.betas=\[0.9, 1.0\] must be two numbers"),
        (lambda: Adam(eps=-1.0), "optimizer.eps=-1.0 must be finite and not negative"),
        (lambda: SGD(1.0), "optimizer.momentum=1.0 must be in 0 <= x < 1"),
        (lambda: SGD(nesterov=True), "optimizer.nesterov=true needs a momentum"),
        (lambda: SGD("0.5"), "optimizer.momentum='0.5' must be a number"),  # type: ignore[arg-type]
    ],
)
def test_wrong_settings_are_refused(build: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build()
