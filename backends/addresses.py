"""Addresses of pools of chips, `pool://HOST:PORT`."""

from __future__ import annotations

SCHEME = "pool"
EXAMPLE = f"{SCHEME}://lab:5554"


def is_pool(address: object) -> bool:
    """Return whether an address is one of a pool."""
    return isinstance(address, str) and address.startswith(f"{SCHEME}://")


def endpoint(address: str) -> str:
    """Return the address of a pool's broker: `tcp://HOST:PORT` of `pool://HOST:PORT`, `ipc:///PATH` of `pool:///PATH`.

    Raises:
        ValueError: The address is no pool's.
    """
    rest = address.removeprefix(f"{SCHEME}://")
    if not is_pool(address) or not rest:
        raise ValueError(f"address={address!r} is not one of a pool; use e.g. {EXAMPLE}")
    return f"ipc://{rest}" if rest.startswith(("/", "@")) else f"tcp://{rest}"
