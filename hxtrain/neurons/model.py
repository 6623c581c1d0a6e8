"""The model of a layer, through which gradients run."""

from __future__ import annotations

from typing import NamedTuple

from .surrogate import Surrogate, superspike


class Saturation(NamedTuple):
    """The saturation of a layer's synaptic inputs; each merged circuit has two, for excitation and inhibition.

    Attributes:
        limit: Synaptic current at which an input saturates, in the units of the weights.
        per_circuit: Number of signed inputs of a circuit.
        first_input: Signed input that source 0 uses.
        recurrent: The same for the recurrent weights, which share the synaptic inputs; None without recurrence.
    """

    limit: float
    per_circuit: int
    first_input: int = 0
    recurrent: Saturation | None = None

    def circuits(self, sources: int, neurons: int = 0) -> int:
        """Return the number of circuits that sources and recurrent neurons reach, counted from circuit 0."""
        end = self.first_input + sources
        if self.recurrent is not None:
            end = max(end, self.recurrent.first_input + neurons)
        return (end - 1) // self.per_circuit + 1

    def shared(self) -> Saturation:
        """Return the saturation of the recurrent weights.

        Raises:
            ValueError: there is none.
        """
        if self.recurrent is None:
            raise ValueError(
                "the saturation of a recurrent layer needs that of its recurrent weights; give `recurrent`"
            )
        return self.recurrent


class Model(NamedTuple):
    """The model of a layer.

    Attributes:
        alpha: Decay of the synaptic current per step.
        beta: Decay of the membrane per step.
        surrogate: Surrogate derivative of the spike; unused by a readout.
        slope: Slope of the surrogate; unused by a readout.
        at_threshold: Whether the membrane is taken to be at its threshold in bins with a spike, instead of at the trace
            sample of the bin (decision 0002).
        saturation: Saturation of the synaptic inputs (decision 0010); None for linear inputs.
        hold: Time for which a membrane is held at the leak after the trace sample of a spike (steps, decision 0023);
            None: the threshold is subtracted, and nothing is held.
        holds_gradient: Whether gradients know the hold; if not, they are those of the model that holds nothing.
    """

    alpha: float
    beta: float
    surrogate: Surrogate = superspike
    slope: float = 10.0
    at_threshold: bool = True
    saturation: Saturation | None = None
    hold: float | None = None
    holds_gradient: bool = False


def hold_of_model(refractory: float | None, dt: float) -> float | None:
    """Return `Model.hold` of a population that the model runs.

    A trace sample that is above the threshold tells that the membrane reached it since the previous one: half a step
    ago, on average.

    Args:
        refractory: Refractory period (s); None: a soft reset.
        dt: Width of a step (s).
    """
    return None if refractory is None else max(refractory / dt - 0.5, 0.0)


def hold_of_measured(refractory: float | None, dt: float) -> float | None:
    """Return `Model.hold` for measured spikes, which follow the trace sample of their bin by half a step, on average.

    Args:
        refractory: Refractory period (s); None: a soft reset.
        dt: Width of a step (s).
    """
    return None if refractory is None else refractory / dt + 0.5
