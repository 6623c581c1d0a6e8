"""Sound into files of spikes in the layout of the Heidelberg data sets, for `hxtrain data`."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import List, NamedTuple, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

import numpy as np
import numpy.typing as npt

from hxtrain.audio.clips import Clip, Clips, divide, folder_clips
from hxtrain.audio.cochlea import CHANNELS, Cochlea
from hxtrain.audio.conversion import Report, convert
from hxtrain.audio.synthesis import TESTED, spoken_digits
from hxtrain.checks import check_types
from hxtrain.datasets.events.heidelberg_writer import HeidelbergWriter

SELECTIONS = {"all": None, "published": range(70, 700, 9)}
"""Channels that are computed: all, or of 700 the 70 that Cramer et al. 2022 sent to the chip."""
ENDINGS = (".h5", ".hdf5")
"""Endings of the names of written files."""
PIECES = ".parts"
"""What is added to the name of a file for the folder of its pieces."""


@dataclass
class Part:
    """A written file.

    Attributes:
        path: path of the file.
        spikes: number of spikes of each clip.
        channels: number of channels with spikes in each clip.
        labels: class of each clip.
    """

    path: Path
    spikes: list[int] = field(default_factory=list)
    channels: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


class Row(NamedTuple):
    """A clip with its spikes."""

    clip: Clip
    times: npt.NDArray[np.float64]
    units: npt.NDArray[np.int64]


@dataclass
class ConversionConfig:
    """Settings of a conversion of sound to spikes.

    Attributes:
        out: File of the spikes, HDF5. If there is a test part, `_train` and `_test` are added to its name.
        channels: Number of channels along the basilar membrane.
        selection: Channels that are computed: `all`, or `published`, every ninth of 700 after the first 70.
        seed: Seed of all noise.
        workers: Number of clips that are converted at once; it changes the time only.
    """

    out: str = "???"
    channels: int = CHANNELS
    selection: str = "all"
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        check_types(self, "")
        if self.selection not in SELECTIONS:
            raise ValueError(f"selection={self.selection} must be one of {', '.join(SELECTIONS)}")
        if self.selection == "published" and self.channels != CHANNELS:
            raise ValueError(f"channels={self.channels}: selection=published is of channels={CHANNELS}")
        for name in ("channels", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass
class AudioConfig(ConversionConfig):
    """Settings of a conversion of audio files.

    Attributes:
        audio: Folder of WAV and FLAC files.
        pattern: Form of their paths, without suffix: `{label}` is the class, `{speaker}` the speaker, `*` any text. The
            Heidelberg digits have `lang-{label}_speaker-{speaker}_trial-*_digit-{label}`.
        classes: Names of the classes in the order of their numbers; without any, all that occur, sorted.
        skip_misfits: Whether files that do not fit the pattern, or whose class is not listed, are left out.
        test_speakers: Names of speakers all of whose clips are for the test.
        test_share: Share of the other clips of each class that is for the test.
        ramp: Length of the Hann ramps at the start and end (s); None: half the clip, as in the published conversion.
    """

    audio: str = "???"
    pattern: str = "{label}/*"
    classes: List[str] = field(default_factory=list)  # noqa: UP006
    skip_misfits: bool = False
    test_speakers: List[str] = field(default_factory=list)  # noqa: UP006
    test_share: float = 0.0
    ramp: Optional[float] = None  # noqa: UP045

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.test_share < 1:
            raise ValueError(f"test_share={self.test_share} must be a share, in 0 <= x < 1")
        if self.ramp is not None and not 0 <= self.ramp < math.inf:
            raise ValueError(f"ramp={self.ramp} s must be finite and not negative; null takes half the clip")


@dataclass
class SpeechConfig(ConversionConfig):
    """Settings of digits that a synthesiser speaks.

    Attributes:
        trials: Number of clips of each digit by each voice.
        test_share: Share of the clips of each class that is for the test, beside two whole voices.
    """

    trials: int = 8
    test_share: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trials < 1:
            raise ValueError(f"trials={self.trials} must be at least 1")
        if not 0 <= self.test_share < 1:
            raise ValueError(f"test_share={self.test_share} must be a share, in 0 <= x < 1")


def convert_audio(config: AudioConfig, report: Report) -> list[Part]:
    """Convert the audio files of a folder.

    Raises:
        AudioError: a file does not fit the pattern, is damaged or silent, or a speaker is unknown.
        ImportError: the extra `audio` is not installed.
    """
    clips = folder_clips(Path(config.audio).expanduser(), config.pattern, config.classes, config.skip_misfits)
    unknown = [name for name in config.test_speakers if name not in clips.speakers]
    if unknown and clips.speakers == ("",):
        raise ValueError(
            f"test_speakers={unknown[0]}: pattern={config.pattern} names no speaker; write {{speaker}} where paths do"
        )
    if unknown:
        raise ValueError(f"test_speakers={unknown[0]} is not known; choose of {', '.join(clips.speakers)}")
    speakers = [clips.speakers.index(name) for name in config.test_speakers]
    return _convert(config, clips, speakers, config.test_share, config.ramp, report)


def synthesise(config: SpeechConfig, report: Report) -> list[Part]:
    """Make digits with the synthesiser and convert them.

    Raises:
        AudioError: the synthesiser is missing or fails.
        ImportError: the extra `audio` is not installed.
    """
    return _convert(config, spoken_digits(config.trials, config.seed), TESTED, config.test_share, None, report)


def _convert(
    config: ConversionConfig,
    clips: Clips,
    test_speakers: Sequence[int],
    test_share: float,
    ramp: float | None,
    report: Report,
) -> list[Part]:
    """Convert clips and write them; pieces of interrupted work stay beside the file and are used again."""
    out = Path(config.out).expanduser()
    if out.suffix not in ENDINGS:
        raise ValueError(f"out={config.out} must end in {' or '.join(ENDINGS)}, by which readers know HDF5")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"out={config.out}: there is no folder {out.absolute().parent}; make it first")
    cochlea = Cochlea(config.channels, SELECTIONS[config.selection], config.seed, ramp=ramp)
    pieces = out.with_name(out.name + PIECES)
    train, test = divide(clips.clips, test_speakers, test_share)
    if not train:
        raise ValueError(
            f"test_speakers and test_share={test_share} put all {len(test)} clips into the test part, so that none is "
            "left to train on; name fewer speakers, or a smaller share"
        )
    paths = [_named(out, "train"), _named(out, "test")] if test else [out]
    parts = [Part(path) for path in paths]
    tested = {clip.name for clip in test}
    voices = np.array([voice.encode() for voice in clips.speakers])
    with ExitStack() as exits:
        files = [
            exits.enter_context(
                HeidelbergWriter(path, clips.classes, len(cochlea.numbers), meta_info={"voice": voices})
            )
            for path in paths
        ]
        for piece, trains in convert(clips.clips, cochlea, pieces, config.workers, report):
            chosen: list[list[Row]] = [[] for _ in parts]
            for clip, (times, units) in zip(piece, trains.by_clip(), strict=True):
                chosen[clip.name in tested].append(Row(clip, times, units))
            for part, file, rows in zip(parts, files, chosen, strict=True):
                _append(part, file, rows)
    shutil.rmtree(pieces)
    return parts


def _named(out: Path, part: str) -> Path:
    return out.with_name(f"{out.stem}_{part}{out.suffix}")


def _append(part: Part, file: HeidelbergWriter, rows: Sequence[Row]) -> None:
    """Append clips to a file."""
    labels = [row.clip.label for row in rows]
    file.append([row.times for row in rows], [row.units for row in rows], labels, [row.clip.speaker for row in rows])
    part.labels.extend(labels)
    part.spikes.extend(len(row.units) for row in rows)
    part.channels.extend(len(np.unique(row.units)) for row in rows)
