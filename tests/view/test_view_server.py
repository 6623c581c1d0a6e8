"""The server of the live view: what it answers, and what it refuses. Each hostile request is sent as raw bytes."""

import gzip
import json
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import CONTENTS, NAMES, SECRET, TOKEN, attack, hostile_folder, raw, serving, settled, slow_clients
from run_folders import write_run

from hxtrain.experiments.view import parse
from hxtrain.view import server as module
from hxtrain.view.config import ViewConfig
from hxtrain.view.server import STATIC, ViewServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text(SECRET)
    write_run(tmp_path / "runs" / "a")
    write_run(tmp_path / "runs" / "b", trained=1, is_finished=False)
    return tmp_path / "runs"


@pytest.fixture
def server(folder: Path) -> Iterator[ViewServer]:
    with serving(folder) as running:
        yield running


def ask(
    server: ViewServer, target: str, method: str = "GET", host: str = "localhost", **headers: str
) -> tuple[int, str, bytes]:
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}",
        *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
    ]
    head, _, body = raw(server, "\r\n".join([*lines, "", ""]).encode("latin-1")).partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, head.decode("latin-1"), body


def test_the_page_and_its_data(server, folder):
    for path in STATIC:
        status, head, body = ask(server, path)
        assert status == 200
        assert body
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in head
        assert "unsafe" not in head
    runs = json.loads(ask(server, "/runs")[2])["runs"]
    assert [(run["name"], run["state"], run["accuracy"]) for run in runs] == [
        ("a", "finished", 0.87),
        ("b", "interrupted", pytest.approx(0.59)),
    ]
    assert runs[1]["step"] == 25
    assert runs[0]["differences"] == {"name": "a"}
    run = json.loads(ask(server, f"/run?id={runs[0]['id']}")[2])
    assert [record["chip_seconds"] for record in run["records"]] == [0.4] * 3
    assert run["settings"]["trainer"] == {"epochs": 3}
    zipped = ask(server, f"/live?id={runs[0]['id']}", Accept_Encoding="gzip")[2]
    assert gzip.decompress(zipped) == (folder / "a" / "live.json").read_bytes()
    assert ask(server, "/runs", "HEAD")[::2] == (200, b"")


def test_no_file_names_a_foreign_place(server):
    text = b"".join(server.static(path) for path in STATIC)
    for word in (b"http://", b"https://", b"innerHTML", b"eval(", b"style=", b"<script>"):
        assert word not in text.replace(b"http://www.w3.org/2000/svg", b""), word


HOSTILE = [
    "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/a/../../secret.txt", "//etc/passwd", "/etc/passwd",
    "/a/config.yaml", "/live.json", "/run?id=../secret.txt", "/run?id=%2e%2e%2fsecret.txt", "/live?id=/etc/passwd",
    "/live?id=a", "/run", "/run?id=", "/page.js/../../secret.txt", "/%00", "/run?id=%00", "http://evil/runs",
    "file:///etc/passwd", "/page.css%00.js", "/./page.css", "\\..\\secret.txt", "/run?id=" + "a" * 3000, "*",
]  # fmt: skip


@pytest.mark.parametrize("target", HOSTILE)
def test_no_address_leads_out_of_the_table(server, target):
    status, _, body = ask(server, target)
    assert status == 404
    assert SECRET.encode() not in body
    assert body == b"404 Not Found\n"


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /runs HTTP/1.1\r\n\r\n", 421),  # no host
        (b"GET /runs HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET /runs HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", 421),
        (b"GET /runs HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n", 421),
        (b"GET /runs HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", 421),
        (b"GET /runs HTTP/1.1\r\nHost: [::1\r\n\r\n", 421),
        (b"GET /runs HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n", 403),
        (b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 501),
        (b"PUT /live HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (b"DELETE /run HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (b"GET /runs?a=1&b=2&c=3&d=4&e=5&f=6&g=7&h=8&i=9 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /runs\r\n\r\n", 421),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET " + b"/" * 20000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET /runs HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 20000 + b"\r\n\r\n", 431),
        (b"GET /runs HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % k for k in range(150)) + b"\r\n", 431),
    ],
)  # fmt: skip
def test_requests_that_no_browser_sends_for_this_page(server, request_text, status):
    answer = raw(server, request_text)
    assert b"finished" not in answer
    if status == 431 and not answer:
        return  # the connection was reset, since the end of the request was never read
    assert b"%d " % status in answer.splitlines()[0]  # an answer to HTTP/0.9 has no status line
    assert ask(server, "/runs")[0] == 200


def test_addresses_of_ipv6_and_of_all_interfaces(folder):
    if socket.has_ipv6:
        with serving(folder, host="::1") as server:
            assert server.url == f"http://[::1]:{server.server_address[1]}/"
            with urllib.request.urlopen(server.url + "runs", timeout=5) as answer:
                assert b'"name":"a"' in answer.read()
    with serving(folder, host="0.0.0.0") as server:
        assert server.url.startswith(f"http://{socket.gethostname()}:")
        assert ask(server, "/runs")[0] == 403
        _, _, body = ask(server, "/runs", host="evil.example")
        assert body == f"421 Misdirected Request: open {server.address}\n".encode()


def test_a_folder_of_a_sweep_may_look_like_a_setting(tmp_path):
    run = write_run(tmp_path / "lr=0.1,seed=2")
    assert parse([str(run), "port=80"]) == (run, ViewConfig(port=80))
    with pytest.raises(ValueError, match=r"lr is no setting of hxtrain view"):
        parse(["lr=0.1,seed=3"])


