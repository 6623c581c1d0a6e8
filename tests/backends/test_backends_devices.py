"""Every registered device keeps the contract."""

import pytest
import torch
from backends_bench import (
    CASES,
    CIRCUIT,
    READOUT_ONLY,
    SAMPLES,
    SUBSTEP,
    WEIGHTS,
    Case,
    configured,
    first_times,
    rows,
    stimulus,
)

from hxtrain import emulator
from hxtrain.backends import Capabilities, DeviceError, Recording, Spikes, Stimulus, available_backends, create_backend

ALL = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def equal(a: Recording, b: Recording) -> bool:
    return all(torch.equal(a.traces[name], b.traces[name]) for name in a.traces) and all(
        rows(a.spikes[name]) == rows(b.spikes[name]) for name in a.spikes
    )


NOT_ALONE = {"brainscales2", "remote", "replay"}
"""Devices that need a chip's software, a server or a recorded run; they have tests of their own."""


def test_the_table_has_every_registered_device() -> None:
    tested = {case.make().identity["backend"] for case in CASES.values()}
    registered = {name for name, point in available_backends().items() if point.value.startswith("hxtrain.")}
    assert tested == registered - NOT_ALONE


@ALL
def test_identity_and_capabilities_are_known_before_open(case: Case) -> None:
    backend = case.make()
    assert {"backend", "chip", "chip_hash"} <= set(backend.identity)
    assert all(isinstance(value, str) and value for value in backend.identity.values())
    assert dict(backend.identity) == dict(case.make().identity)
    caps = backend.capabilities
    assert isinstance(caps, Capabilities)
    assert caps.name == backend.identity["backend"]
    assert caps.neuron_circuits == 512
    assert caps.inputs_per_circuit * caps.max_merged >= 256
    assert caps.weight_max == 63
    assert 0 <= caps.reset < caps.threshold < 2**caps.trace_bits


def test_presets_and_chips_have_their_own_hash() -> None:
    hashes = [
        CASES[f"emulator-{name}"].make().identity["chip_hash"] for name in ("ideal", "calibrated", "uncalibrated")
    ]
    assert len(set(hashes)) == 3


@ALL
def test_shapes_and_types_of_a_recording(case: Case) -> None:
    with case.make() as backend:
        backend.configure(CIRCUIT)
        recording = backend.run(WEIGHTS, stimulus(batch=3))
    assert list(recording.traces) == ["hidden", "readout"]
    for name, size in (("hidden", 3), ("readout", 2)):
        assert recording.traces[name].shape == (3, SAMPLES, size)
        assert recording.traces[name].dtype == torch.uint8
    assert list(recording.spikes) == ["hidden"]  # a readout has no spikes
    spikes = recording.spikes["hidden"]
    assert (spikes.samples, spikes.units) == (3, 3)
    assert (spikes.sample.dtype, spikes.unit.dtype, spikes.time.dtype) == (
        torch.int64,
        torch.int64,
        torch.float32,
    )
    assert torch.all(torch.diff(spikes.sample) >= 0)
    assert float(spikes.time.min()) >= 0
    assert {0, 1} <= set(spikes.unit.tolist()) if case.ideal else len(spikes) > 0
    assert recording.cost.chip_time == pytest.approx(3 * backend.capabilities.trial_time)
    assert recording.cost.origin == "estimated"
    assert recording.health.retries == 0


