"""A whole run from settings to `result.json`: what the command line calls, for library users too."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Dict  # noqa: UP035

import torch
from omegaconf import MISSING, OmegaConf
from rich.console import Console
from torch import Tensor

from hxtrain.ann.teachers import introduce_teacher, load_teacher, teacher_settings
from hxtrain.checks import check_types, mapping, require_kind, text
from hxtrain.datasets import DataConfig, ImageDataset
from hxtrain.datasets.augment import Augmentation
from hxtrain.datasets.encoders import Encoder, LatencyEncoder
from hxtrain.execution import Device, device_of
from hxtrain.execution.config import SOFTWARE, BackendConfig, ChipConfig, NetworkConfig
from hxtrain.execution.placement import PLAN_COLUMNS
from hxtrain.network import Network
from hxtrain.objectives import Burst, MaxOverTime, Regularizer, WeightDecay
from hxtrain.objectives.distillation import Distillation
from hxtrain.objectives.regularizers import listed
from hxtrain.runs.checkpoint import (
    CheckpointError,
    is_state_dict,
    previous_of,
    read_checkpoint,
    read_saved,
    require_same,
)
from hxtrain.runs.lock import locked
from hxtrain.runs.metrics import write_json, write_text
from hxtrain.runs.process import tuned
from hxtrain.runs.progress import Progress
from hxtrain.runs.saved import read_result, take_weights
from hxtrain.training.config import LoopConfig, TrainerConfig
from hxtrain.training.loop import CHECKPOINT
from hxtrain.training.parallel import ParallelConfig, Team, team
from hxtrain.training.trainer import Task, Trainer

from .result import draw_plots, optional_plots, result, save_weights


@dataclass
class RunConfig:
    """All settings of a run.

    Attributes:
        seed: of the initial weights, data order, dropout, augmentation and jitter.
    """

    seed: int = 0
    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    encoder: Encoder = field(default_factory=LatencyEncoder)
    loss: MaxOverTime = field(default_factory=MaxOverTime)
    regularizer: Dict[str, Regularizer] = field(  # noqa: UP006
        default_factory=lambda: {"burst": Burst(), "weight_decay": WeightDecay()}
    )
    data: DataConfig = field(default_factory=DataConfig)
    augment: Augmentation = field(default_factory=Augmentation)
    distillation: Distillation = field(default_factory=Distillation)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        check_types(self, "")
        for name, kind in PARTS.items():
            if getattr(self, name) != MISSING:  # in a schema, whose groups are chosen later
                require_kind(getattr(self, name), kind, name, f"give RunConfig({name}={kind.__name__}(...))")
        if self.regularizer != MISSING:
            listed(mapping("regularizer", self.regularizer))


PARTS: Mapping[str, type] = {
    "backend": BackendConfig,
    "chip": ChipConfig,
    "network": NetworkConfig,
    "encoder": Encoder,
    "loss": MaxOverTime,
    "data": DataConfig,
    "augment": Augmentation,
    "distillation": Distillation,
    "trainer": TrainerConfig,
    "parallel": ParallelConfig,
}
"""What each part of a run's settings is."""

FREE_TO_CHANGE = {
    "trainer.epochs",
    "trainer.resume",
    "trainer.progress",
    "trainer.plots",
    "trainer.checkpoint_steps",
    "data.folder",  # the content hash stands for the files
    "data.download",
    "backend.retries",
    "backend.max_runs",
    "backend.run_timeout",
    "backend.settings.address",  # of a chip behind a server; which chip it is stays checked
    "backend.settings.keys",
    "backend.settings.patience",
    "backend.settings.queue_patience",
    "backend.settings.timeout",
    "identity.address",
    "parallel.chips",
    "parallel.addresses",
}
"""Settings that may differ when a run is resumed, since they do not change a step (the epochs of a cosine do)."""


def build_network(config: RunConfig, data: ImageDataset) -> Network:
    """Return the network for a data set."""
    return config.network.build(config.encoder.units(data.inputs), len(data.classes), config.seed)


@contextlib.contextmanager
def attached(backend: BackendConfig, chip: ChipConfig, net: Network) -> Iterator[Device | None]:
    """Open a device and attach the network to it; None in software.

    Raises:
        PlacementError: the network does not fit the device.
        ValueError: an option of the network needs a device.
    """
    created = backend.create(chip)
    if created is None:
        net.check_software()
        yield None
        return
    with Device(
        created,
        backend.retries,
        trial_time=backend.trial_time,
        forced_reset=backend.forced_reset,
        max_runs=backend.max_runs,
        run_timeout=backend.run_timeout,
    ) as device:
        net.attach(device)
        yield device


