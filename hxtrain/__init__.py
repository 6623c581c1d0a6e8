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

    from . import plots as plots
    from .backends import Backend, BackendWrapper, Spikes, create_backend
    from .commands.evaluate import TrainedNetwork
    from .conversion import convert
    from .datasets import Dataset, EventSplit, Split, load_dataset
    from .datasets.encoders import Encoder, EventEncoder, LatencyEncoder, LinearLatencyEncoder
    from .datasets.sequences import DriftTasks, PermutedTasks, SplitTasks
    from .exchange import StoredNetwork, from_nir, to_nir
    from .exchange import save_network as save
    from .execution import Device, Plan, open_device, place
    from .gradients import Gradient, SurrogateGradient
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
    from .objectives import (
        Burst,
        Firing,
        Loss,
        MaxOverTime,
        MeanAfter,
        MeanOverTime,
        ReadoutAmplitude,
        Regularizer,
        SpikeCount,
        SpikeCountMSE,
        SpikeTimeMSE,
        SpikeTimeTargets,
        TimeToFirstSpike,
        TrainCorrelation,
        UpperActivity,
        VanRossum,
        WeightDecay,
    )
    from .objectives.consolidation import ElasticWeightConsolidation, SynapticIntelligence
    from .objectives.vote import Vote
    from .rules import SGD, Adam, Backprop, Batch, LearningRule, Need, Step, learn, train_step
    from .rules.adm import ADM
    from .rules.clopath import Clopath
    from .rules.eventprop import EventProp
    from .rules.resume import ReSuMe
    from .rules.reward import RewardSTDP
    from .rules.rtrl import RTRL, EProp
    from .rules.sdsp import SDSP
    from .rules.spikeprop import SpikeProp
    from .rules.stdp import STDP, TripletSTDP
    from .rules.superspike import SuperSpike
    from .rules.tempotron import Tempotron
    from .training import Evaluation, evaluate, fit
    from .training.weights import load_weights

_HOMES = {
    "ADM": "rules.adm",
    "Activity": "network",
    "Adam": "rules",
    "Backend": "backends",
    "BackendWrapper": "backends",
    "Backprop": "rules",
    "Batch": "rules",
    "Burst": "objectives",
    "Clopath": "rules.clopath",
    "Dataset": "datasets",
    "Device": "execution",
    "DriftTasks": "datasets.sequences",
    "Dropout": "network",
    "EProp": "rules.rtrl",
    "ElasticWeightConsolidation": "objectives.consolidation",
    "Encoder": "datasets.encoders",
    "Evaluation": "training",
    "EventEncoder": "datasets.encoders",
    "EventProp": "rules.eventprop",
    "EventSplit": "datasets",
    "Firing": "objectives",
    "Gradient": "gradients",
    "LI": "network",
    "LIF": "network",
    "LatencyEncoder": "datasets.encoders",
    "LateralInhibition": "network",
    "LayerActivity": "network",
    "LearningRule": "rules",
    "Linear": "network",
    "LinearLatencyEncoder": "datasets.encoders",
    "Loss": "objectives",
    "MaxOverTime": "objectives",
    "MeanAfter": "objectives",
    "MeanOverTime": "objectives",
    "Need": "rules",
    "Network": "network",
    "PermutedTasks": "datasets.sequences",
    "PlacementError": "network",
    "Plan": "execution",
    "RTRL": "rules.rtrl",
    "ReSuMe": "rules.resume",
    "ReadoutAmplitude": "objectives",
    "Recurrent": "network",
    "Regularizer": "objectives",
    "RewardSTDP": "rules.reward",
    "SDSP": "rules.sdsp",
    "SGD": "rules",
    "STDP": "rules.stdp",
    "SpikeCount": "objectives",
    "SpikeCountMSE": "objectives",
    "SpikeProp": "rules.spikeprop",
    "SpikeTimeMSE": "objectives",
    "SpikeTimeTargets": "objectives",
    "Spikes": "backends",
    "Split": "datasets",
    "SplitTasks": "datasets.sequences",
    "Step": "rules",
    "StoredNetwork": "exchange",
    "SuperSpike": "rules.superspike",
    "SurrogateGradient": "gradients",
    "SynapticIntelligence": "objectives.consolidation",
    "Tempotron": "rules.tempotron",
    "TimeToFirstSpike": "objectives",
    "TrainCorrelation": "objectives",
    "TripletSTDP": "rules.stdp",
    "UpperActivity": "objectives",
    "VanRossum": "objectives",
    "Vote": "objectives.vote",
    "WeightDecay": "objectives",
    "convert": "conversion",
    "create_backend": "backends",
    "evaluate": "training",
    "fit": "training",
    "from_nir": "exchange",
    "learn": "rules",
    "load_dataset": "datasets",
    "load_weights": "training.weights",
    "open_device": "execution",
    "place": "execution",
    "to_nir": "exchange",
    "train_step": "rules",
}
"""Module of each name; a type checker reads the same in the imports above."""
_ALIASES = {"save": ("exchange", "save_network")}
"""Names that have another one in their module, with module and name there."""

