"""Networks, the twin, dropout."""

import pytest
import torch

import hxtrain as hx
from hxtrain.backends import DeviceError, create_backend
from hxtrain.backends.emulated import EmulatorBackend
from hxtrain.neurons import decay


def small(dropout=0.0, **kw):
    drop = [hx.Dropout(dropout)] if dropout else []
    return hx.Network(hx.Linear(20, 16, gain=4), hx.LIF(16), *drop, hx.Linear(16, 3, gain=2), hx.LI(3), **kw)


def random_spikes(batch=5, inputs=20, seed=0):
    return hx.LatencyEncoder()(torch.rand(batch, inputs, generator=torch.Generator().manual_seed(seed)))


def test_twin_equals_the_equations_step_by_step():
    net, spikes = small(), random_spikes()
    with torch.no_grad():
        activity = net(spikes)
        x = spikes.to_grid(net.dt, net.steps)
        beta = decay(net.dt, 6e-6)
        i = v = s = torch.zeros(5, 16)
        i2 = v2 = torch.zeros(5, 3)
        w1, w2 = (layer.linear.weight for layer in net.layers)
        for t in range(net.steps):
            torch.testing.assert_close(activity.layers[0].trace[t], v, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(activity.readout[t], v2, atol=1e-5, rtol=1e-4)
            s = (v > 1).float()
            assert torch.equal(activity.layers[0].spikes[t], s)
            i2 = beta * i2 + s @ w2.t()
            v2 = beta * v2 + i2
            i = beta * i + x[t] @ w1.t()
            v = beta * v + i - s
    assert activity.layers[0].spikes.sum() > 5


def test_initial_weights_follow_the_published_recipe_and_the_seed():
    net = hx.Network(hx.Linear(256, 246, mean=1e-3), hx.LIF(246), hx.Linear(246, 10), hx.LI(10), seed=4)
    spread = 0.7 * (1 - decay(1.7e-6, 6e-6))
    hidden, readout = (layer.linear.weight.detach() for layer in net.layers)
    assert float(hidden.std()) == pytest.approx(spread / 16, rel=0.02)
    assert float(hidden.mean()) == pytest.approx(1e-3, abs=2e-4)
    assert float(readout.std()) == pytest.approx(spread / 246**0.5, rel=0.05)
    repeated = hx.Network(hx.Linear(256, 246, mean=1e-3), hx.LIF(246), hx.Linear(246, 10), hx.LI(10), seed=4)
    assert torch.equal(hidden, repeated.layers[0].linear.weight)
    assert not torch.equal(small(seed=1).layers[0].linear.weight, small(seed=2).layers[0].linear.weight)


def test_dropout_zeroes_the_rows_that_the_device_gets_and_their_gradient():
    net = small(dropout=0.5)
    spikes = random_spikes()
    masks = net.dropout_masks(torch.Generator().manual_seed(0))
    active = masks[0].bool()
    assert 0 < int(active.sum()) < 16
    assert masks[1] is None
    device = hx.Device(create_backend("emulator", preset="ideal"))
    net.attach(device)
    integers, _ = device.plan.quantise(net.effective_weights(masks))
    assert not integers["input->layer0"][~active].any()
    assert integers["input->layer0"][active].any()
    activity = net(spikes, masks)
    assert not activity.layers[0].spikes[:, :, ~active].any()
    assert activity.layers[0].spikes[:, :, active].any()
    activity.readout.sum().backward()
    gradient = net.layers[0].linear.weight.grad
    assert not gradient[~active].any()
    assert gradient[active].any()


BAD_NETWORKS = [
    ((), "last population must be an output"),
    ((hx.Linear(4, 3), hx.LIF(3), hx.Dropout(0.1)), "must be an output, LI or LIF, without dropout"),
    ((hx.LIF(3), hx.Linear(3, 2), hx.LI(2)), "expected Linear, LIF"),
    ((hx.Linear(4, 3), hx.LIF(5), hx.Linear(5, 2), hx.LI(2)), r"layer0 is Linear\(4, 3\) onto 5 neurons"),
    ((hx.Linear(4, 3), hx.LIF(3), hx.Linear(4, 2), hx.LI(2)), r"layer1 is Linear\(4, 2\).*behind 3 units"),
    ((hx.Linear(4, 3), hx.LI(3), hx.Linear(3, 2), hx.LI(2)), "layer0 is a readout LI in the middle"),
    ((hx.Linear(4, 2), hx.LI(2), hx.Dropout(0.1)), "without dropout"),
]


@pytest.mark.parametrize(("modules", "text"), BAD_NETWORKS, ids=[text[:25] for _, text in BAD_NETWORKS])
def test_chains_that_are_none_are_refused(modules, text):
    with pytest.raises(ValueError, match=text):
        hx.Network(*modules)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: hx.LIF(0), "LIF: size=0 must be positive"),
        (lambda: hx.LIF(3, tau_mem=-1e-6), "LIF: tau_mem=-1e-06 must be positive"),
        (lambda: hx.LIF(3, at_spike="never"), "at_spike='never' is not known"),
        (lambda: hx.LIF(3, surrogate="nope"), "surrogate='nope' is not registered"),
        (lambda: hx.Dropout(1.0), r"Dropout: p=1.0 must be in 0 <= x < 1"),
        (lambda: hx.Linear(0, 4), "Linear: inputs=0 must be positive"),
        (lambda: hx.Linear(3, 4, scale=-1.0), r"Linear: scale=-1.0 must be positive"),
        (lambda: small(dt=0.0), "Network: dt=0.0 must be positive"),
    ],
)
def test_bad_settings_are_named(build, text):
    with pytest.raises(ValueError, match=text):
        build()


