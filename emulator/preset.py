"""The imperfections of a die: one dataclass of spreads and noise levels.

Sources: [D] spread of the codes that equalise the neurons of four real chips, decoded from their published calibration
results; [C] bounds in the tests of the chip's calibration library; [P] Cramer, Billaudelle et al., PNAS 2022;
[E] *estimate* without a published number. `docs/emulator.md` lists every field with its range.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .names import did_you_mean


@dataclass(frozen=True)
class Preset:
    """Standard deviations of the fixed pattern and of the temporal noise.

    LSB is the unit of the 8-bit membrane ADC (CADC). A `_quadrant` spread is common to the 128 circuits of a quadrant;
    the spread without this suffix is drawn per circuit.

    Attributes:
        leak_sd: resting potential at a common code (LSB).
        leak_quadrant_sd: mean resting potential of a quadrant at a common code (LSB).
        threshold_sd: spike threshold at a common code (LSB).
        threshold_quadrant_sd: mean spike threshold of a quadrant at a common code (LSB).
        leak_threshold_rho: correlation of leak and threshold, within a quadrant and between quadrant means.
        reset_sd: reset potential at a common code (LSB).
        leak_reset_rho: correlation of leak and reset.
        rest_shift_sd: shift of the rest by the synaptic amplifiers' references (LSB).
        tau_mem_cv: membrane time constant (relative).
        tau_mem_quadrant_cv: factor of a quadrant on its membrane time constants (relative).
        tau_syn_cv: synaptic time constants, per circuit and sign (relative).
        tau_syn_quadrant_cv: factor of a quadrant on its synaptic time constants, per sign (relative).
        gain_cv: synaptic gain, per circuit and sign (relative).
        gain_quadrant_cv: factor of a quadrant on its synaptic gains, common to both signs (relative).
        gain_rho: correlation of a circuit's two gains within a quadrant.
        synapse_cv: strength of a single synapse (relative).
        driver_cv: strength of a synapse driver's row (relative).
        parasitic_cv: capacitance that a merged circuit adds (relative).
        cadc_offset_sd: offset of a CADC channel (LSB).
        cadc_start_sd: offset of a quadrant's CADC ramp (LSB).
        cadc_gain_cv: slope of a quadrant's CADC ramp (relative).
        cadc_channel_gain_cv: slope of a single channel (relative).
        code_noise: deviation of every single code of a parameter cell from its line (codes).
        rewrite_potential: change of leak or reset when its cell is written again (LSB).
        rewrite_threshold: change of a threshold when its cell is written again (LSB).
        rewrite_tau_mem: change of a membrane time constant when its cell is written again (relative).
        rewrite_tau_syn: change of a synaptic time constant when its cell is written again (relative).
        rewrite_gain: change of a gain when its cell is written again (relative).
        outlier_share: share of circuits with one parameter cell far from its nominal transfer.
        stuck_share: share of circuits with one parameter cell that does not follow its code.
        membrane_noise: stationary noise of a membrane with tau_mem = 6 us (LSB); see `dynamics.noise_of`.
        cadc_noise: white noise of one CADC sample (LSB).
        threshold_noise: slow noise of the threshold, constant for `THRESHOLD_WINDOW` trials (LSB).
        spike_jitter: noise of a spike's time (s).
        sampling_phase: largest delay of a trial's stimulus after its first CADC sample (s); the delay is
            uniform and new in every trial.
        cadc_skew: lead of the samples of the second half of the circuits over the first half (s).
        drift_sd: random walk of leak and threshold since the calibration, its stationary spread (LSB).
        drift_time: correlation time of the drift (s of chip time).
        spike_capacity: number of spikes that one quadrant can record per `VOLLEY_WINDOW`; None for no limit.
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
    gain_rho: float = 0.0
    synapse_cv: float = 0.0
    driver_cv: float = 0.0
    parasitic_cv: float = 0.0
    cadc_offset_sd: float = 0.0
    cadc_start_sd: float = 0.0
    cadc_gain_cv: float = 0.0
    cadc_channel_gain_cv: float = 0.0
    code_noise: float = 0.0
    rewrite_potential: float = 0.0
    rewrite_threshold: float = 0.0
    rewrite_tau_mem: float = 0.0
    rewrite_tau_syn: float = 0.0
    rewrite_gain: float = 0.0
    outlier_share: float = 0.0
    stuck_share: float = 0.0
    membrane_noise: float = 0.0
    cadc_noise: float = 0.0
    threshold_noise: float = 0.0
    spike_jitter: float = 0.0
    sampling_phase: float = 0.0
    cadc_skew: float = 0.0
    drift_sd: float = 0.0
    drift_time: float = 3600.0
    spike_capacity: int | None = None
    synapse_saturation: float | None = None
    rails: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "rails" or (value is None and field.name in ("spike_capacity", "synapse_saturation")):
                continue
            if not isinstance(value, int | float) or not value >= 0:
                raise ValueError(f"preset.{field.name}={value!r} must be a number that is not negative")
            if field.name != "spike_capacity":
                object.__setattr__(self, field.name, float(value))  # 14 and 14.0 are the same chip
        for name in ("leak_threshold_rho", "leak_reset_rho", "gain_rho", "outlier_share", "stuck_share"):
            if getattr(self, name) > 1:
                raise ValueError(f"preset.{name}={getattr(self, name)} must be in 0..1")
        if self.drift_time == 0:
            raise ValueError("preset.drift_time=0 must be positive; set drift_sd=0 for no drift")
        if self.rails is not None and not self.rails[0] < self.rails[1]:
            raise ValueError(f"preset.rails={self.rails} must ascend")

    def digest(self) -> str:
        """Return a short content hash of all values."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:12]

    def changed(self, **values: object) -> Preset:
        """Return a copy with other values.

        Raises:
            ValueError: a field is unknown; the message lists the fields.
        """
        names = sorted(field.name for field in fields(self))
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise ValueError(
                f"`changes`: a preset has no field {', '.join(unknown)}; it has: {', '.join(names)}"
                f"{did_you_mean(unknown, names)}"
            )
        if values.get("rails") is not None:
            values["rails"] = _rails(values["rails"])
        return replace(self, **values)  # type: ignore[arg-type]

    def only(self, *names: str) -> Preset:
        """Return the ideal preset with the values of these fields taken over."""
        return IDEAL.changed(**{name: getattr(self, name) for name in names})


def _rails(value: Any) -> tuple[float, float]:
    try:
        low, high = (float(edge) for edge in value)
    except (TypeError, ValueError):
        raise ValueError(f"preset.rails={value!r} must be two numbers, such as [-100, 400]") from None
    return low, high


THRESHOLD_WINDOW = 100
"""Trials of the chip's clock for which slow noise and drift stay constant (a training batch)."""
VOLLEY_WINDOW = 0.1e-6
"""Time over which recorded spikes of a quadrant compete for its event bus (s) [E]."""

