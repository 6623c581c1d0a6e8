"""An emulated chip against published measurements, seen through the device contract alone.

Every `Check` holds one statistic, what the emulator gave, the published bound, and where that is from: [P] Cramer,
Billaudelle et al. (PNAS 2022), [C] test bounds and defaults of public chip software (calix, hxtorch, DelGrad), [D]
spreads decoded from published calibrations of four chips, [E] an estimate. A *negative control* is a check that must
fail: if a calibration is overwritten, the chip's own tests notice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, List, NamedTuple  # noqa: UP035 - OmegaConf resolves these on every Python

import numpy as np
import numpy.typing as npt
import torch

from hxtrain.backends import (
    INPUT,
    Backend,
    Calibratable,
    Circuit,
    DeviceError,
    Projection,
    Recording,
    Spikes,
    Stimulus,
    Targets,
    join,
)
from hxtrain.characterisation import Bench, Measured, bench_circuit, characterise, measure_linearity
from hxtrain.config import BackendConfig, ChipConfig
from hxtrain.training.metrics import write_json
from hxtrain.training.versions import versions

Array = npt.NDArray[np.float64]
Report = Callable[[str], None]

QUADRANTS = 4
TRIM = 0.05
"""Share left out on each side before a standard deviation is compared [C]."""


@dataclass
class ValidateConfig:
    """Settings of a validation.

    Attributes:
        chips: serial numbers of the emulated chips; the published spreads are of four.
        short: only what takes a few seconds, on one chip.
        seed: of the temporal noise.
    """

    chips: List[str] = field(default_factory=lambda: ["W66F3", "W62F0", "W63F1", "W64F2"])  # noqa: UP006
    short: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.chips or len(set(self.chips)) != len(self.chips):
            raise ValueError(f"chips={list(self.chips)} must name different chips, at least one")


class Check(NamedTuple):
    """One statistic.

    Attributes:
        name, unit: what it is.
        value: on the emulator.
        low, high: the bound.
        source: of the bound.
        control: a negative control, which is right if the value is *outside* the bound.
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    source: str
    control: bool = False

    @property
    def passed(self) -> bool:
        """Return whether the value is inside its bound (outside, for a negative control)."""
        return bool(self.low <= self.value <= self.high) != self.control


def validate(config: ValidateConfig, folder: Path, command: str, report: Report) -> list[Check]:
    """Run all checks, and write `validation.json` into `folder`.

    Args:
        config: which chips, and how much.
        folder: where `validation.json` goes.
        command: how it was started, for the record.
        report: is told what is measured.
    """
    with tempfile.TemporaryDirectory() as scratch:
        lab = Laboratory(config.seed, Path(scratch), report)
        if config.short:
            checks = cadc_checks(lab, config.chips[:1]) + dynamics_checks(lab, config.chips[0]) + hygiene_checks(lab)
        else:
            checks = all_checks(lab, config.chips)
    write_json(
        folder / "validation.json",
        {
            "passed": all(check.passed for check in checks),
            "checks": [{**check._asdict(), "value": float(check.value), "passed": check.passed} for check in checks],
            "chips": lab.identities,
            "settings": asdict(config),
            "command": command,
            "versions": versions(),
        },
    )
    return checks


def all_checks(lab: Laboratory, chips: list[str]) -> list[Check]:
    """Return every check."""
    raw = {chip: lab.single(chip, "neurons at common codes", stages=["cadc", "reference"]) for chip in chips}
    good = {chip: lab.single(chip, "calibrated") for chip in chips}
    other = Laboratory(lab.seed + 1, lab.folder, lab.report)  # a measurement of its own, not the same noise again
    overwritten = other.single(chips[0], "calibration overwritten by common codes", stages=["cadc", "reference"])
    return [
        *cadc_checks(lab, chips),
        *ratio_checks(raw, good, overwritten),
        *population_checks(raw),
        *dynamics_checks(lab, chips[0]),
        *weight_checks(lab, chips[0], good[chips[0]]),
        *target_checks(lab, chips[0]),
        *noise_checks(good[chips[0]]),
        *merge_checks(lab, chips[0], good[chips[0]]),
        *hygiene_checks(lab),
    ]


