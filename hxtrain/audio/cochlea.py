"""Sound to spikes: the conversion of the Heidelberg spiking data sets (Cramer, Stradmann, Schemmel and Zenke 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .libraries import AudioError
from .membrane import blocks
from .nerve import probabilities, spikes
from .philox import random_key
from .waves import LEVEL, RATE, loudness, mono, ramps

STEPS_PER_SECOND = RATE // 2
"""Rate of the hair cells and of spike times (Hz)."""
CHANNELS = 700
"""Number of channels as published."""


@dataclass(frozen=True)
class Cochlea:
    """Basilar membrane, inner hair cells and bushy cells of a number of channels, from high to low frequencies.

    Attributes:
        channels: number of channels along the membrane.
        selection: channels that are computed, ascending; None: all. Channels are independent: each gets the spikes that
            it gets beside all others.
        seed: seed of the noise.
        level: root mean square to which sound is scaled.
        ramp: length of the ramps at the start and the end of the sound (s); None: half the sound, as published.

    Raises:
        ValueError: a setting is out of range.
    """

    channels: int = CHANNELS
    selection: Sequence[int] | None = None
    seed: int = 0
    level: float = LEVEL
    ramp: float | None = None

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels={self.channels} must be at least 1")
        if not self.level > 0:
            raise ValueError(f"level={self.level} must be above 0")
        numbers = self.numbers
        if not len(numbers) or numbers[0] < 0 or numbers[-1] >= self.channels or (np.diff(numbers) <= 0).any():
            raise ValueError(
                f"selection of {len(numbers)} channels must ascend within 0..{self.channels - 1}, each channel once"
            )

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Channels that are computed [C]."""
        return np.arange(self.channels) if self.selection is None else np.array(self.selection, dtype=np.int64)

    def __call__(
        self, samples: npt.NDArray[np.floating[Any]], rate: int, name: str
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Return the spikes of a sound: times (s), ascending, and units [E].

        Units are positions in `selection`; at equal times they ascend.

        Args:
            samples: wave [N] or [N, channels].
            rate: sampling rate of the samples (Hz).
            name: name of the sound, which chooses its noise along with the seed.

        Raises:
            AudioError: the wave is too short, silent, or not finite.
            ImportError: the extra `audio` is not installed.
        """
        wave = ramps(loudness(mono(samples, rate), self.level), self.ramp)
        if not np.abs(wave).max() > 0:
            raise AudioError(f"{name}: nothing is left between the ramps; remove the file")
        key = random_key(self.seed, name)
        units, steps = [], []
        start = 0
        for block, velocity in blocks(wave, self.numbers, self.channels):
            rows, moments = spikes(probabilities(velocity, STEPS_PER_SECOND), STEPS_PER_SECOND, key, block)
            units.append(rows + start)
            steps.append(moments)
            start += len(block)
        unit, step = np.concatenate(units), np.concatenate(steps)
        order = np.lexsort((unit, step))
        return step[order] / STEPS_PER_SECOND, unit[order]
