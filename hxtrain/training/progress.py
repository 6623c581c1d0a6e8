"""Progress on the terminal: a bar while it is a terminal, a line per epoch anyway."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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
from rich.text import Text

from hxtrain.backends.text import printable
from hxtrain.backends.work import Work, listening
from hxtrain.console import print_table

if TYPE_CHECKING:
    from .loop import Loop

log = logging.getLogger("hxtrain.report")
"""What is shown, as plain text: for the log file of a command. It reaches no terminal a second time."""
log.propagate = False
log.setLevel(logging.INFO)


class Progress:
    """Reports a training run.

    Args:
        show: whether to draw a bar (epoch, loss, accuracy, spikes and images per second, time left).
        console: where to write.

    Attributes:
        remarks: all warnings and notes so far, each with its kind.
    """

    def __init__(self, show: bool = True, console: Console | None = None) -> None:
        self.console = console or Console()
        self._show = show
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self.remarks: list[str] = []

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
        self.show(
            "epoch {}  loss {}  train {}  {} [bold]{}[/]  {}",
            f"{record['epoch']:>3}",
            f"{record['train_loss']:.4f}",
            f"{record['train_accuracy']:.2%}",
            evaluated_on,
            f"{record['test_accuracy']:.2%}",
            f"{_spikes(record, 1)}{record['samples_per_second']:.0f} images/s  {record['seconds']:.0f} s"
            + ("  (in software)" if record.get("in_software") else ""),
        )

    def warn(self, text: str) -> None:
        """Show a warning: something is amiss, and the text says what to do."""
        self._remark("warning", "yellow", text)

    def note(self, text: str) -> None:
        """Show a note: good to know, nothing to do."""
        self._remark("note", "cyan", text)

    def _remark(self, kind: str, colour: str, text: str) -> None:
        """Keep a remark, and show it unless an earlier run has made the same one."""
        remark = f"{kind}: {text}"
        is_repeated = remark in self.remarks
        self.remarks.append(remark)
        if not is_repeated:
            line = _plain(remark)
            line.stylize(colour, 0, len(kind) + 1)
            self._print(line)

    def _print(self, line: Text) -> None:
        """Show a line, and log it."""
        log.info(line.plain)
        self.console.print(line, highlight=False, soft_wrap=True)

    def table(self, title: str, columns: tuple[str, ...], rows: Sequence[tuple[str | Text, ...]]) -> None:
        """Show a table; a cell that has a style is a `Text`."""
        plain = [tuple(map(_plain, row)) for row in rows]
        print_table(self.console, _plain(title), list(map(_plain, columns)), plain)
        for row in plain:
            log.info("%s: %s", title, ", ".join(cell.plain for cell in row))

    def say(self, text: str) -> None:
        """Show a line, as it is."""
        self._print(_plain(text))

    def show(self, markup: str, *values: object) -> None:
        """Show a line with rich's markup, a literal of the program; each `{}` in it is a value, shown as it is."""
        plain = (escape(_plain(str(value)).plain) for value in values)
        self._print(Text.from_markup(markup.format(*plain)))


def _plain(text: str | Text) -> Text:
    """Return text of anyone as it is shown: without markup, control characters but newlines as escapes."""
    if isinstance(text, Text):
        return text
    return Text("\n".join(map(printable, text.split("\n"))))


@contextmanager
def device_work_shown(console: Console | None = None) -> Iterator[None]:
    """Show what takes long in a device meanwhile, such as a calibration: a line when it begins, and a bar.

    Args:
        console: where to write; None: to the standard error stream.
    """
    target = console or Console(stderr=True)
    bars: list[Bar] = []

    def show(work: Work) -> None:
        if work.n_done == 0:
            target.print(work.task, style="dim", highlight=False, markup=False, soft_wrap=True)
            if target.is_terminal:
                bars.append(_stages(target, work.stages))
        for bar in bars:
            bar.update(bar.task_ids[0], completed=work.n_done, description=escape(work.stage))
        if work.n_done == work.stages:
            _stop(bars)

    try:
        with listening(show):
            yield
    finally:
        _stop(bars)


def _stages(console: Console, stages: int) -> Bar:
    """Return a bar of stages, which is drawn until it is stopped."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    bar = Bar(*columns, console=console, transient=True)
    bar.add_task("", total=stages)
    bar.start()
    return bar


def _stop(bars: list[Bar]) -> None:
    while bars:
        bars.pop().stop()


def _spikes(found: Mapping[str, Any], digits: int) -> str:
    """Return the spikes per image as a text; nothing for networks without spikes."""
    if "hidden_spikes_per_sample" not in found:
        return ""
    return f"{found['hidden_spikes_per_sample']:.{digits}f} spikes/image  "
