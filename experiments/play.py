"""`hxtrain play`: train a network in an environment by rewards, and let it play."""

from __future__ import annotations

from omegaconf import DictConfig

from hxtrain.commands.play import play
from hxtrain.runs.progress import Progress

from .app import command_line, guarded, in_sweep, run_directory, sweep_name, typed_settings, warn_without_effect
from .command import command


@command("play")
def main(config: DictConfig) -> None:
    """Train and play with these settings; the run directory is `hydra.run.dir`."""
    guarded(lambda: _play(config))


def _play(config: DictConfig) -> None:
    settings = typed_settings(config)
    folder = run_directory()
    warn_without_effect(settings.backend)
    progress = Progress(settings.trainer.progress)
    settings.view.serve &= not in_sweep()  # one `hxtrain view` shows all runs
    result = play(settings, folder, command_line(), progress, sweep_name())
    progress.show(
        "score [bold]{}[/]{} in the last epochs, {} s in all",
        f"{result['score']:.2f}",
        "" if result["best_score"] is None else f" of {result['best_score']:g}",
        f"{result['seconds']:.0f}",
    )
    if "hits" in result:
        progress.say(
            f"without noise: score {result['score_without_noise']:.2f}, in games {result['hits']} balls returned, "
            f"{result['misses']} lost"
        )
    if "rank" in result:
        progress.say(f"the synapse that earns the reward has rank {result['rank']}, z = {result['z']:.1f}")
    progress.say(f"result.json, checkpoint.pt and plots: {folder}")
