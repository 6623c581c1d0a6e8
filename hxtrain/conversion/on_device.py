"""Conversion for a device: passes on rates, then passes that measure the device; one row of a table for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hxtrain.backends import Backend
from hxtrain.checks import require_kind
from hxtrain.datasets.encoders import Encoder, RateEncoder
from hxtrain.execution import Device
from hxtrain.network import Network
from hxtrain.network.config import NetworkConfig
from hxtrain.objectives.losses import OffsetMean

from .graph import ConversionError, RateNetwork
from .measured import MeasuredConfig, measured_passes
from .pipeline import Pass, PassConfig, passes
from .realisation import Realisation
from .sources import from_sequential

STEPS = 60
"""Number of time steps of the default window: 102 us."""
COLUMNS = ("pass", "detail", "accuracy (%)", "error of the outputs", "hidden spikes", "clipped weights (%)")
"""Columns of the table of passes."""


class Row(NamedTuple):
    """What a pass did.

    Attributes:
        name: Name of the pass.
        detail: What it chose or measured.
        accuracy: Share of right answers on the test samples of the table, 0..1; None without test samples.
        error: Root mean square of the difference between the outputs and those of the original network, relative to
            the latter; what all classes of a sample have in common is left out.
        hidden_spikes: Number of spikes of all hidden neurons per sample; None for rates.
        clipped: Share of weights that the device clips, by projection; empty for rates.
    """

    name: str
    detail: str
    accuracy: float | None
    error: float
    hidden_spikes: float | None = None
    clipped: dict[str, float] = {}  # noqa: RUF012 - never changed

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table, see `COLUMNS`."""
        return (
            self.name,
            self.detail,
            "-" if self.accuracy is None else f"{100 * self.accuracy:.2f}",
            f"{self.error:.4f}",
            "-" if self.hidden_spikes is None else f"{self.hidden_spikes:.0f}",
            f"{100 * max(self.clipped.values()):.2f}" if self.clipped else "-",
        )


