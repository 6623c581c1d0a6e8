"""Faults of the link between host and chip, injected in front of any backend.

    FaultyBackend(create_backend("emulator"), [TimeOut(0.01), LostSamples(0.002)], seed=3)

A fault changes the recording of the wrapped device, or raises; the device itself never notices. The random
numbers of a fault are hashes of (seed, fault, number of recordings of this place on the clock, trial), so the same
experiment meets the same faults in any split of its batches and after a resume, and a repeated run meets new ones.
Nothing wrong arrives unannounced: a trial with wrong samples is in `Recording.lost`, a missing spike is
counted in `Health.dropped_spikes`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .backend import Backend
from .capabilities import Capabilities
from .recording import DeviceError, Health, Recording, Stimulus
from .spikes import Spikes
from .wrapper import BackendWrapper


@dataclass(frozen=True)
class Draw:
    """Random numbers of one fault in one run.

    Attributes:
        key: Key of seed, fault and attempt.
        clock: Place of the run's first trial on the clock.
        trials: Number of trials `B`.
        device: Torch device of the recording's tensors, and of the numbers per trial and per spike.
    """

    key: int
    clock: int
    trials: int
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it cannot be changed

    def per_trial(self, stream: int = 0) -> Tensor:
        """Return numbers in 0 <= u < 1, float64 `[B]`; each stream has its own."""
        clocks = torch.arange(self.clock, self.clock + self.trials, device=self.device)
        return _uniform(_key(self.key, stream), clocks)

    def per_run(self, stream: int = 0) -> float:
        """Return one number in 0 <= u < 1 for the whole run: the stream's first."""
        return float(self.per_trial(stream)[0])

    def per_spike(self, population: str, spikes: Spikes) -> Tensor:
        """Return numbers in 0 <= u < 1 for the spikes of a population, float64 `[E]`."""
        places = (self.clock + spikes.sample, spikes.unit, spikes.time.view(torch.int32).long())
        return _uniform(_key(self.key, population), *places)

    def codes(self, population: str, shape: tuple[int, ...]) -> Tensor:
        """Return random trace codes, uint8 of `shape`."""
        generator = torch.Generator().manual_seed(_key(self.key, self.clock, population))
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(self.device)


@dataclass(frozen=True)
class Fault(ABC):
    """One fault. A subclass has a `name` and `apply`; `FAULTS` lists it for configurations.

    Attributes:
        name: Name of the fault in configurations and reports.
        p: Probability of the fault, per run, trial or spike (see each fault).
    """

    name: ClassVar[str]
    p: float

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"fault {self.name}: p={self.p} must be in 0..1")

    @abstractmethod
    def apply(self, recording: Recording, draw: Draw) -> Recording:
        """Return the recording that arrives at the host.

        Raises:
            DeviceError: Nothing arrives.
        """


@dataclass(frozen=True)
class TimeOut(Fault):
    """The device does not answer in time: the run raises DeviceError. `p` per run."""

    name: ClassVar[str] = "timeout"

    def apply(self, recording: Recording, draw: Draw) -> Recording:
        """Raise with probability `p`."""
        if draw.per_run() < self.p:
            raise DeviceError("the device did not answer in time (injected fault 'timeout')")
        return recording


@dataclass(frozen=True)
class PartialRun(Fault):
    """The run stops early: a random trial and all later ones are lost. `p` per run."""

    name: ClassVar[str] = "partial_run"

    def apply(self, recording: Recording, draw: Draw) -> Recording:
        """Lose the trials from a random one on with probability `p`."""
        if draw.per_run() >= self.p:
            return recording
        stop = int(draw.per_run(1) * draw.trials)
        return _garble(recording, torch.arange(draw.trials, device=draw.device) >= stop, draw)


@dataclass(frozen=True)
class LostSamples(Fault):
    """Trace samples of a trial did not arrive: the trial is lost, its codes are random. `p` per trial."""

    name: ClassVar[str] = "lost_samples"

    def apply(self, recording: Recording, draw: Draw) -> Recording:
        """Lose trials with probability `p` each."""
        return _garble(recording, draw.per_trial() < self.p, draw)


