"""Server of the live view: one page, and the runs below one folder as JSON.

Every address is looked up in a table of fixed names, and a run is named by an id that the server made, so that no part
of a request becomes a path. Only GET and HEAD are answered, one request per connection.
"""

from __future__ import annotations

import gzip
import hmac
import ipaddress
import json
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from io import BufferedIOBase
from socketserver import TCPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from .config import ViewConfig
from .folder import Folder, Run

REQUEST_TIME = 10.0
"""Time in which a request must have arrived, and in which a client must take an answer (s)."""
LONGEST_REQUEST = 16 * 2**10
"""Length limit of a request with its headers (bytes)."""
MOST_CONNECTIONS = 48
MOST_STREAMS = 24
"""Number of open streams of events; a page has one while it is visible."""
POLL = 0.4
"""Time between two looks at the files (s)."""
PULSE = 10.0
"""Time after which a stream without news shows that it is alive (s)."""
LOST = 30.0
"""Time without an acknowledgement after which the client of a stream counts as gone (s), where the system can tell."""
LEAST_ZIPPED = 2000
"""Length from which an answer is compressed (bytes)."""
STATIC = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/panels.js": ("panels.js", "text/javascript; charset=utf-8"),
    "/draw.js": ("draw.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""File and type of each address of the page itself, which holds no data of runs."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
JSON = "application/json; charset=utf-8"


class ViewServer(ThreadingHTTPServer):
    """Serves the page of a folder.

    Args:
        folder: Run directory, or folder with many.
        config: Address and token.

    Attributes:
        folder: See above.
        token: Token that requests must name; None: none.
        address: Address of the page, without the token.
        url: Address of the page.
        streams: Number of open streams.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, folder: Folder, config: ViewConfig) -> None:
        self.folder = folder
        self.token = config.secret()
        self.is_ending = threading.Event()
        self.streams = 0
        self.last_stream = time.monotonic()
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._counting = threading.Lock()
        self._names = _names(config)
        self._static = {path: files(__package__).joinpath(name).read_bytes() for path, (name, _) in STATIC.items()}
        if ":" in config.host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((config.host, config.port), Handler)
        except OSError as error:
            raise ValueError(
                f"view.host={config.host} view.port={config.port}: {error.strerror or error}; name another port, or 0 "
                "for a free one"
            ) from error
        host = socket.gethostname() if config.is_everywhere else config.host
        host = f"[{host}]" if ":" in host else host
        self.address = f"http://{host}:{self.server_address[1]}/"
        self.url = self.address if self.token is None else f"{self.address}?token={self.token}"

    def server_bind(self) -> None:
        """Bind the address; `http.server` would then ask for the full name of the host, and wait for an answer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def is_name(self, host: str) -> bool:
        """Return whether a Host header names this server: else a foreign page may have rebound its own name to it."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self._names or bool(self.token is not None and ipaddress.ip_address(name))
        except ValueError:
            return False

    def static(self, path: str) -> bytes:
        """Return a file of the page."""
        return self._static[path]

    def stop(self) -> None:
        """End all streams and the server, after a last look at the files."""
        self.is_ending.set()
        self.shutdown()

    def enter_stream(self) -> bool:
        """Count a new stream; returns False if there are too many."""
        with self._counting:
            if self.streams >= MOST_STREAMS:
                return False
            self.streams += 1
            return True

    def leave_stream(self) -> None:
        """Count the end of a stream."""
        with self._counting:
            self.streams -= 1
            self.last_stream = time.monotonic()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own, if there are not too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection, and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Forget a connection that fails: the client is gone, or sends nonsense."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.0"
    server_version = "hxtrain"
    sys_version = ""
    timeout = REQUEST_TIME

    def setup(self) -> None:
        """Limit the length of the request and the time in which it arrives."""
        super().setup()
        self.view = cast(ViewServer, self.server)
        self._request = _LimitedReader(self.rfile, LONGEST_REQUEST)
        self.rfile = cast(Any, self._request)
        self._cutter = threading.Timer(REQUEST_TIME, self._cut)
        self._cutter.daemon = True
        self._cutter.start()

    def finish(self) -> None:
        """End the connection."""
        self._cutter.cancel()
        super().finish()

    def _cut(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        """Answer a request."""
        self._cutter.cancel()
        if self._request.is_cut:
            return self.send_error(431)
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.view.is_name(hosts[0]):
            return self.send_error(421)
        if self.headers.get("Sec-Fetch-Site", "none") == "cross-site":
            return self.send_error(403)
        path, _, query = self.path.partition("?")
        if path in STATIC and path != "/":
            return self._static(path)
        try:
            words = parse_qs(query, max_num_fields=8)
        except ValueError:
            return self.send_error(400)
        token = (words.get("token") or [""])[0]
        if self.view.token is not None and not hmac.compare_digest(token.encode(), self.view.token.encode()):
            return self.send_error(403)
        if path == "/":
            return self._static(path)
        answer = ANSWERS.get(path)
        if answer is None:
            return self.send_error(404)
        return answer(self, (words.get("id") or [""])[0])

    do_HEAD = do_GET  # noqa: N815 - the names of http.server

    def _static(self, path: str) -> None:
        self._send(self.view.static(path), STATIC[path][1])

    def send_runs(self, number: str) -> None:
        """Send the table of runs."""
        folder = self.view.folder
        self._send_json({"folder": str(folder.path), "is_complete": folder.is_complete, "runs": folder.table()})

    def send_run(self, number: str) -> None:
        """Send what is known of a run besides its snapshot."""
        run = self._run(number)
        if run is not None:
            self._send_json(run.content())

    def send_live(self, number: str) -> None:
        """Send the snapshot of a run as it was written; the page checks it."""
        run = self._run(number)
        if run is not None:
            self._send(run.live(), JSON)

    def _run(self, number: str) -> Run | None:
        run = self.view.folder.run(number)
        if run is None:
            self.send_error(404)
        return run

    def send_events(self, number: str) -> None:
        """Send an event whenever the table of runs, or the run with this id, changes, until either side ends."""
        if self.command == "HEAD":
            return self._headers("text/event-stream")
        if not self.view.enter_stream():
            return self.send_error(503)
        try:
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # a client that vanished without a word
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * LOST))
            self._headers("text/event-stream")
            self.wfile.write(b"retry: 1500\n\n")
            self._stream(number)
        finally:
            self.view.leave_stream()

    def _stream(self, number: str) -> None:
        previous = None
        last = time.monotonic()
        while True:
            is_last = self.view.is_ending.is_set()
            runs = self.view.folder.marks()
            marks = {"runs": hash(str(runs)) % 2**50, **runs.get(number, {})}  # JavaScript has integers of 53 bits
            if marks != previous:
                self.wfile.write(f"data: {json.dumps(marks)}\n\n".encode())
                last = time.monotonic()
            elif time.monotonic() - last > PULSE:
                self.wfile.write(b": alive\n\n")
                last = time.monotonic()
            self.wfile.flush()
            previous = marks
            if is_last or self._is_left():
                return
            self.view.is_ending.wait(POLL + 0.004 * len(runs))

    def _is_left(self) -> bool:
        """Return whether the client closed the connection; a stream without news would keep its place till a pulse."""
        is_readable = bool(select.select([self.connection], [], [], 0)[0])
        return is_readable and not self.connection.recv(1, socket.MSG_PEEK)

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value, separators=(",", ":")).encode(), JSON)

    def _send(self, body: bytes, kind: str) -> None:
        is_zipped = len(body) >= LEAST_ZIPPED and "gzip" in self.headers.get("Accept-Encoding", "")
        body = gzip.compress(body, 1) if is_zipped else body
        self._headers(kind, len(body), is_zipped)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _headers(self, kind: str, length: int | None = None, is_zipped: bool = False, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if is_zipped:
            self.send_header("Content-Encoding", "gzip")
        if length is not None:
            self.send_header("Content-Length", str(length))
        if code == 501:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Connection", "close")
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send an error without a word of the request."""
        self._cutter.cancel()
        self.close_connection = True
        remedy = f": open {self.view.address}" if code == 421 else ""
        text = f"{code} {self.responses.get(code, ('', ''))[0]}{remedy}\n".encode()
        self._headers("text/plain; charset=utf-8", len(text), code=code)
        if getattr(self, "command", None) != "HEAD":
            self.wfile.write(text)

    def log_message(self, form: str, *words: Any) -> None:
        """Log nothing: addresses hold the token."""


ANSWERS: dict[str, Callable[[Handler, str], None]] = {
    "/runs": Handler.send_runs,
    "/run": Handler.send_run,
    "/live": Handler.send_live,
    "/events": Handler.send_events,
}
"""Method that answers each address with data of runs."""


class _LimitedReader:
    """A stream that ends after a number of bytes."""

    def __init__(self, stream: BufferedIOBase, limit: int) -> None:
        self._stream = stream
        self._rest = limit

    def readline(self, size: int = -1) -> bytes:
        line = self._stream.readline(self._rest if size < 0 else min(size, self._rest))
        self._rest -= len(line)
        return line

    @property
    def is_cut(self) -> bool:
        """Whether the limit was reached, so that something may be missing."""
        return self._rest <= 0

    def close(self) -> None:
        self._stream.close()

    @property
    def closed(self) -> bool:
        return self._stream.closed


def _names(config: ViewConfig) -> frozenset[str]:
    """Return the names by which a browser may call the server."""
    names = {"localhost", "127.0.0.1", "::1", config.host.lower()}
    if not config.is_local:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names)
