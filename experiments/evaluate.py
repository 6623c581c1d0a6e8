"""`hxtrain-evaluate`: any checkpoint on any device."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from hxtrain.studies.evaluate import evaluate_checkpoint
from hxtrain.training import Progress

from .app import command_line, guarded, run_directory, typed, warn_without_effect
from .schema import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    """Evaluate `checkpoint=PATH` on the device that the config names."""
    guarded(lambda: _evaluate(config))


def _evaluate(config: DictConfig) -> None:
    settings = typed(config)
    warn_without_effect(settings.backend)
    progress = Progress()
    result = evaluate_checkpoint(settings, run_directory(), command_line(), progress)
    progress.say(
        f"test accuracy [bold]{result['test_accuracy']:.2%}[/] on backend {result['backend']}, "
        f"chip {result['chip']} ({result['chip_hash']}), "
        f"{result['hidden_spikes_per_sample']:.1f} hidden spikes per image"
    )
