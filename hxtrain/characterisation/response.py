r"""Response of a membrane to simultaneous events: closed form, with a saturating amplifier.

Events that reach one merged circuit at t = 0 with charge q (weight LSB) give (deviation from leak, trace units)::

    dI/dt = -I / tau_s,  I(0) = q
    dV/dt = -V / tau_m +- c phi(I)          phi(I) = I_sat pade_tanh(I / I_sat)

With `pade_tanh(x) = x (15 + x^2) / (15 + 6 x^2) = sum_m b_m x^(2m+1)` (`docs/emulator.md`), each power of I is
an exponential again, so V is a sum of double exponentials `D(t; tau_m, tau_s / (2m+1))`. The series converges for
q < 1.58 I_sat; its error is below 0.1 % of V for q < 0.9 I_sat. For q << I_sat a response is symmetric in tau_m and
tau_s: it determines the pair, but not which of the two belongs to the membrane.

Shape letters: `N` neurons, `A` merged circuits, `J` inputs, `L` stimuli, `K` times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
TERMS = 8
"""Largest number of terms of the amplifier's series."""
NEGLIGIBLE = 1e-5
"""Share of the linear response below which further terms are left out."""
PEAK_TIMES = np.geomspace(0.3, 6.0, 40)
"""Times at which a response's peak is searched, in units of the geometric mean of tau_mem and the shortest tau_syn."""


def _decaying(t: Array, decayed: Array, tau_mem: Array, tau_syn: Array) -> Array:
    """Return `(exp(-t/tau_mem) - exp(-t/tau_syn)) / (1/tau_syn - 1/tau_mem)` (s) for t >= 0, also for equal taus.

    `decayed` is `t exp(-t / tau_mem)`, a factor of all terms of the series.
    """
    x = t * (1 / tau_mem - 1 / tau_syn)
    small = np.abs(x) < 1e-6
    result: Array = decayed * np.where(small, 1 + x / 2, np.expm1(x) / np.where(small, 1.0, x))
    return result


def response(
    times: Array, tau_mem: Array, tau_syn: Array, charge: Array, drive: float, nonlinearity: float | Array
) -> Array:
    """Return the membrane's deviation from leak (trace units); arguments broadcast.

    Args:
        times: times since the events (s).
        tau_mem: time constant of the membranes (s).
        tau_syn: time constant of the synaptic currents (s).
        charge: charge of the events in one circuit, of one sign (weight LSB).
        drive: slope of the membrane per weight LSB (trace units / s).
        nonlinearity: `1 / I_sat^2`; 0 for a linear amplifier.
    """
    t = np.maximum(times, 0.0)
    decayed: Array = t * np.exp(-t / tau_mem)
    factor: Array = drive * charge
    total: Array = factor * _decaying(t, decayed, tau_mem, tau_syn)
    if not np.any(nonlinearity):
        return total
    square = charge**2 * nonlinearity
    linear = float(np.abs(factor).max(initial=0.0))
    factor = -factor * square / 3
    for m in range(1, TERMS):
        if np.abs(factor).max(initial=0.0) <= NEGLIGIBLE * linear:
            break
        total = total + factor * _decaying(t, decayed, tau_mem, tau_syn / (2 * m + 1))
        factor = factor * (-0.4 * square)
    return total


@dataclass(frozen=True)
class MembraneModel:
    """Fitted synapses and membranes of `N` neurons.

    Attributes:
        drive: slope of a membrane per weight LSB of synaptic current (trace units / s).
        tau_mem: time constants of the membranes `[N]` (s).
        tau_syn: time constants of the synaptic currents by circuit and sign `[A, 2, N]` (s).
        strength: strength of each synapse `[J, 2, N]`.
        saturation: current at which the amplifier saturates (weight LSB); None for a linear amplifier.
    """

    drive: float
    tau_mem: Array
    tau_syn: Array
    strength: Array
    saturation: float | None = None

    @property
    def nonlinearity(self) -> float:
        """Return `1 / I_sat^2`."""
        return 0.0 if self.saturation is None else self.saturation**-2

    @property
    def gain(self) -> Array:
        """Mean strength of each circuit and sign `[A, 2, N]`."""
        merged, _, neurons = self.tau_syn.shape
        gain: Array = self.strength.reshape(merged, -1, 2, neurons).mean(1)
        return gain

    def charges(self, weights: Array, fired: Array) -> Array:
        """Return the charges `[L, A, 2, N]` of stimuli `fired` `[L, J]` with integer weights `[N, J]`."""
        merged, _, neurons = self.tau_syn.shape
        per_circuit = fired.reshape(len(fired), merged, -1)
        parts = []
        for sign, w in enumerate((np.maximum(weights, 0), np.maximum(-weights, 0))):
            charge = (w.T * self.strength[:, sign]).reshape(merged, -1, neurons)
            parts.append(np.einsum("laj,ajn->lan", per_circuit, charge, optimize=True))
        return np.stack(parts, axis=2)

    def response(self, times: Array, charges: Array) -> Array:
        """Return the deviation from leak `[..., N]` for times `[..., N]` and charges `[..., A, 2, N]`."""
        total: Array = np.zeros(np.broadcast_shapes(times.shape, charges.shape[:-3] + charges.shape[-1:]))
        for a in range(charges.shape[-3]):
            for s, sign in enumerate((1.0, -1.0)):
                q = charges[..., a, s, :]
                if np.any(q):
                    tau = self.tau_syn[a, s]
                    total += sign * response(times, self.tau_mem, tau, q, self.drive, self.nonlinearity)
        return total

    def peak(self, charges: Array) -> Array:
        """Return the largest deviation from leak `[L, N]` for excitatory charges `[L, A, 2, N]`."""
        times = PEAK_TIMES[:, None, None] * np.sqrt(self.tau_mem * self.tau_syn[:, 0].min(0))  # [K, 1, N]
        v = self.response(times, charges[None])
        at = v.argmax(0)[None].clip(1, len(PEAK_TIMES) - 2)
        left, mid, right = (np.take_along_axis(v, at + d, 0)[0] for d in (-1, 0, 1))
        bend = np.minimum(left - 2 * mid + right, -1e-12)
        vertex: Array = mid - (right - left) ** 2 / (8 * bend)
        return vertex
