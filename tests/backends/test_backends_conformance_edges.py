"""The conformance suite at its edges: chips that are small, coarse, without traces, or off by exactly the tolerance."""

from dataclasses import replace

import pytest
import torch
from backends_bench import CIRCUIT, WEIGHTS, stimulus

from hxtrain.backends import BackendWrapper, FaultyBackend, check_circuit, check_run, create_backend, join
from hxtrain.backends.conformance import IDEAL, TOLERANCES, Tolerances, run_suite, verify
from hxtrain.commands.conformance import ToleranceSettings, bounds


class Limited(BackendWrapper):
    """The reference device with other limits, which it keeps."""

    def __init__(self, **limits):
        super().__init__(create_backend("reference"))
        self.limits = limits
        self.circuit = None

    @property
    def capabilities(self):
        return replace(super().capabilities, **self.limits)

    def configure(self, circuit):
        check_circuit(circuit, self.capabilities)
        super().configure(circuit)
        self.circuit = circuit

    def close(self):
        self.circuit = None
        super().close()

    def run(self, weights, stimulus):
        check_run(self.circuit, weights, stimulus, self.capabilities.weight_max)
        return super().run(weights, stimulus)

    def map_recording(self, recording, stimulus):
        return recording if self.capabilities.traces else replace(recording, traces={})


@pytest.mark.parametrize(
    "limits",
    [
        {"inputs_per_circuit": 4},
        {"inputs_per_circuit": 10, "max_merged": 2},
        {"inputs_per_circuit": 1, "max_merged": 1},
        {"neuron_circuits": 1},
        {"neuron_circuits": 2},
        {"neuron_circuits": 3},
        {"neuron_circuits": 8, "inputs_per_circuit": 16},
        {"max_merged": 1, "neuron_circuits": 4},
        {"weight_max": 1},
        {"weight_max": 2},
        {"weight_max": 7, "inputs_per_circuit": 64},
        {"max_samples": 4},
        {"max_samples": 12},
        {"traces": False},
        {"traces": False, "trace_memory": 1000},
        {"traces": False, "deterministic": False},
        {"trace_memory": 4000, "trace_channels": 8},
    ],
    ids=lambda limits: " ".join(f"{key}={value}" for key, value in limits.items()),
)
def test_a_device_with_other_limits_has_no_failure_of_the_suites_own(limits):
    results = run_suite(Limited(**limits), IDEAL)
    assert {result.name: result.text for result in results if result.verdict == "fail"} == {}
    assert not any("nan" in result.text for result in results), [r.text for r in results if "nan" in r.text]
    assert sum(result.verdict == "pass" for result in results) >= 3


class Late(Limited):
    """Takes samples late by a time (s): events come earlier by it."""

    def __init__(self, delay):
        super().__init__()
        self.delay = delay

    def map_stimulus(self, stimulus):
        return replace(stimulus, spikes=replace(stimulus.spikes, time=stimulus.spikes.time + self.delay))


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_delay_of_exactly_the_tolerance_passes_and_a_larger_one_does_not(sign):
    interval = create_backend("reference").capabilities.trace_interval
    for share, verdict in ((0.1, "pass"), (0.4, "fail")):
        bounds_ = Tolerances(sample=0.1, shape=0.2)
        result = verify("potentials_have_time_and_shape", Late(sign * share * interval), bounds_)
        assert result.verdict == verdict, result.text


@pytest.mark.parametrize("offset", [1, 3])
@pytest.mark.parametrize("name", ["rest_is_the_leak", "weights_of_zero_are_quiet"])
def test_an_offset_of_exactly_the_tolerance_passes(name, offset):
    class Offset(Limited):
        def map_recording(self, recording, stimulus):
            return replace(recording, traces={key: codes + offset for key, codes in recording.traces.items()})

    assert verify(name, Offset(), Tolerances(rest=float(offset))).verdict == "pass"
    assert verify(name, Offset(), Tolerances(rest=offset - 0.1)).verdict == "fail"


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("reference", {}, "ideal"),
        ("emulator", {"preset": "ideal"}, "ideal"),
        ("emulator", {}, "analog"),
        ("emulator", {"preset": "uncalibrated"}, "uncalibrated"),
        ("brainscales2", {}, "analog"),
        ("remote", {"address": "tcp://127.0.0.1:1"}, "analog"),
    ],
)
def test_a_device_names_its_tolerances_and_single_ones_can_be_chosen(name, settings, expected):
    for device in (create_backend(name, **settings), FaultyBackend(create_backend(name, **settings), [])):
        assert bounds(ToleranceSettings(), device) == TOLERANCES[expected]
        assert bounds(ToleranceSettings(weight=0.25, trials=3), device) == replace(
            TOLERANCES[expected], weight=0.25, trials=3
        )


def test_tolerances_that_are_not_known_are_refused():
    class Odd(Limited):
        tolerances = "odd"

    with pytest.raises(ValueError, match="tolerances='odd' are not known; one of ideal, analog, uncalibrated"):
        bounds(ToleranceSettings(), Odd())


def test_pieces_without_traces_are_joined_with_their_losses():
    with Limited(traces=False) as device:
        device.configure(CIRCUIT)
        piece = device.run(WEIGHTS, stimulus(2))
    whole = join([piece, replace(piece, lost=torch.tensor([False, True]))])
    assert whole.lost is not None
    assert whole.lost.tolist() == [False, False, False, True]
