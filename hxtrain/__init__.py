"""hxtrain: hardware-in-the-loop training of spiking neural networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _start  # noqa: F401 - must be the first import
from .activity import Activity, LayerActivity
from .backends import Spikes
from .device import Device
from .encoders import Encoder, LatencyEncoder, LinearLatencyEncoder
from .losses import MaxOverTime, MeanOverTime
from .network import LI, LIF, Dropout, Linear, Network, Recurrent
from .placement import PlacementError, Plan, place

if TYPE_CHECKING:
    from pathlib import Path

    from .studies.evaluate import Trained

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


def load(run: str | Path, data_folder: str | None = None) -> Trained:
    """Return the result of a training run: network with its weights, encoder, loss, data and origin.

    Args:
        run: run directory of `hxtrain`, or its `checkpoint.pt`.
        data_folder: folder of the original data files; None: the data of the package.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its data set has changed.
        ValueError: `run` is not a path.
    """
    from pathlib import Path

    from .checks import text
    from .studies.evaluate import load_trained  # it imports all training code

    path = Path(text("run", run)).expanduser()
    return load_trained(str(path / "checkpoint.pt" if path.is_dir() else path), data_folder)
