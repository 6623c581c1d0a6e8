"""The conversion against the published one: `lauscher.npz` has what lauscher 1.0.1 gives (`compare_lauscher.py`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hxtrain.audio import RATE, Cochlea, membrane, nerve, waves

pytest.importorskip("scipy")
STEPS = RATE // 2
SPEECH_RATE = 22_050
THINNING = 36
"""One in so many steps is stored."""
CASES = [(name, count) for name in ("three", "sieben", "eight") for count in (70, 700)]
PUBLISHED = range(70, 700, 9)


@pytest.fixture(scope="module")
def arrays() -> dict[str, npt.NDArray[np.generic]]:
    with np.load(Path(__file__).parent / "lauscher.npz") as file:
        return dict(file)


@pytest.mark.parametrize(("name", "count"), CASES)
def test_stages_before_the_noise_are_equal(arrays: dict[str, np.ndarray], name: str, count: int) -> None:
    wave = waves.mono(arrays[f"{name}/samples"] / 32768, SPEECH_RATE)
    wave = waves.ramps(waves.loudness(wave))
    velocity = membrane.velocities(wave, arrays[f"{name}/{count}/channels"], count)
    chance = nerve.probabilities(velocity, STEPS)
    for stage, result in (("velocity", velocity), ("probability", chance)):
        expected = arrays[f"{name}/{count}/{stage}"]
        error = np.abs(result[:, ::THINNING] - expected).max(axis=1) / np.abs(expected).max(axis=1)
        assert error.max() < 1e-6, f"{stage} of channel {error.argmax()}"


@pytest.mark.parametrize(("name", "count"), CASES)
def test_spike_counts_have_the_same_means(arrays: dict[str, np.ndarray], name: str, count: int) -> None:
    """Means over 20 noise seeds agree in total and, over all channels, within their standard errors."""
    expected = arrays[f"{name}/{count}/counts"].astype(float)
    samples = arrays[f"{name}/samples"] / 32768
    selection = None if count == 70 else PUBLISHED
    counts = np.empty_like(expected)
    for seed in range(len(counts)):
        _, units = Cochlea(count, selection, seed)(samples, SPEECH_RATE, name)
        counts[seed] = np.bincount(units, minlength=counts.shape[1])
    deviation = counts.mean(0) - expected.mean(0)
    error = np.sqrt((counts.var(0, ddof=1) + expected.var(0, ddof=1)) / len(counts))
    is_noisy = error > 0
    assert not deviation[~is_noisy].any()
    scores = deviation[is_noisy] / error[is_noisy]
    assert (np.abs(scores) > 3).mean() < 0.05, scores
    assert np.mean(scores**2) == pytest.approx(1.1, abs=0.6)
    spread = np.sqrt((counts.sum(1).var(ddof=1) + expected.sum(1).var(ddof=1)) / len(counts))
    assert abs(deviation.sum()) < 3 * spread


def test_silence_has_the_spontaneous_rate(arrays: dict[str, np.ndarray]) -> None:
    expected = arrays["silence"]  # spike counts of 2 s each
    chance = nerve.probabilities(np.zeros((200, 2 * STEPS)), STEPS)
    rows, _ = nerve.spikes(chance, STEPS, (0, 0), np.arange(len(chance)))
    rate = len(rows) / len(chance)
    spontaneous = expected.mean()
    spread = np.sqrt(expected.var(ddof=1) / len(expected) + spontaneous / len(chance))
    assert spontaneous > 0
    assert abs(rate - spontaneous) < max(0.1 * spontaneous, 3 * spread)
