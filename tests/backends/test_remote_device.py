"""A device behind a server is the same device."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from backends_bench import CASES, CIRCUIT, WEIGHTS, stimulus
from remote_bench import PATIENT, CountingBackend, connected, serving

from hxtrain import LI, LIF, Device, Linear, Network
from hxtrain.backends import (
    Backend,
    BackendWrapper,
    Batching,
    Capabilities,
    Circuit,
    DeviceError,
    Recording,
    Spikes,
    Stimulus,
    UnknownBackendError,
    create_backend,
)
from hxtrain.backends.remote import LinkSettings, RemoteBugError, ask_metrics, ask_status


def require_equal(a: Recording, b: Recording) -> None:
    """Bit by bit, in types and order, too."""
    assert list(a.traces) == list(b.traces)
    assert list(a.spikes) == list(b.spikes)
    for name, codes in a.traces.items():
        assert codes.dtype == b.traces[name].dtype
        assert torch.equal(codes, b.traces[name])
    for name, spikes in a.spikes.items():
        expected = b.spikes[name]
        assert (spikes.samples, spikes.units) == (expected.samples, expected.units)
        for mine, theirs in (
            (spikes.sample, expected.sample),
            (spikes.unit, expected.unit),
            (spikes.time, expected.time),
        ):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)
    assert (a.cost, a.health) == (b.cost, b.health)
    assert (a.lost is None) == (b.lost is None)
    assert a.lost is None or (b.lost is not None and torch.equal(a.lost, b.lost))


@pytest.mark.parametrize("name", ["emulator-calibrated", "reference"])
def test_recordings_are_those_of_the_device(name: str) -> None:
    local = CASES[name].make()
    with local, serving(CASES[name].make()) as server, connected(server) as client:
        assert client.capabilities == replace(local.capabilities, batching=True, calibration=False)
        local.configure(CIRCUIT)
        client.configure(CIRCUIT)
        assert client.identity == {**local.identity, "address": server.address}
        assert client.warnings == local.warnings
        for batch, clock in ((3, 0), (1, 3), (50, 4)):
            inputs = stimulus(batch, clock)
            require_equal(local.run(WEIGHTS, inputs), client.run(WEIGHTS, inputs))
        none = torch.zeros(0)
        silent = Stimulus(Spikes(none.long(), none.long(), none, 2, 4), 9)
        require_equal(local.run(WEIGHTS, silent), client.run(WEIGHTS, silent))
    assert client.times.runs == 4
    assert 0 < client.times.device < client.times.total


def scripted(*fails: int) -> CountingBackend:
    """Return a device whose runs of these numbers fail."""

    def during(run: int) -> None:
        if run in fails:
            raise DeviceError(f"link lost in run {run}")

    return CountingBackend(during)


def test_several_runs_travel_together() -> None:
    """One message; a run that fails is its error, the others are run all the same."""
    with serving(scripted(2)) as server, connected(server) as client:
        client.configure(CIRCUIT)
        outcomes = client.run_all(WEIGHTS, [stimulus(2, clock) for clock in (0, 2, 4)])
        text = ask_metrics(LinkSettings(server.address))
        report = ask_status(LinkSettings(server.address))
    assert [str(f) if isinstance(f, DeviceError) else int(f.traces["hidden"].max()) for f in outcomes] == [
        0,
        "link lost in run 2",
        4,
    ]
    assert 'requests_total{operation="run"} 1\n' in text
    assert (report.runs, report.trials, report.errors) == (2, 4, {"device": 1})


@pytest.mark.parametrize(("limit", "messages"), [(2**26, 2), (2**18, 4)])
def test_as_many_runs_in_a_message_as_the_server_takes(limit: int, messages: int) -> None:
    """At most 16, and no more than `max_message`: a run here has 28,800 codes and bins, and 800 events of 12 bytes."""
    device = CountingBackend()
    with serving(device, max_message=limit) as server, connected(server) as client:
        client.configure(CIRCUIT)
        assert client.run_all(WEIGHTS, []) == []
        outcomes = client.run_all(WEIGHTS, [stimulus(200, 200 * i) for i in range(20)])
        text = ask_metrics(LinkSettings(server.address))
        client.run_all(WEIGHTS, [stimulus(2, clock) for clock in (0, 2, 7)])  # a gap: another message
        later_text = ask_metrics(LinkSettings(server.address))
    clocks = [200 * i for i in range(20)]
    assert device.clocks == [*clocks, 0, 2, 7]
    assert [int(f.traces["hidden"].max()) for f in outcomes if isinstance(f, Recording)] == [c % 256 for c in clocks]
    assert f'requests_total{{operation="run"}} {messages}\n' in text
    assert f'requests_total{{operation="run"}} {messages + 2}\n' in later_text


def test_the_host_repeats_only_the_runs_that_failed() -> None:
    class Small(BackendWrapper):
        """A device of three trials per run, some of which fail."""

        takes_any_batch = False

        def __init__(self, *fails: int) -> None:
            super().__init__(create_backend("emulator", preset="uncalibrated"))
            self.fails = fails
            self.clocks = list[int]()

        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, trace_memory=3 * 20 * 256)

        def run(self, weights: Mapping[str, torch.Tensor], stimulus: Stimulus) -> Recording:
            self.clocks.append(stimulus.clock)
            if len(self.clocks) in self.fails:
                raise DeviceError("link lost")
            return super().run(weights, stimulus)

    def record(backend: Backend) -> tuple[Recording, int]:
        net = Network(Linear(4, 5, mean=0.25), LIF(5), Linear(5, 3), LI(3), steps=20)
        with Device(backend, retries=1) as device:
            device.place(net)
            assert device.plan is not None
            integers, _ = device.plan.quantise(net.effective_weights())
            return device.record(integers, stimulus(10).spikes), device.clock

    flawed = Small(2, 4)
    with serving(flawed) as server:
        remote_recording, clock = record(create_backend("remote", address=server.address, **PATIENT))
    local_recording, _ = record(Small())
    assert flawed.clocks == [0, 3, 6, 9, 3, 9]
    assert clock == 10
    assert remote_recording.health.retries == 2
    require_equal(
        replace(local_recording, cost=remote_recording.cost, health=remote_recording.health), remote_recording
    )


def test_a_malformed_recording_of_several_runs_is_repeated() -> None:
    """As one that comes alone; here the second of three runs has too few trials at first."""
    device = CountingBackend()
    whole = device.run

    def cut(weights: Mapping[str, torch.Tensor], stimulus: Stimulus) -> Recording:
        recording = replace(whole(weights, stimulus), lost=None)
        if len(device.clocks) == 2:
            recording = replace(recording, traces={name: codes[:-1] for name, codes in recording.traces.items()})
        return recording

    class Together(Backend, Batching):
        """The device, of which several runs are asked at once."""

        capabilities = property(lambda self: replace(device.capabilities, trace_memory=3 * 20 * 256))  # type: ignore[assignment]
        identity = property(lambda self: device.identity)  # type: ignore[assignment]

        def open(self) -> None:
            device.open()

        def close(self) -> None:
            device.close()

        def configure(self, circuit: Circuit) -> None:
            device.configure(circuit)

        def run(self, weights: Mapping[str, torch.Tensor], stimulus: Stimulus) -> Recording:
            return cut(weights, stimulus)

        def run_all(
            self, weights: Mapping[str, torch.Tensor], stimuli: Sequence[Stimulus]
        ) -> list[Recording | DeviceError]:
            return [cut(weights, stimulus) for stimulus in stimuli]

    net = Network(Linear(4, 3, mean=0.25), LIF(3), Linear(3, 2), LI(2), steps=20)
    with Device(Together(), retries=1) as host:
        host.place(net)
        assert host.plan is not None
        integers, _ = host.plan.quantise(net.effective_weights())
        size = host.plan.trials_per_run
        assert size is not None
        recording = host.record(integers, stimulus(3 * size).spikes)
    assert device.clocks == [0, size, 2 * size, size]
    assert recording.traces["layer0"].shape[0] == 3 * size


def test_lost_trials_health_and_warnings_come_through() -> None:
    local = CountingBackend()
    local.configure(CIRCUIT)
    with serving(CountingBackend()) as server, connected(server) as client:
        client.configure(CIRCUIT)
        assert client.warnings == ("2 populations",)
        require_equal(local.run(WEIGHTS, stimulus(3, 7)), client.run(WEIGHTS, stimulus(3, 7)))


def test_what_the_device_cannot_do_is_said_as_it_says_it() -> None:
    wide = replace(CIRCUIT, populations=(replace(CIRCUIT.populations[0], size=600), CIRCUIT.populations[1]))
    with serving(create_backend("reference")) as server, connected(server) as client:
        with pytest.raises(DeviceError, match="not configured; call configure"):
            client.run(WEIGHTS, stimulus())
        with pytest.raises(ValueError, match="neuron circuits, the device has 512"):
            client.configure(wide)
        client.configure(CIRCUIT)
        with pytest.raises(ValueError, match="expected integers"):
            client.run({}, stimulus())
        assert client.run(WEIGHTS, stimulus()).traces["hidden"].shape == (3, 16, 3)


def test_the_server_survives_a_device_that_fails() -> None:
    errors = {1: DeviceError("the FPGA is on fire"), 2: ValueError("not today"), 3: KeyError("x")}

    def fail(run: int) -> None:
        if run in errors:
            raise errors[run]

    with serving(CountingBackend(fail)) as server, connected(server) as client:
        client.configure(CIRCUIT)
        with pytest.raises(DeviceError, match="the FPGA is on fire"):
            client.run(WEIGHTS, stimulus())
        with pytest.raises(ValueError, match="not today"):
            client.run(WEIGHTS, stimulus())
        with pytest.raises(RemoteBugError, match="KeyError: 'x'"):
            client.run(WEIGHTS, stimulus())
        assert client.run(WEIGHTS, stimulus()).health.dropped_spikes == 3
        report = ask_status(LinkSettings(server.address))
    assert report.errors == {"device": 1, "value": 1, "internal": 1}
    assert report.health.last_error == "internal: KeyError: 'x'"
    assert (report.runs, report.health.dropped_spikes, report.health.lost_trials) == (1, 3, 1)


def test_a_device_that_cannot_be_opened_is_not_served() -> None:
    class Absent(CountingBackend):
        def open(self) -> None:
            raise DeviceError("no chip on this USB port")

    with pytest.raises(DeviceError, match="no chip on this USB port"), serving(Absent()):
        pass


def test_status_is_told_while_the_chip_is_busy() -> None:
    running, go_on = threading.Event(), threading.Event()

    def wait(run: int) -> None:
        running.set()
        assert go_on.wait(60)

    with serving(CountingBackend(wait)) as server, connected(server) as client:
        client.configure(CIRCUIT)
        thread = threading.Thread(target=client.run, args=(WEIGHTS, stimulus()))
        thread.start()
        assert running.wait(60)
        report = ask_status(LinkSettings(server.address))
        text = ask_metrics(LinkSettings(server.address))
        go_on.set()
        thread.join()
        idle_text = ask_metrics(LinkSettings(server.address))
    assert report.health.state == "busy"
    assert report.holder is not None
    assert report.queue == ()
    assert "hxtrain_server_device_busy 1\n" in text
    assert "hxtrain_server_runs_total 1\n" in idle_text
    assert 'hxtrain_server_info{backend="reference",chip="counting",chip_hash="none"} 1\n' in idle_text
    for line in idle_text.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2
        assert line.startswith("# ") or float(line.rsplit(" ", 1)[1]) >= 0


def test_a_device_that_hangs_is_reported() -> None:
    go_on = threading.Event()
    hanging = CountingBackend(lambda run: None if run > 1 else (go_on.wait(60), None)[1])
    with serving(hanging, run_timeout=0.3) as server, connected(server) as client:
        client.configure(CIRCUIT)
        with pytest.raises(DeviceError, match=r"did not answer within 0.3 s; look after it"):
            client.run(WEIGHTS, stimulus())
        assert ask_status(LinkSettings(server.address)).health.state == "stuck"
        go_on.set()
        assert client.run(WEIGHTS, stimulus(clock=5)).traces["hidden"].max() == 5


def test_the_end_waits_for_the_running_batch() -> None:
    running = threading.Event()

    def slow(run: int) -> None:
        running.set()
        time.sleep(0.5)

    device = CountingBackend(slow)
    errors = []
    with serving(device) as server:
        client: Backend = create_backend("remote", address=server.address)
        client.open()
        client.configure(CIRCUIT)
        thread = threading.Thread(target=lambda: errors.append(client.run(WEIGHTS, stimulus(clock=4))))
        thread.start()
        assert running.wait(60)
    thread.join()
    assert int(errors[0].traces["hidden"].max()) == 4
    assert not device.is_open
    client.close()
    client.close()


def test_settings_are_checked() -> None:
    with pytest.raises(UnknownBackendError, match="address"):
        create_backend("remote")
    with pytest.raises(ValueError, match=r"address='here': it is not an address; use e.g. tcp://127.0.0.1:5555"):
        create_backend("remote", address="here")
    with pytest.raises(ValueError, match=r"patience=0.0 s must be positive"):
        create_backend("remote", address="tcp://127.0.0.1:1", patience=0.0)


def test_nobody_there() -> None:
    client = create_backend("remote", address="tcp://127.0.0.1:1", patience=0.3)
    with pytest.raises(DeviceError, match=r"tcp://127.0.0.1:1: nothing listens there, for .* Is it running"):
        client.open()
    client.close()


def test_unchanged_weights_are_the_same_tensors_for_the_device() -> None:
    """Devices write weights only when they are new ones."""
    matrices: list[list[torch.Tensor]] = []

    class Watching(CountingBackend):
        def run(self, weights: Mapping[str, torch.Tensor], stimulus: Stimulus) -> Recording:
            matrices.append(list(weights.values()))
            return super().run(weights, stimulus)

    changed = {**WEIGHTS, "hidden->readout": WEIGHTS["hidden->readout"] + 1 - 2 * (WEIGHTS["hidden->readout"] > 0)}
    with serving(Watching()) as server, connected(server) as client:
        client.configure(CIRCUIT)
        for weights in (WEIGHTS, WEIGHTS, changed):
            client.run(weights, stimulus())
    assert [a is b for a, b in zip(matrices[0], matrices[1], strict=True)] == [True, True]
    assert [a is b for a, b in zip(matrices[1], matrices[2], strict=True)] == [True, False]
    assert torch.equal(matrices[2][1], changed["hidden->readout"])
