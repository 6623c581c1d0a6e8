"""Weights and membranes with fewer bits than those of the device."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import hxtrain as hx
from hxtrain.backends import create_backend
from hxtrain.commands.evaluate import EvaluateConfig, evaluate_checkpoint
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.commands.transfer import TransferConfig
from hxtrain.datasets import DataConfig
from hxtrain.execution import place
from hxtrain.execution.config import BackendConfig
from hxtrain.execution.resolution import Resolution
from hxtrain.network import NetworkConfig
from hxtrain.runs.checkpoint import load_checkpoint
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig

CHIP = create_backend("emulator").capabilities
QUIET = Progress(show=False)
LEVELS = {
    1: [0, 63],
    2: [0, 21, 42, 63],
    3: [0, 9, 18, 27, 36, 45, 54, 63],
    4: [0, 4, 8, 13, 17, 21, 25, 29, 34, 38, 42, 46, 50, 55, 59, 63],
    6: list(range(64)),
}
"""Magnitudes of integer weights by their number of bits."""
ROUNDED = {
    2: ([10.4, 10.6, -31.4, -31.6, 52.4, 52.6, 63.4, -1e3], [0, 21, -21, -42, 42, 63, 63, -63]),
    3: ([4.4, 4.6, -13.4, -13.6, 58.4, 58.6, 63.4, -1e3], [0, 9, -9, -18, 54, 63, 63, -63]),
    None: ([4.4, 4.6, -13.4, -13.6, 58.4, 58.6, 63.4, -1e3], [4, 5, -13, -14, 58, 59, 63, -63]),
}
"""Weights in units of integer weight, and the integers that they become."""


def network(inputs=8, hidden=4, classes=2, **options):
    return hx.Network(
        hx.Linear(inputs, hidden), hx.LIF(hidden), hx.Linear(hidden, classes, autoscale=True), hx.LI(classes), **options
    )


@pytest.mark.parametrize("bits", LEVELS)
def test_levels(bits):
    plan = place(network(1, 2001, weight_bits=bits), CHIP)
    weights = torch.linspace(-70, 70, 2001)[:, None] / plan.layers[0].nominal_scale
    integers = plan.quantise([weights, torch.zeros(2, 2001)])[0]["input->layer0"]
    assert integers.unique().tolist() == [-level for level in LEVELS[bits][:0:-1]] + LEVELS[bits]
    assert integers[:, 0].tolist() == sorted(integers[:, 0].tolist())


@pytest.mark.parametrize("bits", ROUNDED)
def test_weights_go_to_the_nearest_level_and_are_clipped_to_the_range(bits):
    weights, expected = ROUNDED[bits]
    plan = place(network(len(weights), 1, 1, weight_bits=bits), CHIP)
    integers, scales = plan.quantise([torch.tensor([weights]) / plan.layers[0].nominal_scale, torch.ones(1, 1)])
    assert integers["input->layer0"].tolist() == [expected]
    assert integers["input->layer0"].dtype == torch.int8
    assert scales == pytest.approx([plan.layers[0].nominal_scale, 63.0])


def test_the_largest_weight_of_an_automatic_scale_is_the_highest_level():
    plan = place(network(1, 4, 1, weight_bits=2), CHIP)
    integers, scales = plan.quantise([torch.zeros(4, 1), torch.tensor([[0.6, -1.0, 0.25, 0.1]])])
    assert integers["layer0->layer1"].tolist() == [[42, -63, 21, 0]]
    assert scales[1] == 63.0


def test_the_device_s_own_resolution_changes_nothing():
    weights = [80 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), torch.randn(2, 4)]
    full, six = (place(network(weight_bits=bits), CHIP).quantise(weights) for bits in (None, 6))
    assert all(torch.equal(full[0][name], six[0][name]) for name in full[0])
    assert full[1] == six[1]


def test_the_plan_shows_the_resolution():
    rows = place(network(weight_bits=2, trace_bits=5, traces="spikes_only"), CHIP).rows()
    assert ("resolution of integer weights", "2 bits + sign, 21 apart", "6 bits + sign") in rows
    assert ("resolution of traces", "5 bits", "8 bits") in rows
    assert ("membranes of hidden layers", "modelled, of measured spikes", "") in rows
    assert not any("resolution" in label or "membranes" in label for label, _, _ in place(network(), CHIP).rows())


def test_misfits_are_reported_with_all_others_and_the_device_is_not_touched(mocker):
    backend = create_backend("emulator")
    configure = mocker.spy(backend, "configure")
    with pytest.raises(hx.PlacementError) as caught:
        network(dt=1e-6, weight_bits=7, trace_bits=9).attach(hx.Device(backend))
    text = str(caught.value)
    assert [line[:4] for line in text.splitlines()[1:]] == ["  1.", "  2.", "  3."]
    assert "weight_bits=7 has magnitudes up to 127, integer weights of the device reach 63; set weight_bits=6" in text
    assert "trace_bits=9 exceeds the 8 bits of the device's traces; set trace_bits=8 or less" in text
    configure.assert_not_called()


def test_the_limit_is_the_device_s():
    coarse = replace(CHIP, weight_max=15, trace_bits=6, leak=20, reset=20, threshold=37)
    assert place(network(weight_bits=4, trace_bits=6), coarse).resolution == Resolution(4, 6)
    with pytest.raises(hx.PlacementError, match=r"magnitudes up to 31, .* reach 15; set weight_bits=4"):
        place(network(weight_bits=5), coarse)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weight_bits": 0}, r"network.weight_bits=0 must be positive"),
        ({"trace_bits": -1}, r"network.trace_bits=-1 must be positive"),
        ({"traces": "none"}, r"network.traces='none' is not known; choose one of measured, spikes_only"),
    ],
)
def test_settings_out_of_range(options, text):
    with pytest.raises(ValueError, match=text):
        NetworkConfig(**options)
    with pytest.raises(ValueError, match=rf"Network: {next(iter(options))}="):
        network(**options)


@pytest.mark.parametrize("options", [{"weight_bits": 3}, {"trace_bits": 4}])
def test_software_is_refused(tmp_path, options):
    [(name, value)] = options.items()
    text = rf"network.{name}={value}: in software .* are floats; choose a device, or leave this out"
    with pytest.raises(ValueError, match=text):
        network(**options)(hx.LatencyEncoder()(torch.rand(1, 8)))
    config = replace(digits(**options), backend=BackendConfig("software"))
    with pytest.raises(ValueError, match=text):
        run(config, tmp_path, "test", QUIET)
    assert not (tmp_path / "checkpoint.pt").exists()


def digits(**options):
    return RunConfig(
        network=NetworkConfig(hidden=[30], **{"init_gain": 1.4, **options}),
        data=DataConfig("digits"),
        trainer=TrainerConfig(epochs=1, progress=False, plots=False, train_samples=200, test_samples=50),
    )


def sent_magnitudes(mocker):
    """Return a set that collects the magnitudes of all weights sent to a device."""
    magnitudes = set()
    record = hx.Device.record

    def record_magnitudes(device, integers, spikes):
        magnitudes.update(abs(value) for matrix in integers.values() for value in matrix.unique().tolist())
        return record(device, integers, spikes)

    mocker.patch.object(hx.Device, "record", record_magnitudes)
    return magnitudes


def test_training_in_the_loop_sends_these_levels_only(tmp_path, mocker):
    magnitudes = sent_magnitudes(mocker)
    run(digits(weight_bits=2, init_gain=4.0), tmp_path, "test", QUIET)
    assert magnitudes == {0, 21, 42, 63}
    written = np.load(tmp_path / "weights.npz")
    assert {abs(int(value)) for name in written for value in np.unique(written[name])} == {0, 21, 42, 63}
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["settings"]["network.weight_bits"] == 2
    assert len(state["model"]["stack.0.weight"].unique()) > 500  # gradients change the float weights


def test_a_trained_network_on_fewer_levels(tmp_path, mocker):
    trained, evaluated = tmp_path / "trained", tmp_path / "evaluated"
    run(digits(), trained, "test", QUIET)
    evaluated.mkdir()
    magnitudes = sent_magnitudes(mocker)
    config = EvaluateConfig(str(trained / "checkpoint.pt"), test_samples=20, weight_bits=3, trace_bits=4)
    evaluation = evaluate_checkpoint(config, evaluated, "test", QUIET)
    assert len(magnitudes) > 2
    assert magnitudes <= set(LEVELS[3])
    assert (evaluation["weight_bits"], evaluation["trace_bits"]) == (3, 4)
    with pytest.raises(hx.PlacementError, match="weight_bits=7 has magnitudes up to 127"):
        evaluate_checkpoint(replace(config, weight_bits=7), evaluated, "test", QUIET)
    software = replace(config, backend=BackendConfig("software"))
    with pytest.raises(ValueError, match=r"network.weight_bits=3 and network.trace_bits=4: in software"):
        evaluate_checkpoint(software, evaluated, "test", QUIET)


def test_the_device_s_resolution_for_a_network_trained_with_less(tmp_path):
    run(digits(weight_bits=2), tmp_path, "test", QUIET)
    software = EvaluateConfig(str(tmp_path / "checkpoint.pt"), backend=BackendConfig("software"), test_samples=20)
    with pytest.raises(ValueError, match=r"leave this out \(hxtrain evaluate: weight_bits=0, trace_bits=0\)"):
        evaluate_checkpoint(software, tmp_path, "test", QUIET)
    evaluation = evaluate_checkpoint(replace(software, weight_bits=0), tmp_path, "test", QUIET)
    assert evaluation["weight_bits"] is None


def test_a_transfer_matrix_is_refused_before_it_trains():
    network = NetworkConfig(weight_bits=2)
    text = r"network.weight_bits=2: software .* set software=false"
    with pytest.raises(ValueError, match=text):
        TransferConfig(network=network, chips=["A1", "B2"])
    assert not TransferConfig(network=network, chips=["A1", "B2"], software=False).software


@pytest.mark.parametrize("options", [{"weight_bits": -1}, {"trace_bits": -2}])
def test_evaluation_settings_out_of_range(options):
    with pytest.raises(ValueError, match=r"bits=-\d must not be negative; 0 for the device's resolution"):
        EvaluateConfig(**options)


# Membranes


def measured(mocker, bits):
    """Run a network with membranes of `bits` bits; return its activity, the recording and its trace units."""
    net = hx.Network(hx.Linear(40, 30, gain=3), hx.LIF(30), hx.Linear(30, 5, autoscale=True), hx.LI(5), trace_bits=bits)
    device = hx.Device(create_backend("emulator", preset="uncalibrated"))
    net.attach(device)
    record = mocker.spy(device, "record")
    with torch.no_grad():
        activity = net(hx.LatencyEncoder()(torch.rand(6, 40, generator=torch.Generator().manual_seed(3))))
    return activity, record.spy_return, device.plan.trace_units(device.scales)


@pytest.mark.parametrize("bits", [1, 3, 5, 8])
def test_membranes_of_fewer_bits(mocker, bits):
    activity, recording, units = measured(mocker, bits)
    step = 2 ** (8 - bits)
    for layer, codes, unit in zip(activity.layers, recording.traces.values(), units, strict=True):
        floor = torch.div(codes.float(), step, rounding_mode="floor") * step
        expected = (floor - floor[:, :1]).transpose(0, 1) / unit
        torch.testing.assert_close(layer.trace, expected)
        assert layer.trace.any()
    if bits == 8:
        whole = measured(mocker, None)[0]
        assert all(torch.equal(a.trace, b.trace) for a, b in zip(activity.layers, whole.layers, strict=True))


def test_rounded_membranes_are_right_on_average():
    codes = torch.randint(256, (1, 2, 100_000), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for bits in (3, 5):
        rounded = Resolution(trace_bits=bits).round_codes(codes, CHIP)
        assert rounded.unique().tolist() == list(range(0, 256, 2 ** (8 - bits)))
        errors = (rounded[:, 1].float() - rounded[:, 0].float()) - (codes[:, 1].float() - codes[:, 0].float())
        assert float(errors.abs().max()) > 0
        assert abs(float(errors.mean())) < 0.15
