"""`hxtrain-evaluate`: any checkpoint, or all below a folder, on any device."""

from __future__ import annotations

import warnings
from pathlib import Path

import hydra
from omegaconf import DictConfig

from hxtrain.studies.evaluate import evaluate_checkpoint
from hxtrain.studies.evaluations import evaluate_all
from hxtrain.training import Progress

from .app import command_line, guarded, run_directory, typed, warn_without_effect
from .schema import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    """Evaluate `checkpoint=PATH`, a file or a folder of runs, on the device that the config names."""
    guarded(lambda: _evaluate(config))


def _evaluate(config: DictConfig) -> None:
    settings = typed(config)
    warn_without_effect(settings.backend)
    if settings.silenced_seed and not settings.silenced:
        warnings.warn(f"silenced_seed={settings.silenced_seed} has no effect: silenced=0", stacklevel=2)
    progress = Progress()
    if Path(settings.checkpoint).expanduser().is_dir():
        evaluate_all(settings, run_directory(), command_line(), progress)
        return
    if settings.match != "*":
        warnings.warn(f"match={settings.match} has no effect: checkpoint is a single run", stacklevel=2)
    result = evaluate_checkpoint(settings, run_directory(), command_line(), progress)
    progress.show(
        "test accuracy [bold]{}[/] on backend {}, chip {} ({}), {} hidden spikes per image",
        f"{result['test_accuracy']:.2%}",
        result["backend"],
        result["chip"],
        result["chip_hash"],
        f"{result['hidden_spikes_per_sample']:.1f}",
    )
