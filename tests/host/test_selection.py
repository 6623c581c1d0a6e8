"""The choice of an epoch on held out samples: what counts, what is said about it, and resumption at any place."""

from __future__ import annotations

import io
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bursts import SPEEDUP, UNITS, bursts
from rich.console import Console

import hxtrain as hx
from hxtrain.commands.construction import load_weights
from hxtrain.commands.evaluate import EvaluateConfig, evaluate_checkpoint
from hxtrain.commands.evaluations import evaluate_all
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig
from hxtrain.datasets.augment import EventAugmentation
from hxtrain.datasets.holdout import hold_out_groups
from hxtrain.execution.config import BackendConfig
from hxtrain.network import NetworkConfig
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from hxtrain.runs.progress import Progress
from hxtrain.training import TrainerConfig
from hxtrain.training.retraining import Retraining
from hxtrain.training.trainer import Trainer

HELD_OUT = [1, 3]
OVERSHOT = 0.05
"""Learning rate at which the best epoch is not the last one."""
ENCODER = hx.EventEncoder(speedup=SPEEDUP, first=70, stride=9, jitter=1e-7)


def quiet() -> Progress:
    return Progress(show=False, console=Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("speakers")
    for seed, (part, samples) in enumerate((("train", 120), ("test", 40))):
        groups = np.arange(samples) // 4 % 5
        np.savez(place / f"{part}.npz", inputs=UNITS, groups=groups, **bursts(samples, seed))
    return place


def config(folder: Path, backend: str = "software", groups: list[int] = HELD_OUT, **trainer: Any) -> RunConfig:
    settings = {
        "epochs": 4,
        "batch_size": 20,
        "learning_rate": 5e-3,
        "learning_rate_decay": 0.9,
        "progress": False,
        "plots": False,
    }
    return RunConfig(
        backend=BackendConfig(backend),
        network=NetworkConfig(hidden=[20], steps=40, init_gain=1.4),
        encoder=ENCODER,
        augment=EventAugmentation(channel_jitter=5, blending=0.5),
        data=DataConfig("folder", folder=str(folder), validation_groups=groups),
        trainer=TrainerConfig(**{**settings, **trainer}),
    )


def changed(training: RunConfig, **trainer: Any) -> RunConfig:
    return replace(training, trainer=replace(training.trainer, **trainer))


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return hx.load(folder).net.state_dict()


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_by_default_the_last_epoch_counts_and_the_result_says_so(folder: Path, tmp_path: Path) -> None:
    result = run(config(folder, groups=[], epochs=2), tmp_path, "test", quiet())
    assert (result["selected_on"], result["selected_epoch"], result["evaluated_on"]) == (
        "nothing: last epoch", 2, "test",
    )  # fmt: skip
    assert result["validation_accuracy"] is None
    assert result["test_accuracy"] == records(tmp_path)[-1]["test_accuracy"]
    held_out = run(config(folder, epochs=2), tmp_path / "held_out", "test", quiet())
    assert (held_out["selected_on"], held_out["evaluated_on"]) == ("nothing: last epoch", "validation")
    assert held_out["validation_accuracy"] == held_out["test_accuracy"]


def test_the_best_epoch_on_held_out_speakers_counts_and_the_test_part_is_evaluated_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    observe = hx.training.trainer.observe
    monkeypatch.setattr(
        "hxtrain.training.trainer.observe",
        lambda net, source, *args, **kwargs: (sizes.append(len(source)), observe(net, source, *args, **kwargs))[1],
    )
    result = run(config(folder, choose="best", learning_rate=OVERSHOT), tmp_path, "test", quiet())
    accuracies = [record["test_accuracy"] for record in records(tmp_path)]
    assert sizes == [48, 48, 48, 48, 40]
    assert result["selected_on"] == "validation: groups 1, 3"
    assert result["selected_epoch"] == 1 + int(np.argmax(accuracies)) < len(accuracies)
    assert (result["validation_accuracy"], result["retrained"]) == (max(accuracies), False)
    assert (result["evaluated_on"], result["test_samples"], result["train_samples"]) == ("test", 40, 72)
    expected = run(
        config(folder, epochs=result["selected_epoch"], learning_rate=OVERSHOT), tmp_path / "short", "test", quiet()
    )
    assert_equal(weights(tmp_path), weights(tmp_path / "short"))
    assert all(result[name] == expected[name] for name in ("train_accuracy", "train_loss", "train_samples"))
    settings = EvaluateConfig(str(tmp_path / "checkpoint.pt"), BackendConfig("software"))
    for part, accuracy in ((None, result["test_accuracy"]), ("validation", expected["validation_accuracy"])):
        evaluation = evaluate_checkpoint(replace(settings, part=part), tmp_path, "test", quiet())
        assert (evaluation["evaluated_on"], evaluation["test_accuracy"]) == (part or "test", accuracy)
        assert (evaluation["trained_epochs"], evaluation["retrained"]) == (result["selected_epoch"], False)


def test_a_choice_on_test_samples_is_called_so(folder: Path, tmp_path: Path) -> None:
    progress = quiet()
    result = run(config(folder, groups=[], choose="best"), tmp_path, "test", progress)
    assert any("chooses the epoch on the test samples" in remark for remark in progress.remarks)
    assert any("chooses the epoch on the test samples" in remark for remark in result["notes"])
    accuracies = [record["test_accuracy"] for record in records(tmp_path)]
    assert (result["selected_on"], result["test_accuracy"]) == ("test", max(accuracies))
    assert (result["evaluated_on"], result["validation_accuracy"]) == ("test", None)


def test_a_choice_resumes_to_the_very_same_weights(folder: Path, tmp_path: Path) -> None:
    training = config(folder, "emulator", choose="best", epochs=3)
    whole = run(training, tmp_path / "whole", "test", quiet())
    run(changed(training, epochs=1), tmp_path / "broken", "test", quiet())
    progress = quiet()
    broken = run(changed(training, resume=True), tmp_path / "broken", "test", progress)
    assert any(
        "the test samples were evaluated after epoch 1, and now again after epoch 3" in x for x in progress.remarks
    )
    states = [load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "broken")]
    assert states[0]["clock"] == states[1]["clock"]
    assert_equal(states[0]["model"], states[1]["model"])
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    for name in ("test_accuracy", "validation_accuracy", "selected_epoch", "selected_on"):
        assert whole[name] == broken[name]
    progress = quiet()
    repeated = run(changed(training, resume=True), tmp_path / "whole", "test", progress)
    assert repeated["test_accuracy"] == whole["test_accuracy"]
    assert not [remark for remark in progress.remarks if "evaluated" in remark], (
        "a finished run asks the test part no more"
    )


