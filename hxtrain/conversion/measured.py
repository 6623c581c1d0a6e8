"""Passes that measure the device: gain, slopes and offsets of its neurons, and the affine map of its readout.

All read a batch of calibration samples through the contract, and the activations of the network of rates for the same
samples. None reads a label.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import List, NamedTuple  # noqa: UP035 - OmegaConf resolves these on every Python

import torch
from torch import Tensor

from hxtrain.checks import check_types

from .realisation import READOUT_RANGE, Realisation

ON_DEVICE = "on the device"
"""Name of the pass that places the normalised network as it is, the control of all that is measured."""
SMALLEST = 1e-9
LARGEST_FACTOR = 4.0
"""Largest factor between the slope of a neuron and the median of its population that a correction assumes."""
LARGEST_STEP = 2.0
"""Largest change of a slope that one correction of the gain follows."""
RIDGES = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Strengths of the penalty of a regression to choose from, in units of the mean power of the activations."""
DAMPING = 0.5
"""Share of a measured error that one correction removes: the curve of a neuron is not a line."""


@dataclass
class MeasuredConfig:
    """Settings of the measured passes.

    Attributes:
        samples: number of calibration samples, drawn from the training samples.
        gains: mean potentials of a hidden neuron per unit of its normalised input (threshold - leak) to choose from.
        onsets: mean potentials of a hidden neuron at the normalised input 0 (threshold - leak) to choose from.
        corrections: number of corrections of gain and onset of every hidden neuron.
        regression: whether the weights of the readout are fitted to the outputs of the network of rates, by a
            regression on the measured drives.
        affine: number of fits of the affine map of the readout: strengths of the excitatory and inhibitory synapses of
            every class, and its offset.
        regular: number of regular inputs, and of regular neurons of each hidden layer that drives another one.
    """

    samples: int = 400
    gains: List[float] = field(default_factory=lambda: [1.5, 2.0, 3.0])  # noqa: UP006
    onsets: List[float] = field(default_factory=lambda: [0.0, 0.5, 1.0])  # noqa: UP006
    corrections: int = 3
    regression: bool = True
    affine: int = 1
    regular: int = 8

    def __post_init__(self) -> None:
        check_types(self, "measured.")
        for name, minimum in (("samples", 2), ("corrections", 0), ("affine", 0), ("regular", 1)):
            if getattr(self, name) < minimum:
                raise ValueError(f"measured.{name}={getattr(self, name)} must be at least {minimum}")
        for name, values in (("gains", self.gains), ("onsets", self.onsets)):
            smallest = SMALLEST if name == "gains" else 0.0
            if not values or any(not smallest <= value < math.inf for value in values):
                text = "positive" if name == "gains" else "0 or positive"
                raise ValueError(f"measured.{name}={values} must be a list of {text} numbers")


class Line(NamedTuple):
    """Least-squares line of each neuron, `drive = offset + slope activation`.

    Attributes:
        slope: Slopes `[N]`; 0 for a neuron whose activation does not change.
        offset: Drives at the activation 0 `[N]`.
        error: Root mean square of `drive - offset - slope activation`, over all neurons, in units of the median slope.
    """

    slope: Tensor
    offset: Tensor
    error: float


class MeasuredPass(NamedTuple):
    """A pass that has just set the weights.

    Attributes:
        name: Name of the pass.
        detail: What it chose or measured.
        clipped: Share of weights that the device clips, by projection.
    """

    name: str
    detail: str
    clipped: dict[str, float]


def fit_lines(drives: Tensor, activations: Tensor) -> Line:
    """Return the line of each neuron.

    Args:
        drives: Measured drives `[B, N]`.
        activations: Activations of the network of rates `[B, N]`.
    """
    mean_drive, mean_activation = drives.mean(0), activations.mean(0)
    centred = activations - mean_activation
    variance = centred.square().mean(0)
    slope = torch.where(
        variance > SMALLEST, ((drives - mean_drive) * centred).mean(0) / variance.clamp(min=SMALLEST), 0.0
    )
    offset = mean_drive - slope * mean_activation
    residual = drives - offset - slope * activations
    return Line(slope, offset, float(residual.square().mean().sqrt()) / median_slope(slope))


def median_slope(slope: Tensor) -> float:
    """Return the median of the positive slopes `[N]`; a small number if there is none."""
    positive = slope[slope > 0]
    return float(positive.median()) if len(positive) else SMALLEST


