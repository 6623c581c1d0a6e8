"""Tensors to frames and back: weights, spikes and traces, checked on arrival."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hxtrain.backends.contract import Circuit, Recording, Stimulus
from hxtrain.backends.spikes import Spikes

from .protocol import Block, Events, Recorded, Run
from .wire import WireError

Array = npt.NDArray[np.generic]
INDEX = ("int32", "int64")
WEIGHTS = ("int8", "int16", "int32")
LARGEST_INDEX = 2**31 - 1
LONGEST_NAME = 128
MOST_INPUTS, MOST_SAMPLES = 2**16, 2**20
"""Most inputs and trace samples of a circuit."""


class Sender:
    """Collects tensors; `frames` are their bytes, not copied where they are contiguous."""

    def __init__(self) -> None:
        self.frames: list[memoryview] = []

    def add(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Block:
        """Add a tensor, as another type if one is given, and return what describes it."""
        array = np.ascontiguousarray(tensor.detach().to(dtype or tensor.dtype).numpy())
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        self.frames.append(array.reshape(-1).view(np.uint8).data)
        block = Block(len(self.frames) - 1, array.dtype.name, tuple(array.shape))  # type: ignore[arg-type]
        return block

    def add_spikes(self, spikes: Spikes) -> Events:
        """Add spikes, with indices of 32 bits."""
        return Events(
            spikes.samples,
            spikes.units,
            self.add(spikes.sample, torch.int32),
            self.add(spikes.unit, torch.int32),
            self.add(spikes.time, torch.float32),
        )


class Receiver:
    """Hands out tensors of a message; each frame must be used once."""

    def __init__(self, frames: Sequence[memoryview]) -> None:
        self._frames: list[memoryview | None] = list(frames)

    def take(self, block: Block, place: str, dtypes: Sequence[str], shape: Sequence[int | None]) -> Tensor:
        """Return a tensor of a given type and shape (None: any length); bytes stay where they arrived.

        Raises:
            WireError: the block or its frame is not that.
        """
        expected = tuple(shape)
        if block.dtype not in dtypes or len(block.shape) != len(expected):
            raise WireError(f"{place}: expected {' or '.join(dtypes)} {expected}, got {block.dtype} {block.shape}")
        if any(n < 0 or want not in (None, n) for n, want in zip(block.shape, expected, strict=True)):
            raise WireError(f"{place}: expected shape {expected}, got {block.shape}")
        if not 0 <= block.frame < len(self._frames) or (frame := self._frames[block.frame]) is None:
            raise WireError(f"{place}: frame {block.frame} is not there, or belongs to something else")
        dtype, count = np.dtype(block.dtype).newbyteorder("<"), 1
        for n in block.shape:
            count *= n
        if len(frame) != count * dtype.itemsize:
            raise WireError(
                f"{place}: {block.dtype} {block.shape} has {count * dtype.itemsize} bytes, not {len(frame)}"
            )
        self._frames[block.frame] = None
        array = np.frombuffer(frame, dtype)
        own = array.astype(dtype.newbyteorder("="), copy=dtype.itemsize > 1 or frame.readonly)  # aligned, writable
        if block.dtype == "bool" and own.view(np.uint8).max(initial=0) > 1:
            raise WireError(f"{place}: a truth value must be 0 or 1")
        return torch.from_numpy(own.reshape(block.shape))

    def take_spikes(self, events: Events, place: str, samples: int | None, units: int) -> Spikes:
        """Return spikes of so many samples (None: any number) and units.

        Raises:
            WireError: they are none.
        """
        if events.units != units or samples not in (None, events.samples):
            wanted = "any number of" if samples is None else samples
            raise WireError(
                f"{place}: expected {wanted} samples and {units} units, got {events.samples} and {events.units}"
            )
        if not 0 <= events.samples <= LARGEST_INDEX:
            raise WireError(f"{place}.samples={events.samples} must be in 0..{LARGEST_INDEX}")
        time = self.take(events.time, f"{place}.time", ("float32",), (None,))
        sample = self.take(events.sample, f"{place}.sample", INDEX, (len(time),)).long()
        unit = self.take(events.unit, f"{place}.unit", INDEX, (len(time),)).long()
        if len(time):
            _within(sample, events.samples, f"{place}.sample")
            _within(unit, units, f"{place}.unit")
            if bool((sample[1:] < sample[:-1]).any()):
                raise WireError(f"{place}.sample must be ascending")
            low, high = (float(edge) for edge in torch.aminmax(time))
            if not (low >= 0 and high < float("inf")):
                raise WireError(f"{place}.time must be finite and >= 0 s, spans {low}..{high}")
        return Spikes(sample, unit, time, events.samples, units)

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            WireError: a frame belongs to nothing.
        """
        left = [i for i, frame in enumerate(self._frames) if frame is not None]
        if left:
            raise WireError(f"frames {left[:8]} belong to nothing in the message")


