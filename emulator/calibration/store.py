"""Where calibrations come from when no file is named: shipped with the package, kept from before, or made now."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from ..chip import Chip, Targets
from .file import Calibration, CalibrationError, same
from .procedure import STAGES, calibrate

log = logging.getLogger(__name__)

Report = Callable[[str, int, int], None]

PROCEDURE = 2
"""Version of the procedure; part of the name of a kept file."""
KEPT = 256
"""Most kept calibrations; the ones that were used longest ago make room."""
SHIPPED = "hxtrain.emulator.calibration.files"


def shipped_chips() -> list[str]:
    """Return the names of the chips whose calibration comes with the package."""
    return sorted(Path(item.name).stem for item in files(SHIPPED).iterdir() if item.name.endswith(".npz"))


def shipped_for(chip: Chip, targets: Targets) -> Calibration | None:
    """Return the calibration of a chip for targets that comes with the package; None without one."""
    return _usable(_shipped(chip), chip, targets)


def calibration_for(chip: Chip, targets: Targets, report: Report | None = None, make: bool = True) -> Calibration:
    """Return a calibration of a chip for targets: the shipped one, a kept one, or a new one, which is kept.

    A new one takes from ten seconds to a minute; `report` is told which stage begins (empty at the end), how many are
    done, and how many there are; without it the log warns.

    It is of the die without faults, decalibration and `only`, which come on top. Kept files lie in
    `$HXTRAIN_CACHE/calibrations`, by default `~/.cache/hxtrain/calibrations`.

    Args:
        chip: the individual.
        targets: what it is calibrated for.
        report: called with the stage that begins, stages done, and all stages.
        make: calibrate it if there is no calibration.

    Raises:
        CalibrationError: there is none, and none may be made.
    """
    file = _kept(chip, targets)
    calibration = shipped_for(chip, targets)
    if calibration is None and file is not None:
        calibration = _usable(file, chip, targets)
        with suppress(OSError):
            os.utime(file)  # those that were used longest ago make room
    if calibration is not None:
        return calibration
    if not make:
        shown = ", ".join(f"{name}={float(np.median(values)):.4g}" for name, values in sorted(targets.items()))
        raise CalibrationError(
            f"chip {chip.name} has no calibration for {shown}, and calibrate=false: none is made here. Ask for targets "
            f"that there is one for, or have it made: hxtrain-calibrate chip.name={chip.name}"
        )
    stages = iter(range(len(STAGES) + 1))  # the last one measures what was reached
    if report is None:
        log.warning("chip %s has no calibration for these targets; calibrating it now", chip.name)
        report = _silent
    told = partial(_numbered, report, stages)
    made, _ = calibrate(replace(chip, faults=()), targets, report=told)
    report("", len(STAGES) + 1, len(STAGES) + 1)
    try:
        if file is None:
            raise OSError("this user has no home; name a folder in HXTRAIN_CACHE")
        made.save(file)
        _make_room(file.parent)
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
    return found if all(same(found.targets[k], targets[k]).all() for k in found.targets) else None


def _shipped(chip: Chip) -> Path | None:
    with as_file(files(SHIPPED)) as folder:
        return folder / f"{chip.name}.npz" if chip.name in shipped_chips() else None


def _kept(chip: Chip, targets: Targets) -> Path | None:
    """Return where a calibration is kept; None for a user without a home, as in a container with a foreign user."""
    root = os.environ.get("HXTRAIN_CACHE")
    try:
        folder = Path(root) if root else Path.home() / ".cache" / "hxtrain"
    except RuntimeError:
        return None
    sha = hashlib.sha256(f"{PROCEDURE} {chip.silicon.digest}".encode())
    for name in sorted(targets):
        sha.update(name.encode() + np.ascontiguousarray(targets[name], dtype="<f8").tobytes())
    label = re.sub(r"[^A-Za-z0-9_+-]", "_", chip.name)[:64]  # the hash tells chips apart
    return folder / "calibrations" / f"{label}-{sha.hexdigest()[:16]}.npz"


def _make_room(folder: Path) -> None:
    """Remove the calibrations that were used longest ago, beyond `KEPT`."""
    files = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[KEPT:]:
        file.unlink(missing_ok=True)
