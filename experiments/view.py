"""`hxtrain view`: a page of a run, or of all runs below a folder. Torch and Hydra are not needed."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from hxtrain.view.config import ViewConfig
from hxtrain.view.folder import Folder
from hxtrain.view.server import ViewServer

USAGE = """hxtrain view DIR [host=127.0.0.1] [port=0] [token=WORD]

Serves a page of a run directory, or of all runs below a folder (a sweep), and prints its address; Ctrl-C ends it. A run
that trains now shows more if it was started with live=true. On another machine: ssh -L 8000:127.0.0.1:PORT MACHINE,
then http://127.0.0.1:8000/ here. Page: docs/view.md"""


def main() -> int:
    """Serve until SIGINT; return the exit status (0: success, 2: an error)."""
    words = sys.argv[1:]
    if not words or {"--help", "-h"} & set(words):
        print(USAGE)
        return 0 if words else 2
    try:
        folder, config = parse(words)
        server = ViewServer(Folder(folder), config)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    count = len(server.folder.runs())
    runs = f"{count} run{'' if count == 1 else 's'}{'' if server.folder.is_complete else ' and more'}"
    print(f"{runs} in {server.folder.path}: {server.url}", flush=True)
    with suppress(KeyboardInterrupt):
        server.serve_forever(poll_interval=0.2)
    server.server_close()
    return 0


def parse(words: list[str]) -> tuple[Path, ViewConfig]:
    """Return folder and settings of a command line.

    Raises:
        ValueError: A setting is unknown or out of range, or the folder is missing or named twice.
    """
    settings: dict[str, str | int] = {}
    folders = []
    names = [item.name for item in fields(ViewConfig) if item.name != "serve"]
    for word in words:
        name, is_setting, value = word.partition("=")
        name = name.removeprefix("view.")
        if not is_setting or (name not in names and Path(word).expanduser().exists()):  # a sweep has names with =
            folders.append(Path(word).expanduser())
        elif name not in names:
            raise ValueError(f"{name} is no setting of hxtrain view; it has {', '.join(names)}")
        else:
            settings[name] = int(value) if name == "port" and value.isdecimal() else value
    if len(folders) != 1:
        raise ValueError(f"hxtrain view shows one folder, {len(folders)} are named:\n{USAGE}")
    return folders[0], ViewConfig(**settings)  # type: ignore[arg-type]
