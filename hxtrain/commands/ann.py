"""Training of an artificial neural network on the same data: a baseline of the same size, or a teacher."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Dict  # noqa: UP035

import torch

from hxtrain.ann.models import MLPConfig, ModelConfig, model_name
from hxtrain.ann.teachers import ANN
from hxtrain.ann.trainer import AnnTask, AnnTrainer
from hxtrain.datasets import DataConfig, Dataset
from hxtrain.datasets.augment import ImageAugmentation
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.progress import Progress
from hxtrain.runs.randomness import seeded
from hxtrain.trackers import TrackedRun, Tracker, require_trackers, tracked
from hxtrain.training.config import AnnTrainerConfig
from hxtrain.training.loop import CHECKPOINT
from hxtrain.view.config import ViewConfig

from .construction import torch_device
from .identity import step_settings
from .live import live_view
from .result import outcome
from .run_directory import finished, run_folder, write_config
from .settings import check_parts

IDENTITY = {"backend": ANN, "chip": "none", "chip_hash": "none"}
"""Identity of the device in results, in the terms of spiking networks."""


@dataclass
class AnnConfig:
    """All settings of a run.

    Attributes:
        seed: Seed of initial weights, data order, dropout and augmentation.
        live: Whether to serve a page that shows the training while it runs, see `view`.
        tracker: Where the run is logged besides its directory, by name.
    """

    seed: int = 0
    live: bool = False
    model: ModelConfig = field(default_factory=MLPConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: ImageAugmentation = field(default_factory=ImageAugmentation)
    trainer: AnnTrainerConfig = field(default_factory=AnnTrainerConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    tracker: Dict[str, Tracker] = field(default_factory=dict)  # noqa: UP006

    def __post_init__(self) -> None:
        check_parts(self)


def train_ann(config: AnnConfig, folder: Path, command: str, progress: Progress, group: str = "") -> dict[str, Any]:
    """Train and evaluate a network; write `config.yaml`, `checkpoint.pt`, `metrics.jsonl`, `result.json` into `folder`.

    Returns:
        Content of `result.json`.

    Raises:
        CheckpointError: The directory holds another run, has no run to continue, or is in use.
        TrainingInterrupt: SIGINT arrives, and there is a checkpoint to continue from.
        ValueError: A setting is invalid, or the loss is not finite.
    """
    with run_folder(folder, config.trainer.resume), tuned(config.trainer.threads):
        start = time.perf_counter()
        require_trackers(config.tracker, folder, config.trainer.resume)
        n_previous_remarks = len(progress.remarks)
        data = config.data.load()
        accelerator = torch_device(config.trainer.torch_device)
        config.augment.check(data.train, data.title)
        task = _task(config, data, accelerator)
        settings = {**step_settings(config, config.trainer), "data.sha256": data.sha256}
        measured: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in task.model.parameters())}
        trainer = AnnTrainer(task, config.trainer, config.seed, folder, settings, progress, accelerator)
        trainer.prepare()
        write_config(folder, config)
        progress.say(f"{model_name(type(config.model))} of {measured['parameters']} parameters on {data.title}")
        run = TrackedRun(folder.name, group, "", asdict(config), folder, trainer.steps_done, config.trainer.resume)
        with tracked(run, config.tracker, progress) as tracking:
            with live_view(config.live, config.view, trainer, task.model, folder, progress):
                trainer.fit()
            measured["notes"] = progress.remarks[n_previous_remarks:]
            result = outcome(trainer, data, IDENTITY, command, time.perf_counter() - start, measured)
            write_json(folder / "result.json", result)
            tracking.artifacts(folder)
    return result


def complete_ann(config: AnnConfig, folder: Path, command: str, progress: Progress, group: str = "") -> dict[str, Any]:
    """Start or continue a run, or return its result if it is finished. The arguments are those of `train_ann`.

    Raises:
        CheckpointError: The directory holds a run with other settings.
    """
    result = finished(folder, config.trainer.epochs, step_settings(config, config.trainer))
    if result is not None:
        progress.say(f"{folder.name}: finished before, {result['test_accuracy']:.2%}")
        return result
    trainer = replace(config.trainer, resume=(folder / CHECKPOINT).exists())
    return train_ann(replace(config, trainer=trainer), folder, command, progress, group)


def _task(config: AnnConfig, data: Dataset, accelerator: torch.device) -> AnnTask:
    """Return the learning task, with weights drawn from the seed."""
    with seeded(config.seed, "weights"):
        model = config.model.build(data.shape, len(data.classes))
    return AnnTask(model.to(accelerator), data, config.augment)
