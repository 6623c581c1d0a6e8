"""The calibration of a chip: one search per kind of cell, in the order in which the cells depend on each other.

CADC (ramp slope, ramp start, digital offsets) -> synaptic time constants -> strength of the quadrants' synapses ->
thresholds -> synaptic gains -> amplifier references -> leak -> membrane time constant -> reset -> leak again. This is
the order of the chip's calibration library (calix). All measurements go through a `Bench`: CADC codes and spikes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..cells import PER_QUADRANT, QUADRANTS, code_for, value_of, value_range
from ..chip import Chip
from ..dynamics import SYNAPTIC_DRIVE
from ..layout import CADC_INTERVAL, CIRCUITS
from ..silicon import Targets
from .bench import Bench, spread_times
from .file import Calibration, CalibrationError
from .fits import Psp, fit_decay, fit_psp
from .search import REFINEMENTS, SearchResult, search

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Report = Callable[[str], None]

LONG_TAU = 60e-6
"""Membrane time constant with which synapses are measured: nearly an integrator (s)."""
MIDDLE = 120.0
"""Potential in the middle of the CADC's range (LSB)."""
REST = {1: 100.0, -1: 150.0}
"""Rest during measurements of excitatory and inhibitory synapses, with room for too large responses (LSB)."""
PSP_SIZE = 42.0
"""Size of the post-synaptic potentials that are measured (LSB)."""
TRIGGER_DELAY = 0.06e-6
"""Mean delay of a response on the CADC's clock, from phase and skew of its trigger [E] (s)."""
STEP_DOWN = 30.0
"""Distance of reset and rest from which the membrane time constant is measured (LSB)."""
MEMBRANE_MARGIN = 1.0
"""Distance from a rest at which half of the trials fire to the threshold above it (LSB; caused by noise)."""
FIRING_WIDTH = 4.0
"""Codes of a potential from "fires in half of the trials" to "always" or "never" (caused by noise)."""
TOLERANCE = {"potential": 6.0, "relative": 0.2}
"""Largest error of a calibrated circuit: in LSB, and as a share of the target."""


class Result(NamedTuple):
    """Outcome of a calibration for one parameter, from the final measurement.

    Attributes:
        parameter: name of the parameter.
        unit: unit of target and measured values.
        target: median of the targets.
        measured: measured value of every circuit `[512]`.
        success: mask of the circuits within the tolerance `[512]`.
    """

    parameter: str
    unit: str
    target: float
    measured: Array
    success: Mask


def calibrate(
    chip: Chip,
    targets: Targets,
    stages: Sequence[str] | None = None,
    seed: int = 0,
    report: Report = lambda text: None,
    rate: float | None = None,
) -> tuple[Calibration, list[Result]]:
    """Calibrate a chip.

    Args:
        chip: the individual; its codes are ignored.
        targets: leak, reset, threshold (LSB), tau_mem, tau_syn (s), each `[512]`.
        stages: names of the `STAGES` to run, None for all; the other cells stay at common codes.
        seed: seed of the temporal noise during the measurements.
        report: function that is called with the name and purpose of each stage before it runs.
        rate: rate at which neurons with a leak above threshold fire without input (1 / s); None for neurons that rest.

    Raises:
        CalibrationError: a target is outside the range of the cells, or a stage is unknown.
    """
    selected = list(STAGES) if stages is None else list(stages)
    unknown = sorted(set(selected) - set(STAGES))
    if unknown:
        raise CalibrationError(f"stages {unknown} are not known; choose from {', '.join(STAGES)}")
    _check_targets(targets)
    bench = Bench(chip, targets, seed, rate)
    inside: dict[str, Mask] = {}
    for name, stage in STAGES.items():
        if name in selected:
            report(f"{name}: {stage.__doc__}")
            for parameter, mask in stage(bench).items():
                inside[parameter] = inside.get(parameter, np.ones(CIRCUITS, bool)) & mask
    report("check: measure what was reached")
    results = [r._replace(success=r.success & inside.get(r.parameter, r.success)) for r in verify(bench)]
    calibration = Calibration(
        chip=chip.name,
        die=chip.silicon.digest[:16],
        targets={name: np.asarray(values, np.float64) for name, values in targets.items()},
        codes=bench.codes,
        success={r.parameter: r.success for r in results},
        stages=tuple(name for name in STAGES if name in selected),
        seed=seed,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    )
    return calibration, results


