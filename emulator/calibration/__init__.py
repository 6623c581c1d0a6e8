"""Calibration of a chip as a procedure: what is measured, searched, written to a file, and read back."""

from .bench import Bench
from .file import Calibration, CalibrationError
from .procedure import STAGES, Result, calibrate
from .store import calibration_for, shipped_chips, shipped_for

__all__ = [
    "STAGES",
    "Bench",
    "Calibration",
    "CalibrationError",
    "Result",
    "calibrate",
    "calibration_for",
    "shipped_chips",
    "shipped_for",
]
