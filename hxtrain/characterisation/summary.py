"""Complete set of parameters from single measurements, with estimates for missing ones.

All potentials are in each neuron's trace codes. Gain and offset of its ADC channel cannot be separated from its
parameters, and this is not necessary: a prediction in the same codes is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hxtrain.backends.parameters import NeuronParameters

from .baseline import Baseline, TraceRange
from .resets import Resets
from .shapes import Shapes
from .thresholds import Thresholds
from .timing import Bursts

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
DEAD_GAIN = 0.1
"""Gain below which a circuit's inputs count as dead."""
MIN_SAMPLES = 12
"""Smallest number of samples in the linear range for a shape."""
MAX_NAMES = 8
"""Largest number of neurons that a note names."""


@dataclass(frozen=True)
class Measured:
    """All measurements.

    Attributes:
        baseline: leak and noise of the membranes.
        limits: range of the traces.
        samples: number of samples of the mean potentials in the linear range `[A, 2, N]`.
        shapes: fitted time constants and gains.
        strength: strength of every synapse `[J, 2, N]`.
        saturation: current at which the amplifier saturates (weight LSB); None for a linear amplifier.
        thresholds: thresholds of the neurons.
        resets: reset potentials and recoveries.
        bursts: first two spikes under strong drive.
        jitter: noise of a spike's time `[N]` (s); NaN for a neuron that did not fire.
        refractory: refractory period `[N]` (s); NaN for a neuron that did not fire.
        trials: number of all trials.
    """

    baseline: Baseline
    limits: TraceRange
    samples: npt.NDArray[np.int64]
    shapes: Shapes
    strength: Array
    saturation: float | None
    thresholds: Thresholds
    resets: Resets
    bursts: Bursts
    jitter: Array
    refractory: Array
    trials: int


def without_estimate(m: Measured, window: float) -> dict[str, Mask]:
    """Return masks of the neurons `[N]` without a measurement, by parameter.

    Args:
        m: measurements.
        window: recorded time after a stimulus (s); longer time constants cannot be measured.
    """
    blind = (m.samples < MIN_SAMPLES) | (m.shapes.gain < DEAD_GAIN)
    recovered = (m.resets.recovery.weight > 0).sum((0, 1)) >= MIN_SAMPLES
    return {
        "leak": ~m.limits.linear(m.baseline.leak),
        "threshold": ~np.isfinite(m.thresholds.threshold),
        "reset": m.resets.count == 0,
        "tau_mem": blind.all((0, 1)) | ~recovered | (m.shapes.tau_mem > window),
        "tau_syn": (blind | (m.shapes.tau_syn > window)).any((0, 1)),
        "strength": (m.samples < MIN_SAMPLES).any((0, 1)),
    }


def to_parameters(
    m: Measured, missing: Mapping[str, Mask], device: dict[str, str], merged: int, noise: tuple[float, float]
) -> NeuronParameters:
    """Return complete parameters.

    Missing measurements are replaced by estimates: a leak by the code at the end of the range, the threshold of a
    neuron that never fired by infinity, a reset, and a time constant of dead synapses or without valid samples, by the
    median of the other neurons. Dead synapses stay dead.

    Args:
        m: measurements.
        missing: masks of neurons without a measurement, see `without_estimate`.
        device: identity of the measured device.
        merged: number of merged circuits per neuron.
        noise: standard deviations of membranes and of single samples (trace units).
    """
    blind = (m.samples < MIN_SAMPLES) | (m.shapes.gain < DEAD_GAIN)
    is_complete = ~np.any(list(missing.values()), axis=0)
    thresholds = m.thresholds.noise[is_complete & ~m.thresholds.restless]
    return NeuronParameters(
        device=device,
        merged=merged,
        leak=m.baseline.leak,
        reset=_filled(m.resets.reset, missing["reset"]),
        threshold=m.thresholds.threshold,
        tau_mem=_filled(m.shapes.tau_mem, np.all(blind, axis=(0, 1))),
        tau_syn=_filled(m.shapes.tau_syn, blind),
        strength=m.strength,
        membrane_noise=noise[0],
        trace_noise=noise[1],
        threshold_noise=float(np.sqrt(np.mean(thresholds**2))) if len(thresholds) else 0.0,
        spike_jitter=_median(m.jitter),
        saturation=m.saturation,
        rails=m.limits.rails,
        notes=_notes(m, missing),
    )


def _filled(values: Array, missing: Mask) -> Array:
    """Return values `[..., N]` with missing ones replaced by the median of the others, unless all are missing."""
    if missing.all() or not missing.any():
        return values
    measured = np.where(missing, np.nan, values)
    with_median: Array = np.where(missing, np.nanmedian(measured), values)
    return with_median


def _median(values: Array) -> float:
    measured = values[np.isfinite(values)]
    return float(np.median(measured)) if len(measured) else 0.0


def _notes(m: Measured, missing: Mapping[str, Mask]) -> tuple[str, ...]:
    texts = {
        "leak": "rest at an end of the traces' range; their leak lies at or beyond it",
        "threshold": "never fired; their threshold is infinite",
        "reset": "have no sample of their reset; it is the median of the others",
        "tau_mem": "have no clear recovery from a spike; their tau_mem may be exchanged with a tau_syn",
        "tau_syn": "have a tau_syn longer than a trial or not visible",
        "strength": "have inputs whose potentials lie outside the linear range",
    }
    entries = [(missing[name], text) for name, text in texts.items()]
    entries.append((m.thresholds.restless, "fire without a stimulus; their threshold follows from the intervals"))
    dead: Mask = np.any(m.shapes.gain < DEAD_GAIN, axis=(0, 1))
    entries.append((dead, "have a circuit with dead inputs"))
    return tuple(f"{mask.sum()} of {mask.size} neurons {text}: {_names(mask)}" for mask, text in entries if mask.any())


def _names(mask: Mask) -> str:
    index = np.flatnonzero(mask)
    return ", ".join(map(str, index[:MAX_NAMES])) + (", ..." if len(index) > MAX_NAMES else "")