def test_a_host_of_another_port_is_a_tunnel(server):
    assert ask(server, "/runs", host="localhost:9999")[0] == 200
    assert ask(server, "/runs", host="127.0.0.1:1")[0] == 200


def test_every_address_with_data_needs_the_token(folder):
    with serving(folder, token=TOKEN) as server:
        assert server.url.endswith(f"/?token={TOKEN}")
        for target in ("/", "/runs", "/run", "/live", "/events"):
            for query in ("", "?token=", "?token=x", f"?token={TOKEN}x", f"?token={TOKEN[:-1]}", f"?Token={TOKEN}"):
                assert ask(server, target + query)[0] == 403
        assert ask(server, f"/runs?token={TOKEN}")[0] == 200
        assert ask(server, "/page.css")[0] == 200


def test_an_address_of_the_network_gets_a_token():
    assert ViewConfig().secret() is None
    assert ViewConfig(host="::1").secret() is None
    assert len(ViewConfig(host="0.0.0.0").secret() or "") >= 32
    assert ViewConfig(host="0.0.0.0").secret() != ViewConfig(host="0.0.0.0").secret()
    with pytest.raises(ValueError, match=r"view.token has 5 characters; give at least 16"):
        ViewConfig(token="short")
    with pytest.raises(ValueError, match=r"view.port=70000 must be in 0..65535"):
        ViewConfig(port=70000)


def test_links_pipes_and_large_files_are_not_read(tmp_path, folder, monkeypatch):
    (folder / "a" / "live.json").unlink()
    (folder / "a" / "live.json").symlink_to(tmp_path / "secret.txt")
    (folder / "b" / "live.json").unlink()
    os.mkfifo(folder / "b" / "live.json")
    (folder / "b" / "metrics.jsonl").unlink()
    (folder / "b" / "metrics.jsonl").symlink_to(folder / "a" / "metrics.jsonl")
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.setattr("hxtrain.view.folder.read_regular.__defaults__", (400, None))
    with serving(folder) as server:
        runs = {run["name"]: run for run in json.loads(ask(server, "/runs")[2])["runs"]}
        assert set(runs) == {"a", "b"}
        for run in runs.values():
            status, _, body = ask(server, f"/live?id={run['id']}")
            assert (status, body) == (200, b"")
        assert runs["b"]["finished_epochs"] == 0
        assert runs["a"]["finished_epochs"] == 0  # 3 records are more than 400 bytes


def test_slow_clients_are_cut_and_too_many_refused(folder, monkeypatch):
    monkeypatch.setattr(module, "REQUEST_TIME", 0.3)
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 3)
    with serving(folder) as server:
        start = time.monotonic()
        slow = slow_clients(server, 3)
        time.sleep(0.1)
        assert raw(server, b"GET /runs HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
        for link in slow:
            try:
                while link.recv(4096):
                    pass
            except ConnectionError:
                pass
            link.close()
        assert time.monotonic() - start < 3
        assert ask(server, "/runs")[0] == 200


def test_a_stream_tells_what_changed_and_ends_with_the_server(folder):
    with serving(folder) as server:
        number = server.folder.runs()[0].id
        link = socket.create_connection(("127.0.0.1", server.server_address[1]), 5)
        link.sendall(f"GET /events?id={number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        lines = link.makefile("r")

        def event() -> dict[str, str]:
            return json.loads(next(line for line in lines if line.startswith("data:"))[5:])

        first = event()
        (folder / "a" / "live.json").write_text('{"format":1}')
        second = event()
        assert first["run"] == second["run"]
        assert first["live"] != second["live"]
        assert server.streams == 1
        server.is_ending.set()
        assert not [line for line in lines if line.startswith("data:")]
    link.close()


def test_a_stream_that_its_client_leaves_frees_its_place(folder, monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.02)
    with serving(folder) as server:
        link = socket.create_connection(("127.0.0.1", server.server_address[1]), 5)
        link.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert link.recv(1000)
        assert server.streams == 1
        link.close()
        end = time.monotonic() + 5
        while server.streams and time.monotonic() < end:
            time.sleep(0.01)
        assert server.streams == 0, "there is no news that would tell"
        assert server.last_stream > end - 5


@pytest.mark.parametrize("settings", [{}, {"token": TOKEN}])
def test_hundreds_of_hostile_requests_change_nothing(tmp_path, settings):
    """Tens of thousands: `python tests/view/hostile.py 10000`."""
    runs = hostile_folder(tmp_path)
    marks = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    threads = threading.active_count()
    with serving(runs, **settings) as server:
        statuses = attack(server, 200, seed=1)
        path = "/runs" if server.token is None else f"/runs?token={TOKEN}"
        table = json.loads(ask(server, path)[2])["runs"]
    assert len(table) == len(NAMES) + len(CONTENTS) - 1 + 3
    assert statuses["404" if server.token is None else "403"] > 9
    assert bool(statuses["200"]) == (server.token is None)
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == marks
    assert settled(threads) <= threads


def test_every_damaged_run_has_an_answer(tmp_path):
    with serving(hostile_folder(tmp_path)) as server:
        for run in server.folder.runs():
            status, _, body = ask(server, f"/run?id={run.id}")
            assert status == 200
            content = json.loads(body, parse_constant=pytest.fail)
            assert content["name"] == run.name
            status, _, body = ask(server, f"/live?id={run.id}")
            assert status == 200
            assert SECRET.encode() not in body
