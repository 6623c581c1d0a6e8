"""Reports: tables and plots of run directories, beside published values."""

from .config import Column, PublishedValue, ReportConfig, Series
from .records import Record, read_records
from .report import report
from .summary import Point, summarise

__all__ = [
    "Column",
    "Point",
    "PublishedValue",
    "Record",
    "ReportConfig",
    "Series",
    "read_records",
    "report",
    "summarise",
]
