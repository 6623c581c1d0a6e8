"""Rewiring: which synapses move, and that each neuron keeps their number."""

import pytest
import torch

import hxtrain as hx
from hxtrain.masks import Budget, DeepR, RigL, select
from hxtrain.network import Write
from hxtrain.rules import Backprop, Objective, learn
from hxtrain.rules.stdp import STDP

FAN_IN = 5
ROWS = 16


def network(rows=None, output="membranes"):
    last = (hx.Linear(10, 3), hx.LI(3)) if output == "membranes" else (hx.Linear(10, 3, gain=6), hx.LIF(3))
    net = hx.Network(hx.Linear(24, 10, gain=6), hx.LIF(10), *last, steps=20, seed=1)
    scores = torch.rand(10, 24, generator=torch.Generator().manual_seed(0))
    net.set_mask("input->layer0", select([scores], Budget(fan_in=FAN_IN, rows=rows))[0])
    return net


def batch():
    times = torch.rand(12, 24, generator=torch.Generator().manual_seed(3)) * 25e-6
    return hx.rules.Batch(hx.Spikes.from_times(times), torch.arange(12) % 3)


def train(net, rewiring, steps, rule=None):
    rule = rule or Backprop()
    rule.prepare(net, Objective(hx.MaxOverTime() if net.output_kind == "membranes" else hx.SpikeCount(), [rewiring]))
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    for _ in range(steps):
        learn(net, rule, optimizer, batch())


def check_budget(mask, rows=None):
    assert mask.sum(1).tolist() == [FAN_IN] * 10
    if rows:
        usage = torch.zeros(10, rows).index_add_(1, torch.arange(24) % rows, mask.float())
        assert usage.max() == 1


@pytest.mark.parametrize("rows", [None, ROWS, FAN_IN])
@pytest.mark.parametrize("rewiring", [RigL(interval=2, share=0.4), DeepR(strength=0.1)], ids=["rigl", "deep_r"])
def test_synapses_move_and_their_number_stays(rewiring, rows):
    net = network(rows)
    first = net.layers[0].linear.mask.clone()
    rewiring.rows = rows
    train(net, rewiring, 30)
    mask = net.layers[0].linear.mask
    check_budget(mask, rows)
    assert not torch.equal(mask, first)
    assert net.layers[1].linear.mask is None
    assert not net.effective_weights()[0][~mask].any()


def test_rigl_drops_the_smallest_and_grows_the_steepest():
    net = network()
    synapses = net.layers[0].linear
    rewiring = RigL(interval=1, share=0.4)
    rewiring.prepare(net)
    gradient = torch.randn(10, 24, generator=torch.Generator().manual_seed(5))
    synapses.watch_gradient(start=gradient)
    mask = synapses.mask.clone()
    weight = synapses.weight.detach().clone()
    rewiring.after_write(net, Write([], []))
    for row in range(10):
        strong = weight[row].abs().masked_fill(~mask[row], -1).topk(3).indices.tolist()
        rest = gradient[row].abs().masked_fill(torch.isin(torch.arange(24), torch.tensor(strong)), -1)
        assert set(synapses.mask[row].nonzero().flatten().tolist()) == {*strong, *rest.topk(2).indices.tolist()}
    grown = synapses.mask & ~mask
    assert grown.any()
    assert not synapses.weight[grown].any()
    assert torch.equal(synapses.weight[mask], weight[mask])
    assert synapses.gradient_sum is None


def test_gradients_of_absent_synapses_are_those_of_the_dense_network():
    net = network()
    synapses = net.layers[0].linear
    synapses.watch_gradient()
    hx.MaxOverTime()(net(batch().spikes).output, batch().labels).backward()
    dense = network()
    with torch.no_grad():
        dense.layers[0].linear.weight.copy_(synapses.effective_weight)
    dense.set_mask("input->layer0", None)
    hx.MaxOverTime()(dense(batch().spikes).output, batch().labels).backward()
    assert torch.allclose(synapses.gradient_sum, dense.layers[0].linear.weight.grad)
    assert not synapses.weight.grad[~synapses.mask].any()
    assert synapses.gradient_sum[~synapses.mask].any()


def test_the_share_of_rigl_falls_to_nothing():
    net = network()
    rewiring = RigL(interval=1, share=0.4, end=4)
    shares = []
    rewiring.prepare(net)
    for _ in range(4):
        shares.append(rewiring.current_share())
        net.layers[0].linear.watch_gradient(start=torch.ones(10, 24))
        rewiring.after_write(net, Write([], []))
    assert shares == pytest.approx([0.4, 0.2 * (1 + 0.5**0.5), 0.2, 0.2 * (1 - 0.5**0.5)])
    original = net.layers[0].linear.mask.clone()
    rewiring.after_write(net, Write([], []))
    assert torch.equal(net.layers[0].linear.mask, original)


def test_deep_r_replaces_weights_that_cross_zero():
    net = network()
    synapses = net.layers[0].linear
    rewiring = DeepR()
    rewiring.prepare(net)
    original = synapses.mask.clone()
    crossed = synapses.mask & (torch.arange(24) % 2 == 0)
    with torch.no_grad():
        synapses.weight[crossed] *= -1
    rewiring.after_write(net, Write([], []))
    check_budget(synapses.mask)
    survivors = original & ~crossed
    assert (synapses.mask & survivors).equal(survivors)
    grown = synapses.mask & ~survivors
    assert int(grown.sum()) == int(crossed.sum())
    assert not synapses.weight[grown].any()


def test_rules_without_gradients_go_with_deep_r_only():
    net = network(output="spikes")
    train(net, DeepR(strength=0.0), 3, STDP())
    check_budget(net.layers[0].linear.mask)
    with pytest.raises(ValueError, match="mask=deep_r"):
        train(network(output="spikes"), RigL(interval=1), 1, STDP())


def test_what_cannot_move_is_refused():
    net = network()
    net.set_mask("input->layer0", None)
    with pytest.raises(ValueError, match="no projection that is learned has one"):
        RigL().prepare(net)
    with pytest.raises(ValueError, match=r"projections=\['x'\] do not exist"):
        RigL(projections=["x"]).prepare(network())
    for settings, text in (({"share": 1.0}, "0 < x < 1"), ({"interval": 0}, "at least 1"), ({"end": 0}, "at least 1")):
        with pytest.raises(ValueError, match=text):
            RigL(**settings)
    deep = DeepR()
    deep.prepare(network())
    with pytest.raises(ValueError, match="other projections"):
        deep.load_state_dict({"step": 1, "signs": []})
