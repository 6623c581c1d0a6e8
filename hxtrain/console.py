"""Output of commands on terminals and into files of any encoding."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec

from rich.box import SIMPLE
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import TextType

WIDEST = 10_000
"""Columns of output that is not a terminal, since a file has no edge."""


def write_any_letter() -> None:
    """Make standard output and error escape letters that their encoding lacks, such as `\\xfc`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class EnduringConsole(Console):
    """Standard output of work that goes on when its reader has left, as in `hxtrain | head`."""

    def on_broken_pipe(self) -> None:
        """Be silent from now on, as is everything else on the standard output; rich would end the program."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def takes_bar(console: Console) -> bool:
    """Return whether a console can redraw a bar: a terminal, or a notebook with ipywidgets; a file has lines alone."""
    if console.is_jupyter:
        return find_spec("ipywidgets") is not None
    return console.is_terminal


def html_table(columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> str:
    """Return a table for a notebook; every text is escaped."""
    lines = [
        f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in row)}</tr>"
        for tag, group in (("th", [columns] if columns else []), ("td", rows))
        for row in group
    ]
    return f"<table>{f'<caption>{escape(caption)}</caption>' if caption else ''}{''.join(lines)}</table>"


def print_table(
    console: Console, title: TextType, columns: Sequence[TextType], rows: Sequence[Sequence[TextType]]
) -> None:
    """Print a table: a terminal folds long entries outside the first column, a file gets whole lines."""
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    width = console.width
    if not console.is_terminal:
        console.width = max(width, Measurement.get(console, console.options.update(width=WIDEST), table).maximum)
    console.print(table)
    console.width = width
