"""Figures as functions: `hx.plots.raster_figure(net, activity)` returns a matplotlib Figure.

No function touches pyplot or any other global state; a notebook shows a returned figure, `figure.savefig` writes it.
The names are imported when they are first used, since matplotlib takes longer to import than all the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chip import chip_figure, parameter_maps
    from .comparison import comparison_figure
    from .continual import tasks_figure
    from .decisions import DecisionCurve, decision_figure
    from .plane import plane_figure
    from .play import games_figure, rewards_figure
    from .rules import TrainView, fields_figure, reward_figure, trains_figure, window_figure
    from .runs import runs_figure
    from .spikes import raster_animation, raster_figure, rates_figure, traces_figure
    from .training import (
        SampleView,
        confusion_figure,
        learning_curves_figure,
        samples_figure,
        transfer_figure,
        weights_figure,
    )

_HOMES = {
    "DecisionCurve": "decisions",
    "SampleView": "training",
    "TrainView": "rules",
    "chip_figure": "chip",
    "comparison_figure": "comparison",
    "confusion_figure": "training",
    "decision_figure": "decisions",
    "fields_figure": "rules",
    "games_figure": "play",
    "learning_curves_figure": "training",
    "parameter_maps": "chip",
    "plane_figure": "plane",
    "raster_animation": "spikes",
    "raster_figure": "spikes",
    "rates_figure": "spikes",
    "reward_figure": "rules",
    "rewards_figure": "play",
    "runs_figure": "runs",
    "samples_figure": "training",
    "tasks_figure": "continual",
    "traces_figure": "spikes",
    "trains_figure": "rules",
    "transfer_figure": "training",
    "weights_figure": "training",
    "window_figure": "rules",
}
"""Module of each name; a type checker reads the same in the imports above."""

__all__ = [
    "DecisionCurve",
    "SampleView",
    "TrainView",
    "chip_figure",
    "comparison_figure",
    "confusion_figure",
    "decision_figure",
    "fields_figure",
    "games_figure",
    "learning_curves_figure",
    "parameter_maps",
    "plane_figure",
    "raster_animation",
    "raster_figure",
    "rates_figure",
    "reward_figure",
    "rewards_figure",
    "runs_figure",
    "samples_figure",
    "tasks_figure",
    "traces_figure",
    "trains_figure",
    "transfer_figure",
    "weights_figure",
    "window_figure",
]

if not TYPE_CHECKING:  # a type checker would take every name as known

    def __getattr__(name: str) -> Any:
        """Import a public name at its first use."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)
