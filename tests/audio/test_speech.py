"""Digits of the synthesiser, and the files that `hxtrain data` makes of sound."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hxtrain.audio import AudioError, Cochlea, synthesis
from hxtrain.audio.clips import divide
from hxtrain.commands import sound
from hxtrain.commands.sound import AudioConfig, SpeechConfig, convert_audio, synthesise
from hxtrain.datasets.events.heidelberg import HeidelbergFile
from hxtrain.datasets.events.spoken_digits import read_shipped_digits
from hxtrain.datasets.events.stored import StoredEvents
from hxtrain.experiments import data

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("scipy")
needs_synthesiser = pytest.mark.skipif(shutil.which(synthesis.PROGRAM) is None, reason="espeak-ng is not installed")
RATE = 8000


def silent(count: int, total: int) -> None:
    """Report nothing."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of tones, two classes by three speakers."""
    for speaker in "abc":
        for number, label in enumerate(("high", "low")):
            wave = np.sin(2 * np.pi * (1500 - 1000 * number) * np.arange(RATE // 10) / RATE)
            path = tmp_path / "sounds" / speaker / f"{label}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * wave, RATE)
    return tmp_path / "sounds"


def test_folder_becomes_a_file_of_the_heidelberg_layout(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "tones.h5"
    config = AudioConfig(out=str(out), channels=24, audio=str(folder), pattern="{speaker}/{label}")
    (part,) = convert_audio(config, silent)
    file = HeidelbergFile(out)
    samples, _ = StoredEvents(file).load()
    assert file.classes == ("high", "low")
    assert samples.units == 24
    assert samples.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert samples.groups is not None
    assert samples.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert list(part.spikes) == samples.offsets.diff().tolist()
    places = [samples.events([number]).unit.double().mean() for number in range(6)]
    assert places[0] < places[1], "high tones are at the base, channel 0"
    assert not list(tmp_path.glob("*.parts"))


def test_speakers_can_be_kept_for_the_test(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "tones.h5"
    settings = {"pattern": "{speaker}/{label}", "test_speakers": ["b"], "channels": 8}
    train, test = convert_audio(AudioConfig(out=str(out), audio=str(folder), **settings), silent)
    assert (train.path.name, test.path.name) == ("tones_train.h5", "tones_test.h5")
    assert HeidelbergFile(train.path).groups.tolist() == [0, 0, 2, 2]
    assert HeidelbergFile(test.path).groups.tolist() == [1, 1]


def test_interrupted_conversion_leaves_no_file(folder: Path, tmp_path: Path) -> None:
    def interrupt(count: int, total: int) -> None:
        raise KeyboardInterrupt

    config = AudioConfig(out=str(tmp_path / "tones.h5"), channels=8, audio=str(folder), pattern="{speaker}/{label}")
    with pytest.raises(KeyboardInterrupt):
        convert_audio(config, interrupt)
    assert not list(tmp_path.glob("*.h5"))
    convert_audio(config, silent)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["tones.h5"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["audio=sounds"], "out=VALUE is missing"),
        (["audio=sounds", "out=a.h5", "chanels=3"], "did you mean channels=VALUE"),
        (["audio=nowhere", "out=a.h5"], "there is no such folder"),
        (["audio=sounds", "out=no/a.h5"], "there is no folder"),
        (["audio=sounds", "out=a.h5", "channels=0"], "channels=0 must be at least 1"),
        (["audio=sounds", "out=a.h5", "channels=70", "selection=published"], "selection=published is of channels=700"),
        (["audio=sounds", "out=a.h5", "selection=some"], "must be one of all, published"),
        (["audio=sounds", "out=a.h5", "channels=8", "test_speakers=[d]", "pattern={speaker}/{label}"], "choose of"),
        (["audio=sounds", "out=a.h5", "test_speakers=[d]", "pattern=*/{label}"], "names no speaker; write {speaker}"),
        (["audio=sounds", "out=a", "channels=8"], "out=a must end in .h5 or .hdf5"),
        (["audio=sounds", "out=a.h5", "seed=x"], "seed=x: Value 'x'"),
        (["audio=sounds", "out=a.h5", "pattern={speaker}/{label}", "classes=[yes,04]"], "classes=[yes,04]; add it"),
        (["speech", "out=a.h5", "trials=0"], "trials=0 must be at least 1"),
        (["sing"], "sing is no form"),
    ],
)
def test_mistakes_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(sys, "argv", ["hxtrain data", *words])
    assert data.main() == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "a training needs a test part"),
        (["test_speakers=[c]"], "train on it: hxtrain data=recordings data.folder="),
    ],
)
def test_output_tells_the_next_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    monkeypatch.chdir(folder.parent)
    words = ["audio=sounds", "out=a.h5", "channels=8", "pattern={speaker}/{label}", *words]
    monkeypatch.setattr(sys, "argv", ["hxtrain data", *words])
    assert data.main() == 0
    assert text in capsys.readouterr().out


