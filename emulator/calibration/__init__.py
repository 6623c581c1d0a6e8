"""Calibration of a chip: the procedure, its measurements and searches, and the file that holds the result."""

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
