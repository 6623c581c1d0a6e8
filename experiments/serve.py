"""`hxtrain serve`: serve a device; make keys; ask a server for its status or metrics."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from hxtrain.backends.remote import ask_metrics, ask_status, make_keys
from hxtrain.commands.serve import report_rows, serve
from hxtrain.runs.progress import Progress

from .app import guarded, typed_settings, warn_without_effect
from .command import command
from .questions import answered, link_settings

USAGE = """hxtrain serve backend=emulator chip=W66F3 bind=tcp://127.0.0.1:5555 [keys=DIR]   serve (--help lists all)
hxtrain serve keys DIR [CLIENT]                         make keys for a server and a client
hxtrain serve status address=tcp://... [keys=DIR]       who has the chip, who waits, what was done
hxtrain serve metrics address=tcp://... [keys=DIR]      the same in Prometheus' text format"""
EXAMPLE = "tcp://..."


def main() -> None:
    """Serve, or run the command in the first word."""
    if not answered({"keys": _keys, "status": _status, "metrics": _metrics}):
        serve_command()


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
    Progress().table("chip server", ("what", "value"), report_rows(ask_status(link_settings(words, EXAMPLE, USAGE))))


def _metrics(words: list[str]) -> None:
    print(ask_metrics(link_settings(words, EXAMPLE, USAGE)), end="")
