"""Comparison of the targets of a calibration file with those of a circuit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..circuit import Population

Array = npt.NDArray[np.float64]
TOLERANCE = 0.01
"""Relative difference between a file's target and a circuit's that is ignored."""
TIMES = ("tau_mem", "tau_syn", "refractory_time")
POTENTIALS = ("leak", "reset", "threshold")
CODES = ("i_synin_gm", "synapse_dac_bias")


class Range(NamedTuple):
    """Range of targets, in SI units or trace units."""

    low: float
    high: float


FEASIBLE = {
    "leak": Range(50, 160),
    "reset": Range(50, 160),
    "threshold": Range(50, 220),
    "tau_mem": Range(0.5e-6, 60e-6),
    "tau_syn": Range(0.3e-6, 30e-6),
    "refractory_time": Range(0.04e-6, 32e-6),
    "i_synin_gm": Range(30, 800),
    "synapse_dac_bias": Range(30, 1022),
}
"""Targets that calix accepts."""


class Requirement(NamedTuple):
    """A target that a circuit needs.

    Attributes:
        name: Name of the parameter in calix.
        value: Value of the target (SI units or trace units).
        unit: Name of the unit.
        setting: Setting that determines the value.
    """

    name: str
    value: float
    unit: str
    setting: str


def requirements(p: Population) -> list[Requirement]:
    """Return the targets that a population needs."""
    needs = [
        Requirement("leak", p.leak, "LSB", "backend.settings.leak"),
        Requirement("tau_mem", p.tau_mem, "s", "network.tau_mem"),
        Requirement("tau_syn", p.tau_syn, "s", "network.tau_syn"),
    ]
    if p.threshold is not None:
        needs += [
            Requirement("reset", p.reset, "LSB", "backend.settings.reset"),
            Requirement("threshold", p.threshold, "LSB", "backend.settings.threshold"),
            Requirement("refractory_time", p.refractory, "s", "backend.settings.refractory"),
        ]
    return needs


def infeasible(owner: str, needs: Sequence[Requirement]) -> list[str]:
    """Return a text for each target that no calibration can reach."""
    misfits = []
    for need in needs:
        low, high = FEASIBLE[need.name]
        if not low <= need.value <= high:
            unit = f" {need.unit}" if need.unit else ""
            misfits.append(
                f"{owner}: {need.name}={need.value:.4g}{unit} is outside {low:.4g}..{high:.4g}{unit}; "
                f"change {need.setting}"
            )
    return misfits


def calibrated_targets(instance: Any) -> dict[str, Array]:
    """Return the targets of a loaded file in SI or trace units, flat; empty if the file does not contain them."""
    if instance.calib is None:
        return {}
    target = instance.calib.target.neuron_target
    targets = {}
    for name in (*TIMES, *POTENTIALS, *CODES):
        value = getattr(target, name, None)
        if value is not None:
            plain = value.rescale("s").magnitude if name in TIMES else value
            targets[name] = np.ravel(np.asarray(plain, dtype=np.float64))
    return targets


def check_targets(
    file: Path, file_targets: Mapping[str, Array], populations: Sequence[Population], common: Sequence[Requirement]
) -> None:
    """Check that a file was made for the targets of the populations.

    A file may hold different values for different neurons. Placement decides later which neurons a population gets, so
    the check refuses a value only if it lies outside all values of the file.

    Raises:
        ValueError: Targets differ; the text lists every difference.
    """
    misfits = []
    for owner, needs in [(p.name, requirements(p)) for p in populations] + [("chip", list(common))]:
        for need in needs:
            values = file_targets.get(need.name)
            if values is None or not np.isfinite(values).any():
                continue
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
            if not low * (1 - TOLERANCE) <= need.value <= high * (1 + TOLERANCE):
                span = f"{low:.4g}" if low == high else f"{low:.4g}..{high:.4g}"
                misfits.append(
                    f"{owner}: {need.name}={need.value:.4g} {need.unit}".rstrip()
                    + f", the file has {span}; set {need.setting} to it, or calibrate for this circuit"
                )
    if misfits:
        lines = "\n".join(f"  {i}. {text}" for i, text in enumerate(misfits, 1))
        raise ValueError(f"backend.settings.calibration={file} is not for this circuit:\n{lines}")
