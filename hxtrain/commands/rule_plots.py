"""Plots of a finished run that fit its rule and its data; each is drawn where it applies."""

from __future__ import annotations

from pathlib import Path

import torch

from hxtrain.backends import Spikes
from hxtrain.datasets import ImageSource
from hxtrain.plots import rules as plots
from hxtrain.plots import style
from hxtrain.rules import Need, correctness
from hxtrain.rules.window import learning_window
from hxtrain.training.trainer import Trainer


def draw_rule_plots(folder: Path, trainer: Trainer) -> None:
    """Draw weights as images, output spikes beside target trains, the learning window and the reward.

    Args:
        folder: Folder of the PNGs `fields`, `trains`, `window` and `reward`.
        trainer: Trainer after its last epoch.
    """
    _fields(folder, trainer)
    _trains(folder, trainer)
    window = learning_window(trainer.task.rule, trainer.task.net)
    if window is not None:
        style.save(plots.window_figure(window.delays, window.changes), folder / "window.png")
    rule = trainer.rule
    if Need.REWARD in rule.needs and rule.objective.reward is correctness:
        style.save(plots.reward_figure([r["train_accuracy"] for r in trainer.records]), folder / "reward.png")


def _fields(folder: Path, trainer: Trainer) -> None:
    """Draw the weights of the first projection, if each input is a pixel of an image."""
    source = trainer.train_source
    first = trainer.task.net.projections[0]
    if not isinstance(source, ImageSource) or len(source.split.shape) != 2:
        return
    height, width = source.split.shape
    if source.units == height * width == first.synapses.weight.shape[1]:
        weights = first.synapses.effective_weight.detach()
        style.save(plots.fields_figure(weights, (height, width)), folder / "fields.png")


@torch.no_grad()
def _trains(folder: Path, trainer: Trainer) -> None:
    """Draw the output of the first test sample of each class beside the target train of its class."""
    task = trainer.task
    targets = task.data.targets
    if targets is None or task.net.output_kind != "spikes":
        return
    labels = trainer.test.labels
    classes = [label for label in range(len(task.data.classes)) if (labels == label).any()][: plots.MOST_TRAINS]
    indices = torch.tensor([int((labels == label).nonzero()[0]) for label in classes])
    output = task.net(trainer.test_source.spikes(indices)).layers[-1].times(task.net.dt)
    window = task.net.steps * task.net.dt
    views = [
        plots.TrainView(
            f"class {task.data.classes[label]}",
            *_train(output, number, window),
            *_train(targets, label, window),
            task.net.layers[-1].neurons.size,
            window,
        )
        for number, label in enumerate(classes)
    ]
    style.save(plots.trains_figure(views), folder / "trains.png")


def _train(spikes: Spikes, sample: int, window: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return times and units of the spikes of a sample within the recorded window."""
    selection = (spikes.sample == sample) & (spikes.time < window)
    return spikes.time[selection], spikes.unit[selection]
