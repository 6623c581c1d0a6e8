"""`hxtrain-report`: from run directories to a table and a plot, with the published values beside."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from hxtrain.studies.report import report
from hxtrain.studies.report.report import rows
from hxtrain.training import Progress

from .app import guarded, typed
from .schema import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="report")
def main(config: DictConfig) -> None:
    """Write the report that `report=NAME` describes."""
    guarded(lambda: _report(config))


def _report(config: DictConfig) -> None:
    settings, progress = typed(config), Progress()
    found = report(settings, progress)
    columns = ("", settings.xlabel, settings.ylabel, "std", "runs")
    progress.table(settings.title, columns, rows(settings, found))
    progress.say(f"{settings.name}.md, .png and .json: {settings.out}")
