"""Common parts of the devices' tests: a table of devices and a small circuit."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hxtrain.backends import INPUT, Backend, Circuit, Population, Projection, Spikes, Stimulus, create_backend

INTERVAL = 1.7e-6
SUBSTEP = INTERVAL / 4
SAMPLES = 16


@dataclass(frozen=True)
class Case:
    """A device and what can be expected of it: mismatch-free (`ideal`), or only the right sign."""

    make: Callable[[], Backend]
    ideal: bool


CASES = {
    "emulator-ideal": Case(lambda: create_backend("emulator", preset="ideal"), True),
    "emulator-calibrated": Case(lambda: create_backend("emulator", preset="calibrated"), False),
    "emulator-uncalibrated": Case(lambda: create_backend("emulator", preset="uncalibrated"), False),
    "emulator-readable": Case(lambda: create_backend("emulator", preset="calibrated", engine="readable"), False),
    "reference": Case(lambda: create_backend("reference"), True),
}


def population(name: str, size: int, spiking: bool) -> Population:
    return Population(name, size, 1, 80.0, 150.0 if spiking else None, 80.0, 6e-6, 6e-6, 2e-6)


CIRCUIT = Circuit(
    inputs=4,
    populations=(population("hidden", 3, True), population("readout", 2, False)),
    projections=(
        Projection("input->hidden", INPUT, "hidden", 4),
        Projection("hidden->readout", "hidden", "readout", 3),
    ),
    samples=SAMPLES,
    dt=INTERVAL,
)

READOUT_ONLY = Circuit(
    inputs=4,
    populations=(population("readout", 2, False),),
    projections=(Projection("input->readout", INPUT, "readout", 4),),
    samples=SAMPLES,
    dt=INTERVAL,
)

WEIGHTS = {
    "input->hidden": torch.tensor([[63, 63, 63, 63], [63, 63, 63, 0], [10, 0, 0, -63]], dtype=torch.int8),
    "hidden->readout": torch.tensor([[40, 0, 63], [-40, -20, 63]], dtype=torch.int8),
}
"""Neurons 0 and 1 spike when all inputs do, neuron 2 never does."""


def stimulus(batch: int = 3, clock: int = 0, step: int = 4) -> Stimulus:
    """Return one event of every input at sub-step `step` of each of `batch` trials."""
    return Stimulus(Spikes.from_times(torch.full((batch, 4), step * SUBSTEP)), clock)


def configured(case: Case, circuit: Circuit = CIRCUIT) -> Backend:
    backend = case.make()
    backend.open()
    backend.configure(circuit)
    return backend


def rows(spikes: Spikes) -> list[list[float]]:
    ordered = spikes.ordered()
    return torch.stack([ordered.sample, ordered.unit, ordered.time], dim=1).tolist()


def first_times(spikes: Spikes) -> Tensor:
    """Return each unit's first spike time `[B, N]`, NaN without one."""
    none = torch.full((spikes.samples * spikes.units,), torch.nan)
    index = spikes.sample * spikes.units + spikes.unit
    return none.scatter_reduce(0, index, spikes.time, "amin", include_self=False).view(spikes.samples, spikes.units)
