"""Clips of folders, their division, and conversion in pieces."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hxtrain.audio import RATE, AudioError, Cochlea, conversion
from hxtrain.audio.clips import Clip, divide, folder_clips
from hxtrain.audio.conversion import SpikeTrains, convert
from hxtrain.audio.waves import Wave
from hxtrain.commands.sound import AudioConfig, convert_audio

soundfile = pytest.importorskip("soundfile")
DIGITS = "lang-{label}_speaker-{speaker}_trial-*_digit-{label}"


@dataclass(frozen=True)
class Tone(Clip):
    """A tone whose frequency follows from its class."""

    failure: type[BaseException] | None = None

    def wave(self) -> Wave:
        if self.failure:
            raise self.failure(f"{self.name}: broken")
        return np.sin(2 * np.pi * 300 * (self.label + 1) * np.arange(2000) / RATE)

    @property
    def identity(self) -> str:
        return self.name


def tones(count: int, failure: type[BaseException] | None = None, at: int = -1) -> list[Tone]:
    return [Tone(f"tone-{n}", n % 3, n % 2, failure if n == at else None) for n in range(count)]


def converted(clips: list[Tone], cochlea: Cochlea, folder: Path, workers: int) -> SpikeTrains:
    pieces = [trains for _, trains in convert(clips, cochlea, folder, workers, lambda count, total: None)]
    return SpikeTrains(*(np.concatenate(arrays) for arrays in zip(*pieces, strict=True)))


def write(path: Path, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(rate // 10)), rate)


def test_labels_are_folders_by_default(tmp_path: Path) -> None:
    for name in ("yes/a.wav", "no/a.flac", "no/b.WAV"):
        write(tmp_path / name)
    clips, classes, speakers = folder_clips(tmp_path, "{label}/*")
    assert classes == ("no", "yes")
    assert speakers == ("",)
    assert [(clip.name, clip.label, clip.speaker) for clip in clips] == [
        ("no/a", 0, 0),
        ("no/b", 0, 0),
        ("yes/a", 1, 0),
    ]
    assert len(clips[0].wave()) == RATE // 10


def test_pattern_names_classes_and_speakers(tmp_path: Path) -> None:
    for language, speaker, digit in (("english", "04", 3), ("german", "11", 3), ("english", "11", 0)):
        write(tmp_path / f"lang-{language}_speaker-{speaker}_trial-7_digit-{digit}.flac")
    clips, classes, speakers = folder_clips(tmp_path, DIGITS, ["english-3", "german-3", "english-0"])
    assert classes == ("english-3", "german-3", "english-0")
    assert speakers == ("04", "11")
    assert [(clip.label, clip.speaker) for clip in clips] == [(0, 0), (2, 1), (1, 1)]


@pytest.mark.parametrize(
    ("pattern", "classes", "text"),
    [
        ("{speaker}/*", (), r"no \{label\}"),
        ("{word}/*", (), r"the field \{word\}"),
        ("{label}_*", (), "1 of 1 files do not fit pattern"),
        ("{label}/*", ("no",), "class yes is not listed"),
    ],
)
def test_unfit_patterns_are_refused(tmp_path: Path, pattern: str, classes: tuple[str, ...], text: str) -> None:
    write(tmp_path / "yes" / "a.wav")
    with pytest.raises(AudioError, match=text):
        folder_clips(tmp_path, pattern, classes)


def test_files_that_differ_in_their_suffix_alone_are_refused(tmp_path: Path) -> None:
    for name in ("yes/a.wav", "yes/a.flac", "yes/b.wav", "no/a.wav"):
        write(tmp_path / name)
    with pytest.raises(AudioError, match=r"1 of 3 names have files of several suffixes, such as yes/a;.*Keep one"):
        folder_clips(tmp_path, "{label}/*")
    clips = folder_clips(tmp_path, "{label}/*", ["no"], skip_misfits=True).clips
    assert [clip.name for clip in clips] == ["no/a"]


def test_settings_that_leave_nothing_to_train_on_or_make_no_sense_are_refused(tmp_path: Path) -> None:
    for name in ("yes/a", "no/a"):
        write(tmp_path / f"{name}.wav")
    place = {"audio": str(tmp_path), "out": str(tmp_path / "out.h5"), "pattern": "{label}/{speaker}"}
    with pytest.raises(ValueError, match="put all 2 clips into the test part"):
        convert_audio(AudioConfig(**place, test_speakers=["a"]), lambda count, total: None)
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(AudioError, match="classes=no,yes,no names no twice"):
        convert_audio(AudioConfig(**place, classes=["no", "yes", "no"]), lambda count, total: None)
    for ramp in (float("nan"), float("inf"), -0.1):
        with pytest.raises(ValueError, match=f"ramp={ramp} s must be finite"):
            AudioConfig(**place, ramp=ramp)


def test_other_files_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a/1.wav", "a/million.wav", "readme.wav"):
        write(tmp_path / name)
    clips, classes, speakers = folder_clips(tmp_path, "{speaker}/{label}", ["1", "2"], skip_misfits=True)
    assert [clip.name for clip in clips] == ["a/1"]
    assert (classes, speakers) == (("1", "2"), ("a",))
    assert "2 of 3 audio files" in caplog.text
    with pytest.raises(AudioError, match="none of 3 files fits"):
        folder_clips(tmp_path, "{speaker}/{label}", ["9"], skip_misfits=True)


def test_folders_without_sound_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such folder"):
        folder_clips(tmp_path / "nowhere", "{label}/*")
    with pytest.raises(AudioError, match="holds no"):
        folder_clips(tmp_path, "{label}/*")
    (tmp_path / "yes").mkdir()
    (tmp_path / "yes" / "a.wav").write_bytes(b"RIFF, but no sound")
    with pytest.raises(AudioError, match=r"a\.wav: not a readable audio file"):
        folder_clips(tmp_path, "{label}/*").clips[0].wave()


def test_test_part_has_whole_speakers_and_a_share_of_each_class() -> None:
    clips = [
        Tone(f"{label}-{speaker}-{n}", label, speaker) for label in range(3) for speaker in range(4) for n in range(5)
    ]
    train, test = divide(clips, [1, 3], 0.2)
    assert {clip.name for clip in train} | {clip.name for clip in test} == {clip.name for clip in clips}
    assert {clip.speaker for clip in train} == {0, 2}
    rest = [clip for clip in test if clip.speaker in (0, 2)]
    assert [sum(clip.label == label for clip in rest) for label in range(3)] == [2, 2, 2]


def test_spikes_depend_on_neither_order_nor_workers_nor_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, cochlea = tones(7), Cochlea(16)
    monkeypatch.setattr(conversion, "PIECE", 3)
    forwards = converted(clips, cochlea, tmp_path / "a", 1)
    monkeypatch.setattr(conversion, "PIECE", 2)
    backwards = converted(clips[::-1], cochlea, tmp_path / "b", 3)
    assert forwards.counts.sum() > 20
    np.testing.assert_array_equal(forwards.counts, backwards.counts[::-1])
    for (times, units), (same_times, same_units) in zip(
        forwards.by_clip(), reversed(list(backwards.by_clip())), strict=True
    ):
        np.testing.assert_array_equal(times, same_times)
        np.testing.assert_array_equal(units, same_units)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, AudioError])
def test_interrupted_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    monkeypatch.setattr(conversion, "PIECE", 2)
    with pytest.raises(failure, match="tone-5: broken"):
        converted(tones(6, failure, 5), Cochlea(16), tmp_path, 2)
    (folder,) = tmp_path.iterdir()
    assert sorted(os.listdir(folder)) == ["00000000.npz", "00000002.npz"]
    computed = []
    whole = conversion._converted
    monkeypatch.setattr(
        conversion, "_converted", lambda clip, cochlea: computed.append(clip.name) or whole(clip, cochlea)
    )
    trains = converted(tones(6), Cochlea(16), tmp_path, 1)
    assert computed == ["tone-4", "tone-5"]
    assert len(trains.counts) == 6


def test_other_settings_begin_anew(tmp_path: Path) -> None:
    first = converted(tones(2), Cochlea(16), tmp_path, 1)
    second = converted(tones(2), Cochlea(16, seed=1), tmp_path, 1)
    assert len(first.times) != len(second.times) or (first.times != second.times).any()
