"""The readable engine: the equations of `dynamics.py` in torch, sub-step by sub-step.

It runs on any torch device, with any number of sub-steps, in single or double precision. It is the reference for the
other engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hxtrain.emulator.parameters import (
    STREAM_CADC,
    STREAM_JITTER,
    STREAM_MEMBRANE,
    Params,
    Rows,
    Scalars,
    recorded_neurons,
)
from hxtrain.emulator.trials import Events, Trials

from .engine import Delivery, SubstepEngine

_LOW_WORD = 0xFFFFFFFF
_PER_CHIP = ("reset", "refractory", "mem", "syn", "drive", "noise", "cadc_offset", "cadc_gain")


class State(NamedTuple):
    """State of all neurons of all samples (`B` samples, `N` neurons, `A` merged circuits).

    Attributes:
        v: membrane (LSB) `[B, N]`.
        current: synaptic currents (weight LSB) `[A, 2, B, N]`.
        held: remaining refractory period in sub-steps `[B, N]`; negative outside of refractory periods.
    """

    v: Tensor
    current: Tensor
    held: Tensor


class Residue(NamedTuple):
    """State at the end of a trial, from which a close next trial continues.

    Attributes:
        state: state of all neurons.
        pending: shares of spikes that are due in the current and in the next sub-step, each `[B, N]`.
    """

    state: State
    pending: list[Tensor]


class StepSpikes(NamedTuple):
    """Spikes of one sub-step.

    Attributes:
        fired: mask of the neurons that fired `[B, N]`.
        part: time of each spike within the sub-step, as a fraction `[B, N]`.
    """

    fired: Tensor
    part: Tensor


def pade_tanh(x: Tensor) -> Tensor:
    """Return the saturation function: the [3/2] Pade approximant of tanh, limited to 1 (x >= 0)."""
    square = x * x
    return (x * (15 + square) / (15 + 6 * square)).clamp(max=1)


def mix(x: Tensor) -> Tensor:
    """Return the 32-bit avalanche hash of int64 tensors that hold 32-bit words."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _LOW_WORD
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _LOW_WORD
    return x ^ (x >> 16)


def noise_words(stream: int, step: int, neurons: int, keys: Tensor) -> Tensor:
    """Return the random words `[B, N]` of one stream and step; `keys` is `[B, 2]` int64."""
    neuron = torch.arange(neurons, device=keys.device)
    counter = (stream << 28) | (step << 12) | neuron
    return mix((mix(counter ^ keys[:, :1]) + keys[:, 1:]) & _LOW_WORD)


