"""What a neuron does: the model of a layer, its potentials on the time grid, spikes and membranes as measured."""

from .engines.cpu import Codes, UnrecordedMembranes
from .events import Grads, GroupedEvents
from .measured import Fired, Measured
from .model import Model, Saturation
from .precision import full_precision
from .psp import GridEvents, decay, over_time, psp_kernel, psp_matrix
from .surrogate import SURROGATES, Surrogate, get_surrogate

__all__ = [
    "SURROGATES",
    "Codes",
    "Fired",
    "Grads",
    "GridEvents",
    "GroupedEvents",
    "Measured",
    "Model",
    "Saturation",
    "Surrogate",
    "UnrecordedMembranes",
    "decay",
    "full_precision",
    "get_surrogate",
    "over_time",
    "psp_kernel",
    "psp_matrix",
]
