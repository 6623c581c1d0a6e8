"""Whatever is sent, the server answers with a typed error or not at all, and goes on."""

import logging
import math
import random
import resource
from dataclasses import asdict, fields, replace
from typing import Any

import msgpack
import pytest
import torch
import zmq
from backends_bench import CIRCUIT, WEIGHTS, stimulus
from hypothesis import given, settings
from hypothesis import strategies as st
from remote_bench import CountingBackend, connected, serving
from soak import soak

from hxtrain.backends import Capabilities, Circuit, DeviceError, Spikes, Stimulus
from hxtrain.backends.reference import CAPABILITIES
from hxtrain.backends.remote import Server
from hxtrain.backends.remote.protocol import PREFIX, Ask, Empty, Failure, Head, Hello, ReplyHead, Welcome, digest
from hxtrain.backends.remote.tensors import Receiver, Sender, read_run, write_run
from hxtrain.backends.remote.wire import WireError, check, pack, unpack

FRAMES = soak(2000, 100_000)


class Raw:
    """A client that sends any frames."""

    def __init__(self, server: Server) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(server.address)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *error: object) -> None:
        self.context.destroy(linger=0)

    def ask(self, *frames: bytes) -> list[bytes]:
        self.socket.send_multipart(frames)
        assert self.socket.poll(60000), "the server does not answer"
        return self.socket.recv_multipart()

    def code(self, *frames: bytes) -> str:
        """Return the code of the error that is the answer, `ok` if it is none."""
        _, head, body = self.ask(*frames)[:3]
        return unpack(Failure, body).code if unpack(ReplyHead, head).status == "error" else "ok"


def head(op: str = "hello", number: int = 7, lease: str = "", sequence: int = 0, content: str = "") -> bytes:
    return msgpack.packb({"op": op, "id": number, "lease": lease, "sequence": sequence, "digest": content})


HELLO = pack(Hello("test"))


def test_a_good_message_is_answered() -> None:
    with serving(CountingBackend()) as server, Raw(server) as raw:
        prefix, reply, body = raw.ask(PREFIX, head(), HELLO)
        assert (prefix, unpack(ReplyHead, reply)) == (PREFIX, ReplyHead(7, "ok"))
        assert unpack(Welcome, body).capabilities == replace(CAPABILITIES, selective=False, sources_per_input=1)


def test_every_error_has_its_code() -> None:
    with serving(CountingBackend(), max_message=2**16) as server, Raw(server) as raw, connected(server) as client:
        client.configure(CIRCUIT)
        good = [PREFIX, head(), HELLO]
        cases: list[tuple[str, list[bytes]]] = [
            ("version", [b"hxtrain\x01", *good[1:]]),
            ("malformed", [b"GET / HTTP/1.1", *good[1:]]),
            ("malformed", [b""]),
            ("malformed", good[:2]),
            ("malformed", [PREFIX, b"\xc1", HELLO]),
            ("malformed", [PREFIX, head("shutdown"), HELLO]),
            ("malformed", [PREFIX, head(), pack(Empty())]),
            ("malformed", [*good, b"a tensor"]),
            ("malformed", [PREFIX, head("lease"), msgpack.packb({"client": "x", "label": "y"})]),
            ("malformed", [PREFIX, head("lease"), msgpack.packb({"client": "a" * 8, "label": "\x1b[2J"})]),
            ("too_large", [*good, bytes(2**16)]),
            ("too_large", [*good, *[b""] * 300]),
            ("lease_lost", [PREFIX, head("heartbeat", lease="none"), pack(Empty())]),
            ("lease_lost", [PREFIX, head("run", lease="\u00fc", sequence=1), pack(Empty())]),
            ("malformed", [PREFIX, head("configure", lease=client._lease, sequence=9), pack(Empty())]),
        ]
        for code, frames in cases:
            assert raw.code(*frames) == code, frames
        assert client.run(WEIGHTS, stimulus()).health.retries == 1
        with pytest.raises(ValueError, match=r"has \d+ bytes, the chip server takes 65536; use smaller batches"):
            client.run(WEIGHTS, stimulus(2000))


