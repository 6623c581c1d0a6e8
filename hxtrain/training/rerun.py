"""Any checkpoint on any device."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hxtrain import losses
from hxtrain.config import SOFTWARE, BackendConfig, ChipConfig, NetworkConfig
from hxtrain.datasets import DataConfig
from hxtrain.encoders import LatencyEncoder
from hxtrain.network import Network

from .checkpoint import CheckpointError, load_checkpoint
from .evaluation import evaluate
from .metrics import write_json
from .process import tuned
from .progress import Progress
from .report import device_cost
from .run import attached, device_identity, introduce
from .trainer import shorten
from .versions import versions

Component = TypeVar("Component")


@dataclass
class EvaluateConfig:
    """Settings of an evaluation; network, encoder, loss and data set are the checkpoint's.

    Attributes:
        checkpoint: a run's `checkpoint.pt`.
        backend, chip: the device.
        batch_size: samples per batch.
        test_samples: use only the first so many test samples; 0 for all.
    """

    checkpoint: str = "???"
    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    batch_size: int = 500
    test_samples: int = 0

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("test_samples", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")


def evaluate_checkpoint(config: EvaluateConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Evaluate a checkpoint on a device and write `evaluation.json` into `folder`.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        PlacementError: its network does not fit the device.
    """
    path = Path(config.checkpoint).expanduser()
    state = load_checkpoint(path)
    missing = {"settings", "model", "epoch"} - set(state)
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}; give a checkpoint that `hxtrain` wrote")
    settings: dict[str, Any] = state["settings"]
    data = component(settings, "data", DataConfig).load()
    if data.sha256 != settings["data.sha256"]:
        raise CheckpointError(
            f"{path} was trained on data {settings['data.sha256'][:16]}, {data.name} here is {data.sha256[:16]}; "
            "use the same files"
        )
    net = component(settings, "network", NetworkConfig).build(data.size**2, len(data.classes), settings["seed"])
    net.load_state_dict(state["model"])
    encoder = component(settings, "encoder", LatencyEncoder)
    loss = component(settings, "loss", losses.LOSSES[settings["loss.kind"]])
    test = shorten(data.test, config.test_samples, "test_samples")
    with tuned(1), attached(config.backend, config.chip, net) as device:
        identity = device_identity(device)
        introduce(progress, net, data, identity)
        clipped = clipped_shares(net)
        for name, share in clipped.items():
            if share > 0:
                progress.warn(f"{name}: {share:.2%} of the weights exceed the device's range and are clipped")
        found = evaluate(net, encoder, loss, test, len(data.classes), config.batch_size)
    trained = settings.get("identity.backend", SOFTWARE)
    outcome = {
        "test_accuracy": found.accuracy,
        "hidden_spikes_per_sample": found.hidden_spikes_per_sample,
        **identity,
        "checkpoint": str(path),
        "trained_on": {
            "backend": trained,
            **{k: settings.get(f"identity.{k}") for k in ("chip", "chip_hash")},
        },
        "trained_epochs": state["epoch"],
        "seed": settings["seed"],
        "noise_seed": config.chip.seed,
        "command": command,
        "clipped_weights": clipped,
        **device_cost(found, len(test)),
        "dropped_spikes": found.health.dropped_spikes,
        "retries": found.health.retries,
        "data": data.name,
        "data_sha256": data.sha256,
        "test_samples": len(test),
        "confusion": found.confusion.tolist(),
        "versions": versions(),
    }
    write_json(folder / "evaluation.json", outcome)
    return outcome


def clipped_shares(net: Network) -> dict[str, float]:
    """Return per layer with a fixed scale the share of weights beyond the device's range; empty in software."""
    if net.device is None or net.device.plan is None:
        return {}
    limits = zip(net.layers, net.device.plan.weight_limits(), strict=True)
    return {
        layer.name: float((layer.linear.weight.detach().abs() > limit * (1 + 1e-6)).float().mean())
        for layer, limit in limits
        if limit is not None
    }


def component(settings: dict[str, Any], group: str, kind: type[Component]) -> Component:
    """Return a component from the flat settings `group.name` of a checkpoint."""
    start = f"{group}."
    names = {key[len(start) :] for key in settings if key.startswith(start)} - {"kind", "sha256"}
    return kind(**{name: settings[start + name] for name in names})
