"""Two targets compared: nothing found where there is nothing, and the layer named that is broken."""

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
    """A backend whose weights are altered on their way in, or whose recordings on their way out."""

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
    """Stamp all spikes late, and nothing else."""
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
    own = [hx.Recurrent(30, gain=0.7)] if recurrent else []
    layers = hx.Linear(40, 30, mean=0.02, gain=2), hx.LIF(30), *own, hx.Linear(30, 4, gain=1.4), hx.LI(4)
    return hx.Network(*layers, dt=DT, steps=STEPS)


def samples(count: int = 150) -> Spikes:
    return hx.LatencyEncoder()(torch.rand(count, 40, generator=torch.Generator().manual_seed(1)))


def between(first, second, net=None, **kw):
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
    one = torch.exp(torch.tensor(-DT / tau_mem).double()) - torch.exp(torch.tensor(-DT / tau_syn).double())
    equal = abs(tau_mem / tau_syn - 1) < 1e-6
    shape = since / DT * torch.exp(-(since - DT) / tau_mem) if equal else rise / one
    potential = torch.where(since > 0, shape, 0.0)[:, None, :] * weight.double()[:, unit]  # [T, N, E]
    expected = torch.stack([potential[:, :, :15].sum(2), potential[:, :, 15:].sum(2)], dim=1)
    found = linear_response(weight, events, DT, STEPS, tau_mem, tau_syn)
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_twin_responds_like_the_model_and_repeats_itself(recurrent):
    found = between(None, None, network(recurrent))
    assert found.verdict == "no layer disagrees beyond tolerance and noise; own response differs in no layer"
    assert set(found.gradients) == {"input->layer0", "layer0->layer1"} | ({"layer0->layer0"} if recurrent else set())
    for layer in found.layers:
        assert layer.responses[0].gain == pytest.approx(1, abs=1e-5)
        assert layer.responses[0].residual < 1e-5
    assert float(found.layers[0].rates[0].mean()) > 0.3


def test_a_chip_at_the_same_place_of_its_clock_does_the_very_same():
    found = between(chip(), chip(), labels=torch.zeros(150, dtype=torch.long))
    assert found.first_disagreeing is None
    assert found.responding_differently == []
    hidden, readout = found.layers
    for layer in found.layers:
        differences = layer.between
        assert (differences.trace, differences.gain, differences.residual) == (0, 0, 0)
        assert layer.repeat.trace > 0.01  # noise at another place of the clock
    assert (hidden.between.only_one, hidden.between.first_spike_rms, hidden.between.threshold) == (0, 0, 0)
    assert hidden.repeat.only_one > 0.005
    assert (readout.rates, readout.between.only_one, readout.responses[0].threshold) == (None, None, None)
    assert found.same_answers.between == 1
    assert found.accuracies[0] == found.accuracies[1]
    assert [pair.between for pair in found.gradients.values()] == pytest.approx([1, 1])
    assert found.as_dict()["layers"]["layer0"]["between"]["only_one"] == 0
    assert all(0.5 < pair.repeat < 1 - 1e-6 for pair in found.gradients.values())


def test_a_chip_agrees_with_itself_in_other_noise_and_on_one_clock():
    device = chip()
    assert between(device, chip(seed=1)).first_disagreeing is None
    found = between(device, device)
    assert found.first_disagreeing is None
    assert found.layers[0].between.trace > 0.01
    assert device.clock == 5 * 150


def test_ideal_devices_agree_within_the_default_tolerance():
    found = between(hx.Device(create_backend("reference")), chip("ideal"))
    assert found.verdict == "no layer disagrees beyond tolerance and noise; own response differs in no layer"
    hidden = found.layers[0]
    assert hidden.responses[0].gain == pytest.approx(1, abs=0.02)
    assert hidden.responses[1].gain == pytest.approx(1, abs=0.02)
    assert hidden.responses[1].threshold == pytest.approx(1, abs=0.05)
    assert hidden.between.first_spike < DT / 16  # both interpolate within their sub-step of DT / 4
    strict = between(hx.Device(create_backend("reference")), chip("ideal"), tolerance=Tolerance(threshold=0.001))
    assert strict.responding_differently == ["layer0"]


def test_mismatch_begins_in_the_first_layer():
    found = between(chip("ideal"), chip("uncalibrated"))
    assert found.first_disagreeing == "layer0"
    assert found.responding_differently == ["layer0", "layer1"]
    assert {"gain", "threshold", "residual"} <= set(found.layers[0].exceeded)
    assert found.verdict.startswith("layer0 is the first layer that disagrees (trace 0.")
    assert found.gradients["input->layer0"].between < 0.95 * found.gradients["input->layer0"].repeat


