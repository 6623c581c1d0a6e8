"""`hxtrain-calibrate`: calibrate a chip and keep the result in a file."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from hxtrain.studies.calibrate import calibrate_chip, outcome_rows
from hxtrain.training import Progress

from .app import command_line, guarded, run_directory, typed
from .schema import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="calibrate")
def main(config: DictConfig) -> None:
    """Calibrate the chip that the config names."""
    guarded(lambda: _calibrate(config))


def _calibrate(config: DictConfig) -> None:
    progress = Progress()
    file, outcomes = calibrate_chip(typed(config), run_directory(), command_line(), progress.say)
    progress.table(
        "calibration", ("parameter", "target", "median", "spread", "failed circuits"), outcome_rows(outcomes)
    )
    progress.say(f"written to {file}; use it with chip.calibration={file}")