def test_help_lists_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["hxtrain data", "--help"])
    assert data.main() == 0
    text = capsys.readouterr().out
    assert "test_speakers" in text
    assert "Number of clips of each digit by each voice" in text


def test_missing_synthesiser_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AudioError, match="apt-get install espeak-ng"):
        synthesis.spoken("en", "one", 100, 50)


@needs_synthesiser
@pytest.mark.parametrize("voice", ["nowhere", "en-us+nobody"])
def test_unknown_voice_is_named(voice: str) -> None:
    with pytest.raises(AudioError, match="--voices"):
        synthesis.spoken(voice, "one", 100, 50)


def test_clips_are_divided_as_the_heidelberg_digits() -> None:
    clips, classes, speakers = synthesis.spoken_digits(trials=2)
    assert len(clips) == 2 * 20 * len(speakers)
    assert len({clip.name for clip in clips}) == len(clips)
    assert len(set(speakers)) == len(speakers)
    assert classes[3] == "three"
    assert classes[13] == "drei"


@needs_synthesiser
def test_clips_differ_and_are_reproducible() -> None:
    clips = synthesis.spoken_digits(trials=2).clips[:2]
    first, second = (clip.wave() for clip in clips)
    assert len(first) != len(second)
    np.testing.assert_array_equal(first, synthesis.spoken_digits(trials=2).clips[0].wave())


@needs_synthesiser
def test_command_makes_spoken_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = synthesis.spoken_digits
    monkeypatch.setattr(sound, "spoken_digits", lambda trials, seed: everything(trials, seed, synthesis.SPEAKERS[4:6]))
    monkeypatch.setattr(sound, "TESTED", (1,))
    config = SpeechConfig(out=str(tmp_path / "digits.h5"), selection="published", trials=1)
    train, test = synthesise(config, silent)
    samples, _ = StoredEvents(HeidelbergFile(train.path)).load()
    assert (len(train.spikes), len(test.spikes)) == (20, 20)
    assert samples.units == 70
    assert (torch.tensor(train.spikes) > 100).all()
    assert sorted(train.spikes)[10] in range(300, 3000)
    assert sorted(train.channels)[5] >= 40


@pytest.mark.skipif(
    shutil.which(synthesis.PROGRAM) is None or not synthesis.version().endswith("1.51"),
    reason="espeak-ng 1.51 is not installed",
)
def test_shipped_digits_are_made_again_bit_by_bit() -> None:
    train, test = read_shipped_digits()
    parts = divide(synthesis.spoken_digits(8).clips, synthesis.TESTED, 0.05)
    cochlea = Cochlea(selection=sound.SELECTIONS["published"])
    for part, clips, number in ((train, parts[0], 7), (train, parts[0], 1500), (test, parts[1], 250)):
        assert len(part) == len(clips)
        times, units = cochlea(clips[number].wave(), 48_000, clips[number].name)
        events = part.events([number])
        np.testing.assert_array_equal(events.unit.numpy(), units)
        np.testing.assert_array_equal(events.time.numpy(), times.astype(np.float16))
        assert part.labels[number] == clips[number].label
