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
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline().decode(errors="replace").strip()
        if not line.startswith("http://"):
            warn(f"the live view did not start: {line or 'its process ended'}; the training goes on")
        yield line if line.startswith("http://") else None
    finally:
        _end(process, process.stdin)


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
    threading.Thread(target=_watch, args=(server, sys.stdin.buffer), daemon=True).start()
    server.serve_forever(poll_interval=0.2)


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
