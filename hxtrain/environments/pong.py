"""Pong as published for BrainScaleS-2 (Wunderlich et al. 2019; `ts_07-pong` of electronicvisions/brainscales2-demos).

The network sees the height of the ball: the input row of that height and its neighbours get regular spikes. The paddle
goes to the height whose neuron fires most. Every output spike is rewarded by its distance from the ball, so that a
network without any idea of time learns to pursue the ball. The score of a move is the reward of the paddle's height, at
most 4.

The demo sends noise of random weights, new in each trial, to let neurons try what the weights would not do. Weights are
common to a batch here; so each neuron has a noise input of a fixed weight, whose number of events is random instead.

An epoch shows every height once, each in an episode of its own (`sweep`), or is a part of real games. In a game the
opponent never misses, as in the demo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

import torch
from torch import Tensor

from hxtrain.backends import Spikes

from .environment import Environment, Outcome, random_trains, regular_times

WEIGHT_RANGE = 63
"""Unit of the published noise: the largest weight of the chip (weight LSB)."""
NOISE_MEAN = -0.14
"""Mean of the noise before negative values are cut off, in its standard deviations, as published."""


@dataclass
class Pong(Environment):
    """Pong: a ball, a paddle, and an opponent that never misses.

    Attributes:
        positions: Heights of ball and paddle, and output neurons.
        spread: Rates of the ball's input row, of its neighbours, of their neighbours ..., relative to the first one.
        interval: Time between two spikes of the ball's row (s).
        rewards: Reward of a spike by its distance from the ball (positions); the paddle is as large as this list.
        miss: Reward of a spike outside the paddle.
        reward_unit: Output spikes per unit of reward.
        noise_start: Standard deviation of the noise at the start (weight LSB of regular spikes every `noise_interval`).
        noise_end: Standard deviation of the noise after `noise_epochs`.
        noise_epochs: Epochs in which the noise declines.
        noise_interval: Interval of the spikes to which the noise is equivalent (s).
        noise_weight: Weight of a noise input (threshold - leak); 0.25 is nearly the largest one of the chip.
        sweep: Whether an epoch shows every position once; else it has `game_moves` moves of `games` games.
        games: Number of games at a time.
        game_moves: Moves of an epoch of games.
        ball_speed: Way of the ball per move (widths of the court).
        slope: Largest vertical per horizontal speed of the ball (heights per width).
        paddle_speed: Way of the paddle per move (positions); None: it moves at once, as published.
    """

    positions: int = 100
    spread: List[float] = field(default_factory=lambda: [1.0, 0.8, 0.5, 0.1])  # noqa: UP006
    interval: float = 4.2e-6
    rewards: List[float] = field(default_factory=lambda: [4.0, 3.0, 2.0, 2.0, 1.0, 1.0, 0.0])  # noqa: UP006
    miss: float = -1.0
    reward_unit: float = 100.0
    noise_start: float = 15.0
    noise_end: float = 4.0
    noise_epochs: int = 500
    noise_interval: float = 3.5e-6
    noise_weight: float = 0.25
    sweep: bool = True
    games: int = 20
    game_moves: int = 200
    ball_speed: float = 0.025
    slope: float = 1.6
    paddle_speed: Optional[float] = None  # noqa: UP045

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("positions", "games", "game_moves", "noise_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"environment.{name}={getattr(self, name)} must be at least 1")
        for name in ("interval", "noise_interval", "reward_unit", "ball_speed", "noise_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"environment.{name}={getattr(self, name)} must be positive and finite")
        for name in ("noise_start", "noise_end", "slope"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"environment.{name}={getattr(self, name)} must be finite and not negative")
        if not self.rewards or min(self.rewards) <= self.miss:
            raise ValueError(
                f"environment.rewards={self.rewards} must be above the reward of a miss, environment.miss={self.miss}"
            )
        if not self.spread or not all(0 < share <= 1 for share in self.spread):
            raise ValueError(
                f"environment.spread={self.spread} must be rates in 0 < x <= 1, that of the ball's row first"
            )
        if self.ball_speed >= 1:
            raise ValueError(f"environment.ball_speed={self.ball_speed} must be below 1, the width of the court")
        if self.paddle_speed is not None and not self.paddle_speed > 0:
            raise ValueError(f"environment.paddle_speed={self.paddle_speed} must be positive; null: it moves at once")

    @property
    def inputs(self) -> int:
        """Number of inputs: rows of the ball, then noise inputs."""
        return 2 * self.positions

    @property
    def outputs(self) -> int:
        """Number of output neurons: heights of the paddle."""
        return self.positions

    @property
    def states(self) -> int:
        """Number of heights of the ball."""
        return self.positions

    @property
    def moves(self) -> int:
        """Number of moves of an epoch: one of a sweep."""
        return 1 if self.sweep else self.game_moves

    @property
    def best_score(self) -> float:
        """Reward of a paddle at the ball."""
        return max(self.rewards)

    def fixed_weights(self, neurons: int) -> Tensor:
        """Return the weights of the noise inputs, each of which excites its neurons of the first population."""
        neuron = torch.arange(neurons)
        weights = torch.zeros(neurons, self.positions)
        weights[neuron, neuron % self.positions] = self.noise_weight
        return weights

    def reset(self, generator: torch.Generator) -> None:
        """Place the balls: at every height, or for games at the opponent's side."""
        episodes = self.positions if self.sweep else self.games
        self._x = torch.zeros(episodes, dtype=torch.float64)
        self._y = (torch.arange(episodes, dtype=torch.float64) + 0.5) / episodes
        self._speed = torch.zeros(episodes, 2, dtype=torch.float64)
        self._paddle = torch.full((episodes,), self.positions // 2, dtype=torch.float64)
        if not self.sweep:
            self._y = torch.rand(episodes, generator=generator, dtype=torch.float64)
            self._serve(torch.ones(episodes, dtype=torch.bool), generator)

    def state(self) -> Tensor:
        """Return the height of each ball (positions), int64 `[B]`."""
        return (self._y * self.positions).long().clamp(0, self.positions - 1)

    def exhibition(self, games: int, moves: int) -> Pong:
        """Return games with this court; see `Environment.exhibition` for the arguments."""
        return replace(self, sweep=False, games=games, game_moves=moves)

    def view(self) -> Tensor:
        """Return ball (x and y in 0..1) and centre of the paddle (0..1) of each episode `[B, 3]`."""
        return torch.stack([self._x, self._y, (self._paddle + 0.5) / self.positions], 1)

    def observe(self, window: float, generator: torch.Generator, epoch: int | None) -> Spikes:
        """Return the spikes of the ball and of the noise, see `Environment.observe`."""
        ball = self.state()
        samples: list[Tensor] = []
        units: list[Tensor] = []
        times: list[Tensor] = []
        for shift in range(1 - len(self.spread), len(self.spread)):
            row = ball + shift
            sample = ((row >= 0) & (row < self.positions)).nonzero()[:, 0]
            time = regular_times(window, self.interval / self.spread[abs(shift)])
            samples.append(sample.repeat_interleave(len(time)))
            units.append(row[sample].repeat_interleave(len(time)))
            times.append(time.repeat(len(sample)))
        if epoch is not None:
            sample, unit, time = random_trains(self._noise(len(ball), window, generator, epoch), window, generator)
            samples.append(sample)
            units.append(unit + self.positions)
            times.append(time)
        return Spikes.from_events(torch.cat(samples), torch.cat(units), torch.cat(times), len(ball), self.inputs)

    def _noise(self, episodes: int, window: float, generator: torch.Generator, epoch: int) -> Tensor:
        """Return the number of events of each noise input, int64 `[B, positions]`."""
        progress = min(epoch / self.noise_epochs, 1.0)
        deviation = (1 - progress) * self.noise_start + progress * self.noise_end
        normal = torch.randn(episodes, self.positions, generator=generator, dtype=torch.float64)
        weight = ((normal + NOISE_MEAN) * deviation).clamp(0, WEIGHT_RANGE)
        return (weight / WEIGHT_RANGE * window / self.noise_interval).round().long()

    def table(self) -> Tensor:
        """Return the reward of each action in each state, float64 `[states, positions]`."""
        position = torch.arange(self.positions)
        distance = (position[:, None] - position).abs()
        rewards = torch.tensor(self.rewards, dtype=torch.float64)
        return torch.where(distance < len(rewards), rewards[distance.clamp(max=len(rewards) - 1)], self.miss)

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the reward of all spikes `[B]`, which the network learns from, as published.

        Args:
            scores: Numbers of output spikes `[B, positions]`.
            labels: Heights of the ball `[B]`.
        """
        return (self.table().to(scores)[labels] * scores).sum(1) / self.reward_unit

    def act(self, counts: Tensor, generator: torch.Generator) -> Outcome:
        """Move paddles to the neurons that fire most, then the balls; a silent network leaves its paddle and misses."""
        counts = counts.detach().cpu()
        is_silent = counts.amax(1) <= 0
        actions = torch.where(is_silent, -1, counts.argmax(1))
        target = torch.where(is_silent, self._paddle, actions.double())
        way = target - self._paddle
        self._paddle = self._paddle + (
            way if self.paddle_speed is None else way.clamp(-self.paddle_speed, self.paddle_speed)
        )
        place = self._paddle.round().long().clamp(0, self.positions - 1)
        scores = self.table()[self.state(), place]
        scores = torch.where(is_silent, self.miss, scores)
        if self.sweep:
            return Outcome(actions, scores, scores > self.miss, scores <= self.miss)
        return self._fly(actions, scores, generator)

    def _fly(self, actions: Tensor, scores: Tensor, generator: torch.Generator) -> Outcome:
        """Move the balls: they rebound from walls, the opponent and the paddle; a lost ball is served anew."""
        start = self._x
        self._x = start + self._speed[:, 0]
        arrives = self._x >= 1
        share = torch.where(arrives, (1 - start) / self._speed[:, 0].clamp(min=1e-9), 1.0)
        self._y = self._y + self._speed[:, 1] * share
        is_out = (self._y < 0) | (self._y > 1)
        self._y = torch.where(self._y < 0, -self._y, torch.where(self._y > 1, 2 - self._y, self._y)).clamp(0, 1)
        self._speed[is_out, 1] *= -1
        reach = (self.state() - self._paddle).abs() < len(self.rewards)
        hits = arrives & reach
        misses = arrives & ~reach
        self._x = torch.where(hits, 2 - self._x, self._x).clamp(max=1)
        self._speed[hits, 0] *= -1
        returns = self._x <= 0
        self._x = torch.where(returns, 0.0, self._x)
        self._y = torch.where(misses, torch.rand(len(start), generator=generator, dtype=torch.float64), self._y)
        self._serve(returns | misses, generator)
        return Outcome(actions, scores, hits, misses)

    def _serve(self, served: Tensor, generator: torch.Generator) -> None:
        """Let some balls start at the opponent's side, in a random direction."""
        direction = 2 * torch.rand(len(served), generator=generator, dtype=torch.float64) - 1
        self._x = torch.where(served, 0.0, self._x)
        vertical = direction * self.slope * self.ball_speed
        speed = torch.stack([torch.full_like(vertical, self.ball_speed), vertical], 1)
        self._speed = torch.where(served[:, None], speed, self._speed)
