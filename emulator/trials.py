"""Inputs and outputs of an engine."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
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
