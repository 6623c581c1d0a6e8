r"""The post-synaptic potential on the time grid of the traces, and sums over it.

The model of a layer between its input spikes x and its membrane U (leak 0, threshold 1)::

    I[t+1] = alpha I[t] + W x[t]          alpha = exp(-dt / tau_syn)
    U[t+1] = beta U[t] + I[t+1]           beta  = exp(-dt / tau_mem)

is linear and time-invariant, since the resets are in the measured trace or in the twin's loop. So
`U = K (W x)` with the Toeplitz matrix `K[t, s] = kernel[t - s]`. Shape letters: `T` time steps,
`B` samples, `J` inputs, `N` neurons, `E` events.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from hxtrain.backends import Spikes

from .conversion import count_grid, group_events
from .events import GroupedEvents
from .shapes import require

LONG = 512
"""Largest number of steps T for which a sum over time is one product with a matrix `[T, T]`."""
BLOCK = 128
"""Steps of a block of a longer sum."""


@lru_cache(maxsize=256)
def decay(dt: float, tau: float) -> float:
    """Return `exp(-dt / tau)`."""
    return math.exp(-dt / tau)


def psp_kernel(steps: int, alpha: float, beta: float) -> Tensor:
    """Return the membrane's response `[T]` to one unit-weight spike in bin 0 (0 in bin 0)."""
    response = [0.0]
    current = 1.0
    membrane = 1.0
    for _ in range(steps - 1):
        response.append(membrane)
        current *= alpha
        membrane = beta * membrane + current
    return torch.tensor(response, dtype=torch.float64)


