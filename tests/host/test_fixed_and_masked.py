"""Projections that are fixed, and synapses that a mask removes: what is computed, sent, learned and saved."""

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch
from rich.console import Console
from test_gradient import worst_relative
from test_recurrence import attached, random_spikes

import hxtrain as hx
from hxtrain.backends import create_backend
from hxtrain.commands.construction import load_weights
from hxtrain.commands.evaluate import clipped_shares
from hxtrain.commands.result import sent_weights
from hxtrain.comparison import compare
from hxtrain.datasets import DataConfig
from hxtrain.datasets.augment import ImageAugmentation
from hxtrain.neurons.engines import cpu
from hxtrain.objectives import WeightDecay
from hxtrain.rules import Mask, train_step
from hxtrain.runs.progress import Progress
from hxtrain.runs.saved import take_weights
from hxtrain.training import Task, Trainer
from hxtrain.training.config import TrainerConfig
from hxtrain.training.diagnosis import diagnose

LABELS = torch.arange(5) % 3
LOSS = hx.MaxOverTime()
DEVICES = {"software": None, "emulator": {"preset": "ideal"}, "reference": {}}


def recurrent(**first):
    return hx.Network(
        hx.Linear(20, 16, gain=4, **first), hx.LIF(16), hx.Recurrent(16, gain=4), hx.Linear(16, 3, gain=2), hx.LI(3)
    )


def on(net, device):
    return net if DEVICES[device] is None else attached(net, device, **DEVICES[device])


def gradients(net):
    net.zero_grad()
    LOSS(net(random_spikes()).output, LABELS).backward()
    return {name: weight.grad for name, weight in net.named_parameters()}


def half(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5


# Fixed projections


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("index", [0, 2, 3], ids=["first", "recurrent", "last"])
def test_a_fixed_projection_gets_no_gradient_and_all_others_keep_theirs(index, device):
    learned = on(recurrent(), device)
    partly = on(recurrent(), device)
    partly.stack[index].learned = False
    expected = gradients(learned)
    actual = gradients(partly)
    name = f"stack.{index}.weight"
    assert actual.pop(name) is None
    assert float(expected.pop(name).abs().max()) > 0
    assert all(torch.equal(grad, actual[key]) for key, grad in expected.items())


def test_nothing_is_computed_backward_below_the_last_learned_projection(mocker):
    net = hx.Network(hx.Linear(20, 16, gain=4, learned=False), hx.LIF(16), hx.Linear(16, 3), hx.LI(3))
    backward = mocker.spy(cpu, "gradient")
    assert gradients(net)["stack.2.weight"].any()
    assert backward.call_count == 1


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, lambda p: torch.optim.AdamW(p, weight_decay=0.5)])
def test_optimiser_and_clamp_leave_fixed_weights_alone(optimizer):
    net = attached(recurrent(learned=False), preset="ideal")
    with torch.no_grad():
        net.stack[0].weight[0] = 2 * net.weight_limits()[0]
        net.stack[2].weight[0] = 2 * net.weight_limits()[1]
    previous = copy.deepcopy(net.state_dict())
    train_step(net, LOSS, [WeightDecay()], optimizer(net.parameters()), random_spikes(), LABELS)
    assert torch.equal(net.stack[0].weight, previous["stack.0.weight"])
    assert not torch.equal(net.stack[3].weight, previous["stack.3.weight"])
    assert float(net.stack[2].weight.detach().abs().max()) == pytest.approx(net.weight_limits()[1])


def test_fixed_weights_beyond_the_range_of_the_device_are_named():
    net = attached(recurrent(learned=False), preset="ideal")
    limit = net.weight_limits()[0]
    with torch.no_grad():
        net.stack[0].weight.clamp_(-limit, limit)[:4] = limit
    assert not any("input->layer0 is clipped" in text for text in diagnose(net, net(random_spikes()), True))
    with torch.no_grad():
        net.stack[0].weight[:4] = 2 * limit
    warnings = diagnose(net, net(random_spikes()), True)
    assert any(
        "input->layer0 is clipped: 25% of its weights are beyond the integer range, and fixed" in w for w in warnings
    )


def test_fixed_weights_are_drawn_saved_and_loaded_as_all_others():
    net = recurrent()
    fixed = recurrent(learned=False)
    assert set(net.state_dict()) == set(fixed.state_dict()) == {f"stack.{index}.weight" for index in (0, 2, 3)}
    assert all(torch.equal(value, fixed.state_dict()[name]) for name, value in net.state_dict().items())
    values = hx.Linear(20, 16, learned=False)
    values.load_state_dict({"weight": torch.ones(16, 20)})
    assert torch.equal(hx.Network(values, hx.LIF(16), hx.Linear(16, 3), hx.LI(3)).stack[0].weight, torch.ones(16, 20))
    fixed.requires_grad_(True)  # of the whole network, as after an evaluation
    assert gradients(fixed)["stack.0.weight"] is None
    fixed.stack[0].learned = True
    assert gradients(fixed)["stack.0.weight"].any()
    assert "learned=False" in repr(recurrent(learned=False))
    assert "learned" not in repr(net)


