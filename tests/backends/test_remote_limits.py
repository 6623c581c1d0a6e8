"""What bounds a recording, a job and a client's patience."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgpack
import pytest
import torch
import zmq
from backends_bench import CIRCUIT, WEIGHTS, stimulus
from remote_bench import CountingBackend, connected, serving
from torch import Tensor

from hxtrain.backends import Circuit, DeviceError, Interruptible, Recording, Spikes, Stimulus, create_backend
from hxtrain.backends.reference import CAPABILITIES, ReferenceBackend
from hxtrain.backends.remote import LinkSettings, RemoteBackend, RemoteBugError, ask_status
from hxtrain.backends.remote.protocol import PREFIX, Failure, Limits, Pending, Place, ReplyHead, Welcome
from hxtrain.backends.remote.wire import pack
from hxtrain.emulator.engines.cpu import BUFFER_SPIKES

NONE = torch.zeros(0)


def quiet(trials: int, clock: int = 0) -> Stimulus:
    return Stimulus(Spikes(NONE.long(), NONE.long(), NONE, trials, 4), clock)


def firing(refractory: float = 0.0) -> Circuit:
    """A circuit whose neurons fire by themselves, as often as they can."""
    hidden = replace(CIRCUIT.populations[0], leak=200.0, threshold=100.0, reset=99.0, refractory=refractory)
    return replace(CIRCUIT, populations=(hidden, CIRCUIT.populations[1]))


@pytest.mark.parametrize("name", ["emulator", "reference"])
def test_a_recording_is_bounded_by_what_its_circuit_can_give(name: str) -> None:
    """Trials that follow closely cannot be divided: few bytes are sent, more than the limit would come back."""
    settings = {"preset": "ideal"} if name == "emulator" else {}
    close = replace(firing(), trial_time=5e-5) if name == "emulator" else firing()
    with serving(create_backend(name, **settings), max_message=2**16) as server, connected(server) as client:
        client.configure(close)
        trials = 100 if name == "emulator" else 2000
        with pytest.raises(ValueError, match=r"up to \d+ bytes with the spikes .* takes 65536; run fewer at once"):
            client.run(WEIGHTS, quiet(trials))
        assert len(client.run(WEIGHTS, quiet(3)).spikes["hidden"]) > 3 * 3 * 50
        assert ask_status(LinkSettings(server.address)).errors == {"too_large": 1}


def test_a_run_is_divided_where_its_recording_could_be_too_large() -> None:
    """The same recording, from several jobs."""
    with create_backend("emulator", preset="uncalibrated") as local:
        local.configure(firing())
        whole = local.run(WEIGHTS, quiet(100, 5))
    device = create_backend("emulator", preset="uncalibrated")
    with serving(device, max_message=2**16) as server, connected(server) as client:
        client.configure(firing())
        recording = client.run(WEIGHTS, quiet(100, 5))
        report = ask_status(LinkSettings(server.address))
    assert report.runs > 1
    assert report.trials == 100
    assert recording.clock == whole.clock == 5
    assert all(torch.equal(recording.traces[name], codes) for name, codes in whole.traces.items())
    assert torch.equal(recording.spikes["hidden"].time, whole.spikes["hidden"].time)


class Eager(ReferenceBackend):
    """Gives more spikes than it says it can."""

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        recording = super().run(weights, stimulus)
        trials = stimulus.spikes.samples
        samples = torch.arange(trials).repeat_interleave(2000)
        return replace(recording, spikes={"hidden": Spikes(samples, samples * 0, samples * 1e-9, trials, 3)})


def test_a_recording_that_came_out_too_large_is_not_sent() -> None:
    with serving(Eager(), max_message=2**16) as server, connected(server) as client:
        client.configure(CIRCUIT)
        with pytest.raises(ValueError, match=r"has 72\d\d\d bytes or more, the server takes 65536: neurons fired more"):
            client.run(WEIGHTS, quiet(3))
        assert len(client.run(WEIGHTS, quiet(1)).spikes["hidden"]) == 2000


def test_runs_that_no_longer_fit_an_answer_come_with_the_next() -> None:
    with serving(create_backend("emulator", preset="ideal"), max_message=2**15) as server, connected(server) as client:
        client.configure(firing())
        outcomes = client.run_all(WEIGHTS, [quiet(4, 4 * i) for i in range(9)])
        report = ask_status(LinkSettings(server.address))
    assert [f.clock for f in outcomes if isinstance(f, Recording)] == [4 * i for i in range(9)]
    assert (report.runs, report.errors) == (9, {})


def test_a_recording_of_another_form_is_an_error_of_the_device() -> None:
    class Broken(ReferenceBackend):
        def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
            recording = super().run(weights, stimulus)
            return replace(recording, traces={n: codes.float() for n, codes in recording.traces.items()})

    with serving(Broken()) as server, connected(server) as client:
        client.configure(CIRCUIT)
        with pytest.raises(DeviceError, match="traces of hidden: expected uint8"):
            client.run(WEIGHTS, stimulus())


@pytest.mark.parametrize("weight_max", [127, 128, 151, 32767])
def test_wide_weights_travel_whole(weight_max: int) -> None:
    weights = {name: (matrix.int() * weight_max // 63) for name, matrix in WEIGHTS.items()}
    device = ReferenceBackend(weight_max)
    matrices: list[Mapping[str, Tensor]] = []
    run = device.run
    device.run = lambda w, s: (matrices.append(w), run(w, s))[1]  # type: ignore[func-returns-value,method-assign,assignment]
    with serving(device) as server, connected(server) as client:
        client.configure(CIRCUIT)
        client.run(weights, stimulus())
    assert all(torch.equal(matrices[0][name].int(), matrix) for name, matrix in weights.items())
    assert matrices[0]["input->hidden"].dtype == (torch.int8 if weight_max <= 127 else torch.int16)


def test_large_rooms_for_spikes_are_forgotten() -> None:
    device = create_backend("emulator", preset="ideal")
    with device:
        large = replace(firing(), populations=(replace(firing().populations[0], size=200),), samples=94)
        large = replace(large, projections=large.projections[:1])
        weights = {"input->hidden": torch.zeros(200, 4, dtype=torch.int8)}
        device.configure(large)
        engine = device.emulated.engine  # type: ignore[attr-defined]
        assert len(device.run(weights, quiet(2)).spikes["hidden"]) < BUFFER_SPIKES
        assert engine._buffers[0].size
        assert len(device.run(weights, quiet(60)).spikes["hidden"]) > BUFFER_SPIKES
        assert engine._buffers[0].size == 0
        assert len(device.run(weights, quiet(2)).spikes["hidden"]) > 0


# cancelled jobs


class Slow(CountingBackend, Interruptible):
    """Each run lasts until it is interrupted, or `enough` is set."""

    def __init__(self) -> None:
        self.begun, self.interrupted, self.release = (threading.Event() for _ in range(3))
        super().__init__(self._wait)

    def _wait(self, run: int) -> None:
        self.begun.set()
        while not self.release.is_set():
            if self.interrupted.wait(0.01):
                raise DeviceError("the run was interrupted")

    def interrupt(self) -> None:
        self.interrupted.set()


@contextmanager
def running(device: Slow, **settings: Any) -> Iterator[tuple[RemoteBackend, str, list[BaseException]]]:
    """A client that waits for two runs, in a thread; the errors that it ends with."""
    errors: list[BaseException] = []
    with serving(device, **settings) as server:
        client = RemoteBackend(server.address)

        def work() -> None:
            try:
                client.run_all(WEIGHTS, [quiet(2, 0), quiet(2, 2)])
            except BaseException as error:
                errors.append(error)

        client.open()
        client.configure(CIRCUIT)
        thread = threading.Thread(target=work)
        thread.start()
        assert device.begun.wait(20)
        yield client, server.address, errors
        device.release.set()
        thread.join(20)
        assert not thread.is_alive()
        client.close()


def idle(address: str) -> bool:
    """Wait until the device has no job."""
    end = time.monotonic() + 20
    while ask_status(LinkSettings(address)).health.state != "idle":
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_an_interrupted_client_cancels_its_job() -> None:
    device = Slow()
    with running(device) as (client, address, errors):
        client.interrupt()
        assert idle(address)
        device.release.set()
        device.interrupted.clear()
    assert [str(error) for error in errors] == ["the run was interrupted"]
    assert device.clocks == [0], "the second run was not begun"


def test_after_a_cancelled_job_the_client_goes_on() -> None:
    device = Slow()
    with running(device) as (client, address, _):
        client.interrupt()
        assert idle(address)
        device.release.set()
        client.interrupt()  # without a run nothing happens
        assert client.run(WEIGHTS, quiet(2, 9)).traces["hidden"].max() == 9


def test_the_job_of_a_client_that_has_gone_is_ended() -> None:
    device = Slow()
    with running(device, heartbeat_timeout=0.5) as (client, address, _):
        assert client._heart is not None
        client._heart.stop()  # and the connection waits in silence
        assert idle(address)
        assert device.interrupted.is_set()


def test_a_job_that_takes_too_long_is_ended() -> None:
    device = Slow()
    with running(device, run_timeout=0.3) as (_, address, errors):
        assert idle(address)
        assert device.interrupted.is_set()
    assert "the device did not answer within 0.3 s" in str(errors[0])


def test_only_the_job_that_is_meant_is_cancelled() -> None:
    device = Slow()
    with running(device) as (client, address, errors):
        client._cancel(client._sequence + 1)
        time.sleep(0.3)
        assert not device.interrupted.is_set()
        assert ask_status(LinkSettings(address)).health.state == "busy"
    assert (errors, device.clocks) == ([], [0, 2])


def test_a_run_of_the_emulator_ends_when_it_is_interrupted() -> None:
    device = create_backend("emulator", preset="ideal")
    assert isinstance(device, Interruptible)
    with device:
        device.configure(CIRCUIT)
        device.interrupt()  # without a run nothing happens
        previous = device.run(WEIGHTS, stimulus(3))
        stop = threading.Event()

        def insist() -> None:
            while not stop.wait(0.005):
                device.interrupt()

        thread = threading.Thread(target=insist)
        thread.start()
        try:
            with pytest.raises(DeviceError, match="the run was interrupted"):
                device.run(WEIGHTS, quiet(1_000_000))
        finally:
            stop.set()
            thread.join()
        current = device.run(WEIGHTS, stimulus(3))
    assert torch.equal(previous.traces["hidden"], current.traces["hidden"])


# a client's patience


@contextmanager
def answering(answer: Callable[[str, int], tuple[str, object] | None], **limits: float) -> Iterator[str]:
    """A server that answers `hello` and `lease` well, and all else as `answer` (operation, id) says; its address."""
    context, stop = zmq.Context(), threading.Event()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    allowed = Limits(2**20, 1000.0, 0.5, 10.0, 300.0)
    good = {
        "hello": Welcome("test", "1", CAPABILITIES, {"chip": "x"}, replace(allowed, **limits)),  # type: ignore[arg-type]
        "lease": Place("x" * 32, 0, 0.0, 0.1),
    }

    def serve() -> None:
        while not stop.is_set():
            if not router.poll(20):
                continue
            route, _, packed, *_ = router.recv_multipart()
            head = msgpack.unpackb(packed)
            status, body = answer(head["op"], head["id"]) or ("ok", good.get(head["op"], {}))
            router.send_multipart([route, PREFIX, pack(ReplyHead(head["id"], status)), pack(body)])  # type: ignore[arg-type]

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join()
        context.destroy(linger=0)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (("error", Failure("lease_lost", "over", None)), r"over, \d+ times within .*patience=1"),
        (("pending", Pending(1.0)), "still says that the job is running, after .* and allows 0.5 s"),
        (("error", Failure("busy", "later", 1e9)), "later, for"),
        (("error", Failure("internal", "KeyError: 'x'", None)), "KeyError: 'x'. The server's log has the details"),
    ],
)
def test_patience_ends_what_never_ends(reply: tuple[str, object], text: str) -> None:
    with (
        answering(lambda op, _: reply if op == "configure" else None) as address,
        RemoteBackend(address, patience=1.0, timeout=0.3) as client,
        pytest.raises(DeviceError, match=text),
    ):
        client.configure(CIRCUIT)


def test_a_lost_lease_is_not_asked_for_without_pause() -> None:
    operations = []

    def answer(op: str, number: int) -> tuple[str, object] | None:
        operations.append(op)
        return ("error", Failure("lease_lost", "over", None)) if op == "configure" else None

    with (
        answering(answer) as address,
        RemoteBackend(address, patience=1.0, timeout=0.3) as client,
        pytest.raises(DeviceError),
    ):
        client.configure(CIRCUIT)
    assert operations.count("configure") < 15


def test_a_bug_behind_the_server_is_an_error_of_the_device() -> None:
    assert issubclass(RemoteBugError, DeviceError)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_message", 0),
        ("max_message", 2**41),
        ("run_timeout", 0.0),
        ("heartbeat_timeout", -1.0),
        ("lease_time", -1.0),
    ],
)
def test_limits_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}".replace(".0", "")):
        replace(Limits(2**20, 1000.0, 600.0, 10.0, 300.0), **{name: value})  # type: ignore[arg-type]


def test_an_answer_larger_than_the_server_says_is_not_taken() -> None:
    context = zmq.Context()
    with answering(lambda op, _: None, max_message=2**16) as address:
        client = RemoteBackend(address, patience=1.0, timeout=0.3)
        client.open()
        assert client._link._socket is not None
        assert client._link._socket.getsockopt(zmq.MAXMSGSIZE) == 2**16 + 2**20
        client.close()
    context.destroy(linger=0)
