"""The model of a layer, through which gradients run."""

from __future__ import annotations

from typing import NamedTuple

from .surrogate import Surrogate, superspike


class Saturation(NamedTuple):
    """Where a layer's synaptic inputs saturate: each merged circuit has two, for excitation and inhibition.

    Attributes:
        limit: synaptic current at which one saturates, in the units of the weights.
        per_circuit: signed inputs of one circuit.
        first: signed input that source 0 uses.
    """

    limit: float
    per_circuit: int
    first: int = 0

    def circuits(self, sources: int) -> int:
        """Return how many circuits so many sources reach, counted from circuit 0."""
        return (self.first + sources - 1) // self.per_circuit + 1


class Model(NamedTuple):
    """A layer's model.

    Attributes:
        alpha, beta: decay of synaptic current and membrane per step.
        surrogate, slope: derivative of the spike (unused by a readout).
        at_threshold: take the membrane to be at its threshold in bins with a spike, instead of the sample of that
            bin (decision 0002).
        saturation: of the synaptic inputs (decision 0010); None: they are linear.
    """

    alpha: float
    beta: float
    surrogate: Surrogate = superspike
    slope: float = 10.0
    at_threshold: bool = True
    saturation: Saturation | None = None
