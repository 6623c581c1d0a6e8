"""A whole training run from settings to `result.json`, for the command line and for library users."""

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
from hxtrain.backends import Registry, free_settings
from hxtrain.checks import check_types, mapping, require_kind, text
from hxtrain.datasets import DataConfig, Dataset
from hxtrain.datasets.augment import Augmentation, ImageAugmentation
from hxtrain.datasets.encoders import ENCODERS, Encoder, LatencyEncoder
from hxtrain.datasets.sequences import SEQUENCES, SingleTask, TaskSequence
from hxtrain.execution import Device, device_of
from hxtrain.execution.config import SOFTWARE, BackendConfig, ChipConfig
from hxtrain.execution.plan import PLAN_COLUMNS
from hxtrain.gradients import GRADIENTS, Gradient, SurrogateGradient
from hxtrain.masks import MASKS, MaskMethod, NoMask
from hxtrain.network import NETWORKS, Architecture, Network, NetworkConfig
from hxtrain.objectives import LOSSES, PENALTIES, Loss, MaxOverTime, Regularizer
from hxtrain.objectives.distillation import Distillation
from hxtrain.objectives.losses import check_output
from hxtrain.objectives.regularizers import default_penalties, listed
from hxtrain.rules import (
    CONSTRAINTS,
    OPTIMIZERS,
    RULES,
    Backprop,
    Clamp,
    Constraint,
    LearningRule,
    Optimizer,
    default_optimizer,
)
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
from hxtrain.training.config import FREE_TO_CHANGE as FREE_LOOP_SETTINGS
from hxtrain.training.config import CourseConfig, TrainerConfig
from hxtrain.training.loop import CHECKPOINT
from hxtrain.training.parallel import ParallelConfig, Team, team
from hxtrain.training.retraining import train
from hxtrain.training.selection import chosen_weights
from hxtrain.training.sequence import SequenceTrainer, output_count, task_loss, trainer_of
from hxtrain.training.task import Task
from hxtrain.view.config import ViewConfig

from .live import live_view
from .masking import mask_before_placement, mask_on_device, regularizers
from .result import draw_plots, optional_plots, result, save_weights


@dataclass
class RunConfig:
    """All settings of a run.

    Attributes:
        seed: Seed of initial weights, data order, dropout, augmentation and jitter.
        live: Whether to serve a page that shows the training while it runs, see `view`.
        optimizer: Optimiser of the weights; by default that of the rule.
    """

    seed: int = 0
    live: bool = False
    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    network: Architecture = field(default_factory=NetworkConfig)
    encoder: Encoder = field(default_factory=LatencyEncoder)
    loss: Loss = field(default_factory=MaxOverTime)
    regularizer: Dict[str, Regularizer] = field(default_factory=default_penalties)  # noqa: UP006
    gradient: Gradient = field(default_factory=SurrogateGradient)
    rule: LearningRule = field(default_factory=Backprop)
    optimizer: Optimizer = MISSING
    constraint: Dict[str, Constraint] = field(default_factory=lambda: {"clamp": Clamp()})  # noqa: UP006
    mask: MaskMethod = field(default_factory=NoMask)
    data: DataConfig = field(default_factory=DataConfig)
    tasks: TaskSequence = field(default_factory=SingleTask)
    augment: Augmentation = field(default_factory=ImageAugmentation)
    distillation: Distillation = field(default_factory=Distillation)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    view: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        check_types(self, "")
        if self.optimizer == MISSING and self.rule != MISSING:
            self.optimizer = default_optimizer(self.rule)
        for name, kind in PARTS.items():
            if getattr(self, name) != MISSING:  # a schema, in which groups are yet to be chosen
                require_kind(getattr(self, name), kind, name, f"give RunConfig({name}={kind.__name__}(...))")
        if self.regularizer != MISSING:
            listed(mapping("regularizer", self.regularizer))


PARTS: Mapping[str, type] = {
    "backend": BackendConfig,
    "chip": ChipConfig,
    "network": Architecture,
    "encoder": Encoder,
    "loss": Loss,
    "gradient": Gradient,
    "rule": LearningRule,
    "optimizer": Optimizer,
    "mask": MaskMethod,
    "data": DataConfig,
    "tasks": TaskSequence,
    "augment": Augmentation,
    "distillation": Distillation,
    "trainer": TrainerConfig,
    "parallel": ParallelConfig,
    "view": ViewConfig,
}
"""Type of each part of the settings of a run."""
REGISTRIES: Mapping[str, Registry[Any]] = {
    "network": NETWORKS,
    "encoder": ENCODERS,
    "loss": LOSSES,
    "regularizer": PENALTIES,
    "gradient": GRADIENTS,
    "rule": RULES,
    "optimizer": OPTIMIZERS,
    "constraint": CONSTRAINTS,
    "mask": MASKS,
    "tasks": SEQUENCES,
}
"""Registry of each part of which there are several kinds."""

