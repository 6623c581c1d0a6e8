r"""Eligibilities of synapses: what a synapse remembers of its activity until an error tells what it was good for.

The membrane of neuron i depends on the weight from source j through the trace of the source. A spike of i depends on
the membrane through the surrogate derivative, and an error meets the spike in a filtered form, such as the potential
that it causes downstream::

    i_j[t+1] = alpha i_j[t] + x_j[t]         p_j[t+1] = beta p_j[t] + i_j[t+1]      trace of source j, for all i
    c_ij[t+1] = rise c_ij[t] + sigma'(U_i[t] - 1) p_j[t]
    e_ij[t+1] = decay e_ij[t] + c_ij[t+1]                                           filtered eligibility
    gradient_ij = sum over t of L_i[t] e_ij[t]                                      L: learning signal

or, where an error concerns the spike or the membrane itself, `gradient_ij = sum over t of L_i[t] sigma' p_j[t]`.

All of it is linear in the state at the start of a window. So the sum over a window is carried backwards through the
window, event by event, and a synapse is touched a few times per window instead of in every step. The result does not
depend on the length of the windows. A window of a whole trial costs what backpropagation costs, and needs no state; a
window of one step is the equations above. The state is one number per sample and source for each line of traces, and
one per sample and synapse for each line of eligibilities, however long the trial.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hxtrain.neurons import GroupedEvents
from hxtrain.neurons.jit import Float
from hxtrain.neurons.shapes import require, require_all, require_events
from hxtrain.neurons.threads import edges_of, run_loop

from . import eligibility_kernel as kernel
from .eligibility_kernel import Decays, Events, Factors, Patterns, State


class Filter(NamedTuple):
    """A filter of two stages, `c[t+1] = rise c[t] + x[t]` and `m[t+1] = decay m[t] + c[t+1]`.

    Attributes:
        rise: Decay of the first stage per step.
        decay: Decay of the second stage per step.
    """

    rise: float
    decay: float


class Eligibilities:
    """Eligibilities of the synapses of a projection, for a batch of trials.

    Args:
        shape: Numbers B of samples, J of sources and N of neurons.
        trace: Filter of the sources.
        response: Filter through which errors see spikes; None for errors of membranes.
        dtype: Type of all numbers.

    Attributes:
        gradient: Gradient so far `[N, J]`.
    """

    def __init__(self, shape: tuple[int, int, int], trace: Filter, response: Filter | None, dtype: torch.dtype) -> None:
        _, sources, neurons = shape
        self._shape = shape
        self._response = response
        self._dtype = dtype
        self._sums = torch.zeros(sources, neurons, dtype=dtype)
        number = self._sums.numpy().dtype.type
        rise, decay = (0.0, 0.0) if response is None else response
        self._decays = Decays(number(trace.rise), number(trace.decay), number(rise), number(decay))
        self._state: State | None = None

    @property
    def gradient(self) -> Tensor:
        """Gradient so far `[N, J]`."""
        return self._sums.t()

    def observe(
        self,
        inputs: Tensor | GroupedEvents,
        slopes: Tensor | None,
        signals: Tensor,
        is_end: bool,
        direct: Tensor | None = None,
    ) -> None:
        """Take the next steps of all trials.

        Args:
            inputs: Numbers of events of the sources `[W, B, J]`, or the events.
            slopes: Surrogate derivatives of the neurons `[W, B, N]`; None for a readout.
            signals: Learning signals of the neurons `[W, B, N]`.
            is_end: Whether the trials end with these steps.
            direct: Further learning signals `[W, B, N]`, which meet the unfiltered eligibilities of their own step.

        Raises:
            ValueError: A shape does not match.
        """
        samples, sources, neurons = self._shape
        steps = len(signals)
        wide = (steps, samples, neurons)
        require_all(
            self._dtype,
            ("slopes", slopes, wide),
            ("signals", signals, wide),
            ("direct signals", direct, wide),
        )
        if isinstance(inputs, GroupedEvents):
            require_events("inputs", inputs, steps * samples, sources)
        else:
            inputs = inputs.to(self._dtype)
            require("inputs", inputs, (steps, samples, sources), self._dtype)
        if steps == 0:
            return
        empty = np.empty((0, 0, 0), self._sums.numpy().dtype)
        factors = Factors(
            _grouped(inputs, steps, self._dtype) if isinstance(inputs, GroupedEvents) else _events(inputs),
            empty if slopes is None else _array(slopes),
            _array(signals),
            empty if direct is None else _array(direct),
        )
        is_first = self._state is None
        state = self._started(is_end)
        is_filtered = self._response is not None
        arguments = (factors, self._decays, state, is_filtered, is_first, is_end, self._sums.numpy())
        run_loop(kernel.observe, edges_of(neurons, steps * samples * (neurons + sources)), *arguments)
        if not is_end:
            kernel.advance(steps, factors.inputs, self._decays, state)
            self._state = state

    @property
    def state_size(self) -> int:
        """Numbers that are kept from window to window, the gradient included."""
        return self._sums.numel() + (0 if self._state is None else sum(values.size for values in self._state))

    def _started(self, is_end: bool) -> State:
        """Return the state, made of zeros at the start; a trial in a single window needs none."""
        if self._state is not None:
            return self._state
        samples, sources, neurons = (0, 0, 0) if is_end else self._shape
        dtype = self._sums.numpy().dtype
        depth = 0 if self._response is None else samples
        return State(
            np.zeros((samples, sources), dtype),
            np.zeros((samples, sources), dtype),
            np.zeros((depth, sources, neurons), dtype),
            np.zeros((depth, sources, neurons), dtype),
        )


def _array(values: Tensor) -> Float:
    array: Float = values.detach().contiguous().numpy()
    return array


def _events(inputs: Tensor) -> Events:
    """Return the events of a grid `[W, B, J]`."""
    grid = _array(inputs)
    offsets = np.empty(grid.shape[1] + 1, np.int64)
    steps = np.empty(grid.size, np.int32)  # memory that is not written to costs nothing
    sources = np.empty(grid.size, np.int32)
    numbers = np.empty(grid.size, grid.dtype)
    patterns: Patterns = grid.reshape(-1).view(np.int32 if grid.itemsize == 4 else np.int64)
    kernel.events_of(grid, patterns, offsets, steps, sources, numbers)
    count = int(offsets[-1])
    return Events(offsets, steps[:count], sources[:count], numbers[:count])


def _grouped(events: GroupedEvents, steps: int, dtype: torch.dtype) -> Events:
    """Return events that are grouped by sample and step."""
    row = torch.repeat_interleave(events.offsets.diff())
    numbers = torch.ones(len(row), dtype=dtype)
    return Events(
        events.offsets[::steps].contiguous().numpy(),
        (row % steps).int().numpy(),
        events.units.int().numpy(),
        numbers.numpy(),
    )
