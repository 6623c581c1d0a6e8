"""Spiking neurons in software: resets, codes, thresholds, gates, winners, leaky neurons, first spikes."""

import math
from dataclasses import replace

import pytest
import torch
from networks import perceptron, samples
from torch import Tensor

from hxtrain.conversion import (
    ConstantCode,
    ConversionError,
    DataNorm,
    InputCode,
    LIFCurve,
    MaxLayer,
    PoissonCode,
    RateLayer,
    RateNetwork,
    RegularCode,
    Simulation,
    SoftLIF,
    first_spikes,
    from_sequential,
    normalise_by_data,
    simulate,
)

X = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
EYE = torch.eye(1, dtype=torch.float64)


def relay(**settings: object) -> Tensor:
    """Return the firing rates `[101]` of one neuron with weight 1 for inputs 0, .01 .. 1."""
    network = RateNetwork((RateLayer("relay", EYE),), (1,))
    simulation = Simulation(output="spikes", **settings)  # type: ignore[arg-type]
    return simulate(network, X, simulation, torch.Generator().manual_seed(0)).rates[0][:, 0]


def test_soft_reset_keeps_what_hard_reset_loses() -> None:
    soft = (relay() - X[:, 0]).abs().max()
    hard = (relay(reset="hard") - X[:, 0]).abs().max()
    assert float(soft) <= 0.0101  # 1 / T, and the rounding of sums
    assert float(hard) == pytest.approx(0.49, abs=0.011)


def test_half_a_threshold_at_the_start_rounds_rates() -> None:
    assert float((relay(steps=10, initial=0.5) - X[:, 0]).abs().max()) <= 0.0501
    assert float((relay(steps=10) - X[:, 0]).abs().max()) == pytest.approx(0.1, abs=0.011)


@pytest.mark.parametrize(("code", "error"), [(RegularCode(), 0.0101), (PoissonCode(), 0.2), (ConstantCode(), 1e-9)])
def test_codes_have_the_rate_as_mean(code: InputCode, error: float) -> None:
    generator = torch.Generator().manual_seed(0)
    trains = torch.stack([code.inputs(X, step, generator) for step in range(100)])
    deviation = trains.mean(0) - X
    assert float(deviation.abs().max()) <= error
    assert abs(float(deviation.mean())) < 0.01
    if error < 0.1:
        return
    assert float((trains.var(0) - X * (1 - X)).abs().max()) < 0.08  # independent draws
    assert set(trains.unique().tolist()) == {0.0, 1.0}


def test_a_threshold_that_rises_with_spikes_adapts_the_rate() -> None:
    assert float(relay(adaptation=0.02).max()) < 0.8
    rates = relay(steps=2000, adaptation=0.5, adaptation_steps=20.0)
    decay = math.exp(-1 / 20)
    for place in (20, 60):  # stationary: x = rate * threshold, with the threshold before a spike
        rate = float(rates[place])
        excess = 0.5 * decay ** (1 / rate - 1) / (1 - decay ** (1 / rate))
        assert rate * (1 + excess) == pytest.approx(float(X[place, 0]), rel=0.06)
    assert torch.equal(relay(adaptation=0.0), relay())


def test_gated_maximum_passes_the_spikes_of_the_strongest_source() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    eye = torch.eye(4, dtype=torch.float64)
    network = RateNetwork((RateLayer("hidden", eye), MaxLayer("max", mask), RateLayer("out", EYE.repeat(1, 2))), (4,))
    x = samples(200, 4)
    rates = simulate(network, x, Simulation(steps=200)).rates
    expected = network.activations(x)[1]
    error = (rates[1] - expected).abs()
    assert float(error.max()) < 0.03
    assert float(error.mean()) < 0.006
    summed = rates[0][:, :3].sum(1)
    assert float((rates[1][:, 0] - summed).mean()) < -0.3  # an OR of all spikes would be far off


def test_gate_follows_a_change_with_a_time_constant() -> None:
    class Switch(InputCode):
        def inputs(self, rates: Tensor, step: int, generator: torch.Generator | None) -> Tensor:
            return rates if step < 60 else rates.flip(1)

    network = RateNetwork((RateLayer("hidden", torch.eye(2)), MaxLayer("max", torch.ones(1, 2).bool())), (2,))
    x = torch.tensor([[1.0, 0.0]])
    lasting = simulate(network, x, Simulation(steps=100, code=Switch())).rates[1]
    recent = simulate(network, x, Simulation(steps=100, code=Switch(), pool_steps=5)).rates[1]
    assert float(lasting) == pytest.approx(0.6)
    assert float(recent) == pytest.approx(0.96, abs=0.03)


def test_spiking_softmax_draws_winners_by_the_membranes() -> None:
    weight = torch.tensor([[0.02], [0.01], [0.0]], dtype=torch.float64)
    network = RateNetwork((RateLayer("out", weight, activation="linear"),), (1,))
    x = torch.ones(4000, 1, dtype=torch.float64)
    settings = Simulation(steps=100, output="softmax", softmax_clock=0.25)
    activity = simulate(network, x, settings, torch.Generator().manual_seed(0))
    steps = torch.arange(1, 101, dtype=torch.float64)[:, None]
    expected = 0.25 * (steps * weight[:, 0]).softmax(1).mean(0)
    torch.testing.assert_close(activity.rates[0].mean(0), expected, atol=0.002, rtol=0)
    assert activity.spikes[0] == pytest.approx(25, abs=0.5)


