"""Strangers cannot stop the server, use up its time, places or log, or write on its operator's terminal."""

import io
import logging
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from backends_bench import CIRCUIT, WEIGHTS, stimulus
from remote_bench import CountingBackend, connected, serving
from rich.console import Console

from hxtrain.backends.remote import LinkSettings, Server, ServerSettings, ask_status, keys, make_keys
from hxtrain.backends.remote.complaints import MOST, Complaints
from hxtrain.backends.remote.front.channel import KIND, Channel, Memory, make_memory
from hxtrain.backends.remote.front.relay import MOST_OF_ONE, Backlog
from hxtrain.backends.remote.leases import PLACES_OF_ONE, Desk, Origin
from hxtrain.backends.remote.protocol import PREFIX, Ask, Failure, Refusal, Report, Text
from hxtrain.backends.remote.rates import Rates
from hxtrain.backends.remote.wire import MOST_CONTAINERS, Exact, WireError, pack, unpack
from hxtrain.commands.serve import report_rows
from hxtrain.runs.progress import Progress

BOMB = msgpack.packb([[{}] * 4096] * 250)
"""A million empty maps in 1 MiB."""
HEAD = msgpack.packb({"op": "status", "id": 1, "lease": "", "sequence": 0, "digest": ""})
ESCAPES = "[/b]\x1b]0;mine\x07\x1b[2J\nlease root\u202e"


def frame(data: bytes, is_continued: bool = False, command: bool = False) -> bytes:
    """Return a frame of ZMTP."""
    flags = is_continued + 4 * command
    return (
        bytes([flags | 2]) + struct.pack(">Q", len(data)) + data
        if len(data) > 255
        else bytes([flags, len(data)]) + data
    )


def message(*parts: bytes) -> bytes:
    return b"".join(frame(part, is_continued=i < len(parts) - 1) for i, part in enumerate(parts))


PING = frame(b"\x04PING\0\0ctx", command=True)