FREE_TO_CHANGE = {
    *(f"trainer.{name}" for name in FREE_LOOP_SETTINGS),
    "data.folder",  # the content hash stands for the files
    "data.settings.memory",
    "data.download",
    "backend.retries",
    "backend.max_runs",
    "backend.run_timeout",
    "backend.record",
    "parallel.chips",
    "parallel.addresses",
    "live",
    "view.host",
    "view.port",
    "view.token",
    "view.serve",
}
"""Settings that may differ in a resumed run, since they do not change a step (with a cosine, the epochs do)."""


def free_to_change(backend: str) -> set[str]:
    """Return `FREE_TO_CHANGE` with the settings of a backend that change no recording; its identity is still checked.

    An entry of the identity with the name of such a setting, as the address of a chip server, is free as well.
    """
    groups = ("backend.settings", "identity")
    return FREE_TO_CHANGE | {f"{group}.{name}" for group in groups for name in free_settings(backend)}


def build_network(config: RunConfig, data: Dataset) -> Network:
    """Return the network for a data set.

    Raises:
        ValueError: The encoder, or the distortion, does not take samples of this kind; or the loss or a penalty reads
            another kind of output than the network has.
    """
    source = data.source(data.train, config.encoder, config.augment)
    outputs = output_count(config.loss, config.tasks, data)
    net = config.network.build(source.units, outputs, config.seed)
    net.gradient = config.gradient if config.rule.gradient_kind is None else config.rule.gradient_kind()
    check_output(net, config.loss, *config.regularizer.values())
    return net


@contextlib.contextmanager
def opened(backend: BackendConfig, chip: ChipConfig) -> Iterator[Device | None]:
    """Open a device; None in software."""
    device_backend = backend.create(chip)
    if device_backend is None:
        yield None
        return
    with Device(
        device_backend,
        backend.retries,
        trial_time=backend.trial_time,
        forced_reset=backend.forced_reset,
        max_runs=backend.max_runs,
        run_timeout=backend.run_timeout,
    ) as device:
        yield device


@contextlib.contextmanager
def attached(backend: BackendConfig, chip: ChipConfig, net: Network) -> Iterator[Device | None]:
    """Open a device and attach the network to it; None in software.

    Raises:
        PlacementError: The network does not fit the device.
        ValueError: An option of the network needs a device.
    """
    with opened(backend, chip) as device:
        if device is None:
            net.check_software()
        else:
            net.attach(device)
        yield device


def run(config: RunConfig, folder: str | Path, command: str = "", progress: Progress | None = None) -> dict[str, Any]:
    """Train and evaluate a network, and write everything into the run directory.

    Args:
        config: All settings.
        folder: Run directory; `config.yaml`, `checkpoint.pt`, `metrics.jsonl`, `weights.npz`, `result.json`, `plots/`.
        command: Command that starts the run, for the record.
        progress: Receiver of all reports.

    Returns:
        Content of `result.json`.

    Raises:
        CheckpointError: The directory cannot be written, holds another run, or has no run to resume.
        TrainingInterrupt: SIGINT arrives; the state is saved.
        TypeError: An argument is of the wrong type.
        ValueError: A setting is out of range.
    """
    require_kind(config, RunConfig, "config", "run(RunConfig(...), folder)")
    folder = Path(text("folder", folder)).expanduser()
    progress = progress or Progress(config.trainer.progress)
    with team(progress.say) as members:
        folder = Path(members.gather(str(folder))[0])
        if not members.leads:
            return _run(config, folder, command, Progress(False, Console(file=io.StringIO())), members)
        with run_folder(folder, config.trainer.resume):
            return _run(config, folder, command, progress, members)


