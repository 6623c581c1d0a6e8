"""A whole training run from settings to `result.json`, for the command line and for library users."""

from __future__ import annotations

import io
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from hxtrain.ann.teachers import introduce_teacher, load_teacher
from hxtrain.checks import require_kind, text
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.progress import Progress
from hxtrain.trackers import TrackedRun, require_trackers, tracked
from hxtrain.training.loop import CHECKPOINT
from hxtrain.training.parallel import Team, team
from hxtrain.training.retraining import steps_done, train
from hxtrain.training.sequence import SequenceTrainer, task_loss, trainer_of
from hxtrain.training.task import Task
from hxtrain.training.weights import load_weights

from .construction import attached, build_network, introduce, torch_device
from .identity import device_identity, identified_settings, joined, run_settings
from .live import live_view
from .masking import mask_before_placement, mask_on_device, regularizers, warn_of_first_task
from .recorded_chip import at_recorded_chip
from .result import draw_plots, optional_plots, result, save_weights
from .run_directory import finished, run_folder, write_config
from .settings import RunConfig


def run(
    config: RunConfig, folder: str | Path, command: str = "", progress: Progress | None = None, group: str = ""
) -> dict[str, Any]:
    """Train and evaluate a network, and write everything into the run directory.

    Args:
        config: All settings.
        folder: Run directory; `config.yaml`, `checkpoint.pt`, `metrics.jsonl`, `weights.npz`, `result.json`, `plots/`.
        command: Command that starts the run, for the record.
        progress: Receiver of all reports.
        group: Name of the sweep or study that the run is part of, for trackers.

    Returns:
        Content of `result.json`.

    Raises:
        CheckpointError: The directory cannot be written, holds another run, or has no run to resume.
        TrainingInterrupt: SIGINT arrives; the state is saved.
        TypeError: An argument is of the wrong type.
        ValueError: A setting is out of range.
    """
    require_kind(config, RunConfig, "config", "run(RunConfig(...), folder)")
    folder = Path(text("folder", folder)).expanduser()
    progress = progress or Progress(config.trainer.progress)
    with team(progress.say) as members:
        folder = Path(members.gather(str(folder))[0])
        if not members.leads:
            silent = Progress(False, Console(file=io.StringIO()))
            return _run(replace(config, tracker={}), folder, command, silent, members, group)
        with run_folder(folder, config.trainer.resume):
            return _run(config, folder, command, progress, members, group)


def complete(
    config: RunConfig, folder: str | Path, command: str = "", progress: Progress | None = None, group: str = ""
) -> dict[str, Any]:
    """Start or continue a run, or return its result if it is finished. The arguments are those of `run`.

    Raises:
        CheckpointError: The directory holds a run with other settings.
    """
    folder = Path(folder)
    outcome = finished(folder, config.tasks.phases * config.trainer.epochs, run_settings(config))
    if outcome is not None:
        (progress or Progress(config.trainer.progress)).say(
            f"{folder.name}: finished before, {outcome['test_accuracy']:.2%}"
        )
        return outcome
    trainer = replace(config.trainer, resume=(folder / CHECKPOINT).exists())
    return run(replace(config, trainer=trainer), folder, command, progress, group)


def _run(
    config: RunConfig, folder: Path, command: str, progress: Progress, members: Team, group: str
) -> dict[str, Any]:
    start = time.perf_counter()
    require_trackers(config.tracker, folder, config.trainer.resume)
    devices = _with_devices(config, members, folder)
    n_previous_remarks = len(progress.remarks)
    data = config.data.load()
    accelerator = torch_device(config.trainer.torch_device)
    teacher = load_teacher(config.distillation, data, config.data, accelerator)
    net = build_network(config, data).to(accelerator)
    if config.trainer.initial is not None:
        load_weights(net, config.trainer.initial)
    first = config.tasks.dataset(data, 0)
    is_masked = mask_before_placement(config, net, first, folder)
    with tuned(config.trainer.threads), attached(devices.backend, devices.chip, net) as device:
        if not is_masked:
            mask_on_device(config, net, first, members)
        identity = joined(members.gather(device_identity(device)))
        task = Task(
            net,
            config.encoder,
            task_loss(config.loss, config.tasks),
            regularizers(config, data),
            first,
            config.augment,
            teacher,
            rule=config.rule,
            optimizer=config.optimizer,
            constraints=config.constraint,
        )
        settings = identified_settings(config, identity, data)
        trainer = trainer_of(task, config.tasks, data, config.trainer, config.seed, folder, settings, progress, members)
        trainer.prepare()  # precedes all reports, since they are logged in the run directory
        if members.leads:
            write_config(folder, config)
        introduce(progress, net, data, identity)
        warn_of_first_task(config, progress)
        _warn_without_drift(config, progress)
        introduce_teacher(progress, config.distillation, teacher)
        tracked_run = TrackedRun(
            folder.name, group, "", asdict(config), folder, steps_done(trainer), config.trainer.resume
        )
        with tracked(tracked_run, config.tracker, progress, net) as tracking:
            with live_view(config.live and members.leads, config.view, trainer, net, folder, progress):
                final = train(trainer)
            if isinstance(trainer, SequenceTrainer):
                progress.table("test accuracy (%)", *trainer.matrix.table())
            remarks = progress.remarks[n_previous_remarks:]
            outcome = result(trainer, final, identity, command, time.perf_counter() - start, remarks)
            if members.leads:
                save_weights(folder / "weights.npz", net)
                write_json(folder / "result.json", outcome)
            if members.leads and config.trainer.plots:
                with optional_plots(progress):
                    draw_plots(folder / "plots", trainer, final)
            tracking.artifacts(folder)
    return outcome


def _with_devices(config: RunConfig, members: Team, folder: Path) -> RunConfig:
    """Return the settings, with chip and address of this process; at a pool, the chip of a run that goes on."""
    chip = members.entry(config.parallel.chips, "chips")
    address = members.entry(config.parallel.addresses, "addresses")
    if chip is not None:
        config = replace(config, chip=replace(config.chip, name=chip))
    if config.backend.record is not None and members.size > 1:
        raise ValueError(
            f"backend.record={config.backend.record}: {members.size} processes cannot share an archive; record a run "
            "in a single process, without torchrun"
        )
    if address is not None:
        settings = {**config.backend.settings, "address": address}
        config = replace(config, backend=replace(config.backend, settings=settings))
    if config.trainer.resume:
        config = replace(config, backend=at_recorded_chip(config.backend, folder / CHECKPOINT, members.rank))
    return config


def _warn_without_drift(config: RunConfig, progress: Progress) -> None:
    """Warn of a pause between tasks in which the emulated chip does not drift."""
    if config.tasks.idle_time > 0 and config.backend.name == "emulator" and not config.chip.changes.get("drift_sd"):
        progress.warn(
            "tasks=drift: nothing drifts in the pause, since the emulated chip has chip.changes.drift_sd=0; set it, "
            "such as chip.changes.drift_sd=25"
        )
