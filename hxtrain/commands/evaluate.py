"""Evaluation of any checkpoint on any device."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, List, NamedTuple, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from torch import Tensor

from hxtrain.ann.teachers import ANN
from hxtrain.backends import BACKENDS, Registry
from hxtrain.datasets import DATASETS, OWN, DataConfig, Dataset, DatasetError, Samples
from hxtrain.datasets.encoders import ENCODERS, Encoder
from hxtrain.datasets.sequences import SEQUENCES, TaskSequence
from hxtrain.execution.config import SOFTWARE, BackendConfig, ChipConfig
from hxtrain.network import NETWORKS, Network
from hxtrain.neurons import SURROGATES
from hxtrain.objectives import LOSSES, Loss
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint, read_checkpoint, require_same
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.progress import Progress
from hxtrain.runs.randomness import generator
from hxtrain.runs.saved import (
    checked_state,
    chosen_kind,
    component,
    module_with_weights,
    read_settings,
    required,
    typed_component,
)
from hxtrain.runs.versions import processor, versions
from hxtrain.training.config import BEST
from hxtrain.training.evaluation import evaluate_tasks
from hxtrain.training.forgetting import TASK_ACCURACIES
from hxtrain.training.loop import shorten
from hxtrain.training.selection import chosen_weights
from hxtrain.training.sequence import output_count, task_loss

from .construction import attached, introduce
from .identity import device_identity, flatten, free_to_change
from .pass_plots import draw_pass
from .recorded_chip import at_recorded_chip
from .result import all_notes, device_cost, input_events, optional_plots

PARTS = ("test", "validation", "train")
"""Parts of a data set that can be evaluated."""


@dataclass
class EvaluateConfig:
    """Settings of an evaluation; the checkpoint determines network, encoder, loss and data set.

    Attributes:
        checkpoint: `checkpoint.pt` of a run, or a folder, for every run below it (`evaluate_all`).
        backend: Kind of the device.
        chip: Chip of the device.
        own_device: Whether to use the device of the training instead of `backend` and `chip`, with all its settings
            (from the run's `config.yaml`). None uses it if the training ran on a device, and refuses settings that
            name a file, code or an address.
        own_chip: Whether to use the chip of the training instead of `chip`, with all its settings (from the run's
            `config.yaml`).
        batch_size: Samples per batch.
        part: Part of the data, `test`, `validation` or `train`; None: that of the accuracy in the run's `result.json`.
        test_samples: Number of samples of it in use, from the start; 0 for all.
        steps: Time steps to record, at most as many as in the training; fewer steps give an earlier answer, 0 records
            all.
        data_folder: Folder of the original files; None: that of the run's `config.yaml`.
        weight_bits: Magnitude bits of integer weights, without the sign; None as in training, 0 as on the device.
        trace_bits: Bits of membranes; None as in training, 0 as on the device.
        silenced: Share of silent neurons in each hidden layer.
        silenced_seed: Seed that draws the silent neurons; a larger share includes the neurons of a smaller one.
        match: Shell pattern of the paths of the runs below a folder, such as `*mnist16*calibrated`.
        modules: Modules with components of your own that the checkpoint names, such as `my_module` of `loss.kind`
            `my_module:MyLoss`; they are imported.
        plots: Whether to draw spikes, membranes, rates of neurons, and the chip, of one more pass of 200 samples.
    """

    checkpoint: str = "???"
    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    own_device: Optional[bool] = False  # noqa: UP045
    own_chip: bool = False
    batch_size: int = 500
    part: Optional[str] = None  # noqa: UP045
    test_samples: int = 0
    steps: int = 0
    data_folder: Optional[str] = None  # noqa: UP045 - spelt so for every OmegaConf
    weight_bits: Optional[int] = None  # noqa: UP045
    trace_bits: Optional[int] = None  # noqa: UP045
    silenced: float = 0.0
    silenced_seed: int = 0
    match: str = "*"
    modules: List[str] = field(default_factory=list)  # noqa: UP006
    plots: bool = False

    def __post_init__(self) -> None:
        for name, minimum in (("batch_size", 1), ("test_samples", 0), ("steps", 0)):
            if getattr(self, name) < minimum:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {minimum}")
        for name in ("weight_bits", "trace_bits"):
            bits = getattr(self, name)
            if bits is not None and bits < 0:
                raise ValueError(f"{name}={bits} must not be negative; 0 for the device's resolution")
        if self.part not in (None, *PARTS):
            raise ValueError(f"part={self.part!r} is not known; choose one of {', '.join(PARTS)}")
        if not 0 <= self.silenced <= 1:
            raise ValueError(f"silenced={self.silenced} must be a share, in 0 <= x <= 1")


class TrainedNetwork(NamedTuple):
    """Network of a checkpoint, with the components of its training.

    Attributes:
        net: Network with the weights of the checkpoint, in software.
        data: Data set of the training; of a sequence of tasks, that of the first task.
        encoder: Code from samples to input events.
        loss: Loss function that turns readouts into answers.
        origin: Origin as plain values for a result: file, device, epochs of these weights, seed, data.
        tasks: Sequence of tasks of the training.
        whole: Data set of which the tasks are made.
    """

    net: Network
    data: Dataset
    encoder: Encoder
    loss: Loss
    origin: dict[str, Any]
    tasks: TaskSequence
    whole: Dataset


def load_trained(checkpoint: str, data_folder: str | None = None, modules: Collection[str] = ()) -> TrainedNetwork:
    """Return the network of a checkpoint of `hxtrain`, with the components of its training.

    Args:
        checkpoint: `checkpoint.pt` of a run.
        data_folder: Folder of the original files; None: that of the run's `config.yaml`, or the data of the package.
        modules: Modules with components of your own that the checkpoint may name; they are imported.

    Raises:
        CheckpointError: The checkpoint cannot be read, or its data set has changed.
    """
    path = Path(checkpoint).expanduser()
    state, sha256 = read_checkpoint(path)
    if state.get("kind") == ANN:
        raise CheckpointError(
            f"{path} is of an artificial neural network; its accuracy is in the result.json beside it"
        )
    settings: dict[str, Any] = checked_state(path, state)["settings"]
    if "environment.kind" in settings:
        raise _no_samples(path)
    required(path, settings, {"seed": int, "data.sha256": str})
    _import_functions(settings, modules)
    encoder = component(path, state, "encoder", chosen_kind(path, state, "encoder", ENCODERS, modules))
    loss = component(path, state, "loss", chosen_kind(path, state, "loss", LOSSES, modules))
    network = component(path, state, "network", chosen_kind(path, state, "network", NETWORKS, modules))
    tasks = component(path, state, "tasks", chosen_kind(path, state, "tasks", SEQUENCES, modules))
    try:
        folder = data_folder or _data_folder(path, str(settings.get("data.name")))
        data = replace(component(path, state, "data", DataConfig), folder=folder, download=False).load()
    except DatasetError as error:
        raise CheckpointError(f"{path}: its data cannot be loaded: {error} (here: data_folder=FOLDER)") from error
    if data.sha256 != settings["data.sha256"]:
        raise CheckpointError(
            f"{path} was trained on data {settings['data.sha256'][:16]}, {data.name} here is {data.sha256[:16]}; "
            "use the same files"
        )
    inputs = encoder.units(data.inputs)
    outputs = output_count(loss, tasks, data)
    first = tasks.dataset(data, 0)
    loss = task_loss(loss, tasks)
    chosen = chosen_weights(state, path)
    net = module_with_weights(lambda: network.build(inputs, outputs, settings["seed"]), chosen.model, path)
    loss.prepare(len(first.classes), first.targets)
    loss.load_state_dict(chosen.loss)
    software_identity = {"backend": SOFTWARE, "chip": None, "chip_hash": None}
    return TrainedNetwork(
        net,
        first,
        encoder,
        loss,
        {
            "checkpoint": str(path),
            "checkpoint_sha256": sha256,
            "trained_on": {key: settings.get(f"identity.{key}", default) for key, default in software_identity.items()},
            "trained_epochs": chosen.epochs,
            "retrained": chosen.is_retrained,
            "trained_settings": settings,
            "seed": settings["seed"],
            "data": data.name,
            "data_sha256": data.sha256,
        },
        tasks,
        data,
    )


def _import_functions(settings: Mapping[str, Any], modules: Collection[str]) -> None:
    """Import the functions of a user's modules that the settings of a checkpoint name, so that they are found by path.

    Raises:
        UnknownComponentError: A function cannot be imported.
    """
    registries: Mapping[str, Registry[Any]] = {"data.name": DATASETS, "network.surrogate": SURROGATES}
    for key, registry in registries.items():
        name = settings.get(key)
        if isinstance(name, str) and name.partition(":")[0] in modules:
            registry.resolve(name, modules)


def _data_folder(checkpoint: Path, name: str) -> str | None:
    """Return the user's data folder from the run's `config.yaml`; None for data of the package, or downloaded ones.

    A folder of published files that is not there any more is not named, since the package may have these data.
    """
    file = checkpoint.parent / "config.yaml"
    if not file.exists():
        return None
    folder = required(file, read_settings(file), {"data": dict})["data"].get("folder")
    if folder is None or (name != OWN and not Path(str(folder)).expanduser().is_dir()):
        return None
    return str(folder)


def evaluate_checkpoint(config: EvaluateConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Evaluate a checkpoint on a device and write `evaluation.json` into `folder`.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        PlacementError: The network does not fit the device.
    """
    start = time.perf_counter()
    n_previous_remarks = len(progress.remarks)
    config = with_device(config)
    if config.backend.name.partition(":")[0] in config.modules:
        BACKENDS.resolve(config.backend.name)
    trained = load_trained(config.checkpoint, config.data_folder, config.modules)
    net, data = trained.net, trained.data
    if config.steps > net.steps:
        raise ValueError(f"steps={config.steps} exceeds the {net.steps} steps that the network was trained with")
    net.steps = config.steps or net.steps
    net.weight_bits = net.weight_bits if config.weight_bits is None else config.weight_bits or None
    net.trace_bits = net.trace_bits if config.trace_bits is None else config.trace_bits or None
    masks = silenced(net, config.silenced, config.silenced_seed)
    part = config.part or counted_part(data, trained.origin["trained_settings"])
    parts = [
        shorten(
            part_of(trained.tasks.dataset(trained.whole, number), part, trained.origin["retrained"]),
            config.test_samples,
            "test_samples",
        )
        for number in range(trained.tasks.total)
    ]
    with tuned(1), attached(config.backend, config.chip, net) as device:
        identity = device_identity(device)
        introduce(progress, net, data, identity)
        clipped_weights = clipped_shares(net)
        warn_clipped(clipped_weights, progress)
        sources = [data.source(test, trained.encoder) for test in parts]
        evaluation, accuracies = evaluate_tasks(net, sources, trained.loss, config.batch_size, masks)
        if config.plots:
            with optional_plots(progress):
                draw_pass(folder / "plots", net, sources[0], masks)
    outcome = {
        "test_accuracy": evaluation.accuracy,
        "hidden_spikes_per_sample": evaluation.hidden_spikes_per_sample,
        **identity,
        **trained.origin,
        "noise_seed": config.chip.seed,
        "steps": net.steps,
        "readout_seconds": (net.steps - 1) * net.dt,
        "seconds": time.perf_counter() - start,
        "weight_bits": net.weight_bits,
        "trace_bits": net.trace_bits,
        "silenced": config.silenced,
        "silenced_seed": config.silenced_seed,
        "silenced_neurons": silent_neurons(net, masks),
        "trial_time": config.backend.trial_time,
        "forced_reset": config.backend.forced_reset,
        "command": command,
        "clipped_weights": clipped_weights,
        **input_events(evaluation),
        **device_cost(evaluation, sum(map(len, parts))),
        **({TASK_ACCURACIES: accuracies} if len(parts) > 1 else {}),
        "dropped_spikes": evaluation.health.dropped_spikes,
        "retries": evaluation.health.retries,
        "notes": all_notes(evaluation.health.notes, progress.remarks[n_previous_remarks:]),
        "settings": flatten(asdict(config)),
        "test_samples": sum(map(len, parts)),
        "evaluated_on": part,
        "confusion": evaluation.confusion.tolist(),
        "versions": versions(),
        "processor": processor(),
    }
    write_json(folder / "evaluation.json", outcome)
    return outcome


def counted_part(data: Dataset, settings: Mapping[str, Any]) -> str:
    """Return the part of the data that the accuracy of a run is of: with a chosen epoch, that is the test part."""
    return "test" if settings.get("trainer.choose") == BEST else data.evaluated_on


def part_of(data: Dataset, name: str, is_retrained: bool = False) -> Samples:
    """Return the samples of a part.

    Args:
        data: Data set of the training.
        name: Part, one of `PARTS`.
        is_retrained: Whether the weights were trained on the held out samples as well, after these chose the epoch.

    Raises:
        ValueError: No samples were held out, and the data have no validation part; or the network was trained on them.
    """
    is_held_out = data.evaluated_on == "validation"
    held_out = data.test if is_held_out else data.validation
    parts = {
        "test": data.test if data.reserved is None else data.reserved.test,
        "validation": held_out,
        "train": data.reserved.train if is_retrained and data.reserved is not None else data.train,
    }
    if is_retrained and name == "validation" and is_held_out:
        raise ValueError(
            "part=validation: the network was trained once more on these samples, too (trainer.retrain); the accuracy "
            "that chose the epoch is in the run's result.json; choose part=test or part=train"
        )
    samples = parts[name]
    if samples is None:
        raise ValueError(f"part={name}: the training held out no samples; choose part=test or part=train")
    return samples


def with_device(config: EvaluateConfig) -> EvaluateConfig:
    """Return the settings with the device or the chip of the training, if they select it.

    Raises:
        CheckpointError: The run's `config.yaml` is missing or has other settings, the training used several chips, or
            the device has settings that name files, code or addresses, which only `own_device=true` accepts.
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
    run = _run_settings(file, "backend", "chip", "parallel")
    if run["parallel"].get("chips"):
        raise CheckpointError(
            f"{option}=true: {path} was trained on several chips, {run['parallel']['chips']}; name one"
        )
    groups = ["backend", "chip"] if config.own_device else ["chip"]
    settings = checked_state(path, load_checkpoint(path))["settings"]
    saved = {key: value for key, value in settings.items() if key.split(".")[0] in groups}
    run_settings = flatten({group: run[group] for group in groups})
    free = free_to_change(str(run["backend"].get("name")))
    require_same(path, saved, {key: value for key, value in run_settings.items() if key in saved or key not in free})
    backend = typed_component(file, "backend", BackendConfig, run["backend"]) if config.own_device else config.backend
    backend = at_recorded_chip(backend, path)
    backend = replace(backend, record=config.backend.record)  # the archive of the training stays as it is
    return replace(config, backend=backend, chip=typed_component(file, "chip", ChipConfig, run["chip"]))


def _no_samples(file: Path) -> CheckpointError:
    """Return the error for a file of a training in an environment."""
    return CheckpointError(
        f"{file} is of a run of hxtrain play, which has no test samples; its games are in the result.json beside it"
    )


def _run_settings(file: Path, *groups: str) -> dict[str, Any]:
    """Return the settings of a training on data; the groups are required.

    Raises:
        CheckpointError: The file is damaged, or belongs to a training in an environment.
    """
    settings = read_settings(file)
    if "environment" in settings:
        raise _no_samples(file)
    return required(file, settings, dict.fromkeys(groups, dict))


def _names_device(file: Path) -> bool:
    """Return whether a run's `config.yaml` names a single device, which an evaluation uses by default.

    Raises:
        CheckpointError: The file is damaged, or its settings name files, code or addresses.
    """
    run = _run_settings(file, "backend", "parallel")
    backend = typed_component(file, "backend", BackendConfig, run["backend"])
    if backend.name == SOFTWARE or run["parallel"].get("chips") or run["parallel"].get("addresses"):
        return False
    paths = {
        key: value for key, value in backend.settings.items() if isinstance(value, str) and set(value) & set("/\\:")
    }
    if paths:
        text = ", ".join(f"{key}={value}" for key, value in paths.items())
        raise CheckpointError(
            f"the run was on backend={backend.name} with {text}; use them with own_device=true if you trust "
            f"{file}, or name a device, such as backend=emulator"
        )
    return True


def silenced(net: Network, share: float, seed: int) -> list[Tensor | None] | None:
    """Return masks of active neurons `[N]` of each layer, with silent ones in hidden layers; None for share 0."""
    return net.silenced_masks(share, generator(seed, "silenced")) if share > 0 else None


def silent_neurons(net: Network, masks: list[Tensor | None] | None) -> dict[str, int]:
    """Return the number of silent neurons of each hidden layer."""
    layer_masks = [None] * len(net.layers) if masks is None else masks
    return {
        layer.name: 0 if mask is None else int((mask == 0).sum())
        for layer, mask in zip(net.layers, layer_masks, strict=True)
        if layer is not net.layers[-1]
    }


def clipped_shares(net: Network) -> dict[str, float]:
    """Return the share of weights beyond the device's range, by projection of fixed scale; empty in software."""
    if net.device is None or net.device.plan is None:
        return {}
    limits = zip(net.projections, net.weight_limits(), strict=True)
    return {
        projection.name: float(
            (projection.synapses.effective_weight.detach().abs() > limit * (1 + 1e-6)).float().mean()
        )
        for projection, limit in limits
        if limit is not None
    }


def warn_clipped(clipped: dict[str, float], progress: Progress) -> None:
    """Warn of weights beyond the range of the device, see `clipped_shares`."""
    for name, share in clipped.items():
        if share > 0:
            progress.warn(f"{name}: {share:.2%} of the weights exceed the device's range and are clipped")
