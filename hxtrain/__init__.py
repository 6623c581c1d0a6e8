"""hxtrain: hardware-in-the-loop training of spiking neural networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _start  # noqa: F401 - before all others
from ._version import __version__
from .backends import Spikes
from .datasets.encoders import Encoder, EventEncoder, LatencyEncoder, LinearLatencyEncoder
from .execution import Device, Plan, place
from .network import LI, LIF, Activity, Dropout, LayerActivity, Linear, Network, PlacementError, Recurrent
from .objectives import MaxOverTime, MeanOverTime

if TYPE_CHECKING:
    from pathlib import Path

    from .commands.evaluate import TrainedNetwork

__all__ = [
    "LI",
    "LIF",
    "Activity",
    "Device",
    "Dropout",
    "Encoder",
    "EventEncoder",
    "LatencyEncoder",
    "LayerActivity",
    "Linear",
    "LinearLatencyEncoder",
    "MaxOverTime",
    "MeanOverTime",
    "Network",
    "PlacementError",
    "Plan",
    "Recurrent",
    "Spikes",
    "__version__",
    "load",
    "place",
]


def load(run: str | Path, data_folder: str | None = None) -> TrainedNetwork:
    """Return what a training run left: network with its weights, encoder, loss, data, and where it comes from.

    Args:
        run: run directory of `hxtrain`, or its `checkpoint.pt`.
        data_folder: folder of the original data files; None: the data of the package.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its data set has changed.
        ValueError: `run` is not a path.
    """
    from pathlib import Path

    from .checks import text
    from .commands.evaluate import load_trained  # which needs all that trains

    path = Path(text("run", run)).expanduser()
    return load_trained(str(path / "checkpoint.pt" if path.is_dir() else path), data_folder)
