"""A chip individual: its name determines the die, and codes determine the parameters of the die.

`Silicon` holds how the cells of a die differ from the nominal transfer of `cells.py`; `Values` holds the
resulting parameters of all circuits. Both belong to the physical circuits, not to a network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache

import numpy as np

from .cells import (
    CIRCUIT_CELLS,
    CODE_MAX,
    GAINS,
    PER_QUADRANT,
    QUADRANTS,
    REFERENCES,
    CellCodes,
    code_for,
    common_codes,
    value_of,
)
from .faults import Fault
from .layout import CIRCUITS, ROWS_PER_CIRCUIT
from .names import did_you_mean
from .preset import Preset
from .rng import derive_key, fixed_normal, fixed_normal_at, fixed_uniform
from .silicon import Array, Silicon, Targets, Values

OUTLIER_CELLS = ("leak", "reset", "threshold", "tau_mem", "tau_syn_exc", "tau_syn_inh")


IMPERFECTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "leak": (("leak", "rest_shift"), ()),
    "threshold": (("threshold",), ()),
    "reset": (("reset",), ()),
    "tau_mem": (("tau_mem", "parasitic"), ()),
    "tau_syn": (("tau_syn",), ()),
    "gain": (("gain",), ()),
    "synapse": (("synapse",), ()),
    "cadc": (("cadc_offset", "cadc_gain"), ()),
    "membrane_noise": ((), ("membrane_noise",)),
    "cadc_noise": ((), ("cadc_noise",)),
    "threshold_noise": ((), ("threshold_noise",)),
    "spike_jitter": ((), ("spike_jitter",)),
    "sampling": ((), ("sampling_phase", "cadc_skew")),
    "saturation": ((), ("synapse_saturation",)),
    "rails": ((), ("rails",)),
    "spike_loss": ((), ("spike_capacity",)),
    "drift": ((), ("drift_sd", "drift_time")),
}
"""Fields of `Values` and of `Preset` of each imperfection that `Chip.only` can keep, by name."""


@dataclass(frozen=True)
class Decalibration:
    """A deliberate spread of the targets over the neurons (the self-calibration experiment of Cramer et al. 2022).

    Time constants (of the membrane and of the synapses of each sign) and threshold - leak are multiplied by factors
    from N(1, sigma), limited to at least 0.1.

    Attributes:
        time_constants: sigma of the factors on time constants.
        threshold: sigma of the factors on threshold - leak.
        seed: seed of the factors.
    """

    time_constants: float = 0.0
    threshold: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("time_constants", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"decalibration.{name}={getattr(self, name)} must be in 0..1")

    def apply(self, name: str, values: Values) -> Values:
        """Return the spread parameters of the chip `name`."""

        def factor(parameter: str, sigma: float, *shape: int) -> Array:
            return np.maximum(
                0.1, 1 + sigma * fixed_normal(derive_key("decalibration", name, self.seed, parameter), *shape)
            )

        distance = (values.threshold - values.leak) * factor("threshold", self.threshold, CIRCUITS)
        return replace(
            values,
            threshold=values.leak + distance,
            tau_mem=values.tau_mem * factor("tau_mem", self.time_constants, CIRCUITS),
            tau_syn=values.tau_syn * factor("tau_syn", self.time_constants, CIRCUITS, 2),
        )


@dataclass(frozen=True)
class Chip:
    """One individual.

    Attributes:
        name: serial number; determines the die.
        preset: spreads and noise levels of the die.
        codes: codes of the parameter cells; None for the codes that suit a die without mismatch (not calibrated).
        faults: faults of the die, applied in this order.
        decalibration: deliberate spread of the targets.
        only: names of the imperfections (`IMPERFECTIONS`) that the chip keeps, all others are ideal; None keeps all.
            Faults and decalibration are not affected.
    """

    name: str
    preset: Preset
    codes: CellCodes | None = None
    faults: tuple[Fault, ...] = ()
    decalibration: Decalibration | None = None
    only: tuple[str, ...] | None = None
    _noise: Preset = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        noise = self.preset
        if self.only is not None:
            unknown = sorted(map(str, set(self.only) - set(IMPERFECTIONS)))
            if unknown:
                hint = did_you_mean(unknown, IMPERFECTIONS)
                raise ValueError(f"only={unknown} is not known; choose from {', '.join(IMPERFECTIONS)}{hint}")
            noise = self.preset.only(*(name for imperfection in self.only for name in IMPERFECTIONS[imperfection][1]))
        object.__setattr__(self, "_noise", noise)

    @property
    def noise(self) -> Preset:
        """The noise levels and limits in effect."""
        return self._noise

    @property
    def silicon(self) -> Silicon:
        """The die (a debug handle: the host of a real chip cannot see it)."""
        return draw_silicon(self.name, self.preset)

    @cached_property
    def hash(self) -> str:
        """Content hash of die, codes, faults and noise levels, 16 hexadecimal digits."""
        codes = "common codes" if self.codes is None else self.codes.digest()
        changes = repr((self.faults, self.decalibration, self.only))
        text = self.silicon.digest + self.preset.digest() + codes + changes
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def values(self, targets: Targets) -> Values:
        """Return the true parameters (a debug handle).

        Args:
            targets: targets of the circuits; a chip without codes uses the codes that meet them on a die without
                mismatch.
        """
        values = self._from_codes(targets)
        if self.only is not None:
            real_fields = {name for imperfection in self.only for name in IMPERFECTIONS[imperfection][0]}
            ideal = _ideal_values(targets)
            values = replace(
                values, **{f.name: getattr(ideal, f.name) for f in fields(values) if f.name not in real_fields}
            )
        if self.decalibration is not None:
            values = self.decalibration.apply(self.name, values)
        for fault in self.faults:
            values = fault.apply(self.name, values)
        return values

    def _from_codes(self, targets: Targets) -> Values:
        die, preset = self.silicon, self.preset
        cells = _cell_values(self.name, preset, die, self._codes(targets))
        quadrant = np.repeat(np.arange(QUADRANTS), PER_QUADRANT)

        def by_sign(first: str, second: str) -> Array:
            return np.stack([cells[first], cells[second]], axis=1)

        shift = (by_sign(*REFERENCES) + die.reference).sum(1)
        gain = by_sign(*GAINS) * die.gain * (cells["dac_bias"] * die.dac)[quadrant][:, None]
        return Values(
            leak=cells["leak"] + die.leak,
            threshold=cells["threshold"] + die.threshold,
            reset=cells["reset"] + die.reset,
            rest_shift=shift,
            tau_mem=cells["tau_mem"] * die.tau_mem,
            tau_syn=by_sign("tau_syn_exc", "tau_syn_inh") * die.tau_syn,
            gain=gain,
            synapse=die.synapse,
            parasitic=die.parasitic,
            cadc_offset=die.cadc_offset + (die.cadc_start + cells["cadc_start"])[quadrant] + cells["cadc_digital"],
            cadc_gain=die.cadc_channel_gain * (die.cadc_gain * cells["cadc_slope"])[quadrant],
        )

    def _codes(self, targets: Targets) -> dict[str, Array]:
        if self.codes is not None:
            return {f.name: getattr(self.codes, f.name).astype(np.float64) for f in fields(self.codes)}
        return nominal_codes(targets, rounded=self.preset.code_noise > 0)


def uniform_targets(
    leak: float = 80.0, threshold: float = 150.0, reset: float = 80.0, tau_mem: float = 6e-6, tau_syn: float = 6e-6
) -> dict[str, Array]:
    """Return equal targets for all circuits (LSB, s), by default those of Cramer et al. (2022)."""
    targets = {"leak": leak, "threshold": threshold, "reset": reset, "tau_mem": tau_mem, "tau_syn": tau_syn}
    return {name: np.full(CIRCUITS, value) for name, value in targets.items()}


def nominal_codes(targets: Targets, rounded: bool) -> dict[str, Array]:
    """Return the codes of all cells that meet targets on a die without mismatch, rounded or exact."""
    cells = common_codes(targets)
    codes = {f.name: getattr(cells, f.name).astype(np.float64) for f in fields(cells)}
    if not rounded:
        exact = {"leak": "leak", "reset": "reset", "threshold": "threshold", "tau_mem": "tau_mem"}
        exact |= {"tau_syn_exc": "tau_syn", "tau_syn_inh": "tau_syn"}
        codes |= {cell: code_for(cell, np.asarray(targets[target], np.float64)) for cell, target in exact.items()}
    return codes


def _cell_values(name: str, preset: Preset, die: Silicon, codes: Mapping[str, Array]) -> dict[str, Array]:
    """Return the value of every cell: its nominal value with the deviations of the cell."""
    rewrite = {
        "leak": preset.rewrite_potential,
        "reset": preset.rewrite_potential,
        "threshold": preset.rewrite_threshold,
        "tau_mem": preset.rewrite_tau_mem,
        "tau_syn_exc": preset.rewrite_tau_syn,
        "tau_syn_inh": preset.rewrite_tau_syn,
        "gain_exc": preset.rewrite_gain,
        "gain_inh": preset.rewrite_gain,
    }
    values: dict[str, Array] = {"cadc_digital": codes["cadc_digital"]}
    for cell in (*CIRCUIT_CELLS, "dac_bias", "cadc_start", "cadc_slope"):
        code = codes[cell]
        if cell in CIRCUIT_CELLS:
            stuck = die.stuck[CIRCUIT_CELLS.index(cell)]
            code = np.where(stuck >= 0, stuck, code)
        if preset.code_noise > 0:
            key = derive_key("code noise", name, cell)
            counters = np.arange(len(code)) * 1024 + np.rint(code)
            code = code + preset.code_noise * fixed_normal_at(key, counters.astype(np.uint64))
        value = value_of(cell, code)
        if rewrite.get(cell, 0.0) > 0:
            written = hashlib.sha256(np.rint(codes[cell]).astype("<i2").tobytes()).hexdigest()
            draw = rewrite[cell] * fixed_normal(derive_key("written", name, cell, written), CIRCUITS)
            value = value + draw if cell in ("leak", "reset", "threshold") else value * np.exp(draw)
        values[cell] = _portable(value)
    return values


def _ideal_values(targets: Targets) -> Values:
    ones, zeros = np.ones(CIRCUITS), np.zeros(CIRCUITS)
    return Values(
        leak=targets["leak"],
        threshold=targets["threshold"],
        reset=targets["reset"],
        rest_shift=zeros,
        tau_mem=targets["tau_mem"],
        tau_syn=np.repeat(targets["tau_syn"][:, None], 2, axis=1),
        gain=np.ones((CIRCUITS, 2)),
        synapse=np.ones((CIRCUITS, ROWS_PER_CIRCUIT, 2)),
        parasitic=ones,
        cadc_offset=zeros,
        cadc_gain=ones,
    )


@lru_cache(maxsize=32)
def draw_silicon(name: str, preset: Preset) -> Silicon:
    """Draw the die of the chip `name`; a pure function of its arguments."""

    def normal(quantity: str, *shape: int) -> Array:
        return fixed_normal(derive_key("silicon", name, quantity), *shape)

    def quadrant(quantity: str) -> Array:
        return np.repeat(normal(quantity + " of quadrant", QUADRANTS), PER_QUADRANT)

    leak = normal("leak", CIRCUITS)
    quadrant_leak = quadrant("leak")
    signs = (CIRCUITS, 2)
    tau_quadrant = np.stack([quadrant("tau_syn exc"), quadrant("tau_syn inh")], axis=1)
    driver = 1 + preset.driver_cv * normal("driver", ROWS_PER_CIRCUIT, 2)
    outliers = _outliers(name, preset)
    p = preset
    die = {
        "leak": p.leak_sd * (leak + outliers["leak"]) + p.leak_quadrant_sd * quadrant_leak,
        "threshold": p.threshold_sd
        * (_correlate(leak, normal("threshold", CIRCUITS), p.leak_threshold_rho) + outliers["threshold"])
        + p.threshold_quadrant_sd * _correlate(quadrant_leak, quadrant("threshold"), p.leak_threshold_rho),
        "reset": p.reset_sd * (_correlate(leak, normal("reset", CIRCUITS), p.leak_reset_rho) + outliers["reset"])
        + p.leak_quadrant_sd * quadrant_leak,
        "reference": p.rest_shift_sd / np.sqrt(2) * normal("reference", *signs),
        "tau_mem": np.exp(
            p.tau_mem_cv * (normal("tau_mem", CIRCUITS) + outliers["tau_mem"])
            + p.tau_mem_quadrant_cv * quadrant("tau_mem")
        ),
        "parasitic": np.maximum(0.1, 1 + p.parasitic_cv * normal("parasitic", CIRCUITS)),
        "tau_syn": np.exp(
            p.tau_syn_cv
            * (normal("tau_syn", *signs) + np.stack([outliers["tau_syn_exc"], outliers["tau_syn_inh"]], axis=1))
            + p.tau_syn_quadrant_cv * tau_quadrant
        ),
        "gain": np.exp(p.gain_cv * _both_signs(normal("gain", *signs), p.gain_rho)),
        "synapse": np.maximum(0, 1 + p.synapse_cv * normal("synapse", CIRCUITS, ROWS_PER_CIRCUIT, 2)) * driver,
        "dac": np.exp(p.gain_quadrant_cv * normal("gain of quadrant", QUADRANTS)),
        "cadc_offset": p.cadc_offset_sd * normal("cadc_offset", CIRCUITS),
        "cadc_start": p.cadc_start_sd * normal("cadc_start", QUADRANTS),
        "cadc_gain": 1 + p.cadc_gain_cv * normal("cadc_gain", QUADRANTS),
        "cadc_channel_gain": 1 + p.cadc_channel_gain_cv * normal("cadc_channel_gain", CIRCUITS),
        "stuck": _stuck_cells(name, preset),
    }
    return Silicon(**{key: _portable(value) for key, value in die.items()})


def _outliers(name: str, preset: Preset) -> dict[str, Array]:
    """Return the deviation of outlier cells in standard deviations, by cell; at most one cell of a circuit."""
    draw = fixed_uniform(derive_key("silicon", name, "outlier"), 4, CIRCUITS)
    is_outlier = draw[0] < preset.outlier_share
    cell_index = (draw[1] * len(OUTLIER_CELLS)).astype(int)
    size = np.where(draw[2] < 0.5, -1, 1) * (4 + 3 * draw[3])
    return {cell: np.where(is_outlier & (cell_index == i), size, 0.0) for i, cell in enumerate(OUTLIER_CELLS)}


def _stuck_cells(name: str, preset: Preset) -> Array:
    draw = fixed_uniform(derive_key("silicon", name, "stuck"), 3, CIRCUITS)
    has_stuck_cell = draw[0] < preset.stuck_share
    cell_index = (draw[1] * len(CIRCUIT_CELLS)).astype(int)
    is_stuck = has_stuck_cell & (cell_index == np.arange(len(CIRCUIT_CELLS))[:, None])
    return np.where(is_stuck, np.floor(draw[2] * CODE_MAX), -1.0)


def _correlate(shared: Array, independent: Array, rho: float) -> Array:
    independent_share = float(np.sqrt(1 - rho**2))
    return rho * shared + independent_share * independent


def _both_signs(draw: Array, rho: float) -> Array:
    """Return draws `[C, 2]` whose second column has the correlation `rho` with the first."""
    return np.stack([draw[:, 0], _correlate(draw[:, 0], draw[:, 1], rho)], axis=1)


def _portable(values: Array) -> Array:
    """Round to 24 significant bits, so that a platform's exp() cannot change a chip in its last bit."""
    mantissa, exponent = np.frexp(values)
    rounded: Array = np.ldexp(np.round(mantissa * 2**24) / 2**24, exponent) + 0.0
    return rounded
