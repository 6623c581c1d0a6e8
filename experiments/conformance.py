"""`hxtrain conformance`: check whether a backend keeps the contract."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from hxtrain.commands.conformance import conform, passed, result_rows
from hxtrain.runs.progress import Progress

from .app import command_line, guarded, run_directory, typed_settings, warn_without_effect
from .command import command
from .folders import alone


@command("conformance")
def main(config: DictConfig) -> None:
    """Run the suite; the exit status is 1 if a check fails."""
    if not guarded(alone(lambda: _conform(config), "conformance.json")):
        sys.exit(1)


def _conform(config: DictConfig) -> bool:
    settings = typed_settings(config)
    progress = Progress()
    folder = run_directory()
    warn_without_effect(settings.backend)
    with progress.console.status("opening the device") as status:
        results = conform(settings, folder, command_line(), status.update)
    columns = ("check", "verdict", "found, or the reason")
    progress.table(f"backend {settings.backend.name}", columns, result_rows(results))
    counts = [
        (kind, sum(r.verdict == kind for r in results)) for kind in ("pass", "fail", "not applicable", "excluded")
    ]
    verdicts = ", ".join(f"{count} {kind}" for kind, count in counts if count)
    progress.say(f"{verdicts}; conformance.json: {folder}")
    return passed(results)
