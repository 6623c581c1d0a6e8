"""Settings of the live view."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass
from typing import Optional

LEAST_TOKEN = 16
"""Smallest number of letters of a token."""


@dataclass
class ViewConfig:
    """Settings of the server of the live view.

    Attributes:
        host: Address that the server listens at; any but a loopback address needs a token.
        port: Port; 0 takes a free one.
        token: Secret word in the page's address, which every request must name; None draws one where it is needed.
        serve: Whether a training with `live=true` serves its page; if not, as in a sweep, it only writes snapshots,
            which `hxtrain view` shows.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: Optional[str] = None  # noqa: UP045 - OmegaConf resolves these on every Python
    serve: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or not self.host:
            raise ValueError(f"view.host={self.host!r} must be an address, such as 127.0.0.1")
        if type(self.port) is not int or not 0 <= self.port < 2**16:
            raise ValueError(f"view.port={self.port!r} must be in 0..65535; 0 takes a free one")
        if self.token is not None and (len(self.token) < LEAST_TOKEN or not _is_plain(self.token)):
            raise ValueError(
                f"view.token has {len(self.token)} characters; give at least {LEAST_TOKEN} letters, digits, - or _, or "
                "leave it out"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_everywhere(self) -> bool:
        """Whether the server listens at all addresses of the machine, of which none is in `host`."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    def secret(self) -> str | None:
        """Return the token, or a new one if the address needs one; None for a loopback address without a token."""
        return self.token or (None if self.is_local else secrets.token_urlsafe(24))


def _is_plain(text: str) -> bool:
    return text.isascii() and all(letter.isalnum() or letter in "-_" for letter in text)
