"""What is asked for: layers, the network that they form, and what it did in a pass."""

from .activity import Activity, LayerActivity
from .config import NETWORKS, Architecture, NetworkConfig
from .delays import DelayedNetwork, DelayedNetworkConfig
from .layers import LI, LIF, Dropout, LateralInhibition, Layer, Linear, Recurrent
from .network import Network
from .runner import PlacementError, Runner, Write

__all__ = [
    "LI",
    "LIF",
    "NETWORKS",
    "Activity",
    "Architecture",
    "DelayedNetwork",
    "DelayedNetworkConfig",
    "Dropout",
    "LateralInhibition",
    "Layer",
    "LayerActivity",
    "Linear",
    "Network",
    "NetworkConfig",
    "PlacementError",
    "Recurrent",
    "Runner",
    "Write",
]