@ALL
@pytest.mark.parametrize("weight", [-40, 0, 40])
def test_integers_arrive(case: Case, weight: int) -> None:
    backend = configured(case, READOUT_ONLY)
    matrix = torch.tensor([[weight, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.int8)
    codes = backend.run({"input->readout": matrix}, stimulus(batch=20)).traces["readout"].double()
    swing = (codes - codes[:, :1]).mean(0)
    extreme = float(swing[swing[:, 0].abs().argmax(), 0])
    if case.ideal:
        assert torch.all(swing[:, 1] == 0)
        assert extreme == pytest.approx(weight / 2, abs=1 if weight else 0)
    else:
        assert float(swing[:, 1].abs().max()) < 1.5  # noise of the mean over trials
        if weight:
            assert 0.5 < extreme / (weight / 2) < 2
        else:
            assert abs(extreme) < 1.5


@ALL
def test_on_chip_events_reach_the_readout_with_the_sign_of_their_weight(case: Case) -> None:
    backend = configured(case)
    strong = {**WEIGHTS, "input->hidden": torch.full((3, 4), 63, dtype=torch.int8)}
    strong["hidden->readout"] = torch.tensor([[30, 30, 30], [-30, -30, -30]], dtype=torch.int8)
    codes = backend.run(strong, stimulus(batch=8)).traces["readout"].double()
    swing = (codes - codes[:, :1]).mean(0)
    assert float(swing[:, 0].max()) > 15
    assert float(swing[:, 1].min()) < -15


@ALL
def test_repeated_open_and_close(case: Case) -> None:
    backend = case.make()
    first = None
    for _ in range(3):
        with backend:
            backend.configure(CIRCUIT)
            recording = backend.run(WEIGHTS, stimulus())
        first = first or recording
        assert equal(recording, first)
    backend.close()
    with pytest.raises(DeviceError, match=r"not configured; call configure\(circuit\) before run"):
        backend.run(WEIGHTS, stimulus())


@ALL
def test_run_before_configure(case: Case) -> None:
    with (
        case.make() as backend,
        pytest.raises(DeviceError, match=r"not configured; call configure\(circuit\) before run"),
    ):
        backend.run(WEIGHTS, stimulus())


@ALL
def test_equal_clocks_give_equal_recordings(case: Case) -> None:
    assert case.make().capabilities.deterministic
    backend = configured(case)
    first = backend.run(WEIGHTS, stimulus(clock=5))
    backend.run(WEIGHTS, stimulus(clock=11))
    assert equal(backend.run(WEIGHTS, stimulus(clock=5)), first)
    assert equal(configured(case).run(WEIGHTS, stimulus(clock=5)), first)


@ALL
def test_noise_follows_the_clock(case: Case) -> None:
    backend = configured(case)
    runs = [backend.run(WEIGHTS, stimulus(clock=clock)) for clock in (0, 1)]
    assert equal(*runs) == case.ideal


@ALL
@pytest.mark.parametrize(
    "weights",
    [
        {"input->hidden": WEIGHTS["input->hidden"]},
        {**WEIGHTS, "hidden->readout": torch.ones(2, 5, dtype=torch.int8)},
    ],
    ids=["a projection is missing", "wrong shape"],
)
def test_usable_after_an_error(case: Case, weights: dict[str, torch.Tensor]) -> None:
    backend = configured(case)
    expected = backend.run(WEIGHTS, stimulus())
    with pytest.raises((KeyError, ValueError, RuntimeError)):
        backend.run(weights, stimulus())
    assert equal(backend.run(WEIGHTS, stimulus()), expected)


@ALL
def test_another_circuit_replaces_the_first(case: Case) -> None:
    backend = configured(case, READOUT_ONLY)
    backend.configure(CIRCUIT)
    assert equal(backend.run(WEIGHTS, stimulus()), configured(case).run(WEIGHTS, stimulus()))


@ALL
def test_trials_without_events(case: Case) -> None:
    empty = torch.full((2, 4), torch.inf)
    recording = configured(case).run(WEIGHTS, Stimulus(Spikes.from_times(empty)))
    assert len(recording.spikes["hidden"]) == 0
    codes = recording.traces["readout"].double()
    assert float((codes - codes.mean(1, keepdim=True)).abs().max()) < 6


def test_ideal_emulator_and_reference_agree() -> None:
    names = ("emulator-ideal", "reference")
    rng = torch.Generator().manual_seed(0)
    times = torch.randint(0, 40, (20, 4), generator=rng) * SUBSTEP  # the reference moves events to sub-steps
    inputs = Stimulus(Spikes.from_times(times))
    weights = {"input->readout": torch.randint(-63, 64, (2, 4), generator=rng).to(torch.int8)}
    traces = [configured(CASES[name], READOUT_ONLY).run(weights, inputs).traces["readout"].double() for name in names]
    inside = (traces[1] > 0) & (traces[1] < 255)
    assert float((traces[0] - traces[1]).abs()[inside].max()) <= 2
    assert float(traces[1].std()) > 5

    recordings = [configured(CASES[name]).run(WEIGHTS, inputs) for name in names]
    first = [first_times(recording.spikes["hidden"]) for recording in recordings]
    assert torch.equal(torch.isnan(first[0]), torch.isnan(first[1]))
    mask = torch.isfinite(first[0])
    assert int(mask.sum()) >= 10
    assert float((first[0] - first[1])[mask].abs().max()) < 0.6e-6


def test_the_emulators_limits_are_those_of_its_physics() -> None:
    caps = create_backend("emulator").capabilities
    assert caps.neuron_circuits == emulator.CIRCUITS
    assert caps.inputs_per_circuit == emulator.ROWS_PER_CIRCUIT
    assert caps.weight_max == emulator.WEIGHT_MAX
    assert caps.trace_interval == emulator.CADC_INTERVAL
    assert caps.timestamp_resolution == emulator.TIMESTAMP_RESOLUTION
    assert caps.synaptic_drive == emulator.SYNAPTIC_DRIVE
