"""What a sweep would do: its runs in their order, each with the state in which its folder is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hxtrain.commands.identity import run_settings
from hxtrain.commands.run_directory import finished
from hxtrain.commands.settings import RunConfig
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.training.loop import CHECKPOINT

from .checks import typed_settings
from .mistakes import MistakeError

FINISHED = "finished"
INTERRUPTED = "goes on"
NEW = "new"
REFUSED = "refused"
RESULT = "result.json"


class Job(NamedTuple):
    """A run of a sweep: its varied settings, folder and state, and the reason of a refusal."""

    number: int
    settings: str
    folder: Path
    state: str
    reason: str = ""

    def __str__(self) -> str:
        """Return a line for people."""
        line = f"{self.number:>4}  {self.state:<9} {self.settings}  {self.folder}"
        return f"{line}\n      {self.reason}" if self.reason else line


def planned(config: DictConfig, words: Sequence[str]) -> Iterator[Job]:
    """Yield the runs of a sweep, in the order in which a launcher begins them.

    Args:
        config: Composed config of the sweep, with Hydra's settings.
        words: Overrides of the sweep.

    Raises:
        MistakeError: Another sweeper than Hydra's basic one chooses the runs while they run.
    """
    if not str(config.hydra.sweeper.get("_target_", "")).endswith("BasicSweeper"):
        raise MistakeError("sweep.dry_run=true: this hydra/sweeper chooses each run after the results of others")
    loader = GlobalHydra.instance().config_loader()
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(list(words))
    varied = {override.get_key_element() for override in overrides if override.is_sweep_override()}
    for number, values in enumerate(BasicSweeper.split_arguments(overrides, None)[0]):
        job = loader.load_sweep_config(config, list(values))
        with read_write(job), open_dict(job):
            job.hydra.job.id = str(number)
            job.hydra.job.num = number
            job.hydra.mode = RunMode.MULTIRUN
        yield _job(job, number, " ".join(value for value in values if value.partition("=")[0] in varied))


def summary(jobs: Sequence[Job]) -> str:
    """Return a line on the states of the runs."""
    counts = Counter(job.state for job in jobs)
    parts = [f"{counts[state]} {state}" for state in (FINISHED, INTERRUPTED, NEW, REFUSED) if counts[state]]
    return f"sweep: {len(jobs)} runs: {', '.join(parts)}; sweep.dry_run=true, nothing was started"


def _job(config: DictConfig, number: int, settings: str) -> Job:
    previous = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        folder = Path(str(OmegaConf.select(config, "hydra.sweep.dir")), str(config.hydra.sweep.subdir))
        with read_write(config), open_dict(config):
            del config["hydra"]
        try:
            return Job(number, settings, folder, _state(typed_settings(config), folder))
        except (ValueError, CheckpointError) as error:
            return Job(number, settings, folder, REFUSED, str(error))
    finally:
        HydraConfig.instance().cfg = previous


def _state(config: Any, folder: Path) -> str:
    """Return the state of a run's folder.

    Raises:
        CheckpointError: The folder holds a run with other settings.
    """
    is_finished = (folder / RESULT).exists()
    if is_finished and isinstance(config, RunConfig) and config.distillation.teacher is None:
        epochs = config.tasks.phases * config.trainer.epochs
        is_finished = finished(folder, epochs, run_settings(config)) is not None
    if is_finished:
        return FINISHED
    return INTERRUPTED if (folder / CHECKPOINT).exists() else NEW
