"""Trackers of every command that takes them: what each logs; in its run directory, with the command's own files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_trackers import Notes, config, lines, quiet

from hxtrain.ann.models import MLPConfig
from hxtrain.commands.ann import AnnConfig, train_ann
from hxtrain.commands.convert import ConvertConfig, convert_checkpoint
from hxtrain.commands.play import PlayConfig, play
from hxtrain.commands.sensitivity import SensitivityConfig, sensitivity
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.transfer import TransferConfig, transfer
from hxtrain.conversion.measured import MeasuredConfig
from hxtrain.datasets import DataConfig
from hxtrain.environments import Pong
from hxtrain.execution.config import BackendConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.metrics import METRICS
from hxtrain.trackers import JsonLines, Tracker
from hxtrain.training.config import AnnTrainerConfig, PlayerConfig

RESULTS = ["config.yaml", "result.json", "weights.npz"]


@dataclass
class Log:
    """What a command has logged: in a tracker of the tests, and as lines of JSON in its run directories."""

    folder: Path
    notes: Notes

    @classmethod
    def of(cls, folder: Path, steps: int = 2) -> Log:
        return cls(folder, Notes(steps=steps))

    @property
    def trackers(self) -> dict[str, Tracker]:
        return {"notes": self.notes, "json_lines": JsonLines(steps=self.notes.steps)}

    def names(self, method: str) -> list[str]:
        """Return the first arguments of the calls of a method: of images their names, of files their paths."""
        return [str(call[2] if method == "image" else call[1]) for call in self.notes.named(method)]

    def runs(self) -> list[tuple[str, str]]:
        return [(call[1].name, call[1].group) for call in self.notes.named("start")]

    def steps(self, value: str) -> list[int]:
        return [call[1] for call in self.notes.named("log") if value in call[2]]

    def check_lines(self, folder: Path) -> list[dict[str, Any]]:
        """Check that the lines of JSON are those of a whole run, and return those with values."""
        entries = lines(folder / "tracker.jsonl")
        assert entries[0]["run"] == json.loads((folder / "tracker.json").read_text(encoding="utf-8"))["id"]
        assert entries[-1] == {"status": "finished"}
        return [entry for entry in entries if "step" in entry]


def test_a_game_logs_values_images_placement_and_files(tmp_path: Path) -> None:
    log = Log.of(tmp_path / "run", steps=7)
    settings = PlayConfig(
        environment=Pong(positions=20, spread=[1.0, 0.5], rewards=[4.0, 2.0, 0.0], sweep=False, games=4, game_moves=2),
        network=NetworkConfig(hidden=[], output="spikes", init_gain=0.0, steps=60, traces="spikes_only"),
        backend=BackendConfig("reference"),
        trainer=PlayerConfig(epochs=4, checkpoint_epochs=2, progress=False, plots=False, games=2, game_moves=5),
        tracker=log.trackers,
    )
    play(settings, log.folder, "", quiet(), "sweep/1")
    assert log.runs() == [("run", "sweep/1")]
    records = lines(log.folder / METRICS)
    assert log.steps("epoch/score") == log.steps("step/score") == [2, 4, 6, 8]
    scores = {step: values["epoch/score"] for _, step, values in log.notes.named("log") if "epoch/score" in values}
    assert list(scores.values()) == [record["score"] for record in records]
    values = [call[2]["step/score"] for call in log.notes.named("log") if "step/score" in call[2]]
    assert values == pytest.approx(list(scores.values()))
    assert [(call[1], call[2]) for call in log.notes.named("image")] == [
        (step, name) for step in (4, 8) for name in ("raster", "weights/input_to_layer0")
    ]
    assert [node.name for node in log.notes.named("graph")[0][1]] == ["input", "input_to_layer0", "layer0"]
    assert log.names("artifact") == RESULTS
    log.check_lines(log.folder)


@pytest.fixture(scope="module")
def artificial(tmp_path_factory: pytest.TempPathFactory) -> Log:
    log = Log.of(tmp_path_factory.mktemp("artificial") / "ann", steps=20)
    settings = AnnConfig(
        model=MLPConfig([12]),
        data=DataConfig("digits"),
        trainer=AnnTrainerConfig(3, batch_size=20, train_samples=80, test_samples=20, progress=False),
        tracker=log.trackers,
    )
    train_ann(settings, log.folder, "", quiet(), "sweep/1")
    return log


def test_an_artificial_network_logs_values_and_files(artificial: Log) -> None:
    log = artificial
    assert log.runs() == [("ann", "sweep/1")]
    assert log.steps("epoch/test_accuracy") == log.steps("step/loss") == [4, 8, 12]
    losses = [call[2]["step/loss"] for call in log.notes.named("log") if "step/loss" in call[2]]
    assert losses == pytest.approx([record["train_loss"] for record in lines(log.folder / METRICS)])
    assert log.names("artifact") == RESULTS[:2]
    assert log.names("image") == log.names("graph") == []
    log.check_lines(log.folder)


def test_a_conversion_logs_its_passes_and_files(artificial: Log, tmp_path: Path) -> None:
    log = Log.of(tmp_path / "converted")
    settings = ConvertConfig(
        str(artificial.folder / "checkpoint.pt"),
        backend=BackendConfig("software"),
        measured=MeasuredConfig(gains=[2.0], onsets=[0.5], corrections=1, samples=20),
        test_samples=20,
        table_samples=20,
        tracker=log.trackers,
    )
    result = convert_checkpoint(settings, log.folder, "", quiet(), "sweep/1")
    assert log.runs() == [("converted", "sweep/1")]
    accuracies = [call[2]["conversion/accuracy"] for call in log.notes.named("log")]
    assert accuracies == [row["accuracy"] for row in result["passes"]]
    assert log.names("artifact") == RESULTS
    assert len(log.check_lines(log.folder)) == len(result["passes"])


def study(kind: type[RunConfig], log: Log, **settings: Any) -> Any:
    part = config(1, backend=BackendConfig("emulator"), tracker=log.trackers)
    names = RunConfig.__dataclass_fields__
    return kind(**{name: getattr(part, name) for name in names}, **settings)


def test_the_trainings_of_a_transfer_are_runs_of_a_group(tmp_path: Path) -> None:
    log = Log.of(tmp_path / "study")
    transfer(study(TransferConfig, log, chips=["A", "B"], population=False), log.folder, "", quiet())
    assert log.runs() == [(name, "study") for name in ("A", "B", "software")]
    assert log.steps("epoch/test_accuracy") == [4, 4, 4]
    for name in ("A", "B", "software"):
        log.check_lines(log.folder / "trained" / name)


def test_the_trainings_of_a_sensitivity_have_names_of_their_own(tmp_path: Path) -> None:
    log = Log.of(tmp_path / "study")
    settings = study(SensitivityConfig, log, imperfections=["leak"], presets=["calibrated"])
    settings.tracker["json_lines"] = JsonLines(name="mine")
    sensitivity(settings, log.folder, "", quiet())
    names = ["software", "calibrated/none", "calibrated/leak", "calibrated/all"]
    assert log.runs() == [(name, "study") for name in names]
    folder = log.folder / "calibrated" / "all" / "tuned"
    log.check_lines(folder)
    assert lines(folder / "tracker.jsonl")[0]["name"] == "mine calibrated/all"
