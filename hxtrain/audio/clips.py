"""Clips of sound with a class and a speaker: files of a folder, or words that a synthesiser speaks."""

from __future__ import annotations

import hashlib
import logging
import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .libraries import AudioError
from .waves import Wave, read_wave

log = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac")
LABEL = "label"
SPEAKER = "speaker"
FIELD = re.compile(r"\{(\w+)\}|(\*)|([^{}*]+)")


@dataclass(frozen=True)
class Clip(ABC):
    """Base: a sound with its class.

    Attributes:
        name: name of the clip, unique in its data set; it chooses the noise of the conversion.
        label: number of the class.
        speaker: number of the speaker.
    """

    name: str
    label: int
    speaker: int

    @abstractmethod
    def wave(self) -> Wave:
        """Return the sound, one channel at 48 kHz [N].

        Raises:
            AudioError: the sound is missing, damaged or silent; the text names the clip.
        """

    @property
    @abstractmethod
    def identity(self) -> str:
        """What changes whenever the sound may have changed."""


@dataclass(frozen=True)
class FileClip(Clip):
    """A sound in a file.

    Attributes:
        path: path of the file.
    """

    path: Path

    def wave(self) -> Wave:
        """Return the sound, see `Clip`."""
        return read_wave(self.path)

    @property
    def identity(self) -> str:
        """Name, size and time of the file."""
        facts = self.path.stat()
        return f"{self.name} {facts.st_size} {facts.st_mtime_ns}"


class Clips(NamedTuple):
    """Clips with the names of their classes and speakers, by number."""

    clips: Sequence[Clip]
    classes: tuple[str, ...]
    speakers: tuple[str, ...]


def folder_clips(folder: Path, pattern: str, classes: Sequence[str] = (), skip_misfits: bool = False) -> Clips:
    """Return the audio files of a folder and its subfolders.

    Args:
        folder: folder of WAV and FLAC files.
        pattern: what paths within the folder look like, without suffix. `{label}` stands for the class and `{speaker}`
            for the speaker; both may occur several times, and are then joined by `-`. `*` stands for any text without
            a slash. Without `{speaker}` all clips have one speaker.
        classes: names of the classes, in the order of their numbers; without any, all that occur, sorted.
        skip_misfits: whether files that do not fit the pattern, or whose class is not listed, are left out; a warning
            counts them.

    Raises:
        AudioError: the folder is missing, no file or not every file fits the pattern, two files differ in their suffix
            alone, a class is listed twice, or not at all.
    """
    if not folder.is_dir():
        raise AudioError(f"audio={folder}: there is no such folder")
    repeated = sorted({name for name in classes if list(classes).count(name) > 1})
    if repeated:
        raise AudioError(f"classes={','.join(classes)} names {repeated[0]} twice; name each class once")
    form = _expression(pattern)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise AudioError(
            f"audio={folder}: it holds no {' or '.join(SUFFIXES)} file; name a folder that does, "
            "and convert other files, such as MP3, to these first"
        )
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    if skip_misfits:
        paths, names = _fitting(paths, names, form, classes)
    _require_distinct(folder, names)
    matches = [form.fullmatch(name) for name in names]
    odd = [name for name, match in zip(names, matches, strict=True) if match is None]
    if odd:
        raise AudioError(
            f"audio={folder}: {len(odd)} of {len(names)} files do not fit pattern={pattern}, such as {odd[0]}; "
            "describe the paths by {label}, {speaker} and *, or leave the others out by skip_misfits=true"
        )
    labels = [_joined(match, LABEL) for match in matches if match]
    voices = [_joined(match, SPEAKER) for match in matches if match]
    order = tuple(classes) or tuple(sorted(set(labels)))
    foreign = sorted(set(labels) - set(order))
    if foreign:
        raise AudioError(
            f"audio={folder}: class {foreign[0]} is not listed in classes=[{','.join(order)}]; add it, or leave its "
            "files out by skip_misfits=true"
        )
    speakers = tuple(sorted(set(voices)))
    clips = [
        FileClip(name, order.index(label), speakers.index(voice), path)
        for name, label, voice, path in zip(names, labels, voices, paths, strict=True)
    ]
    return Clips(clips, order, speakers)


def divide(clips: Sequence[Clip], speakers: Sequence[int], share: float) -> tuple[list[Clip], list[Clip]]:
    """Return the clips for training and for the test, as the Heidelberg digits are divided.

    Args:
        clips: clips of any speakers and classes.
        speakers: numbers of the speakers all of whose clips are for the test.
        share: share of the other clips of each class that is for the test; a hash of the name chooses them.
    """
    groups = defaultdict(list)
    for clip in clips:
        if clip.speaker not in speakers:
            groups[clip.label].append(clip)
    tested = set()
    for group in groups.values():
        group.sort(key=lambda clip: hashlib.sha256(clip.name.encode()).digest())
        tested |= {clip.name for clip in group[: round(share * len(group))]}
    test = [clip for clip in clips if clip.speaker in speakers or clip.name in tested]
    names = {clip.name for clip in test}
    return [clip for clip in clips if clip.name not in names], test


def _fitting(
    paths: Sequence[Path], names: Sequence[str], form: re.Pattern[str], classes: Sequence[str]
) -> tuple[list[Path], list[str]]:
    """Return the files that fit a pattern and a list of classes, with their names.

    Raises:
        AudioError: none does.
    """
    matches = [form.fullmatch(name) for name in names]
    rows = [row for row, match in enumerate(matches) if match and (not classes or _joined(match, LABEL) in classes)]
    if not rows:
        raise AudioError(f"none of {len(names)} files fits the pattern and the classes, such as {names[0]}")
    if len(rows) < len(names):
        log.warning(
            "%d of %d audio files do not fit the pattern and the classes, and are left out",
            len(names) - len(rows),
            len(names),
        )
    return [paths[row] for row in rows], [names[row] for row in rows]


def _require_distinct(folder: Path, names: Sequence[str]) -> None:
    """Refuse clips of one name: the name chooses the noise, and the part of the data that a clip belongs to.

    Raises:
        AudioError: two files differ in their suffix alone.
    """
    doubles = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubles:
        raise AudioError(
            f"audio={folder}: {len(doubles)} of {len(set(names))} names have files of several suffixes, such as "
            f"{doubles[0]}; a clip is named by its path without suffix. Keep one file of each sound, and rename files "
            "that hold different sounds"
        )


def _expression(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern of paths.

    Raises:
        AudioError: the pattern has no `{label}`, or another field than `{label}` and `{speaker}`.
    """
    text = "".join(_pieces(pattern))
    if f"(?P<{LABEL}0>" not in text:
        raise AudioError(f"pattern={pattern} has no {{label}}; write it where paths name the class")
    return re.compile(text)


def _pieces(pattern: str) -> Iterator[str]:
    """Yield the regular expression of each piece of a pattern."""
    counts: dict[str, int] = defaultdict(int)
    for match in FIELD.finditer(pattern):
        name, star, literal = match.groups()
        if name and name not in (LABEL, SPEAKER):
            raise AudioError(f"pattern={pattern} has the field {{{name}}}; fields are {{label}} and {{speaker}}")
        if name:
            yield f"(?P<{name}{counts[name]}>[^/]+?)"
            counts[name] += 1
        else:
            yield "[^/]*" if star else re.escape(literal)


def _joined(match: re.Match[str], name: str) -> str:
    """Return all fields of a name, joined."""
    return "-".join(text for key, text in match.groupdict().items() if key.rstrip("0123456789") == name)
