"""Low-level access to a chip: write codes, send inputs, read CADC and spikes.

The calibration accesses the chip only through a `Bench`, so it sees no true parameter of the die.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..cells import CellCodes, common_codes
from ..chip import Chip
from ..layout import CADC_INTERVAL, CIRCUITS, ROWS_PER_CIRCUIT, Group, Layout, Wiring
from ..machine import EmulatedChip
from ..preset import THRESHOLD_WINDOW
from ..silicon import Targets
from ..trials import Events

Array = npt.NDArray[np.float64]
REFRACTORY = 2e-6
"""Refractory period during a calibration (s)."""


class Observation(NamedTuple):
    """Result of a measurement of `B` trials with `T` samples.

    Attributes:
        codes: CADC codes `[B, T, 512]`.
        spikes: number of spikes of every circuit in every trial `[B, 512]`.
    """

    codes: npt.NDArray[np.uint8]
    spikes: npt.NDArray[np.int64]


class Bench:
    """A chip on the bench: 512 separate circuits with 128 signed inputs each.

    Args:
        chip: the individual; its codes, decalibration and `only` are ignored.
        targets: targets of all circuits; the initial codes meet them on a die without mismatch.
        seed: seed of the temporal noise.
        rate: rate at which the circuits fire without input (1 / s); None for circuits that rest.
    """

    def __init__(self, chip: Chip, targets: Targets, seed: int = 0, rate: float | None = None) -> None:
        self.targets, self.rate = targets, rate
        self.codes: CellCodes = common_codes(targets)
        self._chip = replace(chip, codes=self.codes, decalibration=None, only=None)
        self._machine = EmulatedChip(self._chip, seed)
        self._clock = 0

    def write(self, **codes: Array) -> None:
        """Write codes of some cells (rounded, limited to their range)."""
        self.codes = self.codes.replaced(**codes)

    def observe(
        self,
        samples: int,
        trials: int,
        weight: int = 0,
        inputs: int = 0,
        times: Array | None = None,
        spiking: bool = False,
        from_reset: bool = False,
        synapses: bool = True,
        windows: int = 1,
    ) -> Observation:
        """Run trials and return their codes and spikes.

        Args:
            samples: CADC samples per trial.
            trials: trials per window.
            weight: weight of all synapses of the first `inputs` inputs.
            inputs: number of inputs that fire.
            times: time at which these inputs fire in each trial (s) `[trials]`.
            spiking: whether the thresholds are on.
            from_reset: whether a reset is forced before each trial.
            synapses: whether the synaptic amplifiers are on.
            windows: number of repetitions at distant times of the clock; slow noise is constant within a window.
        """
        group = Group(CIRCUITS, 1, 0.0, 0.0 if spiking else None, 0.0, 1e-6, 1e-6, REFRACTORY)
        layout = Layout(
            ROWS_PER_CIRCUIT,
            (group,),
            (Wiring(0, ROWS_PER_CIRCUIT, 0),),
            from_reset=from_reset,
            synapses_enabled=synapses,
        )
        self._machine.exchange(replace(self._chip, codes=self.codes))
        self._machine.configure(layout, samples)
        weights = torch.zeros(CIRCUITS, ROWS_PER_CIRCUIT, dtype=torch.int8)
        weights[:, :inputs] = weight
        events = _volleys(inputs if times is not None else 0, np.zeros(0) if times is None else times)
        codes, counts = [], []
        for _ in range(windows):
            recording = self._machine.run([weights], events, trials, self._clock)
            place = recording.spikes.sample * CIRCUITS + recording.spikes.unit
            counts.append(np.bincount(place.numpy(), minlength=trials * CIRCUITS).reshape(trials, CIRCUITS))
            codes.append(recording.codes.numpy())
            self._clock += max(trials, THRESHOLD_WINDOW)
        return Observation(np.concatenate(codes), np.concatenate(counts))

    def read_reference(self, potential: float, samples: int) -> npt.NDArray[np.uint8]:
        """Return CADC codes `[samples, 512]` of one potential (LSB) that is connected to all channels."""
        self._machine.exchange(replace(self._chip, codes=self.codes))
        self._clock += 1
        return self._machine.read_reference(potential, samples, self._clock)


def _volleys(inputs: int, times: Array) -> Events:
    sample = torch.arange(len(times)).repeat_interleave(inputs)
    unit = torch.arange(inputs).repeat(len(times))
    return Events(sample, unit, torch.from_numpy(times.astype(np.float32)).repeat_interleave(inputs))


def spread_times(trials: int, start: float) -> Array:
    """Return stimulus times that sample one CADC interval evenly: equivalent-time sampling (s)."""
    return start + CADC_INTERVAL * np.arange(trials) / trials
