"""Spike thresholds: the height of a stimulus at which a neuron fires with probability 1/2.

Heights are the peaks that the fitted membrane predicts, relative to leak. A slow noise of the threshold is constant
within a block of trials, and the scatter of the blocks measures it. Membrane noise makes a neuron fire before its mean
trace reaches the threshold: the mean of this gain follows from the fitted shape and noise, and is added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .baseline import Baseline
from .bench import Bench
from .response import MembraneModel
from .stimuli import groups, weights_for_peaks

Array = npt.NDArray[np.float64]
BLOCK = 100
"""Number of trials in one block."""
LEVELS = 20
"""Number of heights per block."""
TOP = 2.4
"""End of the first ramp, which begins at 0, in units of the target threshold - leak."""
COARSE = 10.0
"""Half width of the second ramp (trace units)."""
FINE = 5.0
"""Half width of the ramps of the measurement (trace units)."""
PATHS = 300
"""Number of simulated paths of membrane noise."""


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of all neurons.

    Attributes:
        threshold: threshold `[N]` (trace units); infinite for a neuron that never fired.
        blocks: threshold in every block of trials `[W, N]` (trace units).
        noise: standard deviation from block to block `[N]` (trace units).
        restless: mask of the neurons that fire without a stimulus `[N]`; their threshold is at or below the leak.
    """

    threshold: Array
    blocks: Array
    noise: Array
    restless: npt.NDArray[np.bool_]


def measure_thresholds(
    bench: Bench, model: MembraneModel, baseline: Baseline, membrane_noise: float, blocks: int = 30
) -> Thresholds:
    """Measure thresholds with ramps of stimuli: one wide, two narrower, and `blocks` narrow ones.

    Args:
        bench: device with the circuit to measure.
        model: fitted neurons, which predict peaks.
        baseline: leak of the membranes.
        membrane_noise: standard deviation of the membranes (trace units).
        blocks: number of narrow ramps, each a block of `BLOCK` trials.
    """
    target = bench.target("threshold") - bench.target("leak")
    heights = np.linspace(0, TOP, LEVELS)[:, None] * target
    reached, fired = _ramp(bench, model, heights, 1)
    silent = fired[0, -2:].mean(0) < 0.5
    restless = fired[0, 0] > 0.5
    centre = _spearman_kaerber(reached, fired)[0][0]
    for half, count in ((COARSE, 2), (FINE, blocks)):
        heights = np.maximum(centre + np.linspace(-half, half, LEVELS)[:, None], 0.0)
        reached, fired = _ramp(bench, model, heights, count)
        by_block, variance = _spearman_kaerber(reached, fired)
        centre = by_block.mean(0)
    gain = noise_gain(model, centre, membrane_noise, bench.dt, bench.rng)
    noise = np.sqrt(np.maximum(by_block.var(0, ddof=1) - variance.mean(0), 0.0)) if blocks > 1 else np.zeros_like(gain)
    threshold = np.where(restless, baseline.leak, baseline.leak + centre + gain)
    threshold = np.where(silent, np.inf, threshold)
    return Thresholds(threshold, baseline.leak + by_block + gain, noise, restless)


def _ramp(bench: Bench, model: MembraneModel, heights: Array, blocks: int) -> tuple[Array, Array]:
    """Stimulate with `heights` `[LEVELS, N]`, in random order within every block.

    Returns:
        Peaks that the model expects `[LEVELS, N]`, and the share of trials with a spike `[W, LEVELS, N]`.
    """
    stimuli = groups(bench.inputs, LEVELS)
    weights, reached = weights_for_peaks(model, stimuli, heights, bench.capabilities.weight_max)
    bench.align(BLOCK, spiking=True)
    repeats = BLOCK // LEVELS
    level = np.stack([bench.rng.permutation(np.repeat(np.arange(LEVELS), repeats)) for _ in range(blocks)])
    trials = bench.run(weights, stimuli[level.ravel()], np.zeros(level.size), spiking=True)
    fired = np.isfinite(trials.spike_times(1)[0]).reshape(blocks, BLOCK, -1)
    shares = np.zeros((blocks, LEVELS, bench.neurons))
    np.add.at(shares, (np.arange(blocks)[:, None], level), fired / repeats)
    return reached, shares


def _spearman_kaerber(heights: Array, shares: Array) -> tuple[Array, Array]:
    """Return mean and variance of the critical height `[W, N]` from shares `[W, L, N]` at heights `[L, N]`.

    The mean of a distribution follows from its increments (Spearman 1908, Kaerber 1931). The shares at the heights just
    beyond the ramp are taken as 0 and 1.
    """
    order = np.argsort(heights, axis=0, kind="stable")
    x = np.take_along_axis(heights, order, 0)
    p = np.take_along_axis(shares, np.broadcast_to(order, shares.shape), 1)
    pace = (x[-1:] - x[:1]) / (len(x) - 1)
    x = np.concatenate([x[:1] - pace, x, x[-1:] + pace])
    edge = np.zeros_like(p[:, :1])
    full = np.concatenate([edge, p, edge + 1], axis=1)
    mean = (np.diff(full, axis=1) * (x[1:] + x[:-1]) / 2).sum(1)
    repeats = BLOCK // LEVELS
    variance = (p * (1 - p) / (repeats - 1) * ((x[2:] - x[:-2]) / 2) ** 2).sum(1)
    return mean, variance


def noise_gain(model: MembraneModel, height: Array, noise: float, dt: float, rng: np.random.Generator) -> Array:
    """Return the reduction of the mean critical height by membrane noise `[N]` (trace units).

    A path n(t) of the noise lets a stimulus of shape p(t), peak 1, fire if its height exceeds
    `min_t (height - n(t)) / p(t)`. Paths are Ornstein-Uhlenbeck processes on steps of `dt / 4`.
    """
    merged, _, neurons = model.tau_syn.shape
    h = dt / 4
    steps = int(2.5 * np.median(model.tau_mem + model.tau_syn[:, 0].min(0)) / h)
    per_lsb = np.zeros((1, merged, 2, neurons))
    per_lsb[:, :, 0] = model.gain[:, 0]
    charges = per_lsb * height / np.where(height > 0, model.peak(per_lsb)[0], 1.0)
    shape = model.response(np.arange(1, steps + 1)[:, None] * h * np.ones(neurons), charges)
    shape = shape / np.maximum(shape.max(0), 1e-9)
    decay = np.exp(-h / model.tau_mem)
    kick = noise * np.sqrt(1 - decay**2)
    n = noise * rng.standard_normal((PATHS, 1)) * np.ones(neurons)
    critical = np.full((PATHS, neurons), np.inf)
    for p in shape:
        n = n * decay + kick * rng.standard_normal((PATHS, 1))
        critical = np.where(p > 0.3, np.minimum(critical, (height - n) / np.maximum(p, 0.3)), critical)
    reached = np.isfinite(critical).all(0)
    gain: Array = np.where(reached, height - np.where(reached, critical, 0.0).mean(0), 0.0)
    return gain
