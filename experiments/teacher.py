"""The teacher of a named experiment: trained once, before the first run that uses it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from hxtrain.datasets import DataConfig
from hxtrain.objectives.distillation import Distillation
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.lock import locked
from hxtrain.runs.progress import Progress
from hxtrain.training.loop import CHECKPOINT, TrainingInterrupt

CODE = "import sys; sys.argv[0] = 'hxtrain'; from hxtrain.experiments.main import main; sys.exit(main())"
PATIENCE = 5.0
"""Interval of checks whether another process has trained the teacher (s)."""


class StudentConfig(Protocol):
    """Settings of a network that may learn from a teacher."""

    distillation: Distillation
    data: DataConfig


Settings = TypeVar("Settings", bound=StudentConfig)


def with_teacher(settings: Settings, progress: Progress, words: Sequence[str] = ()) -> Settings:
    """Return settings with the teacher of `distillation.experiment`, which is trained first if necessary.

    A teacher in `distillation.teacher` takes precedence, and is never trained here.

    Args:
        settings: Dataclass of the student; the teacher learns the same data.
        progress: Receiver of all reports.
        words: Further settings of the teacher.

    Raises:
        ValueError: No folder can hold the teacher.
        CheckpointError: The training of the teacher fails.
        TrainingInterrupt: SIGINT arrives; the same command continues the training of the teacher.
    """
    config = settings.distillation
    if config.experiment is None or config.paths:
        return settings
    words = [f"experiment={config.experiment}", *_data_words(settings.data), *words]
    folder = teacher_folder(config.experiment, words)
    if not (folder / "result.json").exists():
        _alone(folder, progress, lambda: _train(folder, words, progress))
    distillation = replace(config, teacher=str(folder / CHECKPOINT))
    return cast(Settings, replace(cast(Any, settings), distillation=distillation))


def teacher_folder(experiment: str, words: Sequence[str]) -> Path:
    """Return the folder of a teacher, in `$HXTRAIN_CACHE/teachers`, by default `~/.cache/hxtrain/teachers`.

    Raises:
        ValueError: The folder cannot be created.
    """
    root = os.environ.get("HXTRAIN_CACHE")
    name = experiment.rpartition("/")[2]
    if len(words) > 1:
        name += "-" + hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]
    try:
        folder = (Path(root) if root else Path.home() / ".cache" / "hxtrain") / "teachers" / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the teacher of this experiment cannot be kept: {error}; name a folder in HXTRAIN_CACHE, or train it with "
            f"`hxtrain ann experiment={experiment} hydra.run.dir=DIR` and give distillation.teacher=DIR/{CHECKPOINT}"
        ) from None
    return folder


def _data_words(data: DataConfig) -> list[str]:
    """Return the settings of the data that differ from the experiment."""
    default = asdict(DataConfig(data.name))
    return [
        f"data.{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in asdict(data).items()
        if value != default[key]
    ]


def _alone(folder: Path, progress: Progress, work: Callable[[], None]) -> None:
    """Do a work in a folder in a single process; other processes wait for its result."""
    guard = folder.with_name(f".{folder.name}")
    guard.mkdir(exist_ok=True)
    is_waiting = False
    while not (folder / "result.json").exists():
        try:
            with locked(guard):
                if not (folder / "result.json").exists():
                    work()
        except CheckpointError:
            if _failed(guard):
                raise
            if not is_waiting:
                progress.say(f"waiting for another process, which trains the teacher in {guard.parent}")
            is_waiting = True
            time.sleep(PATIENCE)


def _failed(guard: Path) -> bool:
    """Return whether no process holds the guard, which means that the training failed."""
    try:
        with locked(guard):
            return True
    except CheckpointError:
        return False


def _train(folder: Path, words: Sequence[str], progress: Progress) -> None:
    resume = (folder / CHECKPOINT).exists()
    command_text = f"hxtrain ann {' '.join(words)}"
    progress.say(f"this experiment learns from a teacher, which is {'continued' if resume else 'trained'} first, once:")
    progress.say(rf"  {command_text} \[{folder}]")
    place = f"hydra.run.dir={json.dumps(str(folder), ensure_ascii=False)}"
    command = [sys.executable, "-c", CODE, "ann", *words, place]
    status = subprocess.run([*command, f"trainer.resume={str(resume).lower()}"], check=False).returncode
    if status == 130:
        raise TrainingInterrupt("interrupted while the teacher was trained")
    if status:
        raise CheckpointError(
            f"the teacher could not be trained (`{command_text}`, exit status {status}; its text is above)"
        )
