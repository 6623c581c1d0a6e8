"""A network in a line, and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from hxtrain.console import html_table

from .layers import Layer

COLUMNS = ("layer", "neurons", "number", "sources", "synapses", "tau_mem / tau_syn")


def shape_line(layers: Sequence[Layer]) -> str:
    """Return numbers of neurons, recurrence and kind of the output, such as `64-80-10, 1 recurrent, membranes`."""
    sizes = "-".join(map(str, [layers[0].linear.inputs, *(layer.neurons.size for layer in layers)]))
    recurrent = sum(layer.recurrent is not None for layer in layers)
    loops = f", {recurrent} recurrent" if recurrent else ""
    return f"{sizes}{loops}, {'spikes' if layers[-1].neurons.spiking else 'membranes'}"


def layer_table(layers: Sequence[Layer], caption: str) -> str:
    """Return the layers as a table of a notebook."""
    rows = []
    for layer in layers:
        neurons = layer.neurons
        masks = [projection.synapses.mask for projection in layer.projections]
        totals = [projection.synapses.weight.numel() for projection in layer.projections]
        synapses = sum(n if mask is None else int(mask.sum()) for n, mask in zip(totals, masks, strict=True))
        taus = f"{1e6 * neurons.tau_mem:.3g} / {1e6 * neurons.tau_syn:.3g} µs"
        sources = " + ".join(projection.pre for projection in layer.projections)
        rows.append((layer.name, type(neurons).__name__, neurons.size, sources, synapses, taus))
    return html_table(COLUMNS, rows, caption)
