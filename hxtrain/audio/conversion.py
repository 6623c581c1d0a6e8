"""Clips to spikes: in pieces that survive an interruption."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .clips import Clip
from .cochlea import Cochlea
from .libraries import AudioError
from .waves import RATE

PIECE = 50
"""Number of clips after which spikes are written."""
Report = Callable[[int, int], None]
"""Function that is told how many clips are converted, and how many there are."""


class SpikeTrains(NamedTuple):
    """Spikes of clips, one clip after the other.

    Attributes:
        counts: number of spikes of each clip, int64 [N].
        times: time of each spike (s), ascending within a clip, float64 [E].
        units: unit of each spike, int64 [E].
    """

    counts: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    units: npt.NDArray[np.int64]

    def by_clip(self) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]]:
        """Yield times and units of each clip."""
        edges = np.cumsum(self.counts)[:-1]
        yield from zip(np.split(self.times, edges), np.split(self.units, edges), strict=True)


def convert(
    clips: Sequence[Clip], cochlea: Cochlea, folder: Path, workers: int, report: Report
) -> Iterator[tuple[Sequence[Clip], SpikeTrains]]:
    """Yield clips with their spikes, `PIECE` at a time.

    Pieces of finished work are kept in `folder`, which a later call with the same clips and settings reads, and which
    the caller removes once the result is safe. The spikes depend on neither the number of workers nor on the pieces.

    Args:
        clips: clips with unique names.
        cochlea: conversion.
        folder: folder for pieces.
        workers: number of clips that are converted at once.
        report: what is told about the progress.

    Raises:
        AudioError: a clip is missing, damaged or silent.
    """
    place = folder / _fingerprint(clips, cochlea)
    place.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(clips), PIECE):
            report(start, len(clips))
            file = place / f"{start:08d}.npz"
            piece = clips[start : start + PIECE]
            if not file.exists():
                with _interruptible(pool):
                    _write(file, list(pool.map(lambda clip: _converted(clip, cochlea), piece)))
            yield piece, _read(file)
    report(len(clips), len(clips))


@contextmanager
def _interruptible(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Drop the waiting work of a pool on an error or Ctrl-C."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise


def _converted(clip: Clip, cochlea: Cochlea) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    try:
        return cochlea(clip.wave(), RATE, clip.name)
    except AudioError as error:
        text = str(error)
        raise AudioError(text if clip.name in text else f"{clip.name}: {text}") from None


def _fingerprint(clips: Sequence[Clip], cochlea: Cochlea) -> str:
    """Return a text that changes with the clips and the settings."""
    settings = asdict(cochlea) | {"selection": cochlea.numbers.tolist()}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for clip in clips:
        digest.update(f"{clip.identity}\n".encode())
    return digest.hexdigest()[:16]


def _write(file: Path, trains: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]]) -> None:
    """Write the spikes of a piece; the file appears when it is complete."""
    temporary = file.with_suffix(f".{os.getpid()}.part")
    with temporary.open("wb") as stream:
        np.savez(
            stream,
            counts=np.array([len(times) for times, _ in trains], dtype=np.int64),
            times=np.concatenate([times for times, _ in trains]),
            units=np.concatenate([units for _, units in trains]),
        )
    os.replace(temporary, file)


def _read(file: Path) -> SpikeTrains:
    with np.load(file) as arrays:
        return SpikeTrains(arrays["counts"], arrays["times"], arrays["units"])
