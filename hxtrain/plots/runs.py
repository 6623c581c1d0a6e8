"""Runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.plain import METRICS, differing_settings
from hxtrain.runs.saved import read_records, read_settings

from . import style
from .style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SETTINGS = 12
"""Number of settings in the list of differences; further ones are counted."""
CURVES = (
    ("train_loss", "training loss", 1.0, "{:.3g}"),
    ("test_accuracy", "accuracy (%)", 100.0, "{:.2f} %"),
    ("hidden_spikes_per_sample", "hidden spikes per sample", 1.0, "{:.1f}"),
)
"""Entry of a record, label, factor and format of each panel."""
PLAY_CURVES = (
    ("score", "mean reward of an action", 1.0, "{:.2f}"),
    ("success", "success (%)", 100.0, "{:.1f} %"),
    ("output_spikes_per_trial", "output spikes per trial", 1.0, "{:.1f}"),
)
"""The same of runs that play."""


def runs_figure(runs: Mapping[str, str | Path]) -> Figure:
    """Draw the learning curves of runs, finished or not, and list the settings in which they differ.

    Runs that play have scores instead.

    Args:
        runs: Run directory of each run, by the name to show: `{"calibrated": "outputs/a", "ideal": "outputs/b"}`.

    Raises:
        ValueError: There are no runs.
        CheckpointError: A folder is no run directory, or its files are damaged.
    """
    if not runs:
        raise ValueError("no runs to plot; give run directories by name, such as {'calibrated': 'outputs/a'}")
    folders = {name: Path(folder).expanduser() for name, folder in runs.items()}
    records = {name: _records(folder) for name, folder in folders.items()}
    rows = differing_settings({name: read_settings(folder / "config.yaml") for name, folder in folders.items()})
    text = _table(list(runs), rows)
    lines = text.count("\n") + 1
    figure = style.new_figure(13, 4.2 + 0.19 * lines)
    curves = PLAY_CURVES if all("score" in record for part in records.values() for record in part) else CURVES
    grid = figure.add_gridspec(2, len(curves), height_ratios=[3.6, 0.2 + 0.19 * lines])
    for column, (key, label, factor, form) in enumerate(curves):
        axes = figure.add_subplot(grid[0, column])
        for index, name in enumerate(runs):
            colour = COLOURS[index % len(COLOURS)]
            style.draw_curve(axes, records[name], key, colour, name, factor, form)
        axes.set(xlabel="epoch", ylabel=label)
        style.integer_ticks(axes.xaxis)
        axes.grid(alpha=0.3)
        if axes.lines:
            style.verbatim(*axes.legend(handles=axes.lines, fontsize=8).get_texts())  # names with _ in front, too
        else:
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="dimgrey")
    _write(figure.add_subplot(grid[1, :]), text)
    return figure


def _records(folder: Path) -> list[dict[str, Any]]:
    file = folder / METRICS
    if not file.is_file():
        raise CheckpointError(f"{folder} has no {METRICS}; name the directory of a run that has trained an epoch")
    return read_records(file)


def _table(names: list[str], rows: Mapping[str, list[Any]]) -> str:
    if not rows:
        return "all settings are equal"
    cells = [["setting", *names], *([name, *map(str, values)] for name, values in rows.items())]
    visible = [[cell if len(cell) <= 36 else f"{cell[:33]}..." for cell in row] for row in cells[: MOST_SETTINGS + 1]]
    widths = [max(len(row[column]) for row in visible) for column in range(len(names) + 1)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in visible]
    hidden = len(cells) - len(visible)
    return "\n".join(lines + ([f"and {hidden} more settings"] if hidden else []))


def _write(axes: Axes, text: str) -> None:
    axes.set_axis_off()
    style.verbatim(axes.text(0.0, 1.0, text, transform=axes.transAxes, va="top", family="monospace", fontsize=8))