class Laboratory:
    """Opens devices as they are needed.

    Args:
        seed: of the temporal noise.
        folder: for calibrations.
        report: is told what is measured.

    Attributes:
        identities: of all devices that were opened.
    """

    def __init__(self, seed: int, folder: Path, report: Report) -> None:
        self.seed, self.folder, self.report = seed, folder, report
        self.identities: list[dict[str, str]] = []

    def open(self, chip: str, preset: str = "calibrated", **settings: Any) -> Backend:
        """Return an open emulated chip."""
        created = BackendConfig("emulator").create(replace(ChipConfig(chip, preset, self.seed), **settings))
        assert created is not None
        created.open()
        self.identities.append(dict(created.identity))
        return created

    def calibrated(
        self, chip: str, targets: Targets | None = None, stages: list[str] | None = None, **settings: Any
    ) -> Backend:
        """Return an open chip that is calibrated for targets (only in some stages)."""
        file = self.folder / f"{chip}-{len(self.identities)}.npz"
        maker = self.open(chip, "uncalibrated")
        if not isinstance(maker, Calibratable):
            raise DeviceError("the emulator backend is not Calibratable; this is a bug")
        maker.calibrate(targets or Targets(), file, stages, self.seed)
        maker.close()
        return self.open(chip, "calibrated", calibration=str(file), **settings)

    def single(self, chip: str, what: str, stages: list[str] | None = None) -> Measured:
        """Characterise all 512 circuits of a chip, each a neuron."""
        self.report(f"chip {chip}, {what}: characterising 512 circuits")
        backend = self.open(chip) if stages is None else self.calibrated(chip, stages=stages)
        circuit = bench_circuit(backend.capabilities.neuron_circuits, 1, backend)
        try:
            return characterise(backend, circuit, self.seed).measured
        finally:
            backend.close()


# statistics


def trimmed_sd(values: Array) -> float:
    """Return the standard deviation without the outer 5 % on each side; numbers that are not finite do not count."""
    kept = np.sort(values[np.isfinite(values)])
    cut = int(len(kept) * TRIM)
    return float(np.std(kept[cut : len(kept) - cut]))


def spread(values: Array) -> float:
    """Return a standard deviation that a few bad neurons do not move: trimmed, rescaled to that of a normal."""
    return trimmed_sd(values) / TRIMMED_NORMAL


TRIMMED_NORMAL = 0.7893
"""Standard deviation of a standard normal distribution without its outer 5 % on each side."""


def within(values: Array) -> Array:
    """Return values without the means of their quadrants."""
    parts = values.reshape(QUADRANTS, -1)
    flat: Array = (parts - np.nanmedian(parts, axis=1, keepdims=True)).ravel()
    return flat


def correlation(x: Array, y: Array) -> float:
    """Return Pearson's correlation of the pairs that are finite and not among the outer 1 % of either."""
    good = np.isfinite(x) & np.isfinite(y)
    for values in (x, y):
        low, high = np.nanpercentile(values[np.isfinite(values)], [1, 99])
        good &= (values >= low) & (values <= high)
    return float(np.corrcoef(x[good], y[good])[0, 1])


# checks


def cadc_checks(lab: Laboratory, chips: list[str]) -> list[Check]:
    """CADC channels, seen at a common reference potential."""
    lab.report("CADC channels")
    raw: list[Array] = []
    good: list[Array] = []
    overwritten: list[Array] = []
    for chip in chips:
        for preset, found in (("uncalibrated", raw), ("calibrated", good), ("uncalibrated", overwritten)):
            backend = lab.open(chip, preset)
            assert isinstance(backend, Calibratable)
            found.append(backend.read_reference(128.0, 64).double().mean(0).numpy())
            backend.close()
    quadrants = [values.reshape(QUADRANTS, -1).mean(1) for values in good]
    offset = max(float(np.ptp(values)) for values in quadrants)
    mean = [float(values.mean()) for values in good]
    return [
        Check("CADC uncalibrated, SD of channels", "LSB", _mean(np.std, raw), 9.0, 10.5, "[D] 9.25-9.95"),
        Check("CADC calibrated, SD of channels (worst)", "LSB", max(float(x.std()) for x in good), 0, 3, "[C] calix"),
        Check("CADC calibrated, largest difference of quadrants", "LSB", offset, 0, 5, "[C] calix"),
        Check("CADC calibrated, mean", "LSB", float(np.mean(mean)), 88, 168, "[C] calix"),
        Check(
            "CADC calibration overwritten, SD of channels",
            "LSB",
            min(float(x.std()) for x in overwritten),
            0,
            3,
            "[C] calix: must fail",
            control=True,
        ),
    ]


