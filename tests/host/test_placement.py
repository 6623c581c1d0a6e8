"""Placement: limits, integer weights, scales."""

from dataclasses import replace

import pytest
import torch

import hxtrain as hx
from hxtrain.backends import create_backend
from hxtrain.execution import place
from hxtrain.execution.plan import nominal_scale

CHIP = create_backend("emulator").capabilities


def net(inputs=256, hidden=246, classes=10, **kw):
    return hx.Network(
        hx.Linear(inputs, hidden),
        hx.LIF(hidden),
        hx.Linear(hidden, classes, autoscale=True),
        hx.LI(classes),
        **kw,
    )


def test_the_published_network_fills_the_chip():
    plan = place(net(), CHIP)
    assert sum(p.size * p.merged for p in plan.circuit.populations) == CHIP.neuron_circuits == 512
    assert plan.trials_per_run == 25
    assert ("neuron circuits", "512", "512") in plan.rows()


def test_nominal_scale_is_the_published_one():
    assert nominal_scale(net().layers[0], 1.7e-6, CHIP) == pytest.approx(240, rel=0.01)


MISFITS = [
    ({}, {"hidden": 247}, r"514 neuron circuits \(layer0 247 x 2, layer1 10 x 2\) exceed 512 by 2"),
    (
        {"max_merged": 2},
        {"inputs": 784, "hidden": 10},
        r"layer0: fan-in 784 exceeds 256 signed inputs per neuron by 528",
    ),
    ({}, {"dt": 1e-6}, r"dt=1e-06 s differs from the trace interval 1.7e-06 s; set dt=1.7e-06"),
    ({"max_samples": 10}, {}, r"20 trace samples per trial exceed 10 by 10; set steps=10"),
    ({}, {"dt": 1e-3}, r"1\. network: dt=0.001 s differs from .* set dt=1.7e-06$"),
    ({}, {"steps": 200}, r"a trial of 0.00034 s is longer than the 0.0002 s .* set steps=117"),
    (
        {"trace_memory": 4000},
        {},
        r"20 samples of 256 neurons does not fit 4000 bytes of trace memory \(trace_memory\); set steps=15 or less, or "
        r"end in a spiking population with traces=spikes_only.*, or use a device with 5120 bytes for the traces "
        r"of a run, such as the emulated chip with backend.settings.trace_memory=5120",
    ),
    ({"trace_memory": 9}, {}, r"does not fit 9 bytes of trace memory \(trace_memory\); end in a spiking population"),
    ({"traces": False}, {}, r"the gradient reads the membranes of spiking neurons"),
    ({"tau_range": (1e-5, 1e-4)}, {}, r"layer0: tau_mem=6e-06 s is outside 1e-05..0.0001 s"),
]


@pytest.mark.parametrize(("caps", "network", "text"), MISFITS, ids=[m[2][:30] for m in MISFITS])
def test_misfits_name_layer_limit_excess_and_remedy(caps, network, text):
    with pytest.raises(hx.PlacementError, match=text):
        place(net(**network), replace(CHIP, **caps), max_runs=1)


def recurrent_net(steps, **kw):
    return hx.Network(
        *(hx.Linear(20, 30, gain=3), hx.LIF(30), hx.Recurrent(30)),
        *(hx.Linear(30, 5), kw.pop("output", hx.LI(5))),
        steps=steps,
        **kw,
    )


def test_a_long_trial_of_a_recurrent_network_needs_the_memory_of_a_run():
    """Its neurons cannot be divided over runs; each remedy of the text is one."""
    recorded = replace(CHIP, trace_channels=None, selective=True, trace_memory=700)
    text = r"one trial of 100 samples of 30 neurons does not fit 700 bytes .*; set steps=23 or less, or set traces="
    with pytest.raises(hx.PlacementError, match=text):
        place(recurrent_net(100), recorded)
    assert place(recurrent_net(23), recorded).trials_per_run == 1
    assert place(recurrent_net(100, traces="spikes_only"), recorded).trials_per_run == 1
    assert place(recurrent_net(100, output=hx.LIF(5), traces="spikes_only"), CHIP).trials_per_run is None
    assert place(recurrent_net(100), replace(recorded, trace_memory=3000)).trials_per_run == 1


