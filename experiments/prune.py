"""`hxtrain prune`: remove synapses of a trained network."""

from __future__ import annotations

from omegaconf import DictConfig

from hxtrain.commands.prune import PRUNING, prune_checkpoint
from hxtrain.runs.progress import Progress

from .app import command_line, guarded, names_device, typed_settings, warn_without_effect
from .command import command
from .folders import own_directory


@command("prune")
def main(config: DictConfig) -> None:
    """Prune the network of `checkpoint=PATH` by the method that `mask` names, on the device that the config names."""
    guarded(lambda: _prune(config))


def _prune(config: DictConfig) -> None:
    settings = typed_settings(config)
    if settings.own_device is None and names_device():
        settings.own_device = False
    warn_without_effect(settings.backend)
    progress = Progress()
    with own_directory(PRUNING) as folder:
        result = prune_checkpoint(settings, folder, command_line(), progress)
    progress.show(
        "{} accuracy [bold]{}[/], {} before; {} of the synapses remain",
        result["evaluated_on"],
        f"{result['test_accuracy']:.2%}",
        f"{result['dense_accuracy']:.2%}",
        ", ".join(f"{share:.1%} of {name}" for name, share in result["densities"].items()),
    )
    progress.say(f"{PRUNING}, checkpoint.pt for trainer.initial and hxtrain evaluate: {folder}")