@contextlib.contextmanager
def run_folder(folder: Path, resume: bool) -> Iterator[None]:
    """Make the directory of a run, and hold its lock.

    Raises:
        CheckpointError: The directory cannot be written, holds another run, or has no run to resume.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"the run directory {folder} cannot be made ({error.strerror}); name another one (hydra.run.dir)"
        ) from error
    with locked(folder):
        _check_folder(resume, folder)
        yield


def complete(
    config: RunConfig, folder: str | Path, command: str = "", progress: Progress | None = None
) -> dict[str, Any]:
    """Start or continue a run, or return its result if it is finished. The arguments are those of `run`.

    Raises:
        CheckpointError: The directory holds a run with other settings.
    """
    folder = Path(folder)
    outcome = finished(folder, config.tasks.phases * config.trainer.epochs, _settings(config))
    if outcome is not None:
        (progress or Progress(config.trainer.progress)).say(
            f"{folder.name}: finished before, {outcome['test_accuracy']:.2%}"
        )
        return outcome
    trainer = replace(config.trainer, resume=(folder / CHECKPOINT).exists())
    return run(replace(config, trainer=trainer), folder, command, progress)


def finished(folder: Path, epochs: int, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result of a run that has trained all epochs; None for an unfinished run.

    Raises:
        CheckpointError: The run has other settings.
    """
    file = folder / "result.json"
    if not file.exists():
        return None
    outcome = read_result(file, {"epochs": int, "settings": dict, "test_accuracy": float})
    if outcome["epochs"] != epochs:
        return None
    runtime_prefixes = ("identity.", "data.sha256")  # known only after a start; not comparable with settings
    saved = {key: value for key, value in outcome["settings"].items() if not key.startswith(runtime_prefixes)}
    require_same(file, saved, settings)
    return outcome


def _with_devices(config: RunConfig, members: Team) -> RunConfig:
    """Return the settings, with chip and address of this process."""
    chip = members.entry(config.parallel.chips, "chips")
    address = members.entry(config.parallel.addresses, "addresses")
    if chip is not None:
        config = replace(config, chip=replace(config.chip, name=chip))
    if config.backend.record is not None and members.size > 1:
        raise ValueError(
            f"backend.record={config.backend.record}: {members.size} processes cannot share an archive; record a run "
            "in a single process, without torchrun"
        )
    if address is not None:
        settings = {**config.backend.settings, "address": address}
        config = replace(config, backend=replace(config.backend, settings=settings))
    return config


def _run(config: RunConfig, folder: Path, command: str, progress: Progress, members: Team) -> dict[str, Any]:
    start = time.perf_counter()
    devices = _with_devices(config, members)
    n_previous_remarks = len(progress.remarks)
    data = config.data.load()
    accelerator = torch_device(config.trainer.torch_device)
    teacher = load_teacher(config.distillation, data, config.data, accelerator)
    net = build_network(config, data).to(accelerator)
    if config.trainer.initial is not None:
        load_weights(net, Path(config.trainer.initial).expanduser())
    first = config.tasks.dataset(data, 0)
    is_masked = mask_before_placement(config, net, first, folder)
    with tuned(config.trainer.threads), attached(devices.backend, devices.chip, net) as device:
        if not is_masked:
            mask_on_device(config, net, first, members)
        identity = _joined(members.gather(device_identity(device)))
        task = Task(
            net,
            config.encoder,
            task_loss(config.loss, config.tasks),
            regularizers(config, first),
            first,
            config.augment,
            teacher,
            rule=config.rule,
            optimizer=config.optimizer,
            constraints=config.constraint,
        )
        settings = identified_settings(config, identity, data)
        trainer = trainer_of(task, config.tasks, data, config.trainer, config.seed, folder, settings, progress, members)
        trainer.prepare()  # precedes all reports, since they are logged in the run directory
        if members.leads:
            write_config(folder, config)
        introduce(progress, net, data, identity)
        introduce_teacher(progress, config.distillation, teacher)
        with live_view(config.live, config.view, trainer, folder, progress):
            final = train(trainer)
        if isinstance(trainer, SequenceTrainer):
            progress.table("test accuracy (%)", *trainer.matrix.table())
        remarks = progress.remarks[n_previous_remarks:]
        outcome = result(trainer, final, identity, command, time.perf_counter() - start, remarks)
        if members.leads:
            save_weights(folder / "weights.npz", net)
            write_json(folder / "result.json", outcome)
        if members.leads and config.trainer.plots:
            with optional_plots(progress):
                draw_plots(folder / "plots", trainer, final)
    return outcome


def write_config(folder: Path, config: Any) -> None:
    """Write the settings of a run (a dataclass) into its directory."""
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(asdict(config))))