def run(config: RunConfig, folder: str | Path, command: str = "", progress: Progress | None = None) -> dict[str, Any]:
    """Train, evaluate, and write everything into the run directory.

    Args:
        config: all settings.
        folder: run directory; `config.yaml`, `checkpoint.pt`, `metrics.jsonl`, `weights.npz`, `result.json`, `plots/`.
        command: how the run was started, for the record.
        progress: where to report.

    Returns:
        What `result.json` holds.

    Raises:
        CheckpointError: the directory cannot be written, holds another run, or there is nothing to resume.
        Interrupted: SIGINT arrived; the state is saved.
        TypeError, ValueError: these are no settings, or no path.
    """
    require_kind(config, RunConfig, "config", "run(RunConfig(...), folder)")
    folder = Path(text("folder", folder)).expanduser()
    progress = progress or Progress(config.trainer.progress)
    with team(progress.say) as members:
        folder = Path(members.gather(str(folder))[0])
        if not members.leads:
            return _run(config, folder, command, Progress(False, Console(file=io.StringIO())), members)
        _make(folder)
        with locked(folder):
            check_folder(config.trainer.resume, folder)
            return _run(config, folder, command, progress, members)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"the run directory {folder} cannot be made ({error.strerror}); name another one (hydra.run.dir)"
        ) from error


def complete(
    config: RunConfig, folder: str | Path, command: str = "", progress: Progress | None = None
) -> dict[str, Any]:
    """Finish a run: start it, continue it, or return its result if it is finished; arguments as those of `run`.

    Raises:
        CheckpointError: the directory holds a run with other settings.
    """
    folder = Path(folder)
    found = finished(folder, config.trainer.epochs, _settings(config))
    if found is not None:
        (progress or Progress(config.trainer.progress)).say(
            f"{folder.name}: finished before, {found['test_accuracy']:.2%}"
        )
        return found
    trainer = replace(config.trainer, resume=(folder / CHECKPOINT).exists())
    return run(replace(config, trainer=trainer), folder, command, progress)


def finished(folder: Path, epochs: int, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result of a run that has done all epochs; None if it has not.

    Raises:
        CheckpointError: it has other settings.
    """
    file = folder / "result.json"
    if not file.exists():
        return None
    found = read_result(file, {"epochs": int, "settings": dict, "test_accuracy": float})
    if found["epochs"] != epochs:
        return None
    found_out = ("identity.", "data.sha256")  # by running; the settings are what can be compared before
    saved = {key: value for key, value in found["settings"].items() if not key.startswith(found_out)}
    require_same(file, saved, settings)
    return found


def _own_devices(config: RunConfig, members: Team) -> RunConfig:
    """Return the settings with the devices of this process."""
    chip = members.own(config.parallel.chips, "chips")
    address = members.own(config.parallel.addresses, "addresses")
    if chip is not None:
        config = replace(config, chip=replace(config.chip, name=chip))
    if address is not None:
        settings = {**config.backend.settings, "address": address}
        config = replace(config, backend=replace(config.backend, settings=settings))
    return config


def _run(config: RunConfig, folder: Path, command: str, progress: Progress, members: Team) -> dict[str, Any]:
    begin, own, told = time.perf_counter(), _own_devices(config, members), len(progress.remarks)
    data = config.data.load()
    config.augment.check(data)
    where = torch_device(config.trainer.torch_device)
    teacher = load_teacher(config.distillation, data, config.data.validation, where)
    net = build_network(config, data).to(where)
    if config.trainer.initial is not None:
        load_weights(net, Path(config.trainer.initial).expanduser())
    with tuned(config.trainer.threads), attached(own.backend, own.chip, net) as device:
        identity = _joined(members.gather(device_identity(device)))
        task = Task(net, config.encoder, config.loss, config.regularizer, data, config.augment, teacher)
        settings = _identify(config, identity, data)
        trainer = Trainer(task, config.trainer, config.seed, folder, settings, progress, members)
        trainer.prepare()  # before a word is said, since words are logged in the run directory
        if members.leads:
            write_config(folder, config)
        introduce(progress, net, data, identity)
        introduce_teacher(progress, config.distillation, teacher)
        final = trainer.fit()
        outcome = result(trainer, final, identity, command, time.perf_counter() - begin, progress.remarks[told:])
        if members.leads:
            save_weights(folder / "weights.npz", net)
            write_json(folder / "result.json", outcome)
        if members.leads and config.trainer.plots:
            with optional_plots(progress):
                draw_plots(folder / "plots", trainer, final)
    return outcome


def write_config(folder: Path, config: Any) -> None:
    """Write a run's settings (a dataclass) into its directory, once nothing speaks against the run any more."""
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(asdict(config))))


