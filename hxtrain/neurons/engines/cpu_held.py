"""Loops for gradients that know how long membranes are held after a spike, compiled for the CPU (decision 0023).

The loops of the backward pass call them. The conventions of `cpu_forward.py` hold; `held.py` says the same in torch.
"""

from __future__ import annotations

from typing import NamedTuple

from hxtrain.neurons.jit import Number, compiled, uptr

from .cpu_forward import Groups


class Hold(NamedTuple):
    """The hold of membranes after a spike.

    Attributes:
        time: Time for which a membrane is held after the trace sample of a spike (steps); negative for gradients that
            do not know it.
        steps: Number of steps after a spike in which the membrane is held or not carried over from the previous step.
        spikes: Measured spikes; used if the time is not negative.
    """

    time: Number
    steps: int
    spikes: Groups


@compiled
def free_shares(free, carried, hold, group, steps, step, first, n_neurons, width):
    """Write the share of each step in which membranes are free, and whether they are carried over, for a sample.

    Args:
        free: Share of each step in which a membrane is free, for S steps, `[S, W]` (out).
        carried: 1 where a membrane is carried over from the previous step, else 0, `[S, W]` (out).
        hold: Hold of the membranes.
        group: Group of the sample's spikes in step 0.
        steps: Number of steps of the sample.
        step: First of the S steps.
        first: First neuron.
        n_neurons: Number of neurons.
        width: Number of neurons W, padded.
    """
    zero = free.dtype.type(0)
    unit = free.dtype.type(1)
    offsets = hold.spikes.offsets
    units = hold.spikes.units
    end = min(step + free.shape[0] // width, steps)
    free[:] = unit
    carried[:] = unit
    for t in range(max(step - hold.steps, 0), end - 1):
        start = max(t + 1, step)
        stop = min(t + 1 + hold.steps, end)
        for e in range(offsets[group + t], offsets[group + t + 1]):
            n = uptr(units[e] - first)  # very large for neurons below the first
            if n < n_neurons:
                for s in range(start, stop):
                    i = uptr(s - step) * width + n
                    free[i] = unit - min(max(hold.time - free.dtype.type(s - t - 1), zero), unit)
                    carried[i] = zero


@compiled
def hold_back(through, membrane, free, carried, start, row, width):
    """Write the gradient of held membranes that reaches their charges, and keep that which reaches the step before.

    Args:
        through: Gradients of the membranes times their free shares; those of a sample begin at `start` (out).
        membrane: Gradients of the membranes; those of the sample begin at `start`; 0 where a membrane is not carried
            over (out).
        free: Free shares; those of the step begin at `row`.
        carried: Whether membranes are carried over, as 1 and 0; those of the step begin at `row`.
        start: Start of the sample in `through` and `membrane`.
        row: Start of the step in `free` and `carried`.
        width: Number of neurons, padded.
    """
    for n in range(width):
        gradient = membrane[start + n]
        through[start + n] = free[row + n] * gradient
        membrane[start + n] = carried[row + n] * gradient