def _mean(statistic: Callable[[Array], Any], parts: list[Array]) -> float:
    return float(np.mean([float(statistic(part)) for part in parts]))


def _columns(measured: Measured) -> dict[str, Array]:
    """Return the parameters of 512 single circuits."""
    shapes = measured.shapes
    return {
        "leak": measured.baseline.leak,
        "reset": measured.resets.reset,
        "threshold": np.where(np.isfinite(measured.thresholds.threshold), measured.thresholds.threshold, np.nan),
        "tau_mem": np.log(shapes.tau_mem),
        "tau_syn_exc": np.log(shapes.tau_syn[0, 0]),
        "tau_syn_inh": np.log(shapes.tau_syn[0, 1]),
        "gain_exc": np.log(np.maximum(shapes.gain[0, 0], 1e-3)),
        "gain_inh": np.log(np.maximum(shapes.gain[0, 1], 1e-3)),
    }


RATIOS = {"leak": 0.30, "reset": 0.20, "threshold": 0.35, "tau_mem": 0.45, "tau_syn_exc": 0.20, "tau_syn_inh": 0.20}
"""Largest ratio of calibrated and uncalibrated spread that the chip's calibration accepts [C]."""


def ratio_checks(raw: dict[str, Measured], good: dict[str, Measured], overwritten: Measured) -> list[Check]:
    """What the calibration leaves over, as a share of what there was; 5 % trimmed on both sides.

    `overwritten` is measured on its own, on the first chip with common codes in place of the calibration's.
    """
    before = {chip: _columns(measured) for chip, measured in raw.items()}
    after = {chip: _columns(measured) for chip, measured in good.items()}
    checks = []
    for name, bound in RATIOS.items():
        ratios = [trimmed_sd(after[chip][name]) / trimmed_sd(before[chip][name]) for chip in raw]
        checks.append(Check(f"{name}, calibrated / uncalibrated SD (worst)", "", max(ratios), 0, bound, "[C] calix"))
    first = next(iter(raw))
    for name, bound in RATIOS.items():
        same = trimmed_sd(_columns(overwritten)[name]) / trimmed_sd(before[first][name])
        text = f"{name}, calibration overwritten / uncalibrated SD"
        checks.append(Check(text, "", same, 0, bound, "[C] calix: must fail", control=True))
    return checks


SPREADS = {
    "leak": ("LSB", 13.1, 17.7),
    "reset": ("LSB", 12.3, 17.9),
    "threshold": ("LSB", 7.3, 9.2),
    "tau_mem": ("CV", 0.131, 0.151),
    "tau_syn_exc": ("CV", 0.201, 0.258),
    "tau_syn_inh": ("CV", 0.195, 0.251),
    "gain_exc": ("CV", 0.103, 0.238),
    "gain_inh": ("CV", 0.104, 0.244),
}
"""Spread of uncalibrated parameters on four chips: smallest and largest [D] (threshold: outliers trimmed)."""
MARGIN = 0.25
"""By how much a spread may lie outside the range of four chips."""


