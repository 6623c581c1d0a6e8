"""Checks of the emulator as a program: equality with the reference neuron, and repeatability."""

from __future__ import annotations

from dataclasses import replace

import torch

from hxtrain.backends import INPUT, Backend, Circuit, Projection, Recording, Spikes, Stimulus, join
from hxtrain.characterisation import bench_circuit
from hxtrain.execution.config import BackendConfig, ChipConfig

from .check import Check
from .laboratory import Laboratory


def hygiene_checks(lab: Laboratory) -> list[Check]:
    """Return checks that the ideal chip equals the reference neuron, and that recordings are repeatable."""
    lab.report("hygiene: ideal chip, batches, seeds, sub-steps")
    weights, spikes = _random_task(lab.seed)
    ideal, reference = _ideal_and_reference(lab, weights, spikes)
    difference = (ideal.traces["hidden"].int() - reference.traces["hidden"].int()).abs().double()
    counts = [float(len(r.spikes["hidden"])) for r in (ideal, reference)]
    whole = _run(lab.open("W66F3"), weights, spikes)
    repetition = _run(lab.open("W66F3"), weights, spikes)
    pieces = _pieces(lab.open("W66F3"), weights, spikes)
    quiet = {
        "membrane_noise": 0.0,
        "cadc_noise": 0.0,
        "threshold_noise": 0.0,
        "spike_jitter": 0.0,
    }
    coarse, fine = (float(len(_run(_stepped(quiet, steps), weights, spikes).spikes["hidden"])) for steps in (4, 16))
    return [
        Check(
            "ideal chip and reference neuron, median difference of codes",
            "LSB",
            float(difference.median()),
            0,
            1,
            "equality",
        ),
        Check("the same, difference of spike counts", "%", 100 * abs(counts[0] / counts[1] - 1), 0, 3, "equality"),
        Check("same seed, codes that differ", "", _difference_count(whole, repetition), 0, 0, "equality"),
        Check("split into batches of 7, codes that differ", "", _difference_count(whole, pieces), 0, 0, "equality"),
        Check("4x finer sub-steps, change of spike counts", "%", 100 * abs(coarse / fine - 1), 0, 1, "< 1 %"),
    ]


def _stepped(changes: dict[str, float], substeps: int) -> Backend:
    backend = BackendConfig("emulator", {"substeps": substeps}).create(ChipConfig(changes=dict(changes)))
    assert backend is not None
    backend.open()
    return backend


def _random_task(seed: int) -> tuple[dict[str, torch.Tensor], Spikes]:
    """Return integer weights of 200 hidden and 10 readout neurons, and 60 random trials of 100 inputs."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        "input->hidden": torch.randint(-10, 20, (200, 100), generator=generator, dtype=torch.int8),
        "hidden->readout": torch.randint(-10, 11, (10, 200), generator=generator, dtype=torch.int8),
    }
    times = torch.rand(60, 100, generator=generator) * 20e-6
    return weights, Spikes.from_times(torch.where(torch.rand(60, 100, generator=generator) < 0.3, times, torch.inf))


def _circuit(backend: Backend) -> Circuit:
    caps = backend.capabilities
    hidden = replace(bench_circuit(200, 1, backend).populations[0], name="hidden")
    readout = replace(hidden, name="readout", size=10, merged=2, threshold=None)
    projections = (
        Projection("input->hidden", INPUT, "hidden", 100),
        Projection("hidden->readout", "hidden", "readout", 200),
    )
    return Circuit(100, (hidden, readout), projections, 20, caps.trace_interval)


def _run(backend: Backend, weights: dict[str, torch.Tensor], spikes: Spikes) -> Recording:
    with backend:
        backend.configure(_circuit(backend))
        return backend.run(weights, Stimulus(spikes))


def _pieces(backend: Backend, weights: dict[str, torch.Tensor], spikes: Spikes) -> Recording:
    """Run trials in batches of 7, and return the joined recording."""
    with backend:
        backend.configure(_circuit(backend))
        clock = 0
        recordings = []
        for piece in spikes.split(7):
            recordings.append(backend.run(weights, Stimulus(piece, clock)))
            clock += piece.samples
    return join(recordings)


def _ideal_and_reference(
    lab: Laboratory, weights: dict[str, torch.Tensor], spikes: Spikes
) -> tuple[Recording, Recording]:
    reference = BackendConfig("reference").create(ChipConfig())
    assert reference is not None
    return _run(lab.open("W66F3", "ideal"), weights, spikes), _run(reference, weights, spikes)


def _difference_count(first: Recording, second: Recording) -> float:
    """Return the number of codes and spike times that differ."""
    codes = sum(int((first.traces[name] != second.traces[name]).sum()) for name in first.traces)
    for name in first.spikes:
        a, b = first.spikes[name].ordered(), second.spikes[name].ordered()
        codes += abs(len(a) - len(b)) if len(a) != len(b) else int((a.time != b.time).sum() + (a.unit != b.unit).sum())
    return float(codes)
