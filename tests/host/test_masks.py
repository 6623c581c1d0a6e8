"""Masks: budgets, scores, Neural Tangent Transfer, and what a run does with them."""

import json
import math
from dataclasses import replace
from inspect import signature
from itertools import pairwise

import pytest
import torch

import hxtrain as hx
from hxtrain import masks
from hxtrain.commands.evaluate import EvaluateConfig, evaluate_checkpoint
from hxtrain.commands.masking import load_masks
from hxtrain.commands.prune import PruneConfig, prune_checkpoint
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig
from hxtrain.datasets.encoders import LatencyEncoder
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.masks import Budget, RateModel, select, transfer
from hxtrain.masks.budget import best_of_rows, free_rows
from hxtrain.masks.scores import active_sources, grasp, snip, synflow_masks
from hxtrain.masks.transfer import terms
from hxtrain.network import NetworkConfig
from hxtrain.rules.stdp import STDP
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig
from hxtrain.training.trainer import Trainer


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rate_model(*sizes, biases=True, seed=0):
    weights = [random(b, a, seed=seed + n) / math.sqrt(a) for n, (a, b) in enumerate(pairwise(sizes))]
    return RateModel(weights, [random(size, seed=seed + size) for size in sizes[1:]] if biases else None)


@pytest.fixture(scope="module")
def digits():
    return hx.load_dataset("digits")


def network(*sizes, **settings):
    return hx.Network(
        hx.Linear(sizes[0], sizes[1], gain=4),
        hx.LIF(sizes[1]),
        hx.Linear(sizes[1], sizes[2]),
        hx.LI(sizes[2]),
        **settings,
    )


# Budgets


def test_a_budget_per_neuron_takes_the_largest_scores_of_each():
    scores = random(7, 30)
    (mask,) = select([scores], Budget(fan_in=4))
    assert mask.sum(1).tolist() == [4] * 7
    for row, chosen in zip(scores, mask, strict=True):
        assert row[chosen].min() > row[~chosen].max()
    assert select([scores], Budget(fan_in=99))[0].all()


@pytest.mark.parametrize(("scope", "parts"), [("layer", 2), ("network", 1)])
def test_a_wider_scope_takes_the_largest_scores_in_it(scope, parts):
    scores = [random(6, 20), 3 * random(5, 8, seed=1)]
    chosen = select(scores, Budget(density=0.25, scope=scope))
    groups = [torch.cat([m.flatten() for m in chosen])] if parts == 1 else [m.flatten() for m in chosen]
    values = [torch.cat([s.flatten() for s in scores])] if parts == 1 else [s.flatten() for s in scores]
    for mask, value in zip(groups, values, strict=True):
        assert int(mask.sum()) == round(0.25 * len(mask))
        assert value[mask].min() > value[~mask].max()


@pytest.mark.parametrize("scope", ["layer", "network"])
def test_every_neuron_keeps_its_least_synapses(scope):
    scores = [random(6, 10), random(3, 6) / 100]  # without `least`, the second layer loses nearly all in a network
    chosen = select(scores, Budget(density=0.4, scope=scope, least=2))
    assert all(int(mask.sum(1).min()) >= 2 for mask in chosen)
    assert sum(int(mask.sum()) for mask in chosen) == 31
    assert all(
        bool(mask[row, values[row].argmax()])
        for mask, values in zip(chosen, scores, strict=True)
        for row in range(len(mask))
    )
    with pytest.raises(ValueError, match=r"mask\.least=4 of \d+ neurons exceed"):
        select(scores, Budget(density=0.3, scope=scope, least=4))
    with pytest.raises(ValueError, match=r"mask\.least=1: with mask\.scope=neuron"):
        Budget(fan_in=3, least=1)


