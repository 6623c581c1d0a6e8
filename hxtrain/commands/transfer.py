"""Transfer matrix of a population of chips: networks trained on one chip, evaluated on another."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, List  # noqa: UP035 - OmegaConf resolves these on every Python

import numpy as np

from hxtrain.backends.files import path_part
from hxtrain.execution.config import SOFTWARE, BackendConfig
from hxtrain.plots import training as plots
from hxtrain.runs.metrics import write_json
from hxtrain.runs.progress import Progress
from hxtrain.runs.versions import versions
from hxtrain.training.loop import CHECKPOINT

from .evaluate import EvaluateConfig
from .evaluations import finished_evaluation
from .result import optional_plots
from .settings import RunConfig, run_config
from .train import complete

POPULATION = "population"
"""Name of the network that is trained on all chips, with a random chip for every sample."""


@dataclass
class TransferConfig(RunConfig):
    """Settings of a transfer matrix: settings of the training runs, and the chips.

    Attributes:
        chips: Serial numbers; `chip` has the remaining settings of all chips.
        population: Whether to train a further network on all chips at once.
        software: Whether to train a further network in software.
    """

    chips: List[str] = field(default_factory=list)  # noqa: UP006
    population: bool = True
    software: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.chips)) != len(self.chips) or len(self.chips) < 2:
            raise ValueError(f"chips={list(self.chips)} must name at least two different chips")
        for name in self.chips:
            path_part(name, "chips")
        bits = {name: getattr(self.network, name, None) for name in ("weight_bits", "trace_bits")}
        set_bits = ", ".join(f"network.{name}={value}" for name, value in bits.items() if value is not None)
        if self.software and set_bits:
            raise ValueError(f"{set_bits}: software has floats in their place; set software=false, or leave this out")


def transfer(config: TransferConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Train on every chip, evaluate on every chip, and write `transfer.json` and `transfer.png` into `folder`.

    Runs that are already finished in `folder` are not repeated; an interrupted run is continued.

    Returns:
        Content of `transfer.json`; `accuracy[trained][evaluated]`.

    Raises:
        ValueError: The backend has no chip individuals.
    """
    if not config.backend.takes_chip():
        raise ValueError(f"backend={config.backend.name} has no chip individuals to transfer between")
    trained = {name: replace(config.chip, name=name) for name in config.chips}
    if config.population:
        trained[POPULATION] = replace(config.chip, name="+".join(config.chips))
    results = {}
    for name, chip in trained.items():
        results[name] = complete(
            run_config(config, chip=chip), folder / "trained" / name, command, progress, folder.name
        )
    if config.software:
        software = run_config(config, backend=BackendConfig(SOFTWARE))
        results[SOFTWARE] = complete(software, folder / "trained" / SOFTWARE, command, progress, folder.name)
    accuracy: dict[str, dict[str, float]] = {}
    hashes = {}
    for name in results:
        accuracy[name] = {}
        for chip_name in config.chips:
            place = folder / "evaluated" / name / chip_name
            evaluation = EvaluateConfig(
                checkpoint=str(folder / "trained" / name / CHECKPOINT),
                backend=config.backend,
                chip=replace(config.chip, name=chip_name),
                batch_size=config.trainer.evaluation_batch_size,
                test_samples=config.trainer.test_samples,
            )
            result = finished_evaluation(evaluation, place, command, progress)
            accuracy[name][chip_name] = result["test_accuracy"]
            hashes[chip_name] = result["chip_hash"]
    outcome = {
        "accuracy": accuracy,
        "summary": _summary(accuracy, config.chips),
        "chips": hashes,
        "preset": config.chip.preset,
        "seed": config.seed,
        "epochs": config.trainer.epochs,
        "data": next(iter(results.values()))["data"],
        "command": command,
        "versions": versions(),
    }
    write_json(folder / "transfer.json", outcome)
    with optional_plots(progress):
        plots.plot_transfer(accuracy, folder / "transfer.png")
    return outcome


def _summary(accuracy: dict[str, dict[str, float]], chips: list[str]) -> dict[str, float]:
    """Return mean accuracies: on the chip of the training, on another chip, of the population network, of software."""
    diagonal = [accuracy[name][name] for name in chips]
    off_diagonal = [accuracy[name][chip] for name in chips for chip in chips if name != chip]
    means = {"own_chip": float(np.mean(diagonal)), "other_chip": float(np.mean(off_diagonal))}
    for name in (POPULATION, SOFTWARE):
        if name in accuracy:
            means[name] = float(np.mean(list(accuracy[name].values())))
    return means


def transfer_rows(accuracy: dict[str, dict[str, float]]) -> list[tuple[str, ...]]:
    """Return the matrix as a table: one row per trained network, one column per chip."""
    return [(name, *(f"{value:.2%}" for value in row.values())) for name, row in accuracy.items()]
