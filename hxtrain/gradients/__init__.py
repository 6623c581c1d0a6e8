"""How a measured pass is differentiated."""

from .gradient import GRADIENTS, Gradient, SurrogateGradient
from .injection import measured_layers

__all__ = ["GRADIENTS", "Gradient", "SurrogateGradient", "measured_layers"]