def torch_device(name: str) -> torch.device:
    """Return an available torch device.

    Raises:
        ValueError: The name is unknown, or the device is not available.
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
    """Return the properties of all devices; properties that differ are joined with `|`."""
    return {
        key: identities[0][key]
        if len({identity.get(key) for identity in identities}) == 1
        else "|".join(str(identity.get(key)) for identity in identities)
        for key in identities[0]
    }


def load_weights(net: Network, checkpoint: str | Path) -> None:
    """Load the weights of a checkpoint that count, or of a state_dict of another program, into a network.

    Raises:
        CheckpointError: The checkpoint cannot be read, or belongs to another network.
    """
    file = Path(checkpoint)
    content, _ = read_saved(file)
    if is_state_dict(content):
        take_weights(net, _by_order(net, content, file), file)
    else:
        take_weights(net, chosen_weights({"model": None, **read_checkpoint(file).state}, file).model, file)


def _by_order(net: Network, weights: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Return the weights of another program's state_dict under the names of the network, matched by their order.

    Raises:
        CheckpointError: Number or shapes of the weights differ.
    """
    expected = net.state_dict()
    if weights.keys() >= expected.keys():
        return weights
    shapes = [tuple(weight.shape) for weight in weights.values()]
    expected_shapes = [tuple(weight.shape) for weight in expected.values()]
    if shapes != expected_shapes:
        named_shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        raise CheckpointError(
            f"{file} is a state_dict with weights {named_shapes}; the network takes matrices [post, pre] of the shapes "
            f"{expected_shapes}, in this order, and no biases: use the same sizes in network.hidden, and remove all "
            "else from it"
        )
    return dict(zip(expected, weights.values(), strict=True))


def device_identity(device: Device | None) -> dict[str, str]:
    """Return the identity of the device that runs the network."""
    if device is None:
        return {"backend": SOFTWARE, "chip": "none", "chip_hash": "none"}
    return dict(device.backend.identity)


def introduce(progress: Progress, net: Network, data: Dataset, identity: dict[str, str]) -> None:
    """Report the network, its data and its device, and print the plan."""
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


def _check_folder(resume: bool, folder: Path) -> None:
    """Raise an error for a directory that holds another run, or no run to continue.

    Raises:
        CheckpointError: `resume` (trainer.resume) contradicts the content of the directory.
    """
    has_checkpoint = (folder / CHECKPOINT).exists()
    if has_checkpoint and not resume:
        raise CheckpointError(
            f"{folder} holds a run already; continue it with trainer.resume=true, or name another hydra.run.dir"
        )
    if resume and not has_checkpoint:
        previous = previous_of(folder / CHECKPOINT)
        remedy = f"move {previous} there" if previous.exists() else "name the run's directory with hydra.run.dir"
        raise CheckpointError(f"trainer.resume=true, but {folder} holds no {CHECKPOINT}; {remedy}")


def identified_settings(config: RunConfig, identity: dict[str, str], data: Dataset) -> dict[str, Any]:
    """Return the flat plain values that identify a run; a resumed run must have the same."""
    free = free_to_change(config.backend.name)
    device_values = {f"identity.{key}": value for key, value in identity.items() if f"identity.{key}" not in free}
    return {**_settings(config), **device_values, "data.sha256": data.sha256}


def _settings(config: RunConfig) -> dict[str, Any]:
    """Return all settings that change a step, flat; a teacher is identified by its content."""
    settings = step_settings(config, config.trainer)
    flat = {key: value for key, value in settings.items() if not key.startswith("distillation.")}
    flat |= teacher_settings(config.distillation)
    return {**flat, **component_names(config)}


def component_names(config: RunConfig) -> dict[str, Any]:
    """Return the registered name of each component of a run, such as `loss.kind`; several are `regularizer.kinds`."""
    names: dict[str, Any] = {}
    for group, registry in REGISTRIES.items():
        value = getattr(config, group)
        if isinstance(value, dict):
            names[f"{group}.kinds"] = [registry.name_of(type(part)) for part in value.values()]
        else:
            names[f"{group}.kind"] = registry.name_of(type(value))
    return names


def step_settings(config: Any, trainer: CourseConfig) -> dict[str, Any]:
    """Return the settings of a config (a dataclass) that are not free to change, flat."""
    settings = flatten(asdict(config))
    free = free_to_change(settings.get("backend.name", ""))
    is_sequence = getattr(config, "tasks", SingleTask()) != SingleTask()
    free -= {"trainer.epochs"} if trainer.schedule == "cosine" or is_sequence else set()
    return {key: value for key, value in settings.items() if key not in free}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as `group.name` keys with plain values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
