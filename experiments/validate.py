"""`hxtrain validate`: compare the emulated chip with published measurements."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from hxtrain.commands.validate.check import check_rows
from hxtrain.commands.validate.run import validate
from hxtrain.runs.progress import Progress

from .app import command_line, guarded, run_directory, typed_settings
from .command import command
from .folders import alone


@command("validate")
def main(config: DictConfig) -> None:
    """Run all checks; the exit status is 1 if one fails."""
    if not guarded(alone(lambda: _validate(config), "validation.json")):
        sys.exit(1)


def _validate(config: DictConfig) -> bool:
    progress = Progress()
    folder = run_directory()
    checks = validate(typed_settings(config), folder, command_line(), progress.say)
    progress.table("emulated chip", ("statistic", "measured", "bound", "verdict", "source"), check_rows(checks))
    n_passed = sum(check.passed for check in checks)
    progress.say(f"{n_passed} of {len(checks)} checks pass; validation.json: {folder}")
    return n_passed == len(checks)
