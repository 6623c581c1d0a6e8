"""The protocol of engines: times are in seconds at their doors, whatever they use inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hxtrain.emulator.dynamics import SynapseBlock
from hxtrain.emulator.layout import TIMESTAMP_RESOLUTION, Layout
from hxtrain.emulator.parameters import Float, Params, Scalars
from hxtrain.emulator.trials import Events, Trials


class Setup(NamedTuple):
    """Configured chips, as engines need them.

    Attributes:
        layout: layout of the chips.
        params: parameters of the chips.
        scalars: scalar settings.
        synapses: synapses that turn weights into charges, by chip and wiring.
        capacity: largest number of spikes of a trial.
        substep: length of a sub-step (s).
        has_phase: whether the stimulus of a trial is delayed after the CADC's first sample.
    """

    layout: Layout
    params: Params
    scalars: Scalars
    synapses: list[list[SynapseBlock]]
    capacity: int
    substep: float
    has_phase: bool


class Engine(ABC):
    """Simulates the trials of configured chips.

    Args:
        device: torch device of the simulation.

    Attributes:
        name: name of the engine.
        recording_device: torch device of events and recordings.
    """

    name: ClassVar[str]

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.recording_device = device if device.type == "cuda" else torch.device("cpu")

    @abstractmethod
    def prepare(self, setup: Setup) -> None:
        """Take the chips that the following runs simulate."""

    @abstractmethod
    def check(self, events: Events, batch: int) -> None:
        """Refuse events that are out of range; an engine that notices them in a run does nothing here.

        Raises:
            ValueError: an event is out of range, or events are not grouped by sample.
        """

    @abstractmethod
    def charges(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the signed synaptic charges (weight LSB) of external `[C, J, N]` and internal `[C, N, N]` synapses.

        Args:
            weights: integer weights `[targets, sources]` of each wiring.
        """

    @abstractmethod
    def run(self, trials: Trials) -> tuple[Tensor, Events]:
        """Simulate trials.

        Returns:
            CADC codes uint8 `[B, T, recorded neurons]`, and spikes with their stamps (s), ordered by sample.

        Raises:
            ValueError: an event is out of range.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Interrupt the run in progress, from another thread; an engine whose runs are short may ignore it."""


class Delivery(NamedTuple):
    """Charges of a wiring to be written.

    Attributes:
        block: synapses of the wiring.
        weights: integer weights of the wiring, int16 `[sources, targets]`.
        first: column of `rows` for the first target.
        rows: signed charges, one row for each source (out).
    """

    block: SynapseBlock
    weights: Tensor
    first: int
    rows: Float


class SubstepEngine(Engine):
    """Common part of the engines that take and return times in sub-steps.

    Attributes:
        setup: configured chips; there is none before `prepare`.
    """

    setup: Setup

    @abstractmethod
    def simulate(self, trials: Trials) -> tuple[Tensor, Events]:
        """Simulate trials whose times are in sub-steps; return codes and spikes with times in sub-steps."""

    @abstractmethod
    def write(self, deliveries: Sequence[Delivery]) -> None:
        """Write the signed charges that an event delivers, of all wirings."""

    def prepare(self, setup: Setup) -> None:
        """Take the chips; see `Engine.prepare`."""
        self.setup = setup

    def check(self, events: Events, batch: int) -> None:
        """Refuse events that are out of range; see `Engine.check`."""
        check_events(events, self.setup.layout.inputs, batch)

    def charges(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the charges of weights; see `Engine.charges`."""
        layout = self.setup.layout
        synapses = self.setup.synapses
        bounds = layout.bounds
        external = torch.zeros(len(synapses), layout.inputs, bounds[-1])
        recurrent = any(wiring.source is not None for wiring in layout.wirings)
        internal = torch.zeros(len(synapses), bounds[-1] if recurrent else 1, bounds[-1])
        deliveries = []
        for index, (wiring, matrix) in enumerate(zip(layout.wirings, weights, strict=True)):
            w = matrix.detach().to("cpu", torch.int16).t().contiguous()
            for c, blocks in enumerate(synapses):
                if wiring.source is None:
                    rows = external[c]
                else:
                    rows = internal[c, bounds[wiring.source] : bounds[wiring.source + 1]]
                deliveries.append(Delivery(blocks[index], w, bounds[wiring.target], rows.numpy()))
        self.write(deliveries)
        return external, internal

    def run(self, trials: Trials) -> tuple[Tensor, Events]:
        """Simulate trials; see `Engine.run`."""
        setup = self.setup
        phase = torch.from_numpy(trials.phase).to(self.recording_device)
        events = trials.events
        time = (events.time + (phase[events.sample] if setup.has_phase else 0.0)) / setup.substep
        codes, spikes = self.simulate(trials._replace(events=events._replace(time=time)))
        time = spikes.time * setup.substep
        if setup.has_phase:
            time = time - phase[spikes.sample]
        stamps = torch.round(time.clamp(min=0) / TIMESTAMP_RESOLUTION) * TIMESTAMP_RESOLUTION
        return codes, spikes._replace(time=stamps)


def check_events(events: Events, inputs: int, batch: int) -> None:
    """Refuse events that are out of range or not in order.

    Args:
        events: External events.
        inputs: Number of external inputs of the layout.
        batch: Number of trials.

    Raises:
        ValueError: an event is out of range, or events are not grouped by sample.
    """
    if len(events.sample) == 0:
        return
    order = (events.sample[0], events.sample[-1], (events.sample.diff() < 0).any())
    extremes = (*torch.aminmax(events.unit), *order, events.time.min())
    lowest, highest, first, last, is_unordered, earliest = torch.stack([x.double() for x in extremes]).tolist()
    if lowest < 0 or highest >= inputs:
        raise ValueError(f"events.unit spans {lowest:.0f}..{highest:.0f}, the layout has {inputs} inputs")
    if first < 0 or last >= batch or is_unordered:
        raise ValueError(f"events.sample must be ascending and within 0..{batch - 1}")
    if not earliest >= 0:
        raise ValueError(f"events.time must not be negative, smallest is {earliest} s")
