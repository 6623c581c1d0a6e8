"""How a measured pass is differentiated."""

from .injection import gradient, measured_layers

__all__ = ["gradient", "measured_layers"]
