"""Comparison of two devices: equal devices agree, and the broken layer is named."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import hxtrain as hx
from hxtrain.backends import Backend, BackendWrapper, DeviceError, Spikes, create_backend
from hxtrain.comparison import Tolerance, compare
from hxtrain.comparison.response import linear_response
from hxtrain.network import PlacementError
from hxtrain.plots import training as plots

DT, STEPS = 1.7e-6, 20
LOSS = hx.MaxOverTime()


class Altered(BackendWrapper):
    """A backend that alters weights on their way in, or recordings on their way out."""

    def __init__(self, backend: Backend, weights: Callable = lambda w: w, recording: Callable = lambda r: r):
        super().__init__(backend)
        self.weights, self.recording = weights, recording

    def map_weights(self, weights):
        return self.weights(dict(weights))

    def map_recording(self, recording, stimulus):
        return self.recording(recording)


def weakened(name: str, factor: float) -> Callable:
    return lambda weights: {**weights, name: (weights[name] * factor).round().to(torch.int8)}


def late(seconds: float) -> Callable:
    """Return a function that delays all spikes and changes nothing else."""
    return lambda recording: replace(
        recording, spikes={name: replace(s, time=s.time + seconds) for name, s in recording.spikes.items()}
    )


def dead_neurons(name: str, count: int) -> Callable:
    return lambda recording: replace(
        recording,
        traces={**recording.traces, name: recording.traces[name].clone().index_fill_(2, torch.arange(count), 80)},
    )


def chip(preset: str = "calibrated", seed: int = 0, **altered: Callable) -> hx.Device:
    backend = create_backend("emulator", preset=preset, seed=seed)
    return hx.Device(Altered(backend, **altered) if altered else backend)


def network(recurrent: bool = False) -> hx.Network:
    recurrence = [hx.Recurrent(30, gain=0.7)] if recurrent else []
    layers = hx.Linear(40, 30, mean=0.02, gain=2), hx.LIF(30), *recurrence, hx.Linear(30, 4, gain=1.4), hx.LI(4)
    return hx.Network(*layers, dt=DT, steps=STEPS)


def samples(count: int = 150) -> Spikes:
    return hx.LatencyEncoder()(torch.rand(count, 40, generator=torch.Generator().manual_seed(1)))


def compare_on(first, second, net=None, **kw):
    return compare(net or network(), first, second, samples(), LOSS, **kw)


@pytest.mark.parametrize(("tau_mem", "tau_syn"), [(6e-6, 6e-6), (9e-6, 4e-6), (5e-6, 5e-6 * (1 + 1e-7))])
def test_linear_response_is_the_sum_of_potentials_at_exact_times(tau_mem, tau_syn):
    generator = torch.Generator().manual_seed(0)
    time = torch.rand(30, generator=generator) * 30e-6
    unit = torch.randint(0, 3, (30,), generator=generator)
    events = Spikes(torch.arange(2).repeat_interleave(15), unit, time, samples=2, units=3)
    weight = torch.randn(4, 3, generator=generator)
    since = (torch.arange(STEPS).double() * DT)[:, None] - time.double()  # [T, E]
    rise = torch.exp(-since / tau_mem) - torch.exp(-since / tau_syn)
    norm = torch.exp(torch.tensor(-DT / tau_mem).double()) - torch.exp(torch.tensor(-DT / tau_syn).double())
    equal = abs(tau_mem / tau_syn - 1) < 1e-6
    shape = since / DT * torch.exp(-(since - DT) / tau_mem) if equal else rise / norm
    potential = torch.where(since > 0, shape, 0.0)[:, None, :] * weight.double()[:, unit]  # [T, N, E]
    expected = torch.stack([potential[:, :, :15].sum(2), potential[:, :, 15:].sum(2)], dim=1)
    response = linear_response(weight, events, DT, STEPS, tau_mem, tau_syn)
    torch.testing.assert_close(response.double(), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_twin_responds_like_the_model_and_repeats_itself(recurrent):
    comparison = compare_on(None, None, network(recurrent))
    assert comparison.verdict == "no layer disagrees beyond tolerance and noise; own response differs in no layer"
    assert set(comparison.gradients) == {"input->layer0", "layer0->layer1"} | (
        {"layer0->layer0"} if recurrent else set()
    )
    for layer in comparison.layers:
        assert layer.responses[0].gain == pytest.approx(1, abs=1e-5)
        assert layer.responses[0].residual < 1e-5
    assert float(comparison.layers[0].rates[0].mean()) > 0.3


def test_a_chip_at_the_same_clock_responds_identically():
    comparison = compare_on(chip(), chip(), labels=torch.zeros(150, dtype=torch.long))
    assert comparison.first_disagreeing is None
    assert comparison.responding_differently == []
    hidden, readout = comparison.layers
    for layer in comparison.layers:
        differences = layer.between
        assert (differences.trace, differences.gain, differences.residual) == (0, 0, 0)
        assert layer.repeat.trace > 0.01  # noise at another place of the clock
    assert (hidden.between.only_one, hidden.between.first_spike_rms, hidden.between.threshold) == (0, 0, 0)
    assert hidden.repeat.only_one > 0.005
    assert (readout.rates, readout.between.only_one, readout.responses[0].threshold) == (None, None, None)
    assert comparison.same_answers.between == 1
    assert comparison.accuracies[0] == comparison.accuracies[1]
    assert [pair.between for pair in comparison.gradients.values()] == pytest.approx([1, 1])
    assert comparison.as_dict()["layers"]["layer0"]["between"]["only_one"] == 0
    assert all(0.5 < pair.repeat < 1 - 1e-6 for pair in comparison.gradients.values())


def test_a_chip_agrees_with_itself_in_other_noise_and_on_one_clock():
    device = chip()
    assert compare_on(device, chip(seed=1)).first_disagreeing is None
    comparison = compare_on(device, device)
    assert comparison.first_disagreeing is None
    assert comparison.layers[0].between.trace > 0.01
    assert device.clock == 5 * 150


def test_ideal_devices_agree_within_the_default_tolerance():
    comparison = compare_on(hx.Device(create_backend("reference")), chip("ideal"))
    assert comparison.verdict == "no layer disagrees beyond tolerance and noise; own response differs in no layer"
    hidden = comparison.layers[0]
    assert hidden.responses[0].gain == pytest.approx(1, abs=0.02)
    assert hidden.responses[1].gain == pytest.approx(1, abs=0.02)
    assert hidden.responses[1].threshold == pytest.approx(1, abs=0.05)
    assert hidden.between.first_spike < DT / 16  # both interpolate within their sub-step of DT / 4
    strict = compare_on(hx.Device(create_backend("reference")), chip("ideal"), tolerance=Tolerance(threshold=0.001))
    assert strict.responding_differently == ["layer0"]


def test_mismatch_begins_in_the_first_layer():
    comparison = compare_on(chip("ideal"), chip("uncalibrated"))
    assert comparison.first_disagreeing == "layer0"
    assert comparison.responding_differently == ["layer0", "layer1"]
    assert {"gain", "threshold", "residual"} <= set(comparison.layers[0].exceeded)
    assert comparison.verdict.startswith("layer0 is the first layer that disagrees (trace 0.")
    assert comparison.gradients["input->layer0"].between < 0.95 * comparison.gradients["input->layer0"].repeat


BROKEN = {  # alteration, first layer that disagrees, layers whose own response differs
    "weak readout": ({"weights": weakened("layer0->layer1", 0.3)}, "layer1", ["layer1"]),
    "dead readout": ({"recording": dead_neurons("layer1", 2)}, "layer1", ["layer1"]),
    "weak hidden layer": ({"weights": weakened("input->layer0", 0.75)}, "layer0", ["layer0"]),
    "late stamps": ({"recording": late(2.5e-6)}, "layer0", ["layer0", "layer1"]),
}


@pytest.mark.parametrize("preset", ["ideal", "calibrated"])
@pytest.mark.parametrize("name", BROKEN)
def test_the_broken_layer_is_named(name, preset):
    altered, first, responders = BROKEN[name]
    comparison = compare_on(chip(preset), chip(preset, seed=1, **altered))
    assert comparison.first_disagreeing == first
    assert comparison.responding_differently == responders


def test_downstream_layers_inherit_differences_but_respond_alike():
    hidden, readout = compare_on(chip("ideal"), chip("ideal", weights=weakened("input->layer0", 0.75))).layers
    assert (hidden.agrees, hidden.responds_alike) == (False, False)
    assert (readout.agrees, readout.responds_alike) == (False, True)
    assert readout.between.gain < 0.02 < 0.2 < hidden.between.gain


def test_gains_are_measured():
    comparison = compare_on(chip("ideal"), chip("ideal", weights=weakened("layer0->layer1", 0.5)))
    ratio = comparison.layers[1].responses[1].gain / comparison.layers[1].responses[0].gain
    assert ratio == pytest.approx(0.5, abs=0.05)
    assert comparison.layers[0].between.trace == 0


def test_beside_the_twin_the_device_is_repeated_and_spikes_lie_on_the_grid():
    comparison = compare_on(None, chip())
    assert comparison.repeated == "second"
    assert comparison.layers[0].repeat.trace > 0.01
    bins = comparison.layers[0].between.first_spikes.double() / DT
    torch.testing.assert_close(bins, bins.round(), atol=1e-3, rtol=0)
    assert compare_on(chip(), None).repeated == "first"


def test_silent_layers_leave_numbers_undefined():
    net = network()
    with torch.no_grad():
        net.layers[0].linear.weight.zero_()
    comparison = compare_on(chip("ideal"), chip("ideal"), net)
    hidden, readout = comparison.layers
    assert (hidden.between.only_one, hidden.between.first_spike, hidden.between.gain) == (None, None, None)
    assert (hidden.between.trace_percent, readout.responses[0].gain) == (None, None)
    assert comparison.gradients["layer0->layer1"].between is None
    assert comparison.first_disagreeing is None


def test_the_network_is_left_as_it_was():
    net = network()
    device = chip("ideal")
    net.attach(device)
    compare_on(None, chip(), net)
    assert net.device is device
    net(samples(2))
    assert all(weight.grad is None for weight in net.parameters())
    with pytest.raises(PlacementError, match="neuron circuits"):
        compare_on(
            chip(), chip(), hx.Network(hx.Linear(40, 600), hx.LIF(600), hx.Recurrent(600), hx.Linear(600, 4), hx.LI(4))
        )


def test_a_device_that_fails_fails_the_comparison():
    def fail(recording):
        raise DeviceError("no answer")

    net = network()
    with pytest.raises(DeviceError, match="no answer"):
        compare_on(None, hx.Device(chip("ideal", recording=fail).backend, retries=0), net)
    assert net.device is None


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="3 labels for 150 samples; give one for each"):
        compare_on(None, None, labels=torch.zeros(3))
    with pytest.raises(ValueError, match="no samples"):
        compare(network(), None, None, samples(0), LOSS)
    with pytest.raises(ValueError, match=r"tolerance.gain=-0.1 must not be negative"):
        Tolerance(gain=-0.1)


def test_the_figure_shows_every_layer(tmp_path):
    comparison = compare_on(chip("ideal"), chip("uncalibrated"))
    figure = plots.comparison_figure(comparison)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["layer0, 30 neurons", "layer0"]
    assert titles[3].startswith("layer0, neuron ")
    assert titles[-1].startswith("layer1, neuron ")
    rates = figure.axes[0].lines[0]
    assert rates.get_ydata() == pytest.approx(comparison.layers[0].rates[1].numpy())
    example = comparison.layers[1].example
    assert figure.axes[-1].lines[2].get_ydata() == pytest.approx(example.second.double().numpy())
    assert plots.plot_comparison(comparison, tmp_path / "comparison.png").is_file()
