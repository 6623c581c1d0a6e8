"""Base of all training loops: data, optimizer, position in the run, records, and the run directory."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from hxtrain.checks import mapping, text, whole
from hxtrain.datasets import Dataset, Samples
from hxtrain.finite import first_not_finite
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint, require_same, save_checkpoint
from hxtrain.runs.metrics import METRICS, Sums, write_json_lines
from hxtrain.runs.progress import Progress
from hxtrain.runs.saved import checked_state
from hxtrain.runs.versions import versions, warn_of_versions

from .config import CourseConfig, LoopConfig
from .schedule import learning_rate
from .snapshots import Snapshots

CHECKPOINT = "checkpoint.pt"
NO_FOLDER = "without a run directory nothing is saved: give folder=..."
"""Clause of error texts of a training without a run directory."""
Config = TypeVar("Config", bound=CourseConfig)


class TrainingInterrupt(KeyboardInterrupt):
    """A training is interrupted; its state is saved."""


class Loop(ABC, Generic[Config]):
    """State of a training loop and its run directory; subclasses define a step.

    Args:
        data: Data set with training and test part; None for a loop that makes its samples.
        config: Settings of the training loop.
        seed: Seed of all random numbers.
        folder: Run directory for checkpoint and metrics; None: nothing is written.
        settings: Plain values that identify the run; a resumed run must have the same.
        progress: Receiver of all reports.
        optimizer: Optimiser over the learnt parameters.
        sums: Sums over an empty epoch.

    Attributes:
        config: Settings of the training loop.
        train: Training samples in use.
        test: Test samples in use.
        records: One record per finished epoch.
        epochs: Number of epochs to train.
        epoch: Number of finished epochs.
        step: Number of finished steps in the current epoch.
        sums: Sums over the current epoch.
        snapshots: Writer of snapshots for the live view; None: none are written.
    """

    def __init__(
        self,
        data: Dataset | None,
        config: Config,
        seed: int,
        folder: str | Path | None,
        settings: Mapping[str, Any],
        progress: Progress,
        optimizer: torch.optim.Optimizer,
        sums: Sums,
    ) -> None:
        self.config = config
        self.seed = whole("seed", seed)
        self.optimizer = optimizer
        self.folder = None if folder is None else Path(text("folder", folder))
        self.settings = dict(mapping("settings", settings))
        self.progress = progress
        if data is not None:
            assert isinstance(config, LoopConfig)  # a course without data has no samples to choose
            self.train = shorten(data.train, config.train_samples, "trainer.train_samples")
            self.test = shorten(data.test, config.test_samples, "trainer.test_samples")
        self.records: list[dict[str, Any]] = []
        self.epochs = config.epochs
        self.epoch = 0
        self.step = 0
        self.sums = sums
        self.snapshots: Snapshots | None = None
        self._prepared = False
        self._stop = threading.Event()

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch; the last batch may be smaller."""
        assert isinstance(self.config, LoopConfig)  # else a subclass says it
        return -(-len(self.train) // self.config.batch_size)

    @property
    def steps_done(self) -> int:
        """Number of steps since the start of the training."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    @property
    def chip_seconds(self) -> float:
        """Chip time of all training steps so far (s)."""
        return self.sums.chip_seconds + sum(record.get("chip_seconds") or 0.0 for record in self.records)

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint, of a loop with a run directory."""
        assert self.folder is not None  # who reads or writes a checkpoint has asked
        return self.folder / CHECKPOINT

    def _set_learning_rate(self) -> None:
        """Set the optimizer's learning rate for the next step."""
        rate = learning_rate(self.config, self.epoch, self.step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _record(self, accuracy: float | None, **entries: Any) -> None:
        """Add the record of an epoch after its last step; the accuracy is None if it was not evaluated."""
        means = self.sums.means()
        self.records.append(
            {
                "epoch": self.epoch + 1,
                "train_loss": means["loss"],
                "train_accuracy": means["accuracy"],
                "test_accuracy": accuracy,
                "samples_per_second": means["samples_per_second"],
                "seconds": self.sums.seconds,
                "learning_rate": self.learning_rate,
                **entries,
            }
        )

    def prepare(self) -> None:
        """Restore the state of the checkpoint if the run is to be resumed; `fit` calls this, further calls do nothing.

        Raises:
            CheckpointError: There is no checkpoint, or it belongs to another run; nothing is changed.
        """
        if self.config.resume and not self._prepared:
            self._restore()
        self._prepared = True

    @abstractmethod
    def _restore(self) -> None:
        """Restore the whole state of the checkpoint."""

    def _diverged(self, fault: str) -> str:
        """Return the error text of a diverged training: fault, place and advice."""
        if self.epoch == self.step == 0:
            advice = "nothing was learnt before, so that a setting or the data are to blame: look at loss and encoder"
        else:
            advice = f"try a `learning_rate` below {self.config.learning_rate}, or weaker regularizers"
        return (
            f"{fault} in epoch {self.epoch + 1}, step {self.step + 1}; {advice}. {self._last_checkpoint().capitalize()}"
        )

    def _last_checkpoint(self) -> str:
        """Return the clause of an error text on the state of the checkpoint."""
        if self.folder is None:
            return NO_FOLDER
        return "the last checkpoint is intact" if self.checkpoint.exists() else "there is no checkpoint yet"

    def _not_finite(self, model: Mapping[str, Tensor]) -> str | None:
        """Return the name of the first tensor of a checkpoint that is not finite; None if all are finite."""
        return first_not_finite([*model.items(), *self._moments()])

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors of a checkpoint besides the weights, with names for an error text."""
        for moments in self.optimizer.state.values():
            for name, values in moments.items():
                if isinstance(values, Tensor):
                    yield f"the optimizer's {name}", values

    def _write_records(self) -> None:
        if self.folder is not None:
            write_json_lines(self.folder / METRICS, self.records)

    def _write_checkpoint(self, model: Mapping[str, Tensor], **entries: Any) -> None:
        """Write the checkpoint: the state of every loop, and further entries of this one; nothing without a folder.

        Raises:
            ValueError: Weights, or moments of the optimizer, are not finite; the last checkpoint is kept.
            CheckpointError: The file cannot be written; the previous one is intact.
        """
        name = self._not_finite(model)
        if name is not None:
            outcome = NO_FOLDER if self.folder is None else f"nothing of it is saved: {self._last_checkpoint()}"
            raise ValueError(
                f"{name} is not finite after epoch {self.epoch + (self.step > 0)}, step "
                f"{self.step or self.steps_per_epoch}; try a `learning_rate` below "
                f"{self.config.learning_rate}. {outcome.capitalize()}"
            )
        if self.folder is None:
            return
        state = {
            "model": dict(model),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "records": self.records,
            "versions": versions(),
            "seed": self.seed,
            "settings": self.settings,
        }
        save_checkpoint(self.checkpoint, state | entries)

    def _read_checkpoint(self) -> dict[str, Any]:
        """Restore the state of every loop from the checkpoint, and return the content of the checkpoint.

        Raises:
            CheckpointError: The checkpoint cannot be read, or belongs to another run.
        """
        state = checked_state(self.checkpoint, load_checkpoint(self.checkpoint), optimizer=dict, versions=dict)
        require_same(self.checkpoint, state["settings"], self.settings)
        self._require_epochs(state["epoch"], state.get("step", 0))
        warn_of_versions(state["versions"], self.progress)
        self._take_optimizer(state["optimizer"])
        self.epoch = state["epoch"]
        self.records = state["records"]
        return state

    def _require_epochs(self, epoch: int, step: int) -> None:
        """Raise an error if the settings ask for fewer epochs than the checkpoint has."""
        if epoch + (step > 0) > self.epochs:
            progress = f"{epoch} epochs" + (f" and {step} steps" if step else "")
            raise CheckpointError(
                f"{self.checkpoint} has done {progress}, epochs={self.epochs} is fewer; give at least "
                f"{epoch + (step > 0)}, or start a new run in another hydra.run.dir"
            )

    def _take_optimizer(self, state: dict[str, Any]) -> None:
        try:
            self.optimizer.load_state_dict(state)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.checkpoint}: optimizer: {error}; the file is damaged") from error


def shorten(split: Samples, count: int, field: str) -> Samples:
    """Return the first `count` samples; 0 for all.

    Raises:
        ValueError: `count` exceeds the number of samples.
    """
    if count > len(split):
        raise ValueError(f"{field}={count} exceeds the {len(split)} available samples; 0 takes all")
    return split[:count] if count else split
