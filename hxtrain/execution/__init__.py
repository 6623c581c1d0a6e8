"""Who runs a network: a device, with placement, partition, repeats and drift."""

from .device import Device
from .placement import PlacementError, Plan, place

__all__ = ["Device", "PlacementError", "Plan", "place"]
