r"""The equations of motion, and their parameters for a layout on a chip.

Equations (potentials in LSB, q in weight LSB; per logical neuron n, merged circuit a, sign s)::

    tau_s[n,a,s] dI/dt = -I            I jumps by gain[n,a,s] * synapse[n,j,s] * |w_nj| at an input event
    phi(I) = q_sat * pade_tanh(I / q_sat)                                     amplifier saturation
    dV/dt  = -(V - E[n]) / tau_m[n] + c * sum_a (phi(I[a,exc]) - phi(I[a,inh])) + noise
    V > threshold[n] and not refractory  ->  spike; V := reset[n], held for the refractory period

`c` is fixed by the published operating point: one weight LSB gives a post-synaptic potential
of 0.5 LSB at its peak for tau_m = tau_s = 6 us (Cramer et al. 2022, 1.2 V / 256 LSB, full
weight = 0.45 of threshold - leak = 31 LSB), so `c = 0.5 e / 6 us`. The linear part advances by
exact exponential propagators; only threshold crossings are resolved on sub-steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .chip import Chip
from .layout import CIRCUITS, ROWS_PER_CIRCUIT, Layout
from .silicon import SILENT_THRESHOLD, Values

Array = npt.NDArray[np.float64]

SYNAPTIC_DRIVE = 0.5 * np.e / 6e-6
"""c: slope of the membrane per weight LSB of synaptic current (LSB / s)."""
RESET_TAU = 0.3e-6
"""Time constant of the discharge of clamped synaptic lines [E] (s)."""
ON_CHIP_DELAY = 80e-9
"""Latency of an event that one neuron sends to others on the chip (s)."""
DEFAULT_THRESHOLD = 150.0
"""Threshold of the circuits if no group has one (LSB)."""
PARASITIC = 0.35
"""Capacitance of a merged circuit over the largest capacitor [C]: merging two circuits shifts tau by over 24 %."""
CAPACITOR_MAX = 63
"""Largest code of a membrane's 6-bit capacitor."""


@dataclass(frozen=True)
class Neurons:
    """True parameters of the `N` logical neurons of a layout on a chip, with at most `A` merged circuits.

    Attributes:
        rest: resting potential (LSB) `[N]`.
        threshold: spike threshold (LSB) `[N]`.
        reset: reset potential (LSB) `[N]`.
        refractory: refractory period (s) `[N]`.
        tau_mem: membrane time constant (s) `[N]`.
        tau_syn: synaptic time constants by sign (s) `[A, 2, N]`.
        synapse: strength of each synapse, including the gain of its input `[A, 128, 2, N]`; 0 without a circuit.
        cadc_offset: offset of the CADC channel (LSB) `[N]`.
        cadc_gain: slope of the CADC channel `[N]`.
        circuits: physical circuit of each merged circuit `[A, N]`; -1 for no circuit.
        stuck: bits of each synapse stuck at 0 and at 1 `[A, 128, 2, N]`; None without such faults.
    """

    rest: Array
    threshold: Array
    reset: Array
    refractory: Array
    tau_mem: Array
    tau_syn: Array
    synapse: Array
    cadc_offset: Array
    cadc_gain: Array
    circuits: npt.NDArray[np.int64]
    stuck: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None = None

    @property
    def gain(self) -> Array:
        """Mean strength of the synapses by sign `[A, 2, N]`."""
        gain: Array = self.synapse.mean(1)
        return gain


def assign_circuits(layout: Layout) -> npt.NDArray[np.int64]:
    """Return the physical circuits `[A, N]` of every logical neuron: in order, group after group."""
    merged = max(group.circuits for group in layout.groups)
    circuits = np.full((merged, layout.bounds[-1]), -1)
    start = 0
    for group, first in zip(layout.groups, layout.bounds, strict=False):
        count = group.size * group.circuits
        block = np.array(layout.circuits[start : start + count]).reshape(group.size, group.circuits)
        circuits[: group.circuits, first : first + group.size] = block.T
        start += count
    return circuits