__all__ = [
    "ADM",
    "LI",
    "LIF",
    "RTRL",
    "SDSP",
    "SGD",
    "STDP",
    "Activity",
    "Adam",
    "Backend",
    "BackendWrapper",
    "Backprop",
    "Batch",
    "Burst",
    "Clopath",
    "Dataset",
    "Device",
    "DriftTasks",
    "Dropout",
    "EProp",
    "ElasticWeightConsolidation",
    "Encoder",
    "Evaluation",
    "EventEncoder",
    "EventProp",
    "EventSplit",
    "Firing",
    "Gradient",
    "LatencyEncoder",
    "LateralInhibition",
    "LayerActivity",
    "LearningRule",
    "Linear",
    "LinearLatencyEncoder",
    "Loss",
    "MaxOverTime",
    "MeanAfter",
    "MeanOverTime",
    "Need",
    "Network",
    "PermutedTasks",
    "PlacementError",
    "Plan",
    "ReSuMe",
    "ReadoutAmplitude",
    "Recurrent",
    "Regularizer",
    "RewardSTDP",
    "SpikeCount",
    "SpikeCountMSE",
    "SpikeProp",
    "SpikeTimeMSE",
    "SpikeTimeTargets",
    "Spikes",
    "Split",
    "SplitTasks",
    "Step",
    "StoredNetwork",
    "SuperSpike",
    "SurrogateGradient",
    "SynapticIntelligence",
    "Tempotron",
    "TimeToFirstSpike",
    "TrainCorrelation",
    "TripletSTDP",
    "UpperActivity",
    "VanRossum",
    "Vote",
    "WeightDecay",
    "__version__",
    "convert",
    "create_backend",
    "evaluate",
    "fit",
    "from_nir",
    "learn",
    "load",
    "load_dataset",
    "load_weights",
    "open_device",
    "place",
    "save",
    "to_nir",
    "train_step",
]

if not TYPE_CHECKING:  # a type checker would take every name as known

    def __getattr__(name: str) -> Any:
        """Import a public name, or a module of the package, at its first use."""
        if name in _HOMES or name in _ALIASES:
            home, attribute = _ALIASES.get(name) or (_HOMES[name], name)
            globals()[name] = getattr(import_module(f".{home}", __name__), attribute)
            return globals()[name]
        if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
            return import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def load(
    run: str | Path, data_folder: str | None = None, modules: Collection[str] = ()
) -> TrainedNetwork | StoredNetwork:
    """Return what a training run left: network with its weights, encoder, loss, data, and where it comes from.

    Args:
        run: run directory of `hxtrain`, or its `checkpoint.pt`; or a file of `save` or a NIR graph, which have no data.
        data_folder: folder of the original data files; None: the data of the package.
        modules: modules with components of your own that the run names (`my_module:MyLoss`); they are imported.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its data set has changed.
        ValueError: `run` is not a path.
    """
    from pathlib import Path

    from .checks import text
    from .commands.evaluate import load_trained  # which needs all that trains
    from .exchange import load_network, stored_network
    from .exchange.store import KIND
    from .runs.checkpoint import load_checkpoint

    path = Path(text("run", run)).expanduser()
    if path.suffix == ".nir":
        return stored_network(path)
    file = path / "checkpoint.pt" if path.is_dir() else path
    state = load_checkpoint(file)
    if state.get("kind") == KIND:
        return load_network(file, state)
    return load_trained(str(file), data_folder, modules)
