"""An artificial neural network on the same data: the baseline of the same size, or a teacher for distillation."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from hxtrain.datasets import DataConfig, ImageDataset
from hxtrain.models import MLPConfig, ModelConfig
from hxtrain.training.ann import AnnTask, AnnTrainer
from hxtrain.training.augment import Augmentation
from hxtrain.training.config import AnnTrainerConfig
from hxtrain.training.lock import locked
from hxtrain.training.loop import CHECKPOINT
from hxtrain.training.metrics import write_json
from hxtrain.training.process import tuned
from hxtrain.training.progress import Progress
from hxtrain.training.randomness import seeded
from hxtrain.training.report import outcome
from hxtrain.training.run import check_folder, finished, step_settings, torch_device, write_config
from hxtrain.training.teachers import ANN

IDENTITY = {"backend": ANN, "chip": "none", "chip_hash": "none"}
"""Where it runs, in the terms of the spiking networks' results."""


@dataclass
class AnnConfig:
    """All settings of a run.

    Attributes:
        seed: of the initial weights, data order, dropout and augmentation.
    """

    seed: int = 0
    model: ModelConfig = field(default_factory=MLPConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: Augmentation = field(default_factory=Augmentation)
    trainer: AnnTrainerConfig = field(default_factory=AnnTrainerConfig)


def train_ann(config: AnnConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Train, evaluate, and write `config.yaml`, `checkpoint.pt`, `metrics.jsonl`, `result.json` into `folder`.

    Returns:
        What `result.json` holds.

    Raises:
        CheckpointError: the directory holds another run, or none to continue, or is in use.
        TrainingInterrupt: by SIGINT, and there is a checkpoint to continue from.
        ValueError: a setting or the loss is not usable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder), tuned(config.trainer.threads):
        check_folder(config.trainer.resume, folder)
        begin = time.perf_counter()
        told = len(progress.remarks)
        data, where = config.data.load(), torch_device(config.trainer.torch_device)
        config.augment.check(data)
        task, settings = _task(config, data, where), {**_settings(config), "data.sha256": data.sha256}
        size = {"parameters": sum(parameter.numel() for parameter in task.model.parameters())}
        trainer = AnnTrainer(task, config.trainer, config.seed, folder, settings, progress, where)
        trainer.prepare()
        write_config(folder, config)
        progress.say(
            f"{settings['model.kind'].removesuffix('Config')} of {size['parameters']} parameters on {data.title}"
        )
        trainer.fit()
        found = outcome(
            trainer, data, IDENTITY, command, time.perf_counter() - begin, size | {"notes": progress.remarks[told:]}
        )
        write_json(folder / "result.json", found)
    return found


def complete_ann(config: AnnConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Finish a run: start it, continue it, or return its result if it is finished; arguments as those of `train_ann`.

    Raises:
        CheckpointError: the directory holds a run with other settings.
    """
    found = finished(folder, config.trainer.epochs, _settings(config))
    if found is not None:
        progress.say(f"{folder.name}: finished before, {found['test_accuracy']:.2%}")
        return found
    trainer = replace(config.trainer, resume=(folder / CHECKPOINT).exists())
    return train_ann(replace(config, trainer=trainer), folder, command, progress)


def _task(config: AnnConfig, data: ImageDataset, where: torch.device) -> AnnTask:
    """Return what is learnt, with weights drawn from the seed."""
    with seeded(config.seed, "weights"):
        model = config.model.build(data.shape, len(data.classes))
    return AnnTask(model.to(where), data, config.augment)


def _settings(config: AnnConfig) -> dict[str, Any]:
    """Return all settings, flat, that change a step."""
    return {**step_settings(config, config.trainer), "model.kind": type(config.model).__name__}
