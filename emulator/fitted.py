"""A chip known only from measurements: parameters of its logical neurons in the measured circuit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .dynamics import Neurons, assign_circuits
from .layout import Layout
from .preset import Preset
from .silicon import SILENT_THRESHOLD

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FittedChip:
    """A chip defined by measured parameters, with potentials in its own trace codes.

    Attributes:
        name: name of the fit.
        hash: content hash of the fit.
        merged: number of merged circuits per neuron in the measurement, `A`.
        leak: resting potential (LSB) `[N]`.
        reset: reset potential (LSB) `[N]`.
        threshold: spike threshold (LSB) `[N]`.
        tau_mem: membrane time constant (s) `[N]`.
        tau_syn: synaptic time constants by sign (s) `[A, 2, N]`.
        synapse: strength of each synapse `[A, 128, 2, N]`.
        noise: noise levels and limits.
    """

    name: str
    hash: str
    merged: int
    leak: Array
    reset: Array
    threshold: Array
    tau_mem: Array
    tau_syn: Array
    synapse: Array
    noise: Preset

    def neurons(self, layout: Layout) -> Neurons:
        """Return the parameters of a layout's logical neurons.

        Raises:
            ValueError: the layout has more neurons than were measured, or merges another number of circuits.
        """
        count = layout.bounds[-1]
        mismatches = sorted({group.circuits for group in layout.groups} - {self.merged})
        if mismatches or count > len(self.leak):
            raise ValueError(
                f"chip {self.name} was fitted with {len(self.leak)} neurons of {self.merged} merged circuits, the "
                f"network needs {count} of {[g.circuits for g in layout.groups]}; fit the device in this circuit"
            )
        if not layout.synapses_enabled or not layout.corrected_capacitance:
            raise ValueError(f"chip {self.name} is fitted; it has no cells that a calibration could set")
        spikes = np.repeat([g.threshold is not None for g in layout.groups], [g.size for g in layout.groups])
        refractory = np.repeat([g.refractory for g in layout.groups], [g.size for g in layout.groups])
        return Neurons(
            rest=self.leak[:count],
            threshold=np.where(spikes & np.isfinite(self.threshold[:count]), self.threshold[:count], SILENT_THRESHOLD),
            reset=self.reset[:count],
            refractory=refractory,
            tau_mem=self.tau_mem[:count],
            tau_syn=self.tau_syn[..., :count],
            synapse=self.synapse[..., :count],
            cadc_offset=np.zeros(count),
            cadc_gain=np.ones(count),
            circuits=assign_circuits(layout),
        )
