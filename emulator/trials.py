"""Inputs and outputs of an engine."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .parameters import Rows


class Events(NamedTuple):
    """Events grouped by sample: sample, unit int64 `[E]`, time in seconds float32 `[E]`."""

    sample: Tensor
    unit: Tensor
    time: Tensor


class Trials(NamedTuple):
    """The trials of one run, `B` of them.

    Attributes:
        events: external events.
        external: signed charges of the synapses of external inputs (weight LSB) `[C, J, N]`.
        internal: signed charges of the synapses between neurons (weight LSB) `[C, N, N]`.
        chip: index of the chip of each trial `[B]`.
        row: index into `rows` of each trial `[B]`.
        keys: noise keys of each trial `[B, 2]`.
        rows: slow state of the chips.
        phase: delay of each trial's stimulus after the CADC's first sample (s) `[B]`.
    """

    events: Events
    external: Tensor
    internal: Tensor
    chip: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint32]
    rows: Rows
    phase: npt.NDArray[np.float32]


def check_events(events: Events, inputs: int, batch: int) -> None:
    """Refuse events that are out of range or not in order.

    Args:
        events: External events.
        inputs: Number of external inputs of the layout.
        batch: Number of trials.

    Raises:
        ValueError: an event is out of range, or events are not grouped by sample.
    """
    if len(events.sample) == 0:
        return
    order = (events.sample[0], events.sample[-1], (events.sample.diff() < 0).any())
    extremes = (*torch.aminmax(events.unit), *order, events.time.min())
    lowest, highest, first, last, is_unordered, earliest = torch.stack([x.double() for x in extremes]).tolist()
    if lowest < 0 or highest >= inputs:
        raise ValueError(f"events.unit spans {lowest:.0f}..{highest:.0f}, the layout has {inputs} inputs")
    if first < 0 or last >= batch or is_unordered:
        raise ValueError(f"events.sample must be ascending and within 0..{batch - 1}")
    if not earliest >= 0:
        raise ValueError(f"events.time must not be negative, smallest is {earliest} s")
