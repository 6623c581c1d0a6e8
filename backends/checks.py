"""Checks of a device's recordings before any use of their tensors, the same for every device."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .contract import INTEGERS, Circuit, Cost, DeviceError, Health, Population, Recording, Stimulus
from .spikes import Spikes

TYPES = {"sample": INTEGERS, "unit": INTEGERS, "time": (torch.float32, torch.float64)}
"""Types that the host accepts for the parts of an event."""


def check_recording(circuit: Circuit, recording: object, stimulus: Stimulus) -> Recording:
    """Return what the circuit requests of a recording, if a run can give it; the codes themselves are not checked.

    Args:
        circuit: Circuit of the run.
        recording: Value that a backend's `run` returned.
        stimulus: Stimulus of the run.

    Raises:
        DeviceError: A part is missing or has another type or size, a spike is out of range, or the recording belongs
            to another run.
    """
    if not isinstance(recording, Recording):
        raise DeviceError(f"the device returned {type(recording).__name__}, not a Recording")
    if not isinstance(recording.cost, Cost) or not isinstance(recording.health, Health):
        types = f"{type(recording.cost).__name__} and {type(recording.health).__name__}"
        raise DeviceError(f"cost and health: expected Cost and Health, got {types}")
    if recording.clock not in (None, stimulus.clock):
        raise DeviceError(
            f"the recording is of the run at clock {recording.clock}, not of the one at clock {stimulus.clock}: an "
            "answer came too late, or twice"
        )
    batch = stimulus.spikes.samples
    lost = recording.lost
    if lost is not None and not _is(lost, (torch.bool,), (batch,)):
        raise DeviceError(f"lost trials: expected torch.bool ({batch},), got {_describe(lost)}")
    traced = circuit.traced
    spiking = circuit.spiking
    for population in traced:
        shape = (batch, circuit.samples, population.size)
        codes = recording.traces.get(population.name)
        if not _is(codes, (torch.uint8,), shape):
            raise DeviceError(f"traces of {population.name}: expected uint8 {shape}, got {_describe(codes)}")
    for population in spiking:
        _check_spikes(population, recording.spikes.get(population.name), batch)
    if (len(recording.traces), len(recording.spikes)) == (len(traced), len(spiking)):
        return recording
    return replace(
        recording,
        traces={population.name: recording.traces[population.name] for population in traced},
        spikes={population.name: recording.spikes[population.name] for population in spiking},
    )


def _check_spikes(population: Population, spikes: object, batch: int) -> None:
    """Refuse spikes that no trial can have: compiled loops use them as indices to read and write memory."""
    if not isinstance(spikes, Spikes) or (spikes.samples, spikes.units) != (batch, population.size):
        size = f"{spikes.samples} trials of {spikes.units} units" if isinstance(spikes, Spikes) else _describe(spikes)
        raise DeviceError(
            f"spikes of {population.name} are missing or of the wrong size: expected {batch} trials of "
            f"{population.size} units, got {size}"
        )
    events = spikes.time.numel() if isinstance(spikes.time, Tensor) else 0
    for name, types in TYPES.items():
        part = getattr(spikes, name)
        if not _is(part, types, (events,)):
            kind = "float32" if name == "time" else "int64"
            raise DeviceError(f"spikes.{name} of {population.name}: expected {kind} ({events},), got {_describe(part)}")
    try:
        spikes.check()
    except ValueError as error:
        raise DeviceError(f"spikes of {population.name}: {error}") from error


def _is(part: object, types: tuple[torch.dtype, ...], shape: tuple[int, ...]) -> bool:
    return isinstance(part, Tensor) and part.dtype in types and tuple(part.shape) == shape


def _describe(part: object) -> str:
    if isinstance(part, Tensor):
        return f"{part.dtype} {tuple(part.shape)}"
    return "none" if part is None else type(part).__name__
