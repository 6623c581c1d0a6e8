"""The server of the live view beside a training: a process of its own, which can do nothing but read files.

It ends with the training. If the training is killed, the page stays for as long as somebody looks at it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

from .config import ViewConfig
from .folder import Folder
from .server import ViewServer

CODE = "from hxtrain.view.companion import main; main()"
END = b"end\n"
"""What the training says when it ends in order."""
LAST_LOOK = 2.0
"""Time for pages to get the last state after an end in order (s)."""
START = 60.0
"""Time in which the server must have started (s); the imports may come over a network."""
PATIENCE = 60.0
"""Time without a page after which the server of a killed training ends (s)."""


@contextmanager
def companion(folder: Path, config: ViewConfig, warn: Callable[[str], None]) -> Iterator[str | None]:
    """Serve the page of a run directory in another process within the block.

    Yields:
        Address of the page; None if the server did not start, of which `warn` gets the reason.
    """
    paths = os.pathsep.join(path for path in sys.path if path)
    words = [sys.executable, "-c", CODE, str(folder.absolute()), json.dumps(asdict(config))]
    root = os.path.abspath(os.sep)  # a folder in which no module hides one of the library
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=root,
            env={**os.environ, "PYTHONPATH": paths},
        )
    except OSError as error:
        warn(f"the live view did not start: {error}; the training goes on")
        yield None
        return
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url, reason = _first_words(process, process.stdout)
        if url is None:
            warn(f"the live view did not start: {reason}; the training goes on")
        yield url
    finally:
        _end(process, process.stdin)
        process.stdout.close()


def _first_words(process: subprocess.Popen[bytes], pipe: IO[bytes]) -> tuple[str | None, str]:
    """Return the address that a server tells, or None and the reason for which it tells none."""
    late = threading.Timer(START, process.kill)
    late.daemon = True
    late.start()
    try:
        line = pipe.readline().decode(errors="replace").strip()
        if line.startswith("http://"):
            return line, ""
        lines = [line, *pipe.read().decode(errors="replace").split("\n")]  # a traceback ends with its error
    finally:
        late.cancel()
    words = [text.strip() for text in lines if text.strip()]
    return None, words[-1] if words else f"its process ended, or was silent for {START:.0f} s"


def _end(process: subprocess.Popen[bytes], pipe: IO[bytes]) -> None:
    """Tell the server that the training ends, and wait for its own end."""
    with suppress(OSError):
        pipe.write(END)
        pipe.close()
    try:
        process.wait(LAST_LOOK + 3.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Serve the folder in the first word until the process that started this one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the training saves its state, and then says so
    with suppress(OSError, AttributeError):
        os.nice(10)
    try:
        server = ViewServer(Folder(Path(sys.argv[1])), ViewConfig(**json.loads(sys.argv[2])))
    except (ValueError, OSError) as error:
        print(error, flush=True)
        return
    print(server.url, flush=True)
    _leave_output()
    threading.Thread(target=_watch, args=(server, sys.stdin.buffer), daemon=True).start()
    server.serve_forever(poll_interval=0.2)


def _leave_output() -> None:
    """Write nothing into the pipe from here on: the training reads one line of it."""
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)


def _watch(server: ViewServer, pipe: IO[bytes]) -> None:
    """Stop the server after the training: soon if it ended in order, else when nobody looks any more."""
    is_orderly = pipe.readline() == END
    if is_orderly:
        end = time.monotonic() + (LAST_LOOK if server.streams else 0.0)
        while time.monotonic() < end:
            time.sleep(0.1)
    else:
        server.last_stream = time.monotonic()
        while server.streams or time.monotonic() - server.last_stream < PATIENCE:
            time.sleep(0.5)
    server.stop()