def population_checks(raw: dict[str, Measured]) -> list[Check]:
    """Spreads and correlations of uncalibrated neurons behind a calibrated CADC."""
    chips = [_columns(measured) for measured in raw.values()]
    checks = []

    def mean(statistic: Callable[[dict[str, Array]], float]) -> float:
        return float(np.mean([statistic(chip) for chip in chips]))

    for name, (unit, low, high) in SPREADS.items():
        value = mean(lambda chip, name=name: spread(chip[name]))  # type: ignore[misc]
        text = f"{name}, uncalibrated spread (mean of chips)"
        checks.append(Check(text, unit, value, low * (1 - MARGIN), high * (1 + MARGIN), f"[D] {low}-{high}, +-25 %"))
    distance = mean(lambda chip: spread(chip["threshold"] - chip["leak"]))
    below = mean(lambda chip: spread(chip["leak"] - chip["reset"]))
    pairs: list[tuple[str, str, float, float, float, str]] = [
        ("threshold - leak, spread", "LSB", distance, 13.3 * 0.75, 17.6 * 1.25, "[D] 13.3-17.6, +-25 %"),
        ("leak - reset, spread", "LSB", below, 8.7 * 0.75, 12.6 * 1.25, "[D] 8.7-12.6, +-25 %"),
        ("corr(leak, reset)", "", mean(lambda c: correlation(c["leak"], c["reset"])), 0.6, 0.9, "[D] 0.68-0.88"),
        (
            "corr(leak, threshold)",
            "",
            mean(lambda c: correlation(c["leak"], c["threshold"])),
            0.25 * 0.75,
            0.45 * 1.25,
            "[D] 0.25-0.45, +-25 %",
        ),
        (
            "gain exc, CV within quadrants",
            "",
            mean(lambda c: spread(within(c["gain_exc"]))),
            0.05,
            0.07,
            "[D] 0.06",
        ),
        (
            "corr(gain exc, gain inh)",
            "",
            mean(lambda c: correlation(c["gain_exc"], c["gain_inh"])),
            0.7,
            0.97,
            "[D] 0.7-0.97",
        ),
        (
            "corr(gain exc, gain inh) within quadrants",
            "",
            mean(lambda c: correlation(within(c["gain_exc"]), within(c["gain_inh"]))),
            0.07,
            0.42,
            "[D] 0.07-0.42",
        ),
        (
            "corr(tau_syn exc, tau_syn inh) within quadrants",
            "",
            mean(lambda c: correlation(within(c["tau_syn_exc"]), within(c["tau_syn_inh"]))),
            -0.1,
            0.1,
            "[D] about 0",
        ),
    ]
    checks += [Check(*each) for each in pairs]
    neighbours = max(
        abs(float(np.mean([correlation(within(c[name])[1:], within(c[name])[:-1]) for c in chips]))) for name in SPREADS
    )
    checks.append(Check("largest |correlation| of neighbours (mean of chips)", "", neighbours, 0, 0.1, "[D] < 0.1"))
    if len(chips) > 1:
        across = max(
            abs(correlation(within(a[name]), within(b[name])))
            for name in ("leak", "threshold", "tau_mem")
            for i, a in enumerate(chips)
            for b in chips[i + 1 :]
        )
        checks.append(Check("largest |correlation| of two chips", "", across, 0, 0.15, "[D] < 0.13"))
    return checks


def dynamics_checks(lab: Laboratory, chip: str) -> list[Check]:
    """The CADC's range, the map of potentials, and volleys."""
    lab.report(f"chip {chip}: range and volleys")
    backend = lab.open(chip)
    circuit = bench_circuit(backend.capabilities.neuron_circuits, 1, backend)
    bench = Bench(backend, circuit, lab.seed)
    quiet = bench.quiet(20, spiking=False, samples=20).codes
    full = 63 * np.ones((bench.neurons, bench.inputs), np.int64)
    fired = np.ones((8, bench.inputs), bool)
    high = bench.run(full, fired, np.zeros(8), spiking=False).codes.max(1).mean(0)
    low = bench.run(-full, fired, np.zeros(8), spiking=False).codes.min(1).mean(0)
    volley = bench.run(full, fired, np.zeros(8), spiking=True).spikes
    first = np.isfinite(_first_spikes(volley)).sum(1).min()
    rest, top, bottom = (float(np.median(x)) - 128 for x in (quiet.mean((0, 1)), high, low))
    checks = [
        Check("rest, signed CADC", "LSB", rest, -54, -36, "[C] hxtorch -45 +-20 %"),
        Check("upper end, signed CADC", "LSB", top, 80, 120, "[C] hxtorch +100 +-20 %"),
        Check("lower end, signed CADC", "LSB", bottom, -123.6, -82.4, "[C] hxtorch -103 +-20 %"),
        Check("full volley of 512 neurons, recorded (worst trial)", "spikes", float(first), 250, 512, "[C] calix"),
    ]
    backend.close()
    plain = lab.open(chip, "uncalibrated")
    for target in (40.0, 200.0):
        asked = replace(circuit.populations[0], leak=target, threshold=None)
        seen = Bench(plain, replace(circuit, populations=(asked,)), lab.seed)
        median = float(np.median(seen.quiet(12, spiking=False, samples=12).codes))
        code = (target - 20) / 200 * 480 + 70
        text = f"parameter code {code:.0f}, median potential of uncalibrated neurons"
        checks.append(Check(text, "LSB", median, target - 8, target + 8, "[C] codes 70..550 are 20..220 LSB; +-8"))
    plain.close()
    return checks


