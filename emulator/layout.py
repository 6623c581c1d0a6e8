"""Configuration of the emulated chip: groups of logical neurons and the wirings between them.

Potentials are in CADC LSB (raw 0..255 scale), times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise

import numpy as np
import numpy.typing as npt

CIRCUITS = 512
"""Neuron circuits on the chip (four quadrants of 128)."""
ROWS_PER_CIRCUIT = 128
"""Signed inputs of one circuit (256 synapse rows, one excitatory and one inhibitory per input)."""
LABELS = 64
"""Sources that the 6-bit label of a synapse tells apart."""
WEIGHT_MAX = 63
"""Largest magnitude of a signed weight (6 bit per row)."""
CADC_INTERVAL = 1.7e-6
"""Time between two samples of a membrane in seconds (Cramer et al. 2022)."""
TIMESTAMP_RESOLUTION = 8e-9
"""Resolution of recorded spike times in seconds (125 MHz)."""


@dataclass(frozen=True)
class Group:
    """Logical neurons with common calibration targets.

    Attributes:
        size: number of logical neurons.
        circuits: neuron circuits merged into one logical neuron; each adds 128 signed inputs.
        leak: target resting potential (LSB).
        threshold: target spike threshold (LSB); None disables spiking (a readout).
        reset: target reset potential (LSB).
        tau_mem: target membrane time constant (s).
        tau_syn: target synaptic time constant (s), excitatory and inhibitory.
        refractory: time for which the membrane is held at its reset potential (s).
        traced: whether the membranes are recorded.
    """

    size: int
    circuits: int
    leak: float
    threshold: float | None
    reset: float
    tau_mem: float
    tau_syn: float
    refractory: float
    traced: bool = True


@dataclass(frozen=True)
class Wiring:
    """All-to-all synapses from the external inputs (`source=None`) or a group onto a group.

    Attributes:
        target: index of the receiving group.
        size: number of sources.
        first_row: index of the signed input that source 0 drives.
        source: index of the sending group; None for external inputs.
        rows: signed input that each source drives, instead of `first_row` and those that follow. Sources may share
            one: each synapse listens to a single source, by its label.
    """

    target: int
    size: int
    first_row: int
    source: int | None = None
    rows: tuple[int, ...] | None = None

    @property
    def row_of_source(self) -> npt.NDArray[np.int64]:
        """Signed input that each source drives `[sources]`."""
        return np.arange(self.first_row, self.end) if self.rows is None else np.array(self.rows, np.int64)

    @property
    def end(self) -> int:
        """Index of the signed input that follows those of the wiring."""
        return self.first_row + self.size


@dataclass(frozen=True)
class Layout:
    """A complete configuration.

    Attributes:
        inputs: number of external inputs.
        groups: groups of logical neurons, in the order of their circuits.
        wirings: synapses between external inputs and groups, and between groups.
        gap: time between the end of a trial's recording and the start of the next trial (s); the next trial continues
            from the state at the end of the gap. None for trials that start at rest.
        forced_reset: whether membranes are held at reset and synaptic lines are clamped during the gap.
        from_reset: whether trials start with the membranes at their reset potential (forced by the chip's processor).
        synapses_enabled: whether the synaptic amplifiers are on (their references shift the rest).
        corrected_capacitance: whether the capacitor of merged circuits is lowered by their parasitics.
        avoided: circuits on which no neuron is placed.
    """

    inputs: int
    groups: tuple[Group, ...]
    wirings: tuple[Wiring, ...]
    gap: float | None = None
    forced_reset: bool = False
    from_reset: bool = False
    synapses_enabled: bool = True
    corrected_capacitance: bool = True
    avoided: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.gap is not None and self.gap < 0:
            raise ValueError(f"layout.gap={self.gap} s must not be negative; record fewer samples or wait longer")
        if self.forced_reset and self.gap is None:
            raise ValueError("layout.forced_reset needs a gap to the next trial; set layout.gap")
        available = CIRCUITS - len(self.avoided)
        if self.circuits_used > available:
            amount = f"{available} that are not avoided" if self.avoided else str(CIRCUITS)
            raise ValueError(
                f"layout needs {self.circuits_used} neuron circuits, the chip has {amount}; "
                f"reduce the size of a group or its merged circuits by {self.circuits_used - available} in all"
                + (", or set chip.avoid_failures=false" if self.avoided else "")
            )
        for index in range(len(self.wirings)):
            self._check_wiring(index)

    def _check_wiring(self, index: int) -> None:
        wiring = self.wirings[index]
        if not 0 <= wiring.target < len(self.groups):
            raise ValueError(f"wiring {index} targets group {wiring.target}, there are {len(self.groups)}")
        if wiring.source is not None and not 0 <= wiring.source < len(self.groups):
            raise ValueError(f"wiring {index} comes from group {wiring.source}, there are {len(self.groups)}")
        sources = self.inputs if wiring.source is None else self.groups[wiring.source].size
        if wiring.size != sources:
            raise ValueError(f"wiring {index} has {wiring.size} sources, its source has {sources} units")
        rows = self.groups[wiring.target].circuits * ROWS_PER_CIRCUIT
        if wiring.rows is not None:
            self._check_rows(index, rows)
        elif wiring.first_row < 0 or wiring.first_row + wiring.size > rows:
            raise ValueError(
                f"wiring {index} uses signed inputs {wiring.first_row}..{wiring.first_row + wiring.size - 1} of group "
                f"{wiring.target}, whose neurons have {rows}; merge more circuits per neuron"
            )
        for number, previous in enumerate(self.wirings[:index]):
            if previous.target != wiring.target:
                continue
            if previous.source != wiring.source and (previous.rows is not None or wiring.rows is not None):
                continue  # labels tell their sources apart
            if previous.source == wiring.source:
                raise ValueError(f"wirings {number} and {index} join the same source and target; merge them")
            first, last = max(previous.first_row, wiring.first_row), min(previous.end, wiring.end)
            if first < last:
                raise ValueError(
                    f"wirings {number} and {index} share signed inputs {first}..{last - 1} of group {wiring.target}; "
                    f"set first_row={previous.end} on the second"
                )

    def _check_rows(self, index: int, rows: int) -> None:
        """Refuse signed inputs of single sources that are missing, or that the target does not have."""
        wiring = self.wirings[index]
        used = wiring.row_of_source
        if len(used) != wiring.size or not all(used >= 0) or not all(used < rows):
            raise ValueError(
                f"wiring {index} has {wiring.size} sources on {len(used)} signed inputs {used.min(initial=0)}.."
                f"{used.max(initial=0)} of group {wiring.target}, whose neurons have {rows}; give one for each source"
            )
        sharing = int(np.bincount(used).max(initial=0))
        if sharing > LABELS:
            raise ValueError(
                f"wiring {index} has {sharing} sources on one signed input of group {wiring.target}, labels tell "
                f"{LABELS} apart; spread them over more signed inputs"
            )

    @property
    def circuits_used(self) -> int:
        """Number of neuron circuits that the groups occupy."""
        return sum(group.size * group.circuits for group in self.groups)

    @cached_property
    def circuits(self) -> tuple[int, ...]:
        """Circuits in use: the first ones that are not avoided."""
        available = (circuit for circuit in range(CIRCUITS) if circuit not in self.avoided)
        return tuple(islice(available, self.circuits_used))

    @cached_property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """Stretches of neurons whose membranes are recorded, as first neuron and end; adjacent groups share one."""
        windows: list[tuple[int, int]] = []
        for group, (first, end) in zip(self.groups, pairwise(self.bounds), strict=True):
            if not group.traced:
                continue
            if windows and windows[-1][1] == first:
                first, _ = windows.pop()
            windows.append((first, end))
        return tuple(windows)

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """First logical neuron of each group, and the total, `[G + 1]`."""
        bounds = [0]
        for group in self.groups:
            bounds.append(bounds[-1] + group.size)
        return tuple(bounds)