def test_a_run_whose_recording_would_be_too_large_is_refused() -> None:
    """Few bytes are sent, many would come back."""
    device = CountingBackend()
    none = torch.zeros(0)
    with serving(device, max_message=2**17) as server, connected(server) as client:
        client.configure(CIRCUIT)
        with pytest.raises(ValueError, match=r"a run of 10000000 samples has .* run fewer at once"):
            client.run(WEIGHTS, Stimulus(Spikes(none.long(), none.long(), none, 10_000_000, 4)))
    assert device.clocks == []


def test_too_many_requests_are_put_off() -> None:
    with serving(CountingBackend(), max_rate=5.0) as server, Raw(server) as raw:
        codes = [raw.code(PREFIX, head(), HELLO) for _ in range(8)]
        assert codes[0] == "ok"
        assert "busy" in codes
        with connected(server) as client:  # waits until it may
            assert client.capabilities == replace(CAPABILITIES, batching=True, selective=False)


def test_another_version_of_the_server_is_said() -> None:
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    import threading

    from hxtrain.backends.remote import RemoteBackend

    def answer() -> None:
        route, _, request, _ = router.recv_multipart()
        reply = pack(ReplyHead(unpack(Head, request).id, "error"))
        router.send_multipart([route, b"hxtrain\x03", reply, pack(Failure("version", "", None))])

    thread = threading.Thread(target=answer)
    thread.start()
    client = RemoteBackend(f"tcp://127.0.0.1:{port}")
    with pytest.raises(DeviceError, match="speaks version 3 of the protocol, this client version 2; install the same"):
        client.open()
    client.close()
    thread.join()
    context.destroy(linger=0)


def run_frames(lease: str, sequence: int) -> list[bytes]:
    """Return a good request for a run."""
    body, tensors = write_run(CIRCUIT, WEIGHTS, [stimulus()], 63)
    rest = [pack(body), *map(bytes, tensors)]
    return [PREFIX, head("run", 1, lease, sequence, digest(rest)), *rest]


def mutilated(frames: list[bytes], draw: random.Random) -> list[bytes]:
    """Return frames with one to three faults."""
    frames = list(frames)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(frames))
        old = frames[at]
        kind = draw.randrange(7)
        if kind == 0 and old:
            place = draw.randrange(len(old))
            frames[at] = old[:place] + bytes([draw.randrange(256)]) + old[place + 1 :]
        elif kind == 1:
            frames[at] = old[: draw.randrange(len(old) + 1)]
        elif kind == 2:
            frames[at] = old + draw.randbytes(draw.randrange(1, 50))
        elif kind == 3:
            frames[at] = draw.randbytes(draw.randrange(200))
        elif kind == 4 and len(frames) > 1:
            del frames[at]
        elif kind == 5:
            frames.insert(at, frames[draw.randrange(len(frames))])
        else:
            frames[at] = msgpack.packb(anything(draw, 0))
    return frames


def anything(draw: random.Random, depth: int) -> Any:
    """Return a value that msgpack takes."""
    simple = [None, True, -1, 0, 2**63, -(2**63), 1e300, math.nan, math.inf, "", "run", "\ud7ff", b"bytes", "x" * 1000]
    if depth > 3 or draw.random() < 0.4:
        return draw.choice(simple)
    if draw.random() < 0.5:
        return [anything(draw, depth + 1) for _ in range(draw.randrange(5))]
    names = ["op", "id", "lease", "sequence", "digest", "circuit", "weights", "spikes", "clock", "samples", 7]
    return {draw.choice(names): anything(draw, depth + 1) for _ in range(draw.randrange(6))}


def with_digest(frames: list[bytes], lease: str, sequence: int) -> list[bytes]:
    """Repair the head, so that a fault reaches body and tensors."""
    if len(frames) < 3:
        return frames
    return [PREFIX, head("run", 1, lease, sequence, digest(frames[2:])), *frames[2:]]