def test_rates_of_a_network_approach_the_activations() -> None:
    x = samples(200, 20)
    network = normalise_by_data(from_sequential(perceptron(20, 40, 30, 5), (20,)), x, DataNorm(percentile=100))
    activity = simulate(network, x, Simulation(steps=400), times=[25, 100, 400])
    expected = network.activations(x)
    errors = [float((output - expected[-1]).abs().mean()) for output in activity.outputs]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    for rates, activation in zip(activity.rates, expected, strict=True):
        assert float((rates - activation).abs().max()) < 0.03
    assert activity.spikes[0] == pytest.approx(400 * float(expected[0].sum(1).mean()), rel=0.02)
    assert activity.accuracies(expected[-1].argmax(1))[-1] > 0.95


def test_leaky_neurons_fire_with_the_rate_of_their_curve() -> None:
    curve = LIFCurve(gamma=0.0)
    currents = torch.linspace(0, 8, 50, dtype=torch.float64)[:, None]
    network = RateNetwork((RateLayer("lif", EYE, activation="softlif", curve=curve),), (1,))
    rates = simulate(network, currents, Simulation(steps=2000, synapse=0.0)).rates[0]
    torch.testing.assert_close(rates, curve(currents), atol=0.002, rtol=0)
    smooth = replace(curve, gamma=0.1)(currents)
    assert bool((smooth.diff(dim=0) > 0).all())
    rho = 0.1 * torch.log1p(torch.exp((currents - 1) / 0.1))
    torch.testing.assert_close(smooth, 2e-3 / (2e-3 + 20e-3 * torch.log1p(1 / rho)))
    assert float((smooth - curve(currents)).abs().max()) > 0.03


def test_leaky_layers_feed_rates_downstream() -> None:
    module = perceptron(10, 20, 3)
    module[1] = SoftLIF(LIFCurve(gamma=0.02))
    module[0].weight.data *= 8
    network = from_sequential(module.eval(), (10,))
    x = samples(50, 10)
    outputs = simulate(network, x, Simulation(steps=1000)).outputs[0]
    spread = network.output(x).std(0).min()
    assert float((outputs - network.output(x)).abs().mean()) < 0.1 * float(spread)


def test_noise_of_soft_lif_is_of_training_alone_and_gradients_are_finite() -> None:
    activation = SoftLIF(noise=0.05)
    current = torch.linspace(-100, 100, 2001).requires_grad_()
    noise = (activation(current) - activation.eval()(current)).detach()
    assert float(noise.std()) == pytest.approx(0.05, rel=0.1)
    activation(current).sum().backward()
    assert current.grad is not None
    assert bool(torch.isfinite(current.grad).all())
    assert bool((current.grad > 0).all())
    assert float(current.grad.max()) > 0.1


def test_first_spikes_round_rates_to_the_window() -> None:
    x = samples(50, 12)
    network = normalise_by_data(from_sequential(perceptron(12, 20, 20, 4), (12,)), x)
    activity = first_spikes(network, x, steps=64)
    hidden = network.rate_layers[0]
    inputs = (x * 64).round() / 64
    expected = (hidden(inputs) * 64).round().clamp(max=64)
    assert float((64 - activity.times[1] - expected).abs().max()) == 0
    errors = [float((first_spikes(network, x, steps).output - network.output(x)).abs().mean()) for steps in (16, 256)]
    assert errors[1] < 0.01 < 2 * errors[0]
    assert activity.spikes <= 12 + 20 + 20


@pytest.mark.parametrize(
    ("activation", "settings", "x", "text"),
    [
        ("linear", Simulation(), X, "layer0 is linear: .* call signed_neurons or merge_linear"),
        ("relu", Simulation(code=PoissonCode()), X, "PoissonCode needs a generator"),
        ("relu", Simulation(code=RegularCode()), X - 1, r"RegularCode takes rates in 0\.\.1, the inputs span -1\.\.0"),
        ("relu", Simulation(output="softmax"), X, "output=softmax needs a generator"),
        ("relu", Simulation(), X.repeat(1, 2), r"samples have shape \[101, 2\], expected \[B, ...\] with 1 values"),
    ],
)
def test_simulations_that_make_no_sense_are_refused(
    activation: str, settings: Simulation, x: Tensor, text: str
) -> None:
    network = RateNetwork((RateLayer("layer0", EYE, activation=activation), RateLayer("layer1", EYE)), (1,))
    with pytest.raises(ConversionError, match=text):
        simulate(network, x, settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("reset", "half"),
        ("output", "votes"),
        ("adaptation", -1.0),
        ("pool_steps", 0.0),
        ("softmax_clock", 2.0),
    ],
)
def test_settings_of_a_simulation_are_checked(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"simulation\.{name}="):
        Simulation(**{name: value})  # type: ignore[arg-type]


def test_times_are_checked() -> None:
    network = RateNetwork((RateLayer("relay", EYE),), (1,))
    with pytest.raises(ConversionError, match=r"times=\[10, 200\] must be ascending numbers of steps in 1\.\.100"):
        simulate(network, X, times=[10, 200])
