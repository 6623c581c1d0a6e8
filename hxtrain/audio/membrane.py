"""The basilar membrane: a travelling wave in shallow water (Sieroka, Dosch and Rupp 2006), as in Cramer et al. 2020.

The velocity at place c follows from the sound by a transfer function of the frequency alone. Its logarithm is smooth in
the logarithm of the frequency, so that it is tabulated once and interpolated: the function itself costs a microsecond
for each frequency and place, and a second of sound has 24,000 frequencies.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hxtrain.neurons.jit import compiled

from .libraries import library
from .waves import RATE, Wave

Floats = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]
Channels = npt.NDArray[np.int64]

LENGTH = 3.5
"""Length of the membrane (cm)."""
STIFFNESS = 1e9
STIFFNESS_OFFSET = 3500
STIFFNESS_DECAY = 3.0
"""Decay of the stiffness along the membrane (1 / cm)."""
DENSITY = 1.0
DAMPING = 0.15
HEIGHT = 0.1
"""Height of the fluid (cm)."""
MASS = 0.05
"""Mass of the membrane per area (g / cm^2)."""

SPACING = 0.005
"""Distance of tabulated frequencies (natural logarithm)."""
POINTS = 6
"""Number of tabulated frequencies that an interpolation uses."""
FLOOR = 1e-10
"""Share of its maximum below which the transfer function counts as 0."""
BLOCK = 32
"""Number of channels whose waves are computed at once, which bounds the memory."""


def places(count: int) -> Floats:
    """Return the places of channels along the membrane (cm), from high to low frequencies [C]."""
    return np.linspace(0.0, LENGTH, count)


def transfer(frequency: Floats, place: Floats) -> Complex:
    """Return the velocity of the membrane per unit of sound, complex [C, F].

    Args:
        frequency: frequencies (Hz) [F].
        place: distances from the base (cm) [C].

    Raises:
        ImportError: the extra `audio` is not installed.
    """
    omega = 2 * np.pi * np.asarray(frequency)[None, :]
    c = np.asarray(place)[:, None]
    pressure = _pressure(omega, c) / _pressure(omega, np.zeros((1, 1)))
    return np.asarray(2.0 * omega / _impedance(omega, c) * pressure * _entrance(omega))


def velocities(wave: Wave, channels: Channels, count: int) -> Floats:
    """Return the velocity of the membrane at some channels, at half the sampling rate [C, N // 2 + 1].

    The rate is halved as in the published conversion, which transforms back the positive frequencies alone.

    Args:
        wave: sound at `RATE` [N].
        channels: channels in 0..count - 1 [C].
        count: number of channels along the membrane.
    """
    return np.concatenate([velocity for _, velocity in blocks(wave, channels, count)])


def blocks(wave: Wave, channels: Channels, count: int) -> Iterator[tuple[Channels, Floats]]:
    """Yield the channels with their `velocities`, `BLOCK` of them at a time."""
    bins = len(wave) // 2 + 1
    spectrum = np.fft.rfft(wave)
    first, weights = _interpolation(np.linspace(1.0, RATE / 2, bins))
    table, limits = _table(count)
    for start in range(0, len(channels), BLOCK):
        block = channels[start : start + BLOCK]
        halves = np.zeros((len(block), bins // 2 + 1), dtype=np.complex128)
        _respond(spectrum, first, weights, table.real, table.imag, limits, block, halves)
        yield block, real_waves(halves, bins)


def real_waves(halves: Complex, size: int) -> Floats:
    """Return the inverse Fourier transform of Hermitian spectra [C, size // 2 + 1] as real waves [C, size].

    A length with a large prime factor takes as long for a real wave as for a complex one, which then carries two.
    """
    if largest_factor(size) ** 2 <= size:
        return np.fft.irfft(halves, size, axis=1)
    pairs = np.empty(((len(halves) + 1) // 2, size), dtype=np.complex128)
    _pair(halves, pairs)
    waves = np.fft.ifft(pairs, axis=1)
    result = np.empty((len(halves), size))
    result[0::2] = waves.real
    result[1::2] = waves.imag[: len(halves) // 2]
    return result


def largest_factor(number: int) -> int:
    """Return the largest prime factor of a number of at least 2."""
    factor = 2
    while factor * factor <= number:
        if number % factor:
            factor += 1
        else:
            number //= factor
    return number


def _impedance(omega: Floats, c: Floats) -> Complex:
    """Return the impedance of the membrane times -i omega [C, F]."""
    stiffness = STIFFNESS * np.exp(-STIFFNESS_DECAY * c) - STIFFNESS_OFFSET
    return np.asarray(stiffness - MASS * omega**2 - 1j * omega * _resistance(c))


def _resistance(c: Floats) -> Floats:
    return np.asarray(DAMPING * np.sqrt(STIFFNESS * MASS) * np.exp(-STIFFNESS_DECAY * c / 2))


def _wavenumber(omega: Floats, c: Floats) -> Complex:
    return np.asarray(omega * np.sqrt(DENSITY / (HEIGHT * _impedance(omega, c))))


def _phase(omega: Floats, c: Floats) -> Complex:
    """Return the integral of the wavenumber up to place c, in closed form [C, F]."""
    friction = omega * _resistance(c)
    inertia = np.sqrt(STIFFNESS_OFFSET + MASS * omega**2)
    base = _primitive(omega, omega * _resistance(np.zeros((1, 1))), inertia, np.zeros((1, 1)))
    ratio = base * np.exp(-STIFFNESS_DECAY * c / 2) / _primitive(omega, friction, inertia, c)
    scale = 1j * omega / (np.sqrt(HEIGHT) * inertia)
    return np.asarray(2 / STIFFNESS_DECAY * (_wavenumber(omega, np.zeros((1, 1))) - scale * np.log(ratio)))


def _primitive(omega: Floats, friction: Floats, inertia: Floats, c: Floats) -> Complex:
    """Return the argument of the logarithm in the integral of the wavenumber."""
    return np.asarray(-np.sqrt(_impedance(omega, c)) + 0.5j * (2 * inertia**2 + 1j * friction) / inertia)


def _pressure(omega: Floats, c: Floats) -> Complex:
    """Return the pressure at place c, up to a factor of the frequency [C, F]."""
    phase = _phase(omega, c)
    return np.asarray(np.sqrt(phase / _wavenumber(omega, c)) * library("scipy.special").hankel1(0, phase))


def _entrance(omega: Floats) -> Complex:
    """Return the impedance at the entrance of the cochlea [1, F]."""
    special = library("scipy.special")
    z = 2 * omega / STIFFNESS_DECAY * np.sqrt(2 / (HEIGHT * STIFFNESS))
    bessel = (1j * special.j0(z) + special.y0(z)) / (special.j1(z) - 1j * special.y1(z))
    return np.asarray(np.sqrt(2 * STIFFNESS / HEIGHT) * bessel)


@cache
def _table(count: int) -> tuple[Complex, Floats]:
    """Return the logarithm of the transfer function of every channel [C, F], and its highest frequencies (Hz) [C]."""
    grid = np.exp(SPACING * np.arange(-POINTS, np.log(RATE / 2) / SPACING + POINTS))
    table = np.empty((count, len(grid)), dtype=np.complex128)
    limits = np.empty(count)
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        values = transfer(grid, places(count)[block])
        size = np.abs(values)
        is_large = size > FLOOR * size.max(axis=1, keepdims=True)
        limits[block] = [grid[np.flatnonzero(row)[-1]] for row in is_large]
        table[block] = np.log(np.maximum(size, np.finfo(float).tiny)) + 1j * np.unwrap(np.angle(values), axis=1)
    return table, limits


def _interpolation(frequency: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the first tabulated frequency [F], and the weights of Lagrange's interpolation [F, `POINTS`]."""
    position = np.log(frequency) / SPACING + POINTS
    first = np.floor(position).astype(np.int64) - (POINTS // 2 - 1)
    offset = position - first
    weights = np.ones((len(frequency), POINTS))
    for point in range(POINTS):
        for zero in range(POINTS):
            if zero != point:
                weights[:, point] *= (offset - zero) / (point - zero)
    return first, weights


@compiled
def _respond(
    spectrum: Any, first: Any, weights: Any, sizes: Any, phases: Any, limits: Any, channels: Any, halves: Any
) -> None:
    """Add the spectrum of the real part of each channel's wave to `halves` [C, bins // 2 + 1]."""
    bins = spectrum.shape[0]
    step = (RATE / 2 - 1.0) / (bins - 1)
    for row in range(channels.shape[0]):
        channel = channels[row]
        last = min(bins, int((limits[channel] - 1.0) / step) + 1)
        for k in range(last):
            size = 0.0
            phase = 0.0
            for point in range(POINTS):
                size += weights[k, point] * sizes[channel, first[k] + point]
                phase += weights[k, point] * phases[channel, first[k] + point]
            size = 0.5 * np.exp(size)
            response = spectrum[k] * complex(size * np.cos(phase), size * np.sin(phase))
            if k < halves.shape[1]:
                halves[row, k] += response
            mirror = (bins - k) % bins
            if mirror < halves.shape[1]:
                halves[row, mirror] += response.conjugate()


@compiled
def _pair(halves: Any, pairs: Any) -> None:
    """Write the spectrum of `a + 1j b` for each two real waves a and b, given half of their spectra."""
    size = pairs.shape[1]
    for pair in range(pairs.shape[0]):
        first = halves[2 * pair]
        has_second = 2 * pair + 1 < halves.shape[0]
        second = halves[2 * pair + 1 if has_second else 2 * pair]
        weight = 1j if has_second else 0j
        for k in range(halves.shape[1]):
            a = first[k]
            b = second[k]
            if k > 0 and 2 * k < size:
                pairs[pair, size - k] = a.conjugate() + weight * b.conjugate()
            else:
                a = complex(a.real, 0.0)
                b = complex(b.real, 0.0)
            pairs[pair, k] = a + weight * b
