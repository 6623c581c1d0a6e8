"""Pruning of a trained network, for `hxtrain prune`: masks are found and set, with the accuracy before and after."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from hxtrain.execution import device_of
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.execution.plan import circuits
from hxtrain.masks import MagnitudeMask, MaskMethod, NoMask, prune
from hxtrain.network import Network
from hxtrain.runs.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.progress import Progress
from hxtrain.runs.saved import read_settings
from hxtrain.runs.versions import processor, versions
from hxtrain.training.evaluation import evaluate
from hxtrain.training.loop import CHECKPOINT, shorten

from .construction import attached, introduce
from .evaluate import EvaluateConfig, counted_part, load_trained, part_of, with_device
from .identity import device_identity, flatten
from .masking import densities

PRUNING = "pruning.json"
"""File of the accuracies before and after."""


@dataclass
class PruneConfig:
    """Settings of a pruning; the checkpoint determines network, encoder, loss and data set.

    Attributes:
        checkpoint: `checkpoint.pt` of a run.
        seed: Seed of the method's random numbers.
        backend: Kind of the device.
        chip: Chip of the device.
        own_device: Whether to use the device of the training instead of `backend` and `chip`, see `hxtrain evaluate`.
        mask: Method that finds the masks.
        batch_size: Samples per batch of the evaluations.
        test_samples: Number of evaluated samples, from the start; 0 for all.
        data_folder: Folder of the original files; None: that of the run's `config.yaml`.
        modules: Modules with components of your own that the checkpoint names; they are imported.
    """

    checkpoint: str = "???"
    seed: int = 0
    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    own_device: Optional[bool] = False  # noqa: UP045
    mask: MaskMethod = field(default_factory=lambda: MagnitudeMask(density=0.1))
    batch_size: int = 500
    test_samples: int = 0
    data_folder: Optional[str] = None  # noqa: UP045
    modules: List[str] = field(default_factory=list)  # noqa: UP006

    def __post_init__(self) -> None:
        for name, minimum in (("batch_size", 1), ("test_samples", 0)):
            if getattr(self, name) < minimum:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {minimum}")
        if isinstance(self.mask, NoMask):
            raise ValueError("mask=none removes nothing; choose a method, such as mask=magnitude mask.fan_in=64")


def prune_checkpoint(config: PruneConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Find masks for a trained network, and write it with them into a folder.

    The folder gets `checkpoint.pt`, which `trainer.initial` and `hxtrain evaluate` take, the run's `config.yaml`, and
    `pruning.json`.

    Returns:
        Content of `pruning.json`.

    Raises:
        CheckpointError: The checkpoint cannot be read, or the folder not be written.
        PlacementError: The network does not fit the device.
        ValueError: The method cannot mask this network, or cannot read these samples.
    """
    start = time.perf_counter()
    if (folder / CHECKPOINT).exists():
        raise CheckpointError(f"{folder} holds a {CHECKPOINT} already; name another folder (hydra.run.dir)")
    chosen = with_device(EvaluateConfig(config.checkpoint, config.backend, config.chip, config.own_device))
    trained = load_trained(config.checkpoint, config.data_folder, config.modules)
    net = trained.net
    data = trained.data
    if trained.tasks.total > 1:
        raise ValueError(
            f"checkpoint={config.checkpoint} is of a sequence of tasks, and masks are found on the data of one; give a "
            "run of a single task"
        )
    part = counted_part(data, trained.origin["trained_settings"])
    samples = part_of(data, part)
    test = data.source(shorten(samples, config.test_samples, "test_samples"), trained.encoder)
    with tuned(1), attached(chosen.backend, chosen.chip, net) as device:
        identity = device_identity(device)
        dense = evaluate(net, test, trained.loss, config.batch_size).accuracy
        circuits_of_dense = used_circuits(net)
        train = data.source(data.train, trained.encoder, None, net.torch_device)
        prune(net, config.mask, train, trained.loss, config.seed, trained=True)
        introduce(progress, net, data, identity)
        accuracy = evaluate(net, test, trained.loss, config.batch_size).accuracy
        outcome = {
            "test_accuracy": accuracy,
            "dense_accuracy": dense,
            "evaluated_on": part,
            "test_samples": len(test),
            "densities": densities(net),
            "circuits": used_circuits(net),
            "circuits_of_dense": circuits_of_dense,
            **identity,
            **trained.origin,
            "seconds": time.perf_counter() - start,
            "settings": flatten(asdict(replace(config, backend=chosen.backend, chip=chosen.chip))),
            "command": command,
            "versions": versions(),
            "processor": processor(),
        }
    _write(config, net, trained.loss.state_dict(), folder)
    write_json(folder / PRUNING, outcome)
    return outcome


def used_circuits(net: Network) -> int | None:
    """Return the number of neuron circuits of a placed network, over all its runs; None in software."""
    device = device_of(net)
    return None if device is None or device.plan is None else circuits(device.plan.circuit)


def _write(config: PruneConfig, net: Network, loss_state: dict[str, Any], folder: Path) -> None:
    """Write the checkpoint with the weights and masks of a network, and the settings of its run."""
    file = Path(config.checkpoint).expanduser()
    state = read_checkpoint(file).state
    model = {name: value.detach().cpu() for name, value in net.state_dict().items()}
    save_checkpoint(folder / CHECKPOINT, {**state, "model": model, "loss": loss_state, "selection": None})
    settings = file.parent / "config.yaml"
    if settings.exists():
        read_settings(settings)  # a damaged file is refused here
        shutil.copyfile(settings, folder / "config.yaml")
