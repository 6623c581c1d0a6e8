"""Lost, late, doubled and reordered messages, and servers that die: same recordings, each batch once."""

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from backends_bench import CASES, CIRCUIT, WEIGHTS, stimulus
from remote_bench import PATIENT, CountingBackend, Proxy, connected, port_for_restarts, serving

from hxtrain.backends import Backend, DeviceError, create_backend
from hxtrain.backends.remote import LinkSettings, RemoteBackend, ask_status

SERVER = """
import sys
from hxtrain.backends import create_backend
from hxtrain.backends.remote import Server, ServerSettings
import os
deadly = int(sys.argv[1])
backend = create_backend("emulator", preset="uncalibrated")
run, runs = backend.run, []
def mortal(weights, stimulus):
    runs.append(stimulus.clock)
    return os._exit(9) if len(runs) == deadly else run(weights, stimulus)
backend.run = mortal
server = Server(backend, ServerSettings(bind=sys.stdin.readline().strip()))
print(server.address, flush=True)
server.serve()
"""
RUNS = 6


def run_all(backend: Backend) -> list[torch.Tensor]:
    backend.configure(CIRCUIT)
    return [backend.run(WEIGHTS, stimulus(3, 3 * i)).traces["hidden"] for i in range(RUNS)]


def lose(way: str, number: int, frames: list[bytes]) -> list[int]:
    return [] if number % 4 == 0 or number % 7 == 0 else [0]


def double(way: str, number: int, frames: list[bytes]) -> list[int]:
    return [0, 0, 2]


def late_answers(way: str, number: int, frames: list[bytes]) -> list[int]:
    return [1] if way == "down" and number % 4 == 0 else [0]


def chaos() -> Callable[[str, int, list[bytes]], list[int]]:
    draw = random.Random(3)
    return lambda way, number, frames: draw.choice([[], [0], [0], [0], [0, 0], [1], [2, 0], [3, 3]])


@pytest.mark.parametrize("act", [lose, double, late_answers, chaos()])
def test_a_bad_network_changes_nothing(act: Callable[[str, int, list[bytes]], list[int]]) -> None:
    device = CountingBackend()
    with serving(device) as server, Proxy(server.address, act) as proxy:
        client = RemoteBackend(proxy.address, timeout=0.1, patience=60.0)
        with client:
            recordings = run_all(client)
        duplicates = ask_status(LinkSettings(server.address)).duplicates
    for i, codes in enumerate(recordings):
        assert torch.equal(codes, torch.full((3, 16, 3), 3 * i, dtype=torch.uint8))
    assert device.clocks == [3 * i for i in range(RUNS)], "every batch was run once, in order"
    assert duplicates > 0 or act is late_answers


def test_a_batch_with_another_content_is_not_taken_for_a_repeat() -> None:
    with serving(CountingBackend()) as server, connected(server) as client:
        client.configure(CIRCUIT)
        client.run(WEIGHTS, stimulus(clock=1))
        client._sequence -= 1  # as a client with a fault would
        with pytest.raises(ValueError, match="run 2 was sent before with another content"):
            client.run(WEIGHTS, stimulus(clock=2))
        client._sequence -= 2
        with pytest.raises(DeviceError, match=r"run 1 is older than 2, the last one of this client \(stale\)"):
            client.run(WEIGHTS, stimulus(clock=3))


def test_a_damaged_batch_is_not_run() -> None:
    device = CountingBackend()

    def damage(way: str, number: int, frames: list[bytes]) -> list[int]:
        if way == "up" and len(frames) > 3 and len(frames[3]) == 12:  # the weights of input->hidden
            frames[3] = bytes(12)
        return [0]

    with serving(device) as server, Proxy(server.address, damage) as proxy, connected(proxy.address) as client:
        client.configure(CIRCUIT)
        with pytest.raises(DeviceError, match="do not have the digest of the head"):
            client.run(WEIGHTS, stimulus())
    assert device.clocks == []


def test_a_long_run_outlives_the_time_out() -> None:
    go_on, running = threading.Event(), threading.Event()

    def slow(run: int) -> None:
        running.set()
        assert go_on.wait(60)

    device = CountingBackend(slow)
    with serving(device) as server, connected(server, timeout=0.05, patience=30.0) as client:
        client.configure(CIRCUIT)
        threading.Timer(0.6, go_on.set).start()
        client.run(WEIGHTS, stimulus())
        assert ask_status(LinkSettings(server.address)).duplicates > 0
    assert device.clocks == [0]


def start(folder: Path, deadly: int) -> "subprocess.Popen[str]":
    """Start a server that waits for the address to bind, and dies in the middle of its run `deadly`."""
    command = [sys.executable, "-c", SERVER, str(deadly)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)


def bind(process: "subprocess.Popen[str]", address: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{address}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_a_restarted_server_goes_on_bit_by_bit(tmp_path: Path) -> None:
    """The first server dies in the middle of a run, the second one takes its place."""
    first, second = processes = start(tmp_path, deadly=5), start(tmp_path, deadly=0)
    with create_backend("emulator", preset="uncalibrated") as local:
        expected = run_all(local)
    address = bind(first, port_for_restarts())

    def restart() -> None:
        first.wait()
        bind(second, address)

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        with RemoteBackend(address, timeout=30.0, patience=100.0) as client:
            recordings = run_all(client)
            thread.join()
        assert first.returncode == 9
        assert all(map(torch.equal, recordings, expected))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        thread.join()


def test_another_device_after_a_restart_is_noticed() -> None:
    with serving(CountingBackend()) as server:
        client = RemoteBackend(server.address, **PATIENT)
        client.open()
        client.configure(CIRCUIT)
    with serving(CASES["reference"].make(), bind=server.address):
        with pytest.raises(DeviceError, match=r"serves another device now: .*ideal.*, it was .*counting"):
            client.run(WEIGHTS, stimulus())
        client.close()


def test_a_server_that_stays_away_is_an_error() -> None:
    with serving(CASES["reference"].make()) as server:
        client = RemoteBackend(server.address, timeout=0.2, patience=0.5)
        client.open()
        client.configure(CIRCUIT)
    with pytest.raises(DeviceError, match="Is it running and is the address right"):
        client.run(WEIGHTS, stimulus())
    client.close()
