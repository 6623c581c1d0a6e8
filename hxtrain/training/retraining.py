"""Training on all training samples, once an epoch is chosen on held out ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hxtrain.datasets import Dataset
from hxtrain.runs.checkpoint import load_checkpoint

from .config import LAST
from .evaluation import Evaluation
from .loop import CHECKPOINT
from .selection import Snapshot
from .trainer import Trainer

FOLDER = "retraining"
"""Folder of the second training in a run directory."""
HELD_OUT = {"data.validation": 0, "data.validation_groups": [], "data.validation_random_groups": 0}
"""Settings that hold out samples, with the values that hold out none."""


def train(trainer: Trainer) -> Evaluation:
    """Run a training, and repeat it on all training samples if `retrain` asks for it; see `Trainer.fit`."""
    if trainer.config.retrain and not trainer.config.resume and trainer.folder is not None and trainer.team.leads:
        (trainer.folder / FOLDER / CHECKPOINT).unlink(missing_ok=True)  # of a previous run, from other weights
    evaluation = trainer.fit()
    selection = trainer.selection
    if not trainer.config.retrain:
        return evaluation
    if selection.retrained is None or selection.test is None or selection.tested_epochs != trainer.epoch:
        task = trainer.task
        second = Retraining(trainer)
        test = second.fit()
        selection.retrained = Snapshot.of(task.net, task.loss)
        selection.retrained_records = second.records
        trainer.conclude(test)
        return test
    selection.retrained.restore(trainer.task.net, trainer.task.loss, trainer.place)
    return selection.test


def steps_done(trainer: Trainer) -> int:
    """Return the number of steps that a training has done, with those of its repetition that a checkpoint has."""
    steps = trainer.steps_done
    reserved = trainer.task.data.reserved
    is_repeated = trainer.config.retrain and trainer.config.resume and trainer.epoch == trainer.epochs
    if not is_repeated or trainer.folder is None or reserved is None:
        return steps
    file = trainer.folder / FOLDER / CHECKPOINT
    if not file.exists():
        return steps
    state = load_checkpoint(file)
    samples = trainer.config.train_samples or len(reserved.train)
    return steps + int(state.get("epoch", 0)) * -(-samples // trainer.config.batch_size) + int(state.get("step", 0))


class Retraining(Trainer):
    """Trains from the same initial weights on all training samples, for as many epochs as were chosen.

    The learning rate of an epoch is that of the first training. The test samples are evaluated once, after the last
    epoch; earlier records have no accuracy of them.

    Args:
        first: Training that chose the epoch, after its end.
    """

    def __init__(self, first: Trainer) -> None:
        best = first.selection.best
        initial = first.selection.initial
        assert best is not None  # the settings of the first training demand them
        assert initial is not None
        folder = None if first.folder is None else first.folder / FOLDER
        is_begun = folder is not None and _is_begun(folder, best.epoch)
        config = replace(first.config, choose=LAST, retrain=False, resume=is_begun)
        task = replace(first.task, data=whole(first.task.data))
        super().__init__(task, config, first.seed, folder, without_held_out(first.settings), first.progress, first.team)
        self._stop = first._stop  # SIGINT during the last evaluation of the first training
        self.epochs = best.epoch
        if not is_begun:
            initial.restore(task.net, task.loss, first.place)
            first.progress.say(
                f"retraining on all {len(self.train)} training samples up to epoch {best.epoch}, chosen on "
                f"{first.selection.selected_on}"
            )

    def _evaluated(self) -> Evaluation | None:
        """Return an evaluation of the test samples after the last epoch, and None before."""
        return super()._evaluated() if self.epoch + 1 == self.epochs else None


def _is_begun(folder: Path, epochs: int) -> bool:
    """Make the folder of a second training, and return whether it holds one of no more epochs, to be continued."""
    folder.mkdir(exist_ok=True)
    file = folder / CHECKPOINT
    return file.exists() and load_checkpoint(file).get("epoch", 0) <= epochs


def whole(data: Dataset) -> Dataset:
    """Return a data set as it was before samples were held out."""
    reserved = data.reserved
    assert reserved is not None
    return replace(data, train=reserved.train, test=reserved.test, evaluated_on="test", reserved=None)


def without_held_out(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a training with those of held out samples off."""
    return {name: HELD_OUT.get(name, value) for name, value in settings.items()}
