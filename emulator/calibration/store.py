"""The source of a calibration when no file is named: the package, the cache of the user, or a new measurement."""

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

from ..chip import Chip
from ..silicon import Targets
from .file import Calibration, CalibrationError, equal_targets
from .procedure import STAGES, calibrate

log = logging.getLogger(__name__)

Report = Callable[[str, int, int], None]

PROCEDURE = 2
"""Version of the procedure; part of the name of a cached file."""
CACHE_SIZE = 256
"""Largest number of cached calibrations; the least recently used ones are removed."""
SHIPPED = "hxtrain.emulator.calibration.files"


def shipped_chips() -> list[str]:
    """Return the names of the chips whose calibration comes with the package."""
    return sorted(Path(item.name).stem for item in files(SHIPPED).iterdir() if item.name.endswith(".npz"))


def shipped_for(chip: Chip, targets: Targets) -> Calibration | None:
    """Return the shipped calibration of a chip for these targets; None if there is none."""
    return _load_matching(_shipped_file(chip), chip, targets)


def calibration_for(chip: Chip, targets: Targets, report: Report | None = None, make: bool = True) -> Calibration:
    """Return a calibration of a chip for these targets: the shipped one, a cached one, or a new one.

    A new calibration takes from ten seconds to a minute and is written to the cache. Without `report`, the log warns
    that a calibration starts.

    The calibration describes the die without faults, decalibration and `only`, which are applied on top. Cached files
    lie in `$HXTRAIN_CACHE/calibrations`, by default `~/.cache/hxtrain/calibrations`.

    Args:
        chip: the individual.
        targets: targets of the calibration.
        report: function that is called with the name of each stage before it runs (empty at the end), the number of
            finished stages, and the number of all stages.
        make: whether to calibrate the chip if there is no calibration.

    Raises:
        CalibrationError: there is no calibration, and `make` is false.
    """
    file = _cache_file(chip, targets)
    calibration = shipped_for(chip, targets)
    if calibration is None and file is not None:
        calibration = _load_matching(file, chip, targets)
        with suppress(OSError):
            os.utime(file)  # marks the file as recently used
    if calibration is not None:
        return calibration
    if not make:
        listing = ", ".join(f"{name}={float(np.median(values)):.4g}" for name, values in sorted(targets.items()))
        raise CalibrationError(
            f"chip {chip.name} has no calibration for {listing}, and calibrate=false forbids to make one. Use targets "
            f"for which a calibration exists, or make one: hxtrain calibrate chip.name={chip.name}"
        )
    stages = iter(range(len(STAGES) + 1))  # the last one is the final measurement
    if report is None:
        log.warning("chip %s has no calibration for these targets; calibrating it now", chip.name)
        report = _silent
    report_stage = partial(_report_stage, report, stages)
    calibration, _ = calibrate(replace(chip, faults=()), targets, report=report_stage)
    report("", len(STAGES) + 1, len(STAGES) + 1)
    try:
        if file is None:
            raise OSError("this user has no home; name a folder in HXTRAIN_CACHE")
        calibration.save(file)
        _trim_cache(file.parent)
    except OSError as error:
        log.warning("the calibration of chip %s is not kept: %s", chip.name, error)
    return calibration


def _silent(stage: str, n_done: int, stages: int) -> None:
    """Report nothing."""


def _report_stage(report: Report, stages: Iterator[int], text: str) -> None:
    """Report the stage that starts and the number of finished stages."""
    report(text, next(stages), len(STAGES) + 1)


def _load_matching(file: Path | None, chip: Chip, targets: Targets) -> Calibration | None:
    """Return the calibration in a file if it matches the chip and the targets, else None."""
    if file is None or not file.exists():
        return None
    try:
        calibration = Calibration.load(file)
        calibration.require_chip(chip)
    except CalibrationError as error:
        log.warning("%s is not used: %s", file, error)
        return None
    matches = all(equal_targets(values, targets[name]).all() for name, values in calibration.targets.items())
    return calibration if matches else None


def _shipped_file(chip: Chip) -> Path | None:
    with as_file(files(SHIPPED)) as folder:
        return folder / f"{chip.name}.npz" if chip.name in shipped_chips() else None


def _cache_file(chip: Chip, targets: Targets) -> Path | None:
    """Return the path of a cached calibration; None for a user without a home folder, as in some containers."""
    root = os.environ.get("HXTRAIN_CACHE")
    try:
        folder = Path(root) if root else Path.home() / ".cache" / "hxtrain"
    except RuntimeError:
        return None
    sha = hashlib.sha256(f"{PROCEDURE} {chip.silicon.digest}".encode())
    for name in sorted(targets):
        sha.update(name.encode() + np.ascontiguousarray(targets[name], dtype="<f8").tobytes())
    label = re.sub(r"[^A-Za-z0-9_+-]", "_", chip.name)[:64]  # the hash distinguishes chips with one label
    return folder / "calibrations" / f"{label}-{sha.hexdigest()[:16]}.npz"


def _trim_cache(folder: Path) -> None:
    """Remove the least recently used calibrations beyond `CACHE_SIZE`."""
    files = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[CACHE_SIZE:]:
        file.unlink(missing_ok=True)