@dataclass(frozen=True)
class LateSamples(Fault):
    """Trace sampling of a trial began late, as with a busy on-chip processor. `p` per trial.

    The trial's codes are those of 1 to `latest` samples later (the last one repeated at the end). The device
    counts sample times and notices, so the trial is lost.

    Attributes:
        latest: Largest delay (samples).
    """

    name: ClassVar[str] = "late_samples"
    latest: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latest < 1:
            raise ValueError(f"fault {self.name}: latest={self.latest} samples must be at least 1")

    def apply(self, recording: Recording, draw: Draw) -> Recording:
        """Shift and lose trials with probability `p` each."""
        late = draw.per_trial() < self.p
        if not bool(late.any()):
            return recording
        delay = 1 + (draw.per_trial(1)[late] * self.latest).long()
        rows = late.nonzero()[:, 0]
        traces = {}
        for name, codes in recording.traces.items():
            sample = (torch.arange(codes.shape[1], device=draw.device) + delay[:, None]).clamp(max=codes.shape[1] - 1)
            traces[name] = codes.index_copy(0, rows, codes[rows[:, None], sample])
        return lose(replace(recording, traces=traces), late)


@dataclass(frozen=True)
class DroppedSpikes(Fault):
    """Recorded spikes are lost on their way to the host; other neurons receive them. `p` per spike.

    The chip counts dropped words in `Health.dropped_spikes`; the trial counts as whole.
    """

    name: ClassVar[str] = "dropped_spikes"

    def apply(self, recording: Recording, draw: Draw) -> Recording:
        """Drop spikes with probability `p` each."""
        masks = {name: draw.per_spike(name, spikes) >= self.p for name, spikes in recording.spikes.items()}
        dropped = sum(int((~mask).sum()) for mask in masks.values())
        if dropped == 0:
            return recording
        spikes = {name: _select(recording.spikes[name], mask) for name, mask in masks.items()}
        return replace(recording, spikes=spikes, health=recording.health + Health(dropped_spikes=dropped))


def lose(recording: Recording, mask: Tensor) -> Recording:
    """Flag further trials (bool `[B]`) as lost."""
    return replace(recording, lost=mask if recording.lost is None else recording.lost | mask)


FAULTS: dict[str, type[Fault]] = {
    fault.name: fault for fault in (TimeOut, PartialRun, LostSamples, LateSamples, DroppedSpikes)
}
"""Faults that configurations can name."""


def create_faults(probabilities: Mapping[str, float]) -> tuple[Fault, ...]:
    """Return faults from probabilities by name.

    Raises:
        ValueError: A name is not known, or a probability is out of range.
    """
    unknown = sorted(set(probabilities) - set(FAULTS))
    if unknown:
        raise ValueError(f"fault {', '.join(map(repr, unknown))} is not known; choose among {', '.join(FAULTS)}")
    return tuple(FAULTS[name](p) for name, p in probabilities.items())


