"""`hxtrain-compare`: the same weights and input on two targets; where do they part?"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from hxtrain.studies.compare import compare_checkpoint
from hxtrain.training import Progress

from .app import command_line, guarded, run_directory, typed, warn_without_effect
from .schema import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="compare")
def main(config: DictConfig) -> None:
    """Compare `checkpoint=PATH` on `backend`, `chip` with `other_backend`, `other_chip`."""
    guarded(lambda: _compare(config))


def _compare(config: DictConfig) -> None:
    settings, folder = typed(config), run_directory()
    warn_without_effect(settings.backend)
    warn_without_effect(settings.other_backend, "other_")
    progress = Progress()
    result = compare_checkpoint(settings, folder, command_line(), progress)
    progress.show("[bold]{}[/]", result["verdict"])
    progress.say(f"comparison.json and comparison.png: {folder}")
