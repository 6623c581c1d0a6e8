"""Voltage-based plasticity: the compiled loop against the same steps as products of matrices in float64."""

import math

import pytest
import torch
from torch import Tensor

import hxtrain as hx
from hxtrain.rules import Batch, Objective, Window
from hxtrain.rules.clopath import Clopath


def reference(rule: Clopath, dt: float, inputs: Tensor, voltages: Tensor) -> Tensor:
    """Return the change `[N, J]` for input spikes `[T, B, J]` and membranes with spikes `[T, B, N]`."""
    minus = plus = voltages[0]
    trace = torch.zeros_like(inputs[0])
    change = torch.zeros(voltages.shape[2], inputs.shape[2], dtype=torch.float64)
    for spikes, voltage in zip(inputs, voltages, strict=True):
        depression = rule.a_ltd * (minus - rule.theta_minus).clamp(min=0)
        potentiation = (voltage - rule.theta_plus).clamp(min=0) * (plus - rule.theta_minus).clamp(min=0)
        change += rule.a_ltp * dt / rule.tau_x * potentiation.T @ trace - depression.T @ spikes
        minus = minus + (voltage - minus) * -math.expm1(-dt / rule.tau_minus)
        plus = plus + (voltage - plus) * -math.expm1(-dt / rule.tau_plus)
        trace = trace * math.exp(-dt / rule.tau_x) + spikes
    return change


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("theta_plus", [0.3, 1.25])
def test_the_loop_is_the_sum_over_steps(theta_plus: float, recurrent: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    recurrence = [hx.Recurrent(5, gain=0.3)] if recurrent else []
    net = hx.Network(hx.Linear(8, 5, mean=0.5, gain=1.0), hx.LIF(5), *recurrence, seed=2, dt=1e-6, steps=40)
    spikes = hx.Spikes.from_times(torch.rand(6, 8, generator=generator) * 3e-5)
    sample = Batch(spikes, torch.arange(6) % 5)
    rule = Clopath(theta_plus=theta_plus, window=7)
    rule.prepare(net, Objective(hx.SpikeCount()))
    layer = rule.step(net, sample).activity.layers[0]
    assert layer.spikes is not None
    assert layer.spikes.sum() > 5
    fired = layer.spikes.detach().double()
    voltages = layer.trace.detach().double() + rule.spike * fired
    sources = {"input->layer0": spikes.to_grid(net.dt, net.steps).double(), "layer0->layer0": fired}
    for projection in net.projections:
        expected = reference(rule, net.dt, sources[projection.name], voltages)
        torch.testing.assert_close(rule.change(net, projection.name), expected, rtol=1e-12, atol=1e-12)
        grad = projection.synapses.weight.grad
        assert grad is not None
        torch.testing.assert_close(grad, -(expected / 6).float())


def test_dense_windows_give_the_same_change_as_events() -> None:
    net = hx.Network(hx.Linear(4, 3, mean=0.5, gain=1.0), hx.LIF(3), seed=1, dt=1e-6, steps=30)
    times = torch.rand(2, 4, generator=torch.Generator().manual_seed(1)) * 2e-5
    sample = Batch(hx.Spikes.from_events([0, 0, 1], [1, 1, 3], [5e-6, 5e-6, 8e-6], 2, 4), torch.arange(2))
    for batch in (sample, Batch(hx.Spikes.from_times(times), torch.arange(2))):
        rule = Clopath()
        rule.prepare(net, Objective(hx.SpikeCount()))
        activity = rule.step(net, batch).activity
        by_events = rule.change(net, "input->layer0")
        rule.begin(net, batch)
        for window in hx.rules.streaming.windows(net, batch.spikes, activity.layers, 4):
            assert isinstance(window, Window)
            rule.observe(net, batch, window)
        assert torch.equal(rule.change(net, "input->layer0"), by_events)
