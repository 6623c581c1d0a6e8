"""How a measured pass is differentiated."""

from .injection import measured_layers

__all__ = ["measured_layers"]
