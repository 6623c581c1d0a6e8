"""`hxtrain serve`: serve a device; make keys; ask a server for its status or metrics."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hxtrain.backends import DeviceError
from hxtrain.backends.remote import LinkSettings, ask_metrics, ask_status, make_keys
from hxtrain.commands.serve import report_rows, serve
from hxtrain.runs.progress import Progress

from .app import guarded, typed_settings, warn_without_effect
from .command import command

USAGE = """hxtrain serve backend=emulator chip=W66F3 bind=tcp://127.0.0.1:5555 [keys=DIR]   serve (--help lists all)
hxtrain serve keys DIR [CLIENT]                         make keys for a server and a client
hxtrain serve status address=tcp://... [keys=DIR]       who has the chip, who waits, what was done
hxtrain serve metrics address=tcp://... [keys=DIR]      the same in Prometheus' text format"""


def main() -> None:
    """Serve, or run the command in the first word."""
    commands: dict[str, Callable[[list[str]], None]] = {"keys": _keys, "status": _status, "metrics": _metrics}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        serve_command()
        return
    try:
        commands[sys.argv[1]](sys.argv[2:])
    except DeviceError as error:
        sys.exit(_failed(error, 3))
    except (ValueError, OSError, OmegaConfBaseException) as error:
        sys.exit(_failed(error, 2))


@command("serve", USAGE)
def serve_command(config: DictConfig) -> None:
    """Serve the device that the config names."""
    guarded(lambda: _serve(config))


def _serve(config: DictConfig) -> None:
    settings = typed_settings(config)
    progress = Progress()
    warn_without_effect(settings.backend)
    serve(settings, progress.say)


def _keys(words: list[str]) -> None:
    if not 1 <= len(words) <= 2:
        raise ValueError(f"keys needs a directory, and may have a client's name:\n{USAGE}")
    for file in make_keys(Path(words[0]).expanduser(), *words[1:]):
        print(file)


def _status(words: list[str]) -> None:
    Progress().table("chip server", ("what", "value"), report_rows(ask_status(_settings(words))))


def _metrics(words: list[str]) -> None:
    print(ask_metrics(_settings(words)), end="")


def _settings(words: list[str]) -> LinkSettings:
    if not any(word.startswith("address=") for word in words):
        raise ValueError(f"address=tcp://... is missing:\n{USAGE}")
    default = OmegaConf.structured({"address": "", "keys": None, "timeout": 2.0, "patience": 5.0})
    OmegaConf.set_struct(default, True)
    merged = OmegaConf.merge(default, OmegaConf.from_dotlist(words))
    settings: dict[str, object] = OmegaConf.to_container(merged)  # type: ignore[assignment]
    return LinkSettings(**settings)  # type: ignore[arg-type]


def _failed(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status
