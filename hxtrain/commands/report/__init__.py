"""From run directories to tables and plots, with the published values beside."""

from .config import Column, Published, ReportConfig, Series
from .records import Record, read_records
from .report import report
from .summary import Point, summarise

__all__ = ["Column", "Point", "Published", "Record", "ReportConfig", "Series", "read_records", "report", "summarise"]
