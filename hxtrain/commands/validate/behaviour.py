"""Checks of neurons and synapses at the usual targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hxtrain.backends import Spikes
from hxtrain.characterisation import Bench, Measured, bench_circuit, characterise, measure_linearity

from .check import Check
from .laboratory import Laboratory
from .statistics import Array


def dynamics_checks(lab: Laboratory, chip: str) -> list[Check]:
    """Return checks of the range of the CADC, the map of potentials, and volleys."""
    lab.report(f"chip {chip}: range and volleys")
    backend = lab.open(chip)
    circuit = bench_circuit(backend.capabilities.neuron_circuits, 1, backend)
    bench = Bench(backend, circuit, lab.seed)
    quiet = bench.quiet(20, spiking=False, samples=20).codes
    full_weights = 63 * np.ones((bench.neurons, bench.inputs), np.int64)
    is_active = np.ones((8, bench.inputs), bool)
    high = bench.run(full_weights, is_active, np.zeros(8), spiking=False).codes.max(1).mean(0)
    low = bench.run(-full_weights, is_active, np.zeros(8), spiking=False).codes.min(1).mean(0)
    volley = bench.run(full_weights, is_active, np.zeros(8), spiking=True).spikes
    n_recorded = np.isfinite(_first_spikes(volley)).sum(1).min()
    rest, top, bottom = (float(np.median(x)) - 128 for x in (quiet.mean((0, 1)), high, low))
    checks = [
        Check("rest, signed CADC", "LSB", rest, -54, -36, "[C] hxtorch -45 +-20 %"),
        Check("upper end, signed CADC", "LSB", top, 80, 120, "[C] hxtorch +100 +-20 %"),
        Check("lower end, signed CADC", "LSB", bottom, -123.6, -82.4, "[C] hxtorch -103 +-20 %"),
        Check("full volley of 512 neurons, recorded (worst trial)", "spikes", float(n_recorded), 250, 512, "[C] calix"),
    ]
    backend.close()
    plain = lab.open(chip, "uncalibrated")
    for target in (40.0, 200.0):
        population = replace(circuit.populations[0], leak=target, threshold=None)
        target_bench = Bench(plain, replace(circuit, populations=(population,)), lab.seed)
        median = float(np.median(target_bench.quiet(12, spiking=False, samples=12).codes))
        code = (target - 20) / 200 * 480 + 70
        text = f"parameter code {code:.0f}, median potential of uncalibrated neurons"
        checks.append(Check(text, "LSB", median, target - 8, target + 8, "[C] codes 70..550 are 20..220 LSB; +-8"))
    plain.close()
    return checks


def _first_spikes(spikes: Spikes) -> Array:
    """Return the first spike time of each trial and neuron `[B, N]` (s); infinite without a spike."""
    times = np.full(spikes.samples * spikes.units, np.inf)
    place = (spikes.sample * spikes.units + spikes.unit).numpy()
    np.minimum.at(times, place, spikes.time.double().numpy())
    return times.reshape(spikes.samples, spikes.units)


def weight_checks(lab: Laboratory, chip: str, calibrated: Measured) -> list[Check]:
    """Return checks of size and linearity of single potentials."""
    lab.report(f"chip {chip}: weights")
    backend = lab.open(chip)
    bench = Bench(backend, bench_circuit(backend.capabilities.neuron_circuits, 1, backend), lab.seed)
    linear = measure_linearity(bench, calibrated.shapes, calibrated.baseline)
    backend.close()
    caps = backend.capabilities
    peak = float(np.median(calibrated.shapes.gain[0, 0])) * caps.synaptic_drive * 6e-6 / np.e
    return [
        Check("peak of a potential per weight LSB", "LSB", peak, 0.4, 0.6, "[P] 0.45 theta / 63 = 0.5, +-20 %"),
        Check(
            "the same at DAC bias 600 (estimated: proportional)",
            "LSB",
            0.6 * peak,
            0.27,
            0.40,
            "[C] hxtorch 45 / (50 e), +-20 %",
        ),
        Check("deviation from linearity up to weight 63", "", float(np.median(linear.deviation)), 0, 0.05, "[E]"),
    ]


def noise_checks(calibrated: Measured) -> list[Check]:
    """Return checks of temporal noise at the usual operating point."""
    theta = 70.0
    return [
        Check(
            "repeated reads of a quiet membrane",
            "LSB",
            float(np.median(calibrated.baseline.sd)),
            0.7,
            1.5,
            "[E], [C] 0.7-1.5",
        ),
        Check(
            "scatter of a spike's time, strong drive",
            "ns",
            1e9 * float(np.nanmedian(calibrated.bursts.scatter)),
            40,
            120,
            "[C]",
        ),
        Check(
            "threshold from batch to batch",
            "% of theta",
            100 * float(np.nanmedian(calibrated.thresholds.noise)) / theta,
            1.0,
            2.0,
            "[C] DelGrad 1.5",
        ),
        Check(
            "refractory period", "us", 1e6 * float(np.nanmedian(calibrated.refractory)), 1.94, 2.06, "[C] 2 us +-3 %"
        ),
    ]


def merge_checks(lab: Laboratory, chip: str, calibrated: Measured) -> list[Check]:
    """Return checks of two merged circuits, with and without correction of their parasitic capacitance."""
    single_tau_mem = np.median(calibrated.shapes.tau_mem)
    values = {}
    for is_corrected in (True, False):
        lab.report(f"chip {chip}: 256 merged neurons, capacitance {'corrected' if is_corrected else 'not corrected'}")
        backend = lab.open(chip, correct_capacitance=is_corrected)
        measurements = characterise(backend, bench_circuit(256, 2, backend), lab.seed).measured
        backend.close()
        values[is_corrected] = 100 * abs(float(np.median(measurements.shapes.tau_mem) / single_tau_mem) - 1)
    return [
        Check("tau_mem of two merged circuits, off a single one's", "%", values[True], 0, 12, "[C] calix < 12 %"),
        Check("the same without corrected capacitance", "%", values[False], 24, 100, "[C] calix > 24 %"),
    ]
