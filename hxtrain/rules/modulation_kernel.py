"""Loops over rewards and spikes that compute credits, compiled for the CPU with numba (decision 0008).

Between two rewards dopamine and its running mean are sums of exponentials, so that integrals are exact. Sample b has
the rewards `offsets[b]:offsets[b + 1]` and one more state, that of its start: state k of a sample holds dopamine,
baseline and credit just after reward k - 1.
"""

from __future__ import annotations

import numpy as np

from hxtrain.neurons.jit import Float, Int, exact


@exact
def _integral(rate, gap):
    """Return the integral of exp(-rate t) over 0..gap."""
    return gap if rate == 0.0 else -np.expm1(-rate * gap) / rate


@exact
def _mix(dopamine_rate, baseline_rate):
    """Return the share with which dopamine enters the running mean; 0 for pulses."""
    return 0.0 if dopamine_rate == 0.0 else baseline_rate / (dopamine_rate - baseline_rate)


@exact
def _gain(dopamine, baseline, rates, gap):
    """Return the integral of modulator times eligibility of 1 over a gap without rewards."""
    eligibility_rate = rates[0]
    dopamine_rate = rates[1]
    baseline_rate = rates[2]
    mix = _mix(dopamine_rate, baseline_rate)
    gain = -(baseline + dopamine * mix) * _integral(baseline_rate + eligibility_rate, gap)
    if dopamine_rate > 0.0:
        gain += dopamine * (1 + mix) * _integral(dopamine_rate + eligibility_rate, gap)
    return gain


@exact
def _state(dopamine, baseline, rates, gap):
    """Return dopamine and baseline after a gap without rewards."""
    fast = np.exp(-rates[1] * gap)
    slow = np.exp(-rates[2] * gap)
    mix = _mix(rates[1], rates[2])
    return dopamine * fast, baseline * slow + dopamine * mix * (slow - fast)


@exact
def reward_credits(
    offsets: Int, time: Float, value: Float, rates: Float, end: float, baseline: float, states: Float, last: Float
) -> None:
    """Compute the states after each reward.

    Args:
        offsets: First reward of each sample, and the number of rewards `[B + 1]`.
        time: Time of each reward, ascending within a sample `[E]`.
        value: Amount of each reward `[E]`.
        rates: Decay rates of eligibility, dopamine (0: pulses) and baseline.
        end: End of a trial.
        baseline: Running mean at the start of each trial.
        states: Dopamine, baseline, and credit of a change at that time `[E + B, 3]`.
        last: Running mean at the end of each trial `[B]`.
    """
    for b in range(offsets.shape[0] - 1):
        first = offsets[b] + b
        count = offsets[b + 1] - offsets[b]
        states[first, 0] = 0.0
        states[first, 1] = baseline
        previous = 0.0
        for k in range(count):
            e = offsets[b] + k
            dopamine, mean = _state(states[first + k, 0], states[first + k, 1], rates, time[e] - previous)
            previous = time[e]
            if rates[1] > 0.0:
                dopamine += value[e]
            else:
                mean += value[e] * rates[2]
            states[first + k + 1, 0] = dopamine
            states[first + k + 1, 1] = mean
        _, last[b] = _state(states[first + count, 0], states[first + count, 1], rates, end - previous)
        next_time = end
        next_credit = 0.0
        for k in range(count, -1, -1):
            start = time[offsets[b] + k - 1] if k > 0 else 0.0
            gap = next_time - start
            credit = _gain(states[first + k, 0], states[first + k, 1], rates, gap)
            credit += np.exp(-rates[0] * gap) * next_credit
            states[first + k, 2] = credit
            next_time = start
            next_credit = credit
            if k > 0 and rates[1] == 0.0:
                next_credit += value[offsets[b] + k - 1]


@exact
def event_credits(
    offsets: Int,
    time: Float,
    value: Float,
    rates: Float,
    end: float,
    states: Float,
    event_sample: Int,
    event_time: Float,
    credit: Float,
) -> None:
    """Compute the credit of each spike `[S]`; arguments as in `reward_credits`."""
    for s in range(event_time.shape[0]):
        t = event_time[s]
        if t > end:
            continue
        b = event_sample[s]
        k = np.searchsorted(time[offsets[b] : offsets[b + 1]], t)  # rewards before the spike
        first = offsets[b]
        start = time[first + k - 1] if k > 0 else 0.0
        dopamine, mean = _state(states[first + b + k, 0], states[first + b + k, 1], rates, t - start)
        is_last = first + k == offsets[b + 1]
        stop = end if is_last else time[first + k]
        credit[s] = _gain(dopamine, mean, rates, stop - t)
        if not is_last:
            reward = value[first + k] if rates[1] == 0.0 else 0.0
            credit[s] += np.exp(-rates[0] * (stop - t)) * (states[first + b + k + 1, 2] + reward)
