r"""Reward-modulated spike-timing-dependent plasticity (R-STDP).

Spike pairs leave an eligibility at a synapse, and a reward above its expectation turns it into a change of weight::

    e' = -e / tau_e + STDP(t)         w' = eta (R(t) - b) e         STDP: A+ exp(-lag / tau+) if the input fired first,
                                                                          -A- exp(-lag / tau-) if the output did

- Izhikevich 2007: the reward is dopamine, `d' = -d / tau_d + R` (`tau_dopamine`).
- Florian 2007: MSTDPET with `tau_eligibility`, MSTDP without a decay for a reward that is known at the end of a trial.
- BrainScaleS-2 (Wunderlich et al. 2019): `dw = eta (R - b) causal`, with the causal sum of neighbouring spikes that its
  correlation sensors measure (`a_minus=0`, `pairing=reduced`), and with b the running mean of the same state.

A reward at the end of a trial (`Objective.reward`) has a running mean per batch; rewards at times (`RewardSource`) have
one in time. `modulation.py` has the integral. Every trial begins without eligibility.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Optional

import torch
from torch import Tensor

from hxtrain.backends import Capabilities, Spikes
from hxtrain.backends.intake import as_tensor
from hxtrain.network import Activity, Network
from hxtrain.objectives import Loss
from hxtrain.objectives.losses import read_output
from hxtrain.objectives.rewards import Rewards, RewardSource

from .inputs import input_events
from .modulation import Modulator, credits
from .rule import Batch, LearningRule, Need, Objective, RuleError, Step
from .traces import Pairing, pair_correlation

BASELINES = ("label", "batch", "none")
"""What the expected reward of a trial is a running mean of, see `RewardSTDP.baseline`."""
TIMES = ("tau_plus", "tau_minus", "tau_eligibility", "tau_dopamine", "tau_baseline")
"""Settings that are time constants."""


class Teaching(NamedTuple):
    """What a reward says of a pass.

    Attributes:
        inputs: Third factor of each input event, float64 `[E]`.
        layers: Third factor of each event of each layer, float64 `[E]`.
        reward: Mean reward of a sample.
    """

    inputs: Tensor
    layers: list[Tensor]
    reward: float


@dataclass
class RewardSTDP(LearningRule):
    """Reward-modulated STDP with eligibility and baseline (Izhikevich 2007, Florian 2007, Wunderlich et al. 2019).

    Time constants are those of the device; biological ones are 1000 times longer: 20 ms of STDP and an eligibility of
    1 s are 20 us and 1 ms.

    Attributes:
        a_plus: Eligibility by a causal pair.
        a_minus: Loss of eligibility by an anticausal pair.
        tau_plus: Time constant of causal pairs (s).
        tau_minus: Time constant of anticausal pairs (s).
        pairing: Pairs that count: all_to_all, symmetric, pre_centred, or reduced as a chip's sensors measure.
        tau_eligibility: Time constant of the eligibility (s); None: it stays until the end of the trial.
        tau_dopamine: Time constant of dopamine (s), for rewards at times; None: rewards are pulses.
        tau_baseline: Memory of the running mean of rewards at times (s); None: no baseline.
        baseline: Expected reward at the end of a trial: running mean of the trials of the same label or state
            (`label`), of all trials (`batch`), or 0 (`none`).
        baseline_rate: Share of the latest rewards in the running mean; the first ones are averaged.
        settling: Rewards that a running mean takes before its trials change weights.
        target_spikes: Spikes per neuron and trial that homeostasis aims at.
        homeostasis: Growth of all weights of a silent neuron, relative to the learning rate; 0: no homeostasis.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUT_SPIKES, Need.SPIKES, Need.REWARD, Need.TARGETS})
    is_local: ClassVar[bool] = True
    solves: ClassVar[str] = "delayed credit assignment and Pong (hxtrain play)"
    a_plus: float = 1.0
    a_minus: float = 0.0
    tau_plus: float = 10e-6
    tau_minus: float = 10e-6
    pairing: str = "reduced"
    tau_eligibility: Optional[float] = None  # noqa: UP045 - OmegaConf resolves these on every Python
    tau_dopamine: Optional[float] = None  # noqa: UP045
    tau_baseline: Optional[float] = None  # noqa: UP045
    baseline: str = "label"
    baseline_rate: float = 0.5
    settling: int = 10
    target_spikes: float = 1.0
    homeostasis: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (*TIMES, "target_spikes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"rule.{name}={value} must be positive and finite")
        for name, choices in (("pairing", [pairing.value for pairing in Pairing]), ("baseline", BASELINES)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"rule.{name}={getattr(self, name)!r} is not known; choose one of {', '.join(choices)}"
                )
        if not 0 < self.baseline_rate <= 1:
            raise ValueError(f"rule.baseline_rate={self.baseline_rate} must be in 0 < x <= 1")
        if self.settling < 0:
            raise ValueError(f"rule.settling={self.settling} must not be negative")
        if not 0 <= self.homeostasis < math.inf:
            raise ValueError(f"rule.homeostasis={self.homeostasis} must be finite and not negative")
        if self.tau_dopamine is not None and self.tau_dopamine == self.tau_baseline:
            raise ValueError(
                f"rule.tau_dopamine=rule.tau_baseline={self.tau_dopamine} s: a running mean is slower than what it "
                "averages; set a longer tau_baseline"
            )

    def check(self, net: Network, capabilities: Capabilities | None) -> list[str]:
        """Return a text with a remedy for each misfit, see `LearningRule.check`."""
        misfits = super().check(net, capabilities)
        if net.output_kind != "spikes":
            misfits.append(
                f"{self.name} pairs input with output spikes, but the output is a readout; set network.output=spikes "
                "and loss=spike_count"
            )
        return misfits

    def prepare(self, net: Network, objective: Objective | None = None) -> None:
        """Make the running means, see `LearningRule.prepare`.

        Raises:
            RuleError: Dopamine or its baseline in time are asked for, but rewards have no times.
        """
        super().prepare(net, objective)
        timed = isinstance(self.objective.reward, RewardSource)
        taus = [f"rule.{name}" for name in ("tau_dopamine", "tau_baseline") if getattr(self, name) is not None]
        if taus and not timed:
            raise RuleError(
                f"rule={self.name}: {' and '.join(taus)} are for rewards at times, but the reward comes once, at the "
                "end of a trial; leave them out (rule.baseline and rule.baseline_rate set the expected reward)"
            )
        labels = 1 if timed or self.baseline != "label" else _labels(net, self.objective)
        self._means = torch.zeros(labels, dtype=torch.float64)
        self._visits = torch.zeros(labels, dtype=torch.int64)

    @torch.no_grad()
    def step(self, net: Network, batch: Batch) -> Step:
        """Run a batch, and leave the negative mean change of its trials in `.grad`; the loss is the negative reward."""
        activity: Activity = net(batch.spikes, batch.masks)
        inputs = input_events(net, batch)
        spikes = [layer.times(net.dt) for layer in activity.layers]
        teaching = self._teach(net, batch, activity, inputs, spikes)
        samples = batch.spikes.samples
        names = {layer.name: number for number, layer in enumerate(net.layers)}
        for projection in net.projections:
            post = names[projection.post]
            pre = names.get(projection.pre)
            factors = teaching.inputs if pre is None else teaching.layers[pre], teaching.layers[post]
            if projection.synapses.is_trainable:
                source = inputs if pre is None else spikes[pre]
                weight = projection.synapses.weight
                change = self._eligible(source, spikes[post], factors)
                change += self._homeostasis(activity, post, batch) * samples
                mask = projection.synapses.mask
                weight.grad = ((change if mask is None else change * mask) / -samples).to(weight)
        return Step(activity, -teaching.reward)

    def _eligible(self, pre: Spikes, post: Spikes, factors: tuple[Tensor, Tensor]) -> Tensor:
        """Return the sum over samples of the changes `[N, J]` that spike pairs earn."""
        causal, anticausal = pair_correlation(
            pre, post, self.tau_plus, self.tau_minus, Pairing(self.pairing), (factors[0], factors[1])
        )
        return self.a_plus * causal - self.a_minus * anticausal

    def _homeostasis(self, activity: Activity, number: int, batch: Batch) -> Tensor:
        """Return the change of all weights of each neuron of a layer `[N, 1]` towards its target number of spikes."""
        counts = activity.layers[number].counts
        assert counts is not None  # `check` refuses readouts
        growth = self.homeostasis * (1 - counts.double().mean(0) / self.target_spikes)
        mask = None if batch.masks is None else batch.masks[number]
        return (growth if mask is None else growth * mask)[:, None]

    def _teach(self, net: Network, batch: Batch, activity: Activity, inputs: Spikes, spikes: list[Spikes]) -> Teaching:
        """Return the third factors of all spikes, and let the running means take the rewards.

        Args:
            net: Network of the pass.
            batch: Samples of the pass.
            activity: Activity of the pass.
            inputs: Input events as they arrive at the synapses.
            spikes: Spikes of each layer.
        """
        source = self.objective.reward
        labels = as_tensor(batch.labels, "labels")
        if isinstance(source, RewardSource):
            return self._teach_in_time(net, inputs, spikes, source.rewards(batch.spikes, spikes[-1], labels))
        loss = self.objective.loss
        output = read_output(loss, activity)
        scores = loss.scores(output) if isinstance(loss, Loss) else output.sum(0)
        values = source(scores, labels.to(scores.device)).double().cpu()
        surprise = self._surprise(values, labels.cpu())
        end = net.steps * net.dt
        upstream, *layers = [self._decayed(surprise, events, end) for events in (inputs, *spikes)]
        return Teaching(upstream, layers, float(values.mean()))

    def _decayed(self, surprise: Tensor, spikes: Spikes, end: float) -> Tensor:
        """Return the third factor of each event for a surprise `[B]` at the end of each trial; 0 after the end."""
        time = spikes.time.double()
        factor = surprise.to(time.device)[spikes.sample]
        if self.tau_eligibility is not None:
            factor = factor * torch.exp((time - end) / self.tau_eligibility)
        return torch.where(time <= end, factor, 0.0)

    def _teach_in_time(self, net: Network, inputs: Spikes, spikes: list[Spikes], rewards: Rewards) -> Teaching:
        """Return the third factors for rewards at times; the running mean goes on from trial to trial."""
        modulator = Modulator(self.tau_eligibility or math.inf, self.tau_dopamine or 0.0, self.tau_baseline or math.inf)
        arguments = (rewards, modulator, net.steps * net.dt, float(self._means[0]))
        layers = []
        for events in spikes:
            credit = credits(inputs, events, *arguments)
            layers.append(credit.outputs)
        self._means[0] = credit.baseline.mean()
        return Teaching(credit.inputs, layers, float(rewards.value.sum()) / inputs.samples)

    def _surprise(self, values: Tensor, labels: Tensor) -> Tensor:
        """Return the rewards of trials above the expected ones `[B]`; 0 where too few are known. Means take them in."""
        if self.baseline == "none":
            return values
        groups = labels if self.baseline == "label" else torch.zeros_like(labels)
        settled = self._visits[groups] >= self.settling
        surprise = torch.where(settled, values - self._means[groups], 0.0)
        counts = torch.bincount(groups, minlength=len(self._means))
        sums = torch.zeros_like(self._means).index_add_(0, groups, values)
        present = counts > 0
        rates = (1 / (self._visits[present] + 1)).clamp(min=self.baseline_rate)
        self._means[present] += rates * (sums[present] / counts[present] - self._means[present])
        self._visits[present] += 1
        return surprise

    def state_dict(self) -> dict[str, Any]:
        """Return the running means of rewards, and the numbers of batches that they average."""
        return {"means": self._means.clone(), "visits": self._visits.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state, see `LearningRule.load_state_dict`."""
        if state.keys() != {"means", "visits"}:
            raise ValueError(f"the checkpoint has a state of {', '.join(state) or 'nothing'}, not of {self.name}")
        means, visits = state["means"], state["visits"]
        if means.shape != self._means.shape or visits.shape != self._visits.shape:
            raise ValueError(f"running means of {len(means)} labels, expected {len(self._means)}")
        self._means = means.clone()
        self._visits = visits.clone()


def _labels(net: Network, objective: Objective) -> int:
    """Return the number of labels: states of an environment, else classes."""
    states = getattr(objective.reward, "states", None)
    if isinstance(states, int):
        return states
    outputs = net.layers[-1].neurons.size
    loss = objective.loss
    return loss.classes(outputs) if isinstance(loss, Loss) else outputs
