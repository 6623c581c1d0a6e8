"""`hxtrain report`: a table and a plot of run directories, beside published values."""

from __future__ import annotations

from omegaconf import DictConfig

from hxtrain.commands.report.report import write_report
from hxtrain.runs.progress import Progress

from .app import guarded, typed_settings
from .command import command


@command("report")
def main(config: DictConfig) -> None:
    """Write the report that `report=NAME` describes."""
    guarded(lambda: _report(config))


def _report(config: DictConfig) -> None:
    settings = typed_settings(config)
    progress = Progress()
    rows = write_report(settings, progress)
    columns = ("", settings.xlabel, settings.ylabel, "std", "runs")
    progress.table(settings.title, columns, rows)
    files = f"{settings.name}.md" if settings.layout == "gallery" else f"{settings.name}.md, .png and .json"
    progress.say(f"{files}: {settings.out}")
