"""Decision time against accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from . import style
from .style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Accuracy of answers that are read early, and the time of the network's own decisions.

    Attributes:
        times: Times at which the answer is read (s after the start of the trial) `[T]`; none for a finished run, of
            which only the decisions are recorded.
        accuracies: Accuracy of the answers at these times (0..1) `[T]`.
        accuracy: Accuracy of the answers at the end (0..1).
        decision_time: Mean time of a decision (s).
        decision_time_95: 95th percentile of the times of decisions (s).
    """

    times: Tensor
    accuracies: Tensor
    accuracy: float
    decision_time: float
    decision_time_95: float


def decision_figure(curves: Mapping[str, DecisionCurve]) -> Figure:
    """Draw the accuracy of early answers over time; a dot marks the mean decision, a bar reaches to its 95 % quantile.

    Args:
        curves: Curve of each network or device, by its name, see `hxtrain.training.decision_curve`.

    Raises:
        ValueError: There are no curves.
    """
    if not curves:
        raise ValueError("no curves to plot; give at least one, such as {'W66F3': decision_curve(net, source)}")
    figure = style.new_figure(7.0, 4.2)
    axes = figure.subplots()
    for index, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        times = 1e6 * style.array(curve.times)
        axes.plot(times, 100 * style.array(curve.accuracies), color=colour, linewidth=1.6)
        mean = 1e6 * curve.decision_time
        latest = 1e6 * curve.decision_time_95
        accuracy = 100 * curve.accuracy
        axes.plot([mean, latest], [accuracy, accuracy], "-|", color=colour, linewidth=1.2, markersize=9)
        axes.plot([mean], [accuracy], "o", color=colour, label=f"{name}: {accuracy:.2f} % at {mean:.1f} µs")
    axes.set(xlabel="time (µs)", ylabel="accuracy (%)")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    style.verbatim(*axes.legend(fontsize=9, frameon=False, loc="lower right").get_texts())
    return figure
