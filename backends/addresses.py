"""Addresses of pools of chips, `pool://HOST:PORT`."""

from __future__ import annotations

SCHEME = "pool"
EXAMPLE = f"{SCHEME}://lab:5554"


def is_pool(address: object) -> bool:
    """Return whether an address is one of a pool."""
    return isinstance(address, str) and address.startswith(f"{SCHEME}://")


def pool_address(address: str) -> str:
    """Return the address for clients of the broker at `tcp://HOST:PORT` or `ipc:///PATH`."""
    return f"{SCHEME}://{address.partition('://')[2]}"


def endpoint(address: str) -> str:
    """Return the address of a pool's broker: `tcp://HOST:PORT` of `pool://HOST:PORT`, `ipc:///PATH` of `pool:///PATH`."""
    rest = address.removeprefix(f"{SCHEME}://")
    return f"ipc://{rest}" if rest.startswith(("/", "@")) else f"tcp://{rest}"
