"""Circuits: the populations and projections that a device is configured with.

Times are in seconds, potentials in the device's trace units (ADC codes).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

ADDITION: Final = "addition"
"""Key in the metadata of a field that later versions of the contract added: the name of the addition. Such a field has
a default, and a message may lack it (`hxtrain.backends.remote`)."""


@dataclass(frozen=True)
class Population:
    """Neurons with common targets (trace units, seconds).

    Attributes:
        name: Unique name.
        size: Number of neurons.
        merged: Circuits per neuron.
        leak: Leak potential (trace units).
        threshold: Threshold (trace units); None for a non-spiking readout.
        reset: Reset potential (trace units).
        tau_mem: Time constant of the membrane (s).
        tau_syn: Time constant of the synaptic current (s).
        refractory: Refractory period (s).
    """

    name: str
    size: int
    merged: int
    leak: float
    threshold: float | None
    reset: float
    tau_mem: float
    tau_syn: float
    refractory: float


@dataclass(frozen=True)
class Projection:
    """All-to-all synapses from `pre` onto the population `post`.

    Attributes:
        name: Unique name.
        pre: Name of the upstream population, or `INPUT`.
        post: Name of the downstream population.
        pre_size: Number of sources.
        first_input: Signed input of the target neurons that source 0 uses; the others follow.
        signed_inputs: Signed input of the target neurons that each source uses, `pre_size` numbers; None: `first_input`
            and those that follow. Sources that share one (`Capabilities.sources_per_input`) have weights onto different
            neurons: of all sources at a signed input, at most one has a weight other than 0 onto each neuron.
    """

    name: str
    pre: str
    post: str
    pre_size: int
    first_input: int = 0
    signed_inputs: tuple[int, ...] | None = field(default=None, metadata={ADDITION: "sharing"})

    @property
    def places(self) -> tuple[int, ...]:
        """Signed input of the target neurons that each source uses."""
        following = range(self.first_input, self.first_input + self.pre_size)
        return tuple(following) if self.signed_inputs is None else self.signed_inputs


INPUT = "input"
"""Name of the external inputs as the source of a projection."""


@dataclass(frozen=True)
class Record:
    """The part of a circuit that a device is asked to record: populations by name.

    A device gives what is requested. It may give more, which the host drops.

    Attributes:
        spikes: Spiking populations whose events are recorded; None: all of them.
        traces: Populations whose membranes are recorded; None: all of them.
    """

    spikes: tuple[str, ...] | None = None
    traces: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Circuit:
    """The populations and projections that placement produces and a device is configured with.

    Attributes:
        inputs: Number of external inputs.
        populations: Populations in the order of their placement.
        projections: Projections in the order of their placement.
        samples: Trace samples per trial `T`; sample k is taken `k * trace_interval` after the start.
        dt: Trace interval (s).
        trial_time: Time from one trial's start to the next one's (s), so short that membranes and synapses may
            still hold traces of the previous trial; None: trials are far apart (`Capabilities.trial_time`).
        forced_reset: Reset all membranes and synaptic currents between the recorded window and the next trial.
        record: Populations to record; all by default.
    """

    inputs: int
    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    samples: int
    dt: float
    trial_time: float | None = None
    forced_reset: bool = False
    record: Record = field(default=Record(), metadata={ADDITION: "record"})

    @property
    def duration(self) -> float:
        """Length of a trial (s)."""
        return self.samples * self.dt

    @cached_property
    def spiking(self) -> tuple[Population, ...]:
        """Populations whose spikes are requested, in their order."""
        names = self.record.spikes
        return tuple(p for p in self.populations if p.threshold is not None and (names is None or p.name in names))

    @cached_property
    def traced(self) -> tuple[Population, ...]:
        """Populations whose traces are requested, in their order."""
        names = self.record.traces
        return tuple(p for p in self.populations if names is None or p.name in names)
