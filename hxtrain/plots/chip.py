"""Map of a chip: its neuron circuits, what sits on them, and how they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hxtrain.backends import CircuitMap, NeuronParameters
from hxtrain.network.firing import NeuronFiring

from . import style
from .style import COLOURS, GREY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 32
"""Circuits in a line of the map; the first circuit is at its upper left, as the first word of a page is."""
MAPS_PER_LINE = 3

Values = npt.NDArray[np.float64]


def chip_figure(
    chip: CircuitMap, firing: Sequence[NeuronFiring] = (), values: Mapping[str, Values] | None = None
) -> Figure:
    """Draw the circuits of a chip: the populations on them, failures of the calibration, and values of each circuit.

    Args:
        chip: Circuits of the chip, `device.backend.circuit_map`.
        firing: Firing of each layer, `neuron_firing(net, activity)`: silent and saturated neurons are marked.
        values: Values to draw as colours, by name, each `[C]` with NaN for no value, such as `parameter_maps(...)`;
            None: the codes of the calibration, if it has some.

    Raises:
        ValueError: Values are not one for each circuit.
    """
    maps = {f"code of {name}": codes for name, codes in chip.codes.items()} if values is None else dict(values)
    for name, numbers in maps.items():
        if np.shape(numbers) != (chip.circuits,):
            raise ValueError(f"values of {name} are {list(np.shape(numbers))}, expected [{chip.circuits}]")
    lines = math.ceil(len(maps) / MAPS_PER_LINE)
    height = 0.7 + chip.circuits / COLUMNS / 9
    figure = style.new_figure(13.5, 1.6 * height + height * lines)
    grid = figure.add_gridspec(1 + lines, MAPS_PER_LINE, height_ratios=[1.6, *[1.0] * lines])
    _draw_places(figure.add_subplot(grid[0, :]), chip, firing)
    for index, (name, numbers) in enumerate(maps.items()):
        axes = figure.add_subplot(grid[1 + index // MAPS_PER_LINE, index % MAPS_PER_LINE])
        _draw_values(axes, name, numbers)
    return figure


def parameter_maps(chip: CircuitMap, parameters: NeuronParameters) -> dict[str, Values]:
    """Return measured parameters (of `hxtrain fit`) as values of circuits, for `chip_figure`.

    Args:
        chip: Circuits of the chip, configured with the network of the fit.
        parameters: Parameters of the neurons; those of several merged circuits are means over them.

    Raises:
        ValueError: The chip is configured with another number of neurons.
    """
    threshold = np.where(np.isfinite(parameters.threshold), parameters.threshold, np.nan)
    neurons = {
        "leak (LSB)": parameters.leak,
        "threshold (LSB)": threshold,
        "tau_mem (µs)": 1e6 * parameters.tau_mem,
        "tau_syn, excitatory (µs)": 1e6 * parameters.tau_syn[:, 0].mean(0),
        "tau_syn, inhibitory (µs)": 1e6 * parameters.tau_syn[:, 1].mean(0),
        "strength of synapses (nominal = 1)": parameters.strength.mean((0, 1)),
    }
    return {name: chip.spread(values) for name, values in neurons.items()}


def _cells(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return values of circuits `[C]` as lines `[C / COLUMNS, COLUMNS]`; the rest of the last one repeats its end."""
    lines = math.ceil(len(values) / COLUMNS)
    return np.pad(values, (0, lines * COLUMNS - len(values)), mode="edge").reshape(lines, COLUMNS)


def _draw_places(axes: Axes, chip: CircuitMap, firing: Sequence[NeuronFiring]) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    names = list(dict.fromkeys(chip.populations))
    numbers = chip.spread(np.array([names.index(name) for name in chip.populations], float))
    numbers = np.where(np.isnan(numbers), len(names), numbers)
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(names))]
    palette = ListedColormap([*colours, "#E8E8E8"])
    axes.imshow(_cells(numbers), cmap=palette, vmin=-0.5, vmax=len(names) + 0.5, aspect="auto", alpha=0.55)
    handles: list[Artist] = [
        Patch(color=colour, alpha=0.55, label=name) for name, colour in zip(names, colours, strict=True)
    ]
    free = int((numbers == len(names)).sum())
    handles.append(Patch(color="#E8E8E8", label=f"{free} circuits without a neuron"))
    silent = chip.spread_masks({layer.name: layer.silent.numpy() for layer in firing})
    saturated = chip.spread_masks({layer.name: layer.saturated.numpy() for layer in firing})
    marks = (
        (chip.failed, "x", VERMILLION, "missed a target"),
        (silent, "o", "black", "silent"),
        (saturated, "^", "black", "saturated"),
    )
    for mask, marker, colour, name in marks:
        circuits = np.flatnonzero(mask)
        if len(circuits):
            fill = "none" if marker == "o" else "full"
            (line,) = axes.plot(circuits % COLUMNS, circuits // COLUMNS, marker, color=colour, fillstyle=fill)
            line.set(markersize=5.5, label=f"{len(circuits)} {name}")
            handles.append(line)
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.02), frameon=False, fontsize=9, ncols=7)
    axes.set_title(f"chip {chip.chip}: {chip.circuits} neuron circuits", fontsize=11, loc="left")
    _label_lines(axes, chip.circuits)


def _draw_values(axes: Axes, name: str, values: Values) -> None:
    present = values[~np.isnan(values)]
    low, high = np.quantile(present, [0.01, 0.99]) if present.size else (0.0, 1.0)
    image = axes.imshow(_cells(values), cmap="viridis", vmin=low, vmax=high, aspect="auto")
    axes.set_facecolor("#E8E8E8")
    axes.figure.colorbar(image, ax=axes, extend="both")
    spread = f", {present.mean():.4g} ± {present.std():.3g}" if present.size else ", no values"
    axes.set_title(name + spread, fontsize=10, loc="left")
    _label_lines(axes, len(values))


def _label_lines(axes: Axes, circuits: int) -> None:
    """Label the lines by their first circuit, and divide the quadrants of 128."""
    lines = math.ceil(circuits / COLUMNS)
    axes.set_yticks(range(0, lines, 4), [str(line * COLUMNS) for line in range(0, lines, 4)], fontsize=8)
    axes.set_xticks([])
    axes.set_ylabel("circuit", fontsize=8)
    for line in range(4, lines, 4):
        axes.axhline(line - 0.5, color="white", linewidth=1.5)
    axes.tick_params(length=0)
    axes.spines[:].set_color(GREY)