def test_rows_are_used_at_most_once_per_neuron():
    scores = random(9, 25)
    (mask,) = select([scores], Budget(fan_in=6, rows=8))
    usage = torch.zeros(9, 8).index_add_(1, torch.arange(25) % 8, mask.float())
    assert usage.max() == 1
    assert mask.sum(1).tolist() == [6] * 9
    best = best_of_rows(scores, 8)
    assert torch.equal(best > -torch.inf, (best == scores))
    for neuron in range(9):  # no exchange within the rule raises the sum
        row_best = torch.stack([scores[neuron, row::8].max() for row in range(8)]).sort(descending=True).values
        assert scores[neuron][mask[neuron]].sum() == pytest.approx(float(row_best[:6].sum()))
    assert torch.equal(free_rows(mask, 8), ~(usage[:, torch.arange(25) % 8] > 0))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "give one of both"),
        ({"fan_in": 3, "density": 0.5}, "give one of both"),
        ({"density": 0.0}, r"mask\.density=0\.0 must be in 0 < x <= 1"),
        ({"fan_in": 3, "scope": "layer"}, r"mask\.scope=layer; set mask\.scope=neuron"),
        ({"fan_in": 3, "scope": "brain"}, "neuron, layer, network"),
        ({"fan_in": 9, "rows": 8}, r"give at least mask\.rows=9"),
    ],
)
def test_impossible_budgets_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        masks.RandomMask(**settings)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        select([torch.tensor([[1.0, math.nan]])], Budget(fan_in=1))
    with pytest.raises(ValueError, match=r"at most\s+mask.density=0.4"):
        select([random(3, 20)], Budget(density=0.5, rows=8))


# Rate models and Neural Tangent Transfer


def test_the_kernel_is_the_product_of_jacobians():
    model = rate_model(6, 9, 5, 3)
    first = random(4, 6, seed=8)
    second = random(5, 6, seed=9)
    parameters = [value.requires_grad_() for value in [*model.weights, *model.biases]]
    rows = [
        torch.cat([part.flatten() for part in torch.autograd.grad(output, parameters, retain_graph=True)])
        for inputs in (first, second)
        for output in model.outputs(inputs).flatten()
    ]
    expected = (torch.stack(rows[:12]) @ torch.stack(rows[12:]).t()).view(4, 3, 5, 3)
    assert torch.allclose(model.kernel(first, second), expected, atol=1e-5, rtol=1e-5)
    square = model.kernel(first, first).detach().reshape(12, 12)
    assert torch.allclose(square, square.t(), atol=1e-6)
    assert torch.linalg.eigvalsh(square.double()).min() > -1e-5


def test_a_student_that_is_its_teacher_has_no_distance():
    model = rate_model(6, 9, 3)
    parts = terms(model, model, random(8, 6))
    assert float(parts.kernel) == float(parts.output) == 0
    assert float(parts.weights) == pytest.approx(sum(float(v.square().sum()) for v in model.weights))


def test_transfer_reads_no_labels_and_halves_the_distance(digits):
    assert "label" not in " ".join(signature(transfer).parameters)
    teacher = rate_model(64, 60, 10, biases=False)
    original = [weight.clone() for weight in teacher.weights]
    inputs = digits.train.samples[:400].flatten(1).float() / digits.train.samples.max()
    budget = Budget(density=0.1, scope="layer")
    result = transfer(
        teacher,
        inputs,
        lambda weights: select([weight.abs() for weight in weights], budget),
        steps=150,
        interval=50,
        batch_size=32,
        learning_rate=5e-3,
        decay=1e-6,
        generator=torch.Generator().manual_seed(0),
    )
    assert result.distance < result.distance_at_start / 2
    assert all(torch.equal(old, new) for old, new in zip(original, teacher.weights, strict=True))
    for mask, weight in zip(result.masks, result.student.weights, strict=True):
        assert int(mask.sum()) == round(0.1 * mask.numel())
        assert not weight[~mask].any()
    with pytest.raises(ValueError, match="two halves"):
        transfer(teacher, inputs[:1], lambda weights: [], generator=torch.Generator())