def _check_targets(targets: Targets) -> None:
    cells = {"leak": "leak", "reset": "reset", "threshold": "threshold", "tau_mem": "tau_mem", "tau_syn": "tau_syn_exc"}
    for name, cell in cells.items():
        low, high = value_range(cell)
        low, high = (20.0, 220.0) if name in ("leak", "reset", "threshold") else (low, high)
        values = np.asarray(targets[name])
        if values.shape != (CIRCUITS,):
            raise CalibrationError(f"targets of {name} have shape {values.shape}, expected ({CIRCUITS},)")
        if values.min() < low or values.max() > high:
            raise CalibrationError(
                f"target {name}={values.min():.4g}..{values.max():.4g} is out of the cells' reach "
                f"({low:.3g}..{high:.3g}); choose a target inside"
            )


# measurements


def baseline(bench: Bench, synapses: bool = True) -> Array:
    """Return the mean code `[512]` of quiet membranes."""
    return bench.observe(samples=16, trials=12, synapses=synapses).codes.mean((0, 1), dtype=np.float64)


def reset_level(bench: Bench) -> Array:
    """Return the mean code `[512]` of membranes at their reset potential."""
    return bench.observe(samples=1, trials=64, from_reset=True).codes.mean((0, 1), dtype=np.float64)


def firing_share(bench: Bench) -> Array:
    """Return the share of trials `[512]` in which a circuit fires without input."""
    return (bench.observe(samples=10, trials=3, spiking=True, windows=8).spikes > 0).mean(0)


def psp(bench: Bench, sign: int) -> Psp:
    """Measure the post-synaptic potential of many simultaneous synapses, in a state with long tau_mem."""
    tau = float(np.median(bench.targets["tau_syn"]))
    response = SYNAPTIC_DRIVE * _peak(tau, LONG_TAU)
    charge = float(np.clip(PSP_SIZE / response, 8, 240))
    inputs = int(np.clip(charge, 8, 120))
    weight = max(1, round(charge / inputs))
    offsets = 6
    repeats = 4
    lead = 2
    times = spread_times(offsets, lead * CADC_INTERVAL)
    samples = lead + int(np.clip(np.ceil(4 * tau / CADC_INTERVAL), 12, 80))
    observation = bench.observe(samples, offsets * repeats, sign * weight, inputs, np.tile(times, repeats))
    time = (np.arange(samples) * CADC_INTERVAL - times[:, None] - TRIGGER_DELAY).ravel()
    mean = observation.codes.reshape(repeats, offsets, samples, CIRCUITS).mean(0, dtype=np.float64)
    trace = mean.reshape(-1, CIRCUITS)
    fit = fit_psp(time, trace, tau, LONG_TAU)
    return fit._replace(slope=sign * fit.slope / (SYNAPTIC_DRIVE * weight * inputs))


def membrane_tau(bench: Bench) -> Array:
    """Return tau_mem (s) `[512]` from the return to rest after a forced reset."""
    tau = float(np.median(bench.targets["tau_mem"]))
    samples = int(np.clip(np.ceil(6 * tau / CADC_INTERVAL), 10, 220))
    trace: Array = bench.observe(samples, trials=24, from_reset=True).codes.mean(0, dtype=np.float64)
    return fit_decay(np.arange(samples, dtype=np.float64) * CADC_INTERVAL, trace, tau)


def _peak(syn: float, mem: float) -> float:
    """Return the largest value of `(exp(-t/mem) - exp(-t/syn)) / (1/syn - 1/mem)`."""
    if abs(mem / syn - 1) < 1e-6:
        return syn / float(np.e)
    t = np.log(mem / syn) / (1 / syn - 1 / mem)
    return float((np.exp(-t / mem) - np.exp(-t / syn)) / (1 / syn - 1 / mem))


