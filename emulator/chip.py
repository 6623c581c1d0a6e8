"""A chip individual: name and preset determine its fixed pattern on every machine.

The pattern holds deviations from whatever targets a layout asks for; it belongs to the
physical circuits, not to a network. `Chip.hash` is a content hash of all of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .layout import CIRCUITS, ROWS_PER_CIRCUIT
from .preset import Preset
from .rng import derive_key, fixed_normal

Array = npt.NDArray[np.float64]
QUADRANTS = 4


@dataclass(frozen=True)
class FixedPattern:
    """Deviations of every circuit from its target (`C` = 512 circuits, signs exc, inh).

    Attributes:
        leak, threshold, reset, rest_shift: additive, LSB `[C]`.
        tau_mem: factor `[C]`.
        tau_syn, gain: factors `[C, 2]`.
        synapse: factor of each synapse `[C, 128, 2]`.
        cadc_offset: LSB `[C]`.
        cadc_gain: factor `[C]`.
    """

    leak: Array
    threshold: Array
    reset: Array
    rest_shift: Array
    tau_mem: Array
    tau_syn: Array
    gain: Array
    synapse: Array
    cadc_offset: Array
    cadc_gain: Array

    def digest(self) -> str:
        """Return the SHA-256 of all values."""
        sha = hashlib.sha256()
        for field in fields(self):
            sha.update(field.name.encode())
            sha.update(np.ascontiguousarray(getattr(self, field.name), dtype="<f8").tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class Chip:
    """One individual: a serial number and how well it is calibrated."""

    name: str
    preset: Preset

    @cached_property
    def pattern(self) -> FixedPattern:
        """The fixed pattern (a debug handle: the host of a real chip cannot see it)."""
        return draw_pattern(self.name, self.preset)

    @cached_property
    def hash(self) -> str:
        """Content hash of pattern and noise levels, 16 hexadecimal digits."""
        text = self.pattern.digest() + self.preset.digest()
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def draw_pattern(name: str, preset: Preset) -> FixedPattern:
    """Draw the fixed pattern of the chip `name`; a pure function of its arguments."""

    def normal(what: str, *shape: int) -> Array:
        return fixed_normal(derive_key("fixed pattern", name, what), *shape)

    def quadrant(what: str) -> Array:
        return np.repeat(normal(what + " of quadrant", QUADRANTS), CIRCUITS // QUADRANTS)

    leak, quadrant_leak = normal("leak", CIRCUITS), quadrant("leak")
    signs = (CIRCUITS, 2)
    tau_quadrant = np.stack([quadrant("tau_syn exc"), quadrant("tau_syn inh")], axis=1)
    driver = 1 + preset.driver_cv * normal("driver", ROWS_PER_CIRCUIT, 2)
    pattern = {
        "leak": preset.leak_sd * leak + preset.leak_quadrant_sd * quadrant_leak,
        "threshold": preset.threshold_sd * _correlated(leak, normal("threshold", CIRCUITS), preset.leak_threshold_rho)
        + preset.threshold_quadrant_sd * quadrant("threshold"),
        "reset": preset.reset_sd * _correlated(leak, normal("reset", CIRCUITS), preset.leak_reset_rho)
        + preset.leak_quadrant_sd * quadrant_leak,
        "rest_shift": preset.rest_shift_sd * normal("rest_shift", CIRCUITS),
        "tau_mem": np.exp(
            preset.tau_mem_cv * normal("tau_mem", CIRCUITS) + preset.tau_mem_quadrant_cv * quadrant("tau_mem")
        ),
        "tau_syn": np.exp(preset.tau_syn_cv * normal("tau_syn", *signs) + preset.tau_syn_quadrant_cv * tau_quadrant),
        "gain": np.exp(preset.gain_cv * normal("gain", *signs) + preset.gain_quadrant_cv * quadrant("gain")[:, None]),
        "synapse": np.maximum(0, 1 + preset.synapse_cv * normal("synapse", CIRCUITS, ROWS_PER_CIRCUIT, 2)) * driver,
        "cadc_offset": preset.cadc_offset_sd * normal("cadc_offset", CIRCUITS),
        "cadc_gain": 1 + preset.cadc_gain_cv * quadrant("cadc_gain"),
    }
    return FixedPattern(**{key: _portable(value) for key, value in pattern.items()})


def _correlated(shared: Array, own: Array, rho: float) -> Array:
    own_share = float(np.sqrt(1 - rho**2))
    return rho * shared + own_share * own


def _portable(values: Array) -> Array:
    """Round to 2^-20, so that the last bit of a platform's exp() cannot change a chip."""
    rounded: Array = np.round(values * 2**20) / 2**20 + 0.0
    return rounded
