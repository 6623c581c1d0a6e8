"""The suite that defines a backend: named checks, each with a verdict; see docs/write-a-backend.md."""

from .bench import Bench, ConformanceError, NotApplicableError
from .suite import CHECKS, Check, Result, Verdict, asks, judge, run_suite, select, verify
from .tolerances import ANALOG, IDEAL, TOLERANCES, UNCALIBRATED, Tolerances

__all__ = [
    "ANALOG",
    "CHECKS",
    "IDEAL",
    "TOLERANCES",
    "UNCALIBRATED",
    "Bench",
    "Check",
    "ConformanceError",
    "NotApplicableError",
    "Result",
    "Tolerances",
    "Verdict",
    "asks",
    "judge",
    "run_suite",
    "select",
    "verify",
]
