"""Approximate derivatives: their formula, the authors' form by autograd, and learning from hidden spikes alone."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import hxtrain as hx
from hxtrain.commands.construction import build_network
from hxtrain.commands.settings import RunConfig
from hxtrain.gradients import GRADIENTS
from hxtrain.gradients.adm import charges, derivative
from hxtrain.objectives import Burst
from hxtrain.rules import RULES, Backprop, Batch, Objective, RuleError, require_fit

DT = 1.7e-6


def random_spikes(*shape, share=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) < share).double()


def network(output=None, recurrent=False, **settings):
    modules = [hx.Linear(12, 9, gain=9.0), hx.LIF(9), *([hx.Recurrent(9)] if recurrent else [])]
    return hx.Network(*modules, hx.Linear(9, 4, gain=4.0), output or hx.LI(4), dt=DT, steps=15, **settings).double()


def batch(count=6):
    generator = torch.Generator().manual_seed(1)
    return Batch(hx.Spikes.from_times(2e-5 * torch.rand(count, 12, generator=generator)), torch.arange(count) % 4)


def gradients(net, rule, loss=None, penalties=()):
    """Return the gradient of each projection after a step of a rule."""
    net.zero_grad()
    default = hx.MaxOverTime() if net.output_kind == "membranes" else hx.SpikeCount()
    rule.prepare(net, Objective(loss or default, penalties))
    rule.step(net, batch())
    return [projection.synapses.weight.grad.clone() for projection in net.projections]


def test_without_a_leak_the_derivative_is_one_for_neurons_that_fire():
    spikes = random_spikes(10, 5, 8)
    spikes[:, 2] = 0
    assert torch.equal(derivative(spikes, 1.0), (spikes.sum(0) > 0).double())


def test_a_spike_at_the_end_costs_the_whole_leak():
    spikes = torch.zeros(10, 1, 1, dtype=torch.float64)
    spikes[-1] = 1
    assert float(derivative(spikes, 0.8)) == pytest.approx(1 + math.log(0.8), rel=1e-15)


def test_the_derivative_is_the_published_formula():
    spikes = random_spikes(20, 3, 4)
    leaky = torch.zeros(3, 4, dtype=torch.float64)
    for step in spikes:
        leaky = 0.99 * leaky + step
    expected = 1 + math.log(0.99) * leaky / spikes.sum(0)
    torch.testing.assert_close(derivative(spikes, 0.99), expected, rtol=1e-14, atol=0)


def test_an_error_belongs_to_the_inputs_since_the_last_spike():
    spikes = torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64)[:, None, None]
    errors = torch.tensor([9.0, 9.0, 2.0, 9.0, 3.0, 9.0], dtype=torch.float64)[:, None, None]
    first, last = (float(derivative(spikes, 0.9)) * error for error in (2.0, 3.0))
    fourth = last
    third = last + 0.5 * fourth
    second = first + 0.5 * third
    expected = torch.tensor([first + 0.5 * second, second, third, fourth, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(charges(spikes, errors, 0.5, 0.9).flatten(), expected)


class Authors:
    """The authors' code for current-based neurons: autograd, with leaks and resets out of the graph, and hooks.

    Args:
        net: Network in software.
    """

    def __init__(self, net):
        self._net = net

    def population(self, weight: Tensor, inputs: Tensor, layer) -> Tensor:
        """Return the spikes of a population `[T, B, N]`."""
        alpha, beta = self._net.decays(layer)
        current = membrane = fires = torch.zeros(inputs.shape[1], len(weight), dtype=torch.float64)
        spikes = [fires]
        for x in inputs[:-1]:
            current = alpha * current + x @ weight.t()
            membrane = beta * membrane.detach() + membrane - membrane.detach() + current - fires
            fires = (membrane > 1).double().detach()
            spikes.append(fires * (1 + membrane - membrane.detach()))
            membrane = torch.where(fires > 0, membrane.detach(), membrane)
        grid = torch.stack(spikes)
        factor = derivative(grid.detach(), beta)
        for spike in spikes[1:]:
            spike.register_hook(lambda grad: grad * factor)
        return torch.stack(spikes)

    def gradients(self, spikes, labels):
        """Return the gradients of all projections for the maximum of the readout."""
        net = self._net
        weights = [p.synapses.weight.detach().clone().requires_grad_() for p in net.projections]
        inputs = spikes.to_grid(net.dt, net.steps).double()
        hidden = self.population(weights[0], inputs, net.layers[0])
        readout = torch.einsum("ts,sbj,nj->tbn", net.psp(net.layers[1]), hidden, weights[1])
        hx.MaxOverTime()(readout, labels).backward()
        return [weight.grad for weight in weights]


def test_the_gradient_is_that_of_the_authors_code():
    net = network()
    result = gradients(net, RULES["adm"]())
    for mine, theirs in zip(result, Authors(net).gradients(*batch()[:2]), strict=True):
        assert float(mine.abs().max()) > 0
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("output", [hx.LI, hx.LIF])
def test_rule_and_gradient_are_the_same(output):
    net = network(output(4))
    by_rule = gradients(net, RULES["adm"]())
    net.gradient = GRADIENTS["adm"]()
    for mine, theirs in zip(by_rule, gradients(net, Backprop()), strict=True):
        assert torch.equal(mine, theirs)
    assert net.hidden_traces == "spikes_only"


def test_a_run_of_the_rule_records_no_hidden_membranes():
    data = hx.load_dataset("digits")
    config = RunConfig(rule=RULES["adm"]())
    assert build_network(config, data).hidden_traces == "spikes_only"
    assert build_network(replace(config, rule=Backprop()), data).hidden_traces == "measured"
    results = []
    for gradient in (hx.SurrogateGradient(), GRADIENTS["adm"]()):
        with hx.open_device("emulator", preset="uncalibrated") as device:
            net = network()
            net.attach(device, gradient=gradient)
            results.append(gradients(net, RULES["adm"]()))
    assert all(map(torch.equal, *results))


def test_the_gradient_of_a_readout_is_exact():
    net = network()
    by_adm, by_surrogate = (gradients(net, RULES[name]())[1] for name in ("adm", "backprop"))
    torch.testing.assert_close(by_adm, by_surrogate)


def test_silent_neurons_learn_nothing_and_penalties_have_a_gradient():
    net = network()
    with torch.no_grad():
        net.projections[0].synapses.weight[3] = -1.0
    plain = gradients(net, RULES["adm"]())[0]
    assert not plain[3].any()
    penalised = gradients(net, RULES["adm"](), penalties=[Burst(strength=1.0)])[0]
    assert not penalised[3].any()
    assert not torch.equal(plain, penalised)


def test_recurrent_weights_get_the_gradient_of_their_charges():
    net = network(recurrent=True)
    result = gradients(net, RULES["adm"]())
    assert [tuple(part.shape) for part in result] == [(9, 12), (9, 9), (4, 9)]
    assert all(bool(part.any()) for part in result)


def test_a_saturation_is_refused():
    with pytest.raises(RuleError, match="saturation=80 is not known to gradient=adm; leave it out"):
        require_fit(RULES["adm"](), network(saturation=80.0), None)


@pytest.mark.parametrize("preset", [None, "calibrated", "uncalibrated"])
def test_it_learns_digits_from_hidden_spikes(preset):
    net = hx.Network(hx.Linear(64, 60, mean=1e-3, gain=3.0), hx.LIF(60), hx.Linear(60, 10, gain=1.4), hx.LI(10))
    training = {"epochs": 4, "batch_size": 20, "learning_rate": 3e-3, "learning_rate_decay": 0.8, "progress": False}
    data = hx.load_dataset("digits")
    if preset is None:
        assert hx.fit(net, data, RULES["adm"](), **training).accuracy > 0.8
        return
    with hx.open_device("emulator", chip="W66F3", preset=preset) as device:
        net.attach(device, gradient=GRADIENTS["adm"]())
        assert hx.fit(net, data, **training).accuracy > 0.8
