"""The model of a layer, through which gradients run."""

from __future__ import annotations

from typing import NamedTuple

from .surrogate import Surrogate, superspike


class Model(NamedTuple):
    """A layer's model.

    Attributes:
        alpha, beta: decay of synaptic current and membrane per step.
        surrogate, slope: derivative of the spike (unused by a readout).
        at_threshold: take the membrane to be at its threshold in bins with a spike, instead of the sample of that
            bin (decision 0002).
    """

    alpha: float
    beta: float
    surrogate: Surrogate = superspike
    slope: float = 10.0
    at_threshold: bool = True