def correlation(drives: Tensor, activations: Tensor) -> float:
    """Return the correlation of drives and activations `[B, N]`, all neurons together; 0 if one does not change."""
    pair = torch.stack([drives.flatten(), activations.flatten()])
    if bool((pair.std(1) < SMALLEST).any()):
        return 0.0
    return float(torch.corrcoef(pair)[0, 1])


def measured_passes(
    realisation: Realisation, x: Tensor, settings: MeasuredConfig, batch_size: int = 500
) -> Iterator[MeasuredPass]:
    """Apply the passes one after the other, and yield after each; the device of the network measures.

    Args:
        realisation: Network of rates with its spiking network, which is attached to the device.
        x: Calibration samples in 0..1 `[B, ...]`.
        settings: Settings of the passes.
        batch_size: Number of samples of a run.
    """
    *hidden, outputs = (values.float() for values in realisation.rates.activations(x))
    logits = outputs - outputs.mean(1, keepdim=True)
    start_readout(realisation, logits)
    yield MeasuredPass(ON_DEVICE, "slopes of ideal neurons, gain 2, no onset", realisation.write())
    for index, (population, target) in enumerate(zip(realisation.populations, hidden, strict=True)):
        name = population.rates.name
        choice = choose_gain(realisation, index, x, target, settings, batch_size)
        line = take_lines(realisation, index, x, target, batch_size)
        start_readout(realisation, logits)
        yield MeasuredPass(f"{name}: gain", f"{choice}, {_error(line)}", realisation.write())
        for number in range(1, settings.corrections + 1):
            correct(realisation, index, x, target, batch_size)
            line = take_lines(realisation, index, x, target, batch_size)
            start_readout(realisation, logits)
            detail = f"correction {number}, {_error(line)}"
            yield MeasuredPass(f"{name}: slopes and offsets", detail, realisation.write())
    if settings.regression and realisation.populations:
        detail = regress_readout(realisation, x, logits, batch_size)
        start_readout(realisation, logits)
        yield MeasuredPass("readout: regression", detail, realisation.write())
    for number in range(1, settings.affine + 1):
        detail = fit_readout(realisation, x, logits, batch_size)
        yield MeasuredPass("readout: affine map", f"fit {number}, {detail}", realisation.write())


def _error(line: Line) -> str:
    return f"activation error {line.error:.3f}"


def choose_gain(
    realisation: Realisation, index: int, x: Tensor, target: Tensor, settings: MeasuredConfig, batch_size: int = 500
) -> str:
    """Give a population the gain and the onset at which its drives correlate best with the activations.

    Returns:
        The choice, for a table.
    """
    population = realisation.populations[index]
    scores: dict[tuple[float, float], float] = {}
    for gain in settings.gains:
        for onset in settings.onsets:
            realisation.excite(population, gain, onset)
            realisation.write()
            scores[gain, onset] = correlation(realisation.measure(x, batch_size).drives[index], target)
    gain, onset = max(scores, key=lambda choice: scores[choice])
    realisation.excite(population, gain, onset)
    realisation.write()
    return f"gain {gain:g}, onset {onset:g}, correlation {scores[gain, onset]:.3f}"


def take_lines(realisation: Realisation, index: int, x: Tensor, target: Tensor, batch_size: int = 500) -> Line:
    """Measure slope and offset of the neurons of a population, which its targets divide by and subtract.

    A neuron whose slope is far from the median keeps a factor of `LARGEST_FACTOR`; its activation is then too small or
    too large downstream, but its noise is bounded.
    """
    population = realisation.populations[index]
    measurement = realisation.measure(x, batch_size)
    line = fit_lines(measurement.drives[index], target)
    middle = median_slope(line.slope)
    population.slope.copy_(line.slope.clamp(middle / LARGEST_FACTOR, middle * LARGEST_FACTOR))
    population.offset.copy_(measurement.drives[index].mean(0) - population.slope * target.mean(0))
    population.regular_drive = measurement.regular_drives[index] or population.regular_drive
    return line


def correct(realisation: Realisation, index: int, x: Tensor, target: Tensor, batch_size: int = 500) -> None:
    """Correct gain and onset of every neuron so that its line is that of the median neuron, without an offset.

    A neuron that does not change, as its activation is always 0, is silenced.
    """
    population = realisation.populations[index]
    drives = realisation.measure(x, batch_size).drives[index]
    line = fit_lines(drives, target)
    middle = median_slope(line.slope)
    ratio = torch.where(line.slope > 0, line.slope / middle, 1.0).clamp(1 / LARGEST_STEP, LARGEST_STEP)
    error = drives.mean(0) - middle * target.mean(0)
    population.onset.sub_(DAMPING * error * population.gain / middle)
    usual = float(population.gain.median())
    population.gain.div_(ratio**DAMPING).clamp_(usual / LARGEST_FACTOR, usual * LARGEST_FACTOR)
    realisation.write()


