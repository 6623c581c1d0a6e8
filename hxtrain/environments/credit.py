"""Credit assignment (the distal reward problem, Izhikevich 2007): which of many synapses earns a late reward?

All inputs fire at random, and so does the neuron, which drivers excite above its threshold. Whenever it fires soon
after input 0, a reward follows after a random delay, while hundreds of other spikes happen. Only the synapse of input 0
is to grow. Times are those of the device: 1000 times shorter than in biology.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.objectives.rewards import Rewards, RewardSource

from .environment import Environment, Outcome, random_trains


@dataclass
class Credit(Environment, RewardSource):
    """A delayed reward for spikes shortly after those of input 0.

    Attributes:
        sources: Number of inputs with learned weights.
        rate: Mean rate of each input, and of the volleys of the drivers (Hz of the device).
        drivers: Inputs that fire together to make the neuron fire.
        driver_weight: Weight of a driver (threshold - leak).
        lag: Longest time from a spike of input 0 to one of the neuron that earns a reward (s).
        reward: Amount of a reward.
        shortest_delay: Shortest delay of a reward (s).
        longest_delay: Longest delay of a reward (s).
        trials: Trials at a time.
        steps_per_epoch: Batches of trials in an epoch.
    """

    sources: int = 50
    rate: float = 5e3
    drivers: int = 4
    driver_weight: float = 0.25
    lag: float = 10e-6
    reward: float = 0.5
    shortest_delay: float = 200e-6
    longest_delay: float = 600e-6
    trials: int = 10
    steps_per_epoch: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sources", "drivers", "trials", "steps_per_epoch"):
            if getattr(self, name) < 1:
                raise ValueError(f"environment.{name}={getattr(self, name)} must be at least 1")
        for name in ("rate", "driver_weight", "lag"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"environment.{name}={getattr(self, name)} must be positive and finite")
        if not 0 <= self.shortest_delay <= self.longest_delay < math.inf:
            raise ValueError(
                f"environment.shortest_delay={self.shortest_delay} s must be in 0..longest_delay={self.longest_delay} s"
            )

    @property
    def inputs(self) -> int:
        """Number of inputs: sources, then drivers."""
        return self.sources + self.drivers

    @property
    def outputs(self) -> int:
        """Number of neurons: one."""
        return 1

    @property
    def states(self) -> int:
        """Number of states: one."""
        return 1

    @property
    def moves(self) -> int:
        """Number of batches of an epoch."""
        return self.steps_per_epoch

    def fixed_weights(self, neurons: int) -> Tensor:
        """Return the weights of the drivers."""
        return torch.full((neurons, self.drivers), self.driver_weight)

    def reset(self, generator: torch.Generator) -> None:
        """Start: nothing is left of earlier trials."""
        self._rewarded = torch.zeros(self.trials, dtype=torch.float64)

    def state(self) -> Tensor:
        """Return the only state `[B]`."""
        return torch.zeros(self.trials, dtype=torch.int64)

    def observe(self, window: float, generator: torch.Generator, epoch: int | None) -> Spikes:
        """Return random trains of the sources, and volleys of the drivers; delays of rewards are drawn, too."""
        mean = torch.full((self.trials, self.sources + 1), self.rate * window, dtype=torch.float64)
        counts = torch.poisson(mean, generator=generator).long()
        sample, unit, time = random_trains(counts, window, generator)
        is_driver = unit == self.sources
        volley_sample = sample[is_driver]
        volley_time = time[is_driver]
        driver = torch.arange(self.sources, self.inputs).repeat_interleave(len(volley_time))
        span = self.longest_delay - self.shortest_delay
        limit = int(4 * self.rate * window) + 64
        self._delays = self.shortest_delay + span * torch.rand(limit, generator=generator, dtype=torch.float64)
        return Spikes.from_events(
            torch.cat([sample[~is_driver], volley_sample.repeat(self.drivers)]),
            torch.cat([unit[~is_driver], driver]),
            torch.cat([time[~is_driver], volley_time.repeat(self.drivers)]),
            self.trials,
            self.inputs,
        )

    def rewards(self, inputs: Spikes, outputs: Spikes, labels: Tensor) -> Rewards:
        """Return a late reward for each output spike that comes soon after a spike of input 0."""
        of_first = inputs.unit == 0
        sample = outputs.sample.cpu()
        time = outputs.time.double().cpu()
        gap = time[:, None] - inputs.time[of_first].double().cpu()
        is_same = sample[:, None] == inputs.sample[of_first].cpu()
        earned = (is_same & (gap > 0) & (gap <= self.lag)).any(1)
        number = torch.arange(int(earned.sum())) % len(self._delays)
        values = torch.full((len(number),), self.reward, dtype=torch.float64)
        self._rewarded = torch.zeros(self.trials, dtype=torch.float64).index_add_(0, sample[earned], values)
        return Rewards(sample[earned], time[earned] + self._delays[number], values)

    def act(self, counts: Tensor, generator: torch.Generator) -> Outcome:
        """Return the rewards of the trials; nothing is to be decided."""
        is_active = counts.detach().cpu().sum(1) > 0
        undecided = torch.zeros_like(is_active)
        return Outcome(torch.where(is_active, 0, -1), self._rewarded, undecided, undecided)

    def summary(self, weights: Tensor) -> dict[str, float]:
        """Return rank of the weight of input 0, and its distance from the mean of the others in their deviations."""
        learned = weights[:, : self.sources].detach().double().cpu().mean(0)
        rivals = learned[1:]
        spread = float(rivals.std())
        distance = float(learned[0] - rivals.mean())
        return {"rank": int((rivals >= learned[0]).sum()) + 1, "z": distance / spread if spread > 0 else 0.0}