def frozen():
    return recurrent().requires_grad_(False)


def all_fixed():
    net = recurrent()
    for projection in net.projections:
        projection.synapses.learned = False
    return net


def task(net):
    return Task(net, hx.LatencyEncoder(), LOSS, {}, DataConfig("digits").load())


@pytest.mark.parametrize("build", [frozen, all_fixed])
def test_training_needs_something_to_learn(build):
    net = build()
    with pytest.raises(ValueError, match="nothing is learned: all projections are fixed"):
        train_step(net, LOSS, [], torch.optim.Adam(net.parameters()), random_spikes(), LABELS)
    with pytest.raises(ValueError, match=r"make one with learned=True, or call net.requires_grad_\(\)"):
        task(net)
    assert torch.equal(net(random_spikes()).output, recurrent()(random_spikes()).output)


def test_a_comparison_has_the_gradients_of_what_is_learned():
    net = recurrent(learned=False)
    with hx.Device(create_backend("reference")) as device:
        comparison = compare(net, None, device, random_spikes(), LOSS, LABELS)
        assert [*comparison.gradients] == ["layer0->layer0", "layer0->layer1"]
        assert not compare(frozen(), None, device, random_spikes(), LOSS, LABELS).gradients


# Masks


def zeroed(net):
    """Return a network without masks whose weights are zero where those of `net` are absent."""
    plain = recurrent()
    with torch.no_grad():
        for source, target in zip(net.projections, plain.projections, strict=True):
            target.synapses.weight.copy_(source.synapses.effective_weight)
    return plain


def masked():
    net = recurrent(mask=half(16, 20))
    net.set_mask("layer0->layer0", half(16, 16, seed=1))
    net.set_mask("layer0->layer1", half(3, 16, seed=2).int().numpy())
    return net


@pytest.mark.parametrize("device", DEVICES)
def test_a_masked_network_is_one_whose_absent_weights_are_zero(device):
    net = on(masked(), device)
    plain = on(zeroed(masked()), device)
    first = net(random_spikes())
    second = plain(random_spikes())
    assert first.layers[0].spikes.sum() > 5
    for a, b in zip(first.layers, second.layers, strict=True):
        assert torch.equal(a.trace, b.trace)
    expected = gradients(plain)
    actual = gradients(net)
    for projection, (name, grad) in zip(net.projections, actual.items(), strict=True):
        mask = projection.synapses.mask
        assert not grad[~mask].any()
        assert grad[mask].any()
        assert torch.equal(grad, torch.where(mask, expected[name], 0.0))
    for name, weight in sent_weights(net).items():
        assert torch.equal(weight, sent_weights(plain)[name])


def test_masks_touch_neither_the_drawn_weights_nor_those_of_others():
    net = masked()
    plain = recurrent()
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in plain.state_dict().items())
    net.stack[0].apply_mask()
    net.stack[3].mask = None
    net.stack[3].apply_mask()
    assert torch.equal(net.stack[0].weight, net.stack[0].effective_weight)
    assert torch.equal(net.stack[3].weight, plain.stack[3].weight)


def test_absent_weights_may_hold_anything():
    net = attached(masked(), preset="ideal")
    expected = net(random_spikes()).output
    limit = net.weight_limits()[0]
    with torch.no_grad():
        net.stack[0].weight[~net.stack[0].mask] = 100 * limit
        net.stack[3].weight[~net.stack[3].mask] = torch.nan
    net.attach(hx.Device(create_backend("emulator", preset="ideal")))
    assert torch.equal(net(random_spikes()).output, expected)
    assert clipped_shares(net)["input->layer0"] < 0.5
    assert all(bool(grad.isfinite().all()) for grad in gradients(net).values())


def test_an_automatic_scale_follows_the_largest_synapse_that_exists():
    net = hx.Network(hx.Linear(4, 3), hx.LIF(3), hx.Linear(3, 2, autoscale=True, max_scale=1e4), hx.LI(2))
    attached(net, preset="ideal")
    with torch.no_grad():
        net.stack[2].weight.copy_(torch.tensor([[0.9, 0.1, 0.0], [0.0, -0.3, 0.2]]))
    net.set_mask("layer0->layer1", torch.tensor([[0, 1, 1], [1, 1, 1]]))
    integers, scales = net.device.plan.quantise(net.effective_weights())
    assert scales[1] == pytest.approx(63 / 0.3)
    assert integers["layer0->layer1"].tolist() == [[0, 21, 0], [0, -63, 42]]


