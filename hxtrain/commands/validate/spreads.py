"""Checks of the spread of neuron parameters, with and without calibration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hxtrain.backends import supports
from hxtrain.characterisation import Measured

from .check import Check
from .laboratory import Laboratory
from .statistics import QUADRANTS, Array, correlation, spread, trimmed_sd, within


def cadc_checks(lab: Laboratory, chips: list[str]) -> list[Check]:
    """Return checks of CADC channels at a common reference potential."""
    lab.report("CADC channels")
    raw: list[Array] = []
    calibrated: list[Array] = []
    overwritten: list[Array] = []
    for chip in chips:
        for preset, readings in (("uncalibrated", raw), ("calibrated", calibrated), ("uncalibrated", overwritten)):
            backend = lab.open(chip, preset)
            assert supports(backend, "calibration")
            readings.append(backend.read_reference(128.0, 64).double().mean(0).numpy())
            backend.close()
    quadrants = [values.reshape(QUADRANTS, -1).mean(1) for values in calibrated]
    offset = max(float(np.ptp(values)) for values in quadrants)
    mean = [float(values.mean()) for values in calibrated]
    return [
        Check("CADC uncalibrated, SD of channels", "LSB", _mean(np.std, raw), 9.0, 10.5, "[D] 9.25-9.95"),
        Check(
            "CADC calibrated, SD of channels (worst)", "LSB", max(float(x.std()) for x in calibrated), 0, 3, "[C] calix"
        ),
        Check("CADC calibrated, largest difference of quadrants", "LSB", offset, 0, 5, "[C] calix"),
        Check("CADC calibrated, mean", "LSB", float(np.mean(mean)), 88, 168, "[C] calix"),
        Check(
            "CADC calibration overwritten, SD of channels",
            "LSB",
            min(float(x.std()) for x in overwritten),
            0,
            3,
            "[C] calix: must fail",
            control=True,
        ),
    ]


def _mean(statistic: Callable[[Array], Any], parts: list[Array]) -> float:
    return float(np.mean([float(statistic(part)) for part in parts]))


def _columns(measured: Measured) -> dict[str, Array]:
    """Return the parameters of 512 single circuits."""
    shapes = measured.shapes
    return {
        "leak": measured.baseline.leak,
        "reset": measured.resets.reset,
        "threshold": np.where(np.isfinite(measured.thresholds.threshold), measured.thresholds.threshold, np.nan),
        "tau_mem": np.log(shapes.tau_mem),
        "tau_syn_exc": np.log(shapes.tau_syn[0, 0]),
        "tau_syn_inh": np.log(shapes.tau_syn[0, 1]),
        "gain_exc": np.log(np.maximum(shapes.gain[0, 0], 1e-3)),
        "gain_inh": np.log(np.maximum(shapes.gain[0, 1], 1e-3)),
    }


RATIOS = {"leak": 0.30, "reset": 0.20, "threshold": 0.35, "tau_mem": 0.45, "tau_syn_exc": 0.20, "tau_syn_inh": 0.20}
"""Largest ratio of calibrated and uncalibrated spread that the chip's calibration accepts [C]."""


def ratio_checks(raw: dict[str, Measured], calibrated: dict[str, Measured], overwritten: Measured) -> list[Check]:
    """Return checks of the ratio of calibrated and uncalibrated spread, with 5 % trimmed on both sides.

    `overwritten` is a separate measurement of the first chip, with common codes in place of the calibration.
    """
    raw_columns = {chip: _columns(measured) for chip, measured in raw.items()}
    calibrated_columns = {chip: _columns(measured) for chip, measured in calibrated.items()}
    checks = []
    for name, bound in RATIOS.items():
        ratios = [trimmed_sd(calibrated_columns[chip][name]) / trimmed_sd(raw_columns[chip][name]) for chip in raw]
        checks.append(Check(f"{name}, calibrated / uncalibrated SD (worst)", "", max(ratios), 0, bound, "[C] calix"))
    first = next(iter(raw))
    for name, bound in RATIOS.items():
        ratio = trimmed_sd(_columns(overwritten)[name]) / trimmed_sd(raw_columns[first][name])
        text = f"{name}, calibration overwritten / uncalibrated SD"
        checks.append(Check(text, "", ratio, 0, bound, "[C] calix: must fail", control=True))
    return checks