@lru_cache(maxsize=64)
def psp_matrix(steps: int, alpha: float, beta: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the lower-triangular Toeplitz matrix `[T, T]` of the post-synaptic potential."""
    with torch.inference_mode(False):  # the cached matrix must serve training, too
        kernel = psp_kernel(steps, alpha, beta)
        lag = torch.arange(steps)[:, None] - torch.arange(steps)[None, :]
        return torch.where(lag > 0, kernel[lag.clamp(min=0)], 0.0).to(device, dtype)


@lru_cache(maxsize=64)
def decay_matrix(steps: int, factor: float, lag: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the lower-triangular Toeplitz matrix `[T, T]` of `factor^(t - s - lag)` for t - s of at least `lag`."""
    with torch.inference_mode(False):  # the cached matrix must serve training, too
        distance = torch.arange(steps)[:, None] - torch.arange(steps)[None, :] - lag
        return torch.where(distance >= 0, factor ** distance.clamp(min=0).double(), 0.0).to(device, dtype)


def decaying_sum(x: Tensor, factor: float, lag: int) -> Tensor:
    """Return the sum over s of `factor^(t - s - lag) x[s]`, for t - s of at least `lag`: `[T, ...]` to the same shape.

    Its cost is linear in T beyond `LONG` steps: a product for each block of steps, and the sum of all earlier ones.

    Args:
        x: Terms.
        factor: Decay per step.
        lag: Number of steps after which a term counts.
    """
    steps = len(x)
    if steps <= LONG:
        return over_time(decay_matrix(steps, factor, lag, x.dtype, x.device), x)
    matrix = decay_matrix(BLOCK, factor, 0, x.dtype, x.device)
    powers = factor * matrix[:, :1]  # of the sum at the end of the previous block
    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    result[:lag] = 0
    previous_sum = torch.zeros_like(x[:1]).flatten(1)
    for terms, sums in zip(torch.split(x[: steps - lag], BLOCK), torch.split(result[lag:], BLOCK), strict=True):
        size = len(terms)
        block = torch.addmm(powers[:size] * previous_sum, matrix[:size, :size], terms.reshape(size, -1))
        previous_sum = block[-1:]
        sums.copy_(block.view(sums.shape))
    return result


def decaying_sum_of_later(x: Tensor, factor: float, lag: int) -> Tensor:
    """Return the sum over t of `factor^(t - s - lag) x[t]`, for t - s of at least `lag`: the transpose."""
    if len(x) <= LONG:
        return over_time(decay_matrix(len(x), factor, lag, x.dtype, x.device).t(), x)
    return decaying_sum(x.flip(0), factor, lag).flip(0)


def potential(drive: Tensor, alpha: float, beta: float) -> Tensor:
    """Return the membranes `K drive` without resets `[T, B, N]` of summed weights of each step's inputs."""
    if len(drive) <= LONG:
        return over_time(psp_matrix(len(drive), alpha, beta, drive.dtype, drive.device), drive)
    return decaying_sum(decaying_sum(drive, alpha, 0), beta, 1)


def potential_gradient(grad_membrane: Tensor, alpha: float, beta: float) -> Tensor:
    """Return the gradient of the drive, `K^T grad_membrane`, see `potential`."""
    if len(grad_membrane) <= LONG:
        matrix = psp_matrix(len(grad_membrane), alpha, beta, grad_membrane.dtype, grad_membrane.device)
        return over_time(matrix.t(), grad_membrane)
    return decaying_sum_of_later(decaying_sum_of_later(grad_membrane, beta, 1), alpha, 0)


def over_time(matrix: Tensor, x: Tensor) -> Tensor:
    """Return `matrix [T, T]` applied to the first dimension of `x [T, B, N]`."""
    return (matrix @ x.reshape(x.shape[0], -1)).view(x.shape)


class GridEvents:
    """Input events on the time grid, grouped once for the sums of a forward and a backward pass.

    Args:
        spikes: Events; events after the window are left out.
        dt: Width of a bin (s).
        steps: Number of bins `T`.

    Attributes:
        samples: Number of samples B.
        units: Number of units J.
        shape: T, B, J.
        events: Number of events, late ones included.
        on_gpu: Whether the events are on a GPU.
    """

    def __init__(self, spikes: Spikes, dt: float, steps: int) -> None:
        self._spikes = spikes
        self.dt = dt
        self.steps = steps
        self.samples = spikes.samples
        self.units = spikes.units
        self.shape = (steps, spikes.samples, spikes.units)
        self.events = len(spikes.sample)
        self.on_gpu = spikes.time.device.type == "cuda"

    def __repr__(self) -> str:
        """Describe the events in a line."""
        return f"GridEvents({self._spikes!r}, {self.steps} steps of {self.dt:.3g} s)"

    @property
    def spikes(self) -> Spikes:
        """Events with their exact times, late ones included."""
        return self._spikes

    @cached_property
    def late(self) -> int:
        """Number of events after the window; the host waits for the GPU to count them."""
        on_cpu = self._spikes.time.device.type == "cpu"
        if "grouped" in vars(self) or (on_cpu and torch.is_grad_enabled()):  # the gradient groups them anyway
            return self.events - self.grouped.units.shape[0]
        return self.events - int(self._spikes.inside(self.dt, self.steps))

    def first_events(self, steps: int) -> int:
        """Return the number of events in the first steps; the host waits for the GPU to count them."""
        return int(self._spikes.inside(self.dt, steps))

    @cached_property
    def grouped(self) -> GroupedEvents:
        """Events grouped by sample and step; only on the CPU."""
        return group_events(self._spikes, self.dt, self.steps)

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        """Row `step * B + sample` and unit of each event within the window."""
        bins = self._spikes.bins(self.dt)
        indices = (bins < self.steps).nonzero()[:, 0]
        return (bins * self.samples + self._spikes.sample)[indices], self._spikes.unit[indices]

    def counts(self, first: int, last: int) -> Tensor:
        """Return the numbers of events in steps `first` to `last` (exclusive), float32 `[W, B, J]`."""
        shape = (last - first, self.samples, self.units)
        if "grouped" in vars(self):  # offsets of all samples and steps, which are not made for this alone
            return count_grid(self.grouped, shape, first)
        index, on_host = self._in_order
        size = self.samples * self.units
        begin, end = np.searchsorted(on_host, (first * size, last * size))
        return torch.bincount(index[begin:end] - first * size, minlength=math.prod(shape)).view(shape).float()

    @cached_property
    def _in_order(self) -> tuple[Tensor, np.ndarray[Any, np.dtype[np.int64]]]:
        """Index in a grid `[T, B, J]` of each event, ascending, and the same numbers on the host."""
        row, unit = self._rows
        index = torch.sort(row * self.units + unit).values
        return index, index.cpu().numpy()

    @cached_property
    def _dense(self) -> Tensor | None:
        """Events as a grid `[T, B, J]` on a GPU, where a product with many zeros is faster than sorting; else None."""
        return self._spikes.to_grid(self.dt, self.steps) if self.on_gpu else None

    def drive(self, weight: Tensor) -> Tensor:
        """Return `W x`, the summed weights of each bin's events: `[N, J]` to `[T, B, N]`.

        Raises:
            ValueError: the weights have another number of inputs.
        """
        require("weights", weight, (len(weight), self.units), weight.dtype)
        if self._dense is not None:
            return self._dense.to(weight.dtype) @ weight.t()
        row, unit = self._rows
        order, offsets = _bags(row, self.steps * self.samples)
        sums = embedding_bag(unit[order], weight.t().contiguous(), offsets, mode="sum")
        return sums.view(self.steps, self.samples, -1)

    def weight_gradient(self, gradient: Tensor) -> Tensor:
        """Return `sum over events of gradient[bin, sample]` per input: `[T, B, N]` to `[N, J]`.

        Raises:
            ValueError: the gradient has other steps or samples.
        """
        require("gradient", gradient, (self.steps, self.samples, gradient.shape[-1]), gradient.dtype)
        if self._dense is not None:
            return gradient.flatten(0, 1).t() @ self._dense.to(gradient.dtype).flatten(0, 1)
        row, unit = self._rows
        order, offsets = _bags(unit, self.units)
        flat = gradient.reshape(self.steps * self.samples, -1)
        return embedding_bag(row[order], flat, offsets, mode="sum").t()


def _bags(index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the order that sorts events into `count` bags, and the start of each bag."""
    ordered, order = torch.sort(index, stable=True)
    return order, torch.searchsorted(ordered, torch.arange(count, device=index.device))
