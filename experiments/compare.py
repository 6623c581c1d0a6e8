"""`hxtrain compare`: compare two devices on the same weights and input."""

from __future__ import annotations

from omegaconf import DictConfig

from hxtrain.commands.compare import compare_checkpoint
from hxtrain.runs.progress import Progress

from .app import command_line, guarded, run_directory, typed_settings, warn_without_effect
from .command import command
from .folders import alone


@command("compare")
def main(config: DictConfig) -> None:
    """Compare `checkpoint=PATH` on `backend`, `chip` with `other_backend`, `other_chip`."""
    guarded(alone(lambda: _compare(config), "comparison.json", "comparison.png"))


def _compare(config: DictConfig) -> None:
    settings = typed_settings(config)
    folder = run_directory()
    warn_without_effect(settings.backend)
    warn_without_effect(settings.other_backend, "other_")
    progress = Progress()
    result = compare_checkpoint(settings, folder, command_line(), progress)
    progress.show("[bold]{}[/]", result["verdict"])
    progress.say(f"comparison.json and comparison.png: {folder}")
