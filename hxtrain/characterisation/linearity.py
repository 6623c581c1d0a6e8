"""Linearity of the synapses: the potential's amplitude as a function of the integer weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .baseline import Baseline
from .bench import OFFSETS, Bench
from .psp import psp_weight
from .response import response
from .shapes import Shapes

Array = npt.NDArray[np.float64]
STEPS = 7
"""Number of integer weights, in equal steps up to `psp_weight`."""
INPUTS = 16
"""Number of inputs of the first circuit that are averaged."""


@dataclass(frozen=True)
class Linearity:
    """Amplitudes of potentials by weight.

    Attributes:
        weights: integer weights `[W]`.
        amplitude: amplitude of the excitatory potential, in units of the fitted shape's response to the largest
            weight `[W, N]`.
    """

    weights: npt.NDArray[np.int64]
    amplitude: Array

    @property
    def deviation(self) -> Array:
        """Largest distance from the straight line through the origin, over the largest amplitude `[N]`."""
        w = self.weights[:, None].astype(float)
        slope = (w * self.amplitude).sum(0) / (w**2).sum()
        distance: Array = np.abs(self.amplitude - slope * w).max(0) / self.amplitude.max(0)
        return distance


def measure_linearity(bench: Bench, shapes: Shapes, baseline: Baseline) -> Linearity:
    """Measure single excitatory potentials for several weights, without spiking."""
    largest = psp_weight(bench)
    weights = np.unique(np.rint(np.linspace(0, largest, STEPS + 1)[1:]).astype(np.int64))
    fired = np.tile(np.eye(bench.inputs, dtype=bool)[:INPUTS], (OFFSETS, 1))
    offsets = np.repeat(bench.offsets(OFFSETS), INPUTS)
    times = (bench.times - bench.start - offsets[::INPUTS, None])[:, :, None] - shapes.delay
    mem = shapes.tau_mem
    syn = shapes.tau_syn[0, 0]
    gain = shapes.gain[0, 0]
    template = response(times, mem, syn, gain * float(largest), bench.capabilities.synaptic_drive, 0.0)
    norm = (template**2).sum((0, 1))
    amplitudes = []
    for weight in weights:
        matrix = np.full((bench.neurons, bench.inputs), weight)
        codes = bench.run(matrix, fired, offsets, spiking=False).codes
        mean = codes.reshape(OFFSETS, INPUTS, *codes.shape[1:]).mean(1) - baseline.leak
        amplitudes.append((template * mean).sum((0, 1)) / norm)
    return Linearity(weights, np.stack(amplitudes))
