"""hxtrain: hardware-in-the-loop training of spiking neural networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _start  # noqa: F401 - before all others
from .activity import Activity, LayerActivity
from .backends import Spikes
from .device import Device
from .encoders import Encoder, LatencyEncoder, LinearLatencyEncoder
from .losses import MaxOverTime, MeanOverTime
from .network import LI, LIF, Dropout, Linear, Network, Recurrent
from .placement import PlacementError, Plan, place

if TYPE_CHECKING:
    from pathlib import Path

    from .studies.evaluate import TrainedNetwork

__version__ = "0.1.0"

__all__ = [
    "LI",
    "LIF",
    "Activity",
    "Device",
    "Dropout",
    "Encoder",
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
        run: the run directory of `hxtrain`, or its `checkpoint.pt`.
        data_folder: folder of the original files; None: the data of the package.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its data set has changed.
        ValueError: this is no path.
    """
    from pathlib import Path

    from .checks import text
    from .studies.evaluate import load_trained  # which needs all that trains

    path = Path(text("run", run)).expanduser()
    return load_trained(str(path / "checkpoint.pt" if path.is_dir() else path), data_folder)
