"""`hxtrain-transfer`: trained on one chip, evaluated on another."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from hxtrain.studies.transfer import transfer, transfer_rows
from hxtrain.training import Progress

from .app import command_line, guarded, run_directory, typed
from .schema import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="transfer")
def main(config: DictConfig) -> None:
    """Train and evaluate on every one of `chips`."""
    guarded(lambda: _transfer(config))


def _transfer(config: DictConfig) -> None:
    settings, folder = typed(config), run_directory()
    progress = Progress(settings.trainer.progress)
    found = transfer(settings, folder, command_line(), progress)
    columns = ("trained on", *settings.chips)
    progress.table("test accuracy, evaluated on", columns, transfer_rows(found["accuracy"]))
    progress.say(", ".join(f"{name} {value:.2%}" for name, value in found["summary"].items()))
    progress.say(f"transfer.json and transfer.png: {folder}")
