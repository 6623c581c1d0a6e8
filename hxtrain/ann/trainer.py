"""The training loop of an artificial neural network: a baseline or a teacher, one checkpointed epoch after another."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hxtrain.datasets import Dataset, Split, intensities
from hxtrain.datasets.augment import ImageAugmentation
from hxtrain.datasets.split import values_of
from hxtrain.objectives.losses import predictions
from hxtrain.runs.metrics import Sums
from hxtrain.runs.progress import Progress
from hxtrain.runs.randomness import epoch_order, generator, seeded
from hxtrain.runs.saved import take_weights
from hxtrain.training.config import AnnTrainerConfig
from hxtrain.training.loop import Loop, TrainingInterrupt

from .activity import mean_square, watched_activations
from .pretraining import Pretraining, hidden_layers, pretrain
from .teachers import ANN


@dataclass
class AnnTask:
    """A learning task of an artificial neural network.

    Attributes:
        model: Network from intensities of samples to logits `[B, classes]`.
        data: Data set with training and test part.
        augment: Distortion of training images.
    """

    model: nn.Sequential
    data: Dataset
    augment: ImageAugmentation = field(default_factory=ImageAugmentation)


class AnnTrainer(Loop[AnnTrainerConfig]):
    """Trains an artificial neural network in a run directory, with cross-entropy and AdamW.

    Args:
        task: Learning task.
        config: Settings of the training loop.
        seed: Seed of data order, dropout and augmentation.
        folder: Run directory for checkpoint and metrics.
        settings: Plain values that identify the run; a resumed run must have the same.
        progress: Receiver of all reports.
        accelerator: Device of the arithmetic, on which the model already is.

    Raises:
        ValueError: The network has layers that cannot be pre-trained, though the settings ask for it.
    """

    def __init__(
        self,
        task: AnnTask,
        config: AnnTrainerConfig,
        seed: int,
        folder: Path,
        settings: dict[str, Any],
        progress: Progress,
        accelerator: torch.device,
    ) -> None:
        if config.pretraining_epochs > 0:
            hidden_layers(task.model)
        optimizer = torch.optim.AdamW(
            task.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        super().__init__(task.data, config, seed, folder, settings, progress, optimizer, Sums(hidden_spikes=None))
        self.task = task
        self.accelerator = accelerator
        self._train, self._test = (
            values_of(split, task.data.title, "an artificial neural network") for split in (self.train, self.test)
        )

    def fit(self) -> None:
        """Train until the last epoch.

        Raises:
            TrainingInterrupt: SIGINT arrives, and there is a checkpoint to continue from.
            ValueError: The loss is not finite.
        """
        self.prepare()
        try:
            with self.progress.training(self):
                if self.config.pretraining_epochs > 0 and self.epoch == 0:
                    self._pretrain()
                while self.epoch < self.config.epochs:
                    self._run_epoch()
        except KeyboardInterrupt:
            if not self.checkpoint.exists():
                raise
            raise TrainingInterrupt(f"interrupted in epoch {self.epoch + 1}, which is run anew") from None

    def _pretrain(self) -> None:
        """Train the hidden layers as auto-encoders, before the first epoch."""
        config = self.config
        settings = Pretraining(
            config.pretraining_epochs,
            config.pretraining_zeros,
            config.pretraining_learning_rate,
            config.batch_size,
            self.seed,
        )
        samples = intensities(self._train.samples).to(self.accelerator)
        with seeded(self.seed, "pretraining"):
            errors = pretrain(self.task.model, samples, settings)
        text = ", ".join(f"{error:.4f}" for error in errors)
        self.progress.say(f"pre-trained as auto-encoders, mean squared error by layer: {text}")

    def _run_epoch(self) -> None:
        self.task.model.train()
        order = epoch_order(self.seed, self.epoch, len(self.train))
        for indices in torch.split(order, self.config.batch_size):
            self._set_learning_rate()
            self._train_step(indices)
            self.step += 1
            self.progress.step(self)
        self._finish_epoch()

    def _train_step(self, indices: Tensor) -> None:
        start = time.perf_counter()
        place = (self.epoch, self.step)
        images = self.task.augment(intensities(self._train.samples[indices]), generator(self.seed, "augment", *place))
        labels = self.train.labels[indices].to(self.accelerator)
        if self.snapshots is not None:
            self.snapshots.prepare(self)
        with seeded(self.seed, "dropout", *place), watched_activations(self.task.model) as activations:
            logits = self.task.model(images.to(self.accelerator))
        loss = cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        if self.config.activity_l2 > 0:
            loss = loss + self.config.activity_l2 * mean_square(activations)
        value = loss.item()
        if not torch.isfinite(loss):
            raise ValueError(self._diverged(f"the loss is {value}"))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        correct = float((predictions(logits) == labels).sum())
        elapsed = time.perf_counter() - start
        self.sums.add(len(indices), value, correct, 0.0, elapsed)
        if self.snapshots is not None:
            count = len(indices)
            values = {"loss": value, "accuracy": correct / count, "samples_per_second": count / elapsed}
            self.snapshots.add(self, None, None, values)

    def _finish_epoch(self) -> None:
        data = self.task.data
        self._record(accuracy(self.task.model, self._test, self.config.evaluation_batch_size, self.accelerator))
        self.epoch += 1
        self.step = 0
        self.sums = Sums(hidden_spikes=None)
        self._write_checkpoint(
            kind=ANN,
            model=self.task.model.state_dict(),
            shape=list(data.shape),
            classes=list(data.classes),
            evaluated_on=data.evaluated_on,
        )
        self._write_records()
        self.progress.epoch(self.records[-1], data.evaluated_on)

    def _restore(self) -> None:
        state = self._read_checkpoint()
        take_weights(self.task.model, state["model"], self.checkpoint)
        self._write_records()


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, batch_size: int, accelerator: torch.device) -> float:
    """Return the fraction of right answers on a split, without dropout."""
    model.eval()
    correct = 0
    for first in range(0, len(split), batch_size):
        part = split[first : first + batch_size]
        answers = predictions(model(intensities(part.samples).to(accelerator))).cpu()
        correct += int((answers == part.labels).sum())
    return correct / len(split)