IDEAL = Preset()
"""No mismatch, no noise, no saturation; integer weights and 8-bit samples remain."""

FABRICATED = Preset(
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
    gain_cv=0.045,  # [D] 0.06 in all, with what writing the cell adds
    gain_quadrant_cv=0.15,  # [D] 0.08-0.24
    gain_rho=0.25,  # [D] 0.07-0.42
    synapse_cv=0.05,  # [E], range 0.02-0.10
    driver_cv=0.02,  # [E]
    parasitic_cv=0.05,  # [E]
    cadc_offset_sd=9.5,  # [D] 9.25-9.95
    cadc_start_sd=2.0,  # [E], with the channels 9-10.5 in all [C]
    cadc_gain_cv=0.05,  # [D] 4-6 %
    cadc_channel_gain_cv=0.01,  # [E]
    code_noise=0.5,  # [E]
    rewrite_potential=1.2,  # [E], bound of the calibrated leak 4.5 [C]
    rewrite_threshold=2.0,  # [C] with the leak 3.1 % of threshold - leak
    rewrite_tau_mem=0.04,  # [E], bound 0.06 [C]
    rewrite_tau_syn=0.03,  # [E], bound 0.045 [C]
    rewrite_gain=0.04,  # [E], range 0.02-0.08
    outlier_share=0.01,  # [D] 0.5-1 %
    stuck_share=0.002,  # [E]
    membrane_noise=0.8,  # [E], consistent with repeated reads of 0.7-1.5 LSB [C]
    cadc_noise=0.7,  # [E]
    threshold_noise=1.1,  # [C] 1.5 % of threshold - leak, redrawn per batch
    spike_jitter=60e-9,  # [C] 0.01 tau
    sampling_phase=0.1e-6,  # [E] sampling triggered with the stimulus; 1.7e-6 if it runs freely
    cadc_skew=0.05e-6,  # [E] at most 0.1 us
    spike_capacity=64,  # [C] at least 250 of 512 simultaneous spikes are recorded
    synapse_saturation=6 * 63.0,  # [E] six coincident full weights
    rails=(25.0, 228.0),  # [C] measured range of the CADC, +-20 %
)
"""A die as it comes from the fab, all neurons at common parameter codes."""
