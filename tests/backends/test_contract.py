"""What the contract's parts can hold, and the form of what a device returns."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from backends_bench import CIRCUIT, WEIGHTS, stimulus

from hxtrain.backends import (
    CLOCK_END,
    DeviceError,
    Recording,
    Spikes,
    Stimulus,
    check_circuit,
    check_recording,
    check_run,
    create_backend,
)
from hxtrain.backends.chips import BRAINSCALES2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "text", None])
@pytest.mark.parametrize(
    "name",
    ["trace_interval", "timestamp_resolution", "synaptic_drive", "leak", "threshold", "reset", "refractory", "speedup"],
)
def test_capabilities_are_finite_numbers(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"capabilities of 'brainscales2'.* {name}=.* must be a finite number"):
        replace(BRAINSCALES2, **{name: value})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"weight_max": 2**15}, "weight_max=32768 must be a whole number >= 1 and <= 32767"),
        ({"weight_max": 0}, "weight_max=0 must be a whole number >= 1"),
        ({"weight_max": 63.0}, "weight_max=63 must be a whole number"),
        ({"weight_max": True}, "weight_max=True must be"),
        ({"inputs_per_circuit": 0}, "inputs_per_circuit=0 must be a whole number >= 1"),
        ({"neuron_circuits": -1}, "neuron_circuits=-1"),
        ({"trace_bits": 9}, "trace_bits=9 must be a whole number >= 1 and <= 8"),
        ({"trace_memory": 0}, "trace_memory=0 must be a whole number >= 1, or None"),
        ({"trace_memory": -1}, "trace_memory=-1"),
        ({"trace_interval": 1.7}, "the unit is the second"),
        ({"synaptic_drive": 0.0}, "synaptic_drive=0 must be a finite number > 0"),
        ({"spike_interval": 0.0}, "spike_interval=0 s must be a finite number > 0, or None"),
        ({"power": -1.0}, "power=-1 W"),
        ({"threshold": 80.0}, "leak and reset must be below the threshold"),
        ({"reset": 151.0}, "leak and reset must be below the threshold"),
        ({"threshold": 256.0}, r"within the codes of 8 trace_bits, 0\.\.255"),
        ({"tau_range": (1e-6, math.nan)}, "two ascending times"),
        ({"tau_range": (2e-6, 1e-6)}, "two ascending times"),
        ({"timestamp_resolution": 1e-5}, "timestamp_resolution=1e-05 s <= trace_interval"),
        ({"trial_time": 1e-7}, "trial_time=1e-07 s must hold"),
        ({"traces": 1}, "traces=1 must be True or False"),
        ({"name": ""}, "name='' must be a text"),
    ],
)
def test_capabilities_out_of_range_are_named(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        replace(BRAINSCALES2, **changes)


def test_everything_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"weight_max=0 .*; trace_interval=nan .*"):
        replace(BRAINSCALES2, weight_max=0, trace_interval=math.nan)


@pytest.mark.parametrize(("weight_max", "kind"), [(63, "int8"), (127, "int8"), (128, "int16"), (32767, "int16")])
def test_weights_have_the_smallest_type_that_holds_them(weight_max: int, kind: str) -> None:
    assert str(replace(BRAINSCALES2, weight_max=weight_max).weight_type) == f"torch.{kind}"


@pytest.mark.parametrize("name", ["leak", "threshold", "reset", "tau_mem", "tau_syn", "refractory"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_population_of_no_numbers_is_refused(name: str, value: float) -> None:
    hidden = replace(CIRCUIT.populations[0], **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"population hidden: {name}=(nan|inf)"):
        check_circuit(replace(CIRCUIT, populations=(hidden, CIRCUIT.populations[1])), BRAINSCALES2)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"dt": math.nan}, "circuit.dt=nan s"),
        ({"trial_time": math.nan}, "circuit.trial_time=nan s"),
        ({"samples": 2.0}, "circuit.samples=2 must be a whole number"),
        ({"inputs": -1}, "circuit.inputs=-1"),
        ({"projections": (CIRCUIT.projections[0],) * 2}, "projections need different names"),
    ],
)
def test_a_circuit_of_no_numbers_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_circuit(replace(CIRCUIT, **changes), BRAINSCALES2)


@pytest.mark.parametrize("clock", [-1, CLOCK_END, CLOCK_END - 1, 2**59, 2**62, 1.5, math.nan, True])
def test_clocks_are_bounded_for_every_device(clock: Any) -> None:
    with pytest.raises(ValueError, match=r"clock=.* with 2 trials must be a whole number in 0..2\^53 - 2"):
        stimulus(2, clock)


@pytest.mark.parametrize("name", ["emulator", "reference"])
def test_the_last_clock_runs(name: str) -> None:
    with create_backend(name, **({"preset": "uncalibrated"} if name == "emulator" else {})) as device:
        device.configure(CIRCUIT)
        assert device.run(WEIGHTS, stimulus(2, CLOCK_END - 2)).clock == CLOCK_END - 2


@pytest.mark.parametrize("kind", [torch.complex64, torch.bool, torch.uint8, torch.float16])
def test_weights_are_signed_integers(kind: torch.dtype) -> None:
    weights = {**WEIGHTS, "input->hidden": torch.ones(3, 4).to(kind)}
    with pytest.raises(ValueError, match=r"weights of input->hidden: expected integers \(3, 4\)"):
        check_run(CIRCUIT, weights, stimulus(), 63)


def recording(**changes: Any) -> Recording:
    """Return a recording of two trials with two spikes, with other parts."""
    with create_backend("reference") as device:
        device.configure(CIRCUIT)
        return replace(device.run(WEIGHTS, stimulus(2, 7)), **changes)


def events(**changes: Any) -> dict[str, Spikes]:
    parts = {"sample": torch.tensor([0, 1]), "unit": torch.tensor([0, 1]), "time": torch.tensor([1e-6, 2e-6])}
    return {"hidden": Spikes.trusted(**{**parts, "samples": 2, "units": 3, **changes})}


def test_a_good_recording_is_taken() -> None:
    good = recording()
    for variant in (good, replace(good, clock=None), replace(good, spikes=events())):
        assert check_recording(CIRCUIT, variant, stimulus(2, 7)) is variant


@pytest.mark.parametrize("part", ["sample", "unit", "time"])
@pytest.mark.parametrize("length", [0, 1, 3])
def test_events_whose_parts_differ_in_length_are_refused(part: str, length: int) -> None:
    kind = torch.float32 if part == "time" else torch.int64
    wrong = recording(spikes=events(**{part: torch.zeros(length, dtype=kind)}))
    with pytest.raises(DeviceError, match=r"spikes\.(sample|unit) of hidden: expected int64 \(\d,\), got torch.int64"):
        check_recording(CIRCUIT, wrong, stimulus(2, 7))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (None, "returned NoneType, not a Recording"),
        ({}, "returned dict"),
        (lambda: recording(cost=None), "cost and health: expected Cost and Health, got NoneType"),
        (lambda: recording(health=None), "got Cost and NoneType"),
        (lambda: recording(clock=6), "the recording is of the run at clock 6, not of the one at clock 7"),
        (lambda: recording(traces={}), "traces of hidden: expected uint8 .* got none"),
        (lambda: recording(spikes={}), "spikes of hidden are missing or of the wrong size"),
        (lambda: recording(spikes=events(samples=3)), "expected 2 trials of 3 units, got 3 trials of 3 units"),
        (lambda: recording(spikes=events(unit=torch.zeros(2))), "spikes.unit of hidden: expected int64"),
        (lambda: recording(spikes=events(time=torch.zeros(2, 1))), "spikes.time|spikes.sample"),
        (lambda: recording(spikes=events(time=None)), "spikes.sample of hidden"),
        (lambda: recording(lost=torch.zeros(2)), r"lost trials: expected torch.bool \(2,\)"),
    ],
)
def test_a_recording_of_another_form_is_refused(wrong: Any, text: str) -> None:
    with pytest.raises(DeviceError, match=text):
        check_recording(CIRCUIT, wrong() if callable(wrong) else wrong, stimulus(2, 7))


def test_a_neuron_cannot_fire_more_often_than_is_said() -> None:
    """Leak above threshold, no refractory period: a spike in every sub-step."""
    hidden = replace(CIRCUIT.populations[0], leak=200.0, threshold=100.0, reset=99.0)
    none = torch.zeros(0)
    quiet = Stimulus(Spikes(none.long(), none.long(), none, 3, 4))
    for name, settings in (
        ("emulator", {"preset": "ideal"}),
        ("emulator", {"preset": "ideal", "substeps": 7}),
        ("reference", {}),
    ):
        for refractory in (0.0, 0.3e-6, 0.6e-6, 2e-6, 3.3e-6):
            population = replace(hidden, refractory=refractory)
            with create_backend(name, **settings) as device:
                device.configure(replace(CIRCUIT, populations=(population, CIRCUIT.populations[1])))
                fired = len(device.run(WEIGHTS, quiet).spikes["hidden"])
                limit = 3 * device.capabilities.most_spikes(population, CIRCUIT.duration)
            assert 0.4 * limit < fired <= limit, (name, refractory)
