"""Sequences of tasks: what each task shows, penalties that keep earlier ones, and runs that resume anywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import hxtrain as hx
from hxtrain.commands.evaluate import EvaluateConfig, evaluate_checkpoint
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import complete, run
from hxtrain.datasets import DataConfig, Dataset, DatasetError
from hxtrain.datasets.sequences import DriftTasks, PermutedTasks, SplitTasks, joint
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig, Write
from hxtrain.objectives import Burst, MeanOverTime, Regularizer, WeightDecay
from hxtrain.objectives.consolidation import (
    ElasticWeightConsolidation,
    Passes,
    SynapticIntelligence,
    fisher_information,
)
from hxtrain.objectives.heads import Heads
from hxtrain.objectives.online import Grid
from hxtrain.objectives.vote import Vote
from hxtrain.plots.continual import tasks_figure
from hxtrain.rules import Batch, LearningRule, Need, Objective, RuleError, Step, learn
from hxtrain.runs.checkpoint import load_checkpoint
from hxtrain.runs.progress import Warnings
from hxtrain.training.config import TrainerConfig
from hxtrain.training.forgetting import AccuracyMatrix
from hxtrain.training.sequence import SequenceTrainer

HESSIAN = torch.tensor([[2.0, 1.0, 0.5]])
NO_INPUT = hx.Spikes.from_events([0.0], [0], [0], samples=1, units=3)
START = torch.tensor([[1.0, -1.0, 1.5]])


@dataclass
class Quadratic(LearningRule):
    """Descent of `sum of h w^2 / 2`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.PENALTIES})
    tells_loss: ClassVar[bool] = True

    def step(self, net: hx.Network, batch: Batch) -> Step:
        """Leave `h w` in `.grad`."""
        weight = net.projections[0].synapses.weight
        gradient = HESSIAN * weight.detach()
        weight.grad = gradient.clone()
        return Step(self.activity, loss_of(weight), gradients=[gradient])

    @torch.no_grad()
    def prepare(self, net: hx.Network, objective: Objective | None = None) -> None:
        """Run a pass, whose activity matters for nothing."""
        super().prepare(net, objective)
        self.activity = net(NO_INPUT)


def loss_of(weight: Tensor) -> float:
    return float((HESSIAN * weight.detach().square()).sum() / 2)


@pytest.mark.parametrize("rate", [8e-2, 16e-2])
def test_importance_on_a_quadratic_is_half_its_curvature(rate: float) -> None:
    """The shares add up to the descent of the loss, and importance is h / 2, both up to the size of a step.

    For steps `dw = -r h w` both are `1 / (1 - r h / 2)` times what gradient flow gives.
    """
    net = hx.Network(hx.Linear(3, 1), hx.LI(1))
    weight = net.projections[0].synapses.weight
    with torch.no_grad():
        weight.copy_(START)
    penalty = SynapticIntelligence(strength=1.0, damping=1e-9)
    rule = Quadratic()
    rule.prepare(net, Objective(hx.MeanOverTime(), [penalty]))
    optimizer = torch.optim.SGD(net.parameters(), rate)
    for _ in range(round(16 / rate)):
        learn(net, rule, optimizer, Batch(NO_INPUT, torch.tensor([0])), [])
    descent = loss_of(START) - loss_of(weight)
    excess = 1 / (1 - rate * HESSIAN / 2)
    assert float((penalty.path[0] / excess).sum()) == pytest.approx(descent, rel=1e-4)
    assert float(penalty.path[0].sum()) == pytest.approx(descent, rel=rate)
    penalty.consolidate(net, None)  # type: ignore[arg-type] - it runs nothing
    torch.testing.assert_close(penalty.importance[0], HESSIAN / 2 * excess, rtol=3e-3, atol=0)
    penalty_there = float(penalty.penalty(None, [START]))  # type: ignore[arg-type] - it depends on weights alone
    assert penalty_there == pytest.approx(loss_of(START), rel=rate), "with a strength of 1 it is the old loss"


