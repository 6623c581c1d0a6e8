"""Hostile requests and hostile run directories: what the server of the live view must endure.

`python tests/view/hostile.py 10000` sends that many requests to a server of its own process, with a token and without,
and prints time, memory, threads and open files before and after. The tests send a few hundred.
"""

import json
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from run_folders import write_run

from hxtrain.view.config import ViewConfig
from hxtrain.view.folder import Folder
from hxtrain.view.server import ViewServer

SECRET = "TOP SECRET 4711"
TOKEN = "t0ken-of-24-letters-long"
NAMES = ("<img src=x onerror=alert(1)>", "'\";--", "日本語", "a\u202eb", " ", "lr=0.1,seed=2", "%2e%2e", "x" * 200)
"""Names of runs: markup, quotes, letters of many scripts and directions, and the like."""
CONTENTS = (
    b"", b"{", b"null", b"[" * 100_000, b'{"a": 1e999}', b'{"format":1,"written":1e999,', b"\x00\xff", b"[1]\n" * 9,
    b'{"format":1,"written":1,"epoch":' + b"9" * 400, b'{"epoch": NaN}\n', b'{"test_accuracy": "<b>"}\n',
    b'{"epoch": {"a": []}, "notes": 3}\n', b"a: &a [*a]\n", b"a: " + b"&b " * 5000, b"x" * (17 * 2**20),
)  # fmt: skip
"""Contents of files: torn, too deep, too large, with numbers that are none, and of wrong types."""
FILES = ("config.yaml", "metrics.jsonl", "result.json", "live.json", ".lock")


def hostile_folder(folder: Path, seed: int = 0) -> Path:
    """Return a folder with runs whose names and files are hostile, and links to a secret outside of it."""
    rng = random.Random(seed)
    secret = folder / "secret.txt"
    secret.write_text(SECRET)
    runs = folder / "runs"
    write_run(runs / "good")
    for name in NAMES:
        run = write_run(runs / name.replace("/", ""), is_finished=False)
        for file in rng.sample(FILES[1:], 3):
            (run / file).write_bytes(rng.choice(CONTENTS))
    for index, content in enumerate(CONTENTS[:-1]):
        run = write_run(runs / f"damaged{index}")
        (run / rng.choice(FILES)).write_bytes(content)
    linked = write_run(runs / "linked", is_live=False)
    for name in ("live.json", "result.json", "metrics.jsonl"):
        (linked / name).unlink(missing_ok=True)
        (linked / name).symlink_to(secret)
    (runs / "outside").symlink_to(folder, target_is_directory=True)
    piped = write_run(runs / "piped", is_live=False)
    os.mkfifo(piped / "live.json")
    return runs


@contextmanager
def serving(folder: Path, **settings: object) -> Iterator[ViewServer]:
    """Serve a folder in a thread within the block."""
    server = ViewServer(Folder(folder), ViewConfig(**settings))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.stop()
    thread.join(5)
    server.server_close()


def raw(server: ViewServer, request: bytes, seconds: float = 5.0) -> bytes:
    """Return what the server answers to raw bytes; nothing if it cuts the connection."""
    with socket.create_connection(("127.0.0.1", server.server_address[1]), seconds) as link:
        try:
            link.sendall(request)
            link.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: link.recv(65536), b""))
        except TimeoutError:
            raise
        except OSError:  # the server cut the connection
            return b""


METHODS = (b"GET",) * 20 + (b"HEAD", b"POST", b"PUT", b"OPTIONS", b"TRACE", b"get", b"\x00", b"G" * 5000, b"")
PARTS = (
    b"..", b"%2e%2e", b"..%2f", b"%252e%252e%252f", b"%c0%ae%c0%ae/", b"..%5c", b"\\", b"/", b"//", b"secret.txt",
    b"etc/passwd", b"%00", b"live.json", b"run", b"live", b"?id=", b"&", b"a", b"%", b"\xff", b"events", b"runs", b";",
    b"#", b"http://x", b"=" * 50, b"file://", b"<script>", b"config.yaml", b"good",
)  # fmt: skip
HOSTS = (
    *(b"localhost",) * 20, b"127.0.0.1", b"evil", b"", b"localhost:99999999", b"[", b"\xff", b"a" * 4000, b"::1",
    b"localhost.evil.example", b"evil.example#localhost", b"localhost@evil.example", b"127.0.0.1.nip.io", b"0.0.0.0",
)  # fmt: skip