class Conversion(NamedTuple):
    """A converted network.

    Attributes:
        net: Spiking network with its weights, attached to the device.
        encoder: Code of the inputs.
        loss: Loss that reads the answers.
        config: Settings of the spiking network.
        rows: What each pass did.
    """

    net: Network
    encoder: Encoder
    loss: OffsetMean
    config: NetworkConfig
    rows: list[Row]

    def table(self) -> str:
        """Return the table of the passes as text."""
        lines = [COLUMNS, *(row.cells() for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _passes(config: PassConfig) -> dict[str, Pass]:
    """Return the passes on rates for a device.

    Raises:
        ConversionError: Biases shall come through a constant source.
    """
    if config.bias == "encode":
        raise ConversionError(
            "passes.bias=encode: on a device biases come through regular inputs in any case; take keep, or remove"
        )
    return passes(config)


class Judge:
    """Compares outputs with those of the original network on the same samples.

    Args:
        network: Original network of rates.
        x: Samples `[B, ...]`.
        labels: Classes `[B]`; None if they are not known.
    """

    def __init__(self, network: RateNetwork, x: Tensor, labels: Tensor | None) -> None:
        self.x = x
        self.labels = labels
        self.outputs = _centred(network.output(x).float())

    def row(self, name: str, detail: str, outputs: Tensor) -> Row:
        """Return the row of a pass after which the outputs `[B, classes]` are these."""
        accuracy = None if self.labels is None else float((outputs.argmax(1) == self.labels).double().mean())
        difference = _centred(outputs.float()) - self.outputs
        return Row(
            name, detail, accuracy, float(difference.square().mean().sqrt() / self.outputs.square().mean().sqrt())
        )


def _centred(outputs: Tensor) -> Tensor:
    return outputs - outputs.mean(1, keepdim=True)


def _from_module(model: nn.Module, samples: Tensor) -> RateNetwork:
    require_kind(model, nn.Module, "model", "give a torch.nn.Sequential, or a RateNetwork")
    return from_sequential(model, tuple(samples.shape[1:]))


def _check_samples(name: str, samples: Tensor) -> None:
    require_kind(samples, Tensor, name, "give a tensor of intensities in 0..1, one sample in each row")
    if not bool(torch.isfinite(samples).all()):
        raise ConversionError(f"{name} are not finite; give intensities in 0..1")


def _check_test(samples: Tensor, labels: Tensor) -> None:
    _check_samples("test", samples)
    require_kind(labels, Tensor, "test", "give a pair of samples and labels, both tensors")
    if labels.shape != samples.shape[:1] or not len(labels):
        raise ConversionError(
            f"test: {len(samples)} samples with labels of shape {list(labels.shape)}; give one label for each sample, "
            "and at least one sample"
        )


def convert(
    model: nn.Module | RateNetwork,
    samples: Tensor,
    device: Device | Backend | None = None,
    *,
    test: tuple[Tensor, Tensor] | None = None,
    encoder: Encoder | None = None,
    network: NetworkConfig | None = None,
    config: PassConfig | None = None,
    measured: MeasuredConfig | None = None,
    seed: int = 0,
    batch_size: int = 500,
    report: Callable[[Row], None] | None = None,
) -> Conversion:
    """Convert a trained network of rates into a spiking network that a device runs, by measurements of the device.

    No label of the samples is used, and nothing is trained. The spiking network is an ordinary one: it can be trained
    on, saved and evaluated.

    Args:
        model: `torch.nn.Sequential`, see `from_sequential`, or a network of rates.
        samples: Training samples, intensities in 0..1 `[N, ...]`, of which the calibration takes some.
        device: Device that runs the network, open; None: the network runs in software.
        test: Samples and labels of the accuracy in the table; they affect nothing else. None: the errors in the table
            are those on the calibration samples.
        encoder: Code of the inputs; None: regular spikes, up to 12 in 94 us.
        network: Settings of the spiking network, whose `hidden` is not used; None: 60 steps.
        config: Settings of the passes on rates; biases always come through regular inputs, so that `bias` is `keep`
            or `remove`.
        measured: Settings of the passes that measure the device.
        seed: Seed of the choice of calibration samples.
        batch_size: Number of samples of a run.
        report: Receiver of each row.

    Raises:
        ConversionError: A layer cannot be converted; the text has its name and a remedy. Or the samples are too few, or
            not finite.
        PlacementError: The network does not fit the device.
        DeviceError: A run failed.
        TypeError: An argument is of the wrong type.
    """
    measured = measured or MeasuredConfig()
    _check_samples("samples", samples)
    if len(samples) < 2:
        raise ConversionError(
            f"samples: {len(samples)} given; a calibration takes 2 or more, such as {measured.samples}"
        )
    source = model if isinstance(model, RateNetwork) else _from_module(model, samples)
    if test is not None:
        _check_test(*test)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    x = samples[order[: measured.samples]]
    judge = Judge(source, *((x, None) if test is None else test))
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        if report is not None:
            report(row)

    add(judge.row("original", " - ".join(str(layer.targets) for layer in source.layers), judge.outputs))
    rates = source
    for name, step in _passes(config or PassConfig()).items():
        rates = step(rates, x)
        add(judge.row(name, "", rates.output(judge.x) * rates.layers[-1].scale))
    code = encoder or RateEncoder(spikes=12, duration=94e-6, threshold=0.0)
    form = Realisation(rates, x, code, network or NetworkConfig(steps=STEPS), measured.regular)
    form.net.attach(device)
    for measured_pass in measured_passes(form, x, measured, batch_size):
        measurement = form.measure(judge.x, batch_size)
        row = judge.row(measured_pass.name, measured_pass.detail, form.answers(measurement))
        add(row._replace(hidden_spikes=measurement.hidden_spikes, clipped=measured_pass.clipped))
    return Conversion(form.net, form.encoder, form.loss(), form.config, rows)
