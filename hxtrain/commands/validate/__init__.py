"""Validation of an emulated chip against published measurements, through the device contract alone.

Every `Check` holds one statistic, its value on the emulator, the published bound and its source: [P] Cramer,
Billaudelle et al. (PNAS 2022), [C] test bounds and defaults of public chip software (calix, hxtorch, DelGrad), [D]
spreads decoded from published calibrations of four chips, [E] an estimate. A *negative control* is a check that must
fail: if a calibration is overwritten, the chip's own tests notice.
"""

from .check import Check, check_rows
from .run import ValidateConfig, validate

__all__ = ["Check", "ValidateConfig", "check_rows", "validate"]