@pytest.mark.parametrize("loaded", ["state_dict", "deepcopy", "pickle", "file", "initial", "double"])
def test_masks_are_copied_saved_and_loaded(loaded, tmp_path):
    net = masked()
    assert sorted(net.state_dict()) == sorted(f"stack.{i}.{part}" for i in (0, 2, 3) for part in ("mask", "weight"))
    copied = recurrent()
    if loaded == "state_dict":
        copied.load_state_dict(net.state_dict())
    elif loaded == "file":
        take_weights(copied, net.state_dict(), Path("file"))
    elif loaded == "initial":
        torch.save(net.state_dict(), tmp_path / "weights.pt")
        load_weights(copied, tmp_path / "weights.pt")
    elif loaded == "double":
        copied = copy.deepcopy(net).double().float()
    else:
        copied = copy.deepcopy(net) if loaded == "deepcopy" else pickle.loads(pickle.dumps(net))
    for source, target in zip(net.projections, copied.projections, strict=True):
        assert target.synapses.mask.dtype == torch.bool
        assert torch.equal(source.synapses.mask, target.synapses.mask)
    assert torch.equal(net(random_spikes()).output, copied(random_spikes()).output)


def test_a_network_without_masks_keeps_the_names_of_its_weights():
    net = masked()
    for projection in net.projections:
        net.set_mask(projection.name, None)
    assert set(net.state_dict()) == {f"stack.{index}.weight" for index in (0, 2, 3)}
    weight = net.stack[0].weight
    assert net.effective_weights()[0] is weight


def test_training_leaves_absent_synapses_absent(tmp_path):
    net = hx.Network(hx.Linear(64, 20, gain=3, mask=half(20, 64)), hx.LIF(20), hx.Linear(20, 10), hx.LI(10))
    config = TrainerConfig(epochs=1, batch_size=50, progress=False, plots=False, train_samples=100, test_samples=50)
    previous = net.stack[0].weight.detach().clone()
    progress = Progress(show=False, console=Console(file=io.StringIO()))
    data = DataConfig("digits").load()
    Trainer(
        Task(net, hx.LatencyEncoder(), LOSS, {}, data, ImageAugmentation()), config, 0, tmp_path, {}, progress
    ).fit()
    changed = net.stack[0].weight.detach() != previous
    assert changed.any()
    assert not changed[~net.stack[0].mask].any()


REFUSED = {
    "shape": (lambda: hx.Linear(4, 3, mask=torch.ones(4, 3)), r"Linear: mask has the shape \(4, 3\), .* = \(3, 4\)"),
    "values": (lambda: hx.Recurrent(2, mask=[[0, 2], [1, 1]]), "Recurrent: mask has other values than 0 and 1"),
    "later": (lambda: setattr(hx.Linear(4, 3), "mask", torch.ones(3)), r"Linear: mask has the shape \(3,\)"),
    "name": (lambda: recurrent().set_mask("layer0", None), "projection='layer0' does not exist; choose one of input->"),
    "learned": (lambda: hx.Linear(4, 3, learned=1), "Linear: learned=1 must be True or False"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_masks_that_do_not_fit_are_refused_by_name(case):
    build, text = REFUSED[case]
    with pytest.raises(ValueError, match=text):
        build()


def test_a_mask_limits_the_gradient_as_stepwise_weights_do():
    """A linear function of all weights of the first layer has the gradient of the mask itself."""
    linear = hx.Linear(4, 3, mask=half(3, 4))
    linear.load_state_dict({"weight": torch.rand(3, 4), "mask": linear.mask})
    scale = torch.rand(3, 4)
    grad, = torch.autograd.grad((linear.effective_weight * scale).sum(), linear.weight)  # fmt: skip
    assert worst_relative([grad], [scale * linear.mask]) == 0.0


def test_inhibition_follows_its_strength_once_a_mask_is_lifted():
    inhibition = hx.LateralInhibition(4, 0.5, mask=torch.eye(4))
    net = hx.Network(hx.Linear(6, 4), hx.LIF(4), inhibition, hx.Linear(4, 3), hx.LI(3))
    Mask().apply(net)
    assert not inhibition.effective_weight.any()
    net.set_mask("layer0->layer0", None)
    assert torch.equal(inhibition.effective_weight, hx.LateralInhibition(4, 0.5).weight)
