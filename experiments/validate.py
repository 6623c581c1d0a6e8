"""`hxtrain-validate`: the emulated chip against published measurements."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from hxtrain.studies.validate import check_rows, validate
from hxtrain.training import Progress

from .app import command_line, guarded, run_directory, typed
from .schema import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="validate")
def main(config: DictConfig) -> None:
    """Run all checks; the exit status is 1 if one fails."""
    if not guarded(lambda: _validate(config)):
        sys.exit(1)


def _validate(config: DictConfig) -> bool:
    progress, folder = Progress(), run_directory()
    checks = validate(typed(config), folder, command_line(), progress.say)
    progress.table("emulated chip", ("statistic", "measured", "bound", "verdict", "source"), check_rows(checks))
    passed = sum(check.passed for check in checks)
    progress.say(f"{passed} of {len(checks)} checks pass; validation.json: {folder}")
    return passed == len(checks)
