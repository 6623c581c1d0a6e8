"""Wrappers: everything of a device is passed on, its optional abilities are kept, and runs given together are met."""

import copy
import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from backends_bench import CASES, CIRCUIT, WEIGHTS, stimulus

from hxtrain.backends import (
    Backend,
    BackendWrapper,
    Batching,
    Calibratable,
    DeviceError,
    DroppedSpikes,
    FaultyBackend,
    LostSamples,
    PartialRun,
    Recording,
    Targets,
    TimeOut,
    abilities,
    create_backend,
    supports,
)
from hxtrain.backends.abilities import ABILITIES
from hxtrain.backends.conformance.bench import difference
from hxtrain.backends.wrapper import WRAPPERS

FAULTS = (TimeOut(0.3), PartialRun(0.3), LostSamples(0.2), DroppedSpikes(0.1))


CLASS_LEVEL = {"FREE_SETTINGS"}
"""Attributes of a class, on its own keyword settings; those of the wrapped device are not settings of a wrapper."""


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")} - CLASS_LEVEL


def test_everything_of_the_contract_is_passed_on() -> None:
    assert public(Backend) <= public(BackendWrapper)
    assert list(ABILITIES) == list(WRAPPERS)
    for name, ability in ABILITIES.items():
        assert public(ability) <= public(WRAPPERS[name])


def test_every_optional_ability_is_passed_on() -> None:
    kinds = [kind for kind in vars(abilities).values() if getattr(kind, "__module__", "") == abilities.__name__]
    assert {*ABILITIES.values()} == {kind for kind in kinds if inspect.isabstract(kind)}


@pytest.mark.parametrize(
    "wrap", [BackendWrapper, lambda device: FaultyBackend(device, FAULTS)], ids=["plain", "faulty"]
)
@pytest.mark.parametrize("name", ["emulator", "reference", "remote"])
def test_a_wrapper_can_do_what_its_device_can(name: str, wrap) -> None:
    device = create_backend(name, **({"address": "tcp://127.0.0.1:1"} if name == "remote" else {}))
    for wrapper in (wrap(device), wrap(wrap(device)), copy.copy(wrap(device))):
        for ability in ABILITIES:
            assert supports(wrapper, ability) == supports(device, ability)  # type: ignore[call-overload]
        if name != "remote":  # there is no server to ask
            assert replace(wrapper.capabilities, deterministic=True) == device.capabilities
        assert wrapper.torch_device == device.torch_device
        assert type(wrapper).__name__ == type(wrap(device)).__name__
        assert not inspect.isabstract(type(wrapper))


@pytest.mark.parametrize("faults", [(), FAULTS], ids=["none", "faults"])
def test_a_faulty_link_takes_batches_as_a_chip_does(faults) -> None:
    assert FaultyBackend(create_backend("emulator"), faults).takes_any_batch is not bool(faults)


def test_a_calibration_goes_through_a_faulty_link(tmp_path: Path) -> None:
    device = FaultyBackend(create_backend("emulator", chip="W66F3"), FAULTS)
    assert isinstance(device, Calibratable)
    with device:
        outcomes = device.calibrate(Targets(), tmp_path / "chip.npz", stages=["cadc"])
        assert device.read_reference(100.0, 3).shape == (3, 512)
    assert outcomes
    assert (tmp_path / "chip.npz").exists()


class Halved(BackendWrapper):
    """Runs that meet hooks."""

    def map_weights(self, weights):
        return {name: matrix // 2 for name, matrix in weights.items()}

    def map_recording(self, recording, stimulus):
        return replace(recording, lost=torch.arange(stimulus.spikes.samples) == 0)


class HalvedRun(BackendWrapper):
    """A `run` of its own."""

    def run(self, weights, stimulus) -> Recording:
        if stimulus.clock == 3:
            raise DeviceError("nothing arrived")
        recording = super().run({name: matrix // 2 for name, matrix in weights.items()}, stimulus)
        return replace(recording, lost=torch.arange(stimulus.spikes.samples) == 0)


@pytest.mark.parametrize("kind", [Halved, HalvedRun])
def test_what_a_wrapper_does_to_runs_it_does_to_runs_given_together(kind: type[BackendWrapper]) -> None:
    together = kind(CASES["emulator-uncalibrated"].make())
    assert isinstance(together, Batching)
    with together:
        together.configure(CIRCUIT)
        stimuli = [stimulus(3, clock) for clock in (0, 3, 6)]
        outcomes = together.run_all(WEIGHTS, stimuli)
        for stimulus_run, outcome in zip(stimuli, outcomes, strict=True):
            if kind is HalvedRun and stimulus_run.clock == 3:
                assert isinstance(outcome, DeviceError)
                continue
            assert isinstance(outcome, Recording)
            assert outcome.lost is not None
            assert difference(outcome, together.run(WEIGHTS, stimulus_run)) is None


def outcome_of(work) -> Recording | str:
    try:
        return work()
    except DeviceError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(4))
def test_faults_of_runs_given_together_are_those_of_each_alone_and_of_its_repeats(seed: int) -> None:
    alone, together = (FaultyBackend(CASES["emulator-uncalibrated"].make(), FAULTS, seed) for _ in range(2))
    stimuli = [stimulus(3, clock) for clock in (9, 12, 15, 18)]
    with alone, together:
        for device in (alone, together):
            device.configure(CIRCUIT)
        expected = [[outcome_of(lambda s=s: alone.run(WEIGHTS, s)) for _ in range(3)] for s in stimuli]
        assert isinstance(together, Batching)
        first = together.run_all(WEIGHTS, stimuli)
        repeats = [[outcome_of(lambda s=s: together.run(WEIGHTS, s)) for _ in range(2)] for s in stimuli]
    for outcomes, begin, repeat in zip(expected, first, repeats, strict=True):
        for expected_outcome, outcome in zip(
            outcomes, [str(begin) if isinstance(begin, DeviceError) else begin, *repeat], strict=True
        ):
            if isinstance(expected_outcome, str) or isinstance(outcome, str):
                assert expected_outcome == outcome
                continue
            assert difference(expected_outcome, outcome) is None
            assert (expected_outcome.lost is None) == (outcome.lost is None)
            if expected_outcome.lost is not None and outcome.lost is not None:
                assert torch.equal(expected_outcome.lost, outcome.lost)
