"""Packing: the sources of a layer on the signed inputs of its neurons, shared where masks allow it (decision 0026).

A source that has a signed input to itself takes one of every neuron of the layer. Two sources can share one if no
neuron has a synapse from both: each synapse then listens to one of them. Masks thereby save merged circuits, and so
more neurons fit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hxtrain.backends import Capabilities
from hxtrain.network import Layer

from .plan import fan_in

Mask = npt.NDArray[np.bool_]


class Packing(NamedTuple):
    """Signed inputs of the sources of a layer.

    Attributes:
        merged: Circuits per neuron.
        sources_per_circuit: Number of consecutive sources at each circuit, over all projections onto the layer.
        places: Signed input of each source, over all projections; None: each has its own, in their order.
    """

    merged: int
    sources_per_circuit: int
    places: tuple[int, ...] | None = None


def pack(layer: Layer, capabilities: Capabilities) -> Packing:
    """Return a packing with as few circuits per neuron as were found.

    Nothing is shared where this saves no circuit. Sources j, j + I, j + 2 I, ... of a circuit with I signed inputs
    share one if the masks allow it (`mask.rows`), so that synapses may move within this rule. Else each source in turn
    takes the first signed input without a conflict. Sources of one circuit are consecutive.

    Args:
        layer: Layer with the masks of its projections.
        capabilities: Capabilities of the device.
    """
    inputs = capabilities.inputs_per_circuit
    dense = Packing(-(-fan_in(layer) // inputs), inputs)
    masks = [projection.synapses.mask for projection in layer.projections]
    if dense.merged == 1 or capabilities.sources_per_input == 1 or all(mask is None for mask in masks):
        return dense
    synapses = np.concatenate(
        [
            np.ones((layer.neurons.size, projection.synapses.inputs), bool) if mask is None else mask.cpu().numpy()
            for projection, mask in zip(layer.projections, masks, strict=True)
        ],
        axis=1,
    )
    fewest = max(1, -(-int(synapses.sum(1).max()) // inputs))
    for merged in range(fewest, dense.merged):
        places = _shared(synapses, merged, inputs, capabilities.sources_per_input)
        if places is not None:
            return Packing(merged, -(-synapses.shape[1] // merged), tuple(places))
    return dense


def _shared(synapses: Mask, merged: int, inputs: int, sharing: int) -> list[int] | None:
    """Return the signed input of each source on a number of circuits; None if none was found.

    Args:
        synapses: Existing synapses `[N, J]`.
        merged: Circuits per neuron.
        inputs: Signed inputs per circuit.
        sharing: Largest number of sources at one signed input.
    """
    per_circuit = -(-synapses.shape[1] // merged)
    places: list[int] = []
    for circuit in range(merged):
        part = synapses[:, circuit * per_circuit : (circuit + 1) * per_circuit]
        rows = _in_turn(part, inputs, sharing)
        if rows is None:
            rows = _first_fit(part, inputs, sharing)
        if rows is None:
            return None
        places += [circuit * inputs + row for row in rows]
    return places


def _in_turn(synapses: Mask, inputs: int, sharing: int) -> list[int] | None:
    """Return signed inputs j mod `inputs` of the sources, if no neuron has two synapses at one; else None."""
    neurons, sources = synapses.shape
    depth = -(-sources // inputs)
    padded = np.zeros((neurons, depth * inputs), bool)
    padded[:, :sources] = synapses
    if depth > sharing or padded.reshape(neurons, depth, inputs).sum(1).max(initial=0) > 1:
        return None
    return [source % inputs for source in range(sources)]


def _first_fit(synapses: Mask, inputs: int, sharing: int) -> list[int] | None:
    """Return the first signed input without a conflict for each source in turn; None if one finds none."""
    neurons, sources = synapses.shape
    used = np.zeros((inputs, neurons), bool)
    counts = np.zeros(inputs, np.int64)
    rows = []
    for source in range(sources):
        targets = synapses[:, source]
        is_free = ~(used[:, targets].any(1)) & (counts < sharing)
        if not is_free.any():
            return None
        row = int(is_free.argmax())
        used[row] |= targets
        counts[row] += 1
        rows.append(row)
    return rows
