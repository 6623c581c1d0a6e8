"""ReSuMe: its change has the published form, a fired target changes nothing, and it learns target spike trains."""

import math

import pytest
import torch

import hxtrain as hx
from hxtrain.datasets import load_dataset
from hxtrain.objectives.correlation import TrainCorrelation
from hxtrain.rules import RULES, SGD, Batch, Objective, RuleError
from hxtrain.rules.resume import ReSuMe

DT = 1e-6


def network(inputs=5, outputs=1, **settings):
    return hx.Network(hx.Linear(inputs, outputs, **settings), hx.LIF(outputs), dt=DT, steps=50).double()


def step(net, spikes, targets, labels=(0,), **settings):
    """Return the negative change of the weights for a rule with these target trains."""
    rule = ReSuMe(**settings)
    rule.prepare(net, Objective(hx.SpikeCount(), targets=targets))
    rule.step(net, Batch(spikes, torch.tensor(labels)))
    return net.projections[0].synapses.weight.grad


def trains(events, samples=1, units=1):
    """Return spikes from triples of sample, unit and time."""
    sample, unit, time = zip(*events, strict=True) if events else ((), (), ())
    return hx.Spikes.from_events(list(sample), list(unit), list(time), samples, units)


def test_a_target_spike_adds_the_trace_of_the_input():
    net = network(mean=0.0, gain=0.0)
    spikes = trains([(0, 2, 3e-6), (0, 3, 20e-6), (0, 4, 13e-6)], units=5)
    result = step(net, spikes, trains([(0, 0, 13e-6)]), constant=0.02, amplitude=0.5, tau=4e-6)
    expected = torch.full((1, 5), 0.02, dtype=torch.float64)
    expected[0, 2] += 0.5 * math.exp(-10 / 4)
    torch.testing.assert_close(result, -expected)


def test_an_output_spike_subtracts_what_a_target_adds():
    net = network(inputs=2, mean=2.0, gain=0.0)
    spikes = trains([(0, 0, 3e-6), (0, 1, 8e-6)], units=2)
    with torch.no_grad():
        fired = net(spikes).layers[0].times(DT)
    assert len(fired) >= 2
    by_output = step(net, spikes, trains([(0, 0, 49e-6)]), constant=0.0, tau=1e-6)
    silent = network(inputs=2, mean=0.0, gain=0.0)
    by_target = step(silent, spikes, fired, constant=0.0, tau=1e-6)
    torch.testing.assert_close(by_output, -by_target)


def test_a_fired_target_changes_nothing():
    net = network(inputs=30, outputs=3, mean=0.1, gain=3.0)
    spikes = hx.Spikes.from_times(4e-5 * torch.rand(2, 30))
    with torch.no_grad():
        fired = net(spikes).layers[0].times(DT)
    assert len(fired) > 6
    assert not step(net, spikes, fired, labels=(0, 1)).any()
    assert step(net, spikes, fired, labels=(1, 0)).any()


def test_targets_after_the_window_do_not_count():
    net = network(mean=0.0, gain=0.0)
    assert not step(net, trains([(0, 0, 1e-6)], units=5), trains([(0, 0, 51e-6)])).any()


def test_the_change_of_a_batch_is_the_mean_of_its_samples():
    net = network(inputs=30, outputs=2, mean=0.1)
    spikes = hx.Spikes.from_times(4e-5 * torch.rand(3, 30))
    targets = trains([(0, 0, 1e-5), (0, 1, 2e-5), (1, 1, 3e-5)], samples=2, units=2)
    labels = (0, 1, 1)
    singles = [step(net, spikes[[n]], targets, labels[n : n + 1]).clone() for n in range(3)]
    torch.testing.assert_close(step(net, spikes, targets, labels), torch.stack(singles).mean(0))


SMALL = {"inputs": 200, "target_spikes": 4, "duration": 1e-4}


@pytest.mark.parametrize(("preset", "goal"), [(None, 0.95), ("calibrated", 0.9), ("uncalibrated", 0.9)])
def test_it_learns_a_target_train(preset, goal):
    data = load_dataset("target_trains", settings=SMALL)
    net = hx.Network(hx.Linear(200, 1, mean=0.02, gain=0.3), hx.LIF(1), steps=60)
    settings = {"loss": TrainCorrelation(), "encoder": hx.EventEncoder(), "optimizer": SGD(), "batch_size": 1}
    training = {"epochs": 80, "learning_rate": 5e-3, "learning_rate_decay": 0.97, "progress": False}
    device = None if preset is None else hx.open_device("emulator", chip="W66F3", preset=preset)
    if device is not None:
        device.__enter__()
        net.attach(device)
    records = hx.fit(net, data, ReSuMe(), **settings, **training).records
    if device is not None:
        device.__exit__(None, None, None)
    correlations = [1 - record["train_loss"] for record in records]
    assert correlations[0] < 0.8
    assert sum(correlations[-10:]) / 10 >= goal


def test_it_learns_in_spite_of_jitter():
    data = load_dataset("target_trains", settings={**SMALL, "trials": 4, "jitter": 0.5e-6})
    net = hx.Network(hx.Linear(200, 1, mean=0.02, gain=0.3), hx.LIF(1), dt=0.5e-6, steps=210)
    settings = {"loss": TrainCorrelation(), "encoder": hx.EventEncoder(), "optimizer": SGD(), "batch_size": 1}
    training = {"epochs": 30, "learning_rate": 2e-3, "learning_rate_decay": 0.93, "progress": False}
    records = hx.fit(net, data, ReSuMe(), **settings, **training).records
    assert 1 - records[-1]["train_loss"] > 0.9


def test_refusals():
    rule = RULES["resume"]()
    loss = hx.SpikeCount()
    with pytest.raises(RuleError, match="needs target spike trains, which these data lack; choose data=target_trains"):
        rule.prepare(network(), Objective(loss))
    with pytest.raises(RuleError, match="the targets have 3 trains per class, but the output 1 neurons"):
        rule.prepare(network(), Objective(loss, targets=trains([], units=3)))
    for settings in ({"tau": 0.0}, {"constant": -1.0}, {"amplitude": math.inf}):
        with pytest.raises(ValueError, match=f"rule.{next(iter(settings))}="):
            ReSuMe(**settings)
