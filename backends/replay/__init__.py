"""Recorded runs: a wrapper that records any device into an archive, and a device that plays an archive back."""

from .archive import ArchiveError
from .backend import ReplayBackend, ReplayError
from .recorder import Recorder

__all__ = ["ArchiveError", "Recorder", "ReplayBackend", "ReplayError"]