def test_a_task_may_lower_the_importance_but_not_below_nothing() -> None:
    """As in the authors' code, the sum over tasks is cut off at 0, not the part of each task."""
    net = hx.Network(hx.Linear(3, 1), hx.LI(1))
    weight = net.projections[0].synapses.weight
    penalty = SynapticIntelligence(damping=1.0)
    penalty.prepare(net)
    importance = []
    for gradient in (torch.tensor([[-4.0, 2.0, 0.0]]), torch.tensor([[2.0, -1.0, -1.0]])):
        with torch.no_grad():
            previous = weight.clone()
            weight += 1.0
        penalty.after_write(net, Write([previous], [weight.detach().clone()], [gradient]))
        penalty.consolidate(net, None)  # type: ignore[arg-type] - it runs nothing
        importance.append(penalty.importance[0])
    torch.testing.assert_close(importance[0], torch.tensor([[2.0, 0.0, 0.0]]))
    torch.testing.assert_close(importance[1], torch.tensor([[1.0, 0.5, 0.5]]))


def network(outputs: int = 10, **options: Any) -> hx.Network:
    torch.manual_seed(1)
    return hx.Network(hx.Linear(64, 20, gain=1.5), hx.LIF(20), hx.Linear(20, outputs), hx.LI(outputs), **options)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = hx.load_dataset("digits")
    return replace(data, train=data.train[:200], test=data.test[:100])


class Listener(SynapticIntelligence):
    """Keeps what it was told of the last step."""

    def after_write(self, net: hx.Network, write: Any) -> None:
        self.write = write


def test_the_gradient_of_the_loss_alone_is_told_and_the_step_stays_the_same(digits: Dataset) -> None:
    """Penalties of activity take a second backward pass through the same measured activity."""
    source = digits.source(digits.train, hx.LatencyEncoder())
    spikes = source.spikes(torch.arange(50))
    labels = digits.train.labels[:50]
    gradients: dict[str, list[Any]] = {}
    listener = Listener()
    penalties: dict[str, list[Regularizer]] = {
        "loss": [],
        "together": [Burst(0.1), WeightDecay(0.3)],
        "apart": [Burst(0.1), WeightDecay(0.3), listener],
    }
    for name, parts in penalties.items():
        net = network()
        rule = hx.Backprop()
        rule.prepare(net, Objective(hx.MaxOverTime(), parts))
        learn(net, rule, torch.optim.SGD(net.parameters(), 1e-3), Batch(spikes, labels))
        gradients[name] = [p.synapses.weight.grad for p in net.projections]
    assert not torch.allclose(gradients["together"][0], gradients["loss"][0], rtol=1e-2)
    for apart, together in zip(gradients["apart"], gradients["together"], strict=True):
        torch.testing.assert_close(apart, together)
    for measured, alone in zip(listener.write.gradients, gradients["loss"], strict=True):
        torch.testing.assert_close(measured, alone, rtol=0, atol=0)
    change = listener.write.current[0] - listener.write.previous[0]
    torch.testing.assert_close(change, -1e-3 * gradients["apart"][0], rtol=1e-2, atol=1e-6)


def test_a_penalty_that_reads_the_loss_needs_a_rule_that_tells_it(digits: Dataset) -> None:
    with pytest.raises(RuleError, match=r"rule=rtrl does not tell the gradient of the loss alone.*regularizer=ewc"):
        hx.fit(network(), digits, hx.RTRL(), penalties=[SynapticIntelligence()], tasks=PermutedTasks(2), progress=False)


def test_fisher_information_of_a_linear_readout_is_the_exact_one(digits: Dataset) -> None:
    """Without a hidden layer, logits are linear in the weights; the exact sum over labels is known."""
    net = hx.Network(hx.Linear(64, 3), hx.LI(3))
    loss = MeanOverTime(readout_scale=5.0)
    source = digits.source(digits.train[:12], hx.LatencyEncoder())
    passes = Passes(source, loss, torch.Generator().manual_seed(1))
    weight = net.projections[0].synapses.weight
    exact = torch.zeros_like(weight)
    logits = loss.logits(net(source.spikes(torch.arange(12))).output)
    logs = torch.log_softmax(logits, 1)
    for sample in range(12):
        for label in range(3):
            (gradient,) = torch.autograd.grad(logs[sample, label], weight, retain_graph=True)
            exact += logs[sample, label].exp().detach() * gradient.square() / 12
    draws = [fisher_information(net, passes, batch_size=12)[0] for _ in range(200)]
    mean = torch.stack(draws).mean(0)
    assert float((mean - exact).norm() / exact.norm()) < 0.15
    with pytest.raises(ValueError, match="regularizer=ewc: TimeToFirstSpike reads spike times"):
        fisher_information(net, passes._replace(loss=hx.TimeToFirstSpike()))


