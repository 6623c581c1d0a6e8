"""Costs of an answer: chip time, waiting time, host time, energy, and time to a decision."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hxtrain.backends import Cost, total
from hxtrain.execution import Device


@dataclass(frozen=True)
class Costs:
    """Costs of a set of samples, all together.

    Attributes:
        chip_time: Time on the chip (s), as reported by the device; None in software.
        wait_time: Wall-clock time in which the host waits for the device (s): chip, link and driver, or the emulation
            of an emulated device. None in software.
        host_time: Remaining wall-clock time (s), which the host computes.
        energy: Energy of the chip alone (J); None in software or if unknown.
        energy_origin: `measured` or `estimated`; None without energy.
        energy_assumption: Assumption of an estimate.
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
            sum_or_none(self.chip_time, other.chip_time),
            sum_or_none(self.wait_time, other.wait_time),
            self.host_time + other.host_time,
            sum_or_none(self.energy, other.energy),
            "estimated" if estimated else self.energy_origin or other.energy_origin,
            self.energy_assumption or other.energy_assumption,
        )


class CostMeter:
    """Meter of costs, which starts at its creation.

    Args:
        device: Device that the network runs on; None in software.
    """

    def __init__(self, device: Device | None) -> None:
        self._device = device
        self._start = time.perf_counter()
        self._previous_wait_time = 0.0 if device is None else device.waited
        self._costs: list[Cost] = []

    def add(self, cost: Cost | None) -> None:
        """Add the cost of a pass on the device."""
        if cost is not None:
            self._costs.append(cost)

    def costs(self) -> Costs:
        """Return the costs since the creation of the meter."""
        elapsed = time.perf_counter() - self._start
        if self._device is None:
            return Costs(host_time=elapsed)
        wait_time = self._device.waited - self._previous_wait_time
        cost = total(self._costs)
        energy, origin, assumption = energy_of(cost, self._device.backend.capabilities.power)
        return Costs(cost.chip_time, wait_time, elapsed - wait_time, energy, origin, assumption)


def sum_or_none(first: float | None, second: float | None) -> float | None:
    """Return a sum; None if a part of it is not known."""
    return None if first is None or second is None else first + second


def energy_of(cost: Cost, power: float | None) -> tuple[float | None, str | None, str | None]:
    """Return energy (J), origin and assumption of a cost; `power` is the published power of the device (W), if known.

    Without an energy, the device is assumed to draw its published power during the chip time.
    """
    energy = cost.energy
    if energy is None and power is not None:
        energy = cost.chip_time * power
        cost = cost._replace(origin="estimated")
    if energy is None:
        return None, None, None
    if cost.origin == "measured":
        return energy, cost.origin, None
    watts = energy / cost.chip_time if cost.chip_time else 0.0
    return energy, cost.origin, f"the chip draws {watts:.3g} W during the chip time; not measured; without the host"
