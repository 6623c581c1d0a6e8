"""The BrainScaleS-2 adapter, on a stand-in for hxtorch: the calls that matter, and what becomes of their results."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from backends_bench import CIRCUIT, INTERVAL, SAMPLES, SUBSTEP, WEIGHTS, population
from fake_hxtorch import CLOCK, FakeChip, make_modules, refusing_router
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hxtrain import LI, LIF, Device, Linear, Network, PlacementError
from hxtrain.backends import (
    INPUT,
    Backend,
    Circuit,
    DeviceError,
    Projection,
    Record,
    Recording,
    Spikes,
    Stimulus,
    create_backend,
)
from hxtrain.backends.brainscales2.readout import dropped_spikes, post_processed
from hxtrain.execution import place

HIDDEN, READOUT = 3, 2  # sizes of CIRCUIT's populations


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> FakeChip:
    fake = FakeChip()
    install(monkeypatch, make_modules(fake))
    return fake


@pytest.fixture
def opened(chip: FakeChip) -> Iterator[Backend]:
    with create_backend("brainscales2") as backend:
        backend.configure(CIRCUIT)
        yield backend


def install(monkeypatch: pytest.MonkeyPatch, modules: dict[str, ModuleType]) -> None:
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def stimulus(times: list[list[float]] | None = None, batch: int = 2) -> Stimulus:
    """One time per input and trial (s); by default all at the start of sample 4."""
    grid = torch.full((batch, 4), 4 * INTERVAL) if times is None else torch.tensor(times)
    return Stimulus(Spikes.from_times(grid))


def run_on(chip: FakeChip, circuit: Circuit = CIRCUIT, batch: int = 2, **chosen: Any) -> Recording:
    with create_backend("brainscales2", **chosen) as backend:
        backend.configure(circuit)
        return backend.run(WEIGHTS, stimulus(batch=batch))


# ---- the software


def test_without_the_software_the_error_says_where_to_get_it() -> None:
    backend = create_backend("brainscales2")
    assert {"backend", "chip", "chip_hash"} <= set(backend.identity)
    with pytest.raises(DeviceError, match=r"hxtorch is not installed in .*EBRAINS.*hxtrain serve"):
        backend.open()


def test_nothing_of_it_is_imported_before_open(tmp_path: Path) -> None:
    (tmp_path / "hxtorch.py").write_text("raise SystemExit('imported')")
    code = (
        "from hxtrain.backends import create_backend; b = create_backend('brainscales2'); b.identity, b.capabilities;"
        "import sys; print(sorted(name for name in sys.modules if 'hxtorch' in name or 'emulat' in name))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert process.stdout.strip() == "[]"


def test_a_module_that_the_software_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hxtorch.py").write_text("import pygrenade_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match="lacks the module 'pygrenade_that_is_not_there'"):
        create_backend("brainscales2").open()
    assert "hxtorch" not in sys.modules


def without(module: ModuleType, name: str) -> None:
    """Take a name from a module; of a class, a method or the arguments that stand for it."""
    owner, _, member = name.partition(".")
    if not member:
        delattr(module, owner)
        return
    kind = getattr(module, owner)
    inherited = {key: value for base in kind.__mro__[-2::-1] for key, value in vars(base).items() if key != member}
    if member == "neuron_structure":
        inherited["__init__"] = lambda self, size, experiment: None
    setattr(
        module, owner, type(owner, (), {k: v for k, v in inherited.items() if k not in ("__dict__", "__weakref__")})
    )


@pytest.mark.parametrize(
    ("module", "name", "text"),
    [
        ("hxtorch.spiking", "LIF", r"hxtorch.spiking has no LIF: a release of September 2025"),
        (
            "hxtorch.spiking",
            "LIF.post_process",
            r"hxtorch.spiking.LIF has no post_process: a release of September 2025",
        ),
        ("hxtorch.spiking", "LI.neuron_structure", r"hxtorch.spiking.LI has no .*neuron_structure: a release of Sep"),
        ("hxtorch.spiking", "ExecutionInstance.calibrate", r"ExecutionInstance has no calibrate: a release of Sep"),
        ("pygrenade_vx.network", "requires_routing", r"grenade has no requires_routing.*pygrenade_vx 4.5"),
    ],
)
def test_releases_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, text: str
) -> None:
    modules = make_modules(FakeChip())
    without(modules[module], name)
    install(monkeypatch, modules)
    with pytest.raises(DeviceError, match=text):
        create_backend("brainscales2").open()


def test_a_calix_that_does_not_fit_matters_only_without_a_file(chip: FakeChip, tmp_path: Path) -> None:
    sys.modules["calix.spiking"].SpikingCalibTarget = type("Target", (), {"__init__": lambda self: None})  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match="calix does not take the calibration targets"):
        create_backend("brainscales2").open()
    file = tmp_path / "chip.pbin"
    file.write_bytes(b"x")
    with create_backend("brainscales2", calibration=file) as backend:
        assert backend.identity["chip"] == chip.identifier


def test_a_release_without_spiking_networks_is_too_old_and_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = make_modules(FakeChip())
    modules["hxtorch.snn"] = modules.pop("hxtorch.spiking")
    install(monkeypatch, modules)
    with pytest.raises(DeviceError, match=r"no module hxtorch.spiking: a release of September 2025"):
        create_backend("brainscales2").open()


@pytest.mark.parametrize("tuples", [False, True], ids=["object", "tuple"])
def test_data_may_come_as_an_object_or_a_tuple(chip: FakeChip, tuples: bool) -> None:
    chip.tuples = tuples
    chip.trace = lambda size, t, b, n: 90 + size + round(t / INTERVAL)
    chip.events = {HIDDEN: [(600, 0, 1)]}
    recording = run_on(chip)
    assert recording.traces["hidden"][0, :, 0].tolist() == [90 + HIDDEN + k for k in range(SAMPLES)]
    assert recording.traces["readout"][0, :, 0].tolist() == [90 + READOUT + k for k in range(SAMPLES)]
    assert recording.spikes["hidden"].unit.tolist() == [1]


@pytest.mark.parametrize("fires", [True, False])
def test_data_of_another_form_is_refused(fires: bool) -> None:
    with pytest.raises(DeviceError, match="post-processing gave 4 values"):
        post_processed((None,) * 4, fires)


def test_software_that_does_not_fit_is_said_at_once_and_not_taken_for_a_bad_link(chip: FakeChip) -> None:
    chip.fail.append(AttributeError("'Experiment' object has no attribute 'graph'"))
    with pytest.raises(DeviceError, match=r"does not do what is asked .*'graph'.*hxtorch 1.2.3.*EBRAINS"):
        run_on(chip)
    assert chip.calls == ["init", "release"]


def test_identity_tells_chip_calibration_and_versions(chip: FakeChip, tmp_path: Path) -> None:
    hashes = []
    for content in (b"one", b"two"):
        file = tmp_path / "chip.pbin"
        file.write_bytes(content)
        with create_backend("brainscales2", calibration=file) as backend:
            identity = backend.identity
            hashes.append(identity["chip_hash"])
    assert identity["chip"] == chip.identifier
    assert identity["calibration"].startswith("chip.pbin ")
    assert (identity["version_hxtorch"], identity["version_pygrenade_vx"]) == ("1.2.3", "4.5")
    assert identity["version_calix"] == "unknown"
    assert identity["version_torch"] == torch.__version__
    assert len(set(hashes)) == 2
    assert all(isinstance(value, str) and value for value in identity.values())


def test_identity_stays_known_when_the_chip_is_closed(chip: FakeChip) -> None:
    backend = create_backend("brainscales2")
    with backend:
        identity = dict(backend.identity)
    assert dict(backend.identity) == identity
    assert identity["chip"] == chip.identifier


def test_a_calibration_file_that_changes_meanwhile_is_refused(chip: FakeChip, tmp_path: Path) -> None:
    with with_file(tmp_path, "chip.pbin") as backend:
        identity = dict(backend.identity)
        backend.configure(CIRCUIT)
        (tmp_path / "chip.pbin").write_bytes(b"another")
        assert dict(backend.identity) == identity
        with pytest.raises(ValueError, match="has changed since this backend was made"):
            backend.configure(replace(CIRCUIT, samples=8))


# ---- connection


def test_no_connection_says_what_to_set(chip: FakeChip) -> None:
    chip.fail.append(ConnectionError("nobody there"))
    backend = create_backend("brainscales2")
    with pytest.raises(DeviceError, match=r"no connection .*nobody there.*QUIGGELDY_IP"):
        backend.open()
    with backend:
        assert chip.connected


def test_close_releases_the_chip_once_and_a_process_has_one_connection(chip: FakeChip) -> None:
    first, second = create_backend("brainscales2"), create_backend("brainscales2")
    with first:
        first.open()
        with pytest.raises(DeviceError, match="one connection"):
            second.open()
        second.close()
        assert chip.connected
    first.close()
    assert chip.calls == ["init", "release"]
    with second:
        assert chip.connected
    with pytest.raises(DeviceError, match="not open"):
        first.configure(CIRCUIT)


# ---- what reaches the chip


def test_modules_are_made_as_the_circuit_asks(chip: FakeChip) -> None:
    wide = replace(CIRCUIT, populations=(replace(population("hidden", 3, True), merged=2), CIRCUIT.populations[1]))
    run_on(chip, wide, i_synin_gm=400, synapse_dac_bias=900, memory="sram")
    hidden, readout = (module.settings for module in chip.modules)
    assert [(type(m).__mro__[1].__name__, m.size) for m in chip.modules] == [("LIF", 3), ("LI", 2)]
    assert (hidden["neuron_structure"], readout["neuron_structure"]) == (("neuron", 2), ("neuron", 1))
    for settings_ in (hidden, readout):
        assert (settings_["leak"], settings_["tau_mem"], settings_["tau_syn"]) == (80, 6e-6, 6e-6)
        assert (settings_["i_synin_gm"], settings_["synapse_dac_bias"]) == (400, 900)
        assert (settings_["trace_scale"], settings_["trace_offset"], settings_["shift_cadc_to_first"]) == (1, 0, False)
        assert settings_["membrane_capacitance"] == (6e-6, 63)
        assert settings_["enable_cadc_recording"] is True
        assert settings_["enable_cadc_recording_placement_in_dram"] is False
    assert (hidden["threshold"], hidden["reset"], hidden["refractory_time"]) == (150, 80, 2e-6)
    assert "threshold" not in readout


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-63, 63), min_size=18, max_size=18))
def test_integers_arrive_as_they_are(chip: FakeChip, opened: Backend, values: list[int]) -> None:
    first = torch.tensor(values[:12], dtype=torch.int8).view(3, 4)
    second = torch.tensor(values[12:], dtype=torch.int8).view(2, 3)
    opened.run({"input->hidden": first, "hidden->readout": second}, stimulus())
    assert torch.equal(chip.runs[-1].weights[0], first.int())
    assert torch.equal(chip.runs[-1].weights[1], second.int())


def test_input_spikes_arrive_at_the_start_of_their_substep(chip: FakeChip, opened: Backend) -> None:
    nan = float("nan")
    opened.run(WEIGHTS, stimulus([[0.0, 5 * SUBSTEP, 5.9 * SUBSTEP, nan], [nan, nan, nan, 40e-6]]))
    grid = chip.runs[-1].inputs[0]
    assert grid.shape == (SAMPLES * 4, 2, 4)
    assert grid.nonzero().tolist() == [[0, 0, 0], [5, 0, 1], [5, 0, 2]]  # 40 us lies behind the window
    assert chip.runs[-1].steps == SAMPLES * 4


def test_input_spikes_that_fall_together_are_counted(chip: FakeChip, opened: Backend) -> None:
    spikes = Spikes.from_events(torch.tensor([0, 0]), torch.tensor([1, 1]), torch.tensor([2.2, 2.3]) * 1e-6, 1, 4)
    recording = opened.run(WEIGHTS, Stimulus(spikes))
    assert chip.runs[-1].inputs[0].sum() == 1
    assert recording.health.dropped_spikes == 1
    assert "1 input spikes fell together" in recording.health.notes[0]


def test_one_routing_and_one_calibration_for_many_weights(chip: FakeChip, opened: Backend, tmp_path: Path) -> None:
    for k in range(4):
        opened.run({name: w - k * (w > 0) for name, w in WEIGHTS.items()}, stimulus(batch=1 + k))
    assert len(chip.runs) == 5  # one without spikes to place, calibrate and route
    assert chip.runs[0].inputs[0].sum() == 0
    assert not chip.runs[0].weights[0].any()
    assert chip.routed == [[(4, 3), (3, 2)]]
    assert chip.calibrations == chip.runs[0].calibrations == 1
    assert opened.warnings == ()


def test_circuits_that_take_turns_stay_in_place(chip: FakeChip, opened: Backend) -> None:
    longer = replace(CIRCUIT, samples=8)
    for circuit in (longer, CIRCUIT, longer, CIRCUIT):
        opened.configure(circuit)
        assert opened.run(WEIGHTS, stimulus()).traces["hidden"].shape == (2, circuit.samples, 3)
    assert len(chip.routed) == 2


def test_the_list_of_recorded_neurons_does_not_grow(chip: FakeChip, opened: Backend) -> None:
    lengths = []
    original = sys.modules["hxtorch.spiking"].run

    def watched(experiment: Any, steps: int) -> Any:
        result = original(experiment, steps)
        lengths.append([len(entries) for entries in experiment.default_execution_instance.cadc_neurons.values()])
        return result

    sys.modules["hxtorch.spiking"].run = watched  # type: ignore[attr-defined]
    for _ in range(3):
        opened.run(WEIGHTS, stimulus())
    assert lengths == [[1] * 5] * 3


@pytest.mark.parametrize(
    ("tau", "samples", "trial_time", "period"),
    [
        (6e-6, SAMPLES, None, 200e-6),
        (6e-6, 94, None, 200e-6),
        (60e-6, SAMPLES, None, 300e-6 + SAMPLES * INTERVAL),
        (60e-6, 94, None, 300e-6 + 94 * INTERVAL),
        (6e-6, SAMPLES, 50e-6, 50e-6),
    ],
    ids=["usual", "usual, long", "slow", "slow, long", "close"],
)
def test_time_between_trials(chip: FakeChip, tau: float, samples: int, trial_time: float | None, period: float) -> None:
    slow = tuple(replace(p, tau_mem=tau) for p in CIRCUIT.populations)
    circuit = replace(CIRCUIT, populations=slow, trial_time=trial_time, samples=samples)
    recording = run_on(chip, circuit, batch=3)
    assert chip.runs[-1].wait == pytest.approx(period * CLOCK, abs=1)
    assert chip.runs[-1].gap == pytest.approx(period - samples * INTERVAL, abs=2 / CLOCK)
    if trial_time is None:
        assert chip.runs[-1].gap >= 5 * tau * (1 - 1e-9)
    assert recording.cost.chip_time == pytest.approx(3 * period)
    assert recording.cost.energy == pytest.approx(3 * period * 0.2)
    assert recording.cost.origin == "estimated"


def test_two_projections_from_the_input_have_a_handle_each(chip: FakeChip) -> None:
    skip = Projection("input->readout", INPUT, "readout", 4, 3)
    weights = {**WEIGHTS, "input->readout": torch.ones(2, 4, dtype=torch.int8)}
    with create_backend("brainscales2") as backend:
        backend.configure(replace(CIRCUIT, projections=(*CIRCUIT.projections, skip)))
        backend.run(weights, stimulus())
    assert len(chip.runs[-1].inputs) == 2
    assert sorted(tuple(w.shape) for w in chip.runs[-1].weights) == [(2, 3), (2, 4), (3, 4)]


# ---- what comes back


def test_codes_are_those_of_each_sample(chip: FakeChip) -> None:
    chip.trace = lambda size, t, b, n: 10 * round(t / INTERVAL) + 5 * n + (90 if size == READOUT else 0) - b + 1
    recording = run_on(chip)
    for name, size, extra in (("hidden", HIDDEN, 0), ("readout", READOUT, 90)):
        k = torch.arange(SAMPLES)
        b = torch.arange(2)
        n = torch.arange(size)
        expected = 10 * k[None, :, None] + 5 * n + extra - b[:, None, None] + 1
        assert recording.traces[name].dtype == torch.uint8
        assert recording.traces[name].shape == (2, SAMPLES, size)
        assert torch.equal(recording.traces[name].long(), expected)
        assert recording.traces[name].is_contiguous()
    assert recording.lost is None


def test_samples_that_lag_can_be_shifted(chip: FakeChip) -> None:
    chip.trace = lambda size, t, b, n: 20 + 8 * round(t / INTERVAL)
    chip.lag = SUBSTEP
    ramp = 20 + 8 * torch.arange(SAMPLES)
    late = run_on(chip).traces["hidden"][0, :, 0].long()
    shifted = run_on(chip, trace_shift=SUBSTEP).traces["hidden"][0, :, 0].long()
    assert torch.equal(late[1:], ramp[1:] - 2)
    assert torch.equal(shifted[:-1], ramp[:-1])
    nearest = run_on(chip, interpolation="nn")
    assert nearest.lost is None
    assert chip.modules[-1].settings["interpolation_mode"] == "nn"


def test_spikes_keep_their_clock_and_those_outside_the_window_are_left_out(chip: FakeChip) -> None:
    end = round(SAMPLES * INTERVAL * CLOCK)
    chip.events = {HIDDEN: [(1250, 1, 2), (2, 0, 0), (end - 1, 1, 0), (end, 0, 1), (-3, 0, 1)]}
    recording = run_on(chip)
    assert list(recording.spikes) == ["hidden"]
    spikes = recording.spikes["hidden"]
    assert (spikes.sample.tolist(), spikes.unit.tolist()) == ([0, 1, 1], [0, 2, 0])
    assert spikes.time.tolist() == pytest.approx([2 / CLOCK, 10e-6, (end - 1) / CLOCK])
    assert (spikes.samples, spikes.units, spikes.time.dtype) == (2, 3, torch.float32)


def test_no_trials_are_no_problem(opened: Backend) -> None:
    recording = opened.run(WEIGHTS, Stimulus(Spikes.from_times(torch.zeros(0, 4))))
    assert recording.traces["hidden"].shape == (0, SAMPLES, 3)
    assert recording.spikes["hidden"].samples == 0
    assert recording.cost.chip_time == 0


@pytest.mark.parametrize("timed", [True, False])
def test_only_requested_membranes_are_sampled(chip: FakeChip, timed: bool) -> None:
    chip.timed = timed
    chip.events = {HIDDEN: [(round(10e-6 * CLOCK), 0, 1)]}
    everything = run_on(chip)
    recording = run_on(chip, replace(CIRCUIT, record=Record(traces=("readout",))))
    assert [module.settings["enable_cadc_recording"] for module in chip.modules[-2:]] == [False, True]
    assert list(recording.traces) == ["readout"]
    assert torch.equal(recording.traces["readout"], everything.traces["readout"])
    assert torch.equal(recording.spikes["hidden"].time, everything.spikes["hidden"].time)


def test_without_membranes_nothing_is_known_of_losses(chip: FakeChip) -> None:
    with create_backend("brainscales2") as backend:
        backend.configure(replace(CIRCUIT, record=Record(traces=())))
        assert any("no membranes are recorded" in text for text in backend.warnings)
        recording = backend.run(WEIGHTS, stimulus())
    assert recording.traces == {}
    assert recording.lost is None


def test_a_chip_with_few_recorded_neurons_takes_longer_batches(chip: FakeChip) -> None:
    backend = create_backend("brainscales2")
    trials = []
    for traces in ("measured", "spikes_only"):
        net = Network(Linear(20, 90), LIF(90), Linear(90, 10), LI(10), steps=50, traces=traces)
        trials.append(place(net, backend.capabilities).trials_per_run)
    assert trials == [838, 8388]  # 4 MiB, 50 samples of 100 or of 10 neurons


# ---- what does not come back


def test_trials_with_missing_samples_are_lost(
    chip: FakeChip, opened: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    chip.extra_samples = lambda b: -2 if b == 1 else 1
    with caplog.at_level(logging.WARNING):
        recording = opened.run(WEIGHTS, stimulus(batch=3))
    assert recording.lost is not None
    assert recording.lost.tolist() == [False, True, False]
    assert "1 trials not whole" in caplog.text


def test_a_hole_in_the_samples_is_a_loss_and_a_slow_converter_is_not(chip: FakeChip, opened: Backend) -> None:
    chip.interval = 1.5 * INTERVAL
    assert opened.run(WEIGHTS, stimulus()).lost is None
    chip.interval = 2 * INTERVAL
    lost = opened.run(WEIGHTS, stimulus()).lost
    assert lost is not None
    assert lost.all()


def test_a_neuron_without_samples_fails_the_run_before_hxtorch_reads_beyond_its_memory(
    chip: FakeChip, opened: Backend
) -> None:
    chip.silent = {1}
    with pytest.raises(DeviceError, match="no trace sample arrived"):
        opened.run(WEIGHTS, stimulus())
    chip.silent = set()
    assert opened.run(WEIGHTS, stimulus()).lost is None


def test_no_samples_at_all_fail_the_run(chip: FakeChip, opened: Backend) -> None:
    chip.extra_samples = lambda b: -SAMPLES
    with pytest.raises(DeviceError, match="no trace samples of hidden"):
        opened.run(WEIGHTS, stimulus())


def test_frozen_traces_are_lost_where_times_are_not_known(chip: FakeChip) -> None:
    chip.timed = False
    wide = replace(
        CIRCUIT,
        populations=(population("hidden", 3, True), population("readout", 62, False)),
        projections=(CIRCUIT.projections[0], Projection("hidden->readout", "hidden", "readout", 3)),
    )
    chip.trace = lambda size, t, b, n: 80 + round(t / INTERVAL) % 3
    with create_backend("brainscales2") as backend:
        backend.configure(wide)
        assert "only traces that freeze" in backend.warnings[0]
        weights = {**WEIGHTS, "hidden->readout": torch.zeros(62, 3, dtype=torch.int8)}
        assert backend.run(weights, stimulus()).lost is None
        chip.extra_samples = lambda b: -6 if b else 1
        lost = backend.run(weights, stimulus(batch=3)).lost
    assert lost is not None
    assert lost.tolist() == [False, True, True]


def test_values_that_no_converter_gives_are_refused(chip: FakeChip, opened: Backend) -> None:
    chip.trace = lambda size, t, b, n: 300.0
    with pytest.raises(DeviceError, match="trace codes span"):
        opened.run(WEIGHTS, stimulus())


def test_a_failed_run_can_be_repeated_without_routing(chip: FakeChip, opened: Backend) -> None:
    chip.fail.append(RuntimeError("connection reset"))
    with pytest.raises(DeviceError, match=r"the run failed: RuntimeError: connection reset"):
        opened.run(WEIGHTS, stimulus())
    assert opened.run(WEIGHTS, stimulus()).lost is None
    assert (len(chip.routed), chip.calibrations, chip.calls) == (1, 1, ["init"])


def test_after_two_failures_the_connection_is_made_anew(chip: FakeChip, opened: Backend) -> None:
    chip.fail += [RuntimeError("a"), RuntimeError("b")]
    for _ in range(2):
        with pytest.raises(DeviceError):
            opened.run(WEIGHTS, stimulus())
    assert chip.calls == ["init", "release", "init"]
    opened.run(WEIGHTS, stimulus())
    assert (len(chip.routed), chip.calibrations) == (1, 1)


def test_another_chip_is_not_used_in_place_of_the_first(chip: FakeChip, opened: Backend) -> None:
    chip.fail += [RuntimeError("a"), RuntimeError("b")]
    with pytest.raises(DeviceError, match="RuntimeError: a"):
        opened.run(WEIGHTS, stimulus())
    chip.identifier = "another"
    with pytest.raises(DeviceError, match="chip another answers instead of hxcube7"):
        opened.run(WEIGHTS, stimulus())
    with pytest.raises(DeviceError, match="No connection"):
        opened.run(WEIGHTS, stimulus())


def test_an_interruption_leaves_the_network_usable(chip: FakeChip, opened: Backend) -> None:
    chip.fail.append(KeyboardInterrupt())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        opened.run(WEIGHTS, stimulus())
    assert opened.run(WEIGHTS, stimulus()).lost is None


def test_a_calibration_that_fails_is_not_repeated(chip: FakeChip) -> None:
    chip.uncalibrated += [RuntimeError("too few neurons succeeded")] * 2
    with pytest.raises(DeviceError, match=r"could not calibrate the chip \(RuntimeError: too few .*not tried again"):
        run_on(chip)
    assert (chip.calibrations, chip.calls) == (1, ["init", "release"])


def test_configure_tries_again_with_a_new_network(chip: FakeChip) -> None:
    chip.fail.append(RuntimeError("not yet"))
    run_on(chip)
    assert chip.calls == ["init", "release", "init", "release"]
    chip.fail += [RuntimeError("never")] * 3
    with pytest.raises(DeviceError, match=r"failed 3 times, last: RuntimeError: never"):
        run_on(chip)


@pytest.mark.parametrize(
    ("drops", "expected"),
    [
        (0, 0),
        ({0: SimpleNamespace(value=3), 1: SimpleNamespace(value=lambda: 4)}, 7),
        ([SimpleNamespace(value=1), 2], 3),
        (object(), 0),
    ],
    ids=["none", "by input", "list", "unreadable"],
)
def test_dropped_events_are_counted_and_logged(
    chip: FakeChip, opened: Backend, caplog: pytest.LogCaptureFixture, drops: Any, expected: int
) -> None:
    chip.drops = drops
    with caplog.at_level(logging.DEBUG, logger="hxtrain"):
        recording = opened.run(WEIGHTS, stimulus())
    assert recording.health.dropped_spikes == expected
    assert f"{expected or ('unknown' if drops else 0)} events dropped by the crossbar" in caplog.text


def test_counters_that_cannot_be_read_are_a_warning(chip: FakeChip) -> None:
    chip.drops = object()
    with create_backend("brainscales2") as backend:
        backend.configure(CIRCUIT)
        assert "events that the chip drops are not counted" in backend.warnings[0]


def test_counters_of_instances_without_chips() -> None:
    instance = SimpleNamespace(crossbar_input_drop_counter=[SimpleNamespace(value=2), SimpleNamespace(value=5)])
    assert dropped_spikes(SimpleNamespace(execution_instances={0: instance, 1: instance})) == 14


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"samples": 95}, r"steps=95 exceeds the 94 .*memory=dram"),
        ({"dt": 1e-6}, r"dt=1e-06 s differs from the trace interval 1.7e-06"),
        ({"trial_time": 20e-6}, r"trial_time=2e-05 s is shorter .*record fewer samples"),
        ({"forced_reset": True, "trial_time": 1e-4}, "cannot reset membranes"),
        ({"populations": (population("hidden", 600, True), CIRCUIT.populations[1])}, "602 neuron circuits"),
        (
            {"populations": (replace(population("hidden", 3, True), tau_syn=40e-6), CIRCUIT.populations[1])},
            r"hidden: tau_syn=4e-05 s is outside 3e-07..3e-05 s; change `tau_syn` of the network",
        ),
        (
            {"populations": (replace(population("hidden", 3, True), threshold=230.0), CIRCUIT.populations[1])},
            r"threshold=230 LSB is outside 50..220 LSB; change `threshold` of the device",
        ),
        ({"populations": CIRCUIT.populations[::-1]}, r"hidden->readout: hidden is not .* before readout"),
        (
            {"projections": CIRCUIT.projections[:1]},
            r"readout: nothing projects onto it",
        ),
        (
            {
                "projections": (
                    *CIRCUIT.projections,
                    Projection("again", INPUT, "hidden", 4),
                    *(Projection(f"copy{k}", INPUT, "hidden", 4) for k in range(31)),
                )
            },
            r"fan-in 132 exceeds 128; merge 2 circuits",
        ),
    ],
)
def test_circuits_that_cannot_be_realised(chip: FakeChip, opened: Backend, changes: dict[str, Any], text: str) -> None:
    runs = len(chip.runs)
    with pytest.raises(ValueError, match=text):
        opened.configure(replace(CIRCUIT, **changes))
    assert len(chip.runs) == runs
    opened.configure(CIRCUIT)
    opened.run(WEIGHTS, stimulus())


def test_long_trials_go_to_dram(chip: FakeChip) -> None:
    backend = create_backend("brainscales2", memory="dram")
    assert backend.capabilities.trace_interval == chip.interval * 6 / 1.7 == pytest.approx(6e-6)
    chip.interval = 6e-6
    with backend:
        backend.configure(replace(CIRCUIT, samples=200, dt=6e-6))
        recording = backend.run(WEIGHTS, stimulus())
    assert chip.modules[0].settings["enable_cadc_recording_placement_in_dram"] is True
    assert recording.traces["hidden"].shape == (2, 200, 3)
    assert recording.lost is None


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ({"memory": "flash"}, r"memory='flash' is not known; choose sram or dram"),
        ({"interpolation": "cubic"}, "choose linear or nn"),
        ({"substeps": 0}, "substeps=0 must be at least 1"),
        ({"trial_time": -1.0}, "trial_time=-1.0 must be positive"),
        ({"calibration": "no/such.pkl"}, r"calibration=no.such.pkl does not exist"),
        ({"hw_routing_func": "route"}, "hw_routing_func='route' names no function; write package.module:function"),
        ({"hw_routing_func": "a b:route"}, "hw_routing_func='a b:route' names no function"),
        ({"hw_routing_func": 3}, "hw_routing_func=3 names no function"),
    ],
)
def test_settings_are_checked(chosen: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        create_backend("brainscales2", **chosen)


def test_a_router_is_imported_once_a_chip_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "routers.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match="hxtorch is not installed"):
        create_backend("brainscales2", hw_routing_func="routers:route").open()
    chip = request.getfixturevalue("chip")
    with pytest.raises(ValueError, match=r"'routers:route' cannot be imported \(RuntimeError: imported\)"):
        create_backend("brainscales2", hw_routing_func="routers:route").open()
    with pytest.raises(ValueError, match=r"'fake_hxtorch:CLOCK' is a float, not a function"):
        create_backend("brainscales2", hw_routing_func="fake_hxtorch:CLOCK").open()
    assert chip.calls == ["init", "release"] * 2


@pytest.mark.parametrize("router", [refusing_router, "fake_hxtorch:refusing_router"], ids=["function", "name"])
def test_a_router_can_be_given_and_its_refusal_says_what_it_was_asked(chip: FakeChip, router: Any) -> None:
    text = r"no space left.*hidden 3 x 1 circuits.*hw_routing_func"
    with create_backend("brainscales2", hw_routing_func=router) as backend, pytest.raises(ValueError, match=text):
        backend.configure(CIRCUIT)
    assert chip.calls == ["init", "release"]  # no use in trying again


# ---- calibration files


class Microseconds:
    """A quantity as calix has them."""

    def __init__(self, value: float) -> None:
        self.value = value

    def rescale(self, unit: str) -> SimpleNamespace:
        assert unit == "s"
        return SimpleNamespace(magnitude=self.value * 1e-6)


def targets(**changes: Any) -> SimpleNamespace:
    targets = {
        "leak": 80,
        "reset": 80,
        "threshold": torch.full((512,), 150.0).numpy(),
        "tau_mem": Microseconds(6.0),
        "tau_syn": Microseconds(6.0),
        "refractory_time": Microseconds(2.0),
        "i_synin_gm": [500, 500],
        "synapse_dac_bias": 600,
    }
    return SimpleNamespace(**{**targets, **changes})


def with_file(tmp_path: Path, name: str, **chosen: Any) -> Backend:
    file = tmp_path / name
    file.write_bytes(b"x")
    return create_backend("brainscales2", calibration=file, **chosen)


def test_a_file_for_this_circuit_is_used(chip: FakeChip, tmp_path: Path) -> None:
    chip.file_target = targets()
    with with_file(tmp_path, "chip.pkl") as backend:
        backend.configure(CIRCUIT)
        assert backend.warnings == ()
    assert chip.calibrations == 0
    assert all(module.read_params_from_calibration is False for module in chip.modules)


@pytest.mark.parametrize(
    ("changes", "chosen", "text"),
    [
        (
            {"threshold": 125},
            {},
            r"hidden: threshold=150 LSB, the file has 125; set `threshold` of the device to it",
        ),
        (
            {"tau_mem": Microseconds(10.0)},
            {},
            r"readout: tau_mem=6e-06 s, the file has 1e-05; set `tau_mem` of the network",
        ),
        ({}, {"synapse_dac_bias": 900}, r"chip: synapse_dac_bias=900, the file has 600"),
    ],
)
def test_a_file_for_another_circuit_is_refused(
    chip: FakeChip, tmp_path: Path, changes: dict[str, Any], chosen: dict[str, Any], text: str
) -> None:
    chip.file_target = targets(**changes)
    with with_file(tmp_path, "chip.pkl", **chosen) as backend, pytest.raises(ValueError, match=text):
        backend.configure(CIRCUIT)
    assert not chip.runs


def test_a_file_that_tells_no_targets_is_used_with_a_warning(chip: FakeChip, tmp_path: Path) -> None:
    with with_file(tmp_path, "chip.pbin") as backend:
        backend.configure(CIRCUIT)
        assert "does not tell what it was made for" in backend.warnings[0]


def test_the_cache_of_calibrations_is_a_list_of_paths(chip: FakeChip, tmp_path: Path) -> None:
    run_on(chip, calibration_cache=str(tmp_path))
    assert chip.caches == [[tmp_path]]


def test_neurons_that_are_not_at_rest_are_reported(chip: FakeChip) -> None:
    chip.trace = lambda size, t, b, n: 0.0 if size == READOUT and n == 1 else 80.0
    chip.events = {HIDDEN: [(5, 0, 1), (9, 0, 1)]}
    with create_backend("brainscales2") as backend:
        backend.configure(CIRCUIT)
        text = "\n".join(backend.warnings)
    assert "1 of 2 neurons of readout rest outside the range" in text
    assert "1 of 3 neurons of hidden fire without input" in text


# ---- with the host


def make_net() -> Network:
    return Network(Linear(4, 3), LIF(3), Linear(3, 2), LI(2), dt=INTERVAL, steps=SAMPLES, seed=1)


def test_a_training_step_through_the_host(chip: FakeChip) -> None:
    chip.events = {HIDDEN: [(600, 0, 0), (900, 1, 2)]}
    chip.trace = lambda size, t, b, n: 80 + 9 * n + round(t / INTERVAL)
    net = make_net()
    with Device(create_backend("brainscales2")) as device:
        net.attach(device)
        output = net(stimulus().spikes).readout
        weights = list(net.parameters())
        torch.nn.functional.cross_entropy(output.amax(0), torch.tensor([0, 0])).backward()
        assert all(w.grad is not None and bool(torch.isfinite(w.grad).all()) and w.grad.any() for w in weights)
        assert device.plan is not None
        integers: dict[str, Tensor] = device.plan.quantise(weights)[0]
    for arrived, name in zip(chip.runs[-1].weights, integers, strict=True):
        assert torch.equal(arrived, integers[name].int())


def test_the_host_repeats_lost_trials(chip: FakeChip) -> None:
    net = make_net()
    tries = []
    with Device(create_backend("brainscales2")) as device:
        net.attach(device)

        def samples(b: int) -> int:
            tries.append(b)
            return -3 if b == 0 and len(chip.runs) < 3 else 1

        chip.extra_samples = samples
        integers = device.plan.quantise(list(net.parameters()))[0]  # type: ignore[union-attr]
        recording = device.record(integers, stimulus(batch=3).spikes)
    assert recording.lost is None
    assert recording.health.retries == 1
    assert [run.inputs[0].shape[1] for run in chip.runs] == [1, 3, 1]


def test_recurrent_networks_are_refused_by_placement(chip: FakeChip) -> None:
    from hxtrain import Recurrent

    with Device(create_backend("brainscales2")) as device, pytest.raises(PlacementError, match="recurrent=false"):
        device.place(Network(Linear(4, 3), LIF(3), Recurrent(3), Linear(3, 2), LI(2), dt=INTERVAL, steps=SAMPLES))
