"""Files of a finished run: `result.json`, the weights as sent, plots."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hxtrain.backends.files import replacing
from hxtrain.datasets import Dataset, ImageSource, Samples, Split
from hxtrain.execution import device_of, sent_weights
from hxtrain.network import Network
from hxtrain.network.samples import pass_sample
from hxtrain.objectives.losses import predictions
from hxtrain.plots import style
from hxtrain.plots import training as plots
from hxtrain.plots.continual import tasks_figure
from hxtrain.runs.progress import Progress
from hxtrain.runs.versions import processor, versions
from hxtrain.training.evaluation import Evaluation
from hxtrain.training.selection import NOTHING
from hxtrain.training.sequence import SequenceTrainer
from hxtrain.training.trainer import Trainer

from .masking import densities
from .rule_plots import draw_rule_plots

PLOTTED_SAMPLES = 4
NO_SPIKES = torch.zeros(0), torch.zeros(0, dtype=torch.long)
"""Times and units of the hidden spikes of a network without a hidden population."""
PLANE_SIDE = 80
"""Points per side of the grid that is classified for a plot."""


class TrainedRun(Protocol):
    """A training loop after its last epoch, as a result needs it."""

    @property
    def records(self) -> list[dict[str, Any]]:
        """One record per epoch."""

    @property
    def seed(self) -> int:
        """Seed of the run."""

    @property
    def train(self) -> Samples:
        """Training samples in use."""

    @property
    def test(self) -> Samples:
        """Test samples in use."""

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that identify the run."""


def result(
    trainer: Trainer,
    final: Evaluation,
    identity: Mapping[str, str],
    command: str,
    seconds: float,
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the content of `result.json`.

    Args:
        trainer: Trainer after its last epoch.
        final: Evaluation that counts, see `Trainer.fit`.
        identity: Identity of the device.
        command: Command that started the run.
        seconds: Elapsed time of this process (s).
        remarks: Warnings and notes of this process.
    """
    records = [*trainer.records, *trainer.selection.retrained_records]
    samples = trainer.evaluated_samples
    measured = {
        **_training_figures(trainer),
        "test_accuracy": final.accuracy,
        **trainer.summary(),
        "evaluated_on": "test" if trainer.selection.reserved_test is not None else trainer.task.data.evaluated_on,
        "test_samples": samples,
        "densities": densities(trainer.task.net),
        "hidden_spikes_per_sample": final.hidden_spikes_per_sample,
        **device_cost(final, samples),
        **input_events(final),
        "training_seconds": sum(record["seconds"] for record in records),
        "dropped_spikes": sum(record["dropped_spikes"] for record in records),
        "retries": sum(record["retries"] for record in records),
        "notes": all_notes((note for record in records for note in record["notes"]), remarks),
    }
    return outcome(trainer, trainer.task.data, identity, command, seconds, measured)


def _training_figures(trainer: Trainer) -> dict[str, Any]:
    """Return the training figures of the epoch whose weights count, and what these are."""
    selection = trainer.selection
    reserved = trainer.task.data.reserved
    best = selection.best
    name = "the last epoch"
    record = trainer.records[-1]
    n_samples = len(trainer.train)
    if selection.retrained_records and reserved is not None:
        name = "the last epoch of the retraining"
        record = selection.retrained_records[-1]
        n_samples = trainer.config.train_samples or len(reserved.train)
    elif best is not None and best.epoch < len(trainer.records):
        name = f"epoch {best.epoch}, the chosen one"
        record = trainer.records[best.epoch - 1]
    return {
        "train_accuracy": record["train_accuracy"],
        "train_loss": record["train_loss"],
        "train_accuracy_meaning": f"running mean over {name}, during training",
        "train_samples": n_samples,
    }


def outcome(
    loop: TrainedRun,
    data: Dataset,
    identity: Mapping[str, str],
    command: str,
    seconds: float,
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the result of any training run. The arguments are those of `result`, and further measurements."""
    records = loop.records
    training_time = sum(record["seconds"] for record in records)
    values = {
        "test_accuracy": records[-1]["test_accuracy"],
        "evaluated_on": data.evaluated_on,
        "selected_on": NOTHING,
        "selected_epoch": len(records),
        "validation_accuracy": records[-1]["test_accuracy"] if data.evaluated_on == "validation" else None,
        "train_accuracy": records[-1]["train_accuracy"],
        "train_loss": records[-1]["train_loss"],
        "train_accuracy_meaning": "running mean over the last epoch, during training",
        "epochs": len(records),
        **identity,
        "seed": loop.seed,
        "seconds": seconds,
        "training_seconds": training_time,
        "samples_per_second": len(records) * len(loop.train) / training_time,
        "command": command,
        "data": data.name,
        "data_size": data.size,
        "data_sha256": data.sha256,
        "data_note": data.note,
        "train_samples": len(loop.train),
        "test_samples": len(loop.test),
        "settings": loop.settings,
        "versions": versions(),
        "processor": processor(),
    }
    return values | dict(measured)


def input_events(final: Evaluation) -> dict[str, float | None]:
    """Return the mean numbers of input events of a test sample: within the window, and after it (lost)."""
    return {
        "input_events_per_sample": final.input_events_per_sample,
        "late_input_events_per_sample": final.late_input_events_per_sample,
    }


def all_notes(device: Iterable[str], remarks: Iterable[str]) -> list[str]:
    """Return the notes of a device and the remarks to the user, without repetitions."""
    notes = list(dict.fromkeys(device))
    return notes + [remark for remark in dict.fromkeys(remarks) if not any(remark.endswith(note) for note in notes)]


def device_cost(final: Evaluation, samples: int) -> dict[str, Any]:
    """Return the costs and the decision time of a test sample, with the origin of the energy."""
    costs = final.costs
    totals = {
        "chip_seconds": costs.chip_time,
        "wait_seconds": costs.wait_time,
        "host_seconds": costs.host_time,
        "chip_joules": costs.energy,
    }
    return {
        **{f"{name}_per_sample": None if value is None else value / samples for name, value in totals.items()},
        "energy_origin": costs.energy_origin,
        "energy_assumption": costs.energy_assumption,
        "decision_seconds": final.decision_time,
        "decision_seconds_95": final.decision_time_95,
    }


def save_weights(path: Path, net: Network) -> None:
    """Write the weights as sent, one array `[post, pre]` per projection (`.npz`, no pickle)."""
    arrays: dict[str, Any] = {name: weight.cpu().numpy() for name, weight in sent_weights(net).items()}
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)


