"""Progress of a run: one line per epoch, and a bar if the console is a terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

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
from hxtrain.console import EnduringConsole, print_table, takes_bar

from .metrics import Sums

log = logging.getLogger("hxtrain.report")
"""Logger of all reports as plain text, for the log file of a command; it does not write to the terminal."""
log.propagate = False
log.setLevel(logging.INFO)


class Course(Protocol):
    """A training in progress, as progress bars and observers see it: `epoch` of `epochs`, and `step`, from 0."""

    epochs: int
    epoch: int
    step: int
    records: list[dict[str, Any]]

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of steps of an epoch."""

    @property
    def steps_done(self) -> int:
        """Return the number of steps since the start of the training."""

    @property
    def learning_rate(self) -> float:
        """Return the learning rate of the last step."""

    @property
    def sums(self) -> Sums:
        """Return what the epoch's steps add up to."""


class Observer:
    """Follows a training besides the console; a base that takes no notice of anything. It must not change a thing."""

    def begin(self, course: Course) -> None:
        """Take notice of a training loop that starts or continues."""

    def measured(self, course: Course, activity: Any) -> None:
        """Take notice of a pass of the network on a batch, before its step counts."""

    def advance(self, course: Course) -> None:
        """Take notice of a finished step."""

    def end(self, course: Course) -> None:
        """Take notice of the end of a loop, by whatever reason."""


class Progress:
    """Reports a training run.

    Args:
        show: Whether to draw a bar (epoch, loss, accuracy, spikes and samples per second, time left), where there can
            be one, see `takes_bar`.
        console: Console for all output; None for the standard output.

    Attributes:
        remarks: All warnings and notes of this run, each with its kind.
    """

    def __init__(self, show: bool = True, console: Console | None = None) -> None:
        self.console = console or EnduringConsole()
        self._show = show
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self.remarks: list[str] = []
        self._observers: list[Observer] = []

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Let an observer follow all training loops within the block; one that fails is left out, with a warning."""
        self._observers.append(observer)
        try:
            yield
        finally:
            if observer in self._observers:
                self._observers.remove(observer)

    def _tell(self, event: Callable[[Observer], None]) -> None:
        for observer in list(self._observers):
            try:
                event(observer)
            except Exception as error:  # no observer may end a training
                self._observers.remove(observer)
                self.warn(
                    f"{type(observer).__name__} failed with {type(error).__name__}: {error}; the training goes on "
                    "without it"
                )

    def measured(self, trainer: Course, activity: Any) -> None:
        """Show a pass of the network to the observers, before its step counts."""
        self._tell(lambda observer: observer.measured(trainer, activity))

    @contextmanager
    def training(self, trainer: Course) -> Iterator[None]:
        """Show the progress of a trainer from its current step to its last epoch."""
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
            disable=not (self._show and takes_bar(self.console)),
            transient=True,
            refresh_per_second=4,
        )
        self._tell(lambda observer: observer.begin(trainer))
        with bar, self._told_end(trainer):
            self._bar = bar
            self._task = bar.add_task(
                "training",
                total=steps * trainer.epochs,
                completed=steps * trainer.epoch + trainer.step,
                epoch=f"{trainer.epoch + 1}/{trainer.epochs}",
                text="",
            )
            yield
        self._bar = None

    @contextmanager
    def _told_end(self, trainer: Course) -> Iterator[None]:
        try:
            yield
        finally:
            self._tell(lambda observer: observer.end(trainer))

    def step(self, trainer: Course) -> None:
        """Report a finished step."""
        if self._bar is None or trainer.step % 5:
            self.advance(trainer)
            return
        means = trainer.sums.means()
        text = (
            f"loss {means['loss']:.3f}  accuracy {means['accuracy']:.1%}  "
            f"{_spikes(means, 0)}{means['samples_per_second']:.0f} samples/s"
        )
        self.advance(trainer, text)

    def advance(self, trainer: Course, text: str | None = None) -> None:
        """Report a finished step: move the bar; a text replaces the one beside it."""
        self._tell(lambda observer: observer.advance(trainer))
        if self._bar is None or self._task is None:
            return
        if text is None:
            self._bar.update(self._task, advance=1)
        else:
            epoch = f"{trainer.epoch + 1}/{trainer.epochs}"
            self._bar.update(self._task, advance=1, text=text, epoch=epoch)

    def epoch(self, record: Mapping[str, Any], evaluated_on: str) -> None:
        """Report a finished epoch, evaluated on `test` or `validation` samples, or not at all."""
        accuracy = record["test_accuracy"]
        self.show(
            "epoch {}  loss {}  train {}  {} [bold]{}[/]  {}",
            f"{record['epoch']:>3}",
            f"{record['train_loss']:.4f}",
            f"{record['train_accuracy']:.2%}",
            evaluated_on,
            "not evaluated" if accuracy is None else f"{accuracy:.2%}",
            f"{_spikes(record, 1)}{record['samples_per_second']:.0f} samples/s  {record['seconds']:.0f} s"
            + ("  (in software)" if record.get("in_software") else ""),
        )

    def warn(self, text: str) -> None:
        """Show a warning: the text names a problem and a remedy."""
        self._remark("warning", "yellow", text)

    def note(self, text: str) -> None:
        """Show a note: information that needs no action."""
        self._remark("note", "cyan", text)

    def _remark(self, kind: str, colour: str, text: str) -> None:
        """Record a remark, and show it unless the same one was shown before."""
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
        """Show a line of plain text."""
        self._print(_plain(text))

    def show(self, markup: str, *values: object) -> None:
        """Show a line with rich's markup, a literal of the program; each `{}` in it takes a value as plain text."""
        plain = (escape(_plain(str(value)).plain) for value in values)
        self._print(Text.from_markup(markup.format(*plain)))


class Warnings(Progress):
    """Reports a training run by its warnings and notes alone.

    Args:
        console: Console for all output; None for the standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(False, console)

    def epoch(self, record: Mapping[str, Any], evaluated_on: str) -> None:
        """Show nothing of a finished epoch."""


def _plain(text: str | Text) -> Text:
    """Return text of any origin in a safe form: without markup, with control characters except newlines as escapes."""
    if isinstance(text, Text):
        return text
    return Text("\n".join(map(printable, text.split("\n"))))


@contextmanager
def device_work_shown(console: Console | None = None) -> Iterator[None]:
    """Show long work of a device within the block, such as a calibration: a line at its start, and a bar.

    Args:
        console: Console for all output; None for the standard error stream.
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
    """Return a running bar of stages; `stop` ends it."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    bar = Bar(*columns, console=console, transient=True)
    bar.add_task("", total=stages)
    bar.start()
    return bar


def _stop(bars: list[Bar]) -> None:
    while bars:
        bars.pop().stop()


def _spikes(record: Mapping[str, Any], digits: int) -> str:
    """Return the hidden spikes per sample as a text; empty for networks without a hidden population that spikes."""
    spikes = record.get("hidden_spikes_per_sample")
    return "" if spikes is None else f"{spikes:.{digits}f} spikes/sample  "


def hidden_spikes(values: Mapping[str, Any]) -> str:
    """Return the hidden spikes of a result as the end of a sentence; empty where there is no hidden population."""
    spikes = values.get("hidden_spikes_per_sample")
    return "" if spikes is None else f", {spikes:.1f} hidden spikes per sample"
