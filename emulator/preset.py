"""How imperfect a chip is: one dataclass of spreads and noise levels, and three presets.

Sources: [D] spread of the codes that equalise the neurons of four real chips, decoded from
their published calibration results; [C] bounds demanded by the tests of the chip's
calibration library; [P] Cramer, Billaudelle et al., PNAS 2022; [E] *estimate*, no published
number. `docs/emulator.md` lists every field with its range.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Preset:
    """Standard deviations of the fixed pattern and of the temporal noise.

    LSB is the unit of the 8-bit membrane ADC (CADC). A `_quadrant` spread is common to the
    128 circuits of a quadrant, the other one is drawn per circuit.

    Attributes:
        leak_sd, leak_quadrant_sd: resting potential (LSB).
        threshold_sd, threshold_quadrant_sd: spike threshold (LSB).
        leak_threshold_rho: correlation of leak and threshold within a quadrant.
        reset_sd: reset potential (LSB).
        leak_reset_rho: correlation of leak and reset.
        rest_shift_sd: shift of the rest by the synaptic amplifiers' references (LSB).
        tau_mem_cv, tau_mem_quadrant_cv: membrane time constant (relative).
        tau_syn_cv, tau_syn_quadrant_cv: synaptic time constants, per circuit and sign (relative).
        gain_cv, gain_quadrant_cv: synaptic gain, per circuit and sign (relative); the
            quadrant's factor is common to both signs.
        synapse_cv: strength of the single synapse (relative).
        driver_cv: strength of a synapse driver's row (relative).
        cadc_offset_sd: offset of a CADC channel (LSB).
        cadc_gain_cv: slope of a quadrant's CADC ramp (relative).
        membrane_noise: stationary noise of the membrane (LSB).
        cadc_noise: white noise of one CADC sample (LSB).
        threshold_noise: slow noise of the threshold, constant for `THRESHOLD_WINDOW` samples (LSB).
        spike_jitter: noise of a spike's time (s).
        synapse_saturation: synaptic current at which the amplifier saturates, in weight LSB of
            simultaneous input; None for a linear amplifier.
        rails: lower and upper limit of the membrane (LSB); None for no limit.
    """

    leak_sd: float = 0.0
    leak_quadrant_sd: float = 0.0
    threshold_sd: float = 0.0
    threshold_quadrant_sd: float = 0.0
    leak_threshold_rho: float = 0.0
    reset_sd: float = 0.0
    leak_reset_rho: float = 0.0
    rest_shift_sd: float = 0.0
    tau_mem_cv: float = 0.0
    tau_mem_quadrant_cv: float = 0.0
    tau_syn_cv: float = 0.0
    tau_syn_quadrant_cv: float = 0.0
    gain_cv: float = 0.0
    gain_quadrant_cv: float = 0.0
    synapse_cv: float = 0.0
    driver_cv: float = 0.0
    cadc_offset_sd: float = 0.0
    cadc_gain_cv: float = 0.0
    membrane_noise: float = 0.0
    cadc_noise: float = 0.0
    threshold_noise: float = 0.0
    spike_jitter: float = 0.0
    synapse_saturation: float | None = None
    rails: tuple[float, float] | None = None

    def digest(self) -> str:
        """Return a short content hash of all values."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:12]


THRESHOLD_WINDOW = 100
"""Samples of the chip's clock for which the slow threshold noise stays constant (a training batch)."""

IDEAL = Preset()
"""No mismatch, no noise, no saturation; integer weights and 8-bit samples remain."""

CALIBRATED = Preset(
    leak_sd=1.2,  # [E], bound 4.5 [C]
    threshold_sd=2.0,  # [C] 3.1 % of threshold - leak
    reset_sd=1.2,  # [E], bound 3 [C]
    rest_shift_sd=0.5,  # [E]
    tau_mem_cv=0.04,  # [E], bound 0.06 [C]
    tau_syn_cv=0.03,  # [E], bound 0.045 [C]
    gain_cv=0.04,  # [E], range 0.02-0.08
    synapse_cv=0.05,  # [E], range 0.02-0.10
    driver_cv=0.02,  # [E]
    cadc_offset_sd=1.0,  # [E], bound 3 [C]
    cadc_gain_cv=0.01,  # [E]
    membrane_noise=0.8,  # [E], consistent with repeated reads of 0.7-1.5 LSB [C]
    cadc_noise=0.7,  # [E]
    threshold_noise=1.1,  # [C] 1.5 % of threshold - leak, redrawn per batch
    spike_jitter=60e-9,  # [C] 0.01 tau
    synapse_saturation=6 * 63.0,  # [E] six coincident full weights
    rails=(25.0, 228.0),  # [C] measured range of the CADC, +-20 %
)
"""What the chip's calibration leaves over."""

UNCALIBRATED = replace(
    CALIBRATED,
    leak_sd=14.0,  # [D] 12-15 within a quadrant
    leak_quadrant_sd=6.0,  # [D] 3-12 between quadrants
    threshold_sd=7.0,  # [D] 6-7
    threshold_quadrant_sd=3.0,  # [D] 2-9
    leak_threshold_rho=0.35,  # [D] 0.25-0.45
    reset_sd=13.0,  # [D] 11-14
    leak_reset_rho=0.78,  # [D] 0.68-0.88
    rest_shift_sd=10.0,  # [E], from the 0.4 spread of the reference's code [D]
    tau_mem_cv=0.13,  # [D] 0.12-0.14
    tau_mem_quadrant_cv=0.04,  # [D] 0.02-0.06
    tau_syn_cv=0.20,  # [D] 0.19-0.215
    tau_syn_quadrant_cv=0.08,  # [D] 0.04-0.16
    gain_cv=0.06,  # [D] 0.055-0.12
    gain_quadrant_cv=0.15,  # [D] 0.08-0.24
    cadc_offset_sd=10.0,  # [D] 9.25-9.95
    cadc_gain_cv=0.05,  # [D] 4-6 %
)
"""The chip as it comes, all neurons at common analog parameter codes."""

PRESETS: dict[str, Preset] = {"ideal": IDEAL, "calibrated": CALIBRATED, "uncalibrated": UNCALIBRATED}


def get_preset(name: str) -> Preset:
    """Return the preset called `name`; ValueError lists the known ones."""
    if name not in PRESETS:
        raise ValueError(f"chip.preset={name!r} is not known; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
