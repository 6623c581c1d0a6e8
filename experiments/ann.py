"""`hxtrain ann`: train an artificial neural network, as a baseline or a teacher."""

from __future__ import annotations

from omegaconf import DictConfig

from hxtrain.commands.ann import complete_ann, train_ann
from hxtrain.runs.progress import Progress

from .app import command_line, guarded, in_sweep, run_directory, sweep_name, typed_settings
from .command import command


@command("ann")
def main(config: DictConfig) -> None:
    """Train with these settings; the run directory is `hydra.run.dir`. Runs of a sweep are finished, or skipped."""
    guarded(lambda: _train(config))


def _train(config: DictConfig) -> None:
    settings = typed_settings(config)
    folder = run_directory()
    progress = Progress(settings.trainer.progress)
    settings.view.serve &= not in_sweep()  # one `hxtrain view` shows all runs
    work = complete_ann if in_sweep() else train_ann
    result = work(settings, folder, command_line(), progress, sweep_name())
    progress.show(
        "{} accuracy [bold]{}[/], {}",
        result["evaluated_on"],
        f"{result['test_accuracy']:.2%}",
        f"{result['seconds']:.0f} s in all, {result['samples_per_second']:.0f} samples/s in training",
    )
    progress.say(f"result.json and checkpoint.pt: {folder}")
