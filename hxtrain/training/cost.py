"""What an answer costs: time on the chip, of waiting for it and on the host, energy, time to a decision."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from hxtrain.backends import Cost, total
from hxtrain.execution import Device
from hxtrain.objectives import MaxOverTime
from hxtrain.objectives.losses import predictions


@dataclass(frozen=True)
class Costs:
    """Costs of a set of samples, all together.

    Attributes:
        chip_time: on the chip (s), as the device says; None in software.
        wait_time: wall-clock time in which the host waited for the device (s): chip, link, driver; of an emulated
            device, its emulation. None in software.
        host_time: the rest of the wall-clock time (s): the host's own work.
        energy: of the chip alone (J); None in software or where unknown.
        energy_origin: `measured` or `estimated`; None without energy.
        energy_assumption: what an estimate rests on.
    """

    chip_time: float | None = None
    wait_time: float | None = None
    host_time: float = 0.0
    energy: float | None = None
    energy_origin: str | None = None
    energy_assumption: str | None = None

    def __add__(self, other: Costs) -> Costs:
        """Return the costs of both sets of samples, on one device or on two."""
        estimated = "estimated" in (self.energy_origin, other.energy_origin)
        return Costs(
            _sum(self.chip_time, other.chip_time),
            _sum(self.wait_time, other.wait_time),
            self.host_time + other.host_time,
            _sum(self.energy, other.energy),
            "estimated" if estimated else self.energy_origin or other.energy_origin,
            self.energy_assumption or other.energy_assumption,
        )


class CostMeter:
    """Measures from its creation on.

    Args:
        device: what the network runs on; None: software.
    """

    def __init__(self, device: Device | None) -> None:
        self._device = device
        self._begin = time.perf_counter()
        self._waited = 0.0 if device is None else device.waited
        self._costs: list[Cost] = []

    def add(self, cost: Cost | None) -> None:
        """Take what a pass cost on the device."""
        if cost is not None:
            self._costs.append(cost)

    def costs(self) -> Costs:
        """Return the costs until now."""
        passed = time.perf_counter() - self._begin
        if self._device is None:
            return Costs(host_time=passed)
        waited = self._device.waited - self._waited
        spent = total(self._costs)
        energy, origin, assumption = energy_of(spent, self._device.backend.capabilities.power)
        return Costs(spent.chip_time, waited, passed - waited, energy, origin, assumption)


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


def energy_of(cost: Cost, power: float | None) -> tuple[float | None, str | None, str | None]:
    """Return energy (J), origin and assumption of a cost; `power` is the device's published one (W), where known.

    A device that tells no energy is taken to draw its published power during the chip time.
    """
    energy = cost.energy
    if energy is None and power is not None:
        energy, cost = cost.chip_time * power, cost._replace(origin="estimated")
    if energy is None:
        return None, None, None
    if cost.origin == "measured":
        return energy, cost.origin, None
    watts = energy / cost.chip_time if cost.chip_time else 0.0
    return energy, cost.origin, f"the chip draws {watts:.3g} W during the chip time; not measured; without the host"


def decision_times(loss: MaxOverTime, readout: Tensor, dt: float) -> Tensor:
    """Return for each sample when its answer was found (s) `[B]`.

    This is the time of the first trace sample from which on the answer, to all samples until then, stays the final
    one. A tie is no answer; where the last one is a tie, it is the end of the recorded window.

    Args:
        loss: how readouts become answers.
        readout: membranes `[T, B, classes]`; sample k is taken at `k * dt`.
    """
    scores = torch.stack([loss.scores(readout[: t + 1]) for t in range(len(readout))])
    answers = torch.stack([predictions(found) for found in scores])
    tied = (scores == scores.amax(2, keepdim=True)).sum(2) > 1
    open_until = torch.arange(1, len(readout) + 1, device=readout.device)[:, None]
    return ((answers != answers[-1]) | tied).mul(open_until).amax(0) * dt
