r"""The analog parameter memory: 10-bit cells, and the values that their codes set.

Every neuron circuit has a cell for each of its potentials, time constants, gains and amplifier
references; each quadrant has cells for the strength of its synapses and the ramp of its ADC. On a die
without mismatch, code c gives::

    leak, reset, threshold    -9.17 + 0.4167 c          LSB     [C] codes 70..550 are 20..220 LSB
    tau_mem, tau_syn          6 us (c / 250)^-1.6               [E] the range 0.6..60 us in 10 bits
    gain                      c / 500                           [E] transconductance proportional to its bias
    reference                 0.05 (c - 512)            LSB     [E] shift of the rest
    dac_bias                  (c / 600)                         synaptic strength of a quadrant [C] default 600
    cadc_start                0.25 (c - 512)            LSB     [E]
    cadc_slope                c / 500                           [E]

and `cadc_digital` is a digital offset in LSB. On a real die every cell differs: see `chip.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from .layout import CIRCUITS

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int16]

QUADRANTS = 4
PER_QUADRANT = CIRCUITS // QUADRANTS
CODE_MAX = 1022
"""Largest usable code of a 10-bit cell (code 1023 disables the cell)."""

POTENTIALS = ("leak", "reset", "threshold")
TIME_CONSTANTS = ("tau_mem", "tau_syn_exc", "tau_syn_inh")
GAINS = ("gain_exc", "gain_inh")
REFERENCES = ("reference_exc", "reference_inh")
CIRCUIT_CELLS = (*POTENTIALS, *TIME_CONSTANTS, *GAINS, *REFERENCES)
QUADRANT_CELLS = ("dac_bias", "cadc_start", "cadc_slope")

_LSB_PER_CODE = 200 / 480
_LSB_AT_ZERO = 20 - 70 * _LSB_PER_CODE
_TAU_UNIT = 6e-6
_TAU_CODE = 250.0
_TAU_EXPONENT = 1.6
_GAIN_CODE = 500.0
_SHIFT_PER_CODE = 0.05
_MIDDLE = 512.0
_DAC_CODE = 600.0
_START_PER_CODE = 0.25
_SLOPE_CODE = 500.0


def value_of(cell: str, code: Array) -> Array:
    """Return the values that codes set on a die without mismatch (LSB, s, or a factor)."""
    if cell in POTENTIALS:
        return _LSB_AT_ZERO + _LSB_PER_CODE * code
    if cell in TIME_CONSTANTS:
        return _TAU_UNIT * (np.maximum(code, 1.0) / _TAU_CODE) ** -_TAU_EXPONENT
    if cell in GAINS:
        return code / _GAIN_CODE
    if cell in REFERENCES:
        return _SHIFT_PER_CODE * (code - _MIDDLE)
    return {
        "dac_bias": code / _DAC_CODE,
        "cadc_start": _START_PER_CODE * (code - _MIDDLE),
        "cadc_slope": code / _SLOPE_CODE,
    }[cell]


def code_for(cell: str, value: Array) -> Array:
    """Return the code, not rounded, that sets a value on a die without mismatch."""
    if cell in POTENTIALS:
        return (value - _LSB_AT_ZERO) / _LSB_PER_CODE
    if cell in TIME_CONSTANTS:
        return _TAU_CODE * (value / _TAU_UNIT) ** (-1 / _TAU_EXPONENT)
    if cell in GAINS:
        return value * _GAIN_CODE
    raise KeyError(cell)


def value_range(cell: str) -> tuple[float, float]:
    """Return the smallest and largest value of a cell on a die without mismatch."""
    ends = value_of(cell, np.array([1.0, float(CODE_MAX)]))
    return float(ends.min()), float(ends.max())


@dataclass(frozen=True)
class CellCodes:
    """Codes of all parameter cells of a chip, int16: `[512]` per circuit, `[4]` per quadrant."""

    leak: Codes
    reset: Codes
    threshold: Codes
    tau_mem: Codes
    tau_syn_exc: Codes
    tau_syn_inh: Codes
    gain_exc: Codes
    gain_inh: Codes
    reference_exc: Codes
    reference_inh: Codes
    dac_bias: Codes
    cadc_start: Codes
    cadc_slope: Codes
    cadc_digital: Codes

    def __post_init__(self) -> None:
        for field in fields(self):
            codes = getattr(self, field.name)
            shape = (QUADRANTS,) if field.name in QUADRANT_CELLS else (CIRCUITS,)
            low, high = (-128, 127) if field.name == "cadc_digital" else (0, CODE_MAX)
            if codes.shape != shape or codes.dtype != np.int16:
                raise ValueError(f"codes of {field.name} are {codes.dtype} {codes.shape}, expected int16 {shape}")
            if codes.min() < low or codes.max() > high:
                raise ValueError(f"codes of {field.name} span {codes.min()}..{codes.max()}, allowed {low}..{high}")

    def replaced(self, **codes: Array) -> CellCodes:
        """Return a copy with other codes, rounded and limited to 10 bits (digital offsets to 8)."""
        cells = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, values in codes.items():
            low, high = (-128, 127) if name == "cadc_digital" else (0, CODE_MAX)
            cells[name] = np.clip(np.rint(values), low, high).astype(np.int16)
        return CellCodes(**cells)

    def by_circuit(self) -> dict[str, Array]:
        """Return the codes of the cells that every circuit has, by cell, each `[512]`."""
        return {name: getattr(self, name).astype(np.float64) for name in CIRCUIT_CELLS}

    def digest(self) -> str:
        """Return the SHA-256 of all codes."""
        sha = hashlib.sha256()
        for field in fields(self):
            sha.update(field.name.encode())
            sha.update(np.ascontiguousarray(getattr(self, field.name), dtype="<i2").tobytes())
        return sha.hexdigest()


def common_codes(targets: Mapping[str, Array]) -> CellCodes:
    """Return the codes that meet targets on a die without mismatch.

    Args:
        targets: leak, reset, threshold (LSB), tau_mem, tau_syn (s), each `[512]`.
    """

    def cell(name: str, target: str) -> Codes:
        return np.clip(np.rint(code_for(name, targets[target])), 0, CODE_MAX).astype(np.int16)

    def constant(code: float, count: int = CIRCUITS) -> Codes:
        return np.full(count, int(code), np.int16)

    return CellCodes(
        leak=cell("leak", "leak"),
        reset=cell("reset", "reset"),
        threshold=cell("threshold", "threshold"),
        tau_mem=cell("tau_mem", "tau_mem"),
        tau_syn_exc=cell("tau_syn_exc", "tau_syn"),
        tau_syn_inh=cell("tau_syn_inh", "tau_syn"),
        gain_exc=constant(_GAIN_CODE),
        gain_inh=constant(_GAIN_CODE),
        reference_exc=constant(_MIDDLE),
        reference_inh=constant(_MIDDLE),
        dac_bias=constant(_DAC_CODE, QUADRANTS),
        cadc_start=constant(_MIDDLE, QUADRANTS),
        cadc_slope=constant(_SLOPE_CODE, QUADRANTS),
        cadc_digital=constant(0),
    )
