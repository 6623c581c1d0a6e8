"""A device in the loop: the code that all backends share.

Float weights become integers, batches are split by the device's trace memory, networks larger than the
device run in parts, runs are retried and checked, and codes become membranes.
"""

from __future__ import annotations

import atexit
import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from typing_extensions import Self

from hxtrain.backends import (
    Backend,
    DeviceError,
    Recording,
    Spikes,
    create_backend,
)
from hxtrain.checks import flag, optional, real, whole
from hxtrain.console import html_table
from hxtrain.network import Activity, LayerActivity, Network
from hxtrain.network.twin import ModelledMembranes, hidden_membranes
from hxtrain.neurons import GridEvents, MembraneSource, Saturation, SpikeGrid
from hxtrain.neurons.engines import engine_of

from .config import recorded
from .drift import LIMIT
from .placement import MAX_RUNS, place
from .plan import PLAN_COLUMNS, Plan
from .session import Session


class Device:
    """Drives one backend for one network.

    Args:
        backend: driver of the device.
        retries: number of repeats of a run that failed or lost trials, before its error is raised.
        drift_limit: change of the resting potentials above which recalibration is due (trace units, rms);
            an estimate, see `hxtrain.execution.drift`.
        trial_time: time from trial to trial (s) for fast inference, in which the state that a trial leaves may affect
            the next one; None: trials are far apart.
        forced_reset: whether membranes and synaptic currents are reset between trials.
        max_runs: largest number of runs per sample, for a network that is larger than the device.
        run_timeout: time (s) after which an unfinished run counts as hanging and is abandoned; each run then has a
            thread. None: the host waits without a limit.

    Attributes:
        session: what drives the backend: it splits, repeats and joins runs.
        plan: placement of the network; None until a network is attached.
        warnings: messages for the user about the device in its configuration for the network.
    """

    def __init__(
        self,
        backend: Backend,
        retries: int = 5,
        drift_limit: float = LIMIT,
        trial_time: float | None = None,
        forced_reset: bool = False,
        max_runs: int = MAX_RUNS,
        run_timeout: float | None = None,
    ) -> None:
        if not isinstance(backend, Backend):
            raise TypeError(
                f"Device takes a Backend, not {backend!r:.60}; make one with hxtrain.backends.create_backend(name)"
            )
        max_runs = whole("max_runs", max_runs)
        trial_time = optional(real)("trial_time", trial_time)
        forced_reset = flag("forced_reset", forced_reset)
        if max_runs < 1:
            raise ValueError(f"max_runs={max_runs} must be at least 1")
        if trial_time is not None and not trial_time > 0:
            raise ValueError(f"trial_time={trial_time} s must be positive; None for trials far apart")
        self.trial_time = trial_time
        self.forced_reset = forced_reset
        self.max_runs = max_runs
        self.session = Session(backend, retries, drift_limit, run_timeout)
        self.plan: Plan | None = None
        self.scales: list[float] = []
        self.warnings: tuple[str, ...] = ()
        self._limits: list[float | None] = []

    def __repr__(self) -> str:
        """Describe backend and placed network in a line."""
        return f"Device({self.backend!r}, {'no network' if self.plan is None else repr(self.plan)})"

    def _repr_html_(self) -> str:
        """Return identity and placement as a table of a notebook."""
        rows = [(name, value, "") for name, value in self.backend.identity.items()]
        rows += [] if self.plan is None else self.plan.rows()
        return html_table(PLAN_COLUMNS, rows, repr(self))

    @property
    def backend(self) -> Backend:
        """Return the driver of the device."""
        return self.session.backend

    @property
    def clock(self) -> int:
        """Return the number of trials so far, summed over all parts; emulated noise depends on it."""
        return self.session.clock

    @clock.setter
    def clock(self, value: int) -> None:
        self.session.clock = value

    def idle(self, seconds: float) -> None:
        """Advance the clock by a chip time without trials (s): an emulated device drifts as in this time.

        The clock of a real chip runs by itself, whatever this says.

        Raises:
            ValueError: No network is attached, so that the time of a trial is unknown.
        """
        plan = self.plan
        if plan is None:
            raise ValueError(f"idle({seconds:g}): no network is attached; call net.attach(device) before")
        self.clock += round(seconds / (plan.circuit.trial_time or plan.capabilities.trial_time))

    @property
    def waited(self) -> float:
        """Return the wall-clock time in which the host waited for the device (s)."""
        return self.session.waited

    def __enter__(self) -> Self:
        """Open the device."""
        self.session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the device."""
        self.session.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the device, as the end of a `with` statement does; it can be opened again."""
        self.backend.close()

    def place(self, net: Network) -> Plan:
        """Plan the network and configure the device with it, or with each of its parts in turn.

        Raises:
            PlacementError: the network does not fit; the device keeps its configuration.
        """
        plan = place(net, self.backend.capabilities, self.trial_time, self.forced_reset, self.max_runs)
        limits = plan.weight_limits()
        self.plan = None
        self.warnings = self.session.configure_all(plan.parts)
        self.plan = plan
        self._limits = limits
        self.session.restart_drift()
        return plan

    @torch.no_grad()
    def run(self, weights: list[Tensor], spikes: Spikes, events: GridEvents | None = None) -> Activity:
        """Run a batch and return the measured activity, in the model's units and the precision of the weights.

        With `spikes_only` (`Plan.resolution`), membranes of hidden layers are the model's response to the measured
        spikes and the weights as sent, computed when they are read. The circuit does not request their traces then
        (`Circuit.record`).

        Args:
            weights: float weights of each projection.
            spikes: input events.
            events: input events on the time grid; None: computed from `spikes` if needed.

        Raises:
            DeviceError: a run failed on every attempt.
        """
        plan = self._require_plan()
        integers, self.scales = plan.quantise(weights)
        units = plan.trace_units(self.scales)
        recording = self.record(integers, spikes)
        circuit = plan.circuit
        device = weights[0].device
        dtype = weights[0].dtype
        engine = engine_of(device.type)
        layers: list[LayerActivity] = []
        fired: dict[str, SpikeGrid] = {}
        for name, measured in recording.spikes.items():
            moved = measured if measured.time.device == device else measured.to(device)
            fired[name] = engine.bin_spikes(moved, circuit.dt, circuit.samples, dtype)
        modelled: dict[str, ModelledMembranes] = {}
        if plan.resolution.spikes_only:
            received = events or GridEvents(spikes.to(device), circuit.dt, circuit.samples)
            sent_weights = plan.as_sent(integers, self.scales)
            modelled = hidden_membranes(circuit, sent_weights, received, fired, dtype, plan.held)
        codes: dict[str, Tensor] = {}
        for population in circuit.populations:
            if population.name not in modelled:
                raw = recording.traces[population.name]
                codes[population.name] = plan.resolution.round_codes(raw, plan.capabilities)
        for population, unit in zip(circuit.populations, units, strict=True):
            name = population.name
            if name in modelled:
                membrane: Tensor | MembraneSource = modelled[name]
            else:
                # membranes of hidden layers are rarely needed except for gradients, which take codes
                membrane = engine.membranes(codes[name].to(device), unit, dtype, deferred=name in fired)
            layers.append(LayerActivity(fired.get(name), membrane, events=recording.spikes.get(name)))
        return Activity(layers, recording.cost, recording.health)

    def record(self, integers: Mapping[str, Tensor], spikes: Spikes) -> Recording:
        """Run a batch of the placed network with integer weights, see `Session.record`.

        Raises:
            DeviceError: trials are missing after the last attempt.
        """
        plan = self._require_plan()
        return self.session.record(plan.circuit, plan.parts, integers, spikes)

    def sharing(self, first: int, total: int) -> AbstractContextManager[None]:
        """Return a context that sets the clock for one of several devices that share `total` trials.

        Args:
            first: index of the first trial on this device.
            total: number of trials on all devices.
        """
        return self.session.sharing(first, total, len(self._require_plan().parts))

    def weight_limits(self) -> list[float | None]:
        """Return by projection the largest float weight that is not clipped; None where the scale adapts."""
        self._require_plan()
        return self._limits

    def representable(self, weights: list[Tensor]) -> list[Tensor]:
        """Return the float weights of each projection as they are sent: rounded and clipped."""
        plan = self._require_plan()
        integers, scales = plan.quantise(weights)
        return [
            integers[placed.projection.name].to(weight) / scale
            for placed, weight, scale in zip(plan.projections, weights, scales, strict=True)
        ]

    def saturations(self, current: float) -> list[Saturation]:
        """Return the saturation of each layer's synaptic inputs, in the units of its weights in the last run.

        Recurrent weights share the synaptic inputs of their layer; their sources follow the feed-forward ones.

        Args:
            current: current at which a synaptic input saturates (weight LSB).
        """
        plan = self._require_plan()
        per_circuit = {layer.population.name: layer.sources_per_circuit for layer in plan.layers}
        by_layer: dict[str, Saturation] = {}
        for placed, scale in reversed([*zip(plan.projections, self.scales, strict=True)]):
            post = placed.projection.post
            by_layer[post] = Saturation(current / scale, per_circuit[post], placed.first_source, by_layer.get(post))
        return [by_layer[population.name] for population in plan.circuit.populations]

    def _require_plan(self) -> Plan:
        if self.plan is None:
            raise DeviceError("no network is placed on the device; call net.attach(device) first")
        return self.plan