def torch_device(name: str) -> torch.device:
    """Return a torch device that is there.

    Raises:
        ValueError: the name is none, or there is no such device.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        text = str(error).splitlines()[0]
        raise ValueError(
            f"trainer.torch_device={name!r} cannot be used: {text}; use cpu, or install its torch"
        ) from None
    return device


def _joined(identities: list[dict[str, str]]) -> dict[str, str]:
    """Return the devices' common properties, and the others one after the other."""
    return {
        key: identities[0][key]
        if len({each.get(key) for each in identities}) == 1
        else "|".join(str(each.get(key)) for each in identities)
        for key in identities[0]
    }


def load_weights(net: Network, checkpoint: str | Path) -> None:
    """Give a network the weights of a checkpoint, or of a state_dict that torch saved elsewhere.

    Raises:
        CheckpointError: the checkpoint cannot be read, or is of another network.
    """
    file = Path(checkpoint)
    content, _ = read_saved(file)
    if is_state_dict(content):
        take_weights(net, _by_order(net, content, file), file)
    else:
        take_weights(net, read_checkpoint(file).state.get("model"), file)


def _by_order(net: Network, weights: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Return the weights of another program's state_dict under the network's names; their order decides.

    Raises:
        CheckpointError: they are not as many, or of other shapes.
    """
    expected = net.state_dict()
    if weights.keys() == expected.keys():
        return weights
    have, want = ([tuple(weight.shape) for weight in each.values()] for each in (weights, expected))
    if have != want:
        named = {name: tuple(weight.shape) for name, weight in weights.items()}
        raise CheckpointError(
            f"{file} is a state_dict with weights {named}; the network takes matrices [post, pre] of the shapes "
            f"{want}, in this order, and no biases: use the same sizes in network.hidden, and remove all else from it"
        )
    return dict(zip(expected, weights.values(), strict=True))


def device_identity(device: Device | None) -> dict[str, str]:
    """Return which individual runs the network."""
    if device is None:
        return {"backend": SOFTWARE, "chip": "none", "chip_hash": "none"}
    return dict(device.backend.identity)


def introduce(progress: Progress, net: Network, data: ImageDataset, identity: dict[str, str]) -> None:
    """Say what runs where, and print the plan."""
    sizes = [net.layers[0].linear.inputs, *(layer.neurons.size for layer in net.layers)]
    chip = f", chip {identity['chip']} ({identity.get('preset', 'no preset')}, {identity['chip_hash']})"
    progress.say(
        f"network {'-'.join(map(str, sizes))} on {data.title}, "
        f"backend {identity['backend']}{chip if identity['backend'] != SOFTWARE else ''}"
    )
    device = device_of(net)
    if device is not None and device.plan is not None:
        progress.table("placement", PLAN_COLUMNS, device.plan.rows())
        for text in device.warnings:
            progress.note(text)


def check_folder(resume: bool, folder: Path) -> None:
    """Refuse a directory that holds another run, or none to continue.

    Raises:
        CheckpointError: `resume` (trainer.resume) does not go with what is there.
    """
    there = (folder / CHECKPOINT).exists()
    if there and not resume:
        raise CheckpointError(
            f"{folder} holds a run already; continue it with trainer.resume=true, or name another hydra.run.dir"
        )
    if resume and not there:
        previous = previous_of(folder / CHECKPOINT)
        remedy = f"move {previous} there" if previous.exists() else "name the run's directory with hydra.run.dir"
        raise CheckpointError(f"trainer.resume=true, but {folder} holds no {CHECKPOINT}; {remedy}")


def _identify(config: RunConfig, identity: dict[str, str], data: ImageDataset) -> dict[str, Any]:
    """Return flat plain values that a resumed run must share."""
    individual = {
        f"identity.{key}": value for key, value in identity.items() if f"identity.{key}" not in FREE_TO_CHANGE
    }
    return {**_settings(config), **individual, "data.sha256": data.sha256}


def _settings(config: RunConfig) -> dict[str, Any]:
    """Return all settings, flat, that change a step; of a teacher its content."""
    found = step_settings(config, config.trainer)
    flat = {key: value for key, value in found.items() if not key.startswith("distillation.")}
    flat |= teacher_settings(config.distillation)
    kinds = [type(regularizer).__name__ for regularizer in config.regularizer.values()]
    found_kinds = {"encoder.kind": type(config.encoder).__name__, "loss.kind": type(config.loss).__name__}
    return {**flat, **found_kinds, "regularizer.kinds": kinds}


def step_settings(config: Any, trainer: LoopConfig) -> dict[str, Any]:
    """Return those settings of a config (a dataclass), flat, that are not free to change."""
    free = FREE_TO_CHANGE - ({"trainer.epochs"} if trainer.schedule == "cosine" else set())
    return {key: value for key, value in flatten(asdict(config)).items() if key not in free}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as `group.name` keys with plain values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