# errors in codes: positive if the code is too high


def _potential_error(cell: str, measured: Array, target: Array) -> Array:
    return code_for(cell, measured) - code_for(cell, target)


def _tau_error(codes: Array, measured: Array, target: Array) -> Array:
    """Return the error of the codes; a code that is too high makes the time constant too short."""
    return codes - codes * code_for("tau_mem", target) / code_for("tau_mem", measured)


def _tau_syn_error(bench: Bench, sign: int, codes: Array) -> Array:
    return _tau_error(codes, psp(bench, sign).tau_syn, bench.targets["tau_syn"])


def _gain_error(bench: Bench, sign: int, codes: Array) -> Array:
    return codes - codes / np.maximum(psp(bench, sign).slope, 1e-2)


def firing_rate(bench: Bench) -> Array:
    """Return the rate (1 / s) `[512]` at which circuits fire without input."""
    samples, trials = 60, 8
    return bench.observe(samples, trials, spiking=True).spikes.mean(0) / (samples * CADC_INTERVAL)


def _search_rate(bench: Bench, rate: float) -> SearchResult:
    """Search the leak above threshold at which circuits fire at `rate`, from spikes alone."""
    t = bench.targets
    distance = t["leak"] - t["threshold"]
    # derivative of 1/rate = refractory + tau_mem ln((leak - reset) / (leak - threshold)) with respect to the leak
    slope = t["tau_mem"] * (1 / distance - 1 / (t["leak"] - t["reset"]))
    per_code = float(value_of("leak", np.array([1.0]))[0] - value_of("leak", np.array([0.0]))[0])

    def error(codes: Array) -> Array:
        return (1 / rate - 1 / np.maximum(firing_rate(bench), 1.0)) / slope / per_code

    return _search(bench, "leak", error)


def _search(bench: Bench, cell: str, error: Callable[[Array], Array]) -> SearchResult:
    """Search the codes of one cell for all circuits, and write them."""

    def write_and_measure(codes: Array) -> Array:
        bench.write(**{cell: codes})
        return error(codes)

    result = search(write_and_measure, CIRCUITS, cell)
    bench.write(**{cell: result.codes})
    return result


def _search_leak(bench: Bench, target: Array) -> SearchResult:
    return _search(bench, "leak", lambda codes: _potential_error("leak", baseline(bench), target))


# stages


def cadc(bench: Bench) -> dict[str, Mask]:
    """ramp slope and start of each quadrant, digital offset of each channel"""
    low, high = 70.0, 180.0
    quadrants = (QUADRANTS, PER_QUADRANT)

    def mean(potential: float) -> Array:
        return bench.read_reference(potential, 32).mean(0, dtype=np.float64).reshape(quadrants).mean(1)

    def slope_error(codes: Array) -> Array:
        bench.write(cadc_slope=codes)
        return codes - codes / ((mean(high) - mean(low)) / (high - low))

    slope = search(slope_error, QUADRANTS, "cadc_slope")
    bench.write(cadc_slope=slope.codes)
    per_code = float(value_of("cadc_start", np.array([1.0]))[0] - value_of("cadc_start", np.array([0.0]))[0])

    def start_error(codes: Array) -> Array:
        bench.write(cadc_start=codes)
        return (mean(MIDDLE) - MIDDLE) / per_code

    start = search(start_error, QUADRANTS, "cadc_start")
    bench.write(cadc_start=start.codes)
    reading = bench.read_reference(MIDDLE, 128).mean(0, dtype=np.float64)
    bench.write(cadc_digital=MIDDLE - reading)
    inside = np.abs(MIDDLE - reading) < 127
    return {"cadc": inside & np.repeat(slope.inside & start.inside, PER_QUADRANT)}


def tau_syn(bench: Bench) -> dict[str, Mask]:
    """synaptic time constants, excitatory and inhibitory"""
    inside = {}
    for cell, sign in (("tau_syn_exc", 1), ("tau_syn_inh", -1)):
        with _Integrating(bench, sign):
            result = _search(bench, cell, partial(_tau_syn_error, bench, sign))
            inside[cell] = result.inside
    return inside