class FaultyBackend(BackendWrapper):
    """A device behind a faulty link.

    Args:
        backend: The wrapped device.
        faults: Faults, at most one of each kind; their order does not change which trials stay whole.
        seed: Seed of the faults.

    Raises:
        ValueError: A kind of fault occurs twice.
    """

    def __init__(self, backend: Backend, faults: Sequence[Fault], seed: int = 0) -> None:
        names = [fault.name for fault in faults]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"fault {', '.join(map(repr, repeated))} is given twice; give each kind once")
        super().__init__(backend)
        self.seed = seed
        self.faults = tuple(fault for fault in faults if fault.p > 0)
        self._attempts = _Attempts()

    def __repr__(self) -> str:
        """Describe backend and faults in a line."""
        return (
            f"{type(self).__name__}({self.backend!r}, {', '.join(fault.name for fault in self.faults) or 'no faults'})"
        )

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the device; not deterministic with faults, since a repeated run may differ."""
        return replace(super().capabilities, deterministic=False) if self.faults else super().capabilities

    @property
    def identity(self) -> Mapping[str, str]:
        """Return the identity of the device, with the faults of its link under `faults`."""
        return {**super().identity, "faults": self._describe()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of the device, and one about injected faults."""
        if not self.faults:
            return super().warnings
        text = f"faults are injected into the link ({self._describe()}): runs are repeated, dropped spikes stay missing"
        return (*super().warnings, text)

    @property
    def takes_any_batch(self) -> bool:
        """Whether the device does and there are no faults: some faults hit runs, which then have a chip's length."""
        return not self.faults and super().takes_any_batch

    def map_stimulus(self, stimulus: Stimulus) -> Stimulus:
        """Record the stimulus's place on the clock, and return the stimulus."""
        self._attempts.expect(stimulus.clock, stimulus.spikes.samples)
        return stimulus

    def map_recording(self, recording: Recording, stimulus: Stimulus) -> Recording:
        """Apply the faults to a recording.

        Raises:
            DeviceError: Nothing arrives.
        """
        trials = stimulus.spikes.samples
        attempt = self._attempts.count(stimulus.clock)
        for fault in self.faults if trials else ():
            key = _key(self.seed, fault.name, attempt)
            recording = fault.apply(recording, Draw(key, stimulus.clock, trials, stimulus.spikes.time.device))
        return _without_spikes_of_lost_trials(recording)

    def _describe(self) -> str:
        if not self.faults:
            return "none"
        settings = {
            fault.name: ", ".join(f"{name}={value:g}" for name, value in vars(fault).items()) for fault in self.faults
        }
        return " ".join(f"{name}({settings[name]})" for name in sorted(settings)) + f" seed={self.seed}"


class _Attempts:
    """Numbers of recordings of stretches of the clock: those of the last run, or of the last joint runs."""

    def __init__(self) -> None:
        self._stretches: dict[tuple[int, int], int] = {}

    def expect(self, clock: int, trials: int) -> None:
        """Add a stretch that the next run records, unless it repeats one; joint runs follow one another."""
        if self._stretch_at(clock) is not None:
            return
        last, recorded = next(reversed(self._stretches.items()), ((clock, clock), 0))
        if recorded or last[1] != clock:
            self._stretches.clear()
        self._stretches[clock, clock + trials] = 0

    def count(self, clock: int) -> int:
        """Return the number of previous recordings of the stretch that contains `clock`."""
        stretch = self._stretch_at(clock)
        if stretch is None:  # no trials
            return 0
        self._stretches[stretch] += 1
        return self._stretches[stretch] - 1

    def _stretch_at(self, clock: int) -> tuple[int, int] | None:
        return next((stretch for stretch in self._stretches if stretch[0] <= clock < stretch[1]), None)


def _garble(recording: Recording, mask: Tensor, draw: Draw) -> Recording:
    """Lose trials and overwrite their codes, so that their use does not go unnoticed."""
    rows = mask.nonzero()[:, 0]
    if len(rows) == 0:
        return recording
    traces = {
        name: codes.index_copy(0, rows, draw.codes(name, (len(rows), *codes.shape[1:])))
        for name, codes in recording.traces.items()
    }
    return lose(replace(recording, traces=traces), mask)


def _without_spikes_of_lost_trials(recording: Recording) -> Recording:
    lost = recording.lost
    if lost is None:
        return recording
    spikes = {name: _select(events, ~lost[events.sample]) for name, events in recording.spikes.items()}
    return replace(recording, spikes=spikes)


def _select(spikes: Spikes, mask: Tensor) -> Spikes:
    return replace(spikes, sample=spikes.sample[mask], unit=spikes.unit[mask], time=spikes.time[mask])


def _key(*parts: object) -> int:
    """Return a signed 64-bit key for printable parts (SHA-256)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


_GOLDEN, _FIRST, _SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _uniform(key: int, *places: Tensor) -> Tensor:
    """Return a number in 0 <= u < 1 for each place (int64 coordinates of one shape), a pure function of both.

    The finaliser of splitmix64 (Steele, Lea, Flood 2014) after each coordinate; integers wrap around.
    """
    z = torch.full_like(places[0], key)
    for place in places:
        z = z + place * _GOLDEN
        z = (z ^ _shift_right(z, 30)) * _FIRST
        z = (z ^ _shift_right(z, 27)) * _SECOND
        z = z ^ _shift_right(z, 31)
    return _shift_right(z, 11).double() * 2.0**-53


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Shift to the right without the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
