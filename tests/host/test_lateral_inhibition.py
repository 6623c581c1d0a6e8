"""Lateral inhibition: its weights, the winner that it leaves, devices, placement, settings."""

import copy
from dataclasses import replace

import pytest
import torch
from test_recurrence import IDEAL, attached, random_spikes, stepwise_layer

import hxtrain as hx
from hxtrain.backends import Spikes, create_backend
from hxtrain.execution import place
from hxtrain.network import NetworkConfig
from hxtrain.neurons import get_surrogate
from hxtrain.rules import train_step

CHIP = create_backend("emulator").capabilities
RULE = (get_surrogate("superspike"), 10.0, True)


def inhibited(strength=0.2, size=16, mask=None, **first):
    onto_itself = [hx.LateralInhibition(size, strength, mask=mask)] if strength else []
    return hx.Network(hx.Linear(20, size, gain=4, **first), hx.LIF(size), *onto_itself, hx.Linear(size, 3), hx.LI(3))


def test_weights_are_the_negative_strength_off_the_diagonal():
    inhibition = hx.LateralInhibition(3, 0.5)
    assert inhibition.weight.tolist() == [[0.0, -0.5, -0.5], [-0.5, 0.0, -0.5], [-0.5, -0.5, 0.0]]
    inhibition.strength = 0.25
    assert copy.deepcopy(inhibition).weight[0].tolist() == [0.0, -0.25, -0.25]
    assert repr(inhibition) == "LateralInhibition(3, strength=0.25)"
    assert list(inhibition.parameters()) == []


def test_inhibition_adds_no_weights_and_changes_none():
    net = inhibited()
    plain = inhibited(0)
    assert all(map(torch.equal, net.state_dict().values(), plain.state_dict().values()))
    assert [*net.state_dict()] == ["stack.0.weight", "stack.3.weight"]
    assert [p.name for p in net.projections] == ["input->layer0", "layer0->layer0", "layer0->layer1"]


@pytest.mark.parametrize("settings", [None, {"preset": "ideal"}])
def test_gradient_runs_through_inhibition_as_step_by_step(settings):
    net = inhibited() if settings is None else attached(inhibited(), **settings)
    spikes = random_spikes()
    activity = net(spikes)
    assert activity.layers[0].spikes.sum() > 5
    loss = hx.MaxOverTime()
    labels = torch.arange(5) % 3
    gradients = torch.autograd.grad(loss(activity.output, labels), [*net.parameters()])
    hidden, output = (layer.trace.detach() for layer in activity.layers)
    w, w2 = (weight.detach().clone().requires_grad_() for weight in net.parameters())
    x = spikes.to_grid(net.dt, net.steps)
    decays = net.decays(net.layers[0])
    s, _ = stepwise_layer(w, net.stack[2].weight, x, activity.layers[0].spikes.detach(), hidden, *decays, RULE)
    _, u = stepwise_layer(w2, None, s, None, output, *decays, RULE)
    for actual, expected in zip(gradients, torch.autograd.grad(loss(u, labels), (w, w2)), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-7)


def race(strength, mask=None, backend=None):
    """Return the spikes of 12 neurons in 8 trials; inputs are ever later, so that neuron 0 reaches its threshold first.

    Each neuron has five inputs of its own.
    """
    net = hx.Network(
        hx.Linear(60, 12), hx.LIF(12), *([hx.LateralInhibition(12, strength, mask=mask)] if strength else []),
        hx.Linear(12, 2), hx.LI(2),
    )  # fmt: skip
    with torch.no_grad():
        net.stack[0].weight.copy_(0.14 * (torch.arange(60)[None] // 5 == torch.arange(12)[:, None]))
        delays = torch.where(torch.arange(60) // 5 % 6 == 0, 0.0, 4e-6 + 5e-8 * torch.arange(60))
        if backend is not None:
            attached(net, backend, **IDEAL[backend])
        return net(Spikes.from_times(delays.expand(8, 60).contiguous())).layers[0]


@pytest.mark.parametrize("backend", [None, "reference", "emulator"], ids=["twin", "reference", "emulator"])
def test_the_first_neuron_of_a_group_silences_the_others(backend):
    group = torch.arange(12) // 6
    assert torch.equal(race(0.0, backend=backend).spikes.sum(0), torch.ones(8, 12))
    winners = (torch.arange(12) % 6 == 0).float().expand(8, 12)
    assert torch.equal(race(0.25, backend=backend).spikes.sum(0), winners)
    assert torch.equal(race(0.25, group[:, None] == group, backend).spikes.sum(0), winners)


def test_an_ideal_chip_follows_the_twin():
    silent = torch.arange(12) % 6 != 0  # their membranes have no resets, which differ between chip and twin
    layers = [race(0.25), race(0.25, backend="emulator")]
    assert torch.equal(*(layer.spikes.sum(0) for layer in layers))
    traces = [layer.trace[:, :, silent] for layer in layers]
    assert float(torch.corrcoef(torch.stack([trace.flatten() for trace in traces]))[0, 1]) > 0.85
    torch.testing.assert_close(*(trace.amax(0) for trace in traces), rtol=0, atol=0.15)


def test_training_leaves_inhibition_as_it_is():
    net = attached(inhibited(), preset="ideal")
    weight = net.stack[2].weight.clone()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    train_step(net, hx.MaxOverTime(), [], optimizer, random_spikes(), torch.arange(5) % 3)
    assert torch.equal(net.stack[2].weight, weight)


def test_settings_build_inhibition_for_every_hidden_population():
    net = NetworkConfig(hidden=[30, 20], inhibition=0.2, output="spikes").build(64, 10, seed=0)
    assert [type(layer.recurrent).__name__ for layer in net.layers] == ["LateralInhibition"] * 2 + ["NoneType"]
    assert net.layers[1].recurrent.strength == 0.2
    assert not NetworkConfig(hidden=[30]).build(64, 10, seed=0).layers[0].recurrent


REFUSED = {
    "both": (
        lambda: hx.Network(
            hx.Linear(4, 3), hx.LIF(3), hx.Recurrent(3), hx.LateralInhibition(3), hx.Linear(3, 2), hx.LI(2)
        ),
        "layer0 has Recurrent and LateralInhibition, but a population has one projection",
    ),
    "both settings": (lambda: NetworkConfig(inhibition=0.2, recurrent=True), "inhibition=0.2 and network.recurrent=tr"),
    "a readout": (lambda: hx.Network(hx.Linear(4, 3), hx.LI(3), hx.LateralInhibition(3)), "has no spikes to feed back"),
    "size": (lambda: inhibited(mask=torch.ones(3, 3)), "LateralInhibition: mask has the shape"),
    "strength": (lambda: hx.LateralInhibition(3, -0.1), "LateralInhibition: strength=-0.1 must be positive"),
    "a negative setting": (lambda: NetworkConfig(inhibition=-1.0), "network.inhibition=-1.0 must not be negative"),
    "learned": (lambda: setattr(hx.LateralInhibition(3), "learned", True), "learned=True, but .* use Recurrent"),
    "range": (lambda: place(inhibited(1.0), CHIP), r"strength 1 exceeds the largest weight 0\.261.* at most 0\.261"),
    "no recurrence": (lambda: place(inhibited(), replace(CHIP, recurrence=False)), "set inhibition=0, or use"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_inhibition_that_does_not_fit_is_refused_by_name(case):
    build, text = REFUSED[case]
    with pytest.raises(ValueError, match=text):
        build()
