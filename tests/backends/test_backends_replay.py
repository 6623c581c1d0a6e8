"""Recorded runs: what a recorder writes is what a replay gives, and everything else is refused by name."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from backends_bench import CIRCUIT, WEIGHTS

from hxtrain.backends import (
    BackendWrapper,
    Circuit,
    DeviceError,
    FaultyBackend,
    Health,
    LostSamples,
    Record,
    Recording,
    Spikes,
    Stimulus,
    create_backend,
)
from hxtrain.backends.conformance import TOLERANCES, run_suite
from hxtrain.backends.replay import ArchiveError, Recorder, ReplayBackend, ReplayError

SPIKES = Spikes.from_times(
    torch.tensor([[3.0, 2.0, 1.0, 2.5], [1.0, 1.1, 1.2, 1.3], [9.0, torch.inf, 2.0, 1.0]]) * 1e-6
)


def stimulus(clock: int = 0) -> Stimulus:
    return Stimulus(SPIKES, clock)


def recorded(
    archive: Path, circuit: Circuit = CIRCUIT, clocks: tuple[int, ...] = (0, 3), **settings: Any
) -> list[Recording]:
    with Recorder(create_backend("emulator", **settings), archive) as backend:
        backend.configure(circuit)
        return [backend.run(WEIGHTS, stimulus(clock)) for clock in clocks]


def replay(archive: Path, circuit: Circuit = CIRCUIT) -> ReplayBackend:
    backend = create_backend("replay", archive=str(archive))
    assert isinstance(backend, ReplayBackend)
    backend.open()
    backend.configure(circuit)
    return backend


def assert_same(first: Recording, second: Recording) -> None:
    assert first.traces.keys() == second.traces.keys()
    assert first.spikes.keys() == second.spikes.keys()
    assert all(torch.equal(codes, second.traces[name]) for name, codes in first.traces.items())
    for name, spikes in first.spikes.items():
        twin = second.spikes[name]
        assert (spikes.samples, spikes.units) == (twin.samples, twin.units)
        assert all(torch.equal(getattr(spikes, part), getattr(twin, part)) for part in ("sample", "unit", "time"))
    assert (first.cost, first.health, first.clock) == (second.cost, second.health, second.clock)
    assert (first.lost is None) == (second.lost is None)
    assert first.lost is None or torch.equal(first.lost, second.lost)  # type: ignore[arg-type]


def test_a_replay_gives_what_was_recorded_in_any_order(tmp_path: Path) -> None:
    live = recorded(tmp_path)
    backend = replay(tmp_path)
    assert_same(live[1], backend.run(WEIGHTS, stimulus(3)))
    assert_same(live[0], backend.run(WEIGHTS, stimulus()))
    assert len(live[0].spikes["hidden"]) > 0


def test_a_recorder_changes_nothing_and_a_replay_tells_its_origin(tmp_path: Path) -> None:
    plain = create_backend("emulator")
    recorder = Recorder(create_backend("emulator"), tmp_path)
    with plain, recorder:
        for backend in (plain, recorder):
            backend.configure(CIRCUIT)
        assert_same(plain.run(WEIGHTS, stimulus()), recorder.run(WEIGHTS, stimulus()))
        assert (recorder.identity, recorder.capabilities) == (plain.identity, plain.capabilities)
    backend = replay(tmp_path)
    assert backend.identity == {**plain.identity, "backend": "replay", "recorded_on": "emulator"}
    assert backend.capabilities == replace(plain.capabilities, calibration=False, batching=False)
    assert (backend.tolerances, backend.warnings) == (plain.tolerances, plain.warnings)
    assert repr(backend) == f"ReplayBackend('{tmp_path}', recorded on emulator)"


def test_runs_that_a_device_takes_at_once_are_recorded_one_by_one(tmp_path: Path) -> None:
    with Recorder(create_backend("emulator"), tmp_path) as backend:
        backend.configure(CIRCUIT)
        live = backend.run_all(WEIGHTS, [stimulus(), stimulus(3)])  # type: ignore[attr-defined]
    replays = replay(tmp_path)
    assert_same(live[0], replays.run(WEIGHTS, stimulus()))
    assert_same(live[1], replays.run(WEIGHTS, stimulus(3)))


def test_lost_trials_and_notes_are_recorded(tmp_path: Path) -> None:
    class Noting(BackendWrapper):
        def map_recording(self, recording: Recording, stimulus: Stimulus) -> Recording:
            return replace(recording, health=Health(2, 1, ("first line\nsecond line",)))

    faulty = FaultyBackend(Noting(create_backend("reference")), [LostSamples(0.5)], seed=1)
    with Recorder(faulty, tmp_path) as backend:
        backend.configure(CIRCUIT)
        live = [backend.run(WEIGHTS, stimulus()) for _ in range(4)]
    assert len({tuple(run.lost.tolist()) for run in live if run.lost is not None}) > 1
    replays = replay(tmp_path)
    for run in [*live, live[-1]]:
        assert_same(run, replays.run(WEIGHTS, stimulus()))


def test_of_several_sessions_the_last_one_counts(tmp_path: Path) -> None:
    recorded(tmp_path, seed=1)
    live = recorded(tmp_path, clocks=(3,), seed=2)
    first = replay(tmp_path).run(WEIGHTS, stimulus(3))
    assert_same(live[0], first)
    assert_same(recorded(tmp_path / "other", seed=1)[0], replay(tmp_path).run(WEIGHTS, stimulus()))


def test_a_part_of_what_was_recorded_can_be_requested(tmp_path: Path) -> None:
    live = recorded(tmp_path)[0]
    readout = replace(CIRCUIT, record=Record(traces=("readout",)))
    part = replace(live, traces={"readout": live.traces["readout"]})
    assert_same(part, replay(tmp_path, readout).run(WEIGHTS, stimulus()))
    recorded(tmp_path / "readout", readout)
    with pytest.raises(ReplayError, match="at clock 0 membranes or spikes of hidden were not recorded"):
        replay(tmp_path / "readout").run(WEIGHTS, stimulus())


REFUSALS: list[tuple[Callable[[ReplayBackend], object], str]] = [
    (lambda b: b.run(WEIGHTS, stimulus(7)), r"there is none at clock 7 \(it has 2 runs, at clocks 0 to 3\)"),
    (
        lambda b: b.run({**WEIGHTS, "input->hidden": WEIGHTS["input->hidden"] // 2}, stimulus()),
        "at clock 0 weights of input->hidden differ from the recorded ones in 9 of 12 synapses, by up to 32",
    ),
    (
        lambda b: b.run(WEIGHTS, Stimulus(Spikes(SPIKES.sample, SPIKES.unit, SPIKES.time + 1e-6, 3, 4))),
        "11 of 11 events of the stimulus differ from the recorded ones, the first in trial 0: input 0 at 4e-06 s",
    ),
    (
        lambda b: b.run(WEIGHTS, Stimulus(SPIKES[:2])),
        "the stimulus has 2 trials of 4 inputs with 8 events, the recorded one 3 trials of 4 inputs with 11 events",
    ),
    (
        lambda b: b.configure(replace(CIRCUIT, samples=8)),
        "no run of this circuit: samples=8 instead of the recorded 16",
    ),
    (
        lambda b: b.configure(
            replace(CIRCUIT, populations=(replace(CIRCUIT.populations[0], tau_mem=7e-6), CIRCUIT.populations[1]))
        ),
        "hidden: tau_mem=7e-06 instead of the recorded 6e-06",
    ),
]


@pytest.mark.parametrize(("ask", "text"), REFUSALS, ids=[text[:40] for _, text in REFUSALS])
def test_what_was_not_recorded_is_refused_with_the_difference(
    tmp_path: Path, ask: Callable[[ReplayBackend], object], text: str
) -> None:
    recorded(tmp_path)
    with pytest.raises(ReplayError, match=f"(?s){text}.*A replay gives what was measured"):
        ask(replay(tmp_path))


KILLED = """
import os, signal, sys
import torch
from backends_bench import CIRCUIT, WEIGHTS
from hxtrain.backends import create_backend
from hxtrain.backends.replay import Recorder
from test_backends_replay import stimulus
with Recorder(create_backend("reference"), sys.argv[1]) as backend:
    backend.configure(CIRCUIT)
    for clock in range(0, 9999, 3):
        backend.run(WEIGHTS, stimulus(clock))
        print(clock, flush=True)
