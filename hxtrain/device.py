"""A device in the loop: everything above a backend that is written once.

Float weights become integers, batches are split by the device's trace memory, runs are retried
and checked, and codes become membranes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import Self

from hxtrain.backends import Backend, Cost, DeviceError, Health, Recording, Spikes, Stimulus

from .activity import Activity, LayerActivity
from .placement import Plan, place

if TYPE_CHECKING:
    from .network import Network

log = logging.getLogger(__name__)


class Device:
    """Drives one backend for one network.

    Args:
        backend: the device.
        retries: how often a failed run is repeated before the error is passed on.

    Attributes:
        clock: trials run so far; part of a checkpoint, since emulated noise follows from it.
        plan: the placement; None before a network is attached.
    """

    def __init__(self, backend: Backend, retries: int = 5) -> None:
        if retries < 0:
            raise ValueError(f"retries={retries} must not be negative")
        self.backend, self.retries = backend, retries
        self.clock = 0
        self.plan: Plan | None = None
        self.scales: list[float] = []

    def __enter__(self) -> Self:
        """Open the device."""
        self.backend.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the device."""
        self.backend.close()

    def place(self, net: Network) -> Plan:
        """Plan the network and configure the device with it.

        Raises:
            PlacementError: the network does not fit; the device is not touched.
        """
        plan = place(net, self.backend.capabilities)
        self.backend.configure(plan.circuit)
        self.plan = plan
        return plan

    def run(self, weights: list[Tensor], spikes: Spikes) -> Activity:
        """Run a batch and return what was measured, in the model's units.

        Args:
            weights: float weights of each layer.
            spikes: input events.

        Raises:
            DeviceError: a run failed on every attempt.
        """
        plan = self._placed()
        integers, self.scales = plan.quantise(weights)
        recording = self.record(integers, spikes)
        device = weights[0].device
        layers = []
        for layer, scale in zip(plan.layers, self.scales, strict=True):
            codes = recording.traces[layer.population.name].to(device)
            unit = plan.trace_unit * (1.0 if layer.fixed_scale else scale / layer.nominal_scale)
            found = recording.spikes.get(layer.population.name)
            dense = None
            if found is not None:
                dense = found.to(device).to_grid(plan.circuit.dt, plan.circuit.samples, binary=True)
            layers.append(LayerActivity(dense, membranes(codes, unit), found))
        return Activity(layers, recording.cost, recording.health)

    def record(self, integers: Mapping[str, Tensor], spikes: Spikes) -> Recording:
        """Run integer weights; splits the batch as the device needs and joins the pieces."""
        plan = self._placed()
        size = plan.trials_per_run or spikes.samples
        pieces = []
        integers = {name: matrix.cpu() for name, matrix in integers.items()}
        for piece in spikes.to("cpu").split(size):
            pieces.append(self._attempt(integers, Stimulus(piece, self.clock)))
            self.clock += piece.samples
        return pieces[0] if len(pieces) == 1 else join(pieces)

    def _placed(self) -> Plan:
        if self.plan is None:
            raise DeviceError("no network is placed on the device; call net.attach(device) first")
        return self.plan

    def _attempt(self, integers: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        for attempt in range(self.retries + 1):
            try:
                recording = self.backend.run(integers, stimulus)
                self._check(recording, stimulus)
            except DeviceError as error:
                if attempt == self.retries:
                    raise DeviceError(
                        f"a run of {stimulus.spikes.samples} trials failed {attempt + 1} times, last: {error}. "
                        "No result of it was used; check the device"
                    ) from error
                log.warning("run failed (%s), attempt %d of %d follows", error, attempt + 2, self.retries + 1)
            else:
                return recording if attempt == 0 else _with_retries(recording, attempt)
        raise AssertionError("unreachable")

    def _check(self, recording: Recording, stimulus: Stimulus) -> None:
        """Refuse a recording that is not whole."""
        plan, batch = self._placed(), stimulus.spikes.samples
        for population in plan.circuit.populations:
            shape = (batch, plan.circuit.samples, population.size)
            codes = recording.traces.get(population.name)
            if codes is None or tuple(codes.shape) != shape or codes.dtype != torch.uint8:
                found = "none" if codes is None else f"{codes.dtype} {tuple(codes.shape)}"
                raise DeviceError(f"traces of {population.name}: expected uint8 {shape}, got {found}")
            spikes = recording.spikes.get(population.name)
            if population.threshold is not None and (
                spikes is None or (spikes.samples, spikes.units) != (batch, population.size)
            ):
                raise DeviceError(f"spikes of {population.name} are missing or of the wrong size")


def membranes(codes: Tensor, unit: float) -> Tensor:
    """Return membranes `[T, B, N]` (leak 0) from codes `[B, T, N]`; each neuron's first sample is its leak.

    Subtracting the first sample of every trial removes the offsets of neuron and ADC channel
    (Cramer et al. 2022).
    """
    trace = codes.transpose(0, 1).to(torch.float32)
    trace = trace - trace[0]
    return trace.mul_(1 / unit)


def join(pieces: list[Recording]) -> Recording:
    """Join recordings of consecutive trials."""
    costs = [piece.cost for piece in pieces]
    energies = [cost.energy for cost in costs]
    known = [energy for energy in energies if energy is not None]
    cost = Cost(
        sum(cost.chip_time for cost in costs),
        sum(known) if len(known) == len(energies) else None,
        "measured" if all(cost.origin == "measured" for cost in costs) else "estimated",
    )
    first = pieces[0]
    return Recording(
        spikes={name: Spikes.cat([p.spikes[name] for p in pieces]) for name in first.spikes},
        traces={name: torch.cat([p.traces[name] for p in pieces]) for name in first.traces},
        cost=cost,
        health=sum((p.health for p in pieces), Health()),
    )


def _with_retries(recording: Recording, retries: int) -> Recording:
    return replace(recording, health=recording.health + Health(retries=retries))
