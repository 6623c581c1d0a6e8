"""Who runs a network: a device, with placement, partition, repeats and drift."""

from .device import Device, device_of
from .placement import Plan, place

__all__ = ["Device", "Plan", "device_of", "place"]