def circuit_targets(layout: Layout) -> dict[str, Array]:
    """Return the targets of every circuit (`[512]` each); unused circuits get the targets of the first group.

    A readout, whose threshold is off, gets the threshold of the first spiking group.
    """
    groups = layout.groups
    spiking = [g.threshold for g in groups if g.threshold is not None]
    owner = np.zeros(CIRCUITS, np.int64)
    owner[[*layout.circuits]] = np.repeat(np.arange(len(groups)), [g.size * g.circuits for g in groups])
    columns = {
        "leak": [g.leak for g in groups],
        "threshold": [g.threshold if g.threshold is not None else (spiking or [DEFAULT_THRESHOLD])[0] for g in groups],
        "reset": [g.reset for g in groups],
        "tau_mem": [g.tau_mem for g in groups],
        "tau_syn": [g.tau_syn for g in groups],
    }
    return {name: np.array(column, np.float64)[owner] for name, column in columns.items()}


def capacitance(layout: Layout, values: Values, circuits: npt.NDArray[np.int64]) -> Array:
    """Return the ratio `[N]` of each logical neuron's capacitance to the capacitance at calibration.

    A merged circuit adds its parasitic capacitance. The 6-bit capacitor of the first circuit is lowered to compensate
    for it within its range; beyond that, further circuits also add their leak conductance. The mismatch of the
    parasitics and the rounding of the capacitor remain.
    """
    merged = (circuits >= 0).sum(0)
    parasitics = np.where(circuits[1:] >= 0, values.parasitic[circuits[1:]], 0.0).sum(0) * PARASITIC
    if not layout.corrected_capacitance:
        return 1 + parasitics / (1 + PARASITIC)
    reduction = np.rint(np.minimum(PARASITIC * (merged - 1), 1.0) * CAPACITOR_MAX) / CAPACITOR_MAX
    shared = np.maximum(PARASITIC * (merged - 1) - 1, 0) / (1 + PARASITIC)
    return (1 + (parasitics - reduction) / (1 + PARASITIC)) / (1 + shared)


def build_neurons(chip: Chip, layout: Layout) -> Neurons:
    """Return the true parameters of a layout's logical neurons on a chip.

    The first circuit of a logical neuron provides leak, threshold, reset and readout; every
    circuit brings its own synaptic inputs (and its own shift of the rest).
    """

    def target(name: str) -> Array:
        return np.repeat([getattr(g, name) for g in layout.groups], [g.size for g in layout.groups])

    circuits = assign_circuits(layout)
    p = chip.values(circuit_targets(layout))
    first = circuits[0]
    is_used = circuits >= 0
    load = capacitance(layout, p, circuits)
    shift = np.where(is_used, p.rest_shift[circuits], 0.0).sum(0) / np.sqrt(is_used.sum(0))
    spikes = np.repeat([g.threshold is not None for g in layout.groups], [g.size for g in layout.groups])
    by_sign = (0, 2, 1)
    return Neurons(
        rest=p.leak[first] + (shift if layout.synapses_enabled else 0.0),
        threshold=np.where(spikes, p.threshold[first], SILENT_THRESHOLD),
        reset=p.reset[first],
        refractory=target("refractory"),
        tau_mem=p.tau_mem[first] * load,
        tau_syn=p.tau_syn[circuits].transpose(by_sign),
        synapse=_synapses(p.synapse * p.gain[:, None, :], circuits, is_used) / load,
        cadc_offset=p.cadc_offset[first],
        cadc_gain=p.cadc_gain[first],
        circuits=circuits,
        stuck=None if p.stuck_low is None else _stuck_bits(p, circuits),
    )


def _synapses(factor: Array, circuits: npt.NDArray[np.int64], is_used: npt.NDArray[np.bool_]) -> Array:
    """Return the strength of each synapse of the neurons `[A, 128, 2, N]` from those of all circuits `[C, 128, 2]`."""
    strengths: Array = np.where(is_used[:, None, None, :], factor[circuits].transpose(0, 2, 3, 1), 0.0)
    return strengths


