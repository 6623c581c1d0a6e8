"""Rules see the inputs of a network with delayed terminals as its synapses do."""

import pytest
import torch
from rule_checks import random_batch

import hxtrain as hx
from hxtrain.network import DelayedNetwork
from hxtrain.objectives import SpikeCount
from hxtrain.objectives.firing import Firing
from hxtrain.rules import RULES, Objective

DELAYS = (0.0, 3.3e-6)


@pytest.mark.parametrize("name", ["tempotron", "stdp", "clopath", "sdsp", "rstdp", "rtrl"])
def test_a_rule_learns_each_terminal_as_an_input_with_later_spikes(name: str) -> None:
    modules = [hx.Linear(24, 3, mean=0.1, gain=3.0), hx.LIF(3)]
    delayed = DelayedNetwork(*modules, delays=DELAYS, steps=30, seed=1)
    plain = hx.Network(*delayed.stack, dt=delayed.dt, steps=delayed.steps)
    batch = random_batch(hx.Network(hx.Linear(12, 3), hx.LIF(3)))
    gradients = []
    for net, spikes in ((delayed, batch.spikes), (plain, delayed.arrivals(batch.spikes))):
        settings = {"baseline": "none"} if name == "rstdp" else {}
        rule = RULES[name](**settings)
        loss = Firing() if name == "tempotron" else SpikeCount()
        rule.prepare(net, Objective(loss))
        rule.step(net, batch._replace(spikes=spikes))
        grad = net.projections[0].synapses.weight.grad
        assert grad is not None
        gradients.append(grad.clone())
        net.zero_grad()
    assert bool(gradients[0].any()) or name == "sdsp"
    assert torch.equal(*gradients)
