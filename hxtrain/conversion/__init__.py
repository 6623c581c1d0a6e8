"""Conversion of trained artificial neural networks: layers of rates, passes, and spikes in software."""

from .graph import ConversionError, Layer, MaxLayer, RateLayer, RateNetwork, ScalingLayer
from .softlif import LIFCurve, SoftLIF

__all__ = [
    "ConversionError",
    "LIFCurve",
    "Layer",
    "MaxLayer",
    "RateLayer",
    "RateNetwork",
    "ScalingLayer",
    "SoftLIF",
]