BROKEN = {  # what is altered, the first layer that disagrees, the layers whose own response differs
    "weak readout": ({"weights": weakened("layer0->layer1", 0.3)}, "layer1", ["layer1"]),
    "dead readout": ({"recording": dead_neurons("layer1", 2)}, "layer1", ["layer1"]),
    "weak hidden layer": ({"weights": weakened("input->layer0", 0.75)}, "layer0", ["layer0"]),
    "late stamps": ({"recording": late(2.5e-6)}, "layer0", ["layer0", "layer1"]),
}


@pytest.mark.parametrize("preset", ["ideal", "calibrated"])
@pytest.mark.parametrize("name", BROKEN)
def test_the_broken_layer_is_named(name, preset):
    altered, first, own = BROKEN[name]
    found = between(chip(preset), chip(preset, seed=1, **altered))
    assert found.first_disagreeing == first
    assert found.responding_differently == own


def test_layers_behind_inherit_what_they_did_but_not_their_own_response():
    hidden, readout = between(chip("ideal"), chip("ideal", weights=weakened("input->layer0", 0.75))).layers
    assert (hidden.agrees, hidden.responds_alike) == (False, False)
    assert (readout.agrees, readout.responds_alike) == (False, True)
    assert readout.between.gain < 0.02 < 0.2 < hidden.between.gain


def test_gains_are_measured():
    found = between(chip("ideal"), chip("ideal", weights=weakened("layer0->layer1", 0.5)))
    ratio = found.layers[1].responses[1].gain / found.layers[1].responses[0].gain
    assert ratio == pytest.approx(0.5, abs=0.05)
    assert found.layers[0].between.trace == 0


def test_where_one_is_the_twin_the_other_is_repeated_and_spikes_lie_on_the_grid():
    found = between(None, chip())
    assert found.repeated == "second"
    assert found.layers[0].repeat.trace > 0.01
    bins = found.layers[0].between.first_spikes.double() / DT
    torch.testing.assert_close(bins, bins.round(), atol=1e-3, rtol=0)
    assert between(chip(), None).repeated == "first"


def test_silent_layers_leave_numbers_undefined():
    net = network()
    with torch.no_grad():
        net.layers[0].linear.weight.zero_()
    found = between(chip("ideal"), chip("ideal"), net)
    hidden, readout = found.layers
    assert (hidden.between.only_one, hidden.between.first_spike, hidden.between.gain) == (None, None, None)
    assert (hidden.between.trace_percent, readout.responses[0].gain) == (None, None)
    assert found.gradients["layer0->layer1"].between is None
    assert found.first_disagreeing is None


def test_the_network_is_left_as_it_was():
    net, before = network(), chip("ideal")
    net.attach(before)
    between(None, chip(), net)
    assert net.device is before
    net(samples(2))
    assert all(weight.grad is None for weight in net.parameters())
    with pytest.raises(PlacementError, match="neuron circuits"):
        between(
            chip(), chip(), hx.Network(hx.Linear(40, 600), hx.LIF(600), hx.Recurrent(600), hx.Linear(600, 4), hx.LI(4))
        )


def test_a_device_that_fails_fails_the_comparison():
    def fail(recording):
        raise DeviceError("no answer")

    net = network()
    with pytest.raises(DeviceError, match="no answer"):
        between(None, hx.Device(chip("ideal", recording=fail).backend, retries=0), net)
    assert net.device is None


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="3 labels for 150 samples; give one for each"):
        between(None, None, labels=torch.zeros(3))
    with pytest.raises(ValueError, match="no samples"):
        compare(network(), None, None, samples(0), LOSS)
    with pytest.raises(ValueError, match=r"tolerance.gain=-0.1 must not be negative"):
        Tolerance(gain=-0.1)


def test_the_figure_shows_every_layer(tmp_path):
    found = between(chip("ideal"), chip("uncalibrated"))
    figure = plots.comparison_figure(found)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["layer0, 30 neurons", "layer0"]
    assert titles[3].startswith("layer0, neuron ")
    assert titles[-1].startswith("layer1, neuron ")
    rates = figure.axes[0].lines[0]
    assert rates.get_ydata() == pytest.approx(found.layers[0].rates[1].numpy())
    example = found.layers[1].example
    assert figure.axes[-1].lines[2].get_ydata() == pytest.approx(example.second.double().numpy())
    assert plots.plot_comparison(found, tmp_path / "comparison.png").is_file()
