"""`hxtrain pool`: lease the chips of many servers; ask a pool who has which chip."""

from __future__ import annotations

from omegaconf import DictConfig

from hxtrain.backends.pool import ask_pool
from hxtrain.backends.remote import ask_metrics
from hxtrain.commands.pool import CHIP_COLUMNS, QUEUE_COLUMNS, chip_rows, pool, queue_rows, summary
from hxtrain.runs.progress import Progress

from .app import guarded, typed_settings
from .command import command
from .questions import answered, link_settings

USAGE = """hxtrain pool servers=[tcp://lab:5555,tcp://lab:5556] bind=tcp://127.0.0.1:5554   lease their chips (--help)
hxtrain pool status address=pool://... [keys=DIR]       who has which chip, who waits, and how long
hxtrain pool metrics address=pool://... [keys=DIR]      counts in Prometheus' text format"""
EXAMPLE = "pool://..."


def main() -> None:
    """Run a broker, or the command in the first word."""
    if not answered({"status": _status, "metrics": _metrics}):
        pool_command()


@command("pool", USAGE)
def pool_command(config: DictConfig) -> None:
    """Run the broker that the config describes."""
    guarded(lambda: pool(typed_settings(config), Progress().say))


def _status(words: list[str]) -> None:
    report = ask_pool(link_settings(words, EXAMPLE, USAGE))
    progress = Progress()
    progress.table("chips", CHIP_COLUMNS, chip_rows(report))
    if report.queue:
        progress.table("queue", QUEUE_COLUMNS, queue_rows(report))
    progress.say(summary(report))


def _metrics(words: list[str]) -> None:
    print(ask_metrics(link_settings(words, EXAMPLE, USAGE)), end="")
