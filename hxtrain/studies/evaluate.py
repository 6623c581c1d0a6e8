"""Any checkpoint on any device."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Optional, TypeVar

from hxtrain import losses
from hxtrain.config import SOFTWARE, BackendConfig, ChipConfig, NetworkConfig
from hxtrain.datasets import DataConfig, DatasetError, ImageDataset
from hxtrain.encoders import LatencyEncoder
from hxtrain.network import Network
from hxtrain.training.checkpoint import CheckpointError, load_checkpoint
from hxtrain.training.evaluation import evaluate
from hxtrain.training.metrics import write_json
from hxtrain.training.process import tuned
from hxtrain.training.progress import Progress
from hxtrain.training.report import device_cost
from hxtrain.training.run import attached, device_identity, introduce
from hxtrain.training.trainer import shorten
from hxtrain.training.versions import versions

Component = TypeVar("Component")


@dataclass
class EvaluateConfig:
    """Settings of an evaluation; network, encoder, loss and data set are the checkpoint's.

    Attributes:
        checkpoint: a run's `checkpoint.pt`.
        backend, chip: the device.
        batch_size: samples per batch.
        test_samples: use only the first so many test samples; 0 for all.
        steps: time steps to record, at most those of the training (the answer is read earlier); 0 for as many.
        data_folder: folder of the original files, for images of a size that the package does not hold.
    """

    checkpoint: str = "???"
    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    batch_size: int = 500
    test_samples: int = 0
    steps: int = 0
    data_folder: Optional[str] = None  # noqa: UP045 - spelt so for every OmegaConf

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("test_samples", 0), ("steps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")


class Trained(NamedTuple):
    """A checkpoint's network and what belongs to it.

    Attributes:
        net: with the checkpoint's weights, attached to nothing.
        data: the data set it was trained on.
        encoder, loss: how samples become spikes, and readouts become answers.
        origin: where it comes from, as plain values for a result: file, device, epochs, seed, data.
    """

    net: Network
    data: ImageDataset
    encoder: LatencyEncoder
    loss: losses.MaxOverTime
    origin: dict[str, Any]


def load_trained(checkpoint: str, data_folder: str | None = None) -> Trained:
    """Return the network of a checkpoint that `hxtrain` wrote, and what belongs to it.

    Args:
        checkpoint: a run's `checkpoint.pt`.
        data_folder: folder of the original files; None: the data of the package.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its data set has changed.
    """
    path = Path(checkpoint).expanduser()
    state = load_checkpoint(path)
    missing = {"settings", "model", "epoch"} - set(state)
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}; give a checkpoint that `hxtrain` wrote")
    settings: dict[str, Any] = state["settings"]
    try:
        data = replace(component(settings, "data", DataConfig), folder=data_folder).load()
    except DatasetError as error:
        raise CheckpointError(f"{path}: its data cannot be loaded: {error} (here: data_folder=FOLDER)") from error
    if data.sha256 != settings["data.sha256"]:
        raise CheckpointError(
            f"{path} was trained on data {settings['data.sha256'][:16]}, {data.name} here is {data.sha256[:16]}; "
            "use the same files"
        )
    net = component(settings, "network", NetworkConfig).build(data.size**2, len(data.classes), settings["seed"])
    net.load_state_dict(state["model"])
    trained_on = {"backend": SOFTWARE, "chip": None, "chip_hash": None}
    return Trained(
        net,
        data,
        component(settings, "encoder", LatencyEncoder),
        component(settings, "loss", losses.LOSSES[settings["loss.kind"]]),
        {
            "checkpoint": str(path),
            "trained_on": {key: settings.get(f"identity.{key}", default) for key, default in trained_on.items()},
            "trained_epochs": state["epoch"],
            "seed": settings["seed"],
            "data": data.name,
            "data_sha256": data.sha256,
        },
    )


def evaluate_checkpoint(config: EvaluateConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Evaluate a checkpoint on a device and write `evaluation.json` into `folder`.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        PlacementError: its network does not fit the device.
    """
    trained = load_trained(config.checkpoint, config.data_folder)
    net, data = trained.net, trained.data
    if config.steps > net.steps:
        raise ValueError(f"steps={config.steps} exceeds the {net.steps} steps that the network was trained with")
    net.steps = config.steps or net.steps
    test = shorten(data.test, config.test_samples, "test_samples")
    with tuned(1), attached(config.backend, config.chip, net) as device:
        identity = device_identity(device)
        introduce(progress, net, data, identity)
        clipped = clipped_shares(net)
        warn_clipped(clipped, progress)
        found = evaluate(net, trained.encoder, trained.loss, test, len(data.classes), config.batch_size)
    outcome = {
        "test_accuracy": found.accuracy,
        "hidden_spikes_per_sample": found.hidden_spikes_per_sample,
        **identity,
        **trained.origin,
        "noise_seed": config.chip.seed,
        "steps": net.steps,
        "trial_time": config.backend.trial_time,
        "forced_reset": config.backend.forced_reset,
        "command": command,
        "clipped_weights": clipped,
        **device_cost(found, len(test)),
        "dropped_spikes": found.health.dropped_spikes,
        "retries": found.health.retries,
        "notes": list(dict.fromkeys(found.health.notes)),
        "test_samples": len(test),
        "confusion": found.confusion.tolist(),
        "versions": versions(),
    }
    write_json(folder / "evaluation.json", outcome)
    return outcome


def clipped_shares(net: Network) -> dict[str, float]:
    """Return per projection with a fixed scale the share of weights beyond the device's range; empty in software."""
    if net.device is None or net.device.plan is None:
        return {}
    limits = zip(net.projections, net.device.plan.weight_limits(), strict=True)
    return {
        projection.name: float((projection.synapses.weight.detach().abs() > limit * (1 + 1e-6)).float().mean())
        for projection, limit in limits
        if limit is not None
    }


def warn_clipped(clipped: dict[str, float], progress: Progress) -> None:
    """Warn of weights that do not fit the device, see `clipped_shares`."""
    for name, share in clipped.items():
        if share > 0:
            progress.warn(f"{name}: {share:.2%} of the weights exceed the device's range and are clipped")


def component(settings: dict[str, Any], group: str, kind: type[Component]) -> Component:
    """Return a component from the flat settings `group.name` of a checkpoint."""
    start = f"{group}."
    names = {key[len(start) :] for key in settings if key.startswith(start)} - {"kind", "sha256"}
    return kind(**{name: settings[start + name] for name in names})