def test_a_retraining_is_that_of_all_speakers_for_the_chosen_epochs(folder: Path, tmp_path: Path) -> None:
    training = config(folder, choose="best", retrain=True, learning_rate=OVERSHOT)
    result = run(training, tmp_path / "run", "test", quiet())
    epochs = result["selected_epoch"]
    assert epochs < training.trainer.epochs
    plain = run(config(folder, groups=[], epochs=epochs, learning_rate=OVERSHOT), tmp_path / "plain", "test", quiet())
    assert result["retrained"]
    assert_equal(weights(tmp_path / "run"), weights(tmp_path / "plain"))
    for name in ("test_accuracy", "train_accuracy", "train_loss", "train_samples"):
        assert result[name] == plain[name], name
    assert result["train_accuracy_meaning"] == "running mean over the last epoch of the retraining, during training"
    accuracies = [record["test_accuracy"] for record in records(tmp_path / "run" / "retraining")]
    assert accuracies == [None] * (result["selected_epoch"] - 1) + [plain["test_accuracy"]]
    evaluations = evaluate_all(
        EvaluateConfig(str(tmp_path / "run"), BackendConfig("software")), tmp_path / "all", "test", quiet()
    )
    names = ("test_accuracy", "trained_epochs", "retrained")
    expected = (result["test_accuracy"], result["selected_epoch"], True)
    assert [tuple(evaluation[name] for name in names) for evaluation in evaluations] == [expected]


