"""The model of the inner ear: its parts against their equations, and what the whole guarantees."""

from __future__ import annotations

import numpy as np
import pytest

from hxtrain.audio import RATE, AudioError, Cochlea, membrane, nerve, philox, waves

pytest.importorskip("scipy")
STEPS = RATE // 2


def tone(frequency: float, duration: float = 0.1) -> waves.Wave:
    return np.sin(2 * np.pi * frequency * np.arange(round(duration * RATE)) / RATE)


def test_random_numbers_are_those_of_philox() -> None:
    words = np.empty(4)
    philox.random_words(np.zeros(2, np.uint64), np.uint64(0), np.uint64(0), words)
    published = np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8])  # Salmon et al. 2011, known answer
    np.testing.assert_array_equal(words * 2**32 - 0.5, published)


def test_hair_cells_rest_at_a_fixed_point() -> None:
    chances = nerve.probabilities(np.zeros((1, STEPS // 10)), STEPS)[0]
    cleft = nerve.rest(nerve.spontaneous_release())[1]
    np.testing.assert_allclose(chances, cleft * nerve.FIRING / STEPS, rtol=1e-9)


def test_hair_cells_release_more_at_the_start_of_a_stimulus() -> None:
    velocity = np.zeros((1, STEPS // 5))
    velocity[:, STEPS // 20 :] = 50.0
    chances = nerve.probabilities(velocity, STEPS)[0]
    onset = chances[STEPS // 20 :].max()
    assert onset > 2 * chances[-1] > 2 * chances[0]


def test_maximum_of_tones_moves_along_the_membrane() -> None:
    count = 128
    places = []
    for frequency in np.geomspace(200, 8000, 12):
        velocity = membrane.velocities(tone(frequency), np.arange(count), count)
        places.append(int(np.square(velocity).mean(axis=1).argmax()))
    assert (np.diff(places) < 0).all(), "high frequencies belong at the base, channel 0"
    assert places[0] > 0.8 * count > 0.3 * count > places[-1]


def test_interpolated_transfer_function_is_accurate() -> None:
    count, bins = 24, 4001
    impulse = np.zeros(2 * (bins - 1))
    impulse[0] = 1.0
    channels = np.arange(count)
    exact = np.fft.ifft(membrane.transfer(np.linspace(1.0, RATE / 2, bins), membrane.places(count)), axis=1).real
    error = np.abs(membrane.velocities(impulse, channels, count) - exact).max(axis=1) / np.abs(exact).max(axis=1)
    assert error.max() < 1e-6


@pytest.mark.parametrize("size", [3, 4, 101, 202, 240])  # primes, an even number with a large factor, small factors
def test_two_waves_in_one_transform_are_those_of_a_transform_each(size: int) -> None:
    random = np.random.default_rng(0).standard_normal((2, 5, size // 2 + 1))
    spectra = random[0] + 1j * random[1]
    expected = np.fft.irfft(spectra, size, axis=1)
    assert np.abs(membrane.real_waves(spectra, size) - expected).max() < 1e-14


def test_fibres_fire_as_often_as_separate_ones() -> None:
    chance, steps = 0.01, 400_000
    pause = STEPS // 1000
    counts = np.zeros(1, np.int64)
    rate = chance / (1 + (pause - 1) * chance)  # renewal process with a dead time
    probability = np.full((1, steps), chance)
    drawn = np.empty((1, steps // pause + 1), np.int32)
    nerve._fire(probability, 1 / STEPS, pause, np.array([1, 2], np.uint64), np.zeros(1, np.int64), drawn, counts)
    mean_slope = rate * nerve.FIBRES * nerve.WEIGHT / nerve.FIBRES / STEPS
    decay = (1 - np.exp(-1 / STEPS / nerve.TAU_SYN)) * (1 - np.exp(-1 / STEPS / nerve.TAU_MEM))
    assert mean_slope / decay > 1, "the mean drive must reach the threshold, or the count below says nothing"
    assert 0.1 * steps / pause < counts[0] <= steps / pause


def test_binomial_numbers_have_mean_and_variance() -> None:
    uniform = (np.arange(20_000) + 0.5) / 20_000
    for trials, chance in ((40, 0.003), (40, 0.05), (17, 0.4), (1, 0.99)):
        drawn = np.array([nerve._binomial(number, trials, chance) for number in uniform])
        assert drawn.mean() == pytest.approx(trials * chance, rel=2e-3)
        assert drawn.var() == pytest.approx(trials * chance * (1 - chance), rel=2e-2)
    assert nerve._binomial(0.5, 0, 0.3) == 0
    assert nerve._binomial(0.5, 7, 1.0) == 7


def test_chosen_channels_get_the_spikes_that_they_get_among_all() -> None:
    wave = tone(600) + tone(2500)
    times, units = Cochlea(40)(wave, RATE, "clip")
    chosen = list(range(1, 40, 3))
    some_times, some_units = Cochlea(40, chosen)(wave, RATE, "clip")
    is_chosen = np.isin(units, chosen)
    assert is_chosen.sum() > 10
    np.testing.assert_array_equal(some_times, times[is_chosen])
    np.testing.assert_array_equal(np.array(chosen)[some_units], units[is_chosen])


def test_noise_follows_from_seed_and_name() -> None:
    wave = tone(600)
    times, units = Cochlea(24)(wave, RATE, "clip")
    same_times, same_units = Cochlea(24)(wave, RATE, "clip")
    np.testing.assert_array_equal(times, same_times)
    np.testing.assert_array_equal(units, same_units)
    for cochlea, name in ((Cochlea(24, seed=1), "clip"), (Cochlea(24), "other")):
        other_times, _ = cochlea(wave, RATE, name)
        assert len(other_times) != len(times) or (other_times != times).any()


def test_loudness_and_channels_of_a_recording_do_not_matter() -> None:
    wave = tone(600)
    times, _ = Cochlea(24)(wave, RATE, "clip")
    stereo, _ = Cochlea(24)(np.stack([0.01 * wave, 0.01 * wave], axis=1), RATE, "clip")
    np.testing.assert_array_equal(times, stereo)


def test_a_wave_at_another_rate_is_resampled() -> None:
    wave = waves.mono(np.sin(2 * np.pi * 440 * np.arange(8000) / 8000), 8000)
    assert len(wave) == RATE
    middle = slice(RATE // 4, RATE // 2)
    np.testing.assert_allclose(wave[middle], tone(440, 1.0)[middle], atol=5e-3)


@pytest.mark.parametrize(
    ("samples", "rate", "text"),
    [
        (np.zeros(1000), RATE, "all samples are 0"),
        (np.ones(10), RATE, "at least 64 samples"),
        (np.full(1000, np.nan), RATE, "1000 of 1000 samples are not finite"),
        (np.ones((3, 4, 5)), RATE, r"shape \[3, 4, 5\]"),
        (np.ones(1000), 0, "sampling rate 0 Hz"),
    ],
)
def test_bad_waves_are_refused(samples: np.ndarray, rate: int, text: str) -> None:
    with pytest.raises(AudioError, match=text):
        Cochlea(8)(samples, rate, "clip")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"channels": 0}, "channels=0"),
        ({"channels": 8, "selection": [2, 2]}, "each channel once"),
        ({"channels": 8, "selection": [8]}, r"0\.\.7"),
        ({"level": 0.0}, "level"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Cochlea(**settings)  # type: ignore[arg-type]


def test_ramps_must_fit() -> None:
    with pytest.raises(AudioError, match="half the wave"):
        waves.ramps(tone(440, 0.01), 0.02)
    assert waves.ramps(tone(440, 0.1), 0.02)[RATE // 20] == tone(440, 0.1)[RATE // 20]


def test_quiet_ends_are_cut() -> None:
    wave = np.concatenate([np.zeros(4800), tone(440, 0.1), 1e-3 * tone(440, 0.1)])
    assert len(waves.trimmed(wave)) == pytest.approx(4800, abs=500)
