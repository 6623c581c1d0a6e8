"""Parameters of configured chips, as every engine takes them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]

STREAM_MEMBRANE = 0
STREAM_CADC = 1
STREAM_JITTER = 2
"""Streams of random words: noise of membranes, of the CADC, and of spike times."""


class Params(NamedTuple):
    """Parameters of configured chips (`C` chips, `N` neurons, `A` merged circuits, `G` groups)."""

    reset: Float  # [C, N]
    refractory: Float  # [C, N] in sub-steps
    mem: Float  # [C, N]
    syn: Float  # [C, A, 2, N]
    drive: Float  # [C, A, 2, N]
    noise: Float  # [C, N]
    cadc_offset: Float  # [C, N]
    cadc_gain: Float  # [C, N]
    early: Float  # [N] lead of a neuron's sample over the others, in sub-steps
    windows: Int  # [W, 2] first neuron and end of each stretch of recorded neurons
    bounds: Int  # [G + 1]
    external_circuit: Int  # [J, G], -1 where not connected
    internal_circuit: Int  # [N, G], -1 where not connected
    table: Float  # [65536]


def recorded_neurons(params: Params) -> Int:
    """Return the neurons whose membranes are recorded, in the order of their codes."""
    return np.concatenate([np.empty(0, np.int64), *(np.arange(first, end) for first, end in params.windows.tolist())])


class Rows(NamedTuple):
    """Quantities that change slowly with the chip's clock (`R` rows; a trial uses one of them)."""

    rest: Float  # [R, N] part of the rest that one sub-step restores
    start: Float  # [R, N] membrane at the start of a trial
    threshold: Float  # [R, N]


class Scalars(NamedTuple):
    """Scalar settings of configured chips."""

    samples: int  # trace samples per trial
    per_sample: int  # sub-steps between two samples
    gap: int  # sub-steps from the end of the recording to the next trial; -1: trials start at rest
    clamped: float  # factor on synaptic currents when the gap is a forced reset; -1 without
    delay: float  # on-chip latency in sub-steps
    jitter: float  # spike-time noise in sub-steps
    cadc_noise: float  # LSB
    saturation: float  # weight LSB; 0 for a linear amplifier
    low: float  # lower rail, LSB
    high: float  # upper rail, LSB
    railed: bool
    noisy: bool  # membrane noise
    skewed: bool  # some neurons are sampled earlier
