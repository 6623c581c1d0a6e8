"""Learning rules: the gradient of a measured pass, and surrogate derivatives."""

from .injection import Feedback, measured_layer
from .psp import GridEvents, decay, over_time, psp_kernel, psp_matrix
from .surrogate import SURROGATES, Surrogate, get_surrogate

__all__ = [
    "SURROGATES",
    "Feedback",
    "GridEvents",
    "Surrogate",
    "decay",
    "get_surrogate",
    "measured_layer",
    "over_time",
    "psp_kernel",
    "psp_matrix",
]
