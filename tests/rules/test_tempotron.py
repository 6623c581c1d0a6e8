"""The tempotron: it descends the distance from the threshold, right answers change nothing, and it learns."""

import math
from dataclasses import replace

import pytest
import torch

import hxtrain as hx
from hxtrain.datasets import load_dataset
from hxtrain.objectives.firing import Firing
from hxtrain.rules import RULES, SGD, Batch, Objective, RuleError, require_fit
from hxtrain.rules.tempotron import Tempotron, responses

TAUS = [(6e-6, 6e-6), (15e-6, 3.75e-6), (3e-6, 6e-6)]
DT = 1e-6


def network(inputs=20, outputs=1, taus=TAUS[0], **settings):
    neurons = hx.LIF(outputs, *taus)
    return hx.Network(hx.Linear(inputs, outputs, **settings), neurons, dt=DT, steps=60).double()


def patterns(count=8, inputs=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return hx.Spikes.from_times(4e-5 * torch.rand(count, inputs, generator=generator))


def gradient(net, spikes, labels, **settings):
    rule = Tempotron(**settings)
    rule.prepare(net, Objective(Firing()))
    rule.step(net, Batch(spikes, torch.as_tensor(labels)))
    return net.projections[0].synapses.weight.grad


def distance(net, spikes, labels, steps):
    """Return the mean E at fixed steps, the sign of each sample by its label."""
    with torch.no_grad():
        membrane = net(spikes).layers[0].trace[steps, torch.arange(len(steps)), 0]
    signs = torch.where(torch.as_tensor(labels) == 1, 1.0, -1.0)
    return float((signs * (1 - membrane)).mean())


@pytest.mark.parametrize("taus", TAUS)
@pytest.mark.parametrize(("mean", "label"), [(0.02, 1), (0.5, 0)])
def test_the_gradient_is_that_of_the_distance_from_the_threshold(taus, mean, label):
    net = network(taus=taus, mean=mean)
    spikes = patterns()
    labels = torch.full((8,), label)
    with torch.no_grad():
        layer = net(spikes).layers[0]
    assert bool(((layer.counts > 0) == (label == 0)).all())
    steps = layer.spikes.argmax(0)[:, 0] if label == 0 else layer.trace.argmax(0)[:, 0]
    weight = net.projections[0].synapses.weight
    result = gradient(net, spikes, labels)
    for j in range(0, 20, 4):
        values = []
        for shift in (1e-6, -1e-6):
            with torch.no_grad():
                weight[0, j] += shift
            values.append(distance(net, spikes, labels, steps))
            with torch.no_grad():
                weight[0, j] -= shift
        assert float(result[0, j]) == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-6)


@pytest.mark.parametrize(("mean", "label"), [(0.02, 0), (0.5, 1)])
def test_right_answers_change_nothing(mean, label):
    assert not gradient(network(mean=mean), patterns(), [label] * 8).any()


def test_within_the_margin_a_silent_neuron_is_wrong():
    net = network(mean=0.02, gain=0.0)
    with torch.no_grad():
        highest = float(net(patterns()).layers[0].trace.max())
    assert not gradient(net, patterns(), [0] * 8, margin=0.99 - highest).any()
    result = gradient(net, patterns(), [0] * 8, margin=1.001 - highest)
    assert float(result.sum()) > 0


def test_without_a_margin_a_silent_neuron_is_right_wherever_its_measured_membrane_is():
    net = network(mean=0.02, gain=0.0)
    batch = Batch(patterns(), torch.zeros(8, dtype=torch.long))
    with torch.no_grad():
        activity = net(batch.spikes)
    layer = activity.layers[0]
    assert not layer.counts.any()
    activity.layers = [replace(layer, membrane=layer.trace + 1)]
    for margin, is_wrong in ((0.0, False), (0.1, True)):
        rule = Tempotron(margin)
        rule.prepare(net, Objective(Firing()))
        assert bool(rule.gradient(net, batch, activity).any()) == is_wrong


def test_the_mean_of_a_batch_is_that_of_its_samples():
    net = network(mean=0.1, gain=3.0)
    labels = torch.arange(8) % 2
    singles = [gradient(net, patterns()[[n]], labels[n : n + 1]).clone() for n in range(8)]
    assert sum(bool(single.any()) for single in singles) in range(2, 8)
    torch.testing.assert_close(gradient(net, patterns(), labels), torch.stack(singles).mean(0))


