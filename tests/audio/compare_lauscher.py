"""Write what the published conversion (package lauscher 1.0.1) gives for three clips to `lauscher.npz`.

Run it where lauscher, scipy, soundfile and espeak-ng are installed; it takes some minutes:

    python tests/audio/compare_lauscher.py tests/audio/lauscher.npz

`test_published.py` compares. Clips are stored, so that the test needs no synthesiser.
"""

import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import numba
import numpy as np
import soundfile
from lauscher.audiowaves import MonoAudioWave
from lauscher.transformations import BushyCell, HairCell, HanningWindow, RmsNormalizer
from lauscher.transformations.basilar_membrane import BasilarMembrane
from scipy.signal import resample_poly

CLIPS = {"three": ("en-us", "three"), "sieben": ("de", "sieben"), "eight": ("en-gb+f3", "eight")}
RATE = 48_000
STEPS = RATE // 2
SEEDS = 20
STORED = 8
"""Number of channels of each clip whose velocity and firing probability are stored."""
THINNING = 36
"""One in so many steps of these is stored."""
SILENCE = 2.0
"""Duration of silence (s)."""
QUIET_CHANNELS = 400
"""Number of channels of silence."""


Constants = namedtuple("Constants", "tau_mem tau_syn tau_refrac weight")
FIRE = numba.njit(BushyCell._lif)
"""The published loop over time steps as it is, compiled: a hundred times as fast."""


def clip(voice: str, text: str) -> np.ndarray:
    """Return a spoken word, int16 [N] at 22,050 Hz."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-w", str(path), text], check=True)
        samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 22_050
    return samples


def counts(probability: np.ndarray, seeds: int) -> np.ndarray:
    """Return spike counts [seeds, C] for firing probabilities [C, N]."""
    cell = BushyCell()
    constants = Constants(cell.tau_mem, cell.tau_syn, cell.tau_refrac, cell.weight)
    first = cell._sample(probability[0], STEPS)
    assert (FIRE(constants, first, STEPS) == cell._lif(first, STEPS)).all()
    result = np.empty((seeds, len(probability)), dtype=np.int32)
    for seed in range(seeds):
        np.random.seed(seed)  # noqa: NPY002 - lauscher draws from the global generator
        for channel, row in enumerate(probability):
            result[seed, channel] = FIRE(constants, cell._sample(row, STEPS), STEPS).sum()
    return result


def main(out: Path) -> None:
    """Write the file."""
    arrays = {}
    hair = HairCell()
    for name, words in CLIPS.items():
        samples = clip(*words)
        arrays[f"{name}/samples"] = samples
        for count in (70, 700):
            chosen = np.arange(70) if count == 70 else np.arange(70, 700, 9)
            wave = MonoAudioWave(resample_poly(samples / 32768, 320, 147), RATE)
            wave = HanningWindow()(RmsNormalizer(0.3)(wave))
            membrane = BasilarMembrane(channels=count)
            membrane.ch = membrane.ch[chosen]
            bins = wave.num_samples // 2 + 1
            omega = 2 * np.pi * np.linspace(1, STEPS, bins)
            spectrum = np.fft.fft(wave.samples)[:bins]
            velocity = np.array([membrane.process_single_channel(c, omega, spectrum) for c in membrane.ch])
            probability = np.array([hair._meddis(row, STEPS) for row in velocity])
            rows = np.linspace(0, len(chosen) - 1, STORED).astype(int)
            place = f"{name}/{count}"
            arrays[f"{place}/channels"] = chosen[rows]
            arrays[f"{place}/velocity"] = velocity[rows, ::THINNING].astype(np.float32)
            arrays[f"{place}/probability"] = probability[rows, ::THINNING].astype(np.float32)
            arrays[f"{place}/counts"] = counts(probability, SEEDS)
            print(place, arrays[f"{place}/counts"].sum(1), flush=True)
            np.savez_compressed(out, **arrays)
    rest = hair._meddis(np.zeros(round(SILENCE * STEPS)), STEPS)
    arrays["silence"] = counts(np.tile(rest, (QUIET_CHANNELS, 1)), 1)[0]
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
