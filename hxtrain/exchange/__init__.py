"""Networks in files: those of `save`, NIR graphs, weights of other programs."""

from .errors import ExchangeError
from .from_nir import NirNetwork, Times, from_nir, read_nir
from .graphs import read_graph, write_graph
from .sent import Sent
from .store import StoredNetwork, load_network, save_network
from .to_nir import to_nir

__all__ = [
    "ExchangeError",
    "NirNetwork",
    "Sent",
    "Times",
    "from_nir",
    "read_graph",
    "read_nir",
    "to_nir",
    "write_graph",
]
