"""Where calibrations come from when no file is named: shipped with the package, kept from before, or made now."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from ..chip import Chip, Targets
from .file import Calibration, CalibrationError
from .procedure import STAGES, calibrate

log = logging.getLogger(__name__)

Report = Callable[[str, int, int], None]

PROCEDURE = 2
"""Version of the procedure; part of the name of a kept file."""
SHIPPED = "hxtrain.emulator.calibration.files"


def shipped_chips() -> list[str]:
    """Return the names of the chips whose calibration comes with the package."""
    return sorted(Path(item.name).stem for item in files(SHIPPED).iterdir() if item.name.endswith(".npz"))


def shipped_for(chip: Chip, targets: Targets) -> Calibration | None:
    """Return the calibration of a chip for targets that comes with the package; None without one."""
    return _usable(_shipped(chip), chip, targets)


def calibration_for(chip: Chip, targets: Targets, report: Report | None = None) -> Calibration:
    """Return a calibration of a chip for targets: the shipped one, a kept one, or a new one, which is kept.

    A new one takes from ten seconds to a minute; `report` is told which stage begins (empty at the end), how many are
    done, and how many there are; without it the log warns.

    It is of the die without faults, decalibration and `only`, which come on top. Kept files lie in
    `$HXTRAIN_CACHE/calibrations`, by default `~/.cache/hxtrain/calibrations`.
    """
    for file in (_shipped(chip), _kept(chip, targets)):
        found = _usable(file, chip, targets)
        if found is not None:
            return found
    stages = iter(range(len(STAGES) + 1))  # the last one measures what was reached
    if report is None:
        log.warning("chip %s has no calibration for these targets; calibrating it now", chip.name)
        report = _silent
    told = partial(_numbered, report, stages)
    made, _ = calibrate(replace(chip, faults=()), targets, report=told)
    report("", len(STAGES) + 1, len(STAGES) + 1)
    file = _kept(chip, targets)
    try:
        made.save(file)
    except OSError as error:
        log.warning("the calibration of chip %s is not kept: %s", chip.name, error)
    return made


def _silent(stage: str, done: int, stages: int) -> None:
    """Tell nobody."""


def _numbered(report: Report, stages: Iterator[int], text: str) -> None:
    """Tell which stage begins, and how many are done."""
    report(text, next(stages), len(STAGES) + 1)


def _usable(file: Path | None, chip: Chip, targets: Targets) -> Calibration | None:
    """Return the calibration in a file if it is of that chip and those targets."""
    if file is None or not file.exists():
        return None
    try:
        found = Calibration.load(file)
        found.require_chip(chip)
    except CalibrationError as error:
        log.warning("%s is not used: %s", file, error)
        return None
    return found if all(np.allclose(found.targets[k], targets[k], rtol=1e-3) for k in found.targets) else None


def _shipped(chip: Chip) -> Path | None:
    with as_file(files(SHIPPED)) as folder:
        file = folder / f"{chip.name}.npz"
        return file if file.exists() else None


def _kept(chip: Chip, targets: Targets) -> Path:
    root = os.environ.get("HXTRAIN_CACHE")
    folder = Path(root) if root else Path.home() / ".cache" / "hxtrain"
    sha = hashlib.sha256(f"{PROCEDURE} {chip.silicon.digest}".encode())
    for name in sorted(targets):
        sha.update(name.encode() + np.ascontiguousarray(targets[name], dtype="<f8").tobytes())
    return folder / "calibrations" / f"{chip.name}-{sha.hexdigest()[:16]}.npz"
