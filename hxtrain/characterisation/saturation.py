"""Saturation of the amplifier, from potentials near the end of the linear range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from .baseline import LINEAR_MARGIN, Baseline, TraceRange
from .bench import OFFSETS, Bench
from .response import MembraneModel, response
from .stimuli import weights_for_peaks

Array = npt.NDArray[np.float64]
SHARE = 0.9
"""Peak of the stimuli, as a share of the linear range above leak."""
SPREAD = 12
"""Number of inputs that share the stimulus."""
ITERATIONS = 8
MAD_TO_ERROR = 1.4826 * 1.2533
"""Standard error of a median, times the root of the count, over the median absolute deviation (normal numbers)."""
MAX_SATURATION = 10.0
"""Saturation in units of the stimulus above which an amplifier cannot be distinguished from a linear one."""
MAX_CHARGE = 1.2
"""Largest charge of the fit, in units of the saturation (the response is a series)."""


def measure_saturation(
    bench: Bench, model: MembraneModel, delay: Array, baseline: Baseline, limits: TraceRange, repeats: int = 12
) -> float | None:
    """Measure the current at which the synaptic amplifier saturates (weight LSB).

    Every circuit alone excites its neuron up to the end of the linear range; the deviation from the linear prediction
    gives the saturation of each neuron. The result for all neurons is the median of `1 / I_sat^2`.

    Returns:
        Saturation; None if responses are linear within the error.
    """
    caps = bench.capabilities
    linear = replace(model, saturation=None)
    height = SHARE * np.maximum(limits.high - LINEAR_MARGIN - baseline.leak, 1.0)
    index = np.arange(bench.inputs)
    fits = []
    largest_charge = 0.0
    offsets = bench.offsets(OFFSETS * repeats)
    for a in range(bench.merged):
        fired = ((index // caps.inputs_per_circuit == a) & (index % caps.inputs_per_circuit < SPREAD))[None]
        weights, _ = weights_for_peaks(linear, fired, height[None], caps.weight_max)
        codes = bench.run(weights, np.repeat(fired, len(offsets), 0), offsets, spiking=False).codes
        mean = codes.reshape(repeats, OFFSETS, *codes.shape[1:]).mean(0)
        charge = linear.charges(weights.astype(float), fired.astype(float))[0, a, 0]
        times = (bench.times - bench.start - offsets[:OFFSETS, None])[:, :, None] - delay
        predict = partial(response, times, linear.tau_mem, linear.tau_syn[a, 0], charge, linear.drive)
        largest_charge = max(largest_charge, float(np.median(charge)))
        fits.append(_nonlinearity(predict, charge, mean - baseline.leak, limits.linear(mean)))
    nonlinearity = np.concatenate(fits)
    nonlinearity = nonlinearity[np.isfinite(nonlinearity)]
    if len(nonlinearity) == 0:
        return None
    middle = float(np.median(nonlinearity))
    error = float(np.median(np.abs(nonlinearity - middle))) * MAD_TO_ERROR / math.sqrt(len(nonlinearity))
    return middle**-0.5 if middle > max(3 * error, MAX_SATURATION**-2 * largest_charge**-2) else None


def _nonlinearity(
    predict: Callable[[Array], Array], charge: Array, deviation: Array, valid: npt.NDArray[np.bool_]
) -> Array:
    """Return the `1 / I_sat^2` `[N]` that fits mean traces `[OFFSETS, T, N]` best; NaN without samples.

    Gauss-Newton in one parameter per neuron.
    """
    unit = 1 / np.maximum(charge, 1.0) ** 2
    result = np.zeros_like(unit)
    for _ in range(ITERATIONS):
        model = predict(result)
        slope = np.where(valid, (predict(result + 0.01 * unit) - model) / 0.01, 0.0)
        norm = (slope**2).sum((0, 1))
        step = (slope * (deviation - model)).sum((0, 1)) / np.where(norm > 0, norm, 1.0)
        result = np.clip(result + np.clip(step, -0.3, 0.3) * unit, -0.3 * unit, MAX_CHARGE**2 * unit)
    return np.where(norm > 0, result, np.nan)
