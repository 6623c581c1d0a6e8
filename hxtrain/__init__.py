"""hxtrain: hardware-in-the-loop training of spiking neural networks.

The names are imported when they are first used (PEP 562), so that `hxtrain --help` needs neither torch nor Hydra.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from . import _start  # noqa: F401 - before all others
from ._version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from .backends import Spikes
    from .commands.evaluate import TrainedNetwork
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

_HOMES = {
    "Activity": "network",
    "Device": "execution",
    "Dropout": "network",
    "Encoder": "datasets.encoders",
    "EventEncoder": "datasets.encoders",
    "LI": "network",
    "LIF": "network",
    "LateralInhibition": "network",
    "LatencyEncoder": "datasets.encoders",
    "LayerActivity": "network",
    "Linear": "network",
    "LinearLatencyEncoder": "datasets.encoders",
    "MaxOverTime": "objectives",
    "MeanOverTime": "objectives",
    "Network": "network",
    "PlacementError": "network",
    "Plan": "execution",
    "Recurrent": "network",
    "SpikeCount": "objectives",
    "SpikeCountMSE": "objectives",
    "Spikes": "backends",
    "place": "execution",
}
"""Module of each name; a type checker reads the same in the imports above."""

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

if not TYPE_CHECKING:  # a type checker would take every name as known

    def __getattr__(name: str) -> Any:
        """Import a public name, or a module of the package, at its first use."""
        if name in _HOMES:
            globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
            return globals()[name]
        if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
            return import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def load(run: str | Path, data_folder: str | None = None, modules: Collection[str] = ()) -> TrainedNetwork | StoredNetwork:
    """Return what a training run left: network with its weights, encoder, loss, data, and where it comes from.

    Args:
        run: run directory of `hxtrain`, or its `checkpoint.pt`; or a file of `save`, which has no data.
        data_folder: folder of the original data files; None: the data of the package.
        modules: modules with components of your own that the run names (`my_module:MyLoss`); they are imported.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its data set has changed.
        ValueError: `run` is not a path.
    """
    from pathlib import Path

    from .checks import text
    from .commands.evaluate import load_trained  # which needs all that trains
    from .runs.checkpoint import load_checkpoint
    from .training.store import KIND, load_network

    path = Path(text("run", run)).expanduser()
    file = path / "checkpoint.pt" if path.is_dir() else path
    state = load_checkpoint(file)
    if state.get("kind") == KIND:
        return load_network(file, state)
    return load_trained(str(file), data_folder, modules)
