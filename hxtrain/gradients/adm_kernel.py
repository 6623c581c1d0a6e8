"""Loop of approximate derivatives, compiled for the CPU with numba (decision 0008); `adm.py` has the equations."""

from __future__ import annotations

import numpy as np

from hxtrain.neurons.jit import Float, Number, compiled, uptr


@compiled
def _step_back(charges, previous, row, value, charge, spikes, errors, slopes, sample, alpha):
    """Carry value and charge of all neurons of a sample one step back."""
    for n in range(uptr(value.shape[0])):
        v = errors[row + n] * slopes[sample + n] if spikes[row + n] > 0 else value[n]
        c = v + alpha * charge[n]
        value[n] = v
        charge[n] = c
        charges[previous + n] = c


@compiled
def charges(begin: int, end: int, spikes: Float, errors: Float, slopes: Float, alpha: Number, charges: Float) -> None:
    """Write the gradient of the charge that arrives in each step, of samples `begin` to `end`.

    Args:
        begin: First sample.
        end: End of the samples.
        spikes: Spikes of a population `[T, B, N]`.
        errors: Gradient of each spike `[T, B, N]`.
        slopes: Derivatives of the numbers of spikes `[B, N]`.
        alpha: Decay of the synaptic currents per step.
        charges: Gradients of the charges `[T, B, N]` (out).
    """
    steps, samples, neurons = spikes.shape
    flat = charges.reshape(-1)
    flat_spikes = spikes.reshape(-1)
    flat_errors = errors.reshape(-1)
    flat_slopes = slopes.reshape(-1)
    value = np.empty(neurons, charges.dtype)
    charge = np.empty(neurons, charges.dtype)
    for b in range(begin, end):
        value[:] = 0
        charge[:] = 0
        sample = uptr(b * neurons)
        charges[steps - 1, b] = 0
        for t in range(steps - 1, 0, -1):
            row = uptr((t * samples + b) * neurons)
            previous = uptr(((t - 1) * samples + b) * neurons)
            _step_back(flat, previous, row, value, charge, flat_spikes, flat_errors, flat_slopes, sample, alpha)
