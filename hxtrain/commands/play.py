"""A whole training in an environment, from settings to `result.json`."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict  # noqa: UP035 - OmegaConf resolves these on every Python

from hxtrain.checks import require_kind, text
from hxtrain.environments import ENVIRONMENTS, Environment, Pong
from hxtrain.execution import device_of, sent_weights
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.network import Architecture, NetworkConfig
from hxtrain.plots import play as plots
from hxtrain.plots.training import plot_weights
from hxtrain.rules import SGD, Clamp, Constraint, Excitatory, LearningRule, Optimizer
from hxtrain.rules.reward import RewardSTDP
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.progress import Progress
from hxtrain.runs.versions import processor, versions
from hxtrain.trackers import TrackedRun, Tracker, require_trackers, tracked
from hxtrain.training.config import PlayerConfig
from hxtrain.training.loop import CHECKPOINT
from hxtrain.training.play import Exhibition, Player, PlayTask
from hxtrain.view.config import ViewConfig

from .construction import attached, introduce_network, torch_device
from .identity import device_entries, device_identity, step_settings
from .live import live_view
from .recorded_chip import at_recorded_chip
from .result import all_notes, optional_plots, save_weights
from .run_directory import run_folder, write_config
from .settings import check_parts


def _network() -> NetworkConfig:
    """Return a population that acts, without hidden ones; its weights begin at 0."""
    return NetworkConfig(hidden=[], output="spikes", init_gain=0.0, steps=100, traces="spikes_only")


@dataclass
class PlayConfig:
    """All settings of a training in an environment.

    Attributes:
        seed: Seed of initial weights, noise and games.
        live: Whether to serve a page that shows the training while it runs, see `view`.
        tracker: Where the run is logged besides its directory, by name.
    """

    seed: int = 0
    live: bool = False
    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    environment: Environment = field(default_factory=Pong)
    network: Architecture = field(default_factory=_network)
    rule: LearningRule = field(default_factory=RewardSTDP)
    optimizer: Optimizer = field(default_factory=SGD)
    constraint: Dict[str, Constraint] = field(  # noqa: UP006
        default_factory=lambda: {"clamp": Clamp(), "excitatory": Excitatory()}
    )
    trainer: PlayerConfig = field(default_factory=PlayerConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    tracker: Dict[str, Tracker] = field(default_factory=dict)  # noqa: UP006

    def __post_init__(self) -> None:
        check_parts(self)


def play(
    config: PlayConfig, folder: str | Path, command: str = "", progress: Progress | None = None, group: str = ""
) -> dict[str, Any]:
    """Train a network in an environment, play, and write everything into the run directory.

    Args:
        config: All settings.
        folder: Run directory; `config.yaml`, `checkpoint.pt`, `metrics.jsonl`, `weights.npz`, `result.json`, `plots/`.
        command: Command that starts the run, for the record.
        progress: Receiver of all reports.
        group: Name of the sweep that the run is part of, for trackers.

    Returns:
        Content of `result.json`.

    Raises:
        CheckpointError: The directory cannot be written, holds another run, or has no run to resume.
        TrainingInterrupt: SIGINT arrives; the state is saved.
        RuleError: The rule follows no reward, or cannot train the network on its device.
        ValueError: A setting is out of range.
    """
    require_kind(config, PlayConfig, "config", "play(PlayConfig(...), folder)")
    folder = Path(text("folder", folder)).expanduser()
    with run_folder(folder, config.trainer.resume), tuned(config.trainer.threads):
        return _play(config, folder, command, progress or Progress(config.trainer.progress), group)


def _play(config: PlayConfig, folder: Path, command: str, progress: Progress, group: str) -> dict[str, Any]:
    start = time.perf_counter()
    require_trackers(config.tracker, folder, config.trainer.resume)
    n_previous_remarks = len(progress.remarks)
    environment = config.environment
    accelerator = torch_device(config.trainer.torch_device)
    net = config.network.build(environment.inputs, environment.outputs, config.seed).to(accelerator)
    backend = config.backend
    if config.trainer.resume:
        backend = at_recorded_chip(backend, folder / CHECKPOINT)
    with attached(backend, config.chip, net) as device:
        identity = device_identity(device)
        task = PlayTask(net, environment, config.rule, config.optimizer, config.constraint)
        settings = {**step_settings(config, config.trainer), **device_entries(backend.name, identity)}
        player = Player(task, config.trainer, config.seed, folder, settings, progress)
        player.prepare()  # precedes all reports, since they are logged in the run directory
        write_config(folder, config)
        name = ENVIRONMENTS.name_of(type(environment))
        introduce_network(progress, net, f"in {name} by {config.rule.name}", identity)
        run = TrackedRun(folder.name, group, "", asdict(config), folder, player.steps_done, config.trainer.resume)
        with tracked(run, config.tracker, progress, net) as tracking:
            with live_view(config.live, config.view, player, net, folder, progress):
                player.fit()
            games = player.games()
            outcome = {
                **_scores(player),
                **_games(player, games),
                **player.environment.summary(net.projections[0].synapses.weight),
                **identity,
                "environment": name,
                "rule": config.rule.name,
                "seed": config.seed,
                "silenced_neurons": 0 if player.masks is None else int((player.masks[-1] == 0).sum()),  # type: ignore[union-attr]
                "seconds": time.perf_counter() - start,
                "command": command,
                "notes": all_notes(
                    (note for record in player.records for note in record["notes"]),
                    progress.remarks[n_previous_remarks:],
                ),
                "settings": settings,
                "versions": versions(),
                "processor": processor(),
            }
            save_weights(folder / "weights.npz", net)
            write_json(folder / "result.json", outcome)
            if config.trainer.plots:
                with optional_plots(progress):
                    draw_plots(folder / "plots", player, games)
            tracking.artifacts(folder)
    return outcome


def draw_plots(folder: Path, player: Player, games: Exhibition | None) -> None:
    """Draw rewards over epochs, weights, and games."""
    folder.mkdir(parents=True, exist_ok=True)
    net = player.task.net
    device = device_of(net)
    plots.plot_rewards(player.records, player.environment.best_score, folder / "rewards.png")
    if device is not None and device.plan is not None:
        plot_weights(sent_weights(net), folder / "weights.png", device.plan.capabilities.weight_max)
    environment = player.environment
    if games is not None and isinstance(environment, Pong):
        paddle = (len(environment.rewards) - 0.5) / environment.positions
        plots.plot_games(games.views, paddle, folder / "games.png")
        plots.animate_games(games.views, paddle, folder / "game.gif")


def _scores(player: Player) -> dict[str, Any]:
    """Return the means over the last epochs of the training."""
    last = player.records[-player.config.scored_epochs :]
    success = [record["success"] for record in last if record["success"] is not None]
    return {
        "score": sum(record["score"] for record in last) / len(last),
        "best_score": player.environment.best_score,
        "score_meaning": f"mean reward of an action in the last {len(last)} epochs, during training, with noise",
        "success": sum(success) / len(success) if success else None,
        "epochs": len(player.records),
        "training_seconds": sum(record["seconds"] for record in player.records),
        "dropped_spikes": sum(record["dropped_spikes"] for record in player.records),
        "retries": sum(record["retries"] for record in player.records),
    }


def _games(player: Player, games: Exhibition | None) -> dict[str, Any]:
    """Return the results without noise: of an epoch as in training, and of games."""
    if games is None:
        return {}
    quiet = player.exhibit(deepcopy(player.environment), "quiet").scores.summary()
    scores = games.scores.summary()
    return {
        "score_without_noise": quiet["score"],
        "success_without_noise": quiet["success"],
        "hits": games.scores.hits,
        "misses": games.scores.misses,
        "game_score": scores["score"],
    }