# Scores


def test_snip_is_the_gradient_of_a_factor_on_each_weight(digits):
    net = network(64, 12, 10, steps=20, seed=1)
    source = digits.source(digits.train, LatencyEncoder())
    batch = torch.arange(10)
    loss = hx.MaxOverTime()
    scores = snip(net, source, loss, [batch])
    activity = net(source.spikes(batch))
    loss(activity.output, source.labels[batch]).backward()
    for projection, score in zip(net.projections, scores, strict=True):
        weight = projection.synapses.weight
        assert torch.allclose(score, (weight * weight.grad).abs(), atol=1e-9)
        assert score.max() > 0
    halves = snip(net, source, loss, [batch[:5], batch[5:]])
    assert torch.allclose(halves[0], scores[0], atol=1e-6)
    with pytest.raises(ValueError, match="reads spike times"):
        snip(net, source, hx.TimeToFirstSpike(), [batch])


def test_active_sources_are_those_that_fire(digits):
    net = network(64, 12, 10, steps=20, seed=1)
    source = digits.source(digits.train, LatencyEncoder())
    fired = active_sources(net, source, [torch.arange(20), torch.arange(20, 40)])
    arrived = torch.zeros(64, dtype=torch.bool)
    arrived[source.spikes(torch.arange(40)).unit] = True
    assert torch.equal(fired[0], arrived)
    assert 0 < int(fired[0].sum()) < 64
    assert torch.equal(fired[1], net(source.spikes(torch.arange(40))).layers[0].counts.sum(0) > 0)


def test_grasp_is_the_derivative_of_the_gradient_flow():
    model = rate_model(6, 8, 3, biases=False)
    model = replace_weights(model, [weight.double() for weight in model.weights])
    inputs = random(20, 6).double()
    labels = torch.arange(20) % 3
    scores = grasp(model, inputs, labels, temperature=1.0)

    def flow(weights):
        leaves = [weight.requires_grad_() for weight in weights]
        loss = torch.nn.functional.cross_entropy(model._replace(weights=leaves).outputs(inputs), labels)
        return sum(g.square().sum() for g in torch.autograd.grad(loss, leaves)) / 2

    for layer, (row, column) in ((0, (3, 2)), (1, (1, 4))):
        step = torch.zeros_like(model.weights[layer])
        step[row, column] = 1e-5
        ends = [
            flow([w + sign * step if n == layer else w.clone() for n, w in enumerate(model.weights)])
            for sign in (1, -1)
        ]
        slope = float(ends[0] - ends[1]) / 2e-5
        assert float(scores[layer][row, column]) == pytest.approx(
            float(model.weights[layer][row, column]) * slope, rel=1e-4
        )


def replace_weights(model, weights):
    return model._replace(weights=weights)


def test_synaptic_flow_leaves_no_layer_empty():
    model = rate_model(30, 40, 40, 5, biases=False)
    model = replace_weights(model, [model.weights[0], model.weights[1] * 1e-3, model.weights[2]])
    budget = Budget(density=0.02, scope="network")
    flow = synflow_masks(model, [budget] * 3)
    total = sum(weight.numel() for weight in model.weights)
    assert sum(int(mask.sum()) for mask in flow) == round(0.02 * total)
    assert all(mask.any() for mask in flow)
    assert not select([weight.abs() for weight in model.weights], budget)[1].any()  # magnitudes empty it
    per_neuron = synflow_masks(model, [Budget(fan_in=7)] * 3, iterations=10)
    assert all(mask.sum(1).tolist() == [7] * len(mask) for mask in per_neuron)


# Methods and runs

