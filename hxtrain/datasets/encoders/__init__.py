"""Encoders: samples to spikes.

An encoder of intensities gives every network input at most one spike, `RateEncoder` and `PoissonEncoder` several; an
encoder of events passes on any number. `Encoder.units` is the number of network inputs.
"""

from .base import ENCODERS, EVENTS, INTENSITIES, Encoder, Limit
from .delays import DelayedEventEncoder
from .events import EventEncoder
from .latency import FirstSpikeEncoder, LatencyEncoder, LinearLatencyEncoder
from .poisson import PoissonEncoder
from .rate import RateEncoder
from .regular import RegularEncoder

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
    "PoissonEncoder",
    "RateEncoder",
    "RegularEncoder",
]
