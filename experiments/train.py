"""`hxtrain`: train a network in the loop."""

from __future__ import annotations

from omegaconf import DictConfig

from hxtrain.commands.train import complete, run
from hxtrain.runs.progress import Progress, hidden_spikes

from .app import command_line, guarded, in_sweep, leads, run_directory, sweep_name, typed_settings, warn_without_effect
from .command import command
from .teacher import with_teacher


@command("train")
def main(config: DictConfig) -> None:
    """Train with these settings; the run directory is `hydra.run.dir`. Runs of a sweep are finished, or skipped."""
    guarded(lambda: _train(config))


def _train(config: DictConfig) -> None:
    settings = typed_settings(config)
    folder = run_directory()
    warn_without_effect(settings.backend)
    progress = Progress(settings.trainer.progress)
    settings.view.serve &= not in_sweep()  # one `hxtrain view` shows all runs
    work = complete if in_sweep() else run
    result = work(with_teacher(settings, progress), folder, command_line(), progress, sweep_name())
    if not leads():
        return
    progress.show(
        "{} accuracy [bold]{}[/]{}",
        result["evaluated_on"],
        f"{result['test_accuracy']:.2%}",
        f"{hidden_spikes(result)}, {result['seconds']:.0f} s in all, "
        f"{result['samples_per_second']:.0f} samples/s in training",
    )
    progress.say(f"result.json, plots and weights: {folder}")
