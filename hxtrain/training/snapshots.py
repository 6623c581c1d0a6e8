"""Snapshots of a training for the live view: the latest steps, one sample, weights and neurons, in one small file.

A snapshot draws no random number and runs nothing on the device: it reads what a step left. The next one waits for
200 times the time that the last one took, so that all of them together take about 0.5 % of a training; the first
one, which compiles and imports, and that of the last step do not wait. Whatever fails here, the training goes on.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hxtrain.backends.files import replacing
from hxtrain.execution import Device, device_of
from hxtrain.network import Activity, Network
from hxtrain.network.firing import NeuronFiring, neuron_firing
from hxtrain.network.samples import Membranes, PassSample, pass_sample
from hxtrain.runs.plain import LIVE

FORMAT = 1
"""Version of the file."""
INTERVAL = 0.5
"""Shortest time between two snapshots (s)."""
SHARE = 0.005
"""Largest share of the time that snapshots take: half of the 1 % they may cost, since they disturb caches, too."""
STEPS = 600
"""Number of the latest steps in a snapshot."""
SPIKES = 4000
"""Number of spikes of a population in a snapshot; further ones are left out."""
HIDDEN_TRACES = 4
"""Number of hidden neurons of a layer whose membranes are in a snapshot, those of the largest membranes."""
SIDE = 256
"""Largest number of rows and of columns of a matrix of weights; of larger ones, every k-th is left."""
BINS = 41
"""Bins of histograms."""


class Course(Protocol):
    """A training as a snapshot sees it: `step` of `steps_per_epoch` in the current one of `epochs`."""

    epochs: int
    epoch: int
    step: int

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of steps of an epoch."""


