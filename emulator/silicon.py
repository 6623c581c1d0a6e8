"""Parameters of a die: `Silicon`, the deviations of its cells; `Values`, the parameters that follow at given codes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SILENT_THRESHOLD = 1e9
"""Threshold of a neuron that does not spike: a readout, or a dead circuit (LSB)."""
Targets = Mapping[str, Array]
"""Targets of all circuits: leak, reset, threshold (LSB), tau_mem, tau_syn (s), each `[512]`."""


@dataclass(frozen=True)
class Silicon:
    """Deviations of a die from the nominal die (`C` = 512 circuits; signs are excitatory, inhibitory).

    Attributes:
        leak: deviation of the resting potential (LSB) `[C]`.
        threshold: deviation of the threshold (LSB) `[C]`.
        reset: deviation of the reset potential (LSB) `[C]`.
        reference: shift of the rest at the middle code of the reference (LSB) `[C, 2]`.
        tau_mem: factor on the membrane time constant `[C]`.
        parasitic: factor on the parasitic capacitance of a merged circuit `[C]`.
        tau_syn: factors on the synaptic time constants `[C, 2]`.
        gain: factors on the synaptic gains `[C, 2]`.
        synapse: factor on the strength of each synapse `[C, 128, 2]`.
        dac: factor on the synaptic strength of a quadrant `[4]`.
        cadc_offset: offset of a CADC channel (LSB) `[C]`.
        cadc_start: offset of the CADC ramp of a quadrant (LSB) `[4]`.
        cadc_gain: factor on the slope of the CADC ramp of a quadrant `[4]`.
        cadc_channel_gain: factor on the slope of a CADC channel `[C]`.
        stuck: code of each stuck cell `[10, C]`, in the order of `CIRCUIT_CELLS`; -1 for working cells.
    """

    leak: Array
    threshold: Array
    reset: Array
    reference: Array
    tau_mem: Array
    parasitic: Array
    tau_syn: Array
    gain: Array
    synapse: Array
    dac: Array
    cadc_offset: Array
    cadc_start: Array
    cadc_gain: Array
    cadc_channel_gain: Array
    stuck: Array

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of all values."""
        sha = hashlib.sha256()
        for item in fields(self):
            sha.update(item.name.encode())
            sha.update(np.ascontiguousarray(getattr(self, item.name), dtype="<f8").tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class Values:
    """True parameters of all circuits (`C` = 512; signs are excitatory, inhibitory).

    Attributes:
        leak: resting potential (LSB) `[C]`.
        threshold: spike threshold (LSB) `[C]`.
        reset: reset potential (LSB) `[C]`.
        rest_shift: shift of the rest by the synaptic amplifiers (LSB) `[C]`.
        tau_mem: membrane time constant (s) `[C]`.
        tau_syn: synaptic time constants (s) `[C, 2]`.
        gain: synaptic gains `[C, 2]`.
        synapse: strength of each synapse `[C, 128, 2]`.
        parasitic: factor on the capacitance that the circuit adds when merged `[C]`.
        cadc_offset: offset of the CADC channel (LSB) `[C]`.
        cadc_gain: slope of the CADC channel `[C]`.
        stuck_low: bits of each synapse that read as 0 `[C, 128, 2]`; None without such faults.
        stuck_high: bits of each synapse that read as 1 `[C, 128, 2]`; None without such faults.
    """

    leak: Array
    threshold: Array
    reset: Array
    rest_shift: Array
    tau_mem: Array
    tau_syn: Array
    gain: Array
    synapse: Array
    parasitic: Array
    cadc_offset: Array
    cadc_gain: Array
    stuck_low: npt.NDArray[np.uint8] | None = None
    stuck_high: npt.NDArray[np.uint8] | None = None
