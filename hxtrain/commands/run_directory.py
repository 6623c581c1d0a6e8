"""The directory of a run: its lock, its settings, and its result if it is finished."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hxtrain.runs.checkpoint import CheckpointError, previous_of, require_same
from hxtrain.runs.lock import locked
from hxtrain.runs.metrics import write_text
from hxtrain.runs.saved import read_result
from hxtrain.training.loop import CHECKPOINT


@contextlib.contextmanager
def run_folder(folder: Path, resume: bool) -> Iterator[None]:
    """Make the directory of a run, and hold its lock.

    Raises:
        CheckpointError: The directory cannot be written, holds another run, or has no run to resume.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"the run directory {folder} cannot be made ({error.strerror}); name another one (hydra.run.dir)"
        ) from error
    with locked(folder):
        _check_folder(resume, folder)
        yield


def _check_folder(resume: bool, folder: Path) -> None:
    """Raise an error for a directory that holds another run, or no run to continue.

    Raises:
        CheckpointError: `resume` (trainer.resume) contradicts the content of the directory.
    """
    has_checkpoint = (folder / CHECKPOINT).exists()
    if has_checkpoint and not resume:
        raise CheckpointError(
            f"{folder} holds a run already; continue it with trainer.resume=true, or name another hydra.run.dir"
        )
    if resume and not has_checkpoint:
        previous = previous_of(folder / CHECKPOINT)
        remedy = f"move {previous} there" if previous.exists() else "name the run's directory with hydra.run.dir"
        raise CheckpointError(f"trainer.resume=true, but {folder} holds no {CHECKPOINT}; {remedy}")


def finished(folder: Path, epochs: int, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result of a run that has trained all epochs; None for an unfinished run.

    Raises:
        CheckpointError: The run has other settings.
    """
    file = folder / "result.json"
    if not file.exists():
        return None
    outcome = read_result(file, {"epochs": int, "settings": dict, "test_accuracy": float})
    if outcome["epochs"] != epochs:
        return None
    runtime_prefixes = ("identity.", "data.sha256")  # known only after a start; not comparable with settings
    saved = {key: value for key, value in outcome["settings"].items() if not key.startswith(runtime_prefixes)}
    require_same(file, saved, settings)
    return outcome


def write_config(folder: Path, config: Any) -> None:
    """Write the settings of a run (a dataclass) into its directory."""
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(asdict(config))))
