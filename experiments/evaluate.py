"""`hxtrain evaluate`: any checkpoint, or all below a folder, on any device."""

from __future__ import annotations

import warnings
from pathlib import Path

from omegaconf import DictConfig

from hxtrain.commands.evaluate import evaluate_checkpoint
from hxtrain.commands.evaluations import EVALUATION, evaluate_all, finished_evaluation
from hxtrain.runs.progress import Progress, hidden_spikes

from .app import command_line, guarded, in_sweep, names_device, typed_settings, warn_without_effect
from .command import command
from .folders import own_directory


@command("evaluate")
def main(config: DictConfig) -> None:
    """Evaluate `checkpoint=PATH`, a file or a folder of runs, on the device that the config names."""
    guarded(lambda: _evaluate(config))


def _evaluate(config: DictConfig) -> None:
    settings = typed_settings(config)
    if settings.own_device is None and names_device():
        settings.own_device = False
    warn_without_effect(settings.backend)
    if settings.silenced_seed and not settings.silenced:
        warnings.warn(f"silenced_seed={settings.silenced_seed} has no effect: silenced=0", stacklevel=2)
    progress = Progress()
    if Path(settings.checkpoint).expanduser().is_dir():
        with own_directory() as folder:
            evaluate_all(settings, folder, command_line(), progress)
        return
    if settings.match != "*":
        warnings.warn(f"match={settings.match} has no effect: checkpoint is a single run", stacklevel=2)
    work = finished_evaluation if in_sweep() else evaluate_checkpoint
    with own_directory(*([] if in_sweep() else [EVALUATION])) as folder:
        result = work(settings, folder, command_line(), progress)
    progress.show(
        "{} accuracy [bold]{}[/] on backend {}, chip {} ({}){}",
        result["evaluated_on"],
        f"{result['test_accuracy']:.2%}",
        result["backend"],
        result["chip"],
        result["chip_hash"],
        hidden_spikes(result),
    )
    progress.say(f"{EVALUATION}: {folder}")
