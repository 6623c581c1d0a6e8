"""From the velocity of the basilar membrane to spikes: inner hair cells and bushy cells, as in Cramer et al. 2020.

A hair cell releases transmitter (Meddis 1986, 1988), with whose amount each of 40 nerve fibres fires; a bushy cell, a
leaky integrate-and-fire neuron, pools the fibres of a channel. All channels are independent.

Fibres of a channel are alike, so that the number of those that fire is drawn from a binomial distribution over those
that are not refractory, in place of a number for each fibre. Its distribution is exactly that of separate fibres.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hxtrain.neurons.jit import compiled

from .philox import WORDS, random_words

Floats = npt.NDArray[np.float64]

REPLENISHMENT = 5.05
"""Rate at which lost transmitter is made anew (1 / s), y of Meddis."""
RELEASE = 2000.0
"""Greatest rate of release (1 / s), g."""
LOSS = 2500.0
"""Rate of loss from the cleft (1 / s), l."""
REUPTAKE = 6580.0
"""Rate of reuptake from the cleft (1 / s), r."""
REPROCESSING = 66.3
"""Rate at which reupreabsorbed transmitter is reprocessed (1 / s), x."""
PERMEABILITY = 5.0
"""Velocity at which release begins, A."""
SATURATION = 300.0
"""Velocity of half the greatest release, B."""
FIRING = 50_000.0
"""Firing rate per transmitter in the cleft (1 / s), h."""
CAPACITY = 1.0
"""Amount of free transmitter of a hair cell at rest, M."""

FIBRES = 40
"""Number of nerve fibres of a bushy cell."""
TAU_MEM = 1e-3
TAU_SYN = 0.5e-3
REFRACTORY = 1e-3
"""Refractory period of fibres and bushy cells (s)."""
WEIGHT = 13e3
"""Slope of the potential when all fibres have fired (thresholds / s)."""


def rest(release: float) -> tuple[float, float, float]:
    """Return the transmitter of a hair cell in steady state: free, in the cleft, and in reprocessing.

    Args:
        release: rate of release (1 / s).
    """
    cleft = CAPACITY * REPLENISHMENT * release / (LOSS * release + REPLENISHMENT * (LOSS + REUPTAKE))
    return cleft * (LOSS + REUPTAKE) / release, cleft, cleft * REUPTAKE / REPROCESSING


def spontaneous_release() -> float:
    """Return the rate of release of a membrane at rest (1 / s)."""
    return RELEASE * PERMEABILITY / (PERMEABILITY + SATURATION)


def probabilities(velocity: Floats, rate: int) -> Floats:
    """Return the probability that a fibre fires in each step [C, N].

    Args:
        velocity: velocity of the membrane [C, N].
        rate: steps per second (Hz).
    """
    result = np.empty_like(velocity)
    _release(np.ascontiguousarray(velocity), 1.0 / rate, np.array(rest(spontaneous_release())), result)
    return result


def spikes(
    probability: Floats, rate: int, key: tuple[int, int], channels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the spikes of the bushy cells as rows of `probability` and steps, sorted by row [E].

    Args:
        probability: probability that a fibre fires in each step [C, N].
        rate: steps per second (Hz).
        key: key of the noise, see `philox.random_key`.
        channels: number of each channel, which chooses its noise [C].
    """
    words = np.array(key, dtype=np.uint64)
    pause = int(np.ceil(REFRACTORY * rate))
    longest = probability.shape[1] // pause + 1
    steps = np.empty((len(channels), longest), dtype=np.int32)
    counts = np.empty(len(channels), dtype=np.int64)
    _fire(np.ascontiguousarray(probability), 1.0 / rate, pause, words, channels, steps, counts)
    is_spike = np.arange(longest) < counts[:, None]
    rows, _ = np.nonzero(is_spike)
    return rows, steps[is_spike].astype(np.int64)


@compiled
def _release(velocity: Any, dt: Any, start: Any, result: Any) -> None:
    for channel in range(velocity.shape[0]):
        free = start[0]
        cleft = start[1]
        reprocessed = start[2]
        for step in range(velocity.shape[1]):
            drive = velocity[channel, step] + PERMEABILITY
            release = dt * RELEASE * drive / (drive + SATURATION) if drive > 0 else 0.0
            ejected = release * free
            recovered = dt * REPROCESSING * reprocessed
            replenished = dt * REPLENISHMENT * max(CAPACITY - free, 0.0)
            reabsorbed = dt * REUPTAKE * cleft
            lost = dt * LOSS * cleft
            free = max(free + replenished - ejected + recovered, 0.0)
            cleft = max(cleft + ejected - reabsorbed - lost, 0.0)
            reprocessed = max(reprocessed + reabsorbed - recovered, 0.0)
            result[channel, step] = cleft * FIRING * dt


@compiled
def _fire(probability: Any, dt: Any, pause: Any, key: Any, channels: Any, steps: Any, counts: Any) -> None:
    gain = WEIGHT / FIBRES * dt
    membrane_decay = np.exp(-dt / TAU_MEM)
    synapse_decay = np.exp(-dt / TAU_SYN)
    words = np.empty(WORDS)
    recent = np.empty(pause, dtype=np.int64)
    for row in range(probability.shape[0]):
        recent[:] = 0
        available = FIBRES
        current = 0.0
        potential = 0.0
        rest_steps = 0
        count = 0
        slot = 0
        for step in range(probability.shape[1]):
            if step % WORDS == 0:
                random_words(key, np.uint64(channels[row]), np.uint64(step // WORDS), words)
            available += recent[slot]
            fired = _binomial(words[step % WORDS], available, probability[row, step])
            recent[slot] = fired
            available -= fired
            slot = slot + 1 if slot + 1 < pause else 0
            current = current * synapse_decay + fired
            if rest_steps <= 0 and potential >= 1.0:
                steps[row, count] = step - 1
                count += 1
                rest_steps = pause
            potential = min(potential * membrane_decay + current * gain, 1.0) if rest_steps <= 0 else 0.0
            rest_steps -= 1
        counts[row] = count


@compiled
def _binomial(number: Any, trials: Any, probability: Any) -> Any:
    """Return the successes of `trials` for a uniform random number, by inversion of their distribution."""
    if number < 1.0 - trials * probability or trials == 0:
        return 0
    if probability >= 1.0:
        return trials
    odds = probability / (1.0 - probability)
    mass = (1.0 - probability) ** trials
    total = mass
    successes = 0
    while number >= total and successes < trials:
        mass *= odds * (trials - successes) / (successes + 1)
        total += mass
        successes += 1
    return successes
