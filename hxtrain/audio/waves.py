"""Sound waves: read from files, one channel, at the sampling rate of the cochlea, with a common loudness."""

from __future__ import annotations

from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .libraries import AudioError, library

Wave = npt.NDArray[np.float64]

RATE = 48_000
"""Sampling rate of waves that the cochlea gets (Hz)."""
LEVEL = 0.3
"""Root mean square of waves that the cochlea gets."""
SHORTEST = 64
"""Number of samples below which a wave is refused."""


def read_wave(path: Path) -> Wave:
    """Return the wave of an audio file (WAV, FLAC, ...), one channel at `RATE` [N].

    Raises:
        AudioError: the file is missing or damaged, or holds no sound.
        ImportError: the extra `audio` is not installed.
    """
    reader = library("soundfile")
    try:
        samples, rate = reader.read(path, dtype="float64", always_2d=True)
    except (reader.SoundFileError, OSError, TypeError) as error:
        raise AudioError(
            f"{path}: not a readable audio file ({error}); give a WAV or FLAC file, or remove it"
        ) from None
    try:
        return mono(samples, rate)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None


def mono(samples: npt.NDArray[np.floating[Any]], rate: int) -> Wave:
    """Return the mean of the channels at `RATE` [N].

    Args:
        samples: wave [M] or [M, channels], of any scale.
        rate: sampling rate of the samples (Hz).

    Raises:
        AudioError: the wave is too short, silent, or not finite, or the rate is not positive.
        ImportError: the extra `audio` is not installed, and the rate is not `RATE`.
    """
    wave = np.asarray(samples, dtype=np.float64)
    wave = wave.mean(axis=1) if wave.ndim == 2 else wave
    if wave.ndim != 1 or len(wave) < SHORTEST:
        raise AudioError(f"wave of shape {list(wave.shape)}; expected at least {SHORTEST} samples [N] or [N, channels]")
    if not np.isfinite(wave).all():
        raise AudioError(f"{int((~np.isfinite(wave)).sum())} of {wave.size} samples are not finite; repair the file")
    if rate != int(rate) or rate <= 0:
        raise AudioError(f"sampling rate {rate} Hz; expected a whole number above 0")
    if not np.abs(wave).max() > 0:
        raise AudioError("all samples are 0, so that no loudness can be set; remove the file")
    if int(rate) == RATE:
        return wave
    shared = gcd(RATE, int(rate))
    resampled: Wave = library("scipy.signal").resample_poly(wave, RATE // shared, int(rate) // shared)
    if len(resampled) < SHORTEST:
        raise AudioError(f"{len(wave)} samples at {rate} Hz are too short; expected at least {SHORTEST / RATE:.2g} s")
    return resampled


def loudness(wave: Wave, level: float = LEVEL) -> Wave:
    """Return a wave [N] scaled to a root mean square of `level`."""
    return np.asarray(wave * (level / np.sqrt(np.mean(wave**2))))


def ramps(wave: Wave, duration: float | None = None) -> Wave:
    """Return a wave [N] that rises from 0 and falls to 0, each with half a Hann window.

    Args:
        wave: wave at `RATE` [N].
        duration: length of each ramp (s); None: half the wave, as in the published conversion.

    Raises:
        AudioError: the ramps do not fit.
    """
    count = len(wave) // 2 if duration is None else round(duration * RATE)
    if not 0 <= count <= len(wave) // 2:
        raise AudioError(f"ramp={duration} s; expected 0 to {len(wave) / 2 / RATE:.4g} s, half the wave")
    ramped = wave.copy()
    if count:
        rise = np.hanning(2 * count)[:count]
        ramped[:count] *= rise
        ramped[-count:] *= rise[::-1]
    return ramped


def trimmed(wave: Wave, share: float = 0.02, window: float = 0.01) -> Wave:
    """Return a wave [N] without the quiet at its start and end.

    Args:
        wave: wave at `RATE` [N].
        share: level, as a share of the greatest, below which the wave is quiet.
        window: time over which the level is taken (s).
    """
    width = round(window * RATE)
    power = np.convolve(wave**2, np.ones(width) / width, "same")
    loud = np.flatnonzero(power > share**2 * power.max())
    return wave[loud[0] : loud[-1] + 1]