def test_the_cost_of_a_retraining_is_a_part_of_the_result(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._train_step

    def lossy_step(self: Trainer, indices: torch.Tensor) -> None:
        step(self, indices)
        self.sums.dropped_spikes += 1

    monkeypatch.setattr(Trainer, "_train_step", lossy_step)
    training = config(folder, choose="best", retrain=True, epochs=1)
    result = run(training, tmp_path, "test", quiet())
    parts = records(tmp_path) + records(tmp_path / "retraining")
    assert [record["dropped_spikes"] for record in parts] == [4, 6]
    assert result["dropped_spikes"] == 10
    assert result["training_seconds"] == sum(record["seconds"] for record in parts)
    repeated = run(changed(training, resume=True), tmp_path, "test", quiet())
    assert repeated["dropped_spikes"] == 10


def test_a_broken_retraining_resumes_to_the_very_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = config(folder, "emulator", choose="best", retrain=True, epochs=3)
    whole = run(training, tmp_path / "whole", "test", quiet())
    step = Retraining._train_step

    def broken_step(self: Retraining, indices: torch.Tensor) -> None:
        step(self, indices)
        if (self.epoch, self.step) == (0, 2):
            self._stop.set()
            self._stopped = True

    monkeypatch.setattr(Retraining, "_train_step", broken_step)
    with pytest.raises(KeyboardInterrupt, match="interrupted after step 3 of epoch 1"):
        run(training, tmp_path / "broken", "test", quiet())
    monkeypatch.setattr(Retraining, "_train_step", step)
    broken = run(changed(training, resume=True), tmp_path / "broken", "test", quiet())
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    assert whole["test_accuracy"] == broken["test_accuracy"]
    repeated = run(changed(training, resume=True), tmp_path / "broken", "test", quiet())
    assert repeated["test_accuracy"] == broken["test_accuracy"]
    with np.load(tmp_path / "whole" / "weights.npz") as first, np.load(tmp_path / "broken" / "weights.npz") as second:
        assert all(np.array_equal(first[name], second[name]) for name in first.files)


def test_sigint_during_the_last_evaluation_stops_the_retraining(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = Trainer.evaluate

    def interrupted(self: Trainer) -> Any:
        signal.raise_signal(signal.SIGINT)
        return evaluate(self)

    training = config(folder, choose="best", retrain=True, epochs=1)
    monkeypatch.setattr(Trainer, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt, match="interrupted after step 1 of epoch 1"):
        run(training, tmp_path, "test", quiet())
    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    assert run(changed(training, resume=True), tmp_path, "test", quiet())["retrained"]


def test_a_new_training_in_a_folder_takes_no_weights_of_the_previous_one(folder: Path, tmp_path: Path) -> None:
    data = hold_out_groups(DataConfig("folder", folder=str(folder)).load(), HELD_OUT)
    settings = {"epochs": 1, "batch_size": 20, "choose": "best", "retrain": True, "progress": False}
    networks = []
    for place, seed in (("run", 1), ("run", 2), ("other", 2)):
        stack = hx.Linear(70, 20, gain=1.4), hx.LIF(20), hx.Linear(20, 4), hx.LI(4)
        net = hx.Network(*stack, steps=40, seed=seed)
        hx.fit(net, data, encoder=ENCODER, folder=tmp_path / place, **settings)
        networks.append(net.state_dict())
    assert_equal(networks[1], networks[2])


def test_fit_chooses_in_memory(folder: Path) -> None:
    data = hold_out_groups(DataConfig("folder", folder=str(folder)).load(), HELD_OUT)
    torch.manual_seed(0)
    net = hx.Network(hx.Linear(70, 20, gain=1.4), hx.LIF(20), hx.Linear(20, 4), hx.LI(4), steps=40)
    settings = {"epochs": 3, "batch_size": 20, "learning_rate": 5e-3, "choose": "best", "progress": False}
    fit = hx.fit(net, data, encoder=ENCODER, retrain=True, **settings)
    assert fit.selection["selected_on"] == "validation: groups 1, 3"
    assert fit.selection["validation_accuracy"] == max(record["test_accuracy"] for record in fit.records)
    assert fit.selection["retrained"]
    assert hx.evaluate(net, data.reserved.test, encoder=ENCODER).accuracy == fit.accuracy


def test_the_chosen_weights_are_those_that_another_training_begins_with(folder: Path, tmp_path: Path) -> None:
    run(config(folder, choose="best", epochs=1), tmp_path, "test", quiet())
    state = dict(load_checkpoint(tmp_path / "checkpoint.pt"))
    state["model"] = {name: weight + 1 for name, weight in state["model"].items()}  # as after a worse last epoch
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    net = hx.load(tmp_path).net
    chosen = {name: weight.clone() for name, weight in net.state_dict().items()}
    load_weights(net, tmp_path / "checkpoint.pt")
    assert_equal(net.state_dict(), chosen)


def test_too_few_test_samples_are_noticed_before_the_training(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trainer\.test_samples=45 exceeds the 40 available samples"):
        run(config(folder, choose="best", test_samples=45), tmp_path, "test", quiet())  # 48 are held out
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"choose": "first"}, "trainer.choose='first' is not known; choose one of last, best"),
        ({"retrain": True}, "trainer.retrain=true repeats the training .*; add choose=best"),
        ({"choose": "best", "retrain": True, "groups": []}, "trainer.retrain=true needs held out training samples"),
    ],
)
def test_settings_that_contradict_are_refused(folder: Path, tmp_path: Path, settings: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        run(config(folder, **settings), tmp_path, "test", quiet())


DAMAGES = {
    "no choice": lambda state: state.update(selection=[1]),
    "no weights": lambda state: state["selection"].update(model=3),
    "no loss": lambda state: state["selection"].pop("loss"),
    "no second training": lambda state: state["selection"].update(retrained=[1]),
    "no evaluation": lambda state: state["selection"].update(evaluation=None),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_choice_is_refused(folder: Path, tmp_path: Path, damage: Any) -> None:
    training = config(folder, choose="best", epochs=1)
    run(training, tmp_path, "test", quiet())
    file = tmp_path / "checkpoint.pt"
    state = dict(load_checkpoint(file))
    damage(state)
    save_checkpoint(file, state)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        run(changed(training, epochs=2, resume=True), tmp_path, "test", quiet())
    if damage is not DAMAGES["no evaluation"]:  # which nobody needs to load the network
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
            hx.load(tmp_path)


def test_a_part_that_is_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    run(config(folder, groups=[], epochs=1), tmp_path, "test", quiet())
    settings = EvaluateConfig(str(tmp_path / "checkpoint.pt"), BackendConfig("software"), part="validation")
    with pytest.raises(ValueError, match="part=validation: the training held out no samples; choose part=test or"):
        evaluate_checkpoint(settings, tmp_path, "test", quiet())
    with pytest.raises(ValueError, match="part='dev' is not known; choose one of test, validation, train"):
        EvaluateConfig("x", part="dev")