def test_long_trials_run_in_the_memory_of_the_emulated_chip():
    """Its memory holds 512 samples; a setting gives it more, and changes nothing else."""
    steps = 600
    options = {"preset": "ideal", "trial_time": steps * 1.7e-6 + 1e-4}
    with hx.open_device("emulator", **options) as device:
        with pytest.raises(hx.PlacementError, match=r"does not fit 131072 bytes .*; set steps=512 or less"):
            recurrent_net(steps).attach(device)
        short = recurrent_net(512)
        short.attach(device)
        assert device.plan.trials_per_run == 1
    g = torch.Generator().manual_seed(0)
    spikes = hx.Spikes.from_grid((torch.rand(steps, 3, 20, generator=g) < 0.05).float(), 1.7e-6)
    activities = []
    for memory in (2 * 256 * steps, None):
        with hx.open_device("emulator", trace_memory=memory, **options) as device:
            long = recurrent_net(steps)
            long.attach(device)
            assert device.plan.trials_per_run == (None if memory is None else 2)
            activities.append(long(spikes))
    limited, unlimited = activities
    assert limited.hidden[0].counts.sum() > 100
    assert torch.equal(limited.hidden[0].spikes, unlimited.hidden[0].spikes)
    hx.MaxOverTime()(limited.readout, torch.tensor([0, 1, 2])).backward()


def test_all_misfits_are_reported_at_once_and_the_device_is_not_touched(mocker):
    backend = create_backend("emulator")
    configure = mocker.spy(backend, "configure")
    with pytest.raises(hx.PlacementError) as caught:
        net(hidden=300, dt=1e-6, steps=250).attach(hx.Device(backend, max_runs=1))
    assert [line[:4] for line in str(caught.value).splitlines()[1:]] == ["  1.", "  2.", "  3."]
    configure.assert_not_called()


def test_integer_weights_are_rounded_clipped_and_scaled():
    n = net(3, 2, 2)
    plan = place(n, CHIP)
    scale = plan.layers[0].nominal_scale
    hidden = torch.tensor([[1.4, -1.6, 2.5], [1000.0, -1000.0, 0.0]]) / scale
    readout = torch.tensor([[0.5, -1.0], [0.25, 0.0]])
    integers, scales = plan.quantise([hidden, readout])
    assert integers["input->layer0"].tolist() == [[1, -2, 2], [63, -63, 0]]
    assert integers["input->layer0"].dtype == torch.int8
    assert scales == pytest.approx([scale, 63.0])
    assert integers["layer0->layer1"].tolist() == [[32, -63], [16, 0]]
    assert plan.quantise([hidden, readout * 1e-9])[1][1] == 250.0
    assert plan.quantise([hidden, readout * 0])[1][1] == 250.0


@pytest.mark.parametrize("taus", [(6e-6, 6e-6), (10e-6, 3e-6)])
def test_a_measured_potential_is_as_large_as_the_models(taus):
    """An ideal chip and the twin agree on a non-spiking layer, so no scale has to be tuned by hand."""
    n = hx.Network(hx.Linear(30, 8, gain=1.5), hx.LI(8, *taus), steps=20)
    times = torch.arange(30).float()[None] * 1.7e-6 * 0.5  # on and between grid points
    times = torch.floor(times / 1.7e-6) * 1.7e-6
    spikes = hx.backends.Spikes.from_times(times)
    with torch.no_grad():
        twin = n(spikes).readout
        n.attach(hx.Device(create_backend("emulator", preset="ideal")))
        chip = n(spikes).readout
    assert float(twin.abs().max()) > 0.2
    assert float((chip - twin).abs().max()) < 0.05


def test_automatic_scale_does_not_change_the_measured_readout():
    """The automatic scale of the readout uses the full integer range, and the trace is divided by it."""
    spikes = hx.LatencyEncoder()(torch.rand(4, 30, generator=torch.Generator().manual_seed(0)))
    readouts = []
    for autoscale in (False, True):
        n = hx.Network(hx.Linear(30, 5, gain=0.1, autoscale=autoscale, max_scale=2000), hx.LI(5), seed=1)
        n.attach(hx.Device(create_backend("emulator", preset="ideal")))
        with torch.no_grad():
            readouts.append(n(spikes).readout)
    assert n.device.scales[0] > 500
    assert float((readouts[0] - readouts[1]).abs().max()) < 0.06
