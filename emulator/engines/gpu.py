"""The engine for GPUs: `gpu_kernel.py` with tensors in and out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hxtrain.emulator.dynamics import SynapseBlock
from hxtrain.emulator.layout import TIMESTAMP_RESOLUTION
from hxtrain.emulator.parameters import recorded_neurons
from hxtrain.emulator.trials import Events, Trials

from .engine import Engine, Setup, check_events

WARPS = 2
"""Groups of 32 threads that simulate a trial."""
EVENTS = 256
"""Number of events that one program of `sort_in` handles."""


class GpuEngine(Engine):
    """Triton kernels.

    Args:
        device: CUDA device.

    Raises:
        ImportError: Triton is not installed.
    """

    name = "gpu"

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._kernel = _kernel()

    def prepare(self, setup: Setup) -> None:
        """Take the chips; see `Engine.prepare`."""
        layout, params, scalars, synapses, *_ = setup
        self.scalars = scalars
        self.layout = layout
        self.capacity = setup.capacity
        self.substep = setup.substep
        _, self._merged, _, self._neurons = params.syn.shape
        fields = (params.reset, params.refractory, params.mem, params.noise, params.cadc_gain, params.cadc_offset)
        early = np.broadcast_to(params.early, params.mem.shape)
        self._neuron = self._tensor(np.stack([*fields, early], axis=1))  # [C, fields, N]
        # [C, A, 2, N] twice to [C, fields, A, N]
        self._circuit = self._tensor(np.concatenate([params.syn, params.drive], axis=2).transpose(0, 2, 1, 3))
        self._table = self._tensor(params.table)
        columns = np.full(self._neurons, -1, np.int32)
        recorded = recorded_neurons(params)
        columns[recorded] = np.arange(len(recorded))
        self._columns = self._tensor(columns)
        self._recorded = len(recorded)
        groups = np.diff(params.bounds)
        self._external_circuit, self._internal_circuit = (
            self._tensor(np.repeat(circuits, groups, axis=1).astype(np.int8))
            for circuits in (params.external_circuit, params.internal_circuit)
        )
        self._connected = bool((params.internal_circuit >= 0).any())
        self._synapses = [[_Synapses.of(block, self.device) for block in blocks] for blocks in synapses]
        self._steps = scalars.samples * scalars.per_sample
        if scalars.gap > 0 and scalars.clamped < 0:
            self._steps += scalars.gap

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(np.ascontiguousarray(values), device=self.device)

    def check(self, events: Events, batch: int) -> None:
        """Do nothing: a kernel checks the events of a run, and the host need not wait for it."""

    def interrupt(self) -> None:
        """Ignore the request: runs are short."""

    def charges(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the charges of weights; see `Engine.charges`."""
        layout = self.layout
        bounds = self.layout.bounds
        external = torch.zeros(len(self._synapses), layout.inputs, bounds[-1], device=self.device)
        internal = torch.zeros(len(self._synapses), bounds[-1], bounds[-1], device=self.device)
        for index, (wiring, matrix) in enumerate(zip(layout.wirings, weights, strict=True)):
            w = matrix.detach().to(self.device, torch.int32).t()
            first = 0 if wiring.source is None else bounds[wiring.source]
            charges = external if wiring.source is None else internal
            columns = slice(bounds[wiring.target], bounds[wiring.target + 1])
            for c, blocks in enumerate(self._synapses):
                charges[c, first : first + wiring.size, columns] = blocks[index].charges(w)
        return external, internal

    def run(self, trials: Trials) -> tuple[Tensor, Events]:
        """Simulate trials; see `Engine.run`."""
        with torch.cuda.device_of(self._table):  # type: ignore[no-untyped-call]  # Triton takes the current one
            return self._run(trials)

    def _run(self, trials: Trials) -> tuple[Tensor, Events]:
        s = self.scalars
        batch = len(trials.chip)
        rows = trials.rows
        if batch * self._steps >= 1 << 31:
            raise ValueError(f"{batch} trials of {self._steps} sub-steps are too many for one run; use smaller batches")
        indices = trials.chip.astype(np.int32), trials.row.astype(np.int32)
        words = (*indices, trials.keys.view(np.int32), trials.phase.view(np.int32))
        records = self._tensor(np.column_stack(words))
        status = torch.zeros(3, dtype=torch.int32, device=self.device)
        first, units, times = self._by_step(trials.events, records, status)
        codes = torch.empty(batch, s.samples, self._recorded, dtype=torch.uint8, device=self.device)
        counts = torch.empty(batch, dtype=torch.int32, device=self.device)
        spike_neurons = torch.empty(batch, self.capacity, dtype=torch.int32, device=self.device)
        spike_times = torch.empty(batch, self.capacity, device=self.device)
        slow = np.stack([rows.rest, rows.start, rows.threshold], axis=1)
        is_chained = s.gap >= 0  # each trial continues from the previous one
        self._kernel.simulate[(1 if is_chained else batch,)](
            records, first, units, times, trials.external, trials.internal, self._external_circuit,
            self._internal_circuit, self._neuron, self._circuit, self._tensor(slow), self._table,
            self._columns, codes, counts, spike_neurons, spike_times, status,
            batch if is_chained else 1, self.layout.inputs, self._neurons, self._recorded, self._merged, self.capacity,
            s.samples, s.per_sample, self._steps,
            s.clamped, s.delay, s.jitter, s.cadc_noise, s.saturation, 1 / s.saturation if s.saturation else 0.0,
            s.low, s.high,
            CLAMPED=s.clamped >= 0, CONNECTED=self._connected, SATURATING=s.saturation > 0,
            NOISY=s.noisy, SKEWED=s.skewed, RAILED=s.railed, WIDTH=_power(self._neurons),
            CIRCUITS=_power(self._merged), num_warps=WARPS,
        )  # fmt: skip
        has_bad_event, total, largest = status.tolist()
        if has_bad_event:
            check_events(trials.events, self.layout.inputs, batch)  # raises the error in detail
            raise ValueError("an event is out of range")
        if largest > self.capacity:
            raise RuntimeError(f"a trial had {largest} spikes, but its buffer holds {self.capacity}; this is a bug")
        sample, neuron = (torch.empty(total, dtype=torch.int64, device=self.device) for _ in range(2))
        stamps = torch.empty(total, device=self.device)
        self._kernel.collect[(batch,)](
            records, counts, counts.cumsum(0), spike_neurons, spike_times, sample, neuron, stamps, self.capacity,
            self.substep, TIMESTAMP_RESOLUTION, BLOCK=64,
        )  # fmt: skip
        return codes, Events(sample, neuron, stamps)

    def _by_step(self, events: Events, trials: Tensor, status: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sort events by trial and sub-step.

        Returns:
            Index of the first event of each trial and sub-step `[B steps + 1]`, units `[E]`, times in sub-steps `[E]`.
        """
        batch = len(trials)
        count = len(events.time)
        sample = events.sample.contiguous()
        unit = events.unit.contiguous()
        time = events.time.float().contiguous()
        place = torch.empty(count, dtype=torch.int32, device=self.device)
        event_times = torch.empty_like(time)
        if count:
            self._kernel.sort_in[((count + EVENTS - 1) // EVENTS,)](
                sample, unit, time, trials, place, event_times, status, count, batch, self.layout.inputs, self._steps,
                self.substep, BLOCK=EVENTS,
            )  # fmt: skip
        place, order = torch.sort(place, stable=True)
        edges = torch.arange(batch * self._steps + 1, dtype=torch.int32, device=self.device)
        return torch.searchsorted(place, edges, out_int32=True), unit[order], event_times[order]


class _Synapses(NamedTuple):
    """The synapses of a wiring as tensors `[2, size, targets]`, see `SynapseBlock`."""

    factor: Tensor
    low: Tensor | None
    high: Tensor | None

    @classmethod
    def of(cls, block: SynapseBlock, device: torch.device) -> _Synapses:
        """Return the synapses of a block on a device."""
        stuck = (None if bits is None else torch.from_numpy(bits).to(device).int() for bits in (block.low, block.high))
        return cls(torch.from_numpy(block.factor).to(device), *stuck)

    def charges(self, w: Tensor) -> Tensor:
        """Return the signed charges that an event delivers through integer weights `[size, targets]`."""
        if self.low is None or self.high is None:
            return torch.where(w > 0, self.factor[0], self.factor[1]) * w
        excitatory = (w.clamp(min=0) & ~self.low[0]) | self.high[0]
        inhibitory = ((-w).clamp(min=0) & ~self.low[1]) | self.high[1]
        return excitatory * self.factor[0] - inhibitory * self.factor[1]


def _power(count: int) -> int:
    """Return the smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


@cache
def _kernel() -> Any:
    """Return the kernels; Triton, which comes with torch for CUDA on Linux, is imported on the first use."""
    from . import gpu_kernel

    return gpu_kernel
