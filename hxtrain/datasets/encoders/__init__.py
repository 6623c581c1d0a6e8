"""Encoders: samples to spikes.

An encoder of intensities gives every network input at most one spike, `RateEncoder` several; an encoder of events
passes on any number. `Encoder.units` is the number of network inputs.
"""

from .base import ENCODERS, EVENTS, INTENSITIES, Encoder, Limit
from .delays import DelayedEventEncoder
from .events import EventEncoder
from .latency import FirstSpikeEncoder, LatencyEncoder, LinearLatencyEncoder
from .rate import RateEncoder

__all__ = [
    "ENCODERS",
    "EVENTS",
    "INTENSITIES",
    "DelayedEventEncoder",
    "Encoder",
    "EventEncoder",
    "FirstSpikeEncoder",
    "LatencyEncoder",
    "Limit",
    "LinearLatencyEncoder",
    "RateEncoder",
]