def test_the_penalty_of_several_tasks_is_the_sum_of_theirs_up_to_a_constant(digits: Dataset) -> None:
    net = network()
    source = digits.source(digits.train[:40], hx.LatencyEncoder())
    penalty = ElasticWeightConsolidation(strength=2.0, samples=40, batch_size=20)
    penalty.prepare(net)
    pairs = []
    for seed in range(2):
        passes = Passes(source, MeanOverTime(), torch.Generator().manual_seed(seed))
        copy = passes._replace(generator=torch.Generator().manual_seed(seed))
        penalty.consolidate(net, passes)
        weights = [w.detach().clone() for w in net.effective_weights()]
        pairs.append((fisher_information(net, copy, 40, 20), weights))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += 0.1 * torch.randn_like(parameter)

    def expected(weights: list[Tensor]) -> Tensor:
        parts = [
            (f * (w - end).square()).sum()
            for information, ends in pairs
            for f, w, end in zip(information, weights, ends, strict=True)
        ]
        return torch.stack(parts).sum()  # strength / 2 is 1

    points = [[w.detach() + delta for w in net.effective_weights()] for delta in (0.0, 0.2, -0.3)]
    differences = [2 * penalty.penalty(None, point) - expected(point) for point in points]  # type: ignore[arg-type]
    torch.testing.assert_close(differences[0].expand(2), torch.stack(differences[1:]), rtol=1e-3, atol=1e-5)
    assert float(expected(points[0])) > 1e-3


def test_only_the_neurons_of_the_task_count(digits: Dataset) -> None:
    net = network(6)
    loss = Heads(MeanOverTime(), 3)
    source = digits.source(digits.train, hx.LatencyEncoder())
    labels = torch.tensor([0, 1, 1, 0])
    activity = net(source.spikes(torch.arange(4)))
    loss.task = 1
    torch.testing.assert_close(loss.read(activity), activity.output[..., 2:4])
    assert (loss.outputs(2), loss.classes(6)) == (6, 2)
    loss(loss.read(activity), labels).backward()
    gradient = net.projections[1].synapses.weight.grad
    assert gradient is not None
    assert gradient[2:4].abs().sum() > 0
    assert gradient[[0, 1, 4, 5]].abs().sum() == 0
    loss.task = torch.tensor([2, 0, 1, 2])
    mixed = loss.read(activity)
    for sample, task in enumerate(loss.task):
        torch.testing.assert_close(mixed[:, sample], activity.output[:, sample, 2 * task : 2 * task + 2])
    grid = Grid(net.steps, net.dt)
    errors = loss.online(labels, 6, grid)
    assert errors is not None
    alone = MeanOverTime().online(labels, 2, grid)
    values = errors.observe(activity.output.detach(), True)
    torch.testing.assert_close(loss_view(values, loss.task), alone.observe(mixed.detach(), True))
    assert int((values != 0).any(0).sum()) == 2 * 4
    assert errors.loss() == pytest.approx(alone.loss())
    with pytest.raises(ValueError, match="scenario=task: Vote learns"):
        Heads(Vote(), 2).prepare(2)


def loss_view(values: Tensor, task: Tensor) -> Tensor:
    return torch.stack([values[:, sample, 2 * t : 2 * t + 2] for sample, t in enumerate(task.tolist())], 1)


