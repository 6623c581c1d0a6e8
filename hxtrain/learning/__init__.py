"""Learning rules: the gradient of a measured pass, and surrogate derivatives."""

from . import compiled, gpu
from .compiled import Codes, GroupedEvents, UnrecordedMembranes
from .injection import gradient, measured_layers
from .measured import Fired, Measured
from .model import Model, Saturation
from .precision import full_precision
from .psp import GridEvents, decay, over_time, psp_kernel, psp_matrix
from .surrogate import SURROGATES, Surrogate, get_surrogate

__all__ = [
    "SURROGATES",
    "Codes",
    "Fired",
    "GridEvents",
    "GroupedEvents",
    "Measured",
    "Model",
    "Saturation",
    "Surrogate",
    "UnrecordedMembranes",
    "compiled",
    "decay",
    "full_precision",
    "get_surrogate",
    "gpu",
    "gradient",
    "measured_layers",
    "over_time",
    "psp_kernel",
    "psp_matrix",
]
