"""Any checkpoint on any device."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Optional

from torch import Tensor

from hxtrain.ann.teachers import ANN
from hxtrain.datasets import OWN, DataConfig, DatasetError, ImageDataset
from hxtrain.datasets.encoders import ENCODERS, Encoder, LatencyEncoder
from hxtrain.execution.config import SOFTWARE, BackendConfig, ChipConfig, NetworkConfig
from hxtrain.network import Network
from hxtrain.objectives import losses
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint, read_checkpoint, require_same
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.progress import Progress
from hxtrain.runs.randomness import generator
from hxtrain.runs.saved import built, checked_state, chosen_kind, component, read_settings, required, typed
from hxtrain.runs.versions import processor, versions
from hxtrain.training.evaluation import evaluate
from hxtrain.training.loop import shorten

from .result import all_notes, device_cost, input_events
from .train import FREE_TO_CHANGE, attached, device_identity, flatten, introduce


@dataclass
class EvaluateConfig:
    """Settings of an evaluation; network, encoder, loss and data set are the checkpoint's.

    Attributes:
        checkpoint: a run's `checkpoint.pt`, or a folder: every run below it (`evaluate_all`).
        backend, chip: the device.
        own_device: use the device of the training instead of `backend` and `chip`, with all its settings (from the
            run's `config.yaml`); None: if it was one, and no setting of it names a file, code or an address.
        own_chip: use the chip of the training instead of `chip`, with all its settings (from the run's `config.yaml`).
        batch_size: samples per batch.
        test_samples: use only the first so many test samples; 0 for all.
        steps: time steps to record, at most those of the training (the answer is read earlier); 0 for as many.
        data_folder: folder of the original files, for images of a size that the package does not hold.
        weight_bits: resolution of the magnitude of integer weights (bits, the sign aside), and
        trace_bits: of membranes (bits); None as in training, 0 for the device's.
        silenced: share of the neurons of each hidden layer that are silent.
        silenced_seed: which ones these are; those of a smaller share are among them.
        match: of a folder, which runs: a shell's pattern of their paths below it, such as `*mnist16*calibrated`.
    """

    checkpoint: str = "???"
    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    own_device: Optional[bool] = False  # noqa: UP045
    own_chip: bool = False
    batch_size: int = 500
    test_samples: int = 0
    steps: int = 0
    data_folder: Optional[str] = None  # noqa: UP045 - spelt so for every OmegaConf
    weight_bits: Optional[int] = None  # noqa: UP045
    trace_bits: Optional[int] = None  # noqa: UP045
    silenced: float = 0.0
    silenced_seed: int = 0
    match: str = "*"

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("test_samples", 0), ("steps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        for name in ("weight_bits", "trace_bits"):
            bits = getattr(self, name)
            if bits is not None and bits < 0:
                raise ValueError(f"{name}={bits} must not be negative; 0 for the device's resolution")
        if not 0 <= self.silenced <= 1:
            raise ValueError(f"silenced={self.silenced} must be a share, in 0 <= x <= 1")


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
    encoder: Encoder
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
    state, sha256 = read_checkpoint(path)
    if state.get("kind") == ANN:
        raise CheckpointError(
            f"{path} is of an artificial neural network; its accuracy is in the result.json beside it"
        )
    settings: dict[str, Any] = checked_state(path, state)["settings"]
    required(path, settings, {"seed": int, "data.sha256": str})
    encoder = component(
        path, state, "encoder", chosen_kind(path, state, "encoder.kind", ENCODERS, LatencyEncoder.__name__)
    )
    loss = component(path, state, "loss", chosen_kind(path, state, "loss.kind", losses.LOSSES))
    network = component(path, state, "network", NetworkConfig)
    try:
        folder = data_folder or _own_folder(path, str(settings.get("data.name")))
        data = replace(component(path, state, "data", DataConfig), folder=folder, download=False).load()
    except DatasetError as error:
        raise CheckpointError(f"{path}: its data cannot be loaded: {error} (here: data_folder=FOLDER)") from error
    if data.sha256 != settings["data.sha256"]:
        raise CheckpointError(
            f"{path} was trained on data {settings['data.sha256'][:16]}, {data.name} here is {data.sha256[:16]}; "
            "use the same files"
        )
    inputs, classes, seed = encoder.units(data.inputs), len(data.classes), settings["seed"]
    net = built(lambda: network.build(inputs, classes, seed), state["model"], path)
    trained_on = {"backend": SOFTWARE, "chip": None, "chip_hash": None}
    return Trained(
        net,
        data,
        encoder,
        loss,
        {
            "checkpoint": str(path),
            "checkpoint_sha256": sha256,
            "trained_on": {key: settings.get(f"identity.{key}", default) for key, default in trained_on.items()},
            "trained_epochs": state["epoch"],
            "trained_settings": settings,
            "seed": settings["seed"],
            "data": data.name,
            "data_sha256": data.sha256,
        },
    )


def _own_folder(checkpoint: Path, name: str) -> str | None:
    """Return the folder of a user's own data, from the run's `config.yaml`; None for data of the package."""
    file = checkpoint.parent / "config.yaml"
    if name != OWN or not file.exists():
        return None
    folder = required(file, read_settings(file), {"data": dict})["data"].get("folder")
    return None if folder is None else str(folder)


def evaluate_checkpoint(config: EvaluateConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Evaluate a checkpoint on a device and write `evaluation.json` into `folder`.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        PlacementError: its network does not fit the device.
    """
    begin = time.perf_counter()
    told = len(progress.remarks)
    config = with_device(config)
    trained = load_trained(config.checkpoint, config.data_folder)
    net, data = trained.net, trained.data
    if config.steps > net.steps:
        raise ValueError(f"steps={config.steps} exceeds the {net.steps} steps that the network was trained with")
    net.steps = config.steps or net.steps
    net.weight_bits = net.weight_bits if config.weight_bits is None else config.weight_bits or None
    net.trace_bits = net.trace_bits if config.trace_bits is None else config.trace_bits or None
    masks = silenced(net, config.silenced, config.silenced_seed)
    test = shorten(data.test, config.test_samples, "test_samples")
    with tuned(1), attached(config.backend, config.chip, net) as device:
        identity = device_identity(device)
        introduce(progress, net, data, identity)
        clipped = clipped_shares(net)
        warn_clipped(clipped, progress)
        found = evaluate(net, trained.encoder, trained.loss, test, len(data.classes), config.batch_size, masks)
    outcome = {
        "test_accuracy": found.accuracy,
        "hidden_spikes_per_sample": found.hidden_spikes_per_sample,
        **identity,
        **trained.origin,
        "noise_seed": config.chip.seed,
        "steps": net.steps,
        "readout_seconds": (net.steps - 1) * net.dt,
        "seconds": time.perf_counter() - begin,
        "weight_bits": net.weight_bits,
        "trace_bits": net.trace_bits,
        "silenced": config.silenced,
        "silenced_seed": config.silenced_seed,
        "silenced_neurons": silent_neurons(net, masks),
        "trial_time": config.backend.trial_time,
        "forced_reset": config.backend.forced_reset,
        "command": command,
        "clipped_weights": clipped,
        **input_events(found),
        **device_cost(found, len(test)),
        "dropped_spikes": found.health.dropped_spikes,
        "retries": found.health.retries,
        "notes": all_notes(found.health.notes, progress.remarks[told:]),
        "settings": flatten(asdict(config)),
        "test_samples": len(test),
        "evaluated_on": data.evaluated_on,
        "confusion": found.confusion.tolist(),
        "versions": versions(),
        "processor": processor(),
    }
    write_json(folder / "evaluation.json", outcome)
    return outcome


def with_device(config: EvaluateConfig) -> EvaluateConfig:
    """Return the settings with the device or the chip of the training, if they ask for it.

    Raises:
        CheckpointError: the run's `config.yaml` is missing or of other settings, there were several chips, or the
            device has settings that name files, code or addresses, which only `own_device=true` takes.
    """
    path = Path(config.checkpoint).expanduser()
    file = path.parent / "config.yaml"
    if config.own_device is None:
        config = replace(config, own_device=file.exists() and _names_device(file))
    if not (config.own_device or config.own_chip):
        return config
    option = "own_device" if config.own_device else "own_chip"
    if not file.exists():
        raise CheckpointError(f"{option}=true needs {file}, which is missing; name the device instead")
    run = required(file, read_settings(file), {"backend": dict, "chip": dict, "parallel": dict})
    if run["parallel"].get("chips"):
        raise CheckpointError(
            f"{option}=true: {path} was trained on several chips, {run['parallel']['chips']}; name one"
        )
    groups = ["backend", "chip"] if config.own_device else ["chip"]
    settings = checked_state(path, load_checkpoint(path))["settings"]
    saved = {key: value for key, value in settings.items() if key.split(".")[0] in groups}
    given = flatten({group: run[group] for group in groups})
    require_same(path, saved, {key: value for key, value in given.items() if key in saved or key not in FREE_TO_CHANGE})
    backend = typed(file, "backend", BackendConfig, run["backend"]) if config.own_device else config.backend
    return replace(config, backend=backend, chip=typed(file, "chip", ChipConfig, run["chip"]))


def _names_device(file: Path) -> bool:
    """Return whether a run's `config.yaml` names one device that an evaluation takes unasked.

    Raises:
        CheckpointError: it is damaged, or its settings name files, code or addresses.
    """
    run = required(file, read_settings(file), {"backend": dict, "parallel": dict})
    backend = typed(file, "backend", BackendConfig, run["backend"])
    if backend.name == SOFTWARE or run["parallel"].get("chips") or run["parallel"].get("addresses"):
        return False
    told = {
        key: value for key, value in backend.settings.items() if isinstance(value, str) and set(value) & set("/\\:")
    }
    if told:
        listed = ", ".join(f"{key}={value}" for key, value in told.items())
        raise CheckpointError(
            f"the run was on backend={backend.name} with {listed}; use them with own_device=true if you trust "
            f"{file}, or name a device, such as backend=emulator"
        )
    return True


def silenced(net: Network, share: float, seed: int) -> list[Tensor | None] | None:
    """Return masks of kept neurons `[N]` of each layer, a share of each hidden layer silent; None without any."""
    return net.silenced_masks(share, generator(seed, "silenced")) if share > 0 else None


def silent_neurons(net: Network, masks: list[Tensor | None] | None) -> dict[str, int]:
    """Return how many neurons of each hidden layer masks silence."""
    given = [None] * len(net.layers) if masks is None else masks
    return {
        layer.name: 0 if mask is None else int((mask == 0).sum())
        for layer, mask in zip(net.layers, given, strict=True)
        if layer.neurons.spiking
    }


def clipped_shares(net: Network) -> dict[str, float]:
    """Return per projection with a fixed scale the share of weights beyond the device's range; empty in software."""
    if net.device is None or net.device.plan is None:
        return {}
    limits = zip(net.projections, net.weight_limits(), strict=True)
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
