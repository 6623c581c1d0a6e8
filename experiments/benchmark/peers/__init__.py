"""Other installed libraries on the same task, for comparison (extra `bench`).

Each library has a module, which is imported only for its timing. It uses the library in the fastest documented way.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import torch

from .common import Peer, Task


class PeerEntry(NamedTuple):
    """A peer: distribution, module and function that build it, and whether it uses torch's threads."""

    package: str
    module: str
    function: str = "build"
    torch_threads: bool = True


PEERS = {
    "norse": PeerEntry("norse", "norse_peer"),
    "snnTorch": PeerEntry("snntorch", "snntorch_peer"),
    "sinabs": PeerEntry("sinabs", "sinabs_peer"),
    "SpikingJelly": PeerEntry("spikingjelly", "spikingjelly_peer"),
    "Rockpool": PeerEntry("rockpool", "rockpool_peer"),
    "spyx (JAX)": PeerEntry("spyx", "spyx_peer", torch_threads=False),
    "torch, loop by hand": PeerEntry("torch", "torch_peer"),
    "torch.compile, loop by hand": PeerEntry("torch", "torch_peer", "build_compiled"),
}
"""Peers by the name in tables."""


def installed() -> dict[str, str]:
    """Return the versions of the peers that are installed."""
    packages = {}
    for name, entry in PEERS.items():
        try:
            packages[name] = f"{entry.package} {version(entry.package)}"
        except PackageNotFoundError:
            continue
    return packages


def build(name: str, task: Task) -> Peer:
    """Return a peer whose hidden neurons have the same activity as ours.

    Raises:
        Exception: Any error of a library that is installed, but does not work on this machine.
    """
    entry = PEERS[name]
    function: Callable[[Task], Peer] = getattr(import_module(f"{__name__}.{entry.module}"), entry.function)
    with torch.device(task.hidden.device):
        peer = function(task)
    peer.match(task.activity)
    return peer


__all__ = ["PEERS", "Peer", "PeerEntry", "Task", "build", "installed"]