def _first_spikes(spikes: Spikes) -> Array:
    """Return the first spike time of each trial and neuron `[B, N]` (s); infinite where none."""
    times = np.full(spikes.samples * spikes.units, np.inf)
    place = (spikes.sample * spikes.units + spikes.unit).numpy()
    np.minimum.at(times, place, spikes.time.double().numpy())
    return times.reshape(spikes.samples, spikes.units)


def weight_checks(lab: Laboratory, chip: str, good: Measured) -> list[Check]:
    """Size and linearity of single potentials."""
    lab.report(f"chip {chip}: weights")
    backend = lab.open(chip)
    bench = Bench(backend, bench_circuit(backend.capabilities.neuron_circuits, 1, backend), lab.seed)
    linear = measure_linearity(bench, good.shapes, good.baseline)
    backend.close()
    caps = backend.capabilities
    peak = float(np.median(good.shapes.gain[0, 0])) * caps.synaptic_drive * 6e-6 / np.e
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


def noise_checks(good: Measured) -> list[Check]:
    """Temporal noise at the usual operating point."""
    theta = 70.0
    return [
        Check(
            "repeated reads of a quiet membrane",
            "LSB",
            float(np.median(good.baseline.sd)),
            0.7,
            1.5,
            "[E], [C] 0.7-1.5",
        ),
        Check(
            "scatter of a spike's time, strong drive",
            "ns",
            1e9 * float(np.nanmedian(good.bursts.scatter)),
            40,
            120,
            "[C]",
        ),
        Check(
            "threshold from batch to batch",
            "% of theta",
            100 * float(np.nanmedian(good.thresholds.noise)) / theta,
            1.0,
            2.0,
            "[C] DelGrad 1.5",
        ),
        Check("refractory period", "us", 1e6 * float(np.nanmedian(good.refractory)), 1.94, 2.06, "[C] 2 us +-3 %"),
    ]


def target_checks(lab: Laboratory, chip: str) -> list[Check]:
    """What needs other calibration targets."""
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
"""Neurons that fire at 100 kHz by themselves: 2 us + 10 us ln((161.7 - 80) / (161.7 - 125)) = 10 us."""


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
    none = torch.zeros(0, dtype=torch.int64)
    found = backend.run({}, Stimulus(Spikes(none, none, none.float(), trials, 0)))
    backend.close()
    return found


def _free_rates(backend: Backend, targets: Targets) -> Array:
    """Return the firing rate of every neuron without input (1 / s) `[512]`: spikes after the first, by time."""
    samples, trials = 100, 4
    spikes = _quiet(backend, targets, True, samples, trials).spikes["neurons"].ordered()
    place = (spikes.sample * spikes.units + spikes.unit).numpy()
    time = spikes.time.double().numpy()
    count = np.bincount(place, minlength=trials * spikes.units)
    first, last = np.full(len(count), np.inf), np.full(len(count), -np.inf)
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
    found = characterise(backend, _circuit_for(backend, targets, True, 1), seed).measured
    backend.close()
    distance = found.thresholds.threshold - found.baseline.leak
    return float(np.median(distance[np.isfinite(distance)]))


