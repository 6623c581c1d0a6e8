"""How a measured pass is differentiated."""

from .gradient import GRADIENTS, Gradient, SurrogateGradient
from .injection import gradient, measured_layers

__all__ = ["GRADIENTS", "Gradient", "SurrogateGradient", "gradient", "measured_layers"]
