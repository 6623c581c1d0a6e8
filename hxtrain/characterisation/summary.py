"""From single measurements to a complete set of parameters, and what had to be filled in.

Everything is in the neuron's own trace codes. Gain and offset of its ADC channel cannot be told from its own
parameters from outside, and need not: a prediction in the same codes is the same.
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
FEWEST = 12
"""Samples in the linear range that a shape needs."""
SHOWN = 8
"""Neurons that a note names at most."""


@dataclass(frozen=True)
class Measured:
    """All measurements.

    Attributes:
        baseline, limits, shapes, thresholds, resets, bursts: see there.
        samples: of the mean potentials in the linear range `[A, 2, N]`.
        strength: of every synapse `[J, 2, N]`. saturation: weight LSB; None for linear.
        jitter: noise of a spike's time, refractory: period, s `[N]`; not a number where a neuron did not fire.
        trials: run in all.
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
    """Return by parameter the neurons `[N]` of which it could not be measured.

    Args:
        m: the measurements.
        window: recorded time after a stimulus (s); longer time constants cannot be told.
    """
    blind = (m.samples < FEWEST) | (m.shapes.gain < DEAD_GAIN)
    recovered = (m.resets.recovery.weight > 0).sum((0, 1)) >= FEWEST
    return {
        "leak": ~m.limits.linear(m.baseline.leak),
        "threshold": ~np.isfinite(m.thresholds.threshold),
        "reset": m.resets.count == 0,
        "tau_mem": blind.all((0, 1)) | ~recovered | (m.shapes.tau_mem > window),
        "tau_syn": (blind | (m.shapes.tau_syn > window)).any((0, 1)),
        "strength": (m.samples < FEWEST).any((0, 1)),
    }


def to_parameters(
    m: Measured, missing: Mapping[str, Mask], device: dict[str, str], merged: int, noise: tuple[float, float]
) -> NeuronParameters:
    """Return complete parameters.

    What could not be measured is the best guess: a leak is the code at the end of the range; a threshold of a
    neuron that never fired is infinite; a reset, and a time constant behind dead synapses or without valid samples,
    is the median of the others. Dead synapses stay dead.

    Args:
        m: the measurements. missing: see `without_estimate`. device: where they are from. merged: circuits per
            neuron. noise: of membranes and of single samples (trace units).
    """
    blind = (m.samples < FEWEST) | (m.shapes.gain < DEAD_GAIN)
    sure = ~np.any(list(missing.values()), axis=0)
    thresholds = m.thresholds.noise[sure & ~m.thresholds.restless]
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


def _filled(values: Array, without: Mask) -> Array:
    """Return values `[..., N]` with the median over the other neurons where there is none; all if there are none."""
    if without.all() or not without.any():
        return values
    known = np.where(without, np.nan, values)
    with_median: Array = np.where(without, np.nanmedian(known), values)
    return with_median


def _median(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def _notes(m: Measured, missing: Mapping[str, Mask]) -> tuple[str, ...]:
    texts = {
        "leak": "rest at an end of the traces' range; their leak lies at or beyond it",
        "threshold": "never fired; their threshold is infinite",
        "reset": "have no sample of their reset; it is the median of the others",
        "tau_mem": "have no clear recovery from a spike; their tau_mem may be exchanged with a tau_syn",
        "tau_syn": "have a tau_syn longer than a trial or not visible",
        "strength": "have inputs whose potentials lie outside the linear range",
    }
    found = [(missing[name], text) for name, text in texts.items()]
    found.append((m.thresholds.restless, "fire without a stimulus; their threshold follows from the intervals"))
    dead: Mask = np.any(m.shapes.gain < DEAD_GAIN, axis=(0, 1))
    found.append((dead, "have a circuit with dead inputs"))
    return tuple(f"{mask.sum()} of {mask.size} neurons {text}: {_names(mask)}" for mask, text in found if mask.any())


def _names(mask: Mask) -> str:
    index = np.flatnonzero(mask)
    return ", ".join(map(str, index[:SHOWN])) + (", ..." if len(index) > SHOWN else "")
