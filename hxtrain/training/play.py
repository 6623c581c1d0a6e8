"""Training in a closed loop: a network acts in an environment on the device, and a rule learns from the rewards."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Health, Spikes
from hxtrain.environments import Environment, Outcome
from hxtrain.execution import device_of
from hxtrain.network import Activity, Network
from hxtrain.objectives.losses import default_loss
from hxtrain.objectives.rewards import RewardSource
from hxtrain.rules import (
    SGD,
    Batch,
    Clamp,
    Constraint,
    LearningRule,
    Need,
    Objective,
    Optimizer,
    RuleError,
    learn,
    optimizer_warnings,
    require_fit,
)
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.metrics import Sums
from hxtrain.runs.progress import Progress
from hxtrain.runs.randomness import generator
from hxtrain.runs.saved import required, take_weights

from .config import PlayerConfig
from .interruption import stopped_by_signals
from .loop import TrainingInterrupt
from .network_loop import NetworkLoop

PROBE_WEIGHT = 0.08
"""Weight of all synapses while neurons are compared by their numbers of spikes (threshold - leak)."""


class FixedInputs(Constraint):
    """Keeps the weights of the last inputs at the values that an environment gives them.

    Args:
        weights: Weights from the last inputs to the first population `[N, fixed inputs]`.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def prepare(self, net: Network) -> None:
        """Set the weights."""
        self.apply(net)

    def apply(self, net: Network) -> None:
        """Set the weights back."""
        weight = net.projections[0].synapses.weight
        weight[:, weight.shape[1] - self.weights.shape[1] :] = self.weights.to(weight)