def dac_bias(bench: Bench) -> dict[str, Mask]:
    """strength of the quadrants' synapses, all to the weakest"""

    def strength() -> Array:
        return np.median(psp(bench, 1).slope.reshape(QUADRANTS, PER_QUADRANT), axis=1)

    with _Integrating(bench, 1):
        bench.write(dac_bias=np.full(QUADRANTS, 600.0))
        weakest = strength().min()

        def error(codes: Array) -> Array:
            bench.write(dac_bias=codes)
            return codes - codes * weakest / np.maximum(strength(), 1e-3)

        result = search(error, QUADRANTS, "dac_bias")
        bench.write(dac_bias=result.codes)
    return {"gain_exc": np.repeat(result.inside, PER_QUADRANT)}


def threshold(bench: Bench) -> dict[str, Mask]:
    """thresholds, from the rest at which a membrane begins to fire"""
    previous_leak = bench.codes.leak
    rest = _search_leak(bench, bench.targets["threshold"] - MEMBRANE_MARGIN)

    def error(codes: Array) -> Array:
        share = firing_share(bench)
        is_partial = (share > 0) & (share < 1)
        return np.where(is_partial, (0.5 - share) * 2, np.sign(0.5 - share) * 2) * FIRING_WIDTH

    residual = bench.targets["threshold"] - MEMBRANE_MARGIN - baseline(bench)
    result = _search(bench, "threshold", error)
    corrected = result.codes + residual * (code_for("threshold", np.array(1.0)) - code_for("threshold", np.array(0.0)))
    bench.write(threshold=corrected, leak=previous_leak.astype(np.float64))
    return {"threshold": result.inside & rest.inside}


def gain(bench: Bench) -> dict[str, Mask]:
    """synaptic gains, excitatory and inhibitory, to the nominal strength"""
    inside = {}
    for cell, sign in (("gain_exc", 1), ("gain_inh", -1)):
        with _Integrating(bench, sign):
            result = _search(bench, cell, partial(_gain_error, bench, sign))
            inside[cell] = result.inside
    return inside


def reference(bench: Bench) -> dict[str, Mask]:
    """amplifier references: switching the synapses on must not move the rest"""
    previous_leak = bench.codes.leak
    bench.write(leak=np.full(CIRCUITS, float(code_for("leak", np.array(MIDDLE)))))
    unshifted_rest = baseline(bench, synapses=False)
    per_code = float(value_of("reference_exc", np.array([1.0]))[0] - value_of("reference_exc", np.array([0.0]))[0])
    results = [
        _search(bench, cell, lambda codes: (baseline(bench) - unshifted_rest) / per_code)
        for cell in ("reference_exc", "reference_inh")
    ]
    bench.write(leak=previous_leak.astype(np.float64))
    return {"leak": results[1].inside}


def leak(bench: Bench) -> dict[str, Mask]:
    """resting potentials (above threshold: firing rates)"""
    if bench.rate is not None:
        return {"rate": _search_rate(bench, bench.rate).inside}
    return {"leak": _search_leak(bench, bench.targets["leak"]).inside}


def tau_mem(bench: Bench) -> dict[str, Mask]:
    """membrane time constants, from the return after a forced reset"""
    previous_reset = bench.codes.reset
    low_reset = np.maximum(bench.targets["leak"] - STEP_DOWN, 40.0)
    _search(bench, "reset", lambda codes: _potential_error("reset", reset_level(bench), low_reset))
    result = _search(bench, "tau_mem", lambda codes: _tau_error(codes, membrane_tau(bench), bench.targets["tau_mem"]))
    bench.write(reset=previous_reset.astype(np.float64))
    return {"tau_mem": result.inside}


def reset(bench: Bench) -> dict[str, Mask]:
    """reset potentials"""
    target = bench.targets["reset"]
    return {
        "reset": _search(bench, "reset", lambda codes: _potential_error("reset", reset_level(bench), target)).inside
    }


