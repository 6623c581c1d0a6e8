"""What a neuron does: the model of a layer, its potentials on the time grid, spikes and membranes as measured."""

from .engines.engine import UnrecordedMembranes
from .events import Grads, GroupedEvents
from .measured import Codes, MeasuredLayer, MembraneSource, SpikeGrid
from .model import Model, Saturation, hold_of_measured, hold_of_model
from .precision import full_precision
from .psp import GridEvents, decay, decaying_sum, over_time, potential, psp_kernel, psp_matrix
from .surrogate import SURROGATES, Surrogate, get_surrogate

__all__ = [
    "SURROGATES",
    "Codes",
    "Grads",
    "GridEvents",
    "GroupedEvents",
    "MeasuredLayer",
    "MembraneSource",
    "Model",
    "Saturation",
    "SpikeGrid",
    "Surrogate",
    "UnrecordedMembranes",
    "decay",
    "decaying_sum",
    "full_precision",
    "get_surrogate",
    "hold_of_measured",
    "hold_of_model",
    "over_time",
    "potential",
    "psp_kernel",
    "psp_matrix",
]
