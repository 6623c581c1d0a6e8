"""`hxtrain convert`: a trained artificial network becomes a spiking network on a device, by measurements."""

from __future__ import annotations

from omegaconf import DictConfig

from hxtrain.commands.convert import complete_conversion, convert_checkpoint
from hxtrain.runs.progress import Progress, hidden_spikes

from .app import command_line, guarded, in_sweep, run_directory, sweep_name, typed_settings, warn_without_effect
from .command import command


@command("convert")
def main(config: DictConfig) -> None:
    """Convert `checkpoint=PATH` for the device that the config names; conversions of a sweep are done, or skipped."""
    guarded(lambda: _convert(config))


def _convert(config: DictConfig) -> None:
    settings = typed_settings(config)
    warn_without_effect(settings.backend)
    progress = Progress()
    folder = run_directory()
    work = complete_conversion if in_sweep() else convert_checkpoint
    result = work(settings, folder, command_line(), progress, sweep_name())
    progress.show(
        "{} accuracy [bold]{}[/] (artificial network {}) on backend {}, chip {} ({}){}",
        result["evaluated_on"],
        f"{result['test_accuracy']:.2%}",
        f"{result['ann_accuracy']:.2%}",
        result["backend"],
        result["chip"],
        result["chip_hash"],
        hidden_spikes(result),
    )
    progress.say(f"result.json and checkpoint.pt: {folder}")
