"""Many checkpoints on a device: those of a sweep, one after the other; what is done already is not repeated."""

from __future__ import annotations

from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hxtrain.runs.checkpoint import CheckpointError, read_checkpoint, require_same
from hxtrain.runs.progress import Progress
from hxtrain.runs.saved import read_result
from hxtrain.training.loop import CHECKPOINT

from .evaluate import EvaluateConfig, evaluate_checkpoint, with_device
from .train import flatten

EVALUATION = "evaluation.json"
RUNS = {"backend.retries", "backend.max_runs", "backend.run_timeout"}
"""Settings of how runs are done, which change no recording."""
FREE_TO_CHANGE = {"own_device", "own_chip", "checkpoint", "match", "batch_size", "data_folder"} | RUNS
"""Settings that may differ from those of a finished evaluation; the checkpoint's hash is looked at instead."""


def evaluate_all(config: EvaluateConfig, folder: Path, command: str, progress: Progress) -> list[dict[str, Any]]:
    """Evaluate every finished run below the folder `config.checkpoint`, each in its own sub-folder of `folder`.

    Those whose path below the folder does not fit `config.match` are left aside.

    Returns:
        What each `evaluation.json` holds.

    Raises:
        CheckpointError: there is none.
    """
    runs = Path(config.checkpoint).expanduser()
    there = sorted(
        path for path in runs.rglob(CHECKPOINT) if fnmatchcase(str(path.parent.relative_to(runs)), config.match)
    )
    checkpoints = [path for path in there if path.with_name("result.json").exists()]
    for path in there:
        if path not in checkpoints:
            progress.warn(f"{path.parent} is left out: the run is not finished")
    if not checkpoints:
        which = "" if config.match == "*" else f" that matches {config.match!r}"
        raise CheckpointError(
            f"checkpoint={runs} is a folder without any finished run{which}; name a run's, or a sweep's folder"
        )
    found = []
    for number, checkpoint in enumerate(checkpoints, 1):
        name = checkpoint.parent.relative_to(runs)
        one = finished_evaluation(replace(config, checkpoint=str(checkpoint)), folder / name, command, progress)
        progress.say(
            f"{number} of {len(checkpoints)}: {name} {one['test_accuracy']:.2%}, "
            f"{one['hidden_spikes_per_sample']:.1f} hidden spikes per image"
        )
        found.append(one)
    return found


def finished_evaluation(config: EvaluateConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Return an evaluation: from `evaluation.json` if it is of this very checkpoint, made now otherwise.

    Raises:
        CheckpointError: the folder holds an evaluation with other settings.
    """
    config = with_device(config)
    file = folder / EVALUATION
    if file.exists():
        found = read_result(file, {"settings": dict, "test_accuracy": float, "hidden_spikes_per_sample": float})
        require_same(file, _compared(found["settings"]), _compared(flatten(asdict(config))))
        if _is_of(found, config, progress):
            return found
    folder.mkdir(parents=True, exist_ok=True)
    return evaluate_checkpoint(config, folder, command, Quiet(progress))


def _is_of(found: dict[str, Any], config: EvaluateConfig, progress: Progress) -> bool:
    """Return whether an evaluation is of the checkpoint; say why not."""
    saved, (_, sha256) = found.get("checkpoint_sha256"), read_checkpoint(Path(config.checkpoint).expanduser())
    if saved == sha256:
        return True
    why = "does not say which checkpoint it is of" if saved is None else "is of another checkpoint"
    progress.warn(f"{config.checkpoint} is evaluated anew: the evaluation that is there {why}")
    return False


def _compared(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in FREE_TO_CHANGE}


class Quiet(Progress):
    """Reports nothing: the training has said it."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(show=False, console=progress.console)

    def table(self, title: str, columns: tuple[str, ...], rows: Any) -> None:
        """Show nothing."""

    def _print(self, line: Any) -> None:
        """Show nothing."""