def hostile_requests(count: int, seed: int, ids: tuple[str, ...] = ()) -> Iterator[bytes]:
    """Yield requests of mixed valid and invalid parts.

    Args:
        count: Number of requests.
        seed: Seed of all choices.
        ids: Ids of runs; some requests name one.
    """
    rng = random.Random(seed)
    tokens = ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%00", "é", TOKEN * 9)
    for _ in range(count):
        if ids and rng.random() < 0.2:
            target = rng.choice([b"/run", b"/live", b"/runs"]) + b"?id=" + rng.choice(ids).encode()
            target += b"&token=" + rng.choice(tokens).encode()
        else:
            target = b"/" * rng.randint(0, 1) + b"".join(rng.choices(PARTS, k=rng.randint(0, 6)))
        if target.lstrip(b"/").startswith(b"events"):  # a stream has no end
            target = b"/x" + target
        version = rng.choice([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/9.9", b"X", b""])
        lines = [b" ".join([rng.choice(METHODS), target, version])]
        if rng.random() < 0.9:
            lines.append(b"Host: " + rng.choice(HOSTS))
        lines += [bytes(rng.randbytes(rng.randint(1, 40))) for _ in range(rng.choice([0] * 8 + [1, 3]))]
        lines += [b"X-%d: " % k + b"y" * rng.choice([1, 300]) for k in range(rng.choice([0] * 6 + [1, 120]))]
        text = rng.choice([b"\r\n", b"\r\n", b"\n"]).join(lines) + rng.choice([b"\r\n\r\n", b"\r\n\r\n", b"\n", b""])
        yield text[: rng.randint(0, len(text))] if rng.random() < 0.1 else text  # a tenth is torn


def attack(server: ViewServer, count: int, seed: int) -> Counter[str]:
    """Send hostile requests, one after another, and return the number of answers of each status; `cut` for none.

    Raises:
        AssertionError: An answer holds the secret, or, from a server with a token, anything of a run.
    """
    ids = tuple(run.id for run in server.folder.runs())
    statuses: Counter[str] = Counter()
    for request in hostile_requests(count, seed, ids):
        answer = raw(server, request)
        assert SECRET.encode() not in answer, request
        assert b"root:" not in answer, request
        assert server.token is None or b'"state"' not in answer, request
        start = answer.split(b" ", 2)
        statuses[start[1].decode("latin-1") if answer.startswith(b"HTTP/") else "no status" if answer else "cut"] += 1
    return statuses


def settled(threads: int, seconds: float = 15.0) -> int:
    """Return the number of threads, after the time in which those above a number may end."""
    end = time.monotonic() + seconds
    while threading.active_count() > threads and time.monotonic() < end:
        time.sleep(0.02)
    return threading.active_count()


def slow_clients(server: ViewServer, count: int) -> list[socket.socket]:
    """Return connections that send a part of a request and wait."""
    links = [socket.create_connection(("127.0.0.1", server.server_address[1]), 5) for _ in range(count)]
    for link in links:
        link.sendall(b"GET /runs HTTP/1.1\r\nHost: local")
    return links


def _memory() -> int:
    """Return the resident memory of this process (bytes)."""
    text = Path("/proc/self/statm").read_text(encoding="utf-8")
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _report(server: ViewServer, count: int) -> None:
    attack(server, 200, seed=0)  # imports, caches and parsed files
    threads = settled(0, 0.5)
    memory = _memory()
    files = len(os.listdir("/proc/self/fd"))
    start = time.perf_counter()
    statuses = attack(server, count, seed=2026)
    seconds = time.perf_counter() - start
    slow = slow_clients(server, 40)
    time.sleep(0.2)
    held = threading.active_count()
    for link in slow:
        link.close()
    left = settled(threads)
    print(f"{count} requests, {'a' if server.token else 'no'} token: {seconds:.1f} s; {dict(statuses.most_common())}")
    print(f"  memory {memory / 2**20:.1f} MiB before, {_memory() / 2**20:.1f} MiB after")
    print(f"  threads {threads} before, {held} with 40 slow clients, {left} after")
    print(f"  open files {files} before, {len(os.listdir('/proc/self/fd'))} after")
    path = "/runs" if server.token is None else f"/runs?token={server.token}"
    answer = raw(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    runs = json.loads(answer.partition(b"\r\n\r\n")[2])["runs"]
    print(f"  the server still answers with {len(runs)} runs")


def main() -> None:
    """Attack a server with a token and one without, and print what changed."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as name:
        runs = hostile_folder(Path(name))
        for settings in ({}, {"token": TOKEN}):
            with serving(runs, **settings) as server:
                _report(server, count)


if __name__ == "__main__":
    main()