SPREADS = {
    "leak": ("LSB", 13.1, 17.7),
    "reset": ("LSB", 12.3, 17.9),
    "threshold": ("LSB", 7.3, 9.2),
    "tau_mem": ("CV", 0.131, 0.151),
    "tau_syn_exc": ("CV", 0.201, 0.258),
    "tau_syn_inh": ("CV", 0.195, 0.251),
    "gain_exc": ("CV", 0.103, 0.238),
    "gain_inh": ("CV", 0.104, 0.244),
}
"""Spread of uncalibrated parameters on four chips: smallest and largest [D] (threshold: outliers trimmed)."""
MARGIN = 0.25
"""Share by which a spread may exceed the range of four chips."""


def population_checks(raw: dict[str, Measured]) -> list[Check]:
    """Return checks of spreads and correlations of uncalibrated neurons, measured with a calibrated CADC."""
    chips = [_columns(measured) for measured in raw.values()]
    checks = []

    def mean(statistic: Callable[[dict[str, Array]], float]) -> float:
        return float(np.mean([statistic(chip) for chip in chips]))

    for name, (unit, low, high) in SPREADS.items():
        value = mean(lambda chip, name=name: spread(chip[name]))  # type: ignore[misc]
        text = f"{name}, uncalibrated spread (mean of chips)"
        checks.append(Check(text, unit, value, low * (1 - MARGIN), high * (1 + MARGIN), f"[D] {low}-{high}, +-25 %"))
    threshold_distance = mean(lambda chip: spread(chip["threshold"] - chip["leak"]))
    reset_distance = mean(lambda chip: spread(chip["leak"] - chip["reset"]))
    statistics: list[tuple[str, str, float, float, float, str]] = [
        ("threshold - leak, spread", "LSB", threshold_distance, 13.3 * 0.75, 17.6 * 1.25, "[D] 13.3-17.6, +-25 %"),
        ("leak - reset, spread", "LSB", reset_distance, 8.7 * 0.75, 12.6 * 1.25, "[D] 8.7-12.6, +-25 %"),
        ("corr(leak, reset)", "", mean(lambda c: correlation(c["leak"], c["reset"])), 0.6, 0.9, "[D] 0.68-0.88"),
        (
            "corr(leak, threshold)",
            "",
            mean(lambda c: correlation(c["leak"], c["threshold"])),
            0.25 * 0.75,
            0.45 * 1.25,
            "[D] 0.25-0.45, +-25 %",
        ),
        (
            "gain exc, CV within quadrants",
            "",
            mean(lambda c: spread(within(c["gain_exc"]))),
            0.05,
            0.07,
            "[D] 0.06",
        ),
        (
            "corr(gain exc, gain inh)",
            "",
            mean(lambda c: correlation(c["gain_exc"], c["gain_inh"])),
            0.7,
            0.97,
            "[D] 0.7-0.97",
        ),
        (
            "corr(gain exc, gain inh) within quadrants",
            "",
            mean(lambda c: correlation(within(c["gain_exc"]), within(c["gain_inh"]))),
            0.07,
            0.42,
            "[D] 0.07-0.42",
        ),
        (
            "corr(tau_syn exc, tau_syn inh) within quadrants",
            "",
            mean(lambda c: correlation(within(c["tau_syn_exc"]), within(c["tau_syn_inh"]))),
            -0.1,
            0.1,
            "[D] about 0",
        ),
    ]
    checks += [Check(*arguments) for arguments in statistics]
    neighbours = max(
        abs(float(np.mean([correlation(within(c[name])[1:], within(c[name])[:-1]) for c in chips]))) for name in SPREADS
    )
    checks.append(Check("largest |correlation| of neighbours (mean of chips)", "", neighbours, 0, 0.1, "[D] < 0.1"))
    if len(chips) > 1:
        across = max(
            abs(correlation(within(a[name]), within(b[name])))
            for name in ("leak", "threshold", "tau_mem")
            for i, a in enumerate(chips)
            for b in chips[i + 1 :]
        )
        checks.append(Check("largest |correlation| of two chips", "", across, 0, 0.15, "[D] < 0.13"))
    return checks
