"""Fits of averaged traces, for all circuits at once: damped Gauss-Newton steps with analytic derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Model = Callable[[Array], tuple[Array, Array]]
"""Parameters `[K, N]` to values `[P, N]` and derivatives `[K, P, N]`."""

ITERATIONS = 8
_LOG_TAU = (float(np.log(0.1e-6)), float(np.log(1e-3)))


class Psp(NamedTuple):
    """A post-synaptic potential: its baseline (LSB), initial slope (LSB / s) and time constants (s), each `[N]`."""

    base: Array
    slope: Array
    tau_syn: Array
    tau_mem: Array


def psp_shape(time: Array, tau_syn: Array, tau_mem: Array) -> tuple[Array, Array, Array]:
    """Return `(exp(-t/tau_m) - exp(-t/tau_s)) / (1/tau_s - 1/tau_m)` and its derivatives to both log tau, `[P, N]`."""
    elapsed = np.maximum(time, 0)[:, None]
    rate = 1 / tau_syn - 1 / tau_mem
    rate = np.where(np.abs(rate * tau_syn) < 1e-4, 1e-4 / tau_syn, rate)
    syn, mem = np.exp(-elapsed / tau_syn), np.exp(-elapsed / tau_mem)
    shape = (mem - syn) / rate
    return shape, (shape - elapsed * syn) / tau_syn / rate, (elapsed * mem - shape) / tau_mem / rate


def fit_psp(time: Array, trace: Array, tau_syn: float, tau_mem: float) -> Psp:
    """Fit `base + slope * psp_shape(time)` to traces; the shorter time constant is the synapse's.

    Args:
        time: time since the input, negative before it (s) `[P]`.
        trace: averaged traces (LSB) `[P, N]`.
        tau_syn: initial value of the synaptic time constant (s).
        tau_mem: initial value of the membrane time constant (s).
    """

    def model(p: Array) -> tuple[Array, Array]:
        shape, by_syn, by_mem = psp_shape(time, np.exp(p[2]), np.exp(p[3]))
        return p[0] + p[1] * shape, np.stack([np.ones_like(shape), shape, p[1] * by_syn, p[1] * by_mem])

    start = np.empty((4, trace.shape[1]))
    start[0] = trace[time < 0].mean(0)
    start[2], start[3] = np.log(tau_syn), np.log(tau_mem)
    form = psp_shape(time, np.exp(start[2]), np.exp(start[3]))[0]
    start[1] = ((trace - start[0]) * form).sum(0) / (form**2).sum(0)
    solution = _gauss_newton(model, start, trace, 2)
    taus = np.exp(solution[2:])
    return Psp(solution[0], solution[1], taus.min(0), taus.max(0))


def fit_decay(time: Array, trace: Array, tau: float) -> Array:
    """Return the time constants (s) `[N]` of `a + b exp(-time / tau)`; time `[P]` (s), trace `[P, N]`."""

    def model(p: Array) -> tuple[Array, Array]:
        x = time[:, None] / np.exp(p[2])
        decay = np.exp(-x)
        return p[0] + p[1] * decay, np.stack([np.ones_like(decay), decay, p[1] * decay * x])

    start = np.stack([trace[-1], trace[0] - trace[-1], np.full(trace.shape[1], np.log(tau))])
    return np.exp(_gauss_newton(model, start, trace, 2)[2])


def _gauss_newton(model: Model, start: Array, data: Array, first_tau: int) -> Array:
    """Minimise the squares of `model(p) - data [P, N]` over `p [K, N]`, each column on its own.

    The parameters from `first_tau` on are logarithms of time constants.
    """
    p = start
    damping = np.full(data.shape[1], 1e-3)
    value, slope = model(p)
    residual = data - value
    for _ in range(ITERATIONS):
        columns = slope.transpose(2, 0, 1)  # [N, K, P]
        normal = columns @ columns.transpose(0, 2, 1)
        gradient = (columns @ residual.T[:, :, None])[..., 0]
        diagonal = np.einsum("nkk->nk", normal) * damping[:, None] + 1e-30
        step = np.linalg.solve(normal + diagonal[:, :, None] * np.eye(len(p)), gradient[..., None])[..., 0].T
        candidate = p + step
        candidate[first_tau:] = np.clip(candidate[first_tau:], *_LOG_TAU)
        new_value, new_slope = model(candidate)
        new_residual = data - new_value
        is_better = (new_residual**2).sum(0) < (residual**2).sum(0)
        p, residual = np.where(is_better, candidate, p), np.where(is_better, new_residual, residual)
        slope = np.where(is_better, new_slope, slope)
        damping = np.where(is_better, damping / 5, damping * 10)
    return p
