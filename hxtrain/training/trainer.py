"""The training loop: forward on the device, gradient on the host, one checkpointed step after another."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from hxtrain.activity import Activity
from hxtrain.backends import DeviceError, Health
from hxtrain.datasets import ImageDataset, Split
from hxtrain.encoders import LatencyEncoder
from hxtrain.losses import MaxOverTime, predictions
from hxtrain.network import Network
from hxtrain.regularizers import Regularizer

from .augment import rotate
from .checkpoint import load_checkpoint, require_same, save_checkpoint
from .config import TrainerConfig
from .diagnosis import diagnose, probe
from .evaluation import Evaluation, evaluate, intensities
from .metrics import Sums, write_json_lines
from .progress import Progress
from .randomness import epoch_order, generator
from .step import LossNotFiniteError, train_step
from .versions import versions

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


class Interrupted(KeyboardInterrupt):
    """Training was interrupted and its state is saved."""


class DeviceLostError(DeviceError):
    """The device failed for good; the state before the failed step is saved."""


@dataclass
class Task:
    """What is learnt: network, code, loss, regularisers, data."""

    net: Network
    encoder: LatencyEncoder
    loss: MaxOverTime
    regularizers: Mapping[str, Regularizer]
    data: ImageDataset


class Trainer:
    """Trains a task in a run directory.

    Args:
        task: what is learnt; its network runs on a device if it is attached to one.
        config: how to train.
        seed: of data order, dropout, rotation and jitter (the network has its own).
        folder: run directory; checkpoint and metrics are written there.
        settings: plain values that identify the run; a resumed run must have the same.
        progress: where to report.

    Attributes:
        records: one per finished epoch.
        final: the last epoch's evaluation.
    """

    def __init__(
        self,
        task: Task,
        config: TrainerConfig,
        seed: int,
        folder: Path,
        settings: Mapping[str, Any],
        progress: Progress,
    ) -> None:
        self.task, self.config, self.seed = task, config, seed
        self.folder, self.settings, self.progress = folder, dict(settings), progress
        self.optimizer = torch.optim.Adam(task.net.parameters(), lr=config.learning_rate, fused=True)
        self.train = shorten(task.data.train, config.train_samples, "trainer.train_samples")
        self.test = shorten(task.data.test, config.test_samples, "trainer.test_samples")
        self.records: list[dict[str, Any]] = []
        self.epoch, self.step, self.sums = 0, 0, Sums()
        self.final: Evaluation | None = None
        self._stop = threading.Event()
        self._warned: set[str] = set()

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch; the last batch may be smaller."""
        return -(-len(self.train) // self.config.batch_size)

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint."""
        return self.folder / CHECKPOINT

    def fit(self) -> Evaluation:
        """Train until the last epoch, and return the last evaluation.

        Raises:
            Interrupted: SIGINT arrived; the state is saved.
            DeviceLostError: the device failed for good; the state before the failed step is saved.
            ValueError: the loss is not finite.
        """
        if self.config.resume:
            self._restore()
        with self._on_sigint(), self.progress.training(self):
            while self.epoch < self.config.epochs:
                self._run_epoch()
        assert self.final is not None  # there is at least one epoch
        return self.final

    def evaluate(self) -> Evaluation:
        """Evaluate on the test data."""
        task = self.task
        classes = len(task.data.classes)
        return evaluate(task.net, task.encoder, task.loss, self.test, classes, self.config.evaluation_batch_size)

    def _run_epoch(self) -> None:
        order = epoch_order(self.seed, self.epoch, len(self.train))
        rate = self.config.learning_rate * self.config.learning_rate_decay**self.epoch
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        while self.step < self.steps_per_epoch:
            first = self.step * self.config.batch_size
            with self._saved_on_failure():
                self._train_step(order[first : first + self.config.batch_size])
            self.step += 1
            self.progress.step(self)
            last = self.step == self.steps_per_epoch
            if self._stop.is_set() or (not last and self.step % self.config.checkpoint_steps == 0):
                self._save()
            if self._stop.is_set():
                raise Interrupted(f"interrupted after step {self.step} of epoch {self.epoch + 1}")
        self._finish_epoch()

    def _train_step(self, chosen: Tensor) -> None:
        begin = time.perf_counter()
        task, place = self.task, (self.epoch, self.step)
        images, labels = intensities(self.train.images[chosen]), self.train.labels[chosen]
        if self.config.rotation > 0:
            images = rotate(images, self.config.rotation, generator(self.seed, "rotation", *place))
        jitter = generator(self.seed, "jitter", *place) if task.encoder.jitter > 0 else None
        masks = task.net.dropout_masks(generator(self.seed, "dropout", *place))
        spikes_in = task.encoder(images, jitter)
        try:
            activity, loss = train_step(
                task.net, task.loss, task.regularizers.values(), self.optimizer, spikes_in, labels, masks
            )
        except LossNotFiniteError as error:
            raise ValueError(
                f"{error} in epoch {self.epoch + 1}, step {self.step + 1}; try a smaller "
                f"trainer.learning_rate (now {self.config.learning_rate}). The last checkpoint is intact"
            ) from error
        with torch.no_grad():
            answers = predictions(task.loss.scores(activity.readout))
            correct = float((answers == labels.to(answers.device)).sum())
            spikes = activity.hidden_spikes()
        self.sums.add(len(chosen), loss, correct, spikes, time.perf_counter() - begin)
        self._report_health("training", activity.health)
        self._look(activity)

    def _look(self, activity: Activity) -> None:
        """Warn of unhealthy layers at the run's first step and at the end of each epoch."""
        start = self.epoch == 0 and self.step == 0
        if not start and self.step != self.steps_per_epoch - 1:
            return
        net = self.task.net
        for text in probe(net, activity) if start else diagnose(net, activity, trained=True):
            kind = " ".join(text.split()[:3])
            if kind not in self._warned:
                self._warned.add(kind)
                self.progress.warn(text)

    def _report_health(self, what: str, health: Health) -> None:
        """Count what the device lost or had to repeat; warn of it once per epoch, and once of each note."""
        where = f"{what}, epoch {self.epoch + 1}, step {self.step + 1}"
        first = self.sums.dropped_spikes == self.sums.retries == 0
        self.sums.dropped_spikes += health.dropped_spikes
        self.sums.retries += health.retries
        if first and (health.dropped_spikes or health.retries):
            self.progress.warn(
                f"{where}: the device dropped {health.dropped_spikes} spikes, runs repeated {health.retries} times "
                f"({METRICS} has the sums of each epoch)"
            )
        for note in health.notes:
            if note not in self.sums.notes:
                self.sums.notes.append(note)
                self.progress.warn(f"{where}: {note}")

    def _finish_epoch(self) -> None:
        means, seconds = self.sums.means(), self.sums.seconds
        with self._saved_on_failure():
            evaluation = self.evaluate()
        self._report_health("evaluation", evaluation.health)
        self.records.append(
            {
                "epoch": self.epoch + 1,
                "train_loss": means["loss"],
                "train_accuracy": means["accuracy"],
                "test_accuracy": evaluation.accuracy,
                "hidden_spikes_per_sample": evaluation.hidden_spikes_per_sample,
                "samples_per_second": means["samples_per_second"],
                "seconds": seconds,
                "dropped_spikes": self.sums.dropped_spikes,
                "retries": self.sums.retries,
                "notes": self.sums.notes,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
            }
        )
        self.epoch, self.step, self.sums, self.final = self.epoch + 1, 0, Sums(), evaluation
        self._save()
        write_json_lines(self.folder / METRICS, self.records)
        self.progress.epoch(self.records[-1])

    @contextmanager
    def _saved_on_failure(self) -> Iterator[None]:
        """Save the state from before the block if the device fails in it, so that nothing else is lost."""
        device = self.task.net.device
        clock = device.clock if device else 0
        try:
            yield
        except DeviceError as error:
            if device:
                device.clock = clock
            self._save()
            raise DeviceLostError(f"{error}. The state before the failed step is saved") from error

    def _save(self) -> None:
        device = self.task.net.device
        save_checkpoint(
            self.checkpoint,
            {
                "model": self.task.net.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "sums": self.sums.as_dict(),
                "records": self.records,
                "final": None if self.final is None else self.final.as_dict(),
                "versions": versions(),
                "clock": device.clock if device else 0,
                "seed": self.seed,
                "settings": self.settings,
            },
        )

    def _restore(self) -> None:
        state = load_checkpoint(self.checkpoint)
        if state["versions"] != versions():
            self.progress.warn(
                f"the checkpoint is of {state['versions']}, this is {versions()}: "
                "the run continues, but not necessarily to the very same weights"
            )
        require_same(self.checkpoint, state["settings"], self.settings)
        self.task.net.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step, self.sums = state["epoch"], state["step"], Sums(**state["sums"])
        self.records = state["records"]
        self.final = None if state["final"] is None else Evaluation.from_dict(state["final"])
        write_json_lines(self.folder / METRICS, self.records)
        if self.task.net.device is not None:
            self.task.net.device.clock = state["clock"]

    @contextmanager
    def _on_sigint(self) -> Iterator[None]:
        """Finish the step and save when SIGINT arrives; a second one ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._stop.set()

        before = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def shorten(split: Split, count: int, field: str) -> Split:
    """Return the first `count` samples; 0 for all.

    Raises:
        ValueError: there are not so many.
    """
    if count > len(split):
        raise ValueError(f"{field}={count} exceeds the {len(split)} samples there are; 0 takes all")
    return Split(split.images[:count], split.labels[:count]) if count else split
