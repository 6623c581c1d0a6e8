r"""From a chip and a layout to the numbers that the equations of motion need.

Equations (potentials in LSB, q in weight LSB; per logical neuron n, merged circuit a, sign s)::

    tau_s[n,a,s] dI/dt = -I            I jumps by gain[n,a,s] * synapse[n,j,s] * |w_nj| at an input event
    phi(I) = q_sat * pade_tanh(I / q_sat)                                     amplifier saturation
    dV/dt  = -(V - E[n]) / tau_m[n] + c * sum_a (phi(I[a,exc]) - phi(I[a,inh])) + noise
    V > threshold[n] and not refractory  ->  spike; V := reset[n], held for the refractory period

`c` is fixed by the published operating point: one weight LSB gives a post-synaptic potential
of 0.5 LSB at its peak for tau_m = tau_s = 6 us (Cramer et al. 2022, 1.2 V / 256 LSB, full
weight = 0.45 of threshold - leak = 31 LSB), so `c = 0.5 e / 6 us`. The linear part advances by
exact exponential propagators; only the crossing of the threshold is found on sub-steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .chip import Chip
from .layout import ROWS_PER_CIRCUIT, Layout

Array = npt.NDArray[np.float64]

SYNAPTIC_DRIVE = 0.5 * np.e / 6e-6
"""c: slope of the membrane per weight LSB of synaptic current (LSB / s)."""
ON_CHIP_DELAY = 80e-9
"""Latency of an event that one neuron sends to others on the chip (s)."""
NEVER = 1e9
"""Threshold of a neuron that cannot spike (LSB)."""


@dataclass(frozen=True)
class Neurons:
    """True parameters of the `N` logical neurons of a layout on a chip, with `A` merged circuits at most.

    Attributes:
        rest, threshold, reset: LSB `[N]`.
        refractory: s `[N]`.
        tau_mem: s `[N]`; tau_syn: s `[A, 2, N]`; gain: `[A, 2, N]`.
        cadc_offset: LSB `[N]`; cadc_gain: `[N]`.
        circuits: physical circuit of each merged circuit `[A, N]`, -1 where there is none.
    """

    rest: Array
    threshold: Array
    reset: Array
    refractory: Array
    tau_mem: Array
    tau_syn: Array
    gain: Array
    cadc_offset: Array
    cadc_gain: Array
    circuits: npt.NDArray[np.int64]


def assign_circuits(layout: Layout) -> npt.NDArray[np.int64]:
    """Return the physical circuits `[A, N]` of every logical neuron: consecutive, group after group."""
    merged = max(group.circuits for group in layout.groups)
    circuits = np.full((merged, layout.bounds[-1]), -1)
    start = 0
    for group, first in zip(layout.groups, layout.bounds, strict=False):
        count = group.size * group.circuits
        block = np.arange(start, start + count).reshape(group.size, group.circuits)
        circuits[: group.circuits, first : first + group.size] = block.T
        start += count
    return circuits


def build_neurons(chip: Chip, layout: Layout) -> Neurons:
    """Apply a chip's fixed pattern to a layout's targets.

    The first circuit of a logical neuron provides leak, threshold, reset and readout; every
    circuit brings its own synaptic inputs (and its own shift of the rest).
    """

    def target(name: str) -> Array:
        return np.repeat([getattr(g, name) for g in layout.groups], [g.size for g in layout.groups])

    p, circuits = chip.pattern, assign_circuits(layout)
    first, used = circuits[0], circuits >= 0
    shift = np.where(used, p.rest_shift[circuits], 0.0).sum(0) / np.sqrt(used.sum(0))
    spikes = np.repeat([g.threshold is not None for g in layout.groups], [g.size for g in layout.groups])
    level = np.repeat([g.threshold or 0.0 for g in layout.groups], [g.size for g in layout.groups])
    by_sign = (0, 2, 1)
    return Neurons(
        rest=target("leak") + p.leak[first] + shift,
        threshold=np.where(spikes, level + p.threshold[first], NEVER),
        reset=target("reset") + p.reset[first],
        refractory=target("refractory"),
        tau_mem=target("tau_mem") * p.tau_mem[first],
        tau_syn=(target("tau_syn")[None, :, None] * p.tau_syn[circuits]).transpose(by_sign),
        gain=np.where(used[..., None], p.gain[circuits], 0.0).transpose(by_sign),
        cadc_offset=p.cadc_offset[first],
        cadc_gain=p.cadc_gain[first],
        circuits=circuits,
    )


def synapse_factors(chip: Chip, layout: Layout, neurons: Neurons) -> list[tuple[Array, Array]]:
    """Return per wiring the strength of each excitatory and inhibitory synapse, `[size, targets]` each."""
    factors = []
    for wiring in layout.wirings:
        rows = wiring.first_row + np.arange(wiring.size)
        merged, driver = rows // ROWS_PER_CIRCUIT, rows % ROWS_PER_CIRCUIT
        targets = np.arange(layout.bounds[wiring.target], layout.bounds[wiring.target + 1])
        circuit = neurons.circuits[merged][:, targets]
        cell = chip.pattern.synapse[circuit, driver[:, None]]
        gain = neurons.gain[merged][:, :, targets]
        factors.append((cell[..., 0] * gain[:, 0], cell[..., 1] * gain[:, 1]))
    return factors


@dataclass(frozen=True)
class Propagators:
    """Exact one-sub-step propagators of the linear part.

    Attributes:
        step: length of the sub-step (s).
        mem: decay of the membrane `[N]`.
        syn: decay of the synaptic currents `[A, 2, N]`.
        drive: membrane's gain from the current at the step's start `[A, 2, N]`, negative for
            inhibition (LSB per weight LSB).
        noise: membrane's noise of one step per LSB of stationary noise `[N]`.
    """

    step: float
    mem: Array
    syn: Array
    drive: Array
    noise: Array


def build_propagators(neurons: Neurons, step: float) -> Propagators:
    """Return the propagators for a sub-step of `step` seconds; tau_m = tau_s is no special case."""
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
