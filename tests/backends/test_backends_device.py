"""The host's half of a run: splitting, retries, and checks of what a device returned."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hxtrain import LI, LIF, Device, Linear, Network, PlacementError
from hxtrain.backends import (
    Backend,
    BackendWrapper,
    Capabilities,
    Cost,
    DeviceError,
    Health,
    Recording,
    Spikes,
    Stimulus,
    create_backend,
    join,
)
from hxtrain.backends.recording import QueueTimeoutError
from hxtrain.execution.repeats import Arrivals

INPUTS = 6
HIDDEN = 5
OUTPUTS = 3
STEPS = 20


def make_net() -> Network:
    return Network(Linear(INPUTS, HIDDEN, mean=0.25), LIF(HIDDEN), Linear(HIDDEN, OUTPUTS), LI(OUTPUTS), steps=STEPS)


def make_spikes(batch: int) -> Spikes:
    rng = torch.Generator().manual_seed(1)
    return Spikes.from_times(torch.rand(batch, INPUTS, generator=rng) * 15e-6)


class Faulty(BackendWrapper):
    """The reference device behind a fault: fails its first `failures` runs, or damages its recordings."""

    def __init__(self, failures: int = 0, damage: Callable[[Recording], Recording] = lambda r: r) -> None:
        super().__init__(create_backend("reference"))
        self.failures, self.damage = failures, damage
        self.clocks: list[int] = []

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, trace_memory=4 * STEPS * 256)  # four trials per run

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        self.clocks.append(stimulus.clock)
        if len(self.clocks) <= self.failures:
            raise DeviceError(f"link lost at attempt {len(self.clocks)}")
        return self.damage(super().run(weights, stimulus))


def attached(backend: Backend, retries: int = 5) -> tuple[Device, Network]:
    device = Device(backend, retries)
    net = make_net()
    device.place(net)
    return device, net


def run(device: Device, net: Network, batch: int = 3) -> Recording:
    assert device.plan is not None
    integers, _ = device.plan.quantise(net.effective_weights())
    return device.record(integers, make_spikes(batch))


def equal(a: Recording, b: Recording) -> bool:
    assert list(a.spikes) == list(b.spikes) == ["layer0"]
    actual, expected = a.spikes["layer0"], b.spikes["layer0"]
    return all(torch.equal(a.traces[name], b.traces[name]) for name in ("layer0", "layer1")) and all(
        torch.equal(getattr(actual, part), getattr(expected, part)) for part in ("sample", "unit", "time")
    )


@pytest.mark.parametrize("preset", ["ideal", "calibrated"])
def test_splitting_into_the_trace_memory_changes_nothing(preset: str) -> None:
    device, net = attached(create_backend("emulator", preset=preset))
    assert device.plan is not None
    assert device.plan.trials_per_run == 25  # 131072 bytes, 20 samples, 256 channels
    device.clock = 70
    recording = run(device, net, batch=60)
    assert device.clock == 130
    integers, _ = device.plan.quantise(net.effective_weights())
    whole = device.backend.run(integers, Stimulus(make_spikes(60), 70))
    assert len(recording.spikes["layer0"]) > 20
    assert equal(recording, whole)
    assert recording.cost.chip_time == pytest.approx(whole.cost.chip_time)
    assert recording.cost.energy == pytest.approx(whole.cost.energy)


def test_pieces_carry_their_place_on_the_clock() -> None:
    backend = Faulty()
    device, net = attached(backend)
    recording = run(device, net, batch=10)
    assert backend.clocks == [0, 4, 8]
    assert recording.traces["layer1"].shape == (10, STEPS, OUTPUTS)
    assert recording.spikes["layer0"].samples == 10
    assert recording.cost.energy is None  # unknown stays unknown
    run(device, net, batch=2)
    assert backend.clocks == [0, 4, 8, 10]


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_failed_runs_are_repeated(failures: int, caplog: pytest.LogCaptureFixture) -> None:
    backend = Faulty(failures)
    device, net = attached(backend, retries=3)
    with caplog.at_level(logging.WARNING):
        recording = run(device, net)
    assert recording.health.retries == failures
    assert backend.clocks == [0] * (failures + 1)  # the same trials, not later ones
    assert device.clock == 3
    assert len(caplog.records) == failures
    clean, _ = attached(Faulty())
    assert equal(recording, run(clean, net))


def test_retries_of_pieces_add_up() -> None:
    backend = Faulty(2)
    device, net = attached(backend)
    activity = device.run(net.effective_weights(), make_spikes(10))
    assert activity.health.retries == 2
    assert backend.clocks == [0, 0, 0, 4, 8]


@pytest.mark.parametrize("retries", [0, 2])
def test_a_device_that_always_fails(retries: int) -> None:
    backend = Faulty(100)
    device, net = attached(backend, retries)
    text = (
        rf"a run of 3 trials failed {retries + 1} times, last: link lost at attempt {retries + 1}\. "
        "No result of it was used; check the device"
    )
    with pytest.raises(DeviceError, match=text):
        run(device, net)
    assert len(backend.clocks) == retries + 1
    assert device.clock == 0


@pytest.mark.parametrize("error", [OSError("usb gone"), TimeoutError(), ZeroDivisionError("a bug"), KeyError("x")])
def test_whatever_a_driver_raises_is_a_failure_of_the_device(error: Exception) -> None:
    def broken(recording: Recording) -> Recording:
        raise error

    backend = Faulty(damage=broken)
    device, net = attached(backend, retries=2)
    with pytest.raises(DeviceError, match=f"failed 3 times, last: the device could not run: {type(error).__name__}: "):
        run(device, net)
    assert len(backend.clocks) == 3


@pytest.mark.parametrize("error", [ValueError("weights reach 100"), QueueTimeoutError("no chip for 3600 s")])
def test_what_a_repetition_does_not_help_is_not_repeated(error: Exception) -> None:
    def refusing(recording: Recording) -> Recording:
        raise error

    backend = Faulty(damage=refusing)
    device, net = attached(backend)
    with pytest.raises(type(error), match=f"^{error}$"):
        run(device, net)
    assert len(backend.clocks) == 1


def test_a_run_that_does_not_come_back_is_given_up() -> None:
    arrival = threading.Event()

    def hanging(recording: Recording) -> Recording:
        arrival.wait(30)
        return recording

    backend = Faulty(damage=hanging)
    device = Device(backend, run_timeout=0.2)
    net = make_net()
    device.place(net)
    text = r"a run of 3 trials on 'reference': it has not come back after 0.2 s; the device or its driver hangs"
    with pytest.raises(DeviceError, match=text):
        run(device, net)
    assert len(backend.clocks) == 1
    with pytest.raises(DeviceError, match="it has still not come back"):
        run(device, net)
    assert len(backend.clocks) == 1
    arrival.set()
    assert device.session._watch is not None
    assert device.session._watch._hanging is not None
    device.session._watch._hanging[0].join()
    backend.damage = lambda recording: recording
    assert equal(run(device, net), run(attached(Faulty())[0], net))


def test_a_watched_device_fails_and_records_like_any_other() -> None:
    device = Device(Faulty(failures=1), run_timeout=60.0)
    net = make_net()
    device.place(net)
    recording = run(device, net)
    assert recording.health.retries == 1
    assert equal(recording, run(attached(Faulty())[0], net))
    with pytest.raises(ValueError, match="run_timeout=-1 must be positive"):
        Device(Faulty(), run_timeout=-1)


def impossible(**parts: Tensor) -> Callable[[Recording], Recording]:
    def damage(recording: Recording) -> Recording:
        spikes = recording.spikes["layer0"]
        return replace(recording, spikes={"layer0": Spikes.trusted(**{**vars(spikes), **parts})})

    return damage


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"unit": torch.tensor([0])}, r"spikes.unit of layer0: expected int64"),
        ({"time": torch.tensor([[0.0]])}, r"spikes.\w+ of layer0: expected"),
        (
            {"sample": torch.tensor([0]), "unit": torch.tensor([5]), "time": torch.tensor([0.0])},
            r"spikes of layer0: event 0 of 1 has sample 0, unit 5",
        ),
        (
            {"sample": torch.tensor([0]), "unit": torch.tensor([0]), "time": torch.tensor([torch.nan])},
            r"spikes of layer0: event 0 of 1 has .* time nan s",
        ),
    ],
)
def test_spikes_that_no_trial_can_have_are_a_failed_run(parts: dict[str, Tensor], text: str) -> None:
    device, net = attached(Faulty(damage=impossible(**parts)), retries=0)
    with pytest.raises(DeviceError, match=text):
        run(device, net)


def without(recording: Recording, name: str) -> Recording:
    return replace(recording, traces={k: v for k, v in recording.traces.items() if k != name})


def changed(recording: Recording, name: str, change: Callable[[Tensor], Tensor]) -> Recording:
    return replace(recording, traces={**recording.traces, name: change(recording.traces[name])})


def fewer_trials(recording: Recording) -> Recording:
    spikes = recording.spikes["layer0"]
    return replace(recording, spikes={"layer0": Spikes.trusted(spikes.sample, spikes.unit, spikes.time, 2, HIDDEN)})


NO_SPIKES = "spikes of layer0 are missing or of the wrong size"
DAMAGE: dict[str, tuple[Callable[[Recording], Recording], str]] = {
    "no traces": (
        lambda r: replace(r, traces={}),
        r"traces of layer0: expected uint8 \(3, 20, 5\), got none",
    ),
    "one trace missing": (
        lambda r: without(r, "layer1"),
        r"traces of layer1: expected uint8 \(3, 20, 3\), got none",
    ),
    "short trace": (
        lambda r: changed(r, "layer1", lambda codes: codes[:, :-1]),
        r"layer1: expected .*, got torch.uint8 \(3, 19, 3\)",
    ),
    "trial missing": (
        lambda r: changed(r, "layer0", lambda codes: codes[1:]),
        r"layer0: .*, got torch.uint8 \(2, 20, 5\)",
    ),
    "wrong type": (lambda r: changed(r, "layer0", Tensor.float), r"got torch.float32 \(3, 20, 5\)"),
    "lost trials of another run": (
        lambda r: replace(r, lost=torch.zeros(2, dtype=torch.bool)),
        r"lost trials: expected torch.bool \(3,\), got torch.bool \(2,\)",
    ),
    "no spikes": (lambda r: replace(r, spikes={}), NO_SPIKES),
    "spikes of fewer trials": (fewer_trials, NO_SPIKES),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_recording_that_is_not_whole_is_refused(case: str) -> None:
    damage, text = DAMAGE[case]
    backend = Faulty(damage=damage)
    device, net = attached(backend, retries=1)
    with pytest.raises(DeviceError, match=f"failed 2 times, last: .*{text}"):
        run(device, net)
    assert len(backend.clocks) == 2


def test_a_damaged_recording_is_repeated() -> None:
    recordings: list[Recording] = []

    def drop_first(recording: Recording) -> Recording:
        recordings.append(recording)
        return replace(recording, traces={}) if len(recordings) == 1 else recording

    device, net = attached(Faulty(damage=drop_first))
    assert run(device, net).health.retries == 1


class Lossy(BackendWrapper):
    """The emulated chip behind a link that loses, run by run, the scripted trials; a text is an error.

    What it records of a lost trial is wrong: no spikes, and codes of 255.
    """

    takes_any_batch = False

    def __init__(self, *script: list[int] | str) -> None:
        super().__init__(create_backend("emulator"))
        self.script = list(script)
        self.requests: list[tuple[int, int]] = []

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, trace_memory=8 * STEPS * 256)  # eight trials per run

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        self.requests.append((stimulus.clock, stimulus.spikes.samples))
        fate = self.script.pop(0) if self.script else []
        if isinstance(fate, str):
            raise DeviceError(fate)
        recording = super().run(weights, stimulus)
        lost = torch.zeros(stimulus.spikes.samples, dtype=torch.bool)
        lost[fate] = True
        for codes in recording.traces.values():
            codes[lost] = 255
        spikes = recording.spikes["layer0"]
        mask = ~lost[spikes.sample]
        spikes = replace(spikes, sample=spikes.sample[mask], unit=spikes.unit[mask], time=spikes.time[mask])
        return replace(recording, spikes={"layer0": spikes}, lost=lost, health=Health(dropped_spikes=1))


MENDED: dict[str, tuple[list[list[int] | str], list[tuple[int, int]]]] = {
    "nothing lost": ([], [(0, 8)]),
    "one trial": ([[3]], [(0, 8), (3, 1)]),
    "first and last": ([[0, 7]], [(0, 8), (0, 8)]),
    "the end, then one of it": ([[5, 6, 7], [1]], [(0, 8), (5, 3), (6, 1)]),
    "all, then some, then others than the missing": ([list(range(8)), [1, 4], [1, 2]], [(0, 8), (0, 8), (1, 4)]),
    "a time-out between": ([[2, 4], "time-out"], [(0, 8), (2, 3), (2, 3)]),
    "a time-out first": (["time-out", [6]], [(0, 8), (0, 8), (6, 1)]),
}


@pytest.mark.parametrize("case", MENDED)
def test_lost_trials_are_repeated_and_whole_ones_kept(case: str) -> None:
    script, requests = MENDED[case]
    backend = Lossy(*script)
    device, net = attached(backend)
    recording = run(device, net, batch=8)
    clean, _ = attached(Lossy())
    expected = run(clean, net, batch=8)
    assert backend.requests == requests
    assert equal(recording, expected)
    assert len(expected.spikes["layer0"]) > 5
    assert recording.lost is None or not recording.lost.any()
    assert recording.health == Health(
        dropped_spikes=len(requests) - script.count("time-out"), retries=len(requests) - 1
    )
    trials = sum(count for _, count in requests)  # a time-out is charged like a run of its trials
    assert recording.cost.chip_time == pytest.approx(expected.cost.chip_time * trials / 8)
    assert recording.cost.energy == pytest.approx(expected.cost.energy * trials / 8)
    assert device.clock == 8


def test_every_piece_is_mended() -> None:
    backend = Lossy([0], [7], "no link", [], "time-out")
    device, net = attached(backend)
    recording = run(device, net, batch=20)
    assert backend.requests == [(0, 8), (8, 8), (16, 4), (0, 1), (15, 1), (15, 1), (16, 4)]  # first all, then repeats
    assert recording.health.retries == 4
    clean, _ = attached(Lossy())
    assert equal(recording, run(clean, net, batch=20))


def test_trials_that_stay_lost_are_an_error() -> None:
    device, net = attached(Lossy([1, 3, 5], [0, 2], [0, 2]), retries=2)
    text = (
        r"a run of 8 trials failed 3 times, last: 2 of 8 trials did not arrive whole \(trials 1, 3 of the run\)\. "
        "No result of it was used; check the device, or allow more repeats than backend.retries=2"
    )
    with pytest.raises(DeviceError, match=text):
        run(device, net, batch=8)
    device, net = attached(Lossy(list(range(8)), "time-out"), retries=1)
    text = r"last: time-out; 8 of 8 trials did not arrive whole \(trials 0, 1, 2, 3, 4, 5, 6, 7 of the run\)"
    with pytest.raises(DeviceError, match=text):
        run(device, net, batch=8)


def test_many_missing_trials_are_named_in_short() -> None:
    arrivals = Arrivals(Stimulus(make_spikes(20)), independent=True)
    assert arrivals.describe(None).startswith("20 of 20 trials did not arrive whole (trials 0, 1, 2, 3, 4, 5, 6, 7, ")
    assert arrivals.describe(None).endswith("7, ... of the run)")


def test_trials_that_follow_closely_are_repeated_from_the_first() -> None:
    """A trial that meets what the one before left behind is only the same after the same trials."""

    def close(backend: Lossy) -> Recording:
        device, net = attached(backend)
        assert device.plan is not None
        device.plan = replace(device.plan, circuit=replace(device.plan.circuit, trial_time=36e-6))
        backend.configure(device.plan.circuit)
        return run(device, net, batch=8)

    backend = Lossy([3, 5])
    recording = close(backend)
    assert backend.requests == [(0, 8), (0, 6)]
    assert equal(recording, close(Lossy()))
    device, net = attached(Lossy())
    assert not equal(recording, run(device, net, batch=8))  # they do meet the rest of the previous trial


def test_joined_recordings_know_their_lost_trials() -> None:
    device, net = attached(Lossy())
    whole = replace(run(device, net, batch=2), lost=None)
    broken = replace(whole, lost=torch.tensor([False, True]))
    assert join([whole, whole]).lost is None
    lost = join([whole, broken]).lost
    assert lost is not None
    assert lost.tolist() == [False, False, False, True]


@pytest.mark.parametrize("energy", [None, 2.0])
def test_unknown_energy_stays_unknown_over_repeats(energy: float | None) -> None:
    def priced(recording: Recording) -> Recording:
        return replace(recording, cost=Cost(1.0, energy, "measured"))

    device, net = attached(Faulty(failures=2, damage=priced))
    assert run(device, net).cost == Cost(3.0, None if energy is None else 6.0, "estimated")


def test_device_opens_and_closes_its_backend() -> None:
    device, net = attached(create_backend("reference"))
    with device:
        device.place(net)
        assert run(device, net).traces["layer0"].shape == (3, STEPS, HIDDEN)
    with pytest.raises(DeviceError, match="the device is closed; open it again"):
        run(device, net)
    with device:  # which is then configured once more
        assert run(device, net).traces["layer0"].shape == (3, STEPS, HIDDEN)


def test_device_refuses() -> None:
    with pytest.raises(ValueError, match="retries=-1 must not be negative"):
        Device(create_backend("reference"), retries=-1)
    with pytest.raises(DeviceError, match=r"no network is placed on the device; call net.attach\(device\) first"):
        Device(create_backend("reference")).record({}, make_spikes(1))


def test_a_network_that_does_not_fit_leaves_the_device_as_it_was() -> None:
    device, net = attached(create_backend("reference"))
    previous = run(device, net)
    device.max_runs = 1
    with pytest.raises(PlacementError, match=r"615 neuron circuits .* exceed 512 by 103"):
        device.place(Network(Linear(4, 600), LIF(600), Linear(600, 3), LI(3)))
    assert equal(run(device, net), previous)


def test_membranes_are_in_units_of_the_threshold() -> None:
    device, net = attached(create_backend("reference"))
    activity = device.run(net.effective_weights(), make_spikes(3))
    hidden, readout = activity.layers
    assert hidden.spikes is not None
    assert hidden.spikes.shape == hidden.trace.shape == (STEPS, 3, HIDDEN)
    assert readout.spikes is None
    assert torch.all(hidden.trace[0] == 0)  # each trace starts at its own leak
    recording = run(device, net)
    codes = recording.traces["layer0"].transpose(0, 1).float()
    assert torch.allclose(hidden.trace, (codes - 80) / (150 - 80))