def _quiet_noise(backend: Backend, targets: Targets) -> float:
    codes = _quiet(backend, targets, False, 60, 20).traces["neurons"].numpy().astype(np.float64)
    return float(np.median((codes - codes.mean((0, 1))).std((0, 1))))


def merge_checks(lab: Laboratory, chip: str, good: Measured) -> list[Check]:
    """Merging two circuits: their parasitic capacitance, made up for or not."""
    alone = np.median(good.shapes.tau_mem)
    values = {}
    for corrected in (True, False):
        lab.report(f"chip {chip}: 256 merged neurons, capacitance {'corrected' if corrected else 'not corrected'}")
        backend = lab.open(chip, correct_capacitance=corrected)
        found = characterise(backend, bench_circuit(256, 2, backend), lab.seed).measured
        backend.close()
        values[corrected] = 100 * abs(float(np.median(found.shapes.tau_mem) / alone) - 1)
    return [
        Check("tau_mem of two merged circuits, off a single one's", "%", values[True], 0, 12, "[C] calix < 12 %"),
        Check("the same without corrected capacitance", "%", values[False], 24, 100, "[C] calix > 24 %"),
    ]


# hygiene: the emulator as a program


def hygiene_checks(lab: Laboratory) -> list[Check]:
    """The ideal chip is the reference neuron; recordings depend on nothing that they should not depend on."""
    lab.report("hygiene: ideal chip, batches, seeds, sub-steps")
    weights, spikes = _random_task(lab.seed)
    ideal, reference = _both(lab, weights, spikes)
    difference = (ideal.traces["hidden"].int() - reference.traces["hidden"].int()).abs().double()
    counts = [float(len(r.spikes["hidden"])) for r in (ideal, reference)]
    whole = _run(lab.open("W66F3"), weights, spikes)
    again = _run(lab.open("W66F3"), weights, spikes)
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
        Check("same seed, codes that differ", "", _differing(whole, again), 0, 0, "equality"),
        Check("split into batches of 7, codes that differ", "", _differing(whole, pieces), 0, 0, "equality"),
        Check("4x finer sub-steps, change of spike counts", "%", 100 * abs(coarse / fine - 1), 0, 1, "< 1 %"),
    ]


def _stepped(changes: dict[str, float], substeps: int) -> Backend:
    created = BackendConfig("emulator", {"substeps": substeps}).create(ChipConfig(changes=dict(changes)))
    assert created is not None
    created.open()
    return created


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
    """Run in batches of 7 trials."""
    with backend:
        backend.configure(_circuit(backend))
        clock, found = 0, []
        for piece in spikes.split(7):
            found.append(backend.run(weights, Stimulus(piece, clock)))
            clock += piece.samples
    return join(found)


def _both(lab: Laboratory, weights: dict[str, torch.Tensor], spikes: Spikes) -> tuple[Recording, Recording]:
    reference = BackendConfig("reference").create(ChipConfig())
    assert reference is not None
    return _run(lab.open("W66F3", "ideal"), weights, spikes), _run(reference, weights, spikes)


def _differing(first: Recording, second: Recording) -> float:
    """Return how many codes and spike times differ."""
    codes = sum(int((first.traces[name] != second.traces[name]).sum()) for name in first.traces)
    for name in first.spikes:
        a, b = first.spikes[name].ordered(), second.spikes[name].ordered()
        codes += abs(len(a) - len(b)) if len(a) != len(b) else int((a.time != b.time).sum() + (a.unit != b.unit).sum())
    return float(codes)


def check_rows(checks: list[Check]) -> list[tuple[str, ...]]:
    """Return the table: statistic, value, bound, verdict, source."""
    rows: list[tuple[str, ...]] = []
    for check in checks:
        bound = f"not in {check.low:.4g}..{check.high:.4g}" if check.control else f"{check.low:.4g}..{check.high:.4g}"
        verdict = "pass" if check.passed else "FAIL"
        rows.append((check.name, f"{check.value:.4g} {check.unit}".strip(), bound, verdict, check.source))
    return rows
