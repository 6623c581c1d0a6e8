"""`hxtrain sensitivity`: measure the cost of each imperfection of a chip alone."""

from __future__ import annotations

from omegaconf import DictConfig

from hxtrain.commands.sensitivity import sensitivity, sensitivity_rows
from hxtrain.runs.progress import Progress

from .app import command_line, guarded, run_directory, typed_settings
from .command import command
from .folders import alone
from .teacher import with_teacher


@command("sensitivity")
def main(config: DictConfig) -> None:
    """Deploy and train on chips with one imperfection each."""
    guarded(alone(lambda: _sensitivity(config)))


def _sensitivity(config: DictConfig) -> None:
    settings = typed_settings(config)
    folder = run_directory()
    progress = Progress(settings.trainer.progress)
    result = sensitivity(with_teacher(settings, progress), folder, command_line(), progress)
    kinds = [f"{preset}, {kind}" for preset in settings.presets for kind in ("deployed", "in the loop")]
    progress.table("test accuracy", ("imperfection alone", *kinds), sensitivity_rows(result["accuracy"]))
    progress.say(f"sensitivity.json: {folder}")
