"""Other libraries on the same task, for comparison; whichever are installed (extra `bench`).

A module per library, imported only when it is timed. Each is used the fastest way that its documentation shows.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import torch

from .common import Peer, Task


class Known(NamedTuple):
    """A peer that can be timed: distribution, module and function that build it, and whether torch's threads apply."""

    package: str
    module: str
    function: str = "build"
    torch_threads: bool = True


PEERS = {
    "norse": Known("norse", "norse_peer"),
    "snnTorch": Known("snntorch", "snntorch_peer"),
    "sinabs": Known("sinabs", "sinabs_peer"),
    "SpikingJelly": Known("spikingjelly", "spikingjelly_peer"),
    "Rockpool": Known("rockpool", "rockpool_peer"),
    "spyx (JAX)": Known("spyx", "spyx_peer", torch_threads=False),
    "torch, loop by hand": Known("torch", "torch_peer"),
    "torch.compile, loop by hand": Known("torch", "torch_peer", "build_compiled"),
}
"""By the name that tables show."""


def installed() -> dict[str, str]:
    """Return the versions of the peers that are installed."""
    found = {}
    for name, known in PEERS.items():
        try:
            found[name] = f"{known.package} {version(known.package)}"
        except PackageNotFoundError:
            continue
    return found


def build(name: str, task: Task) -> Peer:
    """Return a peer whose hidden neurons are as active as ours.

    Raises:
        Exception: whatever a library raises that is installed, but does not work here.
    """
    known = PEERS[name]
    function: Callable[[Task], Peer] = getattr(import_module(f"{__name__}.{known.module}"), known.function)
    with torch.device(task.hidden.device):
        peer = function(task)
    peer.match(task.activity)
    return peer


__all__ = ["PEERS", "Known", "Peer", "Task", "build", "installed"]