@pytest.mark.timeout(3600)
def test_malformed_messages_are_answered_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "hxtrain")  # pytest would keep every warning, and no memory would be measured
    draw = random.Random(7)
    device = CountingBackend()
    lenient = {"max_rate": 1e6, "heartbeat_timeout": 600.0}
    with serving(device, **lenient) as server, connected(server) as client, Raw(server) as raw:
        client.configure(CIRCUIT)
        client.run(WEIGHTS, stimulus())
        codes: dict[str, int] = {}
        memory = 0
        for number in range(FRAMES):
            sequence = 1000 + number
            frames = mutilated(run_frames(client._lease, sequence), draw)
            if number % 2:
                frames = with_digest(frames, client._lease, sequence)
            code = raw.code(*frames)
            codes[code] = codes.get(code, 0) + 1
            if number == FRAMES // 4:
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        assert set(codes) <= {"ok", "malformed", "version", "lease_lost", "value", "stale"}, codes
        assert codes["malformed"] > FRAMES // 2
        assert grown < 8 * 1024, f"{grown} KiB more after {FRAMES} messages"
        print(f"{FRAMES} messages: {codes}; {grown} KiB more memory after the first quarter")
        client._sequence = 2**62  # beyond what a fault in a head may have made of its number
        assert client.run(WEIGHTS, stimulus(clock=9)).traces["hidden"].max() == 9


def test_noise_on_the_port_does_no_harm() -> None:
    import socket

    draw = random.Random(1)
    with serving(CountingBackend()) as server:
        host, port = server.address.removeprefix("tcp://").split(":")
        for _ in range(20):
            with socket.create_connection((host, int(port))) as plain:
                plain.sendall(draw.randbytes(500))
        with connected(server) as client:
            assert client.capabilities == replace(CAPABILITIES, batching=True, selective=False)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([Circuit, Capabilities, Head, Ask, Failure]), VALUES, st.data())
def test_a_message_is_only_taken_with_all_its_fields_and_types(kind: Any, value: Any, data: st.DataObject) -> None:
    with pytest.raises(WireError, match=kind.__name__):
        unpack(kind, msgpack.packb(value))
    if kind in (Circuit, Capabilities):
        example = asdict({Circuit: CIRCUIT, Capabilities: CAPABILITIES}[kind])
        example = msgpack.unpackb(msgpack.packb(example))
        assert asdict(check(kind, example)) == asdict({Circuit: CIRCUIT, Capabilities: CAPABILITIES}[kind])
        name = data.draw(st.sampled_from(sorted(part.name for part in fields(kind) if not part.metadata)))
        for wrong in ({**example, name: {}}, {**example, "more": 1}, {k: v for k, v in example.items() if k != name}):
            with pytest.raises(WireError, match=kind.__name__):
                check(kind, wrong)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sample": [1, 0]}, "sample must be ascending"),
        ({"sample": [0, 2]}, "sample spans 0..2, allowed 0..1"),
        ({"unit": [0, 4]}, "unit spans 0..4, allowed 0..3"),
        ({"unit": [-1, 0]}, "unit spans -1..0"),
        ({"time": [0.0, math.nan]}, "time must be finite"),
        ({"time": [0.0, -1e-6]}, "time must be finite and >= 0 s"),
        ({"time": [0.0]}, r"expected shape \(1,\), got \(2,\)"),
        ({"units": 5}, "expected any number of samples and 4 units, got 2 and 5"),
    ],
)
def test_spikes_are_checked_on_arrival(change: dict[str, Any], text: str) -> None:
    parts = {"sample": [0, 1], "unit": [0, 1], "time": [0.0, 1e-6], "samples": 2, "units": 4, **change}
    spikes = Spikes.trusted(
        torch.tensor(parts["sample"]),
        torch.tensor(parts["unit"]),
        torch.tensor(parts["time"]),
        parts["samples"],
        parts["units"],
    )
    body, frames = write_run(CIRCUIT, WEIGHTS, [Stimulus(spikes)], 63)
    with pytest.raises(WireError, match=text):
        read_run(body, frames, CIRCUIT)


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(2**15 - 1, "int16"), (2**15, "int32"), (2**16 + 1, "int32"), (2**31, "int64")],
)
def test_indices_of_spikes_have_the_smallest_type_that_holds_them(largest: int, dtype: str) -> None:
    index = torch.tensor([0, largest])
    sender = Sender()
    events = sender.add_spikes(Spikes.from_events(torch.tensor([0, 1]), index, torch.tensor([1e-6, 0]), 2, largest + 1))
    assert (events.sample.dtype, events.unit.dtype) == ("int16", dtype)
    arrived = Receiver(sender.frames).take_spikes(events, "spikes", 2, largest + 1)
    assert torch.equal(arrived.unit, index)
