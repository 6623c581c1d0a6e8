"""What every training loop has in common: data, optimizer, place in the run, records, and the run directory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from hxtrain.checks import mapping, text, whole
from hxtrain.datasets import ImageDataset, Split
from hxtrain.finite import first_not_finite
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint, require_same, save_checkpoint
from hxtrain.runs.metrics import Sums, write_json_lines
from hxtrain.runs.progress import Progress
from hxtrain.runs.saved import checked_state
from hxtrain.runs.versions import versions, warn_of_versions

from .config import LoopConfig
from .schedule import learning_rate

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
Config = TypeVar("Config", bound=LoopConfig)


class Interrupted(KeyboardInterrupt):
    """Training was interrupted and its state is saved."""


class Loop(ABC, Generic[Config]):
    """A training loop's state and its run directory; what a step does is its children's.

    Args:
        data: with training and test part.
        config: how to train.
        seed: of all that is drawn at random.
        folder: run directory; checkpoint and metrics are written there.
        settings: plain values that identify the run; a resumed run must have the same.
        progress: where to report.
        optimizer: of the parameters that are learnt.
        sums: of an epoch that has not begun.

    Attributes:
        config: how to train.
        train, test: data in use.
        records: one per finished epoch.
        epoch: finished epochs.
        step: finished steps of this epoch.
        sums: over this epoch so far.
    """

    def __init__(
        self,
        data: ImageDataset,
        config: Config,
        seed: int,
        folder: str | Path,
        settings: Mapping[str, Any],
        progress: Progress,
        optimizer: torch.optim.Optimizer,
        sums: Sums,
    ) -> None:
        self.config, self.seed, self.optimizer = config, whole("seed", seed), optimizer
        self.folder, self.settings = Path(text("folder", folder)), dict(mapping("settings", settings))
        self.progress = progress
        self.train = shorten(data.train, config.train_samples, "trainer.train_samples")
        self.test = shorten(data.test, config.test_samples, "trainer.test_samples")
        self.records: list[dict[str, Any]] = []
        self.epoch, self.step, self.sums = 0, 0, sums
        self._prepared = False

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch; the last batch may be smaller."""
        return -(-len(self.train) // self.config.batch_size)

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint."""
        return self.folder / CHECKPOINT

    def _set_learning_rate(self) -> None:
        """Set the optimizer's step size to that of the next step."""
        rate = learning_rate(self.config, self.epoch, self.step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _record(self, accuracy: float, **more: Any) -> None:
        """Add the record of an epoch whose steps are done."""
        means = self.sums.means()
        self.records.append(
            {
                "epoch": self.epoch + 1,
                "train_loss": means["loss"],
                "train_accuracy": means["accuracy"],
                "test_accuracy": accuracy,
                "samples_per_second": means["samples_per_second"],
                "seconds": self.sums.seconds,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                **more,
            }
        )

    def prepare(self) -> None:
        """Take up the run from its checkpoint, if it is to be resumed; `fit` does so, unless it was done before.

        Raises:
            CheckpointError: there is none, or it is another run's; nothing was changed.
        """
        if self.config.resume and not self._prepared:
            self._restore()
        self._prepared = True

    @abstractmethod
    def _restore(self) -> None:
        """Take up all of the checkpoint."""

    def _diverged(self, what: str) -> str:
        """Return what a text on a training that went wrong says."""
        if self.epoch == self.step == 0:
            advice = "nothing was learnt before, so that a setting or the data are to blame: look at loss and encoder"
        else:
            advice = f"try a smaller trainer.learning_rate (now {self.config.learning_rate}), or weaker regularizers"
        return (
            f"{what} in epoch {self.epoch + 1}, step {self.step + 1}; {advice}. {self._last_checkpoint().capitalize()}"
        )

    def _last_checkpoint(self) -> str:
        """Return what a text says of the checkpoint when nothing is saved."""
        return "the last checkpoint is intact" if self.checkpoint.exists() else "there is no checkpoint yet"

    def _not_finite(self, model: Mapping[str, Tensor]) -> str | None:
        """Return the name of what a checkpoint would hold that is NaN or infinite; None where all are numbers."""
        return first_not_finite([*model.items(), *_moments(self.optimizer)])

    def _write_records(self) -> None:
        write_json_lines(self.folder / METRICS, self.records)

    def _write_checkpoint(self, model: Mapping[str, Tensor], **more: Any) -> None:
        """Write the checkpoint: what all loops need to continue, and what this one does.

        Raises:
            ValueError: weights, or sums of the optimizer, are not finite; the last checkpoint stays.
            CheckpointError: the file cannot be written; the one before it is intact.
        """
        name = self._not_finite(model)
        if name is not None:
            raise ValueError(
                f"{name} is not finite after epoch {self.epoch + (self.step > 0)}, step "
                f"{self.step or self.steps_per_epoch}; try a smaller trainer.learning_rate (now "
                f"{self.config.learning_rate}). Nothing of it is saved: {self._last_checkpoint()}"
            )
        state = {
            "model": dict(model),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "records": self.records,
            "versions": versions(),
            "seed": self.seed,
            "settings": self.settings,
        }
        save_checkpoint(self.checkpoint, state | more)

    def _read_checkpoint(self) -> dict[str, Any]:
        """Take up what all loops need from the checkpoint, and return it.

        Raises:
            CheckpointError: it cannot be read, or is another run's.
        """
        state = checked_state(self.checkpoint, load_checkpoint(self.checkpoint), optimizer=dict, versions=dict)
        require_same(self.checkpoint, state["settings"], self.settings)
        self._require_more(state["epoch"], state.get("step", 0))
        warn_of_versions(state["versions"], self.progress)
        self._take_optimizer(state["optimizer"])
        self.epoch, self.records = state["epoch"], state["records"]
        return state

    def _require_more(self, epoch: int, step: int) -> None:
        """Refuse fewer epochs than are done already."""
        if epoch + (step > 0) > self.config.epochs:
            done = f"{epoch} epochs" + (f" and {step} steps" if step else "")
            raise CheckpointError(
                f"{self.checkpoint} has done {done}, trainer.epochs={self.config.epochs} is fewer; give at least "
                f"{epoch + (step > 0)}, or start a new run in another hydra.run.dir"
            )

    def _take_optimizer(self, state: dict[str, Any]) -> None:
        try:
            self.optimizer.load_state_dict(state)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.checkpoint}: optimizer: {error}; the file is damaged") from error


def _moments(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Yield what an optimizer keeps of earlier gradients, with names for an error."""
    for moments in optimizer.state.values():
        for name, values in moments.items():
            if isinstance(values, Tensor):
                yield f"the optimizer's {name}", values


def shorten(split: Split, count: int, field: str) -> Split:
    """Return the first `count` samples; 0 for all.

    Raises:
        ValueError: there are not so many.
    """
    if count > len(split):
        raise ValueError(f"{field}={count} exceeds the {len(split)} samples there are; 0 takes all")
    return split[:count] if count else split
