"""`hxtrain calibrate`: calibrate a chip and keep the result in a file."""

from __future__ import annotations

import shlex

from omegaconf import DictConfig

from hxtrain.commands.calibrate import calibrate_chip, outcome_rows
from hxtrain.runs.progress import Progress

from .app import command_line, guarded, typed_settings
from .command import command
from .folders import own_directory
from .words import quote


@command("calibrate")
def main(config: DictConfig) -> None:
    """Calibrate the chip that the config names."""
    guarded(lambda: _calibrate(config))


def _calibrate(config: DictConfig) -> None:
    settings = typed_settings(config)
    progress = Progress()
    results = ["calibration.json", *([] if settings.file else [f"{settings.chip.name}.npz"])]
    with own_directory(*results) as folder:
        file, outcomes = calibrate_chip(settings, folder, command_line(), progress.say)
    progress.table(
        "calibration", ("parameter", "target", "median", "spread", "failed circuits"), outcome_rows(outcomes)
    )
    use = shlex.quote(f"chip.calibration={quote(str(file.absolute()))}")
    progress.say(f"written to {file}; use it with {use}")
