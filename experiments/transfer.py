"""`hxtrain transfer`: train on one chip, evaluate on another."""

from __future__ import annotations

from omegaconf import DictConfig

from hxtrain.commands.transfer import transfer, transfer_rows
from hxtrain.runs.progress import Progress

from .app import command_line, guarded, run_directory, typed_settings
from .command import command
from .folders import alone
from .teacher import with_teacher


@command("transfer")
def main(config: DictConfig) -> None:
    """Train and evaluate on every one of `chips`."""
    guarded(alone(lambda: _transfer(config)))


def _transfer(config: DictConfig) -> None:
    settings = typed_settings(config)
    folder = run_directory()
    progress = Progress(settings.trainer.progress)
    result = transfer(with_teacher(settings, progress), folder, command_line(), progress)
    columns = ("trained on", *settings.chips)
    progress.table("test accuracy, evaluated on", columns, transfer_rows(result["accuracy"]))
    progress.say(", ".join(f"{name} {value:.2%}" for name, value in result["summary"].items()))
    progress.say(f"transfer.json and transfer.png: {folder}")
