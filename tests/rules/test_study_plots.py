"""Plots that fit a rule, and the learning window that is measured for one of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import hxtrain as hx
from hxtrain.commands.rule_plots import draw_rule_plots
from hxtrain.datasets import load_dataset
from hxtrain.objectives import SpikeCount
from hxtrain.plots.rules import TrainView, fields_figure, reward_figure, trains_figure, window_figure
from hxtrain.rules.window import LONGEST, learning_window
from hxtrain.training import Task, Trainer
from hxtrain.training.config import TrainerConfig

TAU = 8e-6


@dataclass
class Pairs(hx.LearningRule):
    """Pair rule over all pairs of a trial: exp(-d/tau) for an input before the neuron, -exp(d/tau)/2 after it."""

    needs: ClassVar[frozenset[hx.Need]] = frozenset({hx.Need.INPUT_SPIKES, hx.Need.SPIKES})
    is_local: ClassVar[bool] = True

    @torch.no_grad()
    def step(self, net: hx.Network, batch: hx.Batch) -> hx.Step:
        activity = net(batch.spikes, batch.masks)
        output = activity.layers[-1].times(net.dt)
        weight = net.projections[-1].synapses.weight
        weight.grad = torch.zeros_like(weight)
        for time, unit in zip(output.time.tolist(), output.unit.tolist(), strict=True):
            delays = time - batch.spikes.time
            changes = torch.where(delays >= 0, (-delays / TAU).exp(), -(delays / TAU).exp() / 2)
            weight.grad[unit].index_add_(0, batch.spikes.unit, -changes.to(weight.dtype))
        return hx.Step(activity, 0.0)


class Rewarded(Pairs):
    """The same, for a rule that reads a reward."""

    needs: ClassVar[frozenset[hx.Need]] = Pairs.needs | {hx.Need.REWARD, hx.Need.TARGETS}


def network(inputs: int = 64, outputs: int = 10) -> hx.Network:
    return hx.Network(hx.Linear(inputs, outputs, mean=0.02, gain=1.0), hx.LIF(outputs), steps=30)


@pytest.mark.parametrize("rule", [Pairs(), Rewarded()])
def test_the_window_of_a_pair_rule_is_that_of_its_definition(rule: hx.LearningRule) -> None:
    window = learning_window(rule, network())
    assert window is not None
    assert len(window.delays) == 2 * LONGEST + 1
    assert (window.delays.diff() > 0).all()
    delays = window.delays
    expected = torch.where(delays >= 0, (-delays / TAU).exp(), -(delays / TAU).exp() / 2)
    assert torch.allclose(window.changes, expected.float(), atol=1e-5)


def test_a_rule_of_a_loss_has_no_window() -> None:
    assert learning_window(hx.Backprop(), network()) is None


def test_homeostasis_does_not_move_the_window() -> None:
    plain, balanced = (learning_window(hx.STDP(homeostasis=share), network()) for share in (0.0, 0.5))
    assert plain is not None
    assert balanced is not None
    assert torch.equal(plain.changes, balanced.changes)


def trained(folder: Path, rule: hx.LearningRule, targets: hx.Spikes | None = None) -> Trainer:
    data = load_dataset("digits")
    data = replace(data, train=data.train[:40], test=data.test[:40], targets=targets)
    task = Task(network(), hx.LatencyEncoder(), SpikeCount(), {}, data, rule=rule)
    trainer = Trainer(task, TrainerConfig(epochs=1, progress=False), 0, folder, {}, hx.training.fitting.Progress(False))
    trainer.fit()
    return trainer


TARGETS = hx.Spikes.from_times(torch.linspace(1e-6, 4e-5, 100).reshape(10, 10))


@pytest.mark.parametrize(
    ("rule", "targets", "names"),
    [
        (hx.Backprop(), None, {"fields"}),
        (hx.Backprop(), TARGETS, {"fields", "trains"}),
        (Rewarded(), None, {"fields", "window", "reward"}),
    ],
    ids=["a gradient", "target trains", "a rule of reward"],
)
def test_plots_are_drawn_where_they_apply(
    tmp_path: Path, rule: hx.LearningRule, targets: hx.Spikes | None, names: set[str]
) -> None:
    draw_rule_plots(tmp_path / "plots", trained(tmp_path, rule, targets))
    files = {file.stem: file.read_bytes() for file in (tmp_path / "plots").iterdir()}
    assert set(files) == names
    assert all(content.startswith(b"\x89PNG") and len(content) > 4000 for content in files.values())


def test_fields_show_the_weights_of_a_neuron_in_its_place() -> None:
    weights = torch.arange(6.0).repeat(3, 1) + torch.tensor([[0.0], [10.0], [20.0]])
    (image,) = fields_figure(weights, (2, 3)).axes[0].images
    tiles = image.get_array()
    assert tiles[1:3, 5:8].tolist() == [[10, 11, 12], [13, 14, 15]]
    assert tiles[4:6, 1:4].tolist() == [[20, 21, 22], [23, 24, 25]]


def test_trains_show_output_and_targets_in_microseconds() -> None:
    view = TrainView("a", torch.tensor([1e-6]), torch.tensor([1]), torch.tensor([2e-6]), torch.tensor([0]), 2, 1e-5)
    targets, output = trains_figure([view]).axes[0].collections
    assert targets.get_offsets().tolist() == [[pytest.approx(2), 0]]
    assert output.get_offsets().tolist() == [[pytest.approx(1), 1]]


def test_a_window_is_drawn_on_both_sides() -> None:
    lines = window_figure(torch.tensor([-2e-6, 0.0, 1e-6]), torch.tensor([-1.0, 2.0, 1.0])).axes[0].lines[2:]
    assert [line.get_ydata().tolist() for line in lines] == [[2.0, 1.0], [-1.0]]


@pytest.mark.parametrize(("count", "lines"), [(3, 1), (50, 2)])
def test_many_rewards_have_a_running_mean(count: int, lines: int) -> None:
    drawn = reward_figure(list(range(count)), "episode").axes[0].lines
    assert len(drawn) == lines
    assert drawn[-1].get_ydata()[-1] == pytest.approx(count - 1 if lines == 1 else count - 10.5)


@pytest.mark.parametrize(
    "mistake",
    [lambda: fields_figure(torch.zeros(2, 5), (2, 3)), lambda: trains_figure([]), lambda: reward_figure([])],
)
def test_figures_of_nothing_are_refused(mistake: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"no images|no samples|no rewards"):
        mistake()
