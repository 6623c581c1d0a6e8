"""Conversion of a trained artificial neural network to a spiking network on a device, from settings to files."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from torch import Tensor

from hxtrain.ann.teachers import TrainedAnn, load_ann
from hxtrain.conversion.measured import ON_DEVICE, MeasuredConfig
from hxtrain.conversion.on_device import COLUMNS, STEPS, Conversion, Row, convert
from hxtrain.conversion.pipeline import PassConfig
from hxtrain.datasets import DataConfig, Dataset, DatasetError, Split
from hxtrain.datasets.encoders import Encoder, RateEncoder
from hxtrain.datasets.split import intensities, values_of
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.network import Network, NetworkConfig
from hxtrain.runs.checkpoint import CheckpointError, require_same, save_checkpoint
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.progress import Progress
from hxtrain.runs.saved import component, read_result
from hxtrain.runs.versions import processor, versions
from hxtrain.trackers import TrackedRun, Tracker, require_trackers, tracked
from hxtrain.training.evaluation import Evaluation, evaluate
from hxtrain.training.loop import CHECKPOINT, shorten

from .construction import introduce, opened
from .evaluate import clipped_shares, warn_clipped
from .identity import device_identity, flatten, identified_settings
from .result import all_notes, device_cost, input_events, save_weights
from .run_directory import run_folder, write_config
from .settings import RunConfig, check_parts

RESULT = "result.json"


@dataclass
class ConvertConfig:
    """Settings of a conversion; the checkpoint determines the data.

    Attributes:
        checkpoint: `checkpoint.pt` of a run of `hxtrain ann`.
        seed: Seed of the choice of calibration samples.
        backend: Kind of the device.
        chip: Chip of the device.
        network: Settings of the spiking network; its hidden populations are those of the artificial network.
        encoder: Code of the inputs, `rate`, `poisson` or `first_spike`; the conversion adds regular inputs.
        passes: Settings of the passes on rates.
        measured: Settings of the passes that measure the device.
        batch_size: Samples per batch.
        table_samples: Number of test samples that the accuracy after each pass is measured on, from the start; 0 for
            all. The accuracy of the result is that of all.
        test_samples: Number of test samples in use, from the start; 0 for all.
        data_folder: Folder of the original files; None: the data of the package.
        tracker: Where the conversion is logged besides its directory, by name.
    """

    checkpoint: str = "???"
    seed: int = 0
    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(steps=STEPS))
    encoder: Encoder = field(default_factory=RateEncoder)
    passes: PassConfig = field(default_factory=PassConfig)
    measured: MeasuredConfig = field(default_factory=MeasuredConfig)
    batch_size: int = 500
    table_samples: int = 500
    test_samples: int = 0
    data_folder: Optional[str] = None  # noqa: UP045
    tracker: Dict[str, Tracker] = field(default_factory=dict)  # noqa: UP006

    def __post_init__(self) -> None:
        check_parts(self)
        for name, minimum in (("batch_size", 1), ("table_samples", 0), ("test_samples", 0)):
            if getattr(self, name) < minimum:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {minimum}")


def convert_checkpoint(
    config: ConvertConfig, folder: Path, command: str, progress: Progress, group: str = ""
) -> dict[str, Any]:
    """Convert a network of `hxtrain ann`; write `checkpoint.pt`, `config.yaml`, `result.json` and `weights.npz`.

    The files are those of a training run: `hxtrain evaluate checkpoint=FOLDER/checkpoint.pt` evaluates the network, and
    `hxtrain run=FOLDER trainer.initial=FOLDER/checkpoint.pt` trains it on.

    Returns:
        Content of `result.json`.

    Raises:
        CheckpointError: The checkpoint cannot be read, its data have changed, or the directory holds another run.
        ConversionError: A layer cannot be converted; the text has its name and a remedy.
        PlacementError: The network does not fit the device.
    """
    require_trackers(config.tracker, folder)
    run = TrackedRun(folder.name, group, "", asdict(config), folder)
    with run_folder(folder, False), tuned(1), tracked(run, config.tracker, progress) as tracking:
        result = _convert(config, folder, command, progress)
        for number, row in enumerate(result["passes"]):
            tracking.log(number, row, "conversion")
        tracking.artifacts(folder)
    return result


def complete_conversion(
    config: ConvertConfig, folder: Path, command: str, progress: Progress, group: str = ""
) -> dict[str, Any]:
    """Convert a network, or return the result of a finished one; the arguments are those of `convert_checkpoint`.

    Raises:
        CheckpointError: The directory holds a conversion with other settings.
    """
    file = folder / RESULT
    if not file.exists():
        return convert_checkpoint(config, folder, command, progress, group)
    result = read_result(file, {"settings": dict, "conversion_settings": dict, "test_accuracy": float})
    require_same(file, result["conversion_settings"], _identity(config))
    progress.say(f"{folder.name}: finished before, {result['test_accuracy']:.2%}")
    return result


def _convert(config: ConvertConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    _check_free(config)
    start = time.perf_counter()
    n_previous_remarks = len(progress.remarks)
    ann = load_ann(Path(config.checkpoint).expanduser(), "checkpoint")
    data_config, data = _data(config, ann)
    train = values_of(data.train, data.title, "a conversion")
    test = values_of(shorten(data.test, config.test_samples, "test_samples"), data.title, "a conversion")
    with opened(config.backend, config.chip) as device:
        conversion = convert(
            ann.model,
            intensities(train.samples),
            device,
            test=_samples(test, config.table_samples),
            encoder=config.encoder,
            network=config.network,
            config=config.passes,
            measured=config.measured,
            seed=config.seed,
            batch_size=config.batch_size,
        )
        identity = device_identity(device)
        introduce(progress, conversion.net, data, identity)
        progress.table("conversion", COLUMNS, [row.cells() for row in conversion.rows])
        clipped = clipped_shares(conversion.net)
        warn_clipped(clipped, progress)
        final = evaluate(conversion.net, data.source(test, conversion.encoder), conversion.loss, config.batch_size)
        run = _run_config(config, conversion, data_config)
        result = {
            **_measured(final, conversion.rows, ann, len(test)),
            "clipped_weights": clipped,
            **identity,
            "seed": config.seed,
            "seconds": time.perf_counter() - start,
            "command": command,
            "data": data.name,
            "data_sha256": data.sha256,
            "data_note": data.note,
            "ann_checkpoint": config.checkpoint,
            "ann_sha256": ann.sha256,
            "calibration_samples": min(config.measured.samples, len(train)),
            "settings": identified_settings(run, identity, data),
            "conversion_settings": _identity(config),
            "notes": all_notes(final.health.notes, progress.remarks[n_previous_remarks:]),
            "versions": versions(),
            "processor": processor(),
        }
        write_config(folder, run)
        _save(folder / CHECKPOINT, conversion.net, run, identity, data)
        save_weights(folder / "weights.npz", conversion.net)
        write_json(folder / RESULT, result)
    return result


def _check_free(config: ConvertConfig) -> None:
    """Refuse settings that the conversion chooses itself."""
    hidden = list(config.network.hidden)
    if hidden != NetworkConfig().hidden:
        raise ValueError(
            f"network.hidden={hidden}: the hidden populations are those of the artificial network; leave it out"
        )
    regular = list(getattr(config.encoder, "regular", ()))
    if regular:
        raise ValueError(
            f"encoder.regular={regular}: the conversion chooses the regular inputs; give their number with "
            "measured.regular"
        )


def _identity(config: ConvertConfig) -> dict[str, Any]:
    """Return the settings that identify a conversion, flat: all but its trackers."""
    return {name: value for name, value in flatten(asdict(config)).items() if name.split(".")[0] != "tracker"}


def _data(config: ConvertConfig, ann: TrainedAnn) -> tuple[DataConfig, Dataset]:
    """Return the data of an artificial network, with their settings.

    Raises:
        CheckpointError: The data cannot be loaded, or have changed.
    """
    path = Path(config.checkpoint)
    settings = component(path, {"settings": ann.settings}, "data", DataConfig)
    settings = replace(settings, folder=config.data_folder, download=False)
    try:
        data = settings.load()
    except DatasetError as error:
        raise CheckpointError(f"{path}: its data cannot be loaded: {error} (here: data_folder=FOLDER)") from error
    if data.sha256 != ann.settings["data.sha256"]:
        raise CheckpointError(
            f"{path} was trained on data {ann.settings['data.sha256'][:16]}, {data.name} here is {data.sha256[:16]}; "
            "use the same files"
        )
    return settings, data


def _samples(split: Split, count: int) -> tuple[Tensor, Tensor]:
    """Return the first samples of a split in 0..1, with their labels; all of them if the number is 0."""
    part = split[: count or len(split)]
    return intensities(part.samples), part.labels


def _run_config(config: ConvertConfig, conversion: Conversion, data: DataConfig) -> RunConfig:
    """Return the settings of a training run that goes on from the converted network."""
    return RunConfig(
        seed=config.seed,
        backend=config.backend,
        chip=config.chip,
        network=conversion.config,
        encoder=conversion.encoder,
        loss=conversion.loss,
        data=data,
    )


def _measured(final: Evaluation, rows: list[Row], ann: TrainedAnn, samples: int) -> dict[str, Any]:
    """Return the figures of a result."""
    on_device = next(row for row in rows if row.name == ON_DEVICE)
    return {
        "test_accuracy": final.accuracy,
        "ann_accuracy": ann.accuracy,
        "normalised_accuracy": on_device.accuracy,
        "evaluated_on": ann.evaluated_on,
        "test_samples": samples,
        "hidden_spikes_per_sample": final.hidden_spikes_per_sample,
        **device_cost(final, samples),
        **input_events(final),
        "dropped_spikes": final.health.dropped_spikes,
        "retries": final.health.retries,
        "passes": [row._asdict() for row in rows],
    }


def _save(file: Path, net: Network, run: RunConfig, identity: dict[str, str], data: Dataset) -> None:
    """Write the network as the checkpoint of a training run before its first epoch."""
    state = {
        "model": net.state_dict(),
        "optimizer": {},
        "epoch": 0,
        "records": [],
        "versions": versions(),
        "seed": run.seed,
        "settings": identified_settings(run, identity, data),
    }
    save_checkpoint(file, state)
