"""The training loop: forward on the device, gradient on the host, one checkpointed step after another."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import DeviceError, Health, Spikes
from hxtrain.checks import mapping, require_kind
from hxtrain.datasets import ImageDataset
from hxtrain.datasets.augment import Augmentation
from hxtrain.datasets.encoders import Encoder
from hxtrain.execution import device_of
from hxtrain.network import Activity, Network
from hxtrain.objectives import MaxOverTime, Regularizer
from hxtrain.objectives.distillation import Teacher
from hxtrain.objectives.losses import predictions
from hxtrain.objectives.regularizers import listed
from hxtrain.rules import LossNotFiniteError, Step, train_step
from hxtrain.runs.metrics import Sums
from hxtrain.runs.progress import Progress
from hxtrain.runs.randomness import epoch_order, generator
from hxtrain.runs.saved import required, take_weights

from .config import TrainerConfig
from .diagnosis import ENOUGH_SAMPLES, Observations
from .evaluation import Evaluation, Observed, intensities, observe
from .loop import METRICS, Interrupted, Loop
from .parallel import ALONE, Team


class DeviceLostError(DeviceError):
    """The device failed for good; the state before the failed step is saved."""


@dataclass
class Task:
    """What is learnt: network, code, loss, regularisers, data, how training images are distorted, and from whom."""

    net: Network
    encoder: Encoder
    loss: MaxOverTime
    regularizers: Mapping[str, Regularizer]
    data: ImageDataset
    augment: Augmentation = field(default_factory=Augmentation)
    teacher: Teacher | None = None

    def __post_init__(self) -> None:
        kinds = {"net": Network, "encoder": Encoder, "loss": MaxOverTime, "data": ImageDataset}
        for name, kind in kinds.items():
            require_kind(getattr(self, name), kind, name, "Task(net, encoder, loss, {'burst': Burst()}, data)")
        listed(mapping("regularizers", self.regularizers))


class Seen(NamedTuple):
    """What processes tell each other of a step: sums over samples, and whether to stop, or to give up."""

    samples: float
    loss: float
    correct: float
    hidden_spikes: float
    dropped_spikes: float = 0.0
    retries: float = 0.0
    stop: float = 0.0
    failed: float = 0.0


class Trainer(Loop[TrainerConfig]):
    """Trains a task in a run directory.

    Args:
        task: what is learnt; its network runs on a device if it is attached to one.
        config: how to train.
        seed: of data order, dropout, augmentation and jitter (the network has its own).
        folder: run directory; checkpoint and metrics are written there.
        settings: plain values that identify the run; a resumed run must have the same.
        progress: where to report.
        team: the processes that share every batch; only the first one writes.

    Attributes:
        final: the last epoch's evaluation; for all else see `Loop`.
    """

    def __init__(
        self,
        task: Task,
        config: TrainerConfig,
        seed: int,
        folder: str | Path,
        settings: Mapping[str, Any],
        progress: Progress,
        team: Team = ALONE,
    ) -> None:
        require_kind(task, Task, "task", "give Task(net, encoder, loss, regularizers, data)")
        require_kind(config, TrainerConfig, "config", "give TrainerConfig(...)")
        optimizer = torch.optim.Adam(task.net.parameters(), lr=config.learning_rate, fused=True)
        super().__init__(task.data, config, seed, folder, settings, progress, optimizer, Sums())
        self.task, self.team = task, team
        self._changed = False
        optimizer.register_step_pre_hook(self._note_change)
        self.final: Evaluation | None = None
        self._stop, self._stopped = threading.Event(), False
        self._seen = Seen(0, 0, 0, 0)
        self._answers: Tensor | None = None
        self._warned: set[str] = set()
        self._begin, self._end = Observations(), Observations()
        task.net.input_watch.active = False  # the trainer counts the input itself

    def fit(self) -> Evaluation:
        """Train until the last epoch, and return the last evaluation.

        Raises:
            Interrupted: SIGINT arrived; the state is saved.
            DeviceLostError: the device failed for good; the state before the failed step is saved.
            ValueError: the loss is not finite.
        """
        self.prepare()
        with self._on_sigint(), self.progress.training(self):
            while self.epoch < self.config.epochs:
                self._run_epoch()
        assert self.final is not None  # there is at least one epoch
        return self.final

    def evaluate(self) -> Evaluation:
        """Evaluate on the test data, of which each process runs its part."""
        task = self.task
        first, last = self.team.part(len(self.test))
        own = self.test[first:last]
        classes, size = len(task.data.classes), self.config.evaluation_batch_size
        with self._sharing(first, len(self.test)):
            found = observe(task.net, task.encoder, task.loss, own, classes, size)
        whole, *others = map(Observed.from_plain, self.team.gather(found.as_plain()))
        for other in others:
            whole = whole + other
        return whole.summary()

    def _sharing(self, first: int, total: int) -> AbstractContextManager[None]:
        """Run a part of a batch on this process's device."""
        net = self.task.net
        device = device_of(net)
        if device is None or net.in_software or self.team.size == 1:
            return nullcontext()
        return device.sharing(first, total)

    def _run_epoch(self) -> None:
        self.task.net.in_software = self.epoch < self.config.software_epochs
        order = epoch_order(self.seed, self.epoch, len(self.train))
        while self.step < self.steps_per_epoch:
            first = self.step * self.config.batch_size
            self._set_learning_rate()
            with self._saved_on_failure():
                self._train_step(order[first : first + self.config.batch_size])
            self.step += 1
            self.progress.step(self)
            last = self.step == self.steps_per_epoch
            if self._stopped or (not last and self.step % self.config.checkpoint_steps == 0):
                self._save()
            if self._stopped:
                raise Interrupted(f"interrupted after step {self.step} of epoch {self.epoch + 1}")
        self._finish_epoch()

    def _train_step(self, chosen: Tensor) -> None:
        begin = time.perf_counter()
        task, first, last, share = self.task, *self._own_part(len(chosen))
        labels, joined = self.train.labels[chosen[first:last]], False

        def join(step: Step) -> None:
            """Sum up what all processes saw, and their gradients."""
            nonlocal joined
            joined = True
            self._join(step, labels, share)

        masks = task.net.dropout_masks(generator(self.seed, "dropout", self.epoch, self.step))
        try:
            with self._sharing(first, len(chosen)):
                spikes, images = self._shown(chosen, first, last)
                loss: Callable[[Tensor, Tensor], Tensor] = task.loss
                if task.teacher is not None:
                    loss = task.teacher.loss(task.loss, self._taught(task.teacher, chosen[first:last], images))
                regularizers = task.regularizers.values()
                step = train_step(task.net, loss, regularizers, self.optimizer, spikes, labels, masks, join)
        except Exception as error:
            if not joined:  # the others wait for this process
                self.team.sum_gradients(task.net.parameters(), 0.0, [*Seen(0, 0, 0, 0, failed=1.0)])
            if isinstance(error, LossNotFiniteError):
                raise ValueError(self._diverged(str(error))) from error
            raise
        seen = self._seen
        means = seen.loss / seen.samples, seen.correct, seen.hidden_spikes
        self.sums.add(round(seen.samples), *means, time.perf_counter() - begin)
        health = Health(round(seen.dropped_spikes), round(seen.retries), step.activity.health.notes)
        self._report_health("training", health)
        self._look(step.activity, len(chosen))

    def _own_part(self, count: int) -> tuple[int, int, float]:
        """Return first and last of this process's samples in a batch, and their share of it.

        Where there are fewer samples than processes, some run one again, with no weight.
        """
        first, last = self.team.part(count)
        if first == last:
            return min(first, count - 1), min(first, count - 1) + 1, 0.0
        return first, last, (last - first) / count

    def _shown(self, chosen: Tensor, first: int, last: int) -> tuple[Spikes, Tensor]:
        """Return spikes and intensities of samples `first` to `last` of a batch.

        Distortions and jitter are drawn for all of it.
        """
        place, encoder, where = (self.epoch, self.step), self.task.encoder, self.task.net.torch_device
        if encoder.jitter == 0 and not self.task.augment.active:
            images = intensities(self.train.samples[chosen[first:last]].to(where))
            return encoder(images), images
        shown = intensities(self.train.samples[chosen].to(where))
        images = self.task.augment(shown, generator(self.seed, "augment", *place))
        jitter = generator(self.seed, "jitter", *place) if encoder.jitter > 0 else None
        return encoder(images, jitter).stretch(first, last), images[first:last]

    def _taught(self, teacher: Teacher, chosen: Tensor, images: Tensor) -> Tensor:
        """Return the teacher's logits of these samples; without distortions it is asked once for each."""
        if self.task.augment.active:
            return teacher.logits(images)
        if self._answers is None:
            parts = torch.split(self.train.samples, self.config.evaluation_batch_size)
            self._answers = torch.cat([teacher.logits(intensities(part)) for part in parts])
        return self._answers[chosen.to(self._answers.device)]

    def _join(self, step: Step, labels: Tensor, share: float) -> None:
        """Average the gradients of all processes, and sum up what they saw of a step.

        Raises:
            DeviceError: another process has failed.
        """
        net, health = self.task.net, step.activity.health
        with torch.no_grad():
            answers = predictions(self.task.loss.scores(step.activity.readout))
            correct = float((answers == labels.to(answers.device)).sum())
        counted = len(labels) * (share > 0)
        own = Seen(
            counted,
            step.loss * counted,
            correct * (share > 0),
            step.activity.hidden_spikes() * (share > 0),
            health.dropped_spikes,
            health.retries,
            float(self._stop.is_set()),
        )
        self._seen = Seen(*self.team.sum_gradients(net.parameters(), share, [*own]))
        if self._seen.failed:
            raise DeviceError("another process has failed, see its error")
        self._stopped = self._seen.stop > 0

    def _look(self, activity: Activity, count: int) -> None:
        """Warn of missing input and unhealthy layers, at the run's begin and at the end of each epoch.

        Steps of few samples are judged together; a run's only step so far says nothing of what training did.
        """
        net, first = self.task.net, self.step * self.config.batch_size
        left = len(self.train) - first - count
        if self.epoch == 0 and first < ENOUGH_SAMPLES:
            self._begin.add(net, activity)
            if first + count >= ENOUGH_SAMPLES or left == 0:
                self._warn(self._begin.warnings(net, trained=False))
                self._begin = Observations()
        if left < ENOUGH_SAMPLES and not (self.epoch == 0 and self.steps_per_epoch == 1):
            self._end.add(net, activity)
            if left == 0:
                self._warn(self._end.warnings(net, trained=True))
                self._end = Observations()

    def _warn(self, texts: Iterable[str]) -> None:
        """Show warnings, one of each kind in a run."""
        for text in texts:
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
        with self._saved_on_failure():
            evaluation = self.evaluate()
        self._report_health("evaluation", evaluation.health)
        self._record(
            evaluation.accuracy,
            hidden_spikes_per_sample=evaluation.hidden_spikes_per_sample,
            dropped_spikes=self.sums.dropped_spikes,
            retries=self.sums.retries,
            notes=self.sums.notes,
            in_software=self.task.net.in_software,
            input_events_per_sample=evaluation.input_events_per_sample,
            late_input_events_per_sample=evaluation.late_input_events_per_sample,
        )
        self.epoch, self.step, self.sums, self.final = self.epoch + 1, 0, Sums(), evaluation
        self._save()
        if self.team.leads:
            self._write_records()
        self.progress.epoch(self.records[-1], self.task.data.evaluated_on)

    @contextmanager
    def _saved_on_failure(self) -> Iterator[None]:
        """Save the state from before the block if it fails, so that nothing else is lost.

        Once the optimiser has begun its step, there is no such state any more: the last checkpoint stays.
        """
        device = device_of(self.task.net)
        clock, self._changed = device.clock if device else 0, False
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            if device:
                device.clock = clock
            saved = not self._changed and self._not_finite(self.task.net.state_dict()) is None
            if saved:
                self._save()
            if not isinstance(error, DeviceError):
                raise
            state = "The state before the failed step is saved" if saved else "The last checkpoint is as it was"
            raise DeviceLostError(f"{error}. {state}") from error

    def _note_change(self, *_: Any) -> None:
        """Note that the optimiser begins to change weights; called by it."""
        self._changed = True

    def _save(self) -> None:
        """Write the checkpoint, see `_write_checkpoint`; in the first process alone."""
        if not self.team.leads:
            return
        device = device_of(self.task.net)
        self._write_checkpoint(
            model=self.task.net.state_dict(),
            step=self.step,
            sums=self.sums.as_dict(),
            final=None if self.final is None else self.final.as_dict(),
            clock=device.clock if device else 0,
        )

    def _restore(self) -> None:
        state = self._read_checkpoint()
        required(self.checkpoint, state, {"step": int, "sums": dict, "clock": int, "final": (dict, type(None))})
        take_weights(self.task.net, state["model"], self.checkpoint)
        self.step, self.sums = state["step"], Sums(**state["sums"])
        self.final = None if state["final"] is None else Evaluation.from_dict(state["final"])
        if self.team.leads:
            self._write_records()
        device = device_of(self.task.net)
        if device is not None:
            device.clock = state["clock"]

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
