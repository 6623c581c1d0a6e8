"""The training loop of an artificial neural network: a baseline or a teacher, one checkpointed epoch after another."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hxtrain.datasets import ImageDataset, Split
from hxtrain.losses import predictions

from .augment import Augmentation
from .checkpoint import load_checkpoint, require_same, save_checkpoint
from .config import AnnTrainerConfig
from .evaluation import intensities
from .metrics import Sums, write_json_lines
from .progress import Progress
from .randomness import epoch_order, generator, seeded
from .schedule import learning_rate
from .teachers import ANN
from .trainer import CHECKPOINT, METRICS, Interrupted, shorten
from .versions import versions, warn_of_versions


@dataclass
class AnnTask:
    """What is learnt: model (intensities of samples to logits `[B, classes]`), data, distortion of training images."""

    model: nn.Module
    data: ImageDataset
    augment: Augmentation = field(default_factory=Augmentation)


class AnnTrainer:
    """Trains an artificial neural network in a run directory; cross-entropy, AdamW.

    Args:
        task: what is learnt.
        config: how to train.
        seed: of data order, dropout and augmentation.
        folder: run directory; checkpoint and metrics are written there.
        settings: plain values that identify the run; a resumed run must have the same.
        progress: where to report.
        where: device of the maths; the model is there already.

    Attributes:
        records: one per finished epoch.
    """

    def __init__(
        self,
        task: AnnTask,
        config: AnnTrainerConfig,
        seed: int,
        folder: Path,
        settings: dict[str, Any],
        progress: Progress,
        where: torch.device,
    ) -> None:
        self.task, self.config, self.seed, self.where = task, config, seed, where
        self.folder, self.settings, self.progress = folder, settings, progress
        self.optimizer = torch.optim.AdamW(
            task.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.train = shorten(task.data.train, config.train_samples, "trainer.train_samples")
        self.test = shorten(task.data.test, config.test_samples, "trainer.test_samples")
        self.records: list[dict[str, Any]] = []
        self.epoch, self.step, self.sums = 0, 0, Sums(hidden_spikes=None)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch; the last batch may be smaller."""
        return -(-len(self.train) // self.config.batch_size)

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint."""
        return self.folder / CHECKPOINT

    def fit(self) -> None:
        """Train until the last epoch.

        Raises:
            Interrupted: by SIGINT, and there is a checkpoint to continue from.
            ValueError: the loss is not finite.
        """
        if self.config.resume:
            self._restore()
        try:
            with self.progress.training(self):
                while self.epoch < self.config.epochs:
                    self._run_epoch()
        except KeyboardInterrupt:
            if not self.checkpoint.exists():
                raise
            raise Interrupted(f"interrupted in epoch {self.epoch + 1}, which is run anew") from None

    def _run_epoch(self) -> None:
        self.task.model.train()
        order = epoch_order(self.seed, self.epoch, len(self.train))
        for chosen in torch.split(order, self.config.batch_size):
            rate = learning_rate(self.config, self.epoch, self.step, self.steps_per_epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self._train_step(chosen)
            self.step += 1
            self.progress.step(self)
        self._finish_epoch()

    def _train_step(self, chosen: Tensor) -> None:
        begin, place = time.perf_counter(), (self.epoch, self.step)
        images = self.task.augment(intensities(self.train.samples[chosen]), generator(self.seed, "augment", *place))
        labels = self.train.labels[chosen].to(self.where)
        with seeded(self.seed, "dropout", *place):
            logits = self.task.model(images.to(self.where))
        loss = cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        value = loss.item()
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss is {value} in epoch {self.epoch + 1}, step {self.step + 1}; try a smaller "
                f"trainer.learning_rate (now {self.config.learning_rate}). The last checkpoint is intact"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        correct = float((predictions(logits) == labels).sum())
        self.sums.add(len(chosen), value, correct, 0.0, time.perf_counter() - begin)

    def _finish_epoch(self) -> None:
        means = self.sums.means()
        self.records.append(
            {
                "epoch": self.epoch + 1,
                "train_loss": means["loss"],
                "train_accuracy": means["accuracy"],
                "test_accuracy": accuracy(self.task.model, self.test, self.config.evaluation_batch_size, self.where),
                "samples_per_second": means["samples_per_second"],
                "seconds": self.sums.seconds,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
            }
        )
        self.epoch, self.step, self.sums = self.epoch + 1, 0, Sums(hidden_spikes=None)
        self._save()
        write_json_lines(self.folder / METRICS, self.records)
        self.progress.epoch(self.records[-1], self.task.data.evaluated_on)

    def _save(self) -> None:
        data = self.task.data
        save_checkpoint(
            self.checkpoint,
            {
                "kind": ANN,
                "model": self.task.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "epoch": self.epoch,
                "records": self.records,
                "shape": list(data.shape),
                "classes": list(data.classes),
                "evaluated_on": data.evaluated_on,
                "versions": versions(),
                "seed": self.seed,
                "settings": self.settings,
            },
        )

    def _restore(self) -> None:
        state = load_checkpoint(self.checkpoint)
        warn_of_versions(state["versions"], self.progress)
        require_same(self.checkpoint, state["settings"], self.settings)
        self.task.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.records = state["epoch"], state["records"]
        write_json_lines(self.folder / METRICS, self.records)


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, batch_size: int, where: torch.device) -> float:
    """Return the fraction of right answers on a split, without dropout."""
    model.eval()
    correct = 0
    for first in range(0, len(split), batch_size):
        part = split[first : first + batch_size]
        answers = predictions(model(intensities(part.samples).to(where))).cpu()
        correct += int((answers == part.labels).sum())
    return correct / len(split)
