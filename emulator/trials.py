"""What goes into an engine and what comes out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hxtrain.emulator.engines import cpu_kernel as kernel


class Events(NamedTuple):
    """Events grouped by sample: sample, unit int64 `[E]`, time in seconds float32 `[E]`."""

    sample: Tensor
    unit: Tensor
    time: Tensor


class Trials(NamedTuple):
    """The trials of one run, `B` of them.

    Attributes:
        events: external events. The engines of sub-steps get their times in sub-steps.
        external, internal: signed charges of the synapses (weight LSB) `[C, J, N]`, `[C, N, N]`.
        chip, row: chip and row of `rows` of each trial `[B]`.
        keys: noise keys of each trial `[B, 2]`.
        rows: what the chips' clock changes slowly.
        phase: by how much each trial's stimulus comes after the CADC's first sample (s) `[B]`.
    """

    events: Events
    external: Tensor
    internal: Tensor
    chip: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint32]
    rows: kernel.Rows
    phase: npt.NDArray[np.float32]