def test_wrong_number_of_inputs_is_named():
    with pytest.raises(ValueError, match="spikes have 7 inputs, the network's first projection 20"):
        small()(random_spikes(inputs=7))


def test_inference_mode_leaves_training_intact():
    net = small(dt=1.7e-6, steps=17)
    spikes = random_spikes()
    net.attach(hx.Device(create_backend("emulator", preset="ideal")))
    with torch.inference_mode():
        measured = net(spikes).readout
    activity = net(spikes)
    assert torch.equal(measured, activity.readout)
    activity.readout.sum().backward()
    assert net.layers[0].linear.weight.grad.abs().sum() > 0


def test_a_device_serves_the_network_it_was_attached_to_last():
    device = hx.Device(create_backend("emulator", preset="ideal"))
    first = small()
    second = small(seed=1)
    first.attach(device)
    second.attach(device)
    second(random_spikes())
    with pytest.raises(DeviceError, match="another network was placed on this device since"):
        first(random_spikes())


def test_weights_that_are_no_numbers_are_not_sent():
    net = small()
    net.attach(hx.Device(create_backend("emulator", preset="ideal")))
    with torch.no_grad():
        net.layers[1].linear.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="weights of layer0->layer1 are not finite"):
        net(random_spikes())


def test_measured_times_come_with_the_grid():
    net = small()
    assert net(random_spikes()).layers[0].events is None
    net.attach(hx.Device(create_backend("emulator")))
    hidden, readout = net(random_spikes()).layers
    assert torch.equal(hidden.events.to_grid(net.dt, net.steps, binary=True), hidden.spikes)
    assert float((hidden.events.time / net.dt % 1).std()) > 0.1  # finer than the grid
    assert readout.events is None


@pytest.mark.parametrize("trial_time", [None, 5e-5])
def test_an_emulation_gets_a_batch_at_once_and_records_the_same(mocker, trial_time):
    """Close trials are an exception: the first trial of each run begins at rest."""
    run = EmulatorBackend.run
    sizes = []
    mocker.patch.object(EmulatorBackend, "run", lambda b, w, s: sizes.append(s.spikes.samples) or run(b, w, s))
    mocker.patch.object(EmulatorBackend, "run_all", lambda b, w, stimuli: [b.run(w, s) for s in stimuli])
    spikes = random_spikes(60)
    activities = []
    for whole in (True, False):
        mocker.patch.object(EmulatorBackend, "takes_any_batch", whole)
        with hx.Device(create_backend("emulator"), trial_time=trial_time) as device:
            net = hx.Network(hx.Linear(20, 240, gain=4), hx.LIF(240), hx.Linear(240, 3, gain=2), hx.LI(3))
            net.attach(device)
            activities.append(net(spikes))
    pieces = [25, 25, 10]
    assert sizes == ([60] if trial_time is None else pieces) + pieces
    assert all(map(torch.equal, *([layer.trace for layer in activity.layers] for activity in activities)))
    assert activities[0].hidden_spikes() > 60
    assert activities[0].cost == activities[1].cost
