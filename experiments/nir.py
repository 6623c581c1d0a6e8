"""`hxtrain nir`: networks as NIR graphs, from and for other programs."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rich.console import Console

from hxtrain.backends import DeviceError
from hxtrain.commands.nir import (
    AGREEMENT_COLUMNS,
    CHECK_COLUMNS,
    MEASURED_COLUMN,
    AgreeConfig,
    CheckConfig,
    ExportConfig,
    ImportConfig,
    agree,
    check,
    export_network,
    import_graph,
)
from hxtrain.console import print_table, write_any_letter
from hxtrain.runs.checkpoint import CheckpointError

from .assignments import help_text, typed
from .benchmark.exchange import COLUMNS, PeersConfig, selected, table

USAGE = """\
hxtrain nir: networks as NIR graphs, from and for other programs (docs/exchange.md)

  hxtrain nir export RUN out=FILE.nir [SETTING=VALUE ...]   a run, or a file of hx.save, as a graph
  hxtrain nir import FILE out=NET.pt [SETTING=VALUE ...]    a graph as a network: hx.load, trainer.initial
  hxtrain nir check FILE [SETTING=VALUE ...]                which programs take a graph, and why not
  hxtrain nir agree [networks=100]                          random networks in the installed ones, bin by bin
  hxtrain nir peers [epochs=5]                              networks that these train and export, read here
"""
REASON_COLUMNS = 72
"""Greatest width of a reason against a graph (columns)."""


class Form(NamedTuple):
    """A form of the verb.

    Attributes:
        config: Its settings.
        work: Function of the settings and a console; returns the exit status.
    """

    config: type
    work: Callable[[Any, Console], int]


def main() -> int:
    """Run the command; return the exit status (0: success, 1: a disagreement, 2: an error)."""
    words = sys.argv[1:]
    write_any_letter()
    if not words or {"--help", "-h"} & set(words):
        print(help_text(USAGE, {name: form.config for name, form in FORMS.items()}))
        return 0
    try:
        if words[0] not in FORMS:
            raise ValueError(f"{words[0]} is no form of this command\n\n{USAGE}")
        form = FORMS[words[0]]
        names = [f"file={word}" if "=" not in word else word for word in words[1:]]
        return form.work(typed(form.config, names), Console())
    except (ValueError, OSError, ImportError, CheckpointError, DeviceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _export(config: ExportConfig, console: Console) -> int:
    lines = export_network(config)
    _say(console, lines)
    return 0


def _import(config: ImportConfig, console: Console) -> int:
    lines = import_graph(config)
    _say(console, lines)
    return 0


def _check(config: CheckConfig, console: Console) -> int:
    report = check(config)
    _say(console, report.lines)
    program, verdict, reasons = CHECK_COLUMNS
    columns = (program, verdict, MEASURED_COLUMN, reasons) if config.run else CHECK_COLUMNS
    rows = []
    for row in report.rows:
        measured = (row.measured,) if config.run else ()
        rows.append((row.program, row.verdict, *measured, "\n".join(map(_folded, row.reasons))))
    print_table(console, "readers", columns, rows)
    return 0


def _folded(text: str) -> str:
    """Return a text in lines of `REASON_COLUMNS`, since a file gets whole entries of a table."""
    return textwrap.fill(text, REASON_COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _agree(config: AgreeConfig, console: Console) -> int:
    with console.status("networks") as status:
        rows = agree(config, lambda count: status.update(f"{count} of {config.networks} networks"))
    print_table(console, "agreement with the twin", AGREEMENT_COLUMNS, [row.cells for row in rows])
    return 1 if any(row.is_equal is False for row in rows) else 0


def _peers(config: PeersConfig, console: Console) -> int:
    exports = selected(config.simulators)
    with console.status("networks") as status:
        rows, is_expected = table(exports, config.epochs, config.seed, status.update)
    print_table(console, "networks of other programs", COLUMNS, [(*row[:-1], _folded(row[-1])) for row in rows])
    return 0 if is_expected else 1


def _say(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


FORMS: Mapping[str, Form] = {
    "export": Form(ExportConfig, _export),
    "import": Form(ImportConfig, _import),
    "check": Form(CheckConfig, _check),
    "agree": Form(AgreeConfig, _agree),
    "peers": Form(PeersConfig, _peers),
}
"""Forms of the verb by name."""
