"""A chip behind the network: the server, and the backend `remote` that uses it (docs/protocol.md)."""

from .client import LinkTimes, RemoteBackend
from .keys import KeyFileError, make_keys
from .link import LinkSettings
from .protocol import ConnectionLostError, RemoteBugError, Report
from .queries import ask_metrics, ask_status
from .server import Server, ServerSettings

__all__ = [
    "ConnectionLostError",
    "KeyFileError",
    "LinkSettings",
    "LinkTimes",
    "RemoteBackend",
    "RemoteBugError",
    "Report",
    "Server",
    "ServerSettings",
    "ask_metrics",
    "ask_status",
    "make_keys",
]
