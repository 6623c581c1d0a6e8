"""Entries in the books of a pool: chips, clients and leases."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from hxtrain.backends.remote.claims import Wish


@dataclass
class Chip:
    """A chip of the pool and its server.

    Attributes:
        address: Address of the server.
        answered: Time of the last answer (s).
        identity: Identity of the chip; empty before the first answer.
        circuits: Number of neuron circuits.
        is_here: Whether the server has answered since the start of the broker, and was not silent since.
        stranger: Label of a holder that did not come through the pool; empty without one.
        returned: Label of the last client that gave the chip back, which may still be the holder in a late answer.
        since: Time of the last change of its state (s).
    """

    address: str
    answered: float
    identity: Mapping[str, str] = field(default_factory=dict)
    circuits: int = 0
    is_here: bool = False
    stranger: str = ""
    returned: str = ""
    since: float = 0.0

    def fits(self, wish: Wish) -> bool:
        """Return whether the chip has all wished properties, but for the recorded hash."""
        matches = all(self.identity.get(name) == value for name, value in wish.identity.items())
        return bool(self.identity) and matches and self.circuits >= wish.circuits


@dataclass
class Member:
    """A client that waits or has a chip.

    Attributes:
        client: Name of the client.
        user: Public key of its user; empty without keys.
        owner: User whose turn it is: the key, or the user and machine that the client names.
        label: Label for people.
        mark: Label that it gives itself, also at the server of its chip.
        wish: Properties of its chip.
        since: Time at which it came (s).
        last_contact: Time of the last sign of life (s).
    """

    client: str
    user: str
    owner: str
    label: str
    mark: str
    wish: Wish
    since: float
    last_contact: float


@dataclass
class Lease:
    """A chip in use: the client, its token, the address, the beginning (s), and whether the client knows of it."""

    member: Member
    address: str
    begin: float
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    is_taken: bool = False
