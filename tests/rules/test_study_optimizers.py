"""Optimisers of learning rules, against steps written by hand, and the optimiser that goes with a rule."""

import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hydra import compose, initialize_config_module
from rich.console import Console
from torch import Tensor

import hxtrain as hx
from hxtrain.commands.settings import RunConfig
from hxtrain.datasets import load_dataset
from hxtrain.experiments.schema import register
from hxtrain.objectives import MaxOverTime
from hxtrain.rules import OPTIMIZERS, RULES, SGD, Adam, Optimizer, QuickProp, RMaxProp, RProp, SpikePropAd, SpikePropR
from hxtrain.rules.default import default_optimizer, optimizer_warnings
from hxtrain.runs.progress import Progress
from hxtrain.training import Task, Trainer
from hxtrain.training.config import TrainerConfig

Steps = Callable[[list[float], float], Iterable[float]]
"""Changes of a weight by hand, from its gradients and the learning rate."""


def rprop(gradients: list[float], rate: float) -> Iterable[float]:
    width = rate
    previous = 0.0
    for gradient in gradients:
        if gradient * previous > 0:
            width = min(width * 1.3, 0.05)
        elif gradient * previous < 0:
            width = max(width * 0.5, 1e-6)
            gradient = 0.0
        yield -math.copysign(width, gradient) if gradient else 0.0
        previous = gradient


def quickprop(gradients: list[float], rate: float) -> Iterable[float]:
    change = previous = 0.0
    for gradient in gradients:
        step = 0.0
        if change == 0 or (gradient > 0) == (change < 0):
            step -= rate * gradient
        if change != 0:
            slope, last_slope = (-value if change > 0 else value for value in (gradient, previous))
            if slope >= 1.75 / 2.75 * last_slope:
                step += 1.75 * change
            else:
                step += change * gradient / (previous - gradient)
        yield step
        change, previous = step, gradient


def rmaxprop(gradients: list[float], rate: float) -> Iterable[float]:
    largest = 0.0
    for gradient in gradients:
        largest = max(0.9 * largest, gradient**2)
        yield -rate * gradient / (math.sqrt(largest) + 1e-12)


BY_HAND: list[tuple[Optimizer, Steps]] = [
    (RProp([0.5, 1.3], [1e-6, 0.05]), rprop),
    (QuickProp(), quickprop),
    (RMaxProp(decay=0.9), rmaxprop),
]


@pytest.mark.parametrize(("settings", "steps"), BY_HAND, ids=lambda value: getattr(value, "__name__", ""))
def test_an_optimizer_makes_the_steps_of_its_definition(settings: Optimizer, steps: Steps) -> None:
    gradients = torch.randn(30, 4, 3, dtype=torch.float64).round(decimals=1)  # some are zero, some repeat
    weight = torch.nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
    optimizer = settings.build([weight], 0.02)
    changes = []
    for gradient in gradients:
        previous = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        changes.append(weight.detach() - previous)
    expected = [list(steps(column.tolist(), 0.02)) for column in gradients.flatten(1).t()]
    assert torch.allclose(torch.stack(changes).flatten(1).t(), torch.tensor(expected, dtype=torch.float64), atol=1e-12)


def linear_problem(settings: Optimizer, rate: float, steps: int, noise: float = 0.0) -> tuple[Tensor, list[float]]:
    """Fit a linear map; returns the distance of the weights from the solution, and the loss, at each step."""
    inputs = torch.randn(6, 9, dtype=torch.float64)
    solution = torch.randn(9, 2, dtype=torch.float64)
    weight = torch.nn.Parameter(torch.zeros(9, 2, dtype=torch.float64))
    optimizer = settings.build([weight], rate)
    distances = []
    losses = []
    for _ in range(steps):
        disturbance = noise * torch.randn(6, 2, dtype=torch.float64)
        optimizer.zero_grad()
        loss = (inputs @ (weight - solution) + disturbance).square().sum() / 2
        loss.backward()
        distances.append(float((weight.detach() - solution).norm()))
        losses.append(float(loss.detach()))
        optimizer.step(lambda loss=losses[-1]: loss)
    return torch.tensor(distances, dtype=torch.float64), losses


@pytest.mark.parametrize("rate", [0.2, 1.0, 1.9])
def test_an_error_step_brings_the_weights_nearer_to_the_solution(rate: float) -> None:
    distances, losses = linear_problem(SpikePropAd(), rate, 200)
    assert (distances.diff() <= 1e-12).all()
    assert losses[-1] < 1e-3 * losses[0]


def test_an_error_step_has_the_derived_length() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    for settings, bound in ((SpikePropAd(), 0.0), (SpikePropR(0.5), 0.5), (SpikePropR(3.0), 3.0)):
        optimizer = settings.build(weights, 0.2)
        for weight, gradient in zip(weights, ([3.0, 0.0], [4.0]), strict=True):
            weight.data.zero_()
            weight.grad = torch.tensor(gradient)
        optimizer.step(lambda: 2.0)  # an error of 2
        rate = 0.2 * 2 * max(2 - bound, 0) / 25
        assert weights[0].tolist() == pytest.approx([-3 * rate, 0])
        assert weights[1].tolist() == pytest.approx([-4 * rate])


def test_small_errors_make_no_step_beyond_the_bound() -> None:
    size = math.sqrt(12) * 0.01  # of the disturbance of 12 errors
    plain, _ = linear_problem(SpikePropAd(), 0.5, 500, noise=0.01)
    robust, _ = linear_problem(SpikePropR(2 * size), 0.5, 500, noise=0.01)
    moves = [int((distances[-100:].diff() != 0).sum()) for distances in (plain, robust)]
    assert moves[0] > 95
    assert moves[1] < 5  # disturbances of more than twice their usual size


