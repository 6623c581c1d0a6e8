"""Cost of realism: time of a run of an emulated chip with and without each of its features.

All variants are timed in turns in one process, so that other work on the machine affects them alike.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Backend, Spikes, Stimulus
from hxtrain.execution import place
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.metrics import write_json
from hxtrain.runs.process import tuned
from hxtrain.runs.versions import versions

from .config import BenchConfig
from .rounds import Report, in_turns, ratios, spread
from .workload import INIT_MEAN, Workload

CLOSE = 40e-6
"""Time between trials in the variant of close trials (s)."""


class Variant(NamedTuple):
    """A feature: its name, and the settings of a chip without and with it."""

    name: str
    off: dict[str, Any]
    on: dict[str, Any]


class Timing(NamedTuple):
    """Times of one variant: medians (s) without and with the feature, and the median of their ratios."""

    name: str
    off: float
    on: float
    ratio: float
    low: float
    high: float


def variants(chip: str) -> list[Variant]:
    """Return all variants; the first compares a chip with itself, which shows the error of the method."""

    def without(**changes: Any) -> dict[str, Any]:
        return {"changes": changes}

    chips = "+".join([chip, *(f"{chip}-{i}" for i in range(5))])
    return [
        Variant("nothing (error of the method)", {}, {}),
        Variant("membrane noise", without(membrane_noise=0.0), {}),
        Variant("CADC noise", without(cadc_noise=0.0), {}),
        Variant("threshold noise", without(threshold_noise=0.0), {}),
        Variant("spike jitter", without(spike_jitter=0.0), {}),
        Variant("sampling phase", without(sampling_phase=0.0), {}),
        Variant("CADC skew", without(cadc_skew=0.0), {}),
        Variant("loss of recorded spikes", without(spike_capacity=None), {}),
        Variant("synaptic saturation", without(synapse_saturation=None), {}),
        Variant("rails", without(rails=None), {}),
        Variant("drift", {}, without(drift_sd=0.4)),
        Variant("stuck weight bits", {}, {"faults": {"stuck_bits": 0.001}}),
        Variant("dead neurons", {}, {"faults": {"dead_neurons": 0.05}}),
        Variant("population of 6 chips", {"preset": "uncalibrated"}, {"preset": "uncalibrated", "chip": chips}),
        Variant("close trials", {}, {"trial_time": CLOSE}),
        Variant("close trials, forced reset", {}, {"trial_time": CLOSE, "forced_reset": True}),
        Variant("all imperfections", {"preset": "ideal"}, {}),
    ]


def bench_realism(
    config: BenchConfig, folder: Path, command: str, report: Report = lambda count, total: None
) -> list[Timing]:
    """Time every feature of an emulated chip in turns; write `bench.json` into `folder`.

    Args:
        config: All settings.
        folder: Folder of `bench.json`.
        command: Command that started the benchmark, for the record.
        report: Called with the number of finished rounds and the number of all rounds.
    """
    pairs = variants(config.chip.name)
    with tuned(config.threads), ExitStack() as stack:
        spikes = Workload(stack, config.batch).spikes
        works = {
            (v.name, on): _run(stack, config.chip.name, settings, spikes)
            for v in pairs
            for on, settings in ((False, v.off), (True, v.on))
        }
        times = in_turns(works, config.rounds, report)
    timings = [_timing(v.name, times[v.name, False], times[v.name, True]) for v in pairs]
    write_json(
        folder / "bench.json",
        {
            "realism": [timing._asdict() for timing in timings],
            "chip": config.chip.name,
            "batch": config.batch,
            "rounds": config.rounds,
            "command": command,
            "versions": versions(),
        },
    )
    return timings


def _run(stack: ExitStack, chip: str, settings: dict[str, Any], spikes: Spikes) -> Callable[[], object]:
    """Open a device and return the timed function: one run with newly written weights."""
    options = dict(settings)
    trial_settings = {name: options.pop(name) for name in ("trial_time", "forced_reset") if name in options}
    name = options.pop("chip", chip)
    device = BackendConfig("emulator").create(replace(ChipConfig(name=name), **options))
    assert device is not None
    backend: Backend = stack.enter_context(device)
    net = NetworkConfig(init_mean=INIT_MEAN).build(spikes.units, 10, seed=0)
    plan = place(net, backend.capabilities, **trial_settings, max_runs=1)
    backend.configure(plan.circuit)
    integers, _ = plan.quantise(net.effective_weights())

    def work() -> object:
        copies: dict[str, Tensor] = {name: weight.clone() for name, weight in integers.items()}
        with torch.no_grad():
            return backend.run(copies, Stimulus(spikes))

    return work


def _timing(name: str, off: list[float], on: list[float]) -> Timing:
    return Timing(name, spread(off).middle, spread(on).middle, *ratios(on, off))


def timing_rows(timings: list[Timing]) -> list[tuple[str, ...]]:
    """Return the table: feature, median times without and with it, ratio and its quartiles."""
    return [
        (t.name, f"{1e3 * t.off:.1f} ms", f"{1e3 * t.on:.1f} ms", f"{t.ratio:.2f}", f"{t.low:.2f}..{t.high:.2f}")
        for t in timings
    ]
