"""Checks of neurons that are calibrated for other targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from hxtrain.backends import Backend, Circuit, Recording, Spikes, Stimulus, Targets
from hxtrain.characterisation import bench_circuit, characterise

from .check import Check
from .laboratory import Laboratory
from .statistics import Array


def target_checks(lab: Laboratory, chip: str) -> list[Check]:
    """Return checks that need other calibration targets."""
    lab.report(f"chip {chip}: leak over threshold")
    rates = _free_rates(lab.calibrated(chip, LEAK_OVER_THRESHOLD), LEAK_OVER_THRESHOLD)
    inside = float(np.mean((rates > 90e3) & (rates < 115e3)))
    lab.report(f"chip {chip}: quiescence")
    calm = Targets(leak=150 - MARGIN_LSB, reset=80.0)
    share = _unprovoked(lab.calibrated(chip, calm), calm)
    lab.report(f"chip {chip}: threshold distance of 45 LSB, long membrane time constant")
    distance = _threshold_distance(lab.calibrated(chip, Targets(threshold=125.0, reset=70.0)), lab.seed)
    slow = Targets(tau_mem=60e-6)
    noise = _quiet_noise(lab.calibrated(chip, slow), slow)
    return [
        Check("leak over threshold, neurons at 90-115 kHz for 100 kHz", "share", inside, 0.9, 1.0, "[C] calix 90 %"),
        Check("unprovoked spikes of 512 neurons per 5 us, margin 40 codes", "", share, 0, 20, "[C] calix < 20"),
        Check("threshold - leak for targets 125, 80", "LSB", distance, 34, 66, "[C] hxtorch 45, accepts 34-66"),
        Check("repeated reads, tau_mem 60 us", "LSB", noise, 1.2, 2.0, "[C] calix target 1.2, mask 2.0"),
    ]


MARGIN_LSB = 40 * 200 / 480
"""40 codes of a potential's cell (LSB)."""
LEAK_OVER_THRESHOLD = Targets(leak=161.7, threshold=125.0, reset=80.0, tau_mem=10e-6, tau_syn=10e-6, rate=100e3)
"""Targets of neurons that fire at 100 kHz without input: 2 us + 10 us ln((161.7 - 80) / (161.7 - 125)) = 10 us."""


def _circuit_for(backend: Backend, targets: Targets, spiking: bool, samples: int) -> Circuit:
    circuit = bench_circuit(backend.capabilities.neuron_circuits, 1, backend, targets.tau_mem, targets.tau_syn)
    population = replace(
        circuit.populations[0],
        leak=targets.leak,
        reset=targets.reset,
        threshold=targets.threshold if spiking else None,
    )
    return replace(circuit, populations=(population,), samples=samples)


def _quiet(backend: Backend, targets: Targets, spiking: bool, samples: int, trials: int) -> Recording:
    backend.configure(_circuit_for(backend, targets, spiking, samples))
    no_events = torch.zeros(0, dtype=torch.int64)
    recording = backend.run({}, Stimulus(Spikes(no_events, no_events, no_events.float(), trials, 0)))
    backend.close()
    return recording


def _free_rates(backend: Backend, targets: Targets) -> Array:
    """Return the firing rate of every neuron without input (1 / s) `[512]`: later spikes per time since the first."""
    samples, trials = 100, 4
    spikes = _quiet(backend, targets, True, samples, trials).spikes["neurons"].ordered()
    place = (spikes.sample * spikes.units + spikes.unit).numpy()
    time = spikes.time.double().numpy()
    count = np.bincount(place, minlength=trials * spikes.units)
    first = np.full(len(count), np.inf)
    last = np.full(len(count), -np.inf)
    np.minimum.at(first, place, time)
    np.maximum.at(last, place, time)
    rates = np.where(count > 1, (count - 1) / np.where(count > 1, last - first, 1.0), 0.0)
    mean: Array = rates.reshape(trials, -1).mean(0)
    return mean


def _unprovoked(backend: Backend, targets: Targets) -> float:
    """Return the largest mean number of spikes of all neurons in 5 us without input."""
    samples, trials = 60, 8
    spikes = _quiet(backend, targets, True, samples, trials).spikes["neurons"]
    bins = np.floor(spikes.time.double().numpy() / 5e-6).astype(int)
    counts = np.bincount(bins, minlength=20)[:20] / trials
    return float(counts.max())


def _threshold_distance(backend: Backend, seed: int) -> float:
    targets = Targets(threshold=125.0, reset=70.0)
    measurements = characterise(backend, _circuit_for(backend, targets, True, 1), seed).measured
    backend.close()
    distance = measurements.thresholds.threshold - measurements.baseline.leak
    return float(np.median(distance[np.isfinite(distance)]))


def _quiet_noise(backend: Backend, targets: Targets) -> float:
    codes = _quiet(backend, targets, False, 60, 20).traces["neurons"].numpy().astype(np.float64)
    return float(np.median((codes - codes.mean((0, 1))).std((0, 1))))
