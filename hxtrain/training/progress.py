"""Progress on the terminal: a bar while it is a terminal, a line per epoch anyway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from hxtrain.backends.text import printable

if TYPE_CHECKING:
    from .loop import Loop


class Progress:
    """Reports a training run.

    Args:
        show: whether to draw a bar (epoch, loss, accuracy, spikes and images per second, time left).
        console: where to write.
    """

    def __init__(self, show: bool = True, console: Console | None = None) -> None:
        self.console = console or Console()
        self._show = show
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    @contextmanager
    def training(self, trainer: Loop[Any]) -> Iterator[None]:
        """Show progress of a trainer from where it stands to its last epoch."""
        steps = trainer.steps_per_epoch
        bar = Bar(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self._show,
            transient=True,
            refresh_per_second=4,
        )
        with bar:
            self._bar = bar
            self._task = bar.add_task(
                "training",
                total=steps * trainer.config.epochs,
                completed=steps * trainer.epoch + trainer.step,
                epoch=f"{trainer.epoch + 1}/{trainer.config.epochs}",
                text="",
            )
            yield
        self._bar = None

    def step(self, trainer: Loop[Any]) -> None:
        """Report a finished step."""
        if self._bar is None or self._task is None:
            return
        if trainer.step % 5:
            self._bar.update(self._task, advance=1)
            return
        m = trainer.sums.means()
        text = (
            f"loss {m['loss']:.3f}  accuracy {m['accuracy']:.1%}  {_spikes(m, 0)}{m['samples_per_second']:.0f} images/s"
        )
        epoch = f"{trainer.epoch + 1}/{trainer.config.epochs}"
        self._bar.update(self._task, advance=1, text=text, epoch=epoch)

    def epoch(self, record: Mapping[str, Any], evaluated_on: str) -> None:
        """Report a finished epoch, evaluated on `test` or `validation` samples."""
        self.console.print(
            f"epoch {record['epoch']:>3}  loss {record['train_loss']:.4f}  train {record['train_accuracy']:.2%}  "
            f"{evaluated_on} [bold]{record['test_accuracy']:.2%}[/]  {_spikes(record, 1)}"
            f"{record['samples_per_second']:.0f} images/s  {record['seconds']:.0f} s"
            + ("  (in software)" if record.get("in_software") else ""),
            highlight=False,
            soft_wrap=True,
        )

    def warn(self, text: str) -> None:
        """Show a warning."""
        line = Text("warning: ").append_text(_plain(text))
        line.stylize("yellow", 0, len("warning:"))
        self.console.print(line, highlight=False, soft_wrap=True)

    def table(self, title: str, columns: tuple[str, ...], rows: Sequence[tuple[str | Text, ...]]) -> None:
        """Show a table; a cell that has a style is a `Text`."""
        table = Table(title=_plain(title), title_justify="left", box=SIMPLE)
        for column in columns:
            table.add_column(_plain(column))
        for row in rows:
            table.add_row(*map(_plain, row))
        self.console.print(table)

    def say(self, text: str) -> None:
        """Show a line, as it is."""
        self.console.print(_plain(text), highlight=False, soft_wrap=True)

    def show(self, markup: str, *values: object) -> None:
        """Show a line with rich's markup, a literal of the program; each `{}` in it is a value, shown as it is."""
        plain = (escape(_plain(str(value)).plain) for value in values)
        self.console.print(markup.format(*plain), highlight=False, soft_wrap=True)


def _plain(text: str | Text) -> Text:
    """Return text of anyone as it is shown: without markup, control characters but newlines as escapes."""
    if isinstance(text, Text):
        return text
    return Text("\n".join(map(printable, text.split("\n"))))


def _spikes(found: Mapping[str, Any], digits: int) -> str:
    """Return the spikes per image as a text; nothing for networks without spikes."""
    if "hidden_spikes_per_sample" not in found:
        return ""
    return f"{found['hidden_spikes_per_sample']:.{digits}f} spikes/image  "
