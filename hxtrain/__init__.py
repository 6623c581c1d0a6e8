"""hxtrain: hardware-in-the-loop training of spiking neural networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _start  # noqa: F401 - before all others
from ._version import __version__
from .backends import Spikes
from .datasets.encoders import Encoder, EventEncoder, LatencyEncoder, LinearLatencyEncoder
from .execution import Device, Plan, place
from .network import (
    LI,
    LIF,
    Activity,
    Dropout,
    LateralInhibition,
    LayerActivity,
    Linear,
    Network,
    PlacementError,
    Recurrent,
)
from .objectives import MaxOverTime, MeanOverTime, SpikeCount, SpikeCountMSE

if TYPE_CHECKING:
    from collections.abc import Collection
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
    "LateralInhibition",
    "LayerActivity",
    "Linear",
    "LinearLatencyEncoder",
    "MaxOverTime",
    "MeanOverTime",
    "Network",
    "PlacementError",
    "Plan",
    "Recurrent",
    "SpikeCount",
    "SpikeCountMSE",
    "Spikes",
    "__version__",
    "load",
    "place",
]


def load(run: str | Path, data_folder: str | None = None, modules: Collection[str] = ()) -> TrainedNetwork:
    """Return what a training run left: network with its weights, encoder, loss, data, and where it comes from.

    Args:
        run: run directory of `hxtrain`, or its `checkpoint.pt`.
        data_folder: folder of the original data files; None: the data of the package.
        modules: modules with components of your own that the run names (`my_module:MyLoss`); they are imported.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its data set has changed.
        ValueError: `run` is not a path.
    """
    from pathlib import Path

    from .checks import text
    from .commands.evaluate import load_trained  # which needs all that trains

    path = Path(text("run", run)).expanduser()
    return load_trained(str(path / "checkpoint.pt" if path.is_dir() else path), data_folder, modules)