def test_tasks_show_permuted_or_some_classes(digits: Dataset) -> None:
    permuted = PermutedTasks(3)
    first, second = (permuted.dataset(digits, number) for number in range(2))
    assert torch.equal(first.train.images, digits.train.images)
    order = permuted.order(64, 1)
    assert torch.equal(second.train.images.flatten(1), digits.train.images.flatten(1)[:, order])
    assert torch.equal(PermutedTasks(9).order(64, 1), order), "a longer sequence begins alike"
    assert not torch.equal(PermutedTasks(3, seed=1).order(64, 1), order)
    assert permuted.dataset(digits, 2).classes == digits.classes
    labelled = replace(permuted, scenario="class").dataset(digits, 2)
    assert (len(labelled.classes), labelled.classes[21]) == (30, "3: 1")
    assert int(labelled.test.labels.min()) == 20
    shared = SplitTasks().dataset(digits, 1)
    assert shared.classes == ("0/2/4/6/8", "1/3/5/7/9")
    assert torch.equal(shared.test.labels, digits.test.labels[(digits.test.labels // 2) == 1] - 2)
    apart = SplitTasks(scenario="class").dataset(digits, 1)
    assert apart.classes == digits.classes
    assert set(apart.train.labels.tolist()) == {2, 3}
    union = joint([SplitTasks().dataset(digits, number).train for number in range(5)])
    assert len(union) == len(digits.train)
    held_out = DataConfig("digits", validation=100).load()
    part = SplitTasks().dataset(held_out, 1)
    assert part.reserved is not None
    assert set(part.reserved.test.labels.tolist()) == {0, 1}
    with pytest.raises(DatasetError, match="count=3 does not divide the 10 classes"):
        SplitTasks(3).dataset(digits, 0)
    with pytest.raises(ValueError, match=r"tasks.scenario='domains' is not known"):
        SplitTasks(scenario="domains")
    with pytest.raises(ValueError, match=r"tasks.count=1 must be at least 2"):
        PermutedTasks(1)


def test_a_matrix_of_accuracies_tells_learning_and_forgetting() -> None:
    matrix = AccuracyMatrix([[0.9], [0.95, 0.8], [0.5, 0.7, 0.6]])
    assert matrix.mean == pytest.approx(0.6)
    assert matrix.learning == pytest.approx((0.9 + 0.8 + 0.6) / 3)
    assert matrix.backward_transfer == pytest.approx((0.5 - 0.9 + 0.7 - 0.8) / 2)
    assert matrix.forgetting == pytest.approx((0.95 - 0.5 + 0.8 - 0.7) / 2)
    assert matrix.table()[1][0] == ("task 1", "90.00", "", "", "90.00")
    alone = AccuracyMatrix([[0.9, 0.8, 0.7]])
    assert (alone.learning, alone.forgetting) == (None, None)
    numbers, curves = tasks_figure(matrix.rows).axes
    assert [text.get_text() for text in numbers.texts] == ["90", "95", "80", "50", "70", "60"]
    assert [float(line.get_ydata()[-1]) for line in curves.lines] == pytest.approx([50, 70, 60, 60])


def config(tasks: Any, **settings: Any) -> RunConfig:
    trainer = {"epochs": 2, "batch_size": 50, "train_samples": 100, "test_samples": 40, "progress": False}
    penalties = {"si": SynapticIntelligence(), "ewc": ElasticWeightConsolidation(samples=20), "decay": WeightDecay(0.1)}
    return RunConfig(
        backend=BackendConfig("emulator"),
        chip=ChipConfig(preset="ideal"),
        network=NetworkConfig([20], init_gain=1.5),
        regularizer=penalties,
        data=DataConfig("digits"),
        tasks=tasks,
        trainer=TrainerConfig(**{**trainer, "plots": False, "checkpoint_steps": 1, **settings}),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run(config(PermutedTasks(3)), folder, "test", Warnings())
    return folder


@pytest.mark.parametrize("place", [(0, 1), (2, 0), (2, 1), (4, 0)])
def test_a_run_resumes_within_and_between_tasks_to_the_very_same_weights(
    place: tuple[int, int], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends in a step: before the first one of a task, the penalties are consolidated already."""
    plain = SequenceTrainer._train_step

    def failing(self: SequenceTrainer, indices: Tensor) -> None:
        if (self.epoch, self.step) == place:
            raise KeyboardInterrupt
        plain(self, indices)

    settings = config(PermutedTasks(3))
    with monkeypatch.context() as patch:
        patch.setattr(SequenceTrainer, "_train_step", failing)
        with pytest.raises(KeyboardInterrupt):
            run(settings, tmp_path, "test", Warnings())
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert (state["epoch"], state["step"]) == place
    complete(settings, tmp_path, "test", Warnings())
    first, second = (load_checkpoint(folder / "checkpoint.pt") for folder in (whole, tmp_path))
    torch.testing.assert_close(second["model"], first["model"], rtol=0, atol=0)
    torch.testing.assert_close(second["penalties"], first["penalties"], rtol=0, atol=0)
    assert second["clock"] == first["clock"]
    assert [record["task_accuracies"] for record in second["records"]] == [
        record["task_accuracies"] for record in first["records"]
    ]


def test_a_result_has_the_matrix_and_an_evaluation_the_same_tasks(whole: Path, tmp_path: Path) -> None:
    result = complete(config(PermutedTasks(3)), whole, "test", Warnings())
    rows = result["accuracy_matrix"]
    assert [len(row) for row in rows] == [1, 2, 3]
    assert result["test_accuracy"] == result["mean_accuracy"] == pytest.approx(sum(rows[-1]) / 3)
    assert result["test_samples"] == 120
    assert result["epochs"] == 6
    settings = EvaluateConfig(str(whole / "checkpoint.pt"), test_samples=40, own_device=True)
    outcome = evaluate_checkpoint(settings, tmp_path, "test", Warnings())
    assert outcome["task_accuracies"] == rows[-1]
    assert outcome["test_accuracy"] == result["test_accuracy"]


@pytest.mark.parametrize("scenario", ["task", "class"])
def test_joint_training_sees_all_tasks_at_once(scenario: str, tmp_path: Path) -> None:
    settings = config(SplitTasks(scenario=scenario, joint=True), epochs=4, train_samples=200, test_samples=90)
    result = run(replace(settings, regularizer={}, backend=BackendConfig("software")), tmp_path, "test", Warnings())
    assert len(result["accuracy_matrix"]) == 1
    assert result["forgetting"] is None
    lowest = {"task": 0.9, "class": 0.6}
    assert min(result["task_accuracies"]) > lowest[scenario] - 0.25
    assert result["test_accuracy"] > lowest[scenario]


def test_the_optimiser_forgets_at_the_start_of_a_task_if_asked_to(tmp_path: Path) -> None:
    ends = []
    for reset in (True, False):
        tasks = PermutedTasks(2, reset_optimizer=reset)
        run(config(tasks, epochs=1), tmp_path / str(reset), "test", Warnings())
        state = load_checkpoint(tmp_path / str(reset) / "checkpoint.pt")
        ends.append([int(moments["step"]) for moments in state["optimizer"]["state"].values()])
    assert ends == [[2, 2], [4, 4]]


def test_an_earlier_task_is_evaluated_on_the_device_as_it_was(tmp_path: Path) -> None:
    """Weights that do not change give each state of the device its accuracy, whatever was trained since."""
    drift = ChipConfig(preset="ideal", changes={"drift_sd": 20.0, "drift_time": 3600.0})
    settings = replace(config(DriftTasks(3, pause=7200.0), learning_rate=1e-9), chip=drift, regularizer={})
    result = run(settings, tmp_path, "test", Warnings())
    rows = result["accuracy_matrix"]
    assert result["initial_accuracies"] == [None, rows[1][1], rows[2][2]]
    assert rows[2][:2] == rows[1]
    assert rows[1][0] == rows[0][0]
    assert len(set(rows[2])) > 1, "the device drifts"
    with pytest.raises(ValueError, match="tasks=drift needs a device"):
        run(replace(settings, backend=BackendConfig("software")), tmp_path / "software", "test", Warnings())


def test_settings_that_contradict_a_sequence_are_refused(digits: Dataset) -> None:
    with pytest.raises(ValueError, match=r"trainer.choose=best keeps one epoch"):
        hx.fit(network(), digits, tasks=PermutedTasks(2), choose="best", progress=False)
    net = hx.Network(hx.Linear(64, 4), hx.LIF(4))
    with pytest.raises(RuleError, match=r"tasks.scenario=task masks the readout.*rule=stdp"):
        hx.fit(net, digits, hx.STDP(), loss=hx.SpikeCount(), tasks=SplitTasks(2, scenario="task"), progress=False)