METHODS = {
    "random": masks.RandomMask,
    "active": masks.ActiveMask,
    "magnitude": masks.MagnitudeMask,
    "snip": masks.SnipMask,
    "grasp": masks.GraspMask,
    "synflow": masks.SynFlowMask,
    "ntt": lambda **settings: masks.TransferMask(iterations=4, interval=2, **settings),
    "rigl": masks.RigLMask,
    "deep_r": masks.DeepRMask,
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_its_budget_and_is_reproducible(name, digits):
    assert {*METHODS, "none"} == set(masks.MASKS.points())
    chosen = []
    for _ in range(2):
        net = network(64, 12, 10, steps=20, seed=1)
        drawn = net.layers[0].linear.weight.detach().clone()
        method = METHODS[name](fan_in=6, rows=32)
        chosen.append(masks.prune(net, method, digits.source(digits.train, LatencyEncoder()), seed=3))
        assert list(chosen[-1]) == ["input->layer0"]
        synapses = net.layers[0].linear
        assert synapses.mask.sum(1).tolist() == [6] * 12
        assert int(torch.zeros(12, 32).index_add_(1, torch.arange(64) % 32, synapses.mask.float()).max()) == 1
        assert net.layers[1].linear.mask is None
        if name != "ntt":
            expected = torch.where(synapses.mask, drawn * math.sqrt(64 / 6), 0.0)
            assert torch.allclose(synapses.weight, expected)
    assert torch.equal(*(masks_of["input->layer0"] for masks_of in chosen))


def test_a_transfer_gives_the_network_the_weights_of_all_layers(digits):
    net = network(64, 12, 10, steps=20, seed=1)
    drawn = net.layers[1].linear.weight.detach().clone()
    method = masks.TransferMask(fan_in=6, iterations=10, interval=5, student_learning_rate=1e-2)
    masks.prune(net, method, digits.source(digits.train, LatencyEncoder()))
    assert net.layers[1].linear.mask is None
    assert not torch.allclose(net.layers[1].linear.weight, drawn)  # the student's outputs need its readout


@pytest.mark.parametrize(
    ("method", "setting", "value"),
    [
        (masks.SnipMask, "batches", 0),
        (masks.GraspMask, "batches", -1),
        (masks.ActiveMask, "batches", 0),
        (masks.SynFlowMask, "iterations", 0),
        (masks.TransferMask, "iterations", 0),
        (masks.TransferMask, "interval", 0),
        (masks.TransferMask, "student_learning_rate", 0.0),
        (masks.TransferMask, "decay", -1.0),
    ],
)
def test_settings_without_meaning_are_refused(method, setting, value):
    with pytest.raises(ValueError, match=rf"mask\.{setting}={value}.* must"):
        method(fan_in=3, **{setting: value})


def test_methods_refuse_what_they_cannot_mask(digits):
    source = digits.source(digits.train, LatencyEncoder())
    net = network(64, 12, 10, steps=20)
    with pytest.raises(ValueError, match=r"choose from input->layer0, layer0->layer1"):
        masks.prune(net, masks.RandomMask(fan_in=3, projections=["layer9"]), source)
    with pytest.raises(ValueError, match=r"at most mask\.batches=25"):
        masks.prune(net, masks.SnipMask(fan_in=3, batches=26), source)
    loop = hx.Network(hx.Linear(64, 9), hx.LIF(9), hx.Recurrent(9), hx.Linear(9, 10), hx.LI(10), steps=20)
    with pytest.raises(ValueError, match=r"layer0->layer0 is recurrent"):
        masks.prune(loop, masks.SynFlowMask(fan_in=3), source)
    with pytest.raises(ValueError, match="another number"):
        masks.prune(network(65, 12, 10), masks.GraspMask(fan_in=3), source)


def settings(folder, mask, **trainer):
    return RunConfig(
        backend=BackendConfig("emulator"),
        chip=ChipConfig(preset="ideal"),
        network=NetworkConfig(hidden=[20], steps=20),
        mask=mask,
        data=DataConfig("digits"),
        trainer=TrainerConfig(
            **{"epochs": 2, "train_samples": 150, "test_samples": 50, "progress": False, "plots": False, **trainer}
        ),
    )


@pytest.mark.parametrize(
    "mask", [masks.SnipMask(fan_in=6), masks.DeepRMask(fan_in=6), masks.RigLMask(fan_in=6, interval=1)]
)
def test_a_resumed_run_has_the_masks_of_its_checkpoint(mask, tmp_path):
    whole = run(settings(tmp_path, mask), tmp_path / "whole")
    assert whole["densities"] == {"input->layer0": 6 / 64, "layer0->layer1": 1.0}
    with pytest.MonkeyPatch.context() as patch:
        finish = Trainer._finish_epoch

        def stop(trainer):
            finish(trainer)
            raise KeyboardInterrupt

        patch.setattr(Trainer, "_finish_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run(settings(tmp_path, mask), tmp_path / "parts")
    config = settings(tmp_path, mask, resume=True)
    parts = run(config, tmp_path / "parts")
    first = torch.load(tmp_path / "whole/checkpoint.pt", weights_only=True)["model"]
    second = torch.load(tmp_path / "parts/checkpoint.pt", weights_only=True)["model"]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert parts["test_accuracy"] == whole["test_accuracy"]
    assert json.loads((tmp_path / "parts/result.json").read_text())["settings"]["mask.fan_in"] == 6
    assert hx.load(tmp_path / "parts").net.layers[0].linear.mask.sum(1).tolist() == [6] * 20


def test_masks_of_a_damaged_checkpoint_are_refused(tmp_path):
    run(settings(tmp_path, masks.RandomMask(fan_in=6), epochs=1), tmp_path / "run")
    with pytest.raises(CheckpointError, match="shape"):
        load_masks(network(64, 12, 10), tmp_path / "run/checkpoint.pt")


def test_rules_without_penalties_refuse_the_penalty_of_rewiring(tmp_path):
    config = replace(settings(tmp_path, masks.DeepRMask(fan_in=6)), rule=STDP())
    config.network.output = "spikes"
    config.loss = hx.SpikeCount()
    with pytest.raises(ValueError, match=r"set mask\.strength=0"):
        run(config, tmp_path / "run")


def test_a_pruned_network_is_a_checkpoint_like_any(tmp_path):
    run(settings(tmp_path, masks.NoMask(), epochs=1), tmp_path / "run")
    chip = ChipConfig(preset="ideal")
    config = PruneConfig(
        str(tmp_path / "run/checkpoint.pt"), chip=chip, mask=masks.MagnitudeMask(fan_in=9), test_samples=50
    )
    (tmp_path / "pruned").mkdir()
    outcome = prune_checkpoint(config, tmp_path / "pruned", "", Progress(False))
    file = tmp_path / "pruned/checkpoint.pt"
    dense = hx.load(tmp_path / "run").net.layers[0].linear
    sparse = hx.load(file).net.layers[0].linear
    assert outcome["densities"]["input->layer0"] == 9 / 64
    assert torch.equal(sparse.mask, select([dense.weight.abs()], Budget(fan_in=9))[0])
    assert torch.equal(sparse.weight, torch.where(sparse.mask, dense.weight, 0.0))  # trained weights are not rescaled
    evaluation = evaluate_checkpoint(
        EvaluateConfig(str(file), chip=chip, test_samples=50), tmp_path / "pruned", "", Progress(False)
    )
    assert evaluation["test_accuracy"] == pytest.approx(outcome["test_accuracy"], abs=0.05)
    tuned = run(settings(tmp_path, masks.NoMask(), epochs=1, initial=str(file)), tmp_path / "tuned")
    assert tuned["densities"]["input->layer0"] == 9 / 64
    with pytest.raises(CheckpointError, match=r"holds a checkpoint\.pt already"):
        prune_checkpoint(config, tmp_path / "pruned", "", Progress(False))
    with pytest.raises(ValueError, match="mask=none removes nothing"):
        replace(config, mask=masks.NoMask())
