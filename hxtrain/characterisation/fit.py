"""The whole characterisation: order of the measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hxtrain.backends import Backend, Circuit
from hxtrain.backends.parameters import NeuronParameters

from .baseline import Baseline, measure_baseline, measure_range
from .bench import Bench, bench_circuit
from .psp import Psps, measure_psp
from .resets import Resets, measure_resets
from .response import MembraneModel
from .saturation import measure_saturation
from .shapes import ShapeData, Shapes, fit_shapes, fit_strengths
from .summary import Measured, to_parameters, without_estimate
from .thresholds import measure_thresholds
from .timing import measure_bursts, refractory_period, spike_jitter

Report = Callable[[str, int, int], None]
"""Function called before every step with its name, the number of finished steps and the number of all steps."""
STEPS = (
    "leak and noise",
    "range of the traces",
    "every synapse, both signs",
    "saturation of the amplifiers",
    "resets and recovery",
    "thresholds",
    "spike times",
)


@dataclass(frozen=True)
class Characterisation:
    """Result of a characterisation of a device's neurons.

    Attributes:
        parameters: complete parameters of the neurons.
        missing: masks of the neurons without a measurement `[N]`, by name of the parameter.
        measured: single measurements.
    """

    parameters: NeuronParameters
    missing: Mapping[str, npt.NDArray[np.bool_]]
    measured: Measured


def fit_emulator(
    backend: Backend, circuit: Circuit | None = None, seed: int = 0, progress: Report | None = None
) -> NeuronParameters:
    """Measure the parameters with which an emulated chip behaves like the device.

    Args:
        backend: open device.
        circuit: circuit to characterise; None: all circuits of the device as neurons of two merged circuits, which is
            the placement of a network with up to 256 inputs and as many neurons, e.g. 256-246-10.
        seed: seed of the order of trials.
        progress: function called before every step.
    """
    return characterise(backend, circuit, seed, progress).parameters


def default_circuit(backend: Backend) -> Circuit:
    """Return a circuit of all a device's neuron circuits, merged in pairs, with its usual targets."""
    return bench_circuit(backend.capabilities.neuron_circuits // 2, 2, backend)


def characterise(
    backend: Backend,
    circuit: Circuit | None = None,
    seed: int = 0,
    progress: Report | None = None,
    retries: int = 5,
) -> Characterisation:
    """Measure everything; see `fit_emulator`. A failed run is repeated at most `retries` times."""
    bench = Bench(backend, circuit or default_circuit(backend), seed, retries)
    remaining = iter(enumerate(STEPS))

    def begin() -> None:
        finished, step = next(remaining)
        if progress is not None:
            progress(step, finished, len(STEPS))

    begin()
    baseline = measure_baseline(bench)
    begin()
    limits = measure_range(bench)
    begin()
    psps = measure_psp(bench, baseline, limits)
    begin()
    shapes, model = fitted_model(bench, psps, baseline, None)
    saturation = measure_saturation(bench, model, shapes.delay, baseline, limits)
    begin()
    shapes, model = fitted_model(bench, psps, baseline, saturation)
    rough = measure_thresholds(bench, model, baseline, 0.0, blocks=1)
    resets = measure_resets(bench, model, baseline, limits, rough.threshold)
    begin()
    shapes, model = fitted_model(bench, psps, baseline, saturation, resets)
    noise = [float(np.median(deviations)) for deviations in baseline.noise(shapes.tau_mem, bench.dt)]
    thresholds = measure_thresholds(bench, model, baseline, noise[0])
    begin()
    bursts = measure_bursts(bench)
    free_running = resets.free_running_threshold(baseline.leak, shapes.tau_mem)
    timed_threshold = np.where(thresholds.restless | np.isinf(thresholds.threshold), np.nan, thresholds.threshold)
    thresholds = replace(thresholds, threshold=np.where(thresholds.restless, free_running, thresholds.threshold))
    measured = Measured(
        baseline=baseline,
        limits=limits,
        samples=psps.valid.sum((0, 3)),
        shapes=shapes,
        strength=model.strength,
        saturation=saturation,
        thresholds=thresholds,
        resets=resets,
        bursts=bursts,
        jitter=spike_jitter(bench, bursts, timed_threshold - baseline.leak, noise[0]),
        refractory=refractory_period(bursts, baseline.leak, resets.reset, timed_threshold),
        trials=bench.session.clock,
    )
    missing = without_estimate(measured, bench.times[-1] - bench.start)
    parameters = to_parameters(measured, missing, dict(backend.identity), bench.merged, (noise[0], noise[1]))
    return Characterisation(parameters, missing, measured)


def fitted_model(
    bench: Bench, psps: Psps, baseline: Baseline, saturation: float | None, resets: Resets | None = None
) -> tuple[Shapes, MembraneModel]:
    """Fit shapes and strengths to the potentials and, if measured, the recoveries after spikes."""
    data = ShapeData.of(bench, psps, baseline.sd, saturation, None if resets is None else resets.recovery)
    shapes = fit_shapes(data)
    strength = fit_strengths(psps, data, shapes)
    return shapes, MembraneModel(data.drive, shapes.tau_mem, shapes.tau_syn, strength, saturation)