def greeted(server: Server, identity: bytes = b"") -> socket.socket:
    """Return a connection of plain TCP that has shaken hands as a DEALER."""
    host, port = server.address.removeprefix("tcp://").split(":")
    peer = socket.create_connection((host, int(port)), timeout=30)
    peer.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31))
    named = b"\x08Identity" + struct.pack(">I", len(identity)) + identity
    peer.sendall(frame(b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER" + named, command=True))
    return peer


def flood(peer: socket.socket, data: bytes) -> None:
    """Send what the server may cut off."""
    with suppress(ConnectionError):
        peer.sendall(data)


def hang_up(peer: socket.socket) -> None:
    """Reset the connection."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def full_pipe(server: Server) -> None:
    """Many large messages, then nobody."""
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.connect(server.address)
    for _ in range(60):
        dealer.send_multipart([PREFIX, BOMB, b"\x80"])
    time.sleep(0.5)
    context.destroy(linger=0)


def pings(server: Server) -> None:
    """Large and small messages with PINGs in between, and a reset."""
    for _ in range(5):
        peer = greeted(server)
        flood(peer, message(PREFIX, BOMB, b"\x80") * 3 + (message(b"x") * 5 + PING) * 600)
        hang_up(peer)


def torn_messages(server: Server) -> None:
    """Resets within messages, and within a frame."""
    for _ in range(10):
        peer = greeted(server)
        flood(peer, message(PREFIX, HEAD, b"\x80") * 50 + frame(bytes(60000), is_continued=True) * 10)
        flood(peer, b"\x03" + struct.pack(">Q", 2**20) + bytes(1000))
        hang_up(peer)


def one_identity(server: Server) -> None:
    """Connections that all claim to be the same one."""
    peers = [greeted(server, b"same") for _ in range(10)]
    for peer in peers:
        flood(peer, message(b"x" * 100) * 1000 + PING)
    for peer in peers:
        hang_up(peer)


@pytest.mark.parametrize("attack", [full_pipe, pings, torn_messages, one_identity])
def test_the_device_goes_on_whatever_peers_do(attack: Any) -> None:
    device = CountingBackend()
    with serving(device) as server, connected(server) as client:
        client.configure(CIRCUIT)
        client.run(WEIGHTS, stimulus(clock=1))
        attack(server)
        assert client.run(WEIGHTS, stimulus(clock=2)).traces["hidden"].max() == 2
        assert server._front.restarts == 0
    assert device.clocks == [1, 2]


def test_a_front_that_ends_is_replaced_and_the_lease_stays() -> None:
    device = CountingBackend()
    with serving(device) as server, connected(server, timeout=0.5) as client:
        client.configure(CIRCUIT)
        client.run(WEIGHTS, stimulus(clock=1))
        lease = client._lease
        assert server._front._process is not None
        os.kill(server._front._process.pid, 6)
        assert client.run(WEIGHTS, stimulus(clock=2)).traces["hidden"].max() == 2
        assert (client._lease, server._front.restarts) == (lease, 1)
    assert (device.clocks, len(device.circuits)) == ([1, 2], 1)


@pytest.fixture
def raw() -> Iterator[Any]:
    """Return what asks a server and returns the code of its error, or `ok`."""
    context = zmq.Context()

    def ask(server: Server, *frames: bytes) -> str:
        with context.socket(zmq.DEALER) as dealer:
            dealer.connect(server.address)
            dealer.send_multipart(frames)
            assert dealer.poll(60000)
            reply = dealer.recv_multipart()
        return unpack(Failure, reply[2]).code if b"error" in reply[1] else "ok"

    yield ask
    context.destroy(linger=0)


def test_large_messages_are_read_with_the_lease_only(raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(
        "hxtrain.backends.remote.protocol.unpack", lambda kind, body: read.append(len(body)) or unpack(kind, body)
    )
    job = msgpack.packb({"op": "run", "id": 1, "lease": "f" * 32, "sequence": 1, "digest": ""})
    with serving(CountingBackend()) as server:
        assert raw(server, PREFIX, BOMB, b"\x80") == "malformed"
        assert raw(server, PREFIX, HEAD, BOMB) == "malformed"
        assert raw(server, PREFIX, HEAD, msgpack.packb({"x": "y" * 2000})) == "malformed"
        assert raw(server, PREFIX, job, BOMB) == "lease_lost"
        assert raw(server, PREFIX, HEAD + bytes(1000), b"\x80") == "malformed"
    assert max(read) < 1024


@pytest.mark.parametrize("value", [BOMB, msgpack.packb([{}] * 4096 * 5)[:3] + b"\x80", b"\x91" * 1000 + b"\x90"])
def test_what_is_unpacked_is_bounded_and_not_shown(value: bytes) -> None:
    with pytest.raises(WireError) as error:
        unpack(Failure, value)
    assert len(str(error.value)) < 400
    with pytest.raises(WireError, match=f"more than {MOST_CONTAINERS} lists and mappings"):
        unpack(Failure, BOMB)
    with pytest.raises(WireError, match="got a mapping of 2"):
        unpack(Text, msgpack.packb({"text": {"a": 1, "b": 2}}))


def test_bytes_and_work_are_charged_to_the_user() -> None:
    rates = Rates(10.0)
    rates.admit("a", 0.0)
    rates.charge("a", 0.0, seconds=1.0)
    for user, moment in (("a", 0.0), ("a", 0.9)):
        with pytest.raises(Refusal, match="more than 10 requests per second") as refusal:
            rates.admit(user, moment)
        assert refusal.value.retry_after is not None
    rates.admit("b", 0.0)
    rates.admit("a", 2.5)
    rates.charge("c", 0.0, size=2**20)
    with pytest.raises(Refusal):
        rates.admit("c", 0.5)


def test_connections_take_turns_and_the_holder_is_first() -> None:
    backlog = Backlog(100)
    for number in range(MOST_OF_ONE):
        assert backlog.put(b"flood", [b"flood %d" % number], 1, False)
    assert not backlog.put(b"flood", [b"too many"], 1, False)
    assert backlog.put(b"other", [b"other"], 1, False)
    assert backlog.put(b"holder", [b"holder"], 60, True)
    assert not backlog.put(b"holder", [b"holder"], 60, True), "more bytes than agreed"
    assert [backlog.take() for _ in range(4)] == [[b"holder"], [b"flood 0"], [b"other"], [b"flood 1"]]


def test_messages_of_all_sizes_arrive_in_order() -> None:
    shared, idle = make_memory(100_000), make_memory(10)
    near, far = socket.socketpair(socket.AF_UNIX, KIND)
    writer, reader = Channel(near, Memory(shared), Memory(idle)), Channel(far, Memory(idle), Memory(shared))
    messages = [[bytes([n]) * size, b"", b"end"] for n in range(50) for size in (0, 1, 9000, 40_000, 99_000)]
    for frames in messages:
        writer.send(*frames)
    received = []
    while writer.is_blocked or len(received) < len(messages):
        writer.flush()
        if (frames := reader.receive()) is not None:
            received.append([frame.tobytes() for frame in frames])
    assert received == messages
    with pytest.raises(ValueError, match="too large for a memory of 100000"):
        writer.send(bytes(100_001))
    writer.close()
    reader.close()
    for descriptor in (shared, idle):
        os.close(descriptor)


def ask(desk: Desk, number: int, origin: Origin, moment: float = 0.0) -> int:
    return desk.ask(Ask(f"{number:08d}", Exact("x")), origin, moment, True).position


@pytest.mark.parametrize(
    ("origins", "places"),
    [
        ([Origin("key", str(i), "here") for i in range(70)], PLACES_OF_ONE),
        ([Origin("", "one", "here")] * 70, PLACES_OF_ONE),
        ([Origin("", str(i), "here") for i in range(70)], 33),
        ([Origin("", str(i), str(i)) for i in range(70)], 65),
    ],
)
def test_nobody_takes_all_places(origins: list[Origin], places: int) -> None:
    desk = Desk(10.0, 60.0)
    for number, origin in enumerate(origins):
        ask(desk, number, origin)
    assert len(desk.queue) + 1 == places
    if places < 65:
        assert ask(desk, 1000, Origin("other", "c", "there")) == places
        assert ask(desk, 1001, origins[-1]) == places + 1, "it waits, and has no place yet"
        assert len(desk.queue) == places


def test_a_lease_without_a_run_goes_on() -> None:
    desk = Desk(10.0, 300.0)
    for moment in (0.0, 9.0, 11.0):
        first = ask(desk, 1, Origin("a"), moment)
        second = ask(desk, 2, Origin("b"), moment)
    assert (first, second) == (1, 0)
    assert desk.lease is not None
    desk.lease.worked = 20.0  # it configured, which took a while
    assert ask(desk, 2, Origin("b"), 25.0) == 0
    assert [ask(desk, 1, Origin("a"), moment) for moment in (25.0, 30.0)] == [1, 0]


def test_the_log_is_bounded(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: moment)
    complaints = Complaints(logging.getLogger("hxtrain"))
    for _ in range(1000):
        complaints.warn("malformed", "10.0.0.1", ESCAPES)
    for number in range(1000):
        complaints.warn("malformed", f"peer {number}", "nonsense")
    moment = 61.0
    complaints.warn("malformed", "10.0.0.1", "again")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) <= MOST + 1
    assert lines[0].isprintable()
    assert lines[-1].startswith("10.0.0.1: again")


def status(report: Report) -> str:
    """Return what `hxtrain serve status` shows."""
    console = Console(file=io.StringIO(), width=300)
    Progress(console=console).table("chip server", ("what", "value"), report_rows(report))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_text_of_strangers_is_shown_as_it_is(raw: Any) -> None:
    with serving(CountingBackend()) as server, connected(server) as client:
        client.configure(CIRCUIT)
        body = msgpack.packb({"client": "a" * 8, "label": "[/nobody]"})
        head = msgpack.packb({"op": "lease", "id": 1, "lease": "", "sequence": 0, "digest": ""})
        assert raw(server, PREFIX, head, body) == "ok"
        assert raw(server, PREFIX, head, msgpack.packb({"client": ESCAPES, "label": "x", ESCAPES: 1})) == "malformed"
        text = status(ask_status(LinkSettings(server.address)))
    assert "[/nobody]" in text
    assert "\\x1b" in text
    assert all(line.isprintable() for line in text.splitlines())
    assert len([line for line in text.splitlines() if line.strip().startswith("lease")]) == 1


def test_text_is_cleaned_on_arrival() -> None:
    failure = unpack(Failure, pack(Failure("device", ESCAPES, None)))
    assert failure.text == "[/b]\\x1b]0;mine\\x07\\x1b[2J\\nlease root\\u202e"
    assert unpack(Text, pack(Text(f"a\nb{ESCAPES}"))).text.count("\n") == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["[/b]", "[red]x[/red]", "a \x1b[2J b"])
def test_progress_shows_text_of_any_kind(text: str) -> None:
    console = Console(file=io.StringIO(), width=200)
    progress = Progress(console=console)
    progress.say(text)
    progress.warn(text)
    progress.table(text, (text,), [(text,)])
    progress.show("[bold]{}[/] of {}", text, 3)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert output.count(text.replace("\x1b", "\\x1b")) == 6
    assert "\x1b" not in output


@pytest.mark.parametrize("port", ["0x1", "65536", "99999", "-1", "", "http"])
def test_ports_are_checked(port: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 65535, or"):
        ServerSettings(bind=f"tcp://127.0.0.1:{port}")


def test_abstract_sockets_need_keys() -> None:
    with pytest.raises(ValueError, match="any user of this machine could use the chip"):
        ServerSettings(bind="ipc://@chip")
    assert ServerSettings(bind="ipc://@chip", keys="DIR").keys == "DIR"


def test_local_sockets_are_for_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "chip.sock"
    abandoned = socket.socket(socket.AF_UNIX)
    abandoned.bind(str(path))
    abandoned.close()  # as a server that was killed
    with serving(CountingBackend(), bind=f"ipc://{path}") as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(ValueError, match=r"another process holds .*chip.sock.lock; is another server running"):
            Server(CountingBackend(), ServerSettings(bind=f"ipc://{path}"))
        assert ask_status(LinkSettings(server.address)).runs == 0
    assert not path.exists()


def test_a_server_whose_lock_was_removed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "chip.sock"
    with serving(CountingBackend(), bind=f"ipc://{path}") as server:
        (tmp_path / "chip.sock.lock").unlink()
        with pytest.raises(ValueError, match="a server answers at"):
            Server(CountingBackend(), ServerSettings(bind=f"ipc://{path}"))
        assert ask_status(LinkSettings(server.address)).runs == 0


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path, thesis = tmp_path / "place", tmp_path / "thesis.txt"
    thesis.write_text("precious")
    {"file": lambda: path.write_text("precious"), "folder": path.mkdir, "link": lambda: path.symlink_to(thesis)}[kind]()
    with pytest.raises(ValueError, match=r"place is there and is no socket, it was left alone"):
        Server(CountingBackend(), ServerSettings(bind=f"ipc://{path}"))
    assert os.path.lexists(path)
    assert thesis.read_text() == "precious"


def test_keys_that_cannot_be_read_for_now_are_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_keys(tmp_path)
    assert list(keys.load_authorised(tmp_path).values()) == ["client"]

    def fail(file: Path, mode: str) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(OSError, match="Too many open files"):
        keys.load_authorised(tmp_path)
