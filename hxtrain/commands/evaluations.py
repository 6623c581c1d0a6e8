"""Evaluation of all checkpoints of a sweep on a device; finished evaluations are not repeated."""

from __future__ import annotations

from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hxtrain.runs.checkpoint import CheckpointError, read_checkpoint, require_same
from hxtrain.runs.progress import Progress, hidden_spikes
from hxtrain.runs.saved import read_result
from hxtrain.training.loop import CHECKPOINT
from hxtrain.training.retraining import FOLDER as RETRAINING

from .evaluate import EvaluateConfig, evaluate_checkpoint, with_device
from .identity import flatten

EVALUATION = "evaluation.json"
RUNS = {"backend.retries", "backend.max_runs", "backend.run_timeout"}
"""Settings of the execution of runs, which change no recording."""
FREE_TO_CHANGE = {
    "own_device",
    "own_chip",
    "checkpoint",
    "match",
    "batch_size",
    "data_folder",
    "modules",
    "plots",
} | RUNS
"""Settings that may differ from a finished evaluation; the hash of the checkpoint is compared instead."""


def evaluate_all(config: EvaluateConfig, folder: Path, command: str, progress: Progress) -> list[dict[str, Any]]:
    """Evaluate every finished run below the folder `config.checkpoint`, each in a separate sub-folder of `folder`.

    Runs whose path below the folder does not match `config.match` are skipped.

    Returns:
        Content of each `evaluation.json`.

    Raises:
        CheckpointError: There is no finished run.
    """
    runs = Path(config.checkpoint).expanduser()
    candidates = sorted(
        path
        for path in runs.rglob(CHECKPOINT)
        if path.parent.name != RETRAINING and fnmatchcase(str(path.parent.relative_to(runs)), config.match)
    )
    checkpoints = [path for path in candidates if path.with_name("result.json").exists()]
    for path in candidates:
        if path not in checkpoints:
            progress.warn(f"{path.parent} is left out: the run is not finished")
    if not checkpoints:
        condition = "" if config.match == "*" else f" that matches {config.match!r}"
        raise CheckpointError(
            f"checkpoint={runs} is a folder without any finished run{condition}; name a run's, or a sweep's folder"
        )
    evaluations = []
    for number, checkpoint in enumerate(checkpoints, 1):
        name = checkpoint.parent.relative_to(runs)
        evaluation = finished_evaluation(replace(config, checkpoint=str(checkpoint)), folder / name, command, progress)
        progress.say(
            f"{number} of {len(checkpoints)}: {name} {evaluation['test_accuracy']:.2%}{hidden_spikes(evaluation)}"
        )
        evaluations.append(evaluation)
    return evaluations


def finished_evaluation(config: EvaluateConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Return the evaluation of a checkpoint: from `evaluation.json` if the hash matches, otherwise a new one.

    Raises:
        CheckpointError: The folder holds an evaluation with other settings.
    """
    config = with_device(config)
    file = folder / EVALUATION
    if file.exists():
        kinds = {"settings": dict, "test_accuracy": float, "hidden_spikes_per_sample": (float, type(None))}
        evaluation = read_result(file, kinds)
        require_same(file, _compared(evaluation["settings"]), _compared(flatten(asdict(config))))
        if _is_of(evaluation, config, progress):
            return evaluation
    folder.mkdir(parents=True, exist_ok=True)
    return evaluate_checkpoint(config, folder, command, SilentProgress(progress))


def _is_of(evaluation: dict[str, Any], config: EvaluateConfig, progress: Progress) -> bool:
    """Return whether an evaluation belongs to the checkpoint; otherwise report the reason."""
    saved = evaluation.get("checkpoint_sha256")
    sha256 = read_checkpoint(Path(config.checkpoint).expanduser()).sha256
    if saved == sha256:
        return True
    reason = "does not say which checkpoint it is of" if saved is None else "is of another checkpoint"
    progress.warn(f"{config.checkpoint} is evaluated anew: the existing evaluation {reason}")
    return False


def _compared(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in FREE_TO_CHANGE}


class SilentProgress(Progress):
    """Progress without output, since the training has already reported the same."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(show=False, console=progress.console)

    def table(self, title: str, columns: tuple[str, ...], rows: Any) -> None:
        """Show nothing."""

    def _print(self, line: Any) -> None:
        """Show nothing."""