@contextmanager
def optional_plots(progress: Progress) -> Iterator[None]:
    """Turn an error of writing plots into a warning: the results are already written."""
    try:
        yield
    except OSError as error:
        progress.warn(f"plots are missing, all else is written: {error.filename}: {error.strerror}")


def draw_plots(folder: Path, trainer: Trainer, final: Evaluation) -> None:
    """Draw learning curves, some samples, weights, the confusion matrix, and what fits the data and the rule."""
    if folder.is_symlink():
        raise OSError(errno.ELOOP, "it is a link to somewhere else, which no run makes", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    net = trainer.task.net
    device = device_of(net)
    evaluated_on = trainer.task.data.evaluated_on
    plots.plot_learning_curves(trainer.records, folder / "learning_curves.png", evaluated_on)
    plots.plot_confusion(final.confusion, trainer.task.data.classes, folder / "confusion.png")
    plots.plot_samples(sample_views(trainer), folder / "samples.png")
    if isinstance(trainer, SequenceTrainer):
        style.save(tasks_figure(trainer.matrix.rows, evaluated_on), folder / "tasks.png")
    if device is not None and device.plan is not None:
        limit = device.plan.capabilities.weight_max
        plots.plot_weights(sent_weights(net), folder / "weights.png", limit)
    if trainer.task.data.plane is not None:
        grid = trainer.task.data.plane(PLANE_SIDE)
        plots.plot_plane(answer_grid(trainer, grid), grid.labels, trainer.task.data.classes, folder / "plane.png")
    draw_rule_plots(folder, trainer)


@torch.no_grad()
def answer_grid(trainer: Trainer, grid: Split) -> Tensor:
    """Run the points of a grid that have a class, and return their answers; -1 at points without a class."""
    task = trainer.task
    source = task.source(grid)
    inner_points = (grid.labels >= 0).nonzero()[:, 0]
    answers = torch.full_like(grid.labels, -1)
    for indices in torch.split(inner_points, trainer.config.evaluation_batch_size):
        activity = task.net(source.spikes(indices))
        answers[indices] = predictions(task.loss.scores(task.loss.read(activity))).cpu()
    return answers


@torch.no_grad()
def sample_views(trainer: Trainer) -> list[plots.SampleView]:
    """Run the first test samples and return their spikes and membranes."""
    task = trainer.task
    count = min(PLOTTED_SAMPLES, len(trainer.test))
    indices = torch.arange(count)
    source = trainer.test_source
    values = source.intensities(indices) if isinstance(source, ImageSource) else [None] * count
    spikes = source.spikes(indices)
    activity = task.net(spikes)
    answers = predictions(task.loss.scores(task.loss.read(activity)))
    is_readout = task.net.output_kind == "membranes"
    events = activity.hidden[-1].times(task.net.dt) if activity.hidden else None
    window = task.net.steps * task.net.dt
    output_events = None if is_readout else activity.layers[-1].times(task.net.dt)
    views = []
    for index in range(count):
        is_input = (spikes.sample == index) & (spikes.time < window)
        hidden_times, hidden_units = NO_SPIKES
        if events is not None:
            is_hidden = (events.sample == index) & (events.time < window)
            hidden_times, hidden_units = events.time[is_hidden], events.unit[is_hidden]
        output = None
        if output_events is not None:
            is_output = (output_events.sample == index) & (output_events.time < window)
            output = output_events.time[is_output], output_events.unit[is_output]
        views.append(
            plots.SampleView(
                values=values[index],
                input_times=spikes.time[is_input],
                input_units=spikes.unit[is_input],
                hidden_times=hidden_times,
                hidden_units=hidden_units,
                measured=activity.readout[:, index] if is_readout else None,
                modelled=pass_sample(task.net, activity, index).membranes[-1].modelled if is_readout else None,
                dt=task.net.dt,
                label=int(trainer.test.labels[index]),
                prediction=int(answers[index]),
                inputs=spikes.units,
                hidden=0 if events is None else events.units,
                output=output,
                classes=activity.output.shape[2],
                window=window,
            )
        )
    return views
