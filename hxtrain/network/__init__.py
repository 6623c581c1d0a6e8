"""What is asked for: layers, the network that they form, and what it did in a pass."""

from .activity import Activity, LayerActivity
from .layers import LI, LIF, Dropout, LateralInhibition, Layer, Linear, Recurrent
from .network import Network
from .runner import PlacementError, Runner

__all__ = [
    "LI",
    "LIF",
    "Activity",
    "Dropout",
    "LateralInhibition",
    "Layer",
    "LayerActivity",
    "Linear",
    "Network",
    "PlacementError",
    "Recurrent",
    "Runner",
]
