"""The conformance suite: our devices pass, and for every check there is a device that fails it."""

import re
import sys

import pytest
import torch
from conformance_mutants import MUTANTS, Mutant, all_recorded, codes, events, every_weight, shifted, transposed
from fake_hxtorch import FakeChip, make_modules
from remote_bench import PATIENT, serving

from hxtrain.backends import DroppedSpikes, FaultyBackend, LostSamples, TimeOut, create_backend
from hxtrain.backends.conformance import ANALOG, CHECKS, IDEAL, UNCALIBRATED, Tolerances, asks, run_suite, verify
from hxtrain.backends.remote import RemoteBackend

DEVICES = {
    "reference": (lambda: create_backend("reference"), IDEAL, 5),
    "reference-8-bit": (lambda: create_backend("reference", weight_max=255), IDEAL, 4),
    "reference-15-bit": (lambda: create_backend("reference", weight_max=32767), IDEAL, 5),
    "emulator-ideal": (lambda: create_backend("emulator", preset="ideal"), IDEAL, 3),
    "emulator-calibrated": (lambda: create_backend("emulator"), ANALOG, 3),
    "emulator-uncalibrated": (lambda: create_backend("emulator", preset="uncalibrated"), UNCALIBRATED, 3),
    "emulator-faulty": (
        lambda: FaultyBackend(create_backend("emulator"), [DroppedSpikes(0.05), TimeOut(0.05), LostSamples(0.01)], 3),
        ANALOG,
        5,
    ),
}


@pytest.mark.parametrize("name", DEVICES)
def test_our_devices_pass(name):
    make, tolerances, inapplicable = DEVICES[name]
    results = run_suite(make(), tolerances)
    assert [result.name for result in results] == list(CHECKS)
    assert {result.name: result.text for result in results if result.verdict == "fail"} == {}
    assert sum(result.verdict == "not applicable" for result in results) == inapplicable
    assert all(result.text for result in results)


def test_a_served_device_passes():
    with serving(create_backend("emulator")) as server:
        results = run_suite(RemoteBackend(server.address, **PATIENT), ANALOG)
    assert {result.name: result.text for result in results if result.verdict == "fail"} == {}
    assert sum(result.verdict == "pass" for result in results) == len(CHECKS) - 3


def test_the_adapter_of_the_physical_chip_keeps_the_form(monkeypatch):
    """On a stand-in for the vendor's software, which has no physics."""
    for name, module in make_modules(FakeChip()).items():
        monkeypatch.setitem(sys.modules, name, module)
    names = [name for name, check in CHECKS.items() if check.__module__.endswith(("description", "refusals"))]
    results = run_suite(create_backend("brainscales2"), ANALOG, names=names)
    assert {result.name: result.text for result in results if result.verdict == "fail"} == {}
    assert sum(result.verdict == "pass" for result in results) == len(names) - 1


def test_every_check_has_a_device_that_fails_it():
    assert list(MUTANTS) == list(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_a_wrong_device_fails(name):
    make, text = MUTANTS[name]
    result = verify(name, make())
    assert result.verdict == "fail", result.text
    assert re.search(text, result.text), result.text


def test_a_selective_device_records_nothing_else():
    greedy = {"circuit": all_recorded}
    selective = verify("requested_data_are_recorded", Mutant(**greedy))
    assert selective.text.endswith(
        "asked for spikes of all and traces of none: a selective device recorded traces of neurons, readout"
    )
    assert verify("requested_data_are_recorded", Mutant({"selective": False}, **greedy)).verdict == "pass"


def test_no_device_has_plasticity_yet():
    assert "plasticity=True, for which" in verify("abilities_have_their_methods", Mutant({"plasticity": True})).text


ON_ANALOG = {
    "weights_arrive_in_their_place": {"weights": every_weight(transposed)},
    "weights_keep_their_sign": {"weights": every_weight(torch.abs)},
    "weights_keep_their_size": {"weights": every_weight(lambda w: w.div(4, rounding_mode="trunc"))},
    "single_steps_of_weight_count": {"weights": every_weight(lambda w: w.div(2, rounding_mode="trunc") * 2)},
    "potentials_have_time_and_shape": {"recording": codes(shifted)},
    "strong_inputs_make_spikes": {"recording": events(lambda s: type(s)(s.sample, s.unit * 0, s.time, *size(s)))},
    "trials_keep_their_order": {"recording": codes(lambda c: c.flip(0))},
}


def size(spikes):
    return spikes.samples, spikes.units


@pytest.mark.parametrize("name", ON_ANALOG)
def test_a_wrong_analog_device_fails_in_spite_of_wide_tolerances(name):
    result = verify(name, Mutant(**ON_ANALOG[name], inner=create_backend("emulator")), ANALOG)
    assert result.verdict == "fail", result.text


def test_exclusions_need_a_known_check_and_a_reason():
    excluded = {"weights_of_zero_are_quiet": "the lab's chip has a firing neuron"}
    names = ["rest_is_the_leak", "weights_of_zero_are_quiet"]
    results = run_suite(MUTANTS[names[1]][0](), IDEAL, excluded, names)
    assert [(r.verdict, r.text) for r in results[1:]] == [("excluded", "the lab's chip has a firing neuron")]
    assert results[0].verdict == "pass"
    with pytest.raises(ValueError, match="needs a reason"):
        run_suite(create_backend("reference"), exclude=dict.fromkeys(excluded, " "))
    with pytest.raises(ValueError, match="checks rest_is_leak are not known; there are: capabilities_are"):
        run_suite(create_backend("reference"), names=["rest_is_leak"])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"weight": -0.1}, "tolerances.weight=-0.1 must not be negative"),
        ({"share": 0.0}, "tolerances.share=0.0 must be in 0 < x <= 1"),
        ({"trials": 0}, "tolerances.trials=0 must be at least 1"),
    ],
)
def test_tolerances_are_checked(settings, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        Tolerances(**settings)


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_says_in_a_sentence_what_it_asks_for(name):
    assert asks(CHECKS[name]).endswith(".")
    assert len(asks(CHECKS[name])) < 150


def test_a_device_that_always_fails_is_not_retried_for_ever():
    dead = FaultyBackend(create_backend("reference"), [TimeOut(1.0)])
    result = verify("rest_is_the_leak", dead)
    assert "raised DeviceError: the device did not answer in time (injected fault 'timeout'), 6 times" in result.text
