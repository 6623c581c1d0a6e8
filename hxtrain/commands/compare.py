"""Any checkpoint on two targets: where do they part?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

from rich.text import Text

from hxtrain.backends import Health
from hxtrain.comparison import Comparison, LayerComparison, Tolerance, compare
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.plots import training as plots
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.progress import Progress
from hxtrain.runs.versions import versions
from hxtrain.training.evaluation import intensities
from hxtrain.training.loop import shorten

from .evaluate import clipped_shares, load_trained, warn_clipped
from .result import optional_plots
from .train import attached, device_identity

NONE = "-"
"""What a table shows where a number is not defined."""


@dataclass
class CompareConfig:
    """Settings of a comparison; network, encoder, loss and data set are the checkpoint's.

    Attributes:
        checkpoint: a run's `checkpoint.pt`.
        backend, chip: the first target, which runs twice.
        other_backend, other_chip: the second target.
        samples: use the first so many test samples; 0 for all.
        tolerance: from which difference on a layer disagrees.
        data_folder: folder of the original files, for images of a size that the package does not hold.
    """

    checkpoint: str = "???"
    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)
    other_backend: BackendConfig = field(default_factory=lambda: BackendConfig("reference"))
    other_chip: ChipConfig = field(default_factory=ChipConfig)
    samples: int = 500
    tolerance: Tolerance = field(default_factory=Tolerance)
    data_folder: Optional[str] = None  # noqa: UP045 - spelt so for every OmegaConf

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise ValueError(f"samples={self.samples} must not be negative; 0 takes all")


def compare_checkpoint(config: CompareConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Compare two targets with a checkpoint; write `comparison.json` and `comparison.png` into `folder`.

    Returns:
        What `comparison.json` holds.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        PlacementError: its network does not fit one of the devices.
    """
    trained = load_trained(config.checkpoint, config.data_folder)
    net, test = trained.net, shorten(trained.data.test, config.samples, "samples")
    net.traces = "measured"  # what the devices did, not what the model makes of it
    spikes = trained.encoder.without_jitter()(intensities(test.samples))
    with (
        tuned(1),
        attached(config.backend, config.chip, net) as first,
        attached(config.other_backend, config.other_chip, net) as second,
    ):
        targets = {}
        for name, device, chip in (("first", first, config.chip), ("second", second, config.other_chip)):
            net.attach(device)
            clipped = clipped_shares(net)
            identity = device_identity(device)
            progress.say(f"{name}: backend {identity['backend']}, chip {identity['chip']} ({identity['chip_hash']})")
            warn_clipped(clipped, progress)
            targets[name] = {**identity, "noise_seed": chip.seed, "clipped_weights": clipped}
        found = compare(net, first, second, spikes, trained.loss, test.labels, config.tolerance)
    if found.health != Health():
        progress.warn(f"the devices dropped {found.health.dropped_spikes} spikes, repeated {found.health.retries} runs")
    report(found, progress)
    outcome = {
        **found.as_dict(),
        **targets,
        **trained.origin,
        "command": command,
        "settings": asdict(config),
        "dropped_spikes": found.health.dropped_spikes,
        "retries": found.health.retries,
        "notes": list(dict.fromkeys(found.health.notes)),
        "versions": versions(),
    }
    write_json(folder / "comparison.json", outcome)
    with optional_plots(progress):
        plots.plot_comparison(found, folder / "comparison.png")
    return outcome


def report(found: Comparison, progress: Progress) -> None:
    """Show a comparison as tables."""
    progress.show(
        "first / second, or their difference (that of a repetition on the {}); [bold]*[/] beyond tolerance and noise",
        found.repeated,
    )
    columns = ("", *(layer.name for layer in found.layers))
    progress.table("layers", columns, [(name, *(show(layer) for layer in found.layers)) for name, show in ROWS.items()])
    cosines = [(name, _beside(pair.between, pair.repeat, "{:.4f}")) for name, pair in found.gradients.items()]
    progress.table("cosine of the gradients", ("projection", "cosine"), cosines)
    right = NONE if found.accuracies is None else "{:.2%} / {:.2%}".format(*found.accuracies)
    same = _beside(found.same_answers.between, found.same_answers.repeat, "{:.2%}")
    progress.say(f"same answer in {same} of {found.samples} samples, accuracy {right}")


def _rates(layer: LayerComparison) -> str:
    return NONE if layer.rates is None else " / ".join(f"{float(rate.mean()):.3f}" for rate in layer.rates)


def _both(name: str) -> Callable[[LayerComparison], str]:
    """Return what shows a number of both responses."""

    def show(layer: LayerComparison) -> str:
        return " / ".join(_number(getattr(response, name), "{:.3f}") for response in layer.responses)

    return show


def _apart(name: str, form: str, factor: float = 1.0) -> Callable[[LayerComparison], str | Text]:
    """Return what shows a difference beside that of the repetition, and whether it is beyond the tolerance."""

    def show(layer: LayerComparison) -> str | Text:
        text = _beside(getattr(layer.between, name), getattr(layer.repeat, name), form, factor)
        return Text(f"{text} *", style="bold") if name in layer.exceeded else text

    return show


ROWS: Mapping[str, Callable[[LayerComparison], str | Text]] = {
    "spikes per sample and neuron": _rates,
    "spikes: correlation over neurons": _apart("rate_correlation", "{:.3f}"),
    "fired on one only": _apart("only_one", "{:.1%}"),
    "first spike, median (us)": _apart("first_spike", "{:+.3f}", 1e6),
    "first spike, rms (us)": _apart("first_spike_rms", "{:.3f}", 1e6),
    "membrane, rms (threshold - leak)": _apart("trace", "{:.3f}"),
    "membrane, rms (% of its SD)": _apart("trace_percent", "{:.1f}"),
    "membrane: correlation": _apart("trace_correlation", "{:.3f}"),
    "own gain": _both("gain"),
    "own gain, rms over neurons": _apart("gain", "{:.3f}"),
    "own threshold": _both("threshold"),
    "own threshold, rms over neurons": _apart("threshold", "{:.3f}"),
    "own residual": _both("residual"),
    "own residual, difference": _apart("residual", "{:.3f}"),
}
"""Rows of the table; `own` is against the model of the layer's own measured input."""


def _beside(between: float | None, repeat: float | None, form: str, factor: float = 1.0) -> str:
    if between is None:
        return NONE
    return f"{_number(between, form, factor)} ({_number(repeat, form, factor)})"


def _number(value: float | None, form: str, factor: float = 1.0) -> str:
    return NONE if value is None else form.format(factor * value)