def start_readout(realisation: Realisation, logits: Tensor) -> None:
    """Set the readout as an ideal one: one gain for all classes, and the offsets that follow from biases and slopes.

    Args:
        realisation: Network of rates with its spiking network.
        logits: Outputs of the network of rates for the calibration samples `[B, classes]`, less their mean.
    """
    gain = READOUT_RANGE / float(logits.abs().amax().clamp(min=SMALLEST))
    realisation.readout_gain.fill_(gain)
    weight = realisation.last.weight.float()
    limit = realisation.net.weight_limits()[-1]
    if limit is not None:
        gain *= min(1.0, limit / float(realisation.readout_weights().abs().max().clamp(min=SMALLEST)))
        realisation.readout_gain.fill_(gain)
    slope, offset = realisation.sources(len(realisation.populations))
    base = -(weight / slope) @ offset
    base = base if realisation.last.bias is None else base + realisation.last.bias
    realisation.offsets = gain * (base - base.mean())
    realisation.readout_scale = 1 / gain


def regress_readout(realisation: Realisation, x: Tensor, logits: Tensor, batch_size: int = 500) -> str:
    """Fit the weights of the last layer to its outputs, by a ridge regression on the measured activations.

    The penalty is on the distance from the weights of the last layer; of several strengths the one counts with the
    smallest error when each sample is left out in turn. A last layer with a mask stays as it is.

    Returns:
        The choice, for a table.
    """
    last = realisation.last
    if last.mask is not None:
        return f"{last.name} has a mask, and stays as it is"
    slope, offset = realisation.sources(len(realisation.populations))
    activations = ((realisation.measure(x, batch_size).drives[-1] - offset) / slope).double()
    weight = (last.weight - last.weight.mean(0)).double()
    mean = activations.mean(0)
    centred = activations - mean
    target = logits.double()
    residual = target - target.mean(0) - centred @ weight.T
    u, s, v = torch.linalg.svd(centred, full_matrices=False)
    power = (s.square().sum() / len(s)).clamp(min=SMALLEST)  # 0 if no activation differs between the samples
    errors: list[float] = []
    for strength in RIDGES:
        shares = s.square() / (s.square() + strength * power)
        leverage = (u.square() * shares).sum(1) + 1 / len(x)
        left = (residual - u @ (shares[:, None] * (u.T @ residual))) / (1 - leverage).clamp(min=SMALLEST)[:, None]
        errors.append(float(left.square().mean().sqrt()))
    best = min(range(len(RIDGES)), key=errors.__getitem__)
    shrunk = s / (s.square() + RIDGES[best] * power)
    weight = weight + (v.T @ (shrunk[:, None] * (u.T @ residual))).T
    bias = target.mean(0) - weight @ mean
    realisation.last = replace(last, weight=weight.to(last.weight), bias=bias.to(last.weight))
    return f"ridge {RIDGES[best]:g}, error left out {errors[best] / float(target.std()):.3f}"


def fit_readout(realisation: Realisation, x: Tensor, logits: Tensor, batch_size: int = 500) -> str:
    """Fit the strengths of the excitatory and of the inhibitory synapses of every class, and its offset.

    The mean membrane of a class is regressed on what its excitatory and its inhibitory weights make of the measured
    drives. The two strengths correct the weights; the means that are measured with these give the offsets.

    Returns:
        The strengths, for a table.
    """
    measurement = realisation.measure(x, batch_size)
    weight = realisation.net.representable_weights()[-1].detach()
    drives = measurement.drives[-1]
    parts = torch.stack([drives @ weight.relu().T, -(drives @ (-weight).relu().T)], 2).double()  # [B, classes, 2]
    centred = (parts - parts.mean(0)).transpose(0, 1)
    readout = measurement.readout.double()
    strength = torch.linalg.lstsq(centred, (readout - readout.mean(0)).T[:, :, None]).solution[:, :, 0].T
    strength = strength.clamp(1 / LARGEST_STEP, LARGEST_STEP).float()
    realisation.readout_gain.copy_(1 / (realisation.readout_scale * strength))
    realisation.write()
    readout = realisation.measure(x, batch_size).readout
    offsets = logits.mean(0) / realisation.readout_scale - readout.mean(0)
    realisation.offsets = offsets - offsets.mean()
    excitatory, inhibitory = strength.mean(1).tolist()
    return f"excitatory strength {excitatory:.3f}, inhibitory {inhibitory:.3f}"
