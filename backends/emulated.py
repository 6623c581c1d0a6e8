"""Adapter of the emulated chip to the device contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from hxtrain.emulator import CADC_INTERVAL, Chip, EmulatedChip, Events, Group, Layout, Wiring, get_preset

from .chips import BRAINSCALES2
from .contract import (
    INPUT,
    Backend,
    Capabilities,
    Circuit,
    Cost,
    Projection,
    Recording,
    Stimulus,
    check_run,
)
from .spikes import Spikes

CAPABILITIES = replace(BRAINSCALES2, name="emulator", deterministic=True)
"""The physical chip's limits."""


class EmulatorBackend(Backend):
    """An emulated chip individual.

    Args:
        chip: serial number; determines the fixed pattern.
        preset: `ideal`, `calibrated` or `uncalibrated`.
        seed: seed of the temporal noise.
        substeps: sub-steps per trace sample on which threshold crossings are looked for.
        engine: `compiled` (CPU) or `stepwise` (readable, any torch device).
        device: torch device of the stepwise engine.
    """

    def __init__(
        self,
        chip: str = "W66F3",
        preset: str = "calibrated",
        seed: int = 0,
        substeps: int = 4,
        engine: str = "compiled",
        device: str = "cpu",
    ) -> None:
        if engine not in ("compiled", "stepwise"):
            raise ValueError(f"engine={engine!r} is not known; choose 'compiled' or 'stepwise'")
        individual = Chip(chip, get_preset(preset))
        self.emulated = EmulatedChip(
            individual, seed, substeps, "compiled" if engine == "compiled" else "stepwise", device
        )
        self._preset = preset
        self._circuit: Circuit | None = None

    @property
    def capabilities(self) -> Capabilities:
        """The physical chip's limits."""
        return CAPABILITIES

    @property
    def identity(self) -> Mapping[str, str]:
        """Return name, preset and content hash of the chip."""
        chip = self.emulated.chip
        return {"backend": "emulator", "chip": chip.name, "chip_hash": chip.hash, "preset": self._preset}

    def open(self) -> None:
        """Draw the chip's fixed pattern."""
        _ = self.emulated.chip.pattern

    def close(self) -> None:
        """Forget the configuration."""
        self._circuit = None

    def configure(self, circuit: Circuit) -> None:
        """Translate a circuit to the chip's layout.

        Raises:
            ValueError: the circuit asks for more than the chip has.
        """
        if abs(circuit.dt / CADC_INTERVAL - 1) > 0.01:
            raise ValueError(f"circuit.dt={circuit.dt} s differs from the chip's trace interval {CADC_INTERVAL} s")
        index = {population.name: i for i, population in enumerate(circuit.populations)}
        groups = tuple(
            Group(p.size, p.merged, p.leak, p.threshold, p.reset, p.tau_mem, p.tau_syn, p.refractory)
            for p in circuit.populations
        )
        wirings = tuple(_wiring(projection, index) for projection in circuit.projections)
        self.emulated.configure(Layout(circuit.inputs, groups, wirings), circuit.samples)
        self._circuit = circuit

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Run trials on the emulated chip."""
        circuit = check_run(self._circuit, weights, stimulus, CAPABILITIES.weight_max)
        spikes, batch = stimulus.spikes, stimulus.spikes.samples
        raw = self.emulated.run(
            [weights[projection.name] for projection in circuit.projections],
            Events(spikes.sample, spikes.unit, spikes.time),
            batch,
            stimulus.clock,
        )
        codes = torch.split(raw.codes, [p.size for p in circuit.populations], dim=2)
        chip_time = batch * CAPABILITIES.trial_time
        power = CAPABILITIES.power or 0.0
        return Recording(
            spikes=_by_population(circuit, raw.spikes, batch),
            traces=dict(zip((p.name for p in circuit.populations), codes, strict=True)),
            cost=Cost(chip_time, chip_time * power, "estimated"),
        )


def _wiring(projection: Projection, index: Mapping[str, int]) -> Wiring:
    source = None if projection.pre == INPUT else index[projection.pre]
    return Wiring(index[projection.post], projection.pre_size, projection.first_input, source)


def _by_population(circuit: Circuit, spikes: Events, batch: int) -> dict[str, Spikes]:
    found, first = {}, 0
    for population in circuit.populations:
        if population.threshold is not None:
            here = (spikes.unit >= first) & (spikes.unit < first + population.size)
            chosen = Spikes(spikes.sample[here], spikes.unit[here] - first, spikes.time[here], batch, population.size)
            found[population.name] = chosen
        first += population.size
    return found