def _within(index: Tensor, limit: int, place: str) -> None:
    low, high = (int(edge) for edge in torch.aminmax(index))
    if not 0 <= low <= high < limit:
        raise WireError(f"{place} spans {low}..{high}, allowed 0..{limit - 1}")


def weight_type(weight_max: int) -> torch.dtype:
    """Return the smallest integers that hold a device's weights."""
    for dtype in (torch.int8, torch.int16):
        if weight_max <= torch.iinfo(dtype).max:
            return dtype
    return torch.int32


def write_run(
    circuit: Circuit, weights: Mapping[str, Tensor], stimulus: Stimulus, weight_max: int
) -> tuple[Run, list[memoryview]]:
    """Return the message of a run that `check_run` has accepted, and its frames."""
    sender, dtype = Sender(), weight_type(weight_max)
    blocks = {p.name: sender.add(weights[p.name], dtype) for p in circuit.projections}
    return Run(stimulus.clock, blocks, sender.add_spikes(stimulus.spikes)), sender.frames


def read_run(run: Run, frames: Sequence[memoryview], circuit: Circuit) -> tuple[dict[str, Tensor], Stimulus]:
    """Return weights and stimulus of a run.

    Raises:
        WireError: it does not belong to the circuit.
    """
    if not 0 <= run.clock < 2**62:
        raise WireError(f"Run.clock={run.clock} must be in 0..2^62-1")
    receiver = Receiver(frames)
    sizes = {population.name: population.size for population in circuit.populations}
    shapes = {p.name: (sizes[p.post], p.pre_size) for p in circuit.projections}
    if run.weights.keys() != shapes.keys():
        raise WireError(f"Run.weights are of {sorted(run.weights)}, the circuit has {sorted(shapes)}")
    weights = {
        name: receiver.take(run.weights[name], f"Run.weights.{name}", WEIGHTS, shape) for name, shape in shapes.items()
    }
    spikes = receiver.take_spikes(run.spikes, "Run.spikes", None, circuit.inputs)
    receiver.finish()
    return weights, Stimulus(spikes, run.clock)


def write_recording(recording: Recording, seconds: float) -> tuple[Recorded, list[memoryview]]:
    """Return the message of a recording, and its frames."""
    sender = Sender()
    spikes = {name: sender.add_spikes(found) for name, found in recording.spikes.items()}
    traces = {name: sender.add(codes, torch.uint8) for name, codes in recording.traces.items()}
    lost = None if recording.lost is None else sender.add(recording.lost, torch.bool)
    return Recorded(spikes, traces, recording.cost, recording.health, lost, seconds), sender.frames


def read_recording(found: Recorded, frames: Sequence[memoryview], circuit: Circuit, samples: int) -> Recording:
    """Return the recording of a run of so many samples.

    Raises:
        WireError: it does not belong to the circuit.
    """
    receiver = Receiver(frames)
    sizes = {population.name: population.size for population in circuit.populations}
    unknown = sorted({*found.spikes, *found.traces} - set(sizes))
    if unknown:
        raise WireError(f"Recorded: populations {unknown} are not in the circuit")
    spikes = {
        name: receiver.take_spikes(events, f"Recorded.spikes.{name}", samples, sizes[name])
        for name, events in found.spikes.items()
    }
    traces = {
        name: receiver.take(block, f"Recorded.traces.{name}", ("uint8",), (samples, circuit.samples, sizes[name]))
        for name, block in found.traces.items()
    }
    lost = None if found.lost is None else receiver.take(found.lost, "Recorded.lost", ("bool",), (samples,))
    receiver.finish()
    return Recording(spikes, traces, found.cost, found.health, lost)


def check_sizes(circuit: Circuit) -> None:
    """Check what keeps a device's memory and log within bounds, besides `check_circuit` of the contract.

    Raises:
        ValueError: names, times or lengths are out of range; all are reported.
    """
    populations = circuit.populations
    bad = []
    names = [p.name for p in populations] + [p.name for p in circuit.projections]
    if not all(name.isprintable() and 0 < len(name) <= LONGEST_NAME for name in names):
        bad.append(f"names must be printable and have 1 to {LONGEST_NAME} characters")
    if not populations or len({p.name for p in circuit.projections}) < len(circuit.projections):
        bad.append("there must be populations, and projections need different names")
    if any(not (p.tau_mem > 0 and p.tau_syn > 0 and p.refractory >= 0) for p in populations):
        bad.append("tau_mem and tau_syn must be positive, refractory must not be negative")
    if not 1 <= circuit.inputs <= MOST_INPUTS or not 1 <= circuit.samples <= MOST_SAMPLES:
        bad.append(f"{circuit.inputs} inputs and {circuit.samples} samples; {MOST_INPUTS} and {MOST_SAMPLES} are taken")
    if bad:
        raise ValueError("circuit: " + "; ".join(bad))


def recording_size(circuit: Circuit, samples: int) -> int:
    """Return the bytes of stimulus and traces on the time grid: what a device may need for a run."""
    return samples * circuit.samples * (circuit.inputs + sum(p.size for p in circuit.populations))