@pytest.mark.parametrize(
    ("mistake", "kind", "text"),
    [
        (lambda: SpikePropAd().build([torch.zeros(1)], 2.0), ValueError, "learning_rate=2.0 must be in 0 < x < 2"),
        (lambda: SpikePropAd().build([torch.zeros(1)], 0.2).step(), TypeError, "needs the loss"),
        (lambda: SpikePropAd().build([torch.zeros(1)], 0.2).step(lambda: -1.0), ValueError, "the loss is -1.0"),
        (lambda: SpikePropR(-1.0), ValueError, "optimizer.bound=-1.0 must be finite and not negative"),
        (lambda: RProp([1.5, 0.5]), ValueError, r"optimizer.etas=\[1.5, 0.5\] must be two numbers"),
        (lambda: RProp(step_sizes=[1.0, 0.1]), ValueError, r"optimizer.step_sizes=\[1.0, 0.1\] must be two positive"),
        (lambda: QuickProp(0.0), ValueError, "optimizer.growth=0.0 must be positive"),
        (lambda: RMaxProp(1.5), ValueError, r"optimizer.decay=1.5 must be in 0..1"),
        (lambda: RMaxProp(eps=0.0), ValueError, "optimizer.eps=0.0 must be positive"),
    ],
)
def test_mistakes_are_refused(mistake: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        mistake()


def task(optimizer: Optimizer | None, rule: hx.LearningRule | None = None) -> Task:
    data = load_dataset("digits")
    data = replace(data, train=data.train[:120], test=data.test[:20])
    net = hx.Network(hx.Linear(64, 20, mean=1e-3, gain=1.4), hx.LIF(20), hx.Linear(20, 10), hx.LI(10), seed=1)
    return Task(net, hx.LatencyEncoder(), MaxOverTime(), {}, data, rule=rule or hx.Backprop(), optimizer=optimizer)


def train(
    folder: Path, settings: Optimizer | None, epochs: int, resume: bool = False, rule: hx.LearningRule | None = None
) -> Trainer:
    config = TrainerConfig(epochs=epochs, batch_size=40, learning_rate=0.01, resume=resume, progress=False)
    quiet = Progress(False, Console(file=io.StringIO()))
    trainer = Trainer(task(settings, rule), config, 0, folder, {}, quiet)
    trainer.fit()
    return trainer


@pytest.mark.parametrize("settings", [kind() for _, kind in OPTIMIZERS.items()], ids=lambda x: type(x).__name__)
def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path, settings: Optimizer) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = train(tmp_path / "whole", settings, 2)
    train(tmp_path / "parts", settings, 1)
    parts = train(tmp_path / "parts", settings, 2, resume=True)
    assert whole.records[0]["train_loss"] > whole.records[1]["train_loss"]
    for first, second in zip(whole.task.net.parameters(), parts.task.net.parameters(), strict=True):
        assert torch.equal(first, second)


@dataclass
class Local(hx.LearningRule):
    """Local rule: the weights of the readout grow with the counts upstream."""

    needs: ClassVar[frozenset[hx.Need]] = frozenset({hx.Need.SPIKES, hx.Need.TARGETS})
    is_local: ClassVar[bool] = True

    @torch.no_grad()
    def step(self, net: hx.Network, batch: hx.Batch) -> hx.Step:
        activity = net(batch.spikes, batch.masks)
        classes = torch.nn.functional.one_hot(batch.labels, 10).float()
        net.projections[-1].synapses.weight.grad = -(classes - 0.1).t() @ activity.layers[0].counts / len(classes)
        return hx.Step(activity, 0.0)


class Named(Local):
    """Local rule that names its optimiser."""

    optimizer: ClassVar[str] = "rmaxprop"


def register_for_a_test(monkeypatch: pytest.MonkeyPatch, name: str, rule: type[hx.LearningRule]) -> None:
    for names in (RULES._added, RULES._loaded):
        monkeypatch.setitem(names, name, rule)


@pytest.mark.parametrize(("rule", "kind"), [(hx.Backprop(), Adam), (Local(), SGD), (Named(), RMaxProp)])
def test_a_rule_brings_its_optimizer_unless_another_is_chosen(
    rule: hx.LearningRule, kind: type[Optimizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_for_a_test(monkeypatch, "toy", type(rule))
    assert type(default_optimizer(rule)) is kind
    assert type(RunConfig(rule=rule).optimizer) is kind
    assert RunConfig(rule=rule, optimizer=QuickProp()).optimizer == QuickProp()
    built = type(kind().build([torch.zeros(1)], 0.1))
    assert type(train(tmp_path, None, 1, rule=rule).optimizer) is built


def test_an_adaptive_optimizer_of_a_local_rule_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_for_a_test(monkeypatch, "toy", Local)
    remarks = train(tmp_path, Adam(), 2, rule=Local()).progress.remarks
    assert [text.partition(": ")[2] for text in remarks if "optimizer=" in text] == [
        "optimizer=adam chooses steps of its own, so that the weights do not change as rule=toy says: leave it out, or "
        "choose optimizer=sgd"
    ]
    assert optimizer_warnings(Local(), SGD(momentum=0.9)) == optimizer_warnings(hx.Backprop(), Adam()) == []
    assert optimizer_warnings(Named(), RMaxProp()) == []


def test_the_command_line_takes_the_optimizer_of_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    register_for_a_test(monkeypatch, "toy_local", Local)
    register()
    words = [[], ["rule=toy_local"], ["rule=toy_local", "optimizer=adam"], ["experiment=digits", "rule=toy_local"]]
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        chosen = [set(compose("train", part).optimizer) for part in words]
    sgd, adam = ({"momentum", "nesterov"}, {"betas", "eps"})
    assert chosen == [adam, sgd, adam, sgd]
