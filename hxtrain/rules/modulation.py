r"""The third factor of reward-modulated plasticity: the credit of a spike, which is what a change by 1 will earn.

A synapse remembers a change by spike timing in its eligibility, which decays, and a modulator M turns eligibility into
a change of weight::

    e' = -e / tau_e + STDP(t)          w' = M(t) e          so          dw = sum over STDP events s of STDP(s) G(s)
    G(s) = integral from s to the end of the trial of M(t) exp(-(t - s) / tau_e) dt

`G` needs no eligibility of each synapse. M is reward above its running mean b, `b' = (x - b) / tau_b`, of

    x = R    a reward r at time t is a pulse of area r: the synapse changes by r e(t) at once (Florian 2007)
    x = d    dopamine, which jumps by r and decays: d' = -d / tau_d + R (Izhikevich 2007)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.objectives.rewards import Rewards


class Modulator(NamedTuple):
    """Time constants of the third factor (s).

    Attributes:
        eligibility: Decay of the eligibility; infinite if it stays until the end of the trial.
        dopamine: Decay of dopamine; 0 for pulses of reward.
        baseline: Memory of the running mean; infinite for none.
    """

    eligibility: float = math.inf
    dopamine: float = 0.0
    baseline: float = math.inf


class Credits(NamedTuple):
    """Credits of the spikes of a pass.

    Attributes:
        inputs: Credit of each input event, float64 `[E]`.
        outputs: Credit of each output event, float64 `[E]`.
        baseline: Running mean at the end of each trial, float64 `[B]`.
    """

    inputs: Tensor
    outputs: Tensor
    baseline: Tensor


def credits(
    inputs: Spikes, outputs: Spikes, rewards: Rewards, modulator: Modulator, end: float, baseline: float = 0.0
) -> Credits:
    """Return the credit of each spike of a pass.

    A reward counts for the spikes before it and at its time.

    Args:
        inputs: Input events of `B` samples.
        outputs: Output events of the same samples.
        rewards: Rewards; those after the end of the trial are lost.
        modulator: Time constants.
        end: End of the trial (s); a later spike has no credit.
        baseline: Running mean at the start of each trial.
    """
    from .modulation_kernel import event_credits, reward_credits

    sample, time, value = _sorted_rewards(rewards, end)
    offsets = np.searchsorted(sample, np.arange(inputs.samples + 1)).astype(np.int64)
    states = np.zeros((len(time) + inputs.samples, 3))
    last = np.zeros(inputs.samples)
    rates = np.array([_rate(tau) for tau in modulator])
    reward_credits(offsets, time, value, rates, end, baseline, states, last)
    parts = []
    for spikes in (inputs, outputs):
        credit = np.zeros(len(spikes))
        of_sample = spikes.sample.cpu().numpy()
        event_credits(offsets, time, value, rates, end, states, of_sample, _times(spikes.time), credit)
        parts.append(torch.from_numpy(credit).to(spikes.time.device))
    return Credits(parts[0], parts[1], torch.from_numpy(last))


def _rate(tau: float) -> float:
    """Return the rate of a decay; 0 stands for none, and for pulses."""
    return 0.0 if tau == 0 else 1 / tau


def _times(time: Tensor) -> npt.NDArray[np.float64]:
    times: npt.NDArray[np.float64] = time.detach().cpu().numpy().astype(np.float64)
    return times


def _sorted_rewards(
    rewards: Rewards, end: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return sample, time and value of the rewards within a trial, by sample and time."""
    sample = rewards.sample.cpu().numpy()
    time = _times(rewards.time)
    order = np.lexsort((time, sample))
    order = order[time[order] <= end]
    return sample[order], time[order], _times(rewards.value)[order]
