"""What every training loop has in common: data, optimizer, place in the run, records, and the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from hxtrain.datasets import ImageDataset, Split

from .checkpoint import load_checkpoint, require_same, save_checkpoint
from .config import LoopConfig
from .metrics import Sums, write_json_lines
from .progress import Progress
from .schedule import learning_rate
from .versions import versions, warn_of_versions

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
Config = TypeVar("Config", bound=LoopConfig)


class Interrupted(KeyboardInterrupt):
    """Training was interrupted and its state is saved."""


class Loop(Generic[Config]):
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
        self.config, self.seed, self.optimizer = config, seed, optimizer
        self.folder, self.settings, self.progress = Path(folder), dict(settings), progress
        self.train = shorten(data.train, config.train_samples, "trainer.train_samples")
        self.test = shorten(data.test, config.test_samples, "trainer.test_samples")
        self.records: list[dict[str, Any]] = []
        self.epoch, self.step, self.sums = 0, 0, sums

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

    def _write_records(self) -> None:
        write_json_lines(self.folder / METRICS, self.records)

    def _write_checkpoint(self, **more: Any) -> None:
        """Write the checkpoint: what all loops need to continue, and what this one does."""
        state = {
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
        state = load_checkpoint(self.checkpoint)
        warn_of_versions(state["versions"], self.progress)
        require_same(self.checkpoint, state["settings"], self.settings)
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.records = state["epoch"], state["records"]
        return state


def shorten(split: Split, count: int, field: str) -> Split:
    """Return the first `count` samples; 0 for all.

    Raises:
        ValueError: there are not so many.
    """
    if count > len(split):
        raise ValueError(f"{field}={count} exceeds the {len(split)} samples there are; 0 takes all")
    return split[:count] if count else split
