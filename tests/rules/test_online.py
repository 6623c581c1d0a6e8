"""Rules that learn while a trial runs: their gradients are those of backpropagation, whatever the windows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import hxtrain as hx
from hxtrain.network import Activity
from hxtrain.objectives import Loss, MaxOverTime, MeanAfter, MeanOverTime, SpikeCount, SpikeCountMSE
from hxtrain.objectives.losses import read_output
from hxtrain.objectives.online import Grid
from hxtrain.objectives.van_rossum import VanRossum
from hxtrain.rules import Backprop, Batch, Objective
from hxtrain.rules.eligibility import Eligibilities, Filter
from hxtrain.rules.online import OnlineRule
from hxtrain.rules.rtrl import RTRL, EProp
from hxtrain.rules.superspike import SuperSpike

SAMPLES = 6
INPUTS = 14
CLASSES = 3
LOSSES = [MaxOverTime(), MeanOverTime(), MeanAfter(start=12e-6), SpikeCount(), SpikeCountMSE(), VanRossum()]
WINDOWS = [1, 3, 7, 20, 50]


def network(loss: Loss, *hidden: int, steps: int = 20, recurrent: float = 0.0) -> hx.Network:
    """Return a network of double precision that fires."""
    modules: list[torch.nn.Module] = []
    inputs = INPUTS
    for size in hidden:
        modules += [hx.Linear(inputs, size, mean=0.05, gain=5.0), hx.LIF(size, tau_mem=7e-6, tau_syn=5e-6)]
        if recurrent:
            modules.append(hx.Recurrent(size, gain=recurrent))
        inputs = size
    output = hx.LI(CLASSES) if loss.reads == "membranes" else hx.LIF(CLASSES, tau_mem=8e-6)
    modules += [hx.Linear(inputs, CLASSES, mean=0.05, gain=5.0), output]
    return hx.Network(*modules, steps=steps, seed=1).double()


def batch(steps: int = 20) -> Batch:
    generator = torch.Generator().manual_seed(3)
    times = torch.rand(SAMPLES, INPUTS, generator=generator) * steps * 1.7e-6
    return Batch(hx.Spikes.from_times(times), torch.arange(SAMPLES) % CLASSES)


def gradients(net: hx.Network) -> list[Tensor]:
    """Return the gradients of all weights, and clear them."""
    copies = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    for parameter in net.parameters():
        parameter.grad = None
    return copies


def learned(net: hx.Network, rule: OnlineRule, loss: Loss, samples: Batch) -> tuple[list[Tensor], float]:
    """Return the gradients and the loss of a rule."""
    loss.prepare(CLASSES)
    rule.prepare(net, Objective(loss))
    value = rule.step(net, samples).loss
    return gradients(net), value


def backprop_of_errors(net: hx.Network, loss: Loss, samples: Batch) -> list[Tensor]:
    """Return the gradients of the sum of the output, weighted by the errors of its steps."""
    activity: Activity = net(samples.spikes)
    errors = loss.online(samples.labels, CLASSES, Grid(net.steps, net.dt))
    assert errors is not None
    (activity.output * errors.observe(activity.output.detach(), is_end=True)).sum().backward()  # type: ignore[no-untyped-call]
    return gradients(net)


def cosine(x: Tensor, y: Tensor) -> float:
    return float(torch.cosine_similarity(x.flatten(), y.flatten(), dim=0))


def distance(x: list[Tensor], y: list[Tensor]) -> float:
    """Return the largest relative difference of two lists of gradients."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("loss", LOSSES[:5], ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("hidden", [(), (11,)], ids=["perceptron", "hidden"])
def test_rtrl_is_backpropagation_of_its_errors(hidden: tuple[int, ...], loss: Loss, window: int) -> None:
    net = network(loss, *hidden)
    streamed, value = learned(net, RTRL(window), loss, batch())
    exact = backprop_of_errors(net, loss, batch())
    assert all(float(gradient.norm()) > 0 for gradient in exact)
    assert distance(streamed, exact) < 1e-10
    with torch.no_grad():
        activity = net(batch().spikes)
    assert value == pytest.approx(float(loss(read_output(loss, activity), batch().labels)), rel=1e-10)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("steps", [20, 700])
def test_superspike_of_a_layer_is_backpropagation_of_the_distance(steps: int, window: int) -> None:
    net = network(LOSSES[-1], steps=steps)
    loss = VanRossum(tau_rise=3e-6, tau_decay=9e-6, interval=steps * 2.5e-7)
    streamed, value = learned(net, SuperSpike(window), loss, batch(steps))
    rule = Backprop()
    rule.prepare(net, Objective(loss))
    assert rule.step(net, batch(steps)).loss == pytest.approx(value, rel=1e-10)
    assert distance(streamed, gradients(net)) < 1e-10


@pytest.mark.parametrize(
    ("rule", "loss"),
    [
        (RTRL(), MaxOverTime()),
        (EProp(), MeanOverTime()),
        (RTRL(), SpikeCount()),
        (SuperSpike(feedback="random"), VanRossum()),
    ],
    ids=["rtrl", "eprop", "spikes", "superspike"],
)
@pytest.mark.parametrize("recurrent", [0.0, 0.3])
def test_windows_of_a_trial_are_the_whole(rule: OnlineRule, loss: Loss, recurrent: float) -> None:
    net = network(loss, 11, 9, steps=60, recurrent=recurrent)
    whole, value = learned(net, replace(rule, window=60), loss, batch(60))
    assert len(whole) == (5 if recurrent else 3)
    for window in (1, 7, 59):
        pieces, streamed_value = learned(net, replace(rule, window=window), loss, batch(60))
        assert distance(pieces, whole) < 1e-12
        assert streamed_value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("is_filtered", [True, False])
def test_eligibilities_are_the_equations(is_filtered: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    steps = 13
    samples = 2
    sources = 3
    neurons = 5
    inputs = torch.poisson(torch.full((steps, samples, sources), 0.4, dtype=torch.float64), generator)
    slopes, signals = (torch.randn(steps, samples, neurons, generator=generator, dtype=torch.float64) for _ in range(2))
    trace = Filter(0.7, 0.8)
    response = Filter(0.6, 0.9)
    eligibilities = Eligibilities((samples, sources, neurons), trace, response if is_filtered else None, torch.float64)
    for part in torch.arange(steps).split(4):
        eligibilities.observe(inputs[part], slopes[part], signals[part], is_end=int(part[-1]) == steps - 1)
    current, potential = torch.zeros(2, samples, 1, sources, dtype=torch.float64)
    rise, eligibility = torch.zeros(2, samples, neurons, sources, dtype=torch.float64)
    expected = torch.zeros(neurons, sources, dtype=torch.float64)
    for x, slope, signal in zip(inputs, slopes, signals, strict=True):
        local = slope[:, :, None] * potential
        expected += (signal[:, :, None] * (eligibility if is_filtered else local)).sum(0)
        rise = response.rise * rise + local
        eligibility = response.decay * eligibility + rise
        current = trace.rise * current + x[:, None]
        potential = trace.decay * potential + current
    assert torch.allclose(eligibilities.gradient, expected, rtol=1e-12, atol=1e-12)
