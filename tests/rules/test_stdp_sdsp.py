"""Spike-driven plasticity: truth table, drift, stop-learning windows, and digits with binary weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hxtrain as hx
from hxtrain.objectives import Firing
from hxtrain.rules import SGD, Batch, Objective, RuleError, learn, require_fit
from hxtrain.rules.sdsp import SDSP
from hxtrain.runs.checkpoint import load_checkpoint

BIOLOGICAL = SDSP(drift_up=3.5, drift_down=3.5, tau_calcium=60e-3)


def train(times: Any, units: int = 1) -> hx.Spikes:
    units_of = [unit for unit in range(units) for _ in times]
    return hx.Spikes.from_events([0] * len(units_of), units_of, list(times) * units, 1, units)


@pytest.mark.parametrize(
    ("membrane", "output_spikes", "change"),
    [
        (0.9, 8, 0.1),  # high membrane, calcium within 3..13
        (0.9, 2, 0.0),  # calcium too low
        (0.7, 4, -0.1),  # low membrane, calcium within 3..4
        (0.7, 8, 0.0),  # calcium too high
        (0.9, 20, 0.0),
        (0.8, 4, -0.1),  # at the threshold the membrane is low
    ],
)
def test_an_input_spike_moves_the_synapse_as_membrane_and_calcium_say(
    membrane: float, output_spikes: int, change: float
) -> None:
    rule = replace(BIOLOGICAL, drift_up=0.0, drift_down=0.0)
    states = np.full((1, 1), 0.3)
    output = train(0.0095 - 1e-4 * np.arange(output_spikes))
    rule.follow(states, train([0.01]), output, np.full((20, 1, 1), membrane), 1e-3)
    assert states[0, 0] == pytest.approx(0.3 + change)


@pytest.mark.parametrize(("start", "end"), [(0.51, 1.0), (0.49, 0.0)])
def test_a_synapse_drifts_to_its_stable_state_in_140_ms(start: float, end: float) -> None:
    for steps, value in ((139, abs(end - 3.5e-3)), (140, end), (200, end)):
        states = np.full((1, 1), start)
        BIOLOGICAL.follow(states, train([]), train([]), np.zeros((steps, 1, 1)), 1e-3)
        assert states[0, 0] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(
    ("rate", "up", "down"),
    [(10, 0.001, 0.001), (50, 0.467, 0.264), (100, 0.974, 0.086), (150, 0.957, 0.003), (200, 0.66, 0), (300, 0.038, 0)],
)
def test_calcium_opens_the_windows_of_learning_for_a_range_of_rates(rate: float, up: float, down: float) -> None:
    numbers = np.random.default_rng(int(rate))
    neurons = 200
    duration = 5.0
    counts = numbers.poisson(rate * duration, neurons)
    units = np.arange(neurons).repeat(counts)
    post = hx.Spikes.from_events(np.zeros(len(units)), units, numbers.uniform(0, duration, len(units)), 1, neurons)
    probes = train(np.arange(0, duration, 1e-3))
    for membrane, expected, sign in ((1.0, up, 1), (0.0, down, -1)):
        rule = replace(BIOLOGICAL, jump_up=1e-5, jump_down=1e-5, drift_up=0, drift_down=0)
        states = np.full((1, neurons), 0.5)
        rule.follow(states, probes, post, np.full((1, 1, neurons), membrane), duration)
        assert sign * (states.mean() - 0.5) / 1e-5 / len(probes) == pytest.approx(expected, abs=0.03)


def test_calcium_of_a_repeated_trial_is_that_of_many_trials_in_a_row() -> None:
    period = 0.04
    spikes = np.array([0.004, 0.011, 0.03])
    rule = replace(BIOLOGICAL, drift_up=0.0, drift_down=0.0, jump_up=1e-3, up_low=0.0)
    probes = np.linspace(0.001, 0.039, 15)
    for limit in np.linspace(3, 6, 13):
        single = np.full((1, 1), 0.2)
        repeated = np.full((1, 1), 0.2)
        limited = replace(rule, up_low=float(limit), stationary=True)
        limited.follow(single, train(probes), train(spikes), np.ones((1, 1, 1)), period)
        row = np.concatenate([spikes + k * period for k in range(30)])
        last = replace(limited, stationary=False)
        last.follow(repeated, train(probes + 29 * period), train(row), np.ones((1, 1, 1)), 30 * period)
        assert single[0, 0] == pytest.approx(repeated[0, 0])


def network() -> hx.Network:
    return hx.Network(hx.Linear(6, 3, mean=0.05, gain=0.5), hx.LIF(3), steps=20, seed=1)


def batch() -> Batch:
    times = torch.rand(4, 6, generator=torch.Generator().manual_seed(3)) * 3e-5
    return Batch(hx.Spikes.from_times(times), torch.arange(4) % 3)


def taught(**settings: Any) -> SDSP:
    return SDSP(
        **{
            "up_low": -1.0,
            "up_high": 3.0,
            "down_low": -1.0,
            "down_high": 9.0,
            "teacher": 5.0,
            "jump_up": 0.3,
            **settings,
        }
    )


def test_a_teacher_lets_the_true_class_gain_and_the_others_lose() -> None:
    net = network()
    rule = taught(drift_up=0.0, drift_down=0.0)
    rule.prepare(net, Objective(hx.SpikeCount()))
    states = rule.state_dict()["input->layer0"].clone()
    sample = batch()
    rule.step(net, Batch(sample.spikes[[0]], sample.labels[:1]))
    change = rule.state_dict()["input->layer0"] - states
    assert (change[0] >= 0).all()
    assert change[0].sum() > 0
    assert (change[1:] <= 0).all()
    assert change[1:].sum() < 0


def test_a_dropped_neuron_learns_nothing_from_its_teacher() -> None:
    net = network()
    rule = taught()
    rule.prepare(net, Objective(hx.SpikeCount()))
    states = rule.state_dict()["input->layer0"].clone()
    rule.step(net, batch()._replace(masks=[torch.tensor([1.0, 0.0, 1.0])]))
    is_changed = (rule.state_dict()["input->layer0"] != states).any(1)
    assert is_changed.tolist() == [True, False, True]


def test_a_teacher_of_several_neurons_per_class_is_refused() -> None:
    loss = Firing(neurons=2)
    net = hx.Network(hx.Linear(8, loss.outputs(3)), hx.LIF(loss.outputs(3)))
    SDSP().prepare(net, Objective(loss))
    with pytest.raises(RuleError, match=r"Firing has 6 neurons for 3 classes; choose loss=spike_count"):
        SDSP(teacher=1.0).prepare(net, Objective(loss))


def test_weights_are_low_or_high_from_the_start_on() -> None:
    net = network()
    rule = taught()
    rule.prepare(net, Objective(hx.SpikeCount()))
    weight = net.projections[0].synapses.weight
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    previous = weight.detach().clone()
    for _ in range(3):
        learn(net, rule, optimizer, batch())
        assert set(weight.detach().unique().tolist()) <= {0.0, float(torch.tensor(0.1))}
    assert not torch.equal(weight, previous)


def test_another_learning_rate_is_refused_with_its_remedy() -> None:
    net = network()
    rule = taught()
    rule.prepare(net, Objective(hx.SpikeCount()))
    with pytest.raises(ValueError, match=r"set optimizer=sgd trainer.learning_rate=1 trainer.learning_rate_decay=1"):
        learn(net, rule, torch.optim.SGD(net.parameters(), lr=0.5), batch())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"low": 0.2}, r"rule.low=0.2 must be less than rule.high=0.1"),
        ({"theta_x": 1.0}, r"rule.theta_x=1.0 must be in 0 < x < 1"),
        ({"homeostasis": 1.0}, r"weights of sdsp are low or high; leave it at 0"),
        ({"tau_calcium": 0.0}, r"rule.tau_calcium=0.0 must be positive and finite"),
        ({"jump_up": -1.0}, r"rule.jump_up=-1.0 must be finite and not negative"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        SDSP(**settings)


def test_weights_beyond_the_device_are_refused() -> None:
    net = network()
    with hx.open_device("emulator") as device:
        net.attach(device)
        with pytest.raises(RuleError, match=r"rule.high=9.0 exceed the largest weight of the device, 0.26"):
            require_fit(SDSP(high=9.0), net, device.backend.capabilities)


def digits_run(folder: Path, epochs: int, resume: bool = False) -> hx.Network:
    data = hx.load_dataset("digits")
    data = replace(data, train=data.train[:60], test=data.test[:10])
    net = hx.Network(hx.Linear(64, 10, mean=0.05, gain=0.5), hx.LIF(10), seed=0)
    settings: dict[str, Any] = {"learning_rate": 1.0, "learning_rate_decay": 1.0, "progress": False}
    hx.fit(net, data, taught(), optimizer=SGD(), epochs=epochs, folder=folder, resume=resume, **settings)
    return net


def test_a_resumed_run_ends_with_the_same_weights_and_states(tmp_path: Path) -> None:
    whole = digits_run(tmp_path / "whole", 2)
    digits_run(tmp_path / "parts", 1)
    parts = digits_run(tmp_path / "parts", 2, resume=True)
    assert torch.equal(whole.projections[0].synapses.weight, parts.projections[0].synapses.weight)
    states = [
        load_checkpoint(tmp_path / name / "checkpoint.pt")["rule"]["input->layer0"] for name in ("whole", "parts")
    ]
    assert torch.equal(*states)