"""


def test_what_a_killed_process_recorded_stays_readable(tmp_path: Path) -> None:
    """The process is killed in the middle of its work; every run that it reported is there."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        lines = [next(process.stdout) for _ in range(4)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    backend = replay(tmp_path)
    with create_backend("reference") as device:
        device.configure(CIRCUIT)
        for clock in map(int, lines):
            assert_same(device.run(WEIGHTS, stimulus(clock)), backend.run(WEIGHTS, stimulus(clock)))


def damage(archive: Path) -> None:
    file = next((archive / "001").glob("000001-*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    file.write_bytes(content)


def forget_circuit(archive: Path) -> None:
    (archive / "001" / "circuit-001.h5").unlink()


def change_version(archive: Path) -> None:
    import h5py

    with h5py.File(archive / "001" / "device.h5", "r+") as file:
        text = file["text"].asstr()[()].replace('"version": 1', '"version": 2')
        del file["text"]
        file["text"] = text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (damage, "000001-.* is damaged .*; record it again"),
        (forget_circuit, "has no run of this circuit: it has no runs at all"),
        (change_version, "has the form 2, this hxtrain reads 1; install a later one"),
        (lambda archive: (archive / "001" / "device.h5").unlink(), "is no archive of recorded runs; record one with"),
    ],
)
def test_damage_is_named(tmp_path: Path, change: Callable[[Path], object], text: str) -> None:
    recorded(tmp_path)
    change(tmp_path)
    with pytest.raises((ArchiveError, ReplayError), match=text):
        replay(tmp_path).run(WEIGHTS, stimulus())


