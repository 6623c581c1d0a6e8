"""Who runs a network: a device, with placement, partition, repeats and drift."""

from .device import Device, device_of, open_device, sent_weights
from .placement import place
from .plan import Plan
from .session import Session

__all__ = ["Device", "Plan", "Session", "device_of", "open_device", "place", "sent_weights"]