def _stuck_bits(p: Values, circuits: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    assert p.stuck_low is not None
    assert p.stuck_high is not None
    order = (0, 2, 3, 1)
    return p.stuck_low[circuits].transpose(order), p.stuck_high[circuits].transpose(order)


@dataclass(frozen=True)
class SynapseBlock:
    """The synapses of one wiring.

    Attributes:
        factor: strength of each excitatory and inhibitory synapse `[2, size, targets]`.
        low: bits of each synapse that are stuck at 0 `[2, size, targets]`; None without such faults.
        high: bits of each synapse that are stuck at 1 `[2, size, targets]`; None without such faults.
    """

    factor: npt.NDArray[np.float32]
    low: npt.NDArray[np.uint8] | None
    high: npt.NDArray[np.uint8] | None

    def charges(self, weights: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        """Return the signed charges (weight LSB) that an event delivers through integer weights `[size, targets]`."""
        charges: npt.NDArray[np.float32]
        if self.low is None or self.high is None:
            charges = weights * np.where(weights > 0, self.factor[0], self.factor[1])
        else:
            excitatory = (np.maximum(weights, 0) & ~self.low[0]) | self.high[0]
            inhibitory = (np.maximum(-weights, 0) & ~self.low[1]) | self.high[1]
            charges = excitatory * self.factor[0] - inhibitory * self.factor[1]
        return charges


def synapse_blocks(layout: Layout, neurons: Neurons) -> list[SynapseBlock]:
    """Return the synapses of each wiring."""
    blocks = []
    for wiring in layout.wirings:
        rows = wiring.row_of_source
        merged = (rows // ROWS_PER_CIRCUIT)[:, None]
        driver = (rows % ROWS_PER_CIRCUIT)[:, None]
        targets = np.arange(layout.bounds[wiring.target], layout.bounds[wiring.target + 1])

        def cut(array: Any, merged: Any = merged, driver: Any = driver, targets: Any = targets) -> Any:
            return np.stack([array[merged, driver, sign, targets] for sign in range(2)])

        low, high = (None, None) if neurons.stuck is None else (cut(neurons.stuck[0]), cut(neurons.stuck[1]))
        blocks.append(SynapseBlock(cut(neurons.synapse).astype(np.float32), low, high))
    return blocks


NOISE_TAU = 6e-6
NOISE_EXPONENT = 0.2
"""Growth of membrane noise with tau_mem [E]: consistent with a total of 0.7-1.5 LSB at 6 us and 1.2-2 at 60 us [C]."""


def noise_of(neurons: Neurons, level: float) -> Array:
    """Return the stationary noise of each membrane (LSB) `[N]`: `level` at 6 us, more at longer time constants."""
    noise: Array = level * (neurons.tau_mem / NOISE_TAU) ** NOISE_EXPONENT
    return noise


def noise_level(noise: float, tau_mem: float) -> float:
    """Return the level at 6 us (LSB) that corresponds to stationary `noise` (LSB) at `tau_mem` (s)."""
    return noise * (NOISE_TAU / tau_mem) ** NOISE_EXPONENT


@dataclass(frozen=True)
class Propagators:
    """Exact one-sub-step propagators of the linear part.

    Attributes:
        step: length of the sub-step (s).
        mem: decay of the membrane `[N]`.
        syn: decay of the synaptic currents `[A, 2, N]`.
        drive: change of the membrane per synaptic current at the start of the step (LSB per weight LSB)
            `[A, 2, N]`, negative for inhibition.
        noise: noise of the membrane in one step per LSB of stationary noise `[N]`.
    """

    step: float
    mem: Array
    syn: Array
    drive: Array
    noise: Array


def build_propagators(neurons: Neurons, step: float) -> Propagators:
    """Return the propagators for a sub-step of `step` seconds; tau_m = tau_s needs no special case."""
    rate = 1 / neurons.tau_mem - 1 / neurons.tau_syn
    x = step * rate
    integral = np.where(np.abs(x) < 1e-9, step, np.expm1(x) / np.where(np.abs(x) < 1e-9, 1, rate))
    mem = np.exp(-step / neurons.tau_mem)
    sign = np.array([1.0, -1.0])[None, :, None]
    return Propagators(
        step=step,
        mem=mem,
        syn=np.exp(-step / neurons.tau_syn),
        drive=sign * SYNAPTIC_DRIVE * mem * integral,
        noise=np.sqrt(-np.expm1(-2 * step / neurons.tau_mem)),
    )