def test_an_archive_holds_the_runs_of_one_device(tmp_path: Path) -> None:
    recorded(tmp_path)
    with pytest.raises(ArchiveError, match="holds runs of another device: name='reference' instead of 'emulator'"):
        Recorder(create_backend("reference"), tmp_path).open()
    (tmp_path / "002").mkdir()  # a recorder that was killed at once
    recorded(tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["001", "002", "003"]
    files = tmp_path / "files"
    files.mkdir()
    (files / "notes.txt").write_text("mine")
    with pytest.raises(ArchiveError, match="holds other files, and no recorded runs; name another folder"):
        Recorder(create_backend("reference"), files).open()
    with pytest.raises(ValueError, match="a replay is recorded already"):
        Recorder(create_backend("replay", archive=str(tmp_path)), tmp_path)


def test_a_full_disk_ends_the_run_with_a_remedy(tmp_path: Path, mocker: Any) -> None:
    with Recorder(create_backend("reference"), tmp_path) as backend:
        backend.configure(CIRCUIT)
        mocker.patch("os.fsync", side_effect=OSError(28, "No space left on device"))
        with pytest.raises(ArchiveError, match=r"cannot be written \(No space left on device\).*Make room"):
            backend.run(WEIGHTS, stimulus())


def test_a_recording_of_another_circuit_is_not_written(tmp_path: Path) -> None:
    class Wrong(BackendWrapper):
        def map_recording(self, recording: Recording, stimulus: Stimulus) -> Recording:
            return replace(recording, traces={})

    with Recorder(Wrong(create_backend("reference")), tmp_path) as backend:
        backend.configure(CIRCUIT)
        with pytest.raises(DeviceError, match="traces of hidden: expected uint8"):
            backend.run(WEIGHTS, stimulus())
    assert list(tmp_path.glob("001/0*")) == []


CHECKS = [
    "opens_and_closes_repeatedly",
    "circuits_can_be_exchanged",
    "errors_leave_the_device_usable",
    "requested_data_are_recorded",
    "split_batches_are_alike",
    "equal_clocks_give_equal_recordings",
]


def test_a_recorded_device_passes_the_same_checks_as_the_device(tmp_path: Path) -> None:
    """The whole suite does, too, but for the runs that a device takes at once; it would take longer."""
    tolerances = TOLERANCES["ideal"]
    live = run_suite(Recorder(create_backend("emulator"), tmp_path), tolerances, {}, CHECKS, lambda name: None)
    results = run_suite(create_backend("replay", archive=str(tmp_path)), tolerances, {}, CHECKS, lambda name: None)
    assert [(r.name, r.verdict, r.text) for r in results] == [(r.name, r.verdict, r.text) for r in live]
    assert {r.verdict for r in live} == {"pass"}
