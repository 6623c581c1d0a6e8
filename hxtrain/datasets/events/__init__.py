"""Samples of events, in memory and on disk, and the files that they come from."""

from .heidelberg import HeidelbergFile
from .heidelberg_writer import HeidelbergWriter, write_heidelberg
from .samples import EventSamples
from .split import EventSplit
from .store import Events, EventStore
from .stored import StoredEvents

__all__ = [
    "EventSamples",
    "EventSplit",
    "EventStore",
    "Events",
    "HeidelbergFile",
    "HeidelbergWriter",
    "StoredEvents",
    "write_heidelberg",
]
