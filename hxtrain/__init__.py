"""hxtrain: hardware-in-the-loop training of spiking neural networks."""

from . import _start  # noqa: F401 - before all others
from .activity import Activity, LayerActivity
from .device import Device
from .encoders import Encoder, LatencyEncoder, LinearLatencyEncoder
from .losses import MaxOverTime, MeanOverTime
from .network import LI, LIF, Dropout, Linear, Network, Recurrent
from .placement import PlacementError, Plan, place

__version__ = "0.1.0"

__all__ = [
    "LI",
    "LIF",
    "Activity",
    "Device",
    "Dropout",
    "Encoder",
    "LatencyEncoder",
    "LayerActivity",
    "Linear",
    "LinearLatencyEncoder",
    "MaxOverTime",
    "MeanOverTime",
    "Network",
    "PlacementError",
    "Plan",
    "Recurrent",
    "__version__",
    "place",
]