class Snapshots:
    """Writer of snapshots into a run directory.

    Args:
        folder: Run directory.
        net: Network that is trained; of an artificial one, a snapshot has the steps and the weights.
        warn: Receiver of a warning if a snapshot fails; it is called once.
        remarks: Warnings of the run so far, which snapshots repeat.
        clock: Clock for the costs of snapshots (s).
    """

    def __init__(
        self,
        folder: Path,
        net: nn.Module,
        warn: Callable[[str], None],
        remarks: Sequence[str] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.file = folder / LIVE
        self._net = net
        self._warn = warn
        self._remarks = remarks
        self._clock = clock
        self._next = -math.inf
        self._copying = 0.0
        self._has_failed = False
        self._steps: deque[dict[str, float | None]] = deque(maxlen=STEPS)
        self._fixed: dict[str, Any] | None = None
        self._weights: dict[str, Tensor] | None = None

    def prepare(self, course: Course) -> None:
        """Copy the weights before a step that ends with a snapshot: its spikes follow from these."""
        self._weights = None
        is_last = course.epoch + 1 == course.epochs and course.step + 1 == course.steps_per_epoch
        start = self._clock()
        if is_last or start >= self._next:
            self._weights = {name: weight.detach().clone() for name, weight in _weights(self._net).items()}
            self._copying = self._clock() - start

    def add(
        self, course: Course, activity: Activity | None, labels: Tensor | None, values: Mapping[str, float | None]
    ) -> None:
        """Take note of a finished step, and write a snapshot if it is due; no error leaves this method.

        Args:
            course: Training, before its count of the step.
            activity: Activity of the step; None for an artificial network.
            labels: True classes of its samples `[B]`; None for samples without.
            values: Numbers of the step, such as its loss, by name.
        """
        self._steps.append({"step": course.epoch * course.steps_per_epoch + course.step + 1, **values})
        if self._weights is None:
            return
        start = self._clock()
        try:
            self._write(course, activity, labels, self._weights)
        except Exception as error:  # a view is no reason to end a training
            if not self._has_failed:
                self._warn(f"the live view stands still: {error}; the training goes on")
            self._has_failed = True
        self._weights = None
        end = self._clock()
        cost = 0.0 if self._next == -math.inf else end - start + self._copying
        self._next = end + max(INTERVAL, cost / SHARE)

    @torch.no_grad()
    def _write(
        self, course: Course, activity: Activity | None, labels: Tensor | None, weights: Mapping[str, Tensor]
    ) -> None:
        device = device_of(self._net) if isinstance(self._net, Network) else None
        if self._fixed is None:
            self._fixed = _fixed(device)
        content = {
            "format": FORMAT,
            "written": time.time(),
            "epoch": course.epoch,
            "epochs": course.epochs,
            "step": course.step + 1,
            "steps_per_epoch": course.steps_per_epoch,
            "steps": _columns(self._steps),
            **_passed(self._net, activity, labels, list(weights.values())),
            "weights": _matrices(device, weights),
            "remarks": list(self._remarks)[-20:],
            **self._fixed,
        }
        with replacing(self.file, flushed=False) as file:
            file.write(json.dumps(content, allow_nan=False, separators=(",", ":")).encode())


def _weights(net: nn.Module) -> dict[str, Tensor]:
    """Return the matrices of a network by name; filters are rows."""
    if isinstance(net, Network):
        return dict(zip((p.name for p in net.projections), net.effective_weights(), strict=True))
    named = net.named_parameters()
    return {f"module {name.removesuffix('.weight')}": values.flatten(1) for name, values in named if values.dim() > 1}


def _passed(net: nn.Module, activity: Activity | None, labels: Tensor | None, weights: list[Tensor]) -> dict[str, Any]:
    """Return one sample of a pass, and the firing of all; nothing of an artificial network, which does not spike."""
    if activity is None or not isinstance(net, Network):
        return {"sample": None, "firing": []}
    represented = weights if activity.cost is None else net.runner.representable(weights)
    sample = _sample(pass_sample(net, activity, 0, represented), None if labels is None else int(labels[0]))
    return {"sample": sample, "firing": [_firing(layer) for layer in neuron_firing(net, activity)]}


def _fixed(device: Device | None) -> dict[str, Any]:
    """Return what a training does not change: placement and chip."""
    if device is None or device.plan is None:
        return {"placement": [], "chip": None}
    placement = [list(row) for row in device.plan.rows()]
    chip = device.backend.circuit_map
    if chip is None:
        return {"placement": placement, "chip": None}
    names = list(dict.fromkeys(chip.populations))
    return {
        "placement": placement,
        "chip": {
            "name": chip.chip,
            "circuits": chip.circuits,
            "populations": names,
            "neurons": [names.index(name) for name in chip.populations],
            "places": chip.places.tolist(),
            "missed": {name: np.flatnonzero(mask).tolist() for name, mask in chip.missed.items() if mask.any()},
        },
    }


def _columns(steps: Sequence[Mapping[str, float | None]]) -> dict[str, list[float | None]]:
    """Return the numbers of steps as a list for each name; one that is not finite becomes None."""
    names = steps[-1] if steps else {}
    return {name: [_plain(step.get(name)) for step in steps] for name in names}


def _plain(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _sample(sample: PassSample, label: int | None) -> dict[str, Any]:
    trains = []
    for train in sample.trains:
        times = train.times[:SPIKES]
        units = train.units[:SPIKES]
        trains.append(
            {
                "name": train.name,
                "size": train.size,
                "spikes": len(train.times),
                "times": _rounded(1e6 * times, 3),
                "units": units.tolist(),
                "ranks": train.ranks()[units].tolist(),
            }
        )
    return {
        "label": label,
        "window": 1e6 * sample.window,
        "dt": 1e6 * sample.dt,
        "trains": trains,
        "membranes": [_membranes(membranes) for membranes in sample.membranes],
    }


def _membranes(membranes: Membranes) -> dict[str, Any]:
    traces = membranes.modelled if membranes.measured is None else membranes.measured
    count = HIDDEN_TRACES if membranes.spiking else traces.shape[1]
    neurons = traces.amax(0).argsort(descending=True, stable=True)[: min(count, 16)].sort().values
    measured = None if membranes.measured is None else _rounded(membranes.measured[:, neurons].t(), 4)
    return {
        "name": membranes.name,
        "spiking": membranes.spiking,
        "neurons": neurons.tolist(),
        "measured": measured,
        "modelled": _rounded(membranes.modelled[:, neurons].t(), 4),
    }


def _rounded(values: Tensor, digits: int) -> Any:
    """Return the rounded numbers as a list; None for one that is not finite."""
    numbers = np.round(values.double().cpu().numpy(), digits)
    is_finite = np.isfinite(numbers)
    if not is_finite.all():
        numbers = numbers.astype(object)
        numbers[~is_finite] = None
    return numbers.tolist()


def _matrices(device: Device | None, weights: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Return each matrix of weights as an image of bytes, -127 to 127 for the limits, and as a histogram."""
    if device is None or device.plan is None:
        matrices = dict(weights)
        limit = None
    else:
        matrices = device.plan.quantise(list(weights.values()))[0]
        limit = device.plan.capabilities.weight_max
    images = []
    for name, matrix in matrices.items():
        values = matrix.float().cpu().numpy()
        end = float(limit or np.abs(values).max(initial=0.0) or 1.0)
        rows = math.ceil(values.shape[0] / SIDE)
        columns = math.ceil(values.shape[1] / SIDE)
        image = np.round(127 * np.clip(values[::rows, ::columns] / end, -1, 1)).astype(np.int8)
        counts = np.histogram(values, np.linspace(-end, end, BINS + 1))[0]
        images.append(
            {
                "name": name,
                "shape": list(values.shape),
                "image_shape": list(image.shape),
                "image": base64.b64encode(image.tobytes()).decode(),
                "end": end,
                "unit": "LSB" if limit else "",
                "counts": counts.tolist(),
                "at_limit": float(np.mean(np.abs(values) >= end)) if limit else None,
                "zero": float(np.mean(values == 0)),
            }
        )
    return images


def _firing(layer: NeuronFiring) -> dict[str, Any]:
    """Return the histogram of spikes per sample of a layer's neurons, and its silent and saturated neurons."""
    values: dict[str, Any] = {
        "name": layer.name,
        "silent": torch.nonzero(layer.silent)[:, 0].tolist(),
        "saturated": torch.nonzero(layer.saturated)[:, 0].tolist(),
    }
    if layer.spikes is None:
        return values
    rates = layer.spikes.numpy()
    end = float(rates.max(initial=0.0)) or 1.0
    counts = np.histogram(rates, np.linspace(0, end, BINS + 1))[0]
    return {**values, "mean": float(rates.mean()), "end": end, "counts": counts.tolist()}
