"""Recurrent populations: gradient, twin, placement, devices, training."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from test_gradient import InjectedSpike, as_measured, inject, loss_of, worst_relative

import hxtrain as hx
from hxtrain.backends import Spikes, create_backend
from hxtrain.commands.evaluate import clipped_shares
from hxtrain.commands.result import sent_weights
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig
from hxtrain.execution import place
from hxtrain.execution.config import BackendConfig
from hxtrain.gradients import measured_layers
from hxtrain.network import NetworkConfig
from hxtrain.neurons import GridEvents, Model, decay, get_surrogate
from hxtrain.objectives import WeightDecay
from hxtrain.runs.checkpoint import load_checkpoint
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig
from hxtrain.training.diagnosis import diagnose

DT = 1.7e-6
CHIP = create_backend("emulator").capabilities
IDEAL = {"emulator": {"preset": "ideal"}, "reference": {}}


def small(dropout=0.0):
    drop = [hx.Dropout(dropout)] if dropout else []
    return hx.Network(
        hx.Linear(20, 16, gain=4), hx.LIF(16), hx.Recurrent(16, gain=4), *drop, hx.Linear(16, 3, gain=2), hx.LI(3)
    )


def random_spikes(batch=5, inputs=20, seed=0):
    return hx.LatencyEncoder()(torch.rand(batch, inputs, generator=torch.Generator().manual_seed(seed)))


def attached(net, backend="emulator", **settings):
    net.attach(hx.Device(create_backend(backend, **settings)))
    return net


# Gradient


def stepwise_layer(weight, recurrent_weight, inputs, spikes, trace, alpha, beta, rule):
    """Compute one layer step by step with the measured value injected; return spikes and membranes `[T, B, N]`."""
    membrane = trace[0]
    current = torch.zeros_like(trace[0])
    membranes = [membrane]
    fired = []
    for t in range(trace.shape[0]):
        if t > 0:
            current = alpha * current + inputs[t - 1] @ weight.t()
            if recurrent_weight is not None:
                current = current + fired[t - 1] @ recurrent_weight.t()
            membrane = inject(beta * membrane + current, trace[t])
            membranes.append(membrane)
        if spikes is not None:
            fired.append(InjectedSpike.apply(membrane, spikes[t], *rule))
    return (torch.stack(fired) if fired else None), torch.stack(membranes)


LOSSES = {
    "all outputs": loss_of,
    "readout": lambda layers: loss_of(layers[-1:]),
    "hidden membranes": lambda layers: sum(trace.sin().sum() for _, trace in layers[:-1]),
    "hidden spikes": lambda layers: sum(spikes.sum(0).square().mean() for spikes, _ in layers[:-1]),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("at_threshold", [True, False])
@pytest.mark.parametrize("surrogate", ["superspike", "sigmoid"])
@pytest.mark.parametrize("recurrent", [(True,), (True, True), (False, True)])
def test_gradient_equals_stepwise_backpropagation(recurrent, surrogate, at_threshold, loss):
    """Random weights, events and "measured" values; recurrence downstream of input events and of other layers."""
    g = torch.Generator().manual_seed(1)
    steps = 12
    batch = 4
    inputs = 7
    events = 40
    alpha, beta = decay(DT, 5e-6), decay(DT, 8e-6)
    rule = (get_surrogate(surrogate), 3.0, at_threshold)
    sizes = [inputs, *(6 - i for i in range(len(recurrent))), 3]
    spikes = Spikes.from_events(
        torch.randint(batch, (events,), generator=g),
        torch.randint(inputs, (events,), generator=g),
        torch.rand(events, generator=g) * steps * 2e-6,  # some after the window
        batch,
        inputs,
    )
    normal = {"generator": g, "dtype": torch.float64}
    weights = []
    recurrent_weights = []
    measured = []
    for j, n, is_recurrent in zip(sizes, sizes[1:], [*recurrent, False], strict=False):
        weights.append(torch.randn(n, j, **normal).requires_grad_())
        recurrent_weights.append(torch.randn(n, n, **normal).requires_grad_() if is_recurrent else None)
        fired = (torch.rand(steps, batch, n, generator=g) < 0.2).double()
        measured.append((None if len(weights) == len(sizes) - 1 else fired, torch.randn(steps, batch, n, **normal)))

    model = Model(alpha, beta, *rule)
    pairs = list(zip(weights, recurrent_weights, strict=True))
    recordings = [as_measured(*layer) for layer in measured]
    injected = measured_layers(pairs, GridEvents(spikes, DT, steps), recordings, [model] * len(pairs))
    dense = spikes.to_grid(DT, steps).double()
    fast = [(layer.spikes, layer.trace) for layer in injected]
    slow = []
    for w, v, (fired, trace), layer in zip(weights, recurrent_weights, measured, fast, strict=True):
        slow.append(stepwise_layer(w, v, dense, fired, trace, alpha, beta, rule))
        assert torch.equal(layer[1], trace)
        dense = slow[-1][0]

    parameters = [*weights[:-1], *(v for v in recurrent_weights if v is not None)]
    gradients, expected = (torch.autograd.grad(loss(layers), parameters) for layers in (fast, slow))
    assert all(float(part.abs().max()) > 0 for part in expected)
    assert worst_relative(gradients, expected) < 1e-10


@pytest.mark.parametrize("at_spike", ["threshold", "trace"])
@pytest.mark.parametrize("settings", [None, {"preset": "ideal"}, {"preset": "uncalibrated"}])
def test_network_in_the_loop_equals_stepwise(settings, at_spike):
    """The same for a complete pass on measured data: encoder, device (or twin), dropout, loss."""
    net = hx.Network(
        hx.Linear(40, 30, gain=3),
        hx.LIF(30, at_spike=at_spike),
        hx.Recurrent(30, gain=3),
        hx.Dropout(0.2),
        hx.Linear(30, 5, gain=2, autoscale=True),
        hx.LI(5),
    )
    if settings is not None:
        attached(net, **settings)
    spikes = random_spikes(6, 40, seed=3)
    masks = net.dropout_masks(torch.Generator().manual_seed(1))
    activity = net(spikes, masks)
    assert activity.layers[0].spikes.sum() > 20
    labels = torch.arange(6) % 5
    loss = hx.MaxOverTime()
    parameters = list(net.parameters())
    gradients = torch.autograd.grad(loss(activity.readout, labels), parameters)

    hidden = net.layers[0]
    active = masks[0][:, None]
    rule = (get_surrogate("superspike"), 10.0, at_spike == "threshold")
    decays = net.decays(hidden)
    fired, trace, last = (
        part.detach() for part in (activity.layers[0].spikes, activity.layers[0].trace, activity.readout)
    )
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        w, v, w2 = (weight.detach().to(dtype).requires_grad_() for weight in parameters)
        x, fired, trace, last = (part.to(dtype) for part in (spikes.to_grid(DT, net.steps), fired, trace, last))
        s, _ = stepwise_layer(w * active, v * active, x, fired, trace, *decays, rule)
        _, u = stepwise_layer(w2, None, s, None, last, *decays, rule)
        expected = torch.autograd.grad(loss(u, labels), (w, v, w2))
        if dtype == torch.float64:
            model = Model(*decays, *rule)
            pairs = [(w * active, v * active), (w2, None)]
            recordings = [as_measured(fired, trace), as_measured(None, last)]
            u = measured_layers(pairs, x, recordings, [model, model])[-1].trace
            gradients = torch.autograd.grad(loss(u, labels), (w, v, w2))
        assert worst_relative(gradients, expected) < bound, dtype
        assert not gradients[1][masks[0] == 0].any()


# Twin and devices


def test_twin_equals_the_equations_step_by_step():
    net = hx.Network(
        hx.Linear(20, 16, gain=4), hx.LIF(16), hx.Recurrent(16, gain=4),
        hx.Linear(16, 12, gain=5), hx.LIF(12, tau_mem=9e-6), hx.Recurrent(12, gain=5),
        hx.Linear(12, 3), hx.LI(3), steps=40,
    )  # fmt: skip
    spikes = random_spikes()
    with torch.no_grad():
        activity = net(spikes)
        x = spikes.to_grid(net.dt, net.steps)
        for layer, recorded in zip(net.layers[:2], activity.layers, strict=False):
            alpha, beta = net.decays(layer)
            i = u = torch.zeros(5, layer.neurons.size)
            for t in range(net.steps):
                torch.testing.assert_close(recorded.trace[t], u, atol=1e-4, rtol=1e-4)
                s = (u > 1).float()
                assert torch.equal(recorded.spikes[t], s)
                i = alpha * i + x[t] @ layer.linear.weight.t() + s @ layer.recurrent.weight.t()
                u = beta * u + i - s
            assert recorded.spikes[25:].sum() > 5  # long after the input
            x = recorded.spikes


@pytest.mark.parametrize("backend", ["reference", "emulator"])
def test_a_spike_reaches_the_right_neurons_with_the_models_strength(backend):
    """The input makes neuron 1 fire, which excites neuron 2 and inhibits neuron 0."""
    net = hx.Network(hx.Linear(130, 3), hx.LIF(3), hx.Recurrent(3), hx.Linear(3, 1), hx.LI(1))
    with torch.no_grad():
        for projection in net.projections:
            projection.synapses.weight.zero_()
        net.layers[0].linear.weight[1] = 0.25
        net.layers[0].recurrent.weight[:, 1] = torch.tensor([-0.2, 0.0, 0.24])
        times = torch.full((1, 130), torch.inf)
        times[0, [0, 60, 129]] = 0.0
        spikes = Spikes.from_times(times)
        twin = net(spikes).layers[0]
        measured = attached(net, backend, **IDEAL[backend])(spikes).layers[0]
    assert measured.spikes.sum(0).tolist() == twin.spikes.sum(0).tolist() == [[0.0, 1.0, 0.0]]
    assert float(measured.trace[:, 0, 2].max()) == pytest.approx(float(twin.trace[:, 0, 2].max()), rel=0.05)
    assert float(measured.trace[:, 0, 0].min()) == pytest.approx(float(twin.trace[:, 0, 0].min()), rel=0.05)
    assert float(twin.trace[:, 0, 2].max()) > 0.35


@pytest.mark.parametrize("backend", ["reference", "emulator"])
def test_devices_follow_the_twin(backend):
    """In a chain of four groups of neurons, each excites the next, inhibits itself and the previous, and fires once."""
    net = hx.Network(hx.Linear(20, 16), hx.LIF(16), hx.Recurrent(16), hx.Linear(16, 3), hx.LI(3), steps=24)
    group = torch.arange(16) // 4
    excited = group[:, None] == group + 1
    inhibited = group[:, None] <= group
    spikes = Spikes.from_times(torch.rand(40, 20, generator=torch.Generator().manual_seed(0)) * 3e-6)
    with torch.no_grad():
        net.layers[0].linear.weight.copy_(0.037 * (group == 0)[:, None].expand(16, 20))
        net.layers[0].recurrent.weight.copy_(0.18 * excited - 0.1 * inhibited)
        twin = net(spikes).layers[0]
        measured = attached(net, backend, **IDEAL[backend])(spikes).layers[0]
        net.layers[0].recurrent.weight.zero_()
        unconnected = net(spikes).layers[0]

    def agreement(layer):
        return float(torch.corrcoef(torch.stack([layer.trace.flatten(), twin.trace.flatten()]))[0, 1])

    assert torch.equal(twin.spikes.sum(0), torch.ones(40, 16))
    assert torch.equal(measured.spikes.sum(0), torch.ones(40, 16))
    assert agreement(measured) > 0.85
    assert agreement(unconnected) < 0.1


def test_automatic_scale_is_common_and_does_not_change_the_membrane():
    spikes = random_spikes()
    traces = []
    for autoscale in (False, True):
        net = hx.Network(
            hx.Linear(20, 16, gain=0.1, autoscale=autoscale, max_scale=2000),
            hx.LIF(16),
            hx.Recurrent(16, gain=0.2, autoscale=autoscale, max_scale=2000),
            hx.Linear(16, 3),
            hx.LI(3),
        )
        attached(net, preset="ideal")
        with torch.no_grad():
            traces.append(net(spikes).layers[0].trace)
    assert net.device.scales[0] == net.device.scales[1] > 500
    assert float((traces[0] - traces[1]).abs().max()) < 0.06
    for w, v in ((0.5, 0.2), (0.2, -0.5)):
        weights = [
            torch.full_like(p.synapses.weight, value) for p, value in zip(net.projections, (w, v, 0.1), strict=True)
        ]
        integers, scales = net.device.plan.quantise(weights)
        assert scales == pytest.approx([126, 126, net.device.plan.layers[1].nominal_scale])
        assert integers["input->layer0"].unique().item() == round(126 * w)
        assert integers["layer0->layer0"].unique().item() == round(126 * v)


# Placement


def shd(**kw):
    return hx.Network(
        hx.Linear(70, 186), hx.LIF(186), hx.Recurrent(186), hx.Linear(186, 20), hx.LI(20), steps=100, **kw
    )


def test_a_recurrent_network_of_206_neurons_fits():
    plan = place(shd(), CHIP)
    assert [(p.size, p.merged) for p in plan.circuit.populations] == [(186, 2), (20, 2)]
    wires = [(p.name, p.pre, p.post, p.pre_size, p.first_input) for p in plan.circuit.projections]
    assert wires == [
        ("input->layer0", "input", "layer0", 70, 0),
        ("layer0->layer0", "layer0", "layer0", 186, 70),
        ("layer0->layer1", "layer0", "layer1", 186, 0),
    ]
    rows = plan.rows()
    assert ("neuron circuits", "412", "512") in rows
    assert ("layer0: signed inputs", "70 + 186", "256") in rows
    assert [label for label, _, _ in rows if "weights" in label] == [
        "layer0: integer weights", "layer0: recurrent weights", "layer1: integer weights",
    ]  # fmt: skip
    for backend in ("emulator", "reference"):
        create_backend(backend).configure(plan.circuit)


@pytest.mark.parametrize(
    ("caps", "text"),
    [
        ({"recurrence": False}, r"layer0: its neurons project onto themselves.*set recurrent=false"),
        ({"max_merged": 1}, r"layer0: fan-in 256 \(70 and 186 recurrent\) exceeds 128 signed inputs per neuron by 128"),
        ({"neuron_circuits": 400}, r"412 neuron circuits \(layer0 186 x 2, layer1 20 x 2\) exceed 400 by 12"),
    ],
)
def test_misfits_of_recurrence_are_named(caps, text):
    with pytest.raises(hx.PlacementError, match=text):
        place(shd(), replace(CHIP, **caps), max_runs=1)


def test_recurrent_weights_are_rounded_clipped_checked_and_counted():
    net = attached(small(), preset="ideal")
    scale = net.device.plan.layers[0].nominal_scale
    limit = net.device.plan.weight_limits()[1]
    weight = net.layers[0].recurrent.weight
    with torch.no_grad():
        weight.zero_()[0, :4] = torch.tensor([1.4, -1.6, 200.0, -200.0]) / scale
    assert sent_weights(net)["layer0->layer0"][0, :4].tolist() == [1, -2, 63, -63]
    assert clipped_shares(net)["layer0->layer0"] == pytest.approx(2 / 256)
    assert limit == pytest.approx(63 / scale)
    with torch.no_grad():
        weight[:8] = 2 * limit
    activity = net(random_spikes())
    assert any("layer0->layer0 is clipped: 50% of its weights" in text for text in diagnose(net, activity, True))
    with torch.no_grad():
        weight[3, 4] = float("inf")
    with pytest.raises(ValueError, match="weights of layer0->layer0 are not finite"):
        net(random_spikes())


# Networks


def test_dropout_silences_recurrent_synapses_too():
    net = attached(small(dropout=0.5), preset="ideal")
    spikes = random_spikes()
    masks = net.dropout_masks(torch.Generator().manual_seed(0))
    active = masks[0].bool()
    assert 0 < int(active.sum()) < 16
    integers, _ = net.device.plan.quantise(net.effective_weights(masks))
    for name in ("input->layer0", "layer0->layer0"):
        assert not integers[name][~active].any(), name
        assert integers[name][active].any(), name
    activity = net(spikes, masks)
    assert not activity.layers[0].spikes[:, :, ~active].any()
    assert activity.layers[0].spikes[:, :, active].any()
    (activity.readout.sum() + WeightDecay(0.1)(activity, net.effective_weights(masks))).backward()
    gradient = net.layers[0].recurrent.weight.grad
    assert not gradient[~active].any()
    assert gradient[active].any()


def test_weights_of_recurrent_layers_decay():
    net = small()
    weight = net.layers[0].recurrent.weight
    WeightDecay(0.5)(net(random_spikes()), net.effective_weights()).backward()
    torch.testing.assert_close(weight.grad, weight.detach() / weight.numel())


REFUSED = [
    ((hx.Recurrent(4), hx.Linear(4, 2), hx.LI(2)), r"network is .*; expected Linear, LIF, \[Recurrent or"),
    ((hx.Linear(4, 2), hx.LIF(2), hx.Dropout(), hx.Recurrent(2), hx.Linear(2, 1), hx.LI(1)), "expected Linear, LIF"),
    ((hx.Linear(4, 2), hx.LI(2), hx.Recurrent(2)), "layer0 is a readout LI, which has no spikes to feed back"),
    ((hx.Linear(4, 3), hx.LIF(3), hx.Recurrent(2), hx.Linear(3, 2), hx.LI(2)), r"Recurrent\(2\) on 3 neurons"),
    (
        (hx.Linear(4, 3), hx.LIF(3), hx.Recurrent(3, autoscale=True), hx.Linear(3, 2), hx.LI(2)),
        r"Linear\(autoscale=False.*Recurrent\(autoscale=True.*give both the same",
    ),
]


@pytest.mark.parametrize(("modules", "text"), REFUSED, ids=[text[:25] for _, text in REFUSED])
def test_recurrence_in_the_wrong_place_is_refused(modules, text):
    with pytest.raises(ValueError, match=text):
        hx.Network(*modules)


def test_settings_build_recurrent_networks():
    net = NetworkConfig(hidden=[400, 30], recurrent=True, init_gain=0.7, init_gain_recurrent=2.0).build(64, 10, seed=0)
    names = "input->layer0 layer0->layer0 layer0->layer1 layer1->layer1 layer1->layer2"
    assert [p.name for p in net.projections] == names.split()
    spread = float(net.layers[0].recurrent.weight.detach().std())
    assert spread == pytest.approx(2.0 * (1 - decay(DT, 6e-6)) / 20, rel=0.02)
    with pytest.raises(ValueError, match=r"init_gain_recurrent=2\.0 has no effect; set network"):
        NetworkConfig(init_gain_recurrent=2.0)
    with pytest.raises(ValueError, match="Recurrent: size=0 must be positive"):
        hx.Recurrent(0)


# Training


def digits(epochs, backend, **trainer):
    return RunConfig(
        backend=BackendConfig(backend),
        network=NetworkConfig(hidden=[40], init_gain=1.6, recurrent=True, dropout=0.1),
        data=DataConfig("digits"),
        trainer=TrainerConfig(
            epochs=epochs, batch_size=50, progress=False, plots=False, train_samples=300, test_samples=100,
            learning_rate=5e-3, learning_rate_decay=1.0, **trainer,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["software", "reference", "emulator"])
def test_recurrent_runs_learn_and_resume_to_the_very_same_weights(tmp_path, backend):
    silent = Progress(show=False, console=Console(file=io.StringIO()))
    run(digits(3, backend), tmp_path / "whole", "test", silent)
    run(digits(1, backend), tmp_path / "broken", "test", silent)
    run(digits(3, backend, resume=True), tmp_path / "broken", "test", silent)
    whole, broken = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "broken"))
    assert all(torch.equal(value, broken["model"][name]) for name, value in whole["model"].items())
    start = NetworkConfig(hidden=[40], init_gain=1.6, recurrent=True, dropout=0.1).build(64, 10, seed=0).state_dict()
    assert all(not torch.equal(value, start[name]) for name, value in whole["model"].items())
    losses = [record["train_loss"] for record in whole["records"]]
    assert losses[2] < 0.8 * losses[0]
    weights = np.load(tmp_path / "whole" / "weights.npz")
    assert list(weights) == ["input->layer0", "layer0->layer0", "layer0->layer1"]
    assert weights["layer0->layer0"].shape == (40, 40)


def test_recurrent_weights_are_kept_within_the_devices_range(tmp_path):
    config = digits(1, "reference")
    config = replace(config, network=replace(config.network, scale=2000.0))
    run(config, tmp_path, "test", Progress(show=False, console=Console(file=io.StringIO())))
    weight = load_checkpoint(tmp_path / "checkpoint.pt")["model"]["stack.2.weight"]
    assert float(weight.abs().max()) == pytest.approx(63 / 2000)


def recall_trials(count, generator):
    """Return trials in which one of two groups of ten inputs fires within 6 us, and the number of this group."""
    label = torch.randint(2, (count,), generator=generator)
    times = torch.rand(count, 20, generator=generator) * 6e-6
    is_cue = torch.arange(20)[None] // 10 == label[:, None]
    return Spikes.from_times(torch.where(is_cue, times, torch.inf)), label


@pytest.mark.parametrize("recurrent", [False, True])
def test_recurrence_remembers_what_membranes_forget(recurrent):
    """A calibrated chip stores a cue; the answer is read from 97 us on, 16 time constants after the cue."""
    recurrence = [hx.Recurrent(30, gain=1.5)] if recurrent else []
    net = hx.Network(hx.Linear(20, 30, gain=3), hx.LIF(30), *recurrence, hx.Linear(30, 2), hx.LI(2), steps=65)
    attached(net, preset="calibrated")
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        spikes, label = recall_trials(30, generator)
        loss = torch.nn.functional.cross_entropy(10 * net(spikes).readout[57:].mean(0), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    spikes, label = recall_trials(200, generator)
    with torch.no_grad():
        accuracy = float((net(spikes).readout[57:].mean(0).argmax(1) == label).float().mean())
    assert accuracy > 0.95 if recurrent else accuracy < 0.6
