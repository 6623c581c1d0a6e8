"""Networks in files: those of `save`, NIR graphs, weights of other programs."""

from .device_weights import DeviceWeights
from .errors import ExchangeError
from .from_nir import NirNetwork, Times, from_nir, read_nir
from .graphs import read_graph, write_graph
from .store import StoredNetwork, load_network, save_network, stored_network
from .to_nir import to_nir

__all__ = [
    "DeviceWeights",
    "ExchangeError",
    "NirNetwork",
    "StoredNetwork",
    "Times",
    "from_nir",
    "load_network",
    "read_graph",
    "read_nir",
    "save_network",
    "stored_network",
    "to_nir",
    "write_graph",
]
