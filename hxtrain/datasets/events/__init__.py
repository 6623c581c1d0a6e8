"""Samples of events, in memory and on disk, and the files that they come from."""

from .address import AddressLayout
from .flat_file import FlatFile, write_flat
from .heidelberg import HeidelbergFile
from .heidelberg_writer import HeidelbergWriter, write_heidelberg
from .samples import EventSamples
from .split import EventSplit
from .store import Events, EventStore
from .stored import StoredEvents

__all__ = [
    "AddressLayout",
    "EventSamples",
    "EventSplit",
    "EventStore",
    "Events",
    "FlatFile",
    "HeidelbergFile",
    "HeidelbergWriter",
    "StoredEvents",
    "write_flat",
    "write_heidelberg",
]