DEVICES: WeakSet[Device] = WeakSet()
"""Devices of `open_device` that are in use."""
DEVICE_SETTINGS = frozenset(inspect.signature(Device).parameters) - {"backend"}
"""Settings of `Device`."""


def open_device(name: str, *, record: str | Path | None = None, **settings: Any) -> Device:
    """Return a device by the name of its backend; `with` opens and closes it, and so does the end of the process.

    Args:
        name: name of a registered backend, such as `emulator`.
        record: folder of an archive into which every run is recorded, see `hxtrain.backends.replay`; None: none is.
        settings: settings of the backend, such as `chip="W66F3"`, and of `Device`, such as `retries=3`.

    Raises:
        UnknownBackendError: the name or a setting is not known.
        ValueError: a setting is out of range.
    """
    host = {key: settings.pop(key) for key in DEVICE_SETTINGS & settings.keys()}
    backend = create_backend(name, **settings)
    device = Device(backend if record is None else recorded(backend, str(record)), **host)
    DEVICES.add(device)
    return device


def close_devices() -> None:
    """Close the devices of `open_device` that are in use, at the end of the process, such as a notebook's kernel."""
    for device in list(DEVICES):
        with suppress(Exception):  # nobody is left to read an error
            device.backend.close()


atexit.register(close_devices)


def device_of(net: Network) -> Device | None:
    """Return the device that a network is attached to; None in software."""
    return net.device if isinstance(net.device, Device) else None


def sent_weights(net: Network) -> dict[str, Tensor]:
    """Return the integer weights as sent to the device, or the float weights in software, by name of the projection."""
    device = device_of(net)
    if device is not None and device.plan is not None:
        return device.plan.quantise(net.effective_weights())[0]
    names = [projection.name for projection in net.projections]
    return {name: weight.detach() for name, weight in zip(names, net.effective_weights(), strict=True)}
