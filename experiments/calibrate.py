"""`hxtrain-calibrate`: calibrate a chip and keep the result in a file."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig
from rich.markup import escape

from hxtrain.studies.calibrate import calibrate_chip, outcome_rows
from hxtrain.training import Progress

from .app import command_line, guarded, typed
from .folders import own_directory
from .schema import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="calibrate")
def main(config: DictConfig) -> None:
    """Calibrate the chip that the config names."""
    guarded(lambda: _calibrate(config))


def _calibrate(config: DictConfig) -> None:
    settings, progress = typed(config), Progress()
    results = ["calibration.json", *([] if settings.file else [f"{settings.chip.name}.npz"])]
    with own_directory(*results) as folder:
        file, outcomes = calibrate_chip(settings, folder, command_line(), progress.say)
    progress.table(
        "calibration", ("parameter", "target", "median", "spread", "failed circuits"), outcome_rows(outcomes)
    )
    progress.say(f"written to {escape(str(file))}; use it with chip.calibration={escape(str(file))}")
