"""Comparison of two devices on any checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

import torch
from rich.text import Text

from hxtrain.backends import Health
from hxtrain.comparison import Comparison, LayerComparison, Tolerance, compare
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.plots import training as plots
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.progress import Progress
from hxtrain.runs.versions import versions
from hxtrain.training.loop import shorten

from .construction import attached
from .evaluate import clipped_shares, load_trained, warn_clipped
from .identity import device_identity
from .result import optional_plots

NONE = "-"
"""Cell of a table for an undefined number."""


@dataclass
class CompareConfig:
    """Settings of a comparison; the checkpoint determines network, encoder, loss and data set.

    Attributes:
        checkpoint: `checkpoint.pt` of a run.
        backend: Kind of the first device, which runs twice.
        chip: Chip of the first device.
        other_backend: Kind of the second device.
        other_chip: Chip of the second device.
        samples: Number of test samples in use, from the start of the data set; 0 for all.
        tolerance: Largest differences at which layers agree.
        data_folder: Folder of the original files, for image sizes that the package does not contain.
        modules: Modules with components of your own that the checkpoint names; they are imported.
    """

    checkpoint: str = "???"
    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    other_backend: BackendConfig = field(default_factory=lambda: BackendConfig("reference"))
    other_chip: ChipConfig = field(default_factory=ChipConfig)
    samples: int = 500
    tolerance: Tolerance = field(default_factory=Tolerance)
    data_folder: Optional[str] = None  # noqa: UP045 - spelt so for every OmegaConf
    modules: List[str] = field(default_factory=list)  # noqa: UP006

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise ValueError(f"samples={self.samples} must not be negative; 0 takes all")


def compare_checkpoint(config: CompareConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Compare two devices on a checkpoint; write `comparison.json` and `comparison.png` into `folder`.

    Returns:
        Content of `comparison.json`.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        PlacementError: The network does not fit one of the devices.
    """
    trained = load_trained(config.checkpoint, config.data_folder, config.modules)
    net = trained.net
    test = shorten(trained.data.test, config.samples, "samples")
    net.traces = "measured"  # compares measurements, not the model's traces
    spikes = trained.data.source(test, trained.encoder).spikes(torch.arange(len(test)))
    with (
        tuned(1),
        attached(config.backend, config.chip, net) as first,
        attached(config.other_backend, config.other_chip, net) as second,
    ):
        devices = {}
        for name, device, chip in (("first", first, config.chip), ("second", second, config.other_chip)):
            net.attach(device)
            clipped = clipped_shares(net)
            identity = device_identity(device)
            progress.say(f"{name}: backend {identity['backend']}, chip {identity['chip']} ({identity['chip_hash']})")
            warn_clipped(clipped, progress)
            devices[name] = {**identity, "noise_seed": chip.seed, "clipped_weights": clipped}
        comparison = compare(net, first, second, spikes, trained.loss, test.labels, config.tolerance)
    if comparison.health != Health():
        progress.warn(
            f"the devices dropped {comparison.health.dropped_spikes} spikes, repeated {comparison.health.retries} runs"
        )
    report(comparison, progress)
    outcome = {
        **comparison.as_dict(),
        **devices,
        **trained.origin,
        "command": command,
        "settings": asdict(config),
        "dropped_spikes": comparison.health.dropped_spikes,
        "retries": comparison.health.retries,
        "notes": list(dict.fromkeys(comparison.health.notes)),
        "versions": versions(),
    }
    write_json(folder / "comparison.json", outcome)
    with optional_plots(progress):
        plots.plot_comparison(comparison, folder / "comparison.png")
    return outcome


def report(comparison: Comparison, progress: Progress) -> None:
    """Show a comparison as tables."""
    progress.show(
        "first / second, or their difference (that of a repetition on the {}); [bold]*[/] beyond tolerance and noise",
        comparison.repeated,
    )
    columns = ("", *(layer.name for layer in comparison.layers))
    progress.table(
        "layers", columns, [(name, *(show(layer) for layer in comparison.layers)) for name, show in ROWS.items()]
    )
    cosines = [(name, _beside(pair.between, pair.repeat, "{:.4f}")) for name, pair in comparison.gradients.items()]
    progress.table("cosine of the gradients", ("projection", "cosine"), cosines)
    accuracies = NONE if comparison.accuracies is None else "{:.2%} / {:.2%}".format(*comparison.accuracies)
    agreement = _beside(comparison.same_answers.between, comparison.same_answers.repeat, "{:.2%}")
    progress.say(f"same answer in {agreement} of {comparison.samples} samples, accuracy {accuracies}")


def _rates(layer: LayerComparison) -> str:
    return NONE if layer.rates is None else " / ".join(f"{float(rate.mean()):.3f}" for rate in layer.rates)


def _responses(name: str) -> Callable[[LayerComparison], str]:
    """Return a formatter of a number of both responses."""

    def show(layer: LayerComparison) -> str:
        return " / ".join(_number(getattr(response, name), "{:.3f}") for response in layer.responses)

    return show


def _difference(name: str, template: str, factor: float = 1.0) -> Callable[[LayerComparison], str | Text]:
    """Return a formatter of a difference beside the difference of the repetition, in bold beyond the tolerance."""

    def show(layer: LayerComparison) -> str | Text:
        text = _beside(getattr(layer.between, name), getattr(layer.repeat, name), template, factor)
        return Text(f"{text} *", style="bold") if name in layer.exceeded else text

    return show


ROWS: Mapping[str, Callable[[LayerComparison], str | Text]] = {
    "spikes per sample and neuron": _rates,
    "spikes: correlation over neurons": _difference("rate_correlation", "{:.3f}"),
    "fired on one only": _difference("only_one", "{:.1%}"),
    "first spike, median (us)": _difference("first_spike", "{:+.3f}", 1e6),
    "first spike, rms (us)": _difference("first_spike_rms", "{:.3f}", 1e6),
    "membrane, rms (threshold - leak)": _difference("trace", "{:.3f}"),
    "membrane, rms (% of its SD)": _difference("trace_percent", "{:.1f}"),
    "membrane: correlation": _difference("trace_correlation", "{:.3f}"),
    "own gain": _responses("gain"),
    "own gain, rms over neurons": _difference("gain", "{:.3f}"),
    "own threshold": _responses("threshold"),
    "own threshold, rms over neurons": _difference("threshold", "{:.3f}"),
    "own residual": _responses("residual"),
    "own residual, difference": _difference("residual", "{:.3f}"),
}
"""Rows of the table; `own` refers to the model of a layer, driven by the measured input of the layer."""


def _beside(between: float | None, repeat: float | None, template: str, factor: float = 1.0) -> str:
    if between is None:
        return NONE
    return f"{_number(between, template, factor)} ({_number(repeat, template, factor)})"


def _number(value: float | None, template: str, factor: float = 1.0) -> str:
    return NONE if value is None else template.format(factor * value)
