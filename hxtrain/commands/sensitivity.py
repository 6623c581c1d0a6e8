"""Loss of accuracy by each imperfection of a chip alone, and its recovery by training in the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from hxtrain.backends.files import path_part
from hxtrain.execution.config import SOFTWARE, BackendConfig, ChipConfig
from hxtrain.runs.metrics import write_json
from hxtrain.runs.progress import Progress
from hxtrain.runs.versions import versions
from hxtrain.trackers import Tracker
from hxtrain.training.loop import CHECKPOINT

from .evaluate import EvaluateConfig
from .evaluations import finished_evaluation
from .settings import RunConfig, run_config
from .train import complete


@dataclass
class SensitivityConfig(RunConfig):
    """Settings of a sensitivity study.

    Attributes:
        imperfections: Imperfections, each of which is studied on an otherwise ideal chip (`chip.only`).
        presets: Presets of the chip, one per column.
        tune_epochs: Epochs of training in the loop, which starts from the weights of a training in software.
        tune_learning_rate: Initial learning rate of the training in the loop.
    """

    imperfections: List[str] = field(default_factory=list)  # noqa: UP006
    presets: List[str] = field(default_factory=lambda: ["calibrated", "uncalibrated"])  # noqa: UP006
    tune_epochs: int = 1
    tune_learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.imperfections:
            raise ValueError("imperfections must name at least one; see chip.only in docs/emulator.md")
        for field_name in ("imperfections", "presets"):
            for name in getattr(self, field_name):
                path_part(name, field_name)


def sensitivity(config: SensitivityConfig, folder: Path, command: str, progress: Progress) -> dict[str, Any]:
    """Measure every imperfection alone, none and all of them, and write `sensitivity.json` into `folder`.

    The network is trained in software, evaluated on the chip (deployed), and trained further there (in the loop).
    Parts that are already finished in `folder` are not repeated.

    Returns:
        Content of `sensitivity.json`; `accuracy[preset][imperfection]` has `deployed` and `in_the_loop`.
    """
    base = run_config(config)
    software = replace(base, backend=BackendConfig(SOFTWARE))
    trained = complete(software, folder / SOFTWARE, command, progress, folder.name)
    checkpoint = folder / SOFTWARE / CHECKPOINT
    tuner = replace(
        base.trainer,
        epochs=config.tune_epochs,
        software_epochs=0,
        warmup=min(base.trainer.warmup, config.tune_epochs),
        learning_rate=config.tune_learning_rate,
        initial=str(checkpoint),
        plots=False,
    )
    accuracy: dict[str, dict[str, dict[str, float]]] = {}
    for preset in config.presets:
        accuracy[preset] = {}
        for name, only in _cases(config.imperfections):
            chip: ChipConfig = replace(config.chip, preset=preset, only=only)
            place = folder / preset / name
            evaluation = EvaluateConfig(
                checkpoint=str(checkpoint),
                backend=base.backend,
                chip=chip,
                batch_size=base.trainer.evaluation_batch_size,
                test_samples=base.trainer.test_samples,
            )
            deployed = finished_evaluation(evaluation, place / "deployed", command, progress)["test_accuracy"]
            trackers = _named_trackers(config.tracker, f"{preset}/{name}")
            settings = replace(base, chip=chip, trainer=tuner, tracker=trackers)
            tuned = complete(settings, place / "tuned", command, progress, folder.name)
            accuracy[preset][name] = {"deployed": deployed, "in_the_loop": tuned["test_accuracy"]}
    outcome = {
        "software": trained["test_accuracy"],
        "accuracy": accuracy,
        "chip": config.chip.name,
        "seed": config.seed,
        "epochs": config.trainer.epochs,
        "tune_epochs": config.tune_epochs,
        "data": trained["data"],
        "command": command,
        "versions": versions(),
    }
    write_json(folder / "sensitivity.json", outcome)
    return outcome


def _named_trackers(trackers: Mapping[str, Tracker], name: str) -> dict[str, Tracker]:
    """Return trackers that show a run by its place in the study; all runs on a device have directories `tuned`."""
    return {key: replace(item, name=f"{item.name} {name}" if item.name else name) for key, item in trackers.items()}


def _cases(imperfections: list[str]) -> list[tuple[str, Optional[list[str]]]]:  # noqa: UP045
    return [("none", []), *((name, [name]) for name in imperfections), ("all", None)]


def sensitivity_rows(accuracy: dict[str, dict[str, dict[str, float]]]) -> list[tuple[str, ...]]:
    """Return one row per imperfection, with the accuracies of each preset: deployed, and after training in the loop."""
    first = next(iter(accuracy.values()))
    return [
        (name, *(f"{cases[name][kind]:.2%}" for cases in accuracy.values() for kind in ("deployed", "in_the_loop")))
        for name in first
    ]