class Motion:
    """Equations of motion of configured chips on one torch device.

    Args:
        params: parameters of the chips, see `parameters.py`.
        scalars: scalar settings, see `parameters.py`.
        rows: slow state of the chips.
        chip: index of the chip of each sample, int64 `[B]`.
        row: index into `rows` of each sample, int64 `[B]`.
        device: torch device of the computation.
        dtype: precision of the computation.
    """

    def __init__(
        self,
        params: Params,
        scalars: Scalars,
        rows: Rows,
        chip: Tensor,
        row: Tensor,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.dtype = dtype
        self.device = torch.device(device)
        self.s = scalars
        self.chip = chip.to(self.device)
        row = row.to(self.device)
        per_chip = {name: self._tensor(getattr(params, name))[self.chip] for name in _PER_CHIP}
        shared = {name: self._tensor(getattr(params, name)) for name in set(params._fields) - set(_PER_CHIP)}
        slow = {name: self._tensor(value)[row] for name, value in rows._asdict().items()}
        # names as in `Params` and `Rows`; quantities of chips and rows have the shape `[B, ...]`
        self.p: Any = SimpleNamespace(**per_chip, **shared, **slow)
        self.p.syn, self.p.drive = (x.permute(1, 2, 0, 3) for x in (self.p.syn, self.p.drive))  # [A, 2, B, N]
        self.recorded = torch.from_numpy(recorded_neurons(params)).to(self.device)
        self.n_recorded = scalars.samples * scalars.per_sample
        self.steps = self.n_recorded + (scalars.gap if scalars.gap > 0 and scalars.clamped < 0 else 0)

    def _tensor(self, values: Any) -> Tensor:
        tensor = torch.as_tensor(values.copy(), device=self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def start(self) -> State:
        """Return the state of all samples at rest (or at reset, if the layout says so)."""
        rest: Tensor = self.p.start
        return State(
            v=rest.clone(),
            current=torch.zeros_like(self.p.syn),
            held=torch.full_like(rest, -1),
        )

    def external_charge(self, sample: Tensor, unit: Tensor, time: Tensor, charge: Tensor) -> Tensor:
        """Return the synaptic charge `[steps, A, 2, B, N]` that external events deliver in each sub-step."""
        spikes = charge.new_zeros(self.steps + 1, len(self.chip), charge.shape[1])
        inside = time < self.steps
        sample = sample[inside]
        unit = unit[inside]
        time = time[inside].to(self.dtype)
        step = time.long()
        spikes.index_put_((step, sample, unit), 1 - (time - step), accumulate=True)
        spikes.index_put_((step + 1, sample, unit), time - step, accumulate=True)
        return self._through_synapses(spikes[:-1], charge, self.p.external_circuit)

    def _through_synapses(self, spikes: Tensor, charge: Tensor, circuit: Tensor) -> Tensor:
        """Sum charges by merged circuit and sign: spikes `[..., B, J]` to `[..., A, 2, B, N]`."""
        groups = torch.diff(self.p.bounds)
        by_circuit = circuit.repeat_interleave(groups, dim=1)  # [J, N]
        parts = []
        for a in range(self.p.syn.shape[0]):
            circuit_charge = torch.where(by_circuit == a, charge, 0)  # [C, J, N]
            signs = [self._product(spikes, part.clamp(min=0)) for part in (circuit_charge, -circuit_charge)]
            parts.append(torch.stack(signs, dim=-3))
        return torch.stack(parts, dim=-4)

    def _product(self, spikes: Tensor, charge: Tensor) -> Tensor:
        """Return the product of `spikes [..., B, J]` with the charges `[C, J, N]` of each sample's chip."""
        if charge.shape[0] == 1:
            return spikes @ charge[0]
        result = spikes.new_zeros(*spikes.shape[:-1], charge.shape[-1])
        for c in range(charge.shape[0]):
            members = self.chip == c
            result[..., members, :] = spikes[..., members, :] @ charge[c]
        return result

    def read_cadc(self, v: Tensor, previous: Tensor, k: int, keys: Tensor) -> Tensor:
        """Return 8-bit samples `[B, recorded neurons]` of the membranes."""
        s = self.s
        if s.skewed:
            v = v - self.p.early * (v - previous)
        if s.railed:
            low = s.low + 10
            high = s.high - 10
            v = torch.where(v > high, high + 10 * pade_tanh((v - high).clamp(min=0) / 10), v)
            v = torch.where(v < low, low - 10 * pade_tanh((low - v).clamp(min=0) / 10), v)
        words = noise_words(STREAM_CADC, k, v.shape[1], keys)
        v = v + s.cadc_noise * self.p.table[words & 0xFFFF]
        code: Tensor = self.p.cadc_gain * (v - 128) + 128 + self.p.cadc_offset + 0.5
        return code.clamp(0, 255).to(torch.uint8)[:, self.recorded]

    def step(self, k: int, state: State, keys: Tensor) -> tuple[State, StepSpikes, Tensor]:
        """Advance one sub-step; `state.current` includes the charges of this sub-step.

        Returns:
            The new state, the spikes, and the membrane at the start of the sub-step `[B, N]`.
        """
        p, s = self.p, self.s
        current = state.current
        effective_current = s.saturation * pade_tanh(current / s.saturation) if s.saturation > 0 else current
        v = state.v * p.mem + p.rest + (p.drive * effective_current).sum((0, 1))
        if s.noisy:
            words = noise_words(STREAM_MEMBRANE, k // 2, v.shape[1], keys)
            v = v + p.noise * p.table[words & 0xFFFF if k % 2 == 0 else words >> 16]
        v = v.clamp(s.low, s.high)
        share = state.held.clamp(0, 1)
        rise = v - p.reset  # what a refractory membrane would have gained over the whole sub-step
        v = torch.where(share > 0, v - rise * share, v)
        previous = torch.where(share > 0, torch.where(share < 1, v - rise, v), state.v)
        held = (state.held - 1).clamp(min=-1)
        fired = (v > p.threshold) & (held < 0)
        rise = v - previous
        part = torch.where(rise > 0, (p.threshold - previous) / rise.where(rise > 0, 1.0), 1.0).clamp(0, 1)
        next_state = State(
            v=torch.where(fired, p.reset, v),
            current=current * p.syn,
            held=torch.where(fired, (p.refractory - (1 - part)).clamp(min=0), held),
        )
        return next_state, StepSpikes(fired, part), torch.where(fired, p.reset, previous)

    def simulate(
        self,
        sample: Tensor,
        unit: Tensor,
        time: Tensor,
        external: Tensor,
        internal: Tensor,
        keys: Tensor,
        residue: Residue | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Residue]:
        """Simulate a batch, all samples side by side.

        Args:
            sample: sample of each external event `[E]`.
            unit: input of each external event `[E]`.
            time: time of each external event in sub-steps `[E]`.
            external: signed charges of the synapses of external inputs (weight LSB) `[C, J, N]`.
            internal: signed charges of the synapses between neurons (weight LSB) `[C, N, N]`.
            keys: noise keys of each sample, int64 `[B, 2]`.
            residue: state at the end of the previous trial; None for a start at rest.

        Returns:
            CADC codes uint8 `[B, T, recorded neurons]`; sample `[S]`, neuron `[S]` and time `[S]` (sub-steps) of all
            spikes; the state at the end.
        """
        s = self.s
        charges = self.external_charge(sample, unit, time, external)
        connected = bool((self.p.internal_circuit >= 0).any())
        state = self.start()
        pending = [torch.zeros_like(state.v), torch.zeros_like(state.v)]  # due in this and in the next sub-step
        if residue is not None and s.clamped >= 0:
            state = State(self.p.reset.clone(), residue.state.current * s.clamped, state.held)
        elif residue is not None:
            state, pending = residue.state, residue.pending
        previous = state.v
        codes, events = [], []
        for k in range(self.steps):
            if k % s.per_sample == 0 and k < self.n_recorded:
                codes.append(self.read_cadc(state.v, previous, k // s.per_sample, keys))
            charge = charges[k]
            if connected:
                charge = charge + self._through_synapses(pending[0], internal, self.p.internal_circuit)
            state = state._replace(current=state.current + charge)
            state, (fired, part), previous = self.step(k, state, keys)
            words = noise_words(STREAM_JITTER, k, state.v.shape[1], keys)
            jitter = s.jitter * self.p.table[words & 0xFFFF]
            late = part + jitter + s.delay - 1
            pending = [pending[1] + torch.where(fired, 1 - late, 0), torch.where(fired, late, 0)]
            if k < self.n_recorded:
                b, n = fired.nonzero(as_tuple=True)
                events.append((b, n, k + part[b, n] + jitter[b, n]))
        sample, neuron, spike_times = (torch.cat(parts) for parts in zip(*events, strict=True))
        return torch.stack(codes, dim=1), (sample, neuron, spike_times), Residue(state, pending)


def _run_part(
    params: Params,
    scalars: Scalars,
    trials: Trials,
    part: slice,
    residue: Residue | None,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, Events, Residue]:
    batch = range(len(trials.chip))[part]
    mask = (trials.events.sample >= batch.start) & (trials.events.sample < batch.stop)
    sample, unit, time = (x[mask].to(device) for x in trials.events)
    chip, row = torch.from_numpy(trials.chip[part]), torch.from_numpy(trials.row[part])
    motion = Motion(params, scalars, trials.rows, chip, row, device, dtype)
    keys = torch.from_numpy(trials.keys[part].astype(np.int64)).to(device)
    external, internal = (x.to(device, dtype) for x in (trials.external, trials.internal))
    codes, spikes, next_residue = motion.simulate(sample - batch.start, unit, time, external, internal, keys, residue)
    return codes, Events(*spikes), next_residue


def _by_sample(spikes: Events) -> Events:
    order = torch.argsort(spikes.sample, stable=True)
    return Events(spikes.sample[order], spikes.unit[order], spikes.time[order].float())


class ReadableEngine(SubstepEngine):
    """The reference.

    Args:
        device: torch device of the computation.
        dtype: precision of the computation.
    """

    name = "readable"

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(device)
        self.dtype = dtype

    def write(self, deliveries: Sequence[Delivery]) -> None:
        """Write the charges that an event delivers; see `SubstepEngine.write`."""
        for block, weights, first, rows in deliveries:
            rows[:, first : first + weights.shape[1]] = block.charges(weights.numpy())

    def simulate(self, trials: Trials) -> tuple[Tensor, Events]:
        """Simulate trials; see `SubstepEngine.simulate`."""
        scalars = self.setup.scalars
        arguments = (self.setup.params, scalars, trials)
        precision = (self.device, self.dtype)
        if scalars.gap < 0:
            codes, events, _ = _run_part(*arguments, slice(None), None, *precision)
            return self._recording(codes, events)
        residue = None
        pieces = []
        spikes = []
        for b in range(len(trials.chip)):  # each trial continues from the previous one
            codes, events, residue = _run_part(*arguments, slice(b, b + 1), residue, *precision)
            pieces.append(codes)
            spikes.append(Events(events.sample + b, events.unit, events.time))
        return self._recording(torch.cat(pieces), Events(*(torch.cat(parts) for parts in zip(*spikes, strict=True))))

    def _recording(self, codes: Tensor, spikes: Events) -> tuple[Tensor, Events]:
        """Return codes and spikes, ordered by sample, on the device of recordings."""
        ordered = _by_sample(spikes)
        return codes.to(self.recording_device), Events(*(part.to(self.recording_device) for part in ordered))

    def interrupt(self) -> None:
        """Ignore the request; this engine is for small runs."""