@pytest.mark.parametrize("taus", TAUS)
def test_measured_times_have_the_response_of_continuous_time(taus):
    tau_mem, tau_syn = taus
    net = network(inputs=2, taus=taus)
    lag = 4.3e-6
    upstream = hx.Spikes.from_events([0, 0], [1, 0], [1e-6, 9e-6], 1, 2)
    moments = hx.Spikes.from_events([0], [0], [1e-6 + lag], 1, 1)
    if tau_mem == tau_syn:
        expected = lag * math.exp((DT - lag) / tau_mem) / DT
    else:
        by_step = math.exp(-DT / tau_mem) - math.exp(-DT / tau_syn)
        expected = (math.exp(-lag / tau_mem) - math.exp(-lag / tau_syn)) / by_step
    result = responses(net, upstream, moments, torch.ones(1))
    torch.testing.assert_close(result, torch.tensor([[0.0, expected]], dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_largest_response_has_the_published_norm():
    tau, tau_syn = TAUS[1]
    peak = tau * tau_syn / (tau - tau_syn) * math.log(tau / tau_syn)
    upstream = hx.Spikes.from_events([0], [0], [0.0], 1, 1)
    moments = hx.Spikes.from_events([0], [0], [peak], 1, 1)
    highest = responses(network(inputs=1, taus=TAUS[1]), upstream, moments, torch.ones(1))
    by_step = math.exp(-DT / tau) - math.exp(-DT / tau_syn)
    assert float(highest) * by_step == pytest.approx(1 / 2.1165, rel=1e-4)


def test_the_response_is_that_of_a_device():
    net = hx.Network(hx.Linear(1, 1, mean=0.2, gain=0.0), hx.LIF(1), steps=20)
    spikes = hx.Spikes.from_times([[1e-9]])
    with hx.open_device("emulator", preset="ideal") as device, torch.no_grad():
        net.attach(device)
        measured = net(spikes).layers[0].trace[:, 0, 0]
    moments = hx.Spikes.from_events([0] * 20, torch.arange(20), net.dt * torch.arange(20), 1, 20)
    response = 0.2 * responses(net, spikes, moments, torch.ones(20))[:, 0]
    assert float((measured - response).abs().max()) < 0.01  # the trace has 8 bits


@pytest.mark.parametrize("preset", [None, "calibrated", "uncalibrated"])
def test_it_remembers_random_classes_of_patterns(preset):
    data = load_dataset("spike_patterns", settings={"inputs": 60, "patterns": 30, "duration": 1e-4})
    net = hx.Network(hx.Linear(60, 1, mean=0.02, gain=0.5), hx.LIF(1), steps=64)
    settings = {"loss": Firing(), "encoder": hx.EventEncoder(), "optimizer": SGD(momentum=0.9)}
    training = {"epochs": 25, "batch_size": 5, "learning_rate": 5e-3, "learning_rate_decay": 1.0, "progress": False}
    if preset is None:
        assert hx.fit(net, data, Tempotron(), **settings, **training).accuracy == 1
        return
    with hx.open_device("emulator", chip="W66F3", preset=preset) as device:
        net.attach(device)
        records = hx.fit(net, data, Tempotron(), **settings, **training).records
    assert max(record["test_accuracy"] for record in records) >= 0.96


def test_neurons_of_several_classes_learn_to_fire_for_their_own():
    net = network(inputs=20, outputs=6, mean=0.0, gain=0.1)
    rule = Tempotron()
    rule.prepare(net, Objective(Firing(neurons=2)))
    rule.step(net, Batch(patterns(3), torch.tensor([0, 1, 1])))
    is_changed = net.projections[0].synapses.weight.grad.any(1)
    assert is_changed.tolist() == [True, True, True, True, False, False]


def test_dropped_neurons_and_absent_synapses_get_no_gradient():
    net = network(inputs=20, outputs=3, mean=0.02)
    net.set_mask("input->layer0", torch.arange(60).view(3, 20) % 2)
    rule = Tempotron()
    rule.prepare(net, Objective(Firing()))
    mask = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    rule.step(net, Batch(patterns(3), torch.arange(3), [mask]))
    result = net.projections[0].synapses.weight.grad != 0
    assert result.any(1).tolist() == [True, False, True]
    assert not result[:, ::2].any()


def test_refusals():
    rule = RULES["tempotron"]()
    with pytest.raises(RuleError, match=r"tempotron learns from output spikes.*\(network.output=spikes\)"):
        require_fit(rule, hx.Network(hx.Linear(2, 2), hx.LI(2)), None)
    with pytest.raises(RuleError, match="but it is fixed; make it with learned=True"):
        require_fit(rule, hx.Network(hx.Linear(3, 2), hx.LIF(2), hx.Linear(2, 1, learned=False), hx.LIF(1)), None)
    with pytest.raises(RuleError, match="the output's recurrent one is learned, too"):
        require_fit(rule, hx.Network(hx.Linear(2, 2), hx.LIF(2), hx.Recurrent(2)), None)
    with pytest.raises(RuleError, match="SpikeCount does not say so; choose loss=firing"):
        rule.prepare(network(), Objective(hx.SpikeCount()))
    with pytest.raises(ValueError, match=r"loss.neurons=2: 3 output neurons are not 2"):
        rule.prepare(network(outputs=3), Objective(Firing(neurons=2)))
    with pytest.raises(ValueError, match=r"rule.margin=1.0 must be in 0 <= x < 1"):
        Tempotron(margin=1.0)