@dataclass
class Scores(Sums):
    """Sums over the trials of the current epoch.

    Attributes:
        score: Rewards of actions.
        reward: Rewards that the rule learned from.
        hits: Moves that succeed.
        misses: Moves that fail.
        spikes: Output spikes.
    """

    score: float = 0.0
    reward: float = 0.0
    hits: int = 0
    misses: int = 0
    spikes: float = 0.0

    def take(
        self,
        outcome: Outcome,
        reward: float,
        spikes: float,
        elapsed: float,
        metrics: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Add a move of all episodes; `reward` and `metrics` are means over them."""
        count = len(outcome.scores)
        self.samples += count
        self.score += float(outcome.scores.sum())
        self.reward += reward * count
        self.hits += int(outcome.hits.sum())
        self.misses += int(outcome.misses.sum())
        self.spikes += spikes
        self.seconds += elapsed
        for name, value in metrics.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value * count

    def means(self) -> dict[str, float]:
        """Return means per trial; a share of hits that nothing decides is left out."""
        return {name: value for name, value in self.summary().items() if value is not None}

    def summary(self) -> dict[str, Any]:
        """Return means per trial; the share of hits is None if no move was either."""
        count = max(self.samples, 1)
        decided = self.hits + self.misses
        return {
            "score": self.score / count,
            "success": self.hits / decided if decided else None,
            "reward": self.reward / count,
            "output_spikes_per_trial": self.spikes / count,
            "trials_per_second": self.samples / self.seconds if self.seconds else 0.0,
            "seconds": self.seconds,
        }


class Exhibition(NamedTuple):
    """Moves after training, without noise and without learning.

    Attributes:
        scores: Sums over all moves.
        views: What pictures show of each move `[moves, B, values]`, see `Environment.view`.
    """

    scores: Scores
    views: Tensor


@dataclass
class PlayTask:
    """A task in an environment.

    Attributes:
        net: Network that acts; its output spikes.
        environment: Environment with the rewards.
        rule: Learning rule that follows rewards; each training prepares a copy.
        optimizer: Settings of the optimiser.
        constraints: Restrictions of the weights by name, applied in order after the optimiser.
    """

    net: Network
    environment: Environment
    rule: LearningRule
    optimizer: Optimizer = field(default_factory=SGD)
    constraints: Mapping[str, Constraint] = field(default_factory=lambda: {"clamp": Clamp()})

    def __post_init__(self) -> None:
        sizes = self.net.layers[0].linear.inputs, self.net.layers[-1].neurons.size
        expected = self.environment.inputs, self.environment.outputs
        if sizes != expected:
            raise ValueError(
                f"the network has {sizes[0]} inputs and {sizes[1]} outputs, "
                f"the environment {expected[0]} and {expected[1]}"
            )
        if not callable(self.environment) and not isinstance(self.environment, RewardSource):
            raise TypeError(
                f"{type(self.environment).__name__} gives no reward; define __call__(scores, labels) for one at the "
                "end of a trial, or derive from RewardSource for rewards at times"
            )
        if Need.REWARD not in self.rule.needs:
            raise RuleError(f"rule={self.rule.name} follows no reward; choose one that does, such as rule=rstdp")


class Player(NetworkLoop[PlayerConfig]):
    """Trains a network in an environment, in a run directory.

    Args:
        task: Network, environment and rule.
        config: Settings of the training loop.
        seed: Seed of noise and games (the network has a separate one).
        folder: Run directory for checkpoint and metrics.
        settings: Plain values that identify the run; a resumed run must have the same.
        progress: Receiver of all reports.

    Attributes:
        masks: Active neurons of each layer; None: all of them. `Loop` has the other attributes.
    """

    step_name: ClassVar[str] = "move"

    def __init__(
        self,
        task: PlayTask,
        config: PlayerConfig,
        seed: int,
        folder: str | Path,
        settings: Mapping[str, Any],
        progress: Progress,
    ) -> None:
        net = task.net
        optimizer = task.optimizer.build(net.parameters(), config.learning_rate)
        super().__init__(net, None, config, seed, folder, settings, progress, optimizer, Scores())
        self.task = task
        self.environment = copy.deepcopy(task.environment)
        self.rule = copy.deepcopy(task.rule)
        device = device_of(net)
        require_fit(self.rule, net, None if device is None else device.backend.capabilities)
        loss = default_loss(net)
        self.rule.prepare(net, Objective(loss, reward=self.environment))  # type: ignore[arg-type]
        self.constraints = list(task.constraints.values())
        fixed = self.environment.fixed_weights(net.layers[0].neurons.size)
        if fixed is not None:
            self.constraints.append(FixedInputs(fixed))
            self._warn(_clipped(net, fixed))
        with torch.no_grad():
            for constraint in self.constraints:
                constraint.prepare(net)
        self.sums: Scores = Scores()
        self.masks: list[Tensor | None] | None = None
        self._warn(optimizer_warnings(self.rule, task.optimizer))

    @property
    def steps_per_epoch(self) -> int:
        """Moves of an epoch."""
        return self.environment.moves

    @property
    def window(self) -> float:
        """Duration of a trial (s)."""
        return self.task.net.dt * self.task.net.steps

    def prepare(self) -> None:
        """Restore the state of the checkpoint, or choose the neurons that are silenced; further calls do nothing."""
        is_new = not self._prepared and not self.config.resume
        super().prepare()
        if is_new and self.config.silenced:
            self.masks = self.weakest_masks(self.config.silenced)

    def fit(self) -> None:
        """Train until the last epoch.

        Raises:
            TrainingInterrupt: SIGINT arrives; the state is saved.
            DeviceLostError: The device fails permanently; the state at the start of the failed move is saved.
            ValueError: A gradient is not finite.
        """
        self.prepare()
        with stopped_by_signals(self._stop), self.progress.training(self):
            while self.epoch < self.config.epochs:
                self._run_epoch()

    def _run_epoch(self) -> None:
        if self.step == 0:
            self.environment.reset(generator(self.seed, "reset", self.epoch))
        while self.step < self.steps_per_epoch:
            self._set_learning_rate()
            with self._saved_on_failure():
                self._move()
            self.step += 1
            self.progress.advance(self, self._text())
            if self._stop.is_set():
                self._save()
                raise TrainingInterrupt(f"interrupted after move {self.step} of epoch {self.epoch + 1}")
        self._finish_epoch()

    def _move(self) -> None:
        start = time.perf_counter()
        net = self.task.net
        noise = generator(self.seed, "observe", self.epoch, self.step)
        spikes = self._observed(self.environment, noise, self.epoch)
        batch = Batch(spikes, self.environment.state(), self.masks)
        if self.snapshots is not None:
            self.snapshots.prepare(self)
        step = learn(net, self.rule, self.optimizer, batch, self.constraints)
        outcome = self._act(self.environment, step.activity, generator(self.seed, "act", self.epoch, self.step))
        counts = _output_counts(step.activity)
        metrics = {name: step.metrics[name] for name in self.rule.metrics}
        if self._is_saved(self.epoch + 1):
            self.progress.measured(self, step.activity)
        elapsed = time.perf_counter() - start
        self.sums.take(outcome, -step.loss, float(counts.sum()), elapsed, metrics)
        if self.snapshots is not None:
            episodes = len(counts)
            values = {
                "score": float(outcome.scores.float().mean()),
                "output_spikes_per_trial": float(counts.sum()) / episodes,
                "trials_per_second": episodes / elapsed,
            }
            self.snapshots.add(self, step.activity, None, values)
        self._report_health(step.activity.health)

    def _observed(self, environment: Environment, source: torch.Generator, epoch: int | None) -> Spikes:
        return environment.observe(self.window, source, epoch).to(self.task.net.torch_device)

    def _act(self, environment: Environment, activity: Activity, source: torch.Generator) -> Outcome:
        return environment.act(_output_counts(activity), source)

    def _text(self) -> str | None:
        """Return the text beside the bar: the means of this epoch, or of the last one."""
        record = self.records[-1] if self.records else self.sums.summary()
        success = "" if record["success"] is None else f"success {record['success']:.0%}  "
        return f"score {record['score']:.2f}  {success}{record['trials_per_second']:.0f} trials/s"

    def _report_health(self, health: Health) -> None:
        """Count lost spikes and repeated runs; warn of each note once."""
        self.sums.dropped_spikes += health.dropped_spikes
        self.sums.retries += health.retries
        for note in health.notes:
            if note not in self.sums.notes:
                self.sums.notes.append(note)
                self.progress.warn(note)

    def _finish_epoch(self) -> None:
        sums = self.sums
        metrics = sums.mean_metrics()
        self._warn(self.rule.warnings(metrics))
        self.records.append(
            {
                "epoch": self.epoch + 1,
                **sums.summary(),
                "learning_rate": self.learning_rate,
                "dropped_spikes": sums.dropped_spikes,
                "retries": sums.retries,
                "notes": sums.notes,
                **metrics,
            }
        )
        self.epoch += 1
        self.step = 0
        self.sums = Scores()
        if self._is_saved(self.epoch):
            self._save()
            self._write_records()
            self._report()

    def _is_saved(self, epochs: int) -> bool:
        """Return whether a checkpoint, a report and images follow a number of epochs."""
        return epochs % self.config.checkpoint_epochs == 0 or epochs == self.config.epochs

    def _report(self) -> None:
        """Show the means since the last report."""
        recent = self.records[-self.config.checkpoint_epochs :]
        score = sum(record["score"] for record in recent) / len(recent)
        seconds = sum(record["seconds"] for record in recent)
        spikes = sum(record["output_spikes_per_trial"] for record in recent) / len(recent)
        success = [record["success"] for record in recent if record["success"] is not None]
        share = f"success {sum(success) / len(success):.0%}  " if success else ""
        best = self.environment.best_score
        self.progress.show(
            "epoch {}  score [bold]{}[/]{}  {}{} spikes/trial  {} s",
            f"{self.epoch:>4}",
            f"{score:.2f}",
            "" if best is None else f" of {best:g}",
            share,
            f"{spikes:.0f}",
            f"{seconds:.1f}",
        )

    def games(self) -> Exhibition | None:
        """Play games without noise and without learning; None if the environment has none to play."""
        environment = self.environment.exhibition(self.config.games, self.config.game_moves)
        return None if environment is None else self.exhibit(environment, "game")

    @torch.no_grad()
    def exhibit(self, environment: Environment, name: str) -> Exhibition:
        """Play an epoch without noise and without learning.

        Args:
            environment: Environment of its own.
            name: Name of its stream of random numbers.
        """
        environment.reset(generator(self.seed, name, "reset"))
        scores = Scores()
        views = [environment.view()]
        for move in range(environment.moves):
            start = time.perf_counter()
            spikes = self._observed(environment, generator(self.seed, name, move), None)
            activity = self.task.net(spikes, self.masks)
            outcome = self._act(environment, activity, generator(self.seed, f"{name} act", move))
            count = float(_output_counts(activity).sum())
            scores.take(outcome, math.nan, count, time.perf_counter() - start)
            views.append(environment.view())
        return Exhibition(scores, torch.stack(views))

    @torch.no_grad()
    def weakest_masks(self, share: float) -> list[Tensor | None]:
        """Return masks `[N]` that silence the output neurons that fire least if all get the same input.

        Args:
            share: Share of the output neurons, 0..1.
        """
        net = self.task.net
        weights = [projection.synapses.weight for projection in net.projections]
        values = [weight.clone() for weight in weights]
        environment = copy.deepcopy(self.environment)
        environment.reset(generator(self.seed, "probe", "reset"))
        try:
            for weight in weights:
                weight.fill_(PROBE_WEIGHT)
            counts = _output_counts(net(self._observed(environment, generator(self.seed, "probe"), None))).sum(0)
        finally:
            for weight, value in zip(weights, values, strict=True):
                weight.copy_(value)
        mask = torch.ones(len(counts))
        mask[torch.argsort(counts, stable=True)[: round(share * len(counts))].cpu()] = 0
        return [*(None for _ in net.layers[:-1]), mask.to(counts)]

    def _course_state(self) -> dict[str, Any]:
        return {"rule": self.rule.state_dict(), "environment": self.environment.state_dict()}

    def _take_course_state(self, state: Mapping[str, Any]) -> None:
        self.rule.load_state_dict(state["rule"])
        self.environment.load_state_dict(state["environment"])

    def _save(self) -> None:
        device = device_of(self.task.net)
        self._write_checkpoint(
            model=self.task.net.state_dict(),
            step=self.step,
            sums=asdict(self.sums),
            clock=device.clock if device else 0,
            mask=None if self.masks is None else self.masks[-1],
            **self._course_state(),
        )

    def _restore(self) -> None:
        state = self._read_checkpoint()
        kinds = {
            "step": int,
            "sums": dict,
            "clock": int,
            "rule": dict,
            "environment": dict,
            "mask": (Tensor, type(None)),
        }
        required(self.checkpoint, state, kinds)
        net = self.task.net
        take_weights(net, state["model"], self.checkpoint)
        try:
            self._take_course_state(state)
            self.sums = Scores(**state["sums"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.checkpoint}: state of rule or environment: {error}") from error
        self.step = state["step"]
        self.masks = None if state["mask"] is None else [*(None for _ in net.layers[:-1]), state["mask"]]
        self._write_records()
        device = device_of(net)
        if device is not None:
            device.clock = state["clock"]


def _clipped(net: Network, fixed: Tensor) -> list[str]:
    """Return a warning of fixed weights that the device cannot represent; empty if it can."""
    limit = net.weight_limits()[0]
    largest = float(fixed.abs().max())
    if limit is None or largest <= limit * (1 + 1e-6):
        return []
    return [
        f"{net.projections[0].name}: weights of the environment of up to {largest:.4g} exceed the largest one of the "
        f"device, {limit:.4g}, and are clipped to it; choose smaller ones (hxtrain play --help: environment), or a "
        "smaller network.scale"
    ]


def _output_counts(activity: Activity) -> Tensor:
    """Return the numbers of output spikes `[B, N]`."""
    counts = activity.layers[-1].counts
    assert counts is not None  # the rule refuses a readout
    return counts