STAGES: dict[str, Callable[[Bench], dict[str, Mask]]] = {
    "cadc": cadc,
    "tau_syn": tau_syn,
    "dac_bias": dac_bias,
    "threshold": threshold,
    "gain": gain,
    "reference": reference,
    "leak": leak,
    "tau_mem": tau_mem,
    "reset": reset,
    "leak_again": leak,
}
"""The stages of a calibration, in their order."""


class _Integrating:
    """Temporary state for measurements of synapses of one sign: suitable rest, long membrane time constant."""

    def __init__(self, bench: Bench, sign: int) -> None:
        self.bench, self.sign = bench, sign

    def __enter__(self) -> None:
        codes = self.bench.codes
        self.codes = {"leak": codes.leak.astype(np.float64), "tau_mem": codes.tau_mem.astype(np.float64)}
        self.bench.write(
            leak=np.full(CIRCUITS, float(code_for("leak", np.array(REST[self.sign])))),
            tau_mem=np.full(CIRCUITS, float(code_for("tau_mem", np.array(LONG_TAU)))),
        )

    def __exit__(self, *error: object) -> None:
        self.bench.write(**self.codes)


# final measurement


def verify(bench: Bench) -> list[Result]:
    """Measure all parameters, each in the state in which it was calibrated."""
    targets = bench.targets
    is_free = bench.rate is not None
    rows: list[tuple[str, str, Array, Array]] = [
        ("rate", "1/s", np.full(CIRCUITS, bench.rate or 0.0), firing_rate(bench))
        if is_free
        else ("leak", "LSB", targets["leak"], baseline(bench)),
        ("reset", "LSB", targets["reset"], reset_level(bench)),
        ("threshold", "LSB", targets["threshold"], _threshold_by_leak(bench)),
    ]
    previous_reset = bench.codes.reset.astype(np.float64)
    shift = code_for("reset", np.maximum(targets["leak"] - STEP_DOWN, 40.0)) - code_for("reset", targets["reset"])
    bench.write(reset=previous_reset + shift)
    rows.append(("tau_mem", "s", targets["tau_mem"], membrane_tau(bench)))
    bench.write(reset=previous_reset)
    for name, sign in (("exc", 1), ("inh", -1)):
        with _Integrating(bench, sign):
            response = psp(bench, sign)
            rows.append((f"tau_syn_{name}", "s", targets["tau_syn"], response.tau_syn))
            rows.append((f"gain_{name}", "", np.ones(CIRCUITS), response.slope))
    return [_result(*row) for row in rows]


def _threshold_by_leak(bench: Bench) -> Array:
    """Return the threshold `[512]` in codes of the membrane: the rest at which a circuit begins to fire.

    Rest and firing are measured at the same codes, near the end of a search over the leak.
    """
    previous_leak = bench.codes.leak.astype(np.float64)
    lsb = float(value_of("leak", np.array([1.0]))[0] - value_of("leak", np.array([0.0]))[0])
    estimates: list[Array] = []

    def error(codes: Array) -> Array:
        share, rest = firing_share(bench), baseline(bench)
        is_partial = (share > 0) & (share < 1)
        estimates.append(np.where(is_partial, rest + MEMBRANE_MARGIN - (share - 0.5) * 2 * FIRING_WIDTH * lsb, np.nan))
        return np.where(is_partial, (share - 0.5) * 2, np.sign(share - 0.5) * 2) * FIRING_WIDTH

    _search(bench, "leak", error)
    bench.write(leak=previous_leak)
    last_estimates = np.stack(estimates[-REFINEMENTS:])
    count = np.isfinite(last_estimates).sum(0)
    return np.where(count > 0, np.nansum(last_estimates, axis=0) / np.maximum(count, 1), np.nan)


def _result(parameter: str, unit: str, target: Array, measured: Array) -> Result:
    if unit == "LSB":
        success = np.abs(measured - target) <= TOLERANCE["potential"]
    else:
        success = np.abs(measured / target - 1) <= TOLERANCE["relative"]
    return Result(parameter, unit, float(np.median(target)), measured, success)
