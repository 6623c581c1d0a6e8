"""Conversion of tensors to frames and back, for weights, spikes and traces, with checks on arrival."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hxtrain.backends.capabilities import Capabilities, weight_type
from hxtrain.backends.circuit import Circuit
from hxtrain.backends.pieces import join
from hxtrain.backends.recording import Recording, Stimulus
from hxtrain.backends.spikes import Spikes

from .protocol import MOST_PIECES, Block, DType, Events, Piece, Ran, Run
from .wire import WireError

Array = npt.NDArray[Any]
DTYPES: dict[str, np.dtype[Any]] = {
    "uint8": np.dtype("u1"),
    "int8": np.dtype("i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "float32": np.dtype("<f4"),
    "bool": np.dtype("?"),
}
"""Types of tensors on the wire."""
INDEX = ("int16", "int32", "int64")
WEIGHTS = ("int8", "int16", "int32")
WEIGHT_TYPES: dict[torch.dtype, DType] = {torch.int8: "int8", torch.int16: "int16"}
LARGEST_INDEX = 2**31 - 1
EVENT = 12
"""Largest size of an event (bytes)."""
LONGEST_NAME = 128
MOST_INPUTS, MOST_SAMPLES = 2**16, 2**20
"""Largest numbers of inputs and of trace samples of a circuit."""


class Sender:
    """Collects tensors; `frames` holds their bytes, without a copy of contiguous tensors of the requested type."""

    def __init__(self) -> None:
        self.frames: list[memoryview] = []

    def add(self, tensor: Tensor, dtype: DType) -> Block:
        """Add a tensor, converted to a type, and return its description."""
        array = np.ascontiguousarray(tensor.detach().numpy(), DTYPES[dtype])
        self.frames.append(array.reshape(-1).view(np.uint8).data)
        return Block(len(self.frames) - 1, dtype, tuple(array.shape))

    def add_spikes(self, spikes: Spikes) -> Events:
        """Add spikes; indices have the smallest type that holds them."""
        return Events(
            spikes.samples,
            spikes.units,
            self.add(spikes.sample, _index_type(spikes.sample)),
            self.add(spikes.unit, _index_type(spikes.unit)),
            self.add(spikes.time, "float32"),
        )


def _index_type(indices: Tensor) -> DType:
    if not indices.numel():
        return "int16"
    low, high = torch.aminmax(indices)
    largest = max(int(high), -int(low))
    return "int16" if largest < 2**15 else "int32" if largest < 2**31 else "int64"


class Receiver:
    """Hands out tensors of a message; each frame must be used once."""

    def __init__(self, frames: Sequence[memoryview]) -> None:
        self._frames: list[memoryview | None] = list(frames)

    def take(self, block: Block, place: str, dtypes: Sequence[str], shape: tuple[int | None, ...]) -> Array:
        """Return a tensor of a given type and shape (None: any length), in the memory of its frame.

        Raises:
            WireError: The block or its frame is not that.
        """
        if block.dtype not in dtypes or len(block.shape) != len(shape):
            raise WireError(f"{place}: expected {' or '.join(dtypes)} {shape}, got {block.dtype} {block.shape}")
        if block.shape != shape and any(
            n < 0 or want not in (None, n) for n, want in zip(block.shape, shape, strict=True)
        ):
            raise WireError(f"{place}: expected shape {shape}, got {block.shape}")
        if not 0 <= block.frame < len(self._frames) or (frame := self._frames[block.frame]) is None:
            raise WireError(f"{place}: frame {block.frame} is not there, or belongs to something else")
        dtype = DTYPES[block.dtype]
        if len(frame) != (size := math.prod(block.shape) * dtype.itemsize):
            raise WireError(f"{place}: {block.dtype} {block.shape} has {size} bytes, not {len(frame)}")
        self._frames[block.frame] = None
        return np.frombuffer(frame, dtype).reshape(block.shape)

    def take_tensor(self, block: Block, place: str, dtypes: Sequence[str], shape: tuple[int | None, ...]) -> Tensor:
        """Return a tensor of a given type and shape, in the memory of its frame if bytes there are writable.

        Raises:
            WireError: The block or its frame is not that.
        """
        array = self.take(block, place, dtypes, shape)
        if block.dtype == "bool" and array.view(np.uint8).max(initial=0) > 1:
            raise WireError(f"{place}: a truth value must be 0 or 1")
        if array.itemsize > 1 or not array.flags.writeable:  # of unknown alignment, or memory of another owner
            array = array.astype(array.dtype.newbyteorder("="))
        return torch.from_numpy(array)

    def take_spikes(self, events: Events, place: str, samples: int | None, units: int) -> Spikes:
        """Return spikes with a given number of samples (None: any number) and units.

        Raises:
            WireError: The events are not valid spikes.
        """
        if events.units != units or samples not in (None, events.samples):
            expected = "any number of" if samples is None else samples
            raise WireError(
                f"{place}: expected {expected} samples and {units} units, got {events.samples} and {events.units}"
            )
        if not 0 <= events.samples <= LARGEST_INDEX:
            raise WireError(f"{place}.samples={events.samples} must be in 0..{LARGEST_INDEX}")
        time = self.take(events.time, f"{place}.time", ("float32",), (None,)).astype(np.float32)
        sample = self.take(events.sample, f"{place}.sample", INDEX, time.shape).astype(np.int64)
        unit = self.take(events.unit, f"{place}.unit", INDEX, time.shape).astype(np.int64)
        if len(time):
            if (sample[1:] < sample[:-1]).any():
                raise WireError(f"{place}.sample must be ascending")
            for name, low, high, limit in (
                ("sample", sample[0], sample[-1], events.samples),
                ("unit", unit.min(), unit.max(), units),
            ):
                if not 0 <= low <= high < limit:
                    raise WireError(f"{place}.{name} spans {low}..{high}, allowed 0..{limit - 1}")
            first, last = float(time.min()), float(time.max())
            if not (first >= 0 and last < math.inf):
                raise WireError(f"{place}.time must be finite and >= 0 s, spans {first}..{last}")
        indices = torch.from_numpy(sample), torch.from_numpy(unit)
        return Spikes.trusted(*indices, torch.from_numpy(time), events.samples, units)

    def finish(self) -> None:
        """Check that all frames have been used.

        Raises:
            WireError: A frame has not been used.
        """
        left = [i for i, frame in enumerate(self._frames) if frame is not None]
        if left:
            raise WireError(f"frames {left[:8]} belong to nothing in the message")


def write_run(
    circuit: Circuit, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus], weight_max: int
) -> tuple[Run, list[memoryview]]:
    """Return the message of runs that `check_run` has accepted and that follow each other, and its frames."""
    sender = Sender()
    dtype = WEIGHT_TYPES[weight_type(weight_max)]
    blocks = {p.name: sender.add(weights[p.name], dtype) for p in circuit.projections}
    parts = [stimulus.spikes for stimulus in stimuli]
    spikes = parts[0] if len(parts) == 1 else Spikes.cat(parts)
    sizes = tuple(part.samples for part in parts)
    return Run(stimuli[0].clock, blocks, sizes, sender.add_spikes(spikes)), sender.frames


def read_run(run: Run, frames: Sequence[memoryview], circuit: Circuit) -> tuple[dict[str, Tensor], list[Stimulus]]:
    """Return weights and stimuli of a job.

    Raises:
        WireError: The job does not belong to the circuit.
    """
    receiver = Receiver(frames)
    populations = {population.name: population.size for population in circuit.populations}
    shapes = {p.name: (populations[p.post], p.pre_size) for p in circuit.projections}
    if run.weights.keys() != shapes.keys():
        raise WireError(f"Run.weights are of {sorted(run.weights)}, the circuit has {sorted(shapes)}")
    if not 1 <= len(run.sizes) <= MOST_PIECES or min(run.sizes) < 0 or sum(run.sizes) != run.spikes.samples:
        raise WireError(
            f"Run.sizes={run.sizes[: MOST_PIECES + 1]} must be 1 to {MOST_PIECES} numbers of trials whose sum is that "
            f"of the spikes' samples, {run.spikes.samples}"
        )
    weights = {
        name: receiver.take_tensor(run.weights[name], f"Run.weights.{name}", WEIGHTS, shape)
        for name, shape in shapes.items()
    }
    spikes = receiver.take_spikes(run.spikes, "Run.spikes", None, circuit.inputs)
    receiver.finish()
    edges = list(accumulate(run.sizes, initial=0))
    pieces = [spikes] if len(run.sizes) == 1 else spikes.stretches(edges)
    return weights, [Stimulus(piece, run.clock + first) for piece, first in zip(pieces, edges[:-1], strict=True)]


def write_recordings(
    recordings: Sequence[Recording | None], errors: Sequence[str], seconds: Sequence[float]
) -> tuple[Ran, list[memoryview]]:
    """Return the message with the outcome of each run, and its frames."""
    sender = Sender()
    pieces = tuple(
        None if recording is None else Piece(recording.cost, recording.health, recording.clock, took)
        for recording, took in zip(recordings, seconds, strict=True)
    )
    good = [recording for recording in recordings if recording is not None]
    if not good:
        return Ran(pieces, tuple(errors), {}, {}, None), []
    whole = good[0] if len(good) == 1 else join(good)
    spikes = {name: sender.add_spikes(events) for name, events in whole.spikes.items()}
    traces = {name: sender.add(codes, "uint8") for name, codes in whole.traces.items()}
    lost = None if whole.lost is None else sender.add(whole.lost, "bool")
    return Ran(pieces, tuple(errors), spikes, traces, lost), sender.frames


def read_recordings(
    answer: Ran, frames: Sequence[memoryview], circuit: Circuit, sizes: Sequence[int]
) -> list[Recording | None]:
    """Return the recordings of runs with given numbers of trials; None for each failed run.

    Raises:
        WireError: The recordings do not belong to the circuit, or their number differs.
    """
    if not len(answer.pieces) == len(answer.errors) == len(sizes):
        raise WireError(f"Ran: {len(answer.pieces)} pieces and {len(answer.errors)} errors, expected {len(sizes)} each")
    receiver = Receiver(frames)
    populations = {population.name: population.size for population in circuit.populations}
    unknown = sorted({*answer.spikes, *answer.traces} - set(populations))
    if unknown:
        raise WireError(f"Ran: populations {unknown} are not in the circuit")
    good = [0 if piece is None else size for piece, size in zip(answer.pieces, sizes, strict=True)]
    total = sum(good)
    spikes = {
        name: receiver.take_spikes(events, f"Ran.spikes.{name}", total, populations[name])
        for name, events in answer.spikes.items()
    }
    traces = {
        name: receiver.take_tensor(block, f"Ran.traces.{name}", ("uint8",), (total, circuit.samples, populations[name]))
        for name, block in answer.traces.items()
    }
    lost = None if answer.lost is None else receiver.take_tensor(answer.lost, "Ran.lost", ("bool",), (total,))
    receiver.finish()
    edges = list(accumulate(good, initial=0))
    parts = {name: [whole] if len(good) == 1 else whole.stretches(edges) for name, whole in spikes.items()}
    return [
        None
        if piece is None
        else Recording(
            {name: stretches[number] for name, stretches in parts.items()},
            {name: codes[first:last] for name, codes in traces.items()},
            piece.cost,
            piece.health,
            None if lost is None else lost[first:last],
            piece.clock,
        )
        for number, (piece, (first, last)) in enumerate(zip(answer.pieces, pairwise(edges), strict=True))
    ]


def check_sizes(circuit: Circuit) -> None:
    """Check the bounds on a device's memory and log, in addition to `check_circuit` of the contract.

    Raises:
        ValueError: Names, times or lengths are out of range; all are reported.
    """
    populations = circuit.populations
    problems = []
    names = [p.name for p in populations] + [p.name for p in circuit.projections]
    if not all(name.isprintable() and 0 < len(name) <= LONGEST_NAME for name in names):
        problems.append(f"names must be printable and have 1 to {LONGEST_NAME} characters")
    if not populations:
        problems.append("there must be populations")
    if not 1 <= circuit.inputs <= MOST_INPUTS or not 1 <= circuit.samples <= MOST_SAMPLES:
        problems.append(
            f"{circuit.inputs} inputs and {circuit.samples} samples; {MOST_INPUTS} and {MOST_SAMPLES} are taken"
        )
    if problems:
        raise ValueError("circuit: " + "; ".join(problems))


def grid_size(circuit: Circuit, samples: int) -> int:
    """Return the size of stimulus and traces on the time grid, which a device may need for a run (bytes)."""
    return samples * circuit.samples * (circuit.inputs + sum(p.size for p in circuit.populations))


def largest_recording(circuit: Circuit, capabilities: Capabilities, samples: int) -> int:
    """Return the size of a recording in which all neurons fire as often as they can (bytes), at least `grid_size`."""
    spikes = sum(capabilities.most_spikes(p, circuit.duration) for p in circuit.populations)
    return grid_size(circuit, samples) + samples * spikes * EVENT


def recording_size(recording: Recording) -> int:
    """Return the largest size of a recording's tensors on the wire (bytes)."""
    spikes = sum(len(events) for events in recording.spikes.values())
    lost = 0 if recording.lost is None else recording.lost.numel()
    return EVENT * spikes + lost + sum(codes.numel() for codes in recording.traces.values())
