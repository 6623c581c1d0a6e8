"""Digits spoken by the speech synthesiser espeak-ng: many voices, rates, pitches, and background noise.

The voices are synthetic: formants of the same rules for all. They serve to learn, to test and to compare networks
without a download, and stand for no published data set of recordings.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from .clips import Clip, Clips
from .libraries import AudioError, library
from .waves import RATE, Wave, mono, trimmed

PROGRAM = "espeak-ng"
DIGITS: Mapping[str, tuple[str, ...]] = {
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "de": ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
}
"""Words by language, in the order of classes, as in the Heidelberg digits."""
SPEED = (80, 130)
"""Range of the rate of speech (words per minute); digits last 0.4 to 1 s."""
PITCH = (35, 65)
"""Range of the pitch, relative to that of the voice (percent of its range)."""
NOISE = (15.0, 40.0)
"""Range of the ratio of speech to background noise (dB)."""
TIMEOUT = 60.0
"""Time after which the synthesiser has failed (s)."""


class Speaker(tuple[str, str]):
    """A voice: the English accent, and the variant of espeak-ng that both languages are spoken with."""

    __slots__ = ()

    @property
    def accent(self) -> str:
        """English voice of espeak-ng."""
        return self[0]

    @property
    def variant(self) -> str:
        """Variant of espeak-ng."""
        return self[1]

    def voice(self, language: str) -> str:
        """Return the voice of espeak-ng that speaks a language."""
        return f"{self.accent if language == 'en' else language}+{self.variant}"


SPEAKERS = tuple(
    Speaker(pair)
    for pair in (
        ("en-us", "m2"),
        ("en-gb", "f1"),
        ("en-us", "Alex"),
        ("en-gb", "steph"),
        ("en-gb-x-rp", "m4"),
        ("en-us", "f3"),
        ("en-gb-scotland", "david"),
        ("en-gb-x-rp", "Annie"),
        ("en-us", "Lee"),
        ("en-us", "grandma"),
        ("en-us", "linda"),
        ("en-us", "pablo"),
        ("en-gb", "Jacky"),
        ("en-029", "antonio"),
        ("en-gb-x-gbclan", "max"),
    )
)
"""Voices that differ clearly in the number of spikes by channel and time, see docs/speech.md."""
TESTED = (4, 5)
"""Speakers that only the test part has, as in the Heidelberg digits."""


@dataclass(frozen=True)
class SpokenDigit(Clip):
    """A digit that the synthesiser speaks, with background noise.

    Attributes:
        voice: voice of espeak-ng.
        word: text to speak.
        speed: rate of speech (words per minute).
        pitch: pitch (percent of the range of the voice).
        noise: ratio of speech to noise (dB).
    """

    voice: str
    word: str
    speed: int
    pitch: int
    noise: float

    def wave(self) -> Wave:
        """Return the sound, see `Clip`."""
        speech = trimmed(spoken(self.voice, self.word, self.speed, self.pitch))
        background = pink(len(speech), _numbers(self.name, "noise"))
        power = np.mean(speech**2) / np.mean(background**2)
        return np.asarray(speech + background * np.sqrt(power * 10 ** (-self.noise / 10)))

    @property
    def identity(self) -> str:
        """All settings, and the version of the synthesiser."""
        return f"{self!r} {version()}"


def spoken_digits(trials: int, seed: int = 0, speakers: Sequence[Speaker] = SPEAKERS) -> Clips:
    """Return digits in English and German, spoken by all speakers.

    Args:
        trials: number of clips of each digit by each speaker.
        seed: seed of rates, pitches and noise.
        speakers: voices.
    """
    clips: list[Clip] = []
    for number, speaker in enumerate(speakers):
        for language, words in DIGITS.items():
            for digit, word in enumerate(words):
                label = digit + (0 if language == "en" else len(words))
                for trial in range(trials):
                    name = f"seed-{seed}_lang-{language}_speaker-{number:02d}_trial-{trial}_digit-{digit}"
                    numbers = _numbers(name, "settings")
                    speed = int(numbers.randint(SPEED[0], SPEED[1] + 1))
                    pitch = int(numbers.randint(PITCH[0], PITCH[1] + 1))
                    noise = float(numbers.uniform(*NOISE))
                    voice = speaker.voice(language)
                    clips.append(SpokenDigit(name, label, number, voice, word, speed, pitch, noise))
    classes = tuple(word for words in DIGITS.values() for word in words)
    return Clips(clips, classes, tuple(f"{speaker.accent}+{speaker.variant}" for speaker in speakers))


def spoken(voice: str, text: str, speed: int, pitch: int) -> Wave:
    """Return what the synthesiser says, one channel at 48 kHz [N].

    Raises:
        AudioError: the synthesiser is missing or fails, or does not know the voice.
        ImportError: the extra `audio` is not installed.
    """
    variant = voice.partition("+")[2]
    if variant and variant not in variants():  # espeak-ng speaks with the plain voice then
        raise AudioError(
            f"voice {voice}: {version()} has no variant {variant}; `{PROGRAM} --voices=variant` lists them"
        )
    words = [_program(), "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", "--", text]
    try:
        process = subprocess.run(words, capture_output=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AudioError(f"{' '.join(words)}: {error}") from None
    if process.returncode or not process.stdout:
        detail = process.stderr.decode(errors="replace").strip() or "it says nothing"
        raise AudioError(f"{' '.join(words)}: {detail}; `{PROGRAM} --voices` lists voices")
    samples, rate = library("soundfile").read(io.BytesIO(process.stdout), dtype="float64")
    return mono(samples, rate)


@cache
def variants() -> frozenset[str]:
    """Return the names of the variants of voices that the synthesiser has.

    Raises:
        AudioError: it is missing.
    """
    process = subprocess.run([_program(), "--voices=variant"], capture_output=True, timeout=TIMEOUT, check=False)
    return frozenset(re.findall(r"!v/(\S+)", process.stdout.decode(errors="replace")))


@cache
def version() -> str:
    """Return the version of the synthesiser.

    Raises:
        AudioError: it is missing.
    """
    process = subprocess.run([_program(), "--version"], capture_output=True, timeout=TIMEOUT, check=False)
    return process.stdout.decode(errors="replace").partition("  Data at")[0].strip()


def pink(count: int, numbers: np.random.RandomState) -> Wave:
    """Return noise whose power falls with the frequency f as 1 / f, from 50 Hz [N]."""
    spectrum = np.fft.rfft(numbers.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / RATE)
    return np.asarray(np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 50.0)), count))


def _program() -> str:
    path = shutil.which(PROGRAM)
    if path is None:
        raise AudioError(f"{PROGRAM} is not installed; on Debian and Ubuntu: apt-get install {PROGRAM}")
    return path


def _numbers(name: str, purpose: str) -> np.random.RandomState:
    """Return the random numbers of a clip, which numpy keeps for ever."""
    digest = hashlib.sha256(f"{name}/{purpose}".encode()).digest()
    return np.random.RandomState(int.from_bytes(digest[:4], "little"))
