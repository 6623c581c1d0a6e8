"""Time constants and gains of all neurons at once, from averaged traces.

Damped Gauss-Newton (Levenberg-Marquardt), batched over the neurons, in the logarithms of tau_mem `[N]`, tau_syn and
gain `[A, 2, N]`, and in the delay of stimuli relative to the trace samples `[N]`. Residuals are those of the mean
potentials (`psp.py`), with a tau_syn and a gain for every circuit and sign and a common tau_mem and delay, and those of
the membrane after a spike (`resets.py`), if measured: the potential alone is symmetric in tau_mem and tau_syn, but the
synaptic current that remains after the reset is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bench import OFFSETS, Bench
from .psp import Psps
from .resets import Recovery
from .response import response

Array = npt.NDArray[np.float64]
STEP = 1e-4
"""Relative step of the numerical derivatives."""
PRIOR = 1.0
"""Width of a weak prior around target and nominal gain (natural logarithm), which keeps undetermined values finite."""
DELAY = 1e-7
"""Unit of the delay, and width of its prior around 0 (s)."""
ITERATIONS = 25
SMALL_GAIN = 0.02
"""Gain below which single synapses are too noisy; they get their mean."""
FLOOR = 0.05
"""Systematic error of an averaged sample (trace units)."""


@dataclass(frozen=True)
class Shapes:
    """Fitted shapes.

    Attributes:
        tau_mem: time constants of the membranes `[N]` (s).
        tau_syn: time constants of the synaptic currents `[A, 2, N]` (s).
        gain: mean strength of the synapses `[A, 2, N]`.
        delay: delay of stimuli relative to the trace samples, mean over trials `[N]` (s).
        cost: half the sum of squared residuals `[N]`.
    """

    tau_mem: Array
    tau_syn: Array
    gain: Array
    delay: Array
    cost: Array


@dataclass(frozen=True)
class ShapeData:
    """Data of the fit: mean potentials and, if measured, recoveries after a spike.

    Attributes:
        mean: mean potentials `[OFFSETS, A, 2, T, N]` (trace units).
        weight: 1 / standard error of `mean`, 0 for invalid samples `[OFFSETS, A, 2, T, N]`.
        psp_times: time since the event `[OFFSETS, T]` (s).
        charge: charge of the input (weight LSB).
        target: targets of tau_mem and tau_syn `[2, N]` (s).
        drive: slope of the membrane per weight LSB (trace units / s).
        nonlinearity: `1 / I_sat^2`; 0 for a linear amplifier.
        recovery: mean traces after a spike; None if not measured.
    """

    mean: Array
    weight: Array
    psp_times: Array
    charge: float
    target: Array
    drive: float
    nonlinearity: float
    recovery: Recovery | None = None

    @classmethod
    def of(cls, bench: Bench, psps: Psps, sd: Array, saturation: float | None, recovery: Recovery | None) -> ShapeData:
        """Collect the data; `sd` `[N]` is the noise of a single sample."""
        averaged = psps.deviation.shape[0] * bench.capabilities.inputs_per_circuit / OFFSETS
        error = np.sqrt(sd**2 / averaged + FLOOR**2)
        return cls(
            mean=psps.mean,
            weight=psps.valid / error,
            psp_times=bench.times - bench.start - bench.offsets(OFFSETS)[:, None],
            charge=float(psps.weight),
            target=np.stack([bench.target("tau_mem"), bench.target("tau_syn")]),
            drive=bench.capabilities.synaptic_drive,
            nonlinearity=0.0 if saturation is None else saturation**-2,
            recovery=recovery,
        )

    def potentials(self, mem: Array, syn: Array, gain: Array, delay: Array) -> Array:
        """Return the model of `mean`."""
        times = self.psp_times[:, None, None, :, None] - delay
        sign = np.array([1.0, -1.0])[:, None, None]
        syn, gain = syn[:, :, None], gain[:, :, None]
        predicted: Array = sign * response(times, mem, syn, gain * self.charge, self.drive, self.nonlinearity)
        return predicted


def fit_strengths(psps: Psps, data: ShapeData, shapes: Shapes) -> Array:
    """Return the strength of every synapse `[J, 2, N]`: a matched filter with the fitted shape on single trials."""
    repeats, inputs, _, _, neurons = psps.deviation.shape
    merged = shapes.gain.shape[0]
    model = data.potentials(shapes.tau_mem, shapes.tau_syn, shapes.gain, shapes.delay)
    model = np.where(psps.valid, model, 0.0)
    norm = (model**2).sum((0, 3)) * (repeats // OFFSETS)
    filters = (model / np.where(norm > 0, norm, 1.0)[:, :, None]).astype(np.float32)
    filtered = np.zeros((merged, inputs // merged, 2, neurons))
    for r in range(repeats):
        traces = psps.deviation[r].reshape(merged, inputs // merged, 2, -1, neurons)
        filtered += np.einsum("ajstn,astn->ajsn", traces, filters[r % OFFSETS])
    relative = np.where((norm > 0) & (shapes.gain > SMALL_GAIN), filtered.swapaxes(0, 1), 1.0).swapaxes(0, 1)
    strength: Array = (relative / relative.mean(1, keepdims=True) * shapes.gain[:, None]).reshape(inputs, 2, neurons)
    return strength


def fit_shapes(data: ShapeData) -> Shapes:
    """Fit all neurons, starting from the targets.

    Parameters `[N, P]`: log tau_mem, log tau_syn (A, 2), log gain (A, 2), delay.
    """
    merged = data.mean.shape[1]
    neurons = data.mean.shape[-1]
    channels = 2 * merged
    centre = np.zeros((neurons, 2 + 2 * channels))
    centre[:, 0] = np.log(data.target[0])
    centre[:, 1 : 1 + channels] = np.log(data.target[1])[:, None]
    p = centre
    damping = np.full(neurons, 1e-2)
    cost, normal, slope = _linearise(data, p, centre)
    for _ in range(ITERATIONS):
        diagonal = np.einsum("npp->np", normal)
        damped = normal + damping[:, None, None] * diagonal[:, :, None] * np.eye(p.shape[1])
        step = np.clip(np.linalg.solve(damped, slope[:, :, None])[:, :, 0], -0.5, 0.5)
        trial = _linearise(data, p + step, centre)
        is_better = trial[0] < cost
        decrease = np.where(is_better, cost - trial[0], 0.0)
        p = np.where(is_better[:, None], p + step, p)
        cost = np.where(is_better, trial[0], cost)
        normal = np.where(is_better[:, None, None], trial[1], normal)
        slope = np.where(is_better[:, None], trial[2], slope)
        damping = np.clip(np.where(is_better, damping / 5, damping * 5), 1e-6, 1e6)
        if np.all((decrease < 1e-4 * cost + 1e-6) & (is_better | (damping > 1e3))):
            break
    return Shapes(*_unpack(p, merged), cost)


def _unpack(p: Array, merged: int) -> tuple[Array, Array, Array, Array]:
    """Return tau_mem `[N]`, tau_syn and gain `[A, 2, N]`, delay (s) `[N]`."""
    channels = 2 * merged
    shape = (merged, 2, -1)
    values = np.exp(p[:, :-1].T)
    return values[0], values[1 : 1 + channels].reshape(shape), values[1 + channels :].reshape(shape), DELAY * p[:, -1]


def _linearise(data: ShapeData, p: Array, centre: Array) -> tuple[Array, Array, Array]:
    """Return cost `[N]`, normal matrix `[N, P, P]` and descent direction `[N, P]`."""
    merged = data.mean.shape[1]
    channels = 2 * merged
    mem, syn, gain, delay = _unpack(p, merged)
    model = data.potentials(mem, syn, gain, delay)
    slopes = (
        (data.potentials(mem * (1 + STEP), syn, gain, delay) - model) / STEP,
        (data.potentials(mem, syn * (1 + STEP), gain, delay) - model) / STEP,
        model,  # derivative by log gain, without the small share that saturates
        (data.potentials(mem, syn, gain, delay + STEP * DELAY) - model) / STEP,
    )
    j = np.stack([slope * data.weight for slope in slopes])  # [4, O, A, 2, T, N]
    residual = (data.mean - model) * data.weight
    products = np.einsum("poastn,qoastn->pqasn", j, j, optimize=True).reshape(4, 4, channels, -1)
    descent = np.einsum("poastn,oastn->pasn", j, residual, optimize=True).reshape(4, channels, -1)
    normal = np.zeros((p.shape[0], p.shape[1], p.shape[1]))
    slope = (centre - p) / PRIOR**2
    channel = np.arange(channels)
    index = (np.zeros_like(channel), 1 + channel, 1 + channels + channel, np.full_like(channel, p.shape[1] - 1))
    for a, row in enumerate(index):
        np.add.at(slope.T, row, descent[a])
        for b, column in enumerate(index):
            np.add.at(normal.transpose(1, 2, 0), (row, column), products[a, b])
    normal += np.eye(p.shape[1]) / PRIOR**2
    cost = 0.5 * ((residual**2).sum((0, 1, 2, 3)) + ((centre - p) ** 2).sum(1) / PRIOR**2)
    if data.recovery is not None:
        _add_recovery(data, data.recovery, p, cost, normal, slope)
    return cost, normal, slope


def _add_recovery(data: ShapeData, recovery: Recovery, p: Array, cost: Array, normal: Array, slope: Array) -> None:
    """Add the recoveries' residuals to cost, normal matrix and descent direction."""
    merged = data.mean.shape[1]

    def model(q: Array) -> Array:
        mem, syn, gain, delay = _unpack(q, merged)
        predicted = recovery.model(mem, syn[:, 0], gain[:, 0], delay, data.drive, data.nonlinearity)
        return predicted * recovery.weight

    current = model(p)
    residual = recovery.deviation * recovery.weight - current
    columns = []
    for k in range(p.shape[1]):
        shifted = p.copy()
        shifted[:, k] += STEP
        columns.append((model(shifted) - current) / STEP)
    j = np.stack(columns)  # [P, O, T, N]
    normal += np.einsum("potn,qotn->npq", j, j, optimize=True)
    slope += np.einsum("potn,otn->np", j, residual, optimize=True)
    cost += 0.5 * (residual**2).sum((0, 1))
