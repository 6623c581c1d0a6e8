"""The error of the exchange of networks."""

from __future__ import annotations


class ExchangeError(ValueError):
    """A network cannot be exchanged; the text names the node or tensor, the reason and a remedy."""
