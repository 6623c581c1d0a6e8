"""`run=FOLDER/config.yaml` starts a run again with the settings in its file."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hxtrain.experiments.checks import typed_settings
from hxtrain.experiments.mistakes import Command, MistakeError
from hxtrain.experiments.rerun import expanded
from hxtrain.experiments.schema import register

RUNS = [
    ("train", []),
    ("train", ["experiment=mnist16_best", "loss=mean_over_time", "regularizer=[upper_activity]", "seed=7"]),
    ("train", ["experiment=yin_yang", "chip=W62F0", "chip.preset=uncalibrated", "+chip.changes.gain_cv=0.25"]),
    ("train", ["backend=remote", "backend.settings.address=tcp://a:1", "trainer.schedule=cosine"]),
    ("train", ["backend=emulator_faulty", "network.hidden=[3,4]", 'trainer.initial="plan (v2)/a=1,b/checkpoint.pt"']),
    ("train", ["backend=software", "network.saturation=12.5", "data=digits", 'distillation.teacher=["a b.pt",c.pt]']),
    ("train", ["data=folder", "data.folder=events", "encoder=events", "encoder.speedup=2000"]),
    ("ann", ["model=cnn", "experiment=ann/mnist16_rotated", "model.channels=3"]),
    ("ann", ["trainer.label_smoothing=0.1"]),
]


def settings(command: str, words: list[str]) -> object:
    register()
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        return typed_settings(compose(command, overrides=words))


def write_run(config: object, folder: Path) -> str:
    """Write the files of a run into its folder; return the word that names the run."""
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(config))))  # type: ignore[call-overload]
    kinds = {f"{key}.kind": type(getattr(config, key, None)).__name__ for key in ("encoder", "loss", "model")}
    (folder / "result.json").write_text(json.dumps({"settings": kinds, "command": "hxtrain seed=7"}))
    return f"run={folder}/config.yaml"


@pytest.mark.parametrize(("command", "words"), RUNS, ids=[" ".join([c, *w]) for c, w in RUNS])
def test_a_run_starts_again_from_its_config(command: str, words: list[str], tmp_path: Path) -> None:
    original = settings(command, words)
    word = write_run(original, tmp_path)
    for name in (word, f"run={tmp_path}"):
        assert settings(command, expanded([name], Command(command))) == original


def test_later_words_and_groups_change_the_settings_of_a_run(tmp_path: Path) -> None:
    word = write_run(settings("train", ["chip.preset=uncalibrated", "seed=7", "trainer.resume=true"]), tmp_path)
    changed = settings("train", expanded([word, "chip=W62F0", "backend=software", "seed=8"], Command("train")))
    assert (changed.chip.name, changed.chip.preset) == ("W62F0", "uncalibrated")  # type: ignore[attr-defined]
    assert (changed.backend.name, changed.seed) == ("software", 8)  # type: ignore[attr-defined]
    assert not changed.trainer.resume  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("command", "word", "text"),
    [
        ("train", "run=nowhere/config.yaml", "there is no such file"),
        ("ann", "run=.", "is of hxtrain; the results there were made by: hxtrain seed=7"),
        ("evaluate", "run=.", "is of hxtrain; the results there were made by: hxtrain seed=7"),
        ("train", "run=other.yaml", "is not the config.yaml of a run; the results there were made by: hxtrain seed=7"),
    ],
)
def test_another_file_is_refused(
    command: str, word: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(settings("train", []), tmp_path)
    (tmp_path / "other.yaml").write_text("- 1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MistakeError, match=text):
        expanded([word], Command(command))


def test_an_experiment_beside_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MistakeError, match="leave experiment= out"):
        expanded(["run=a", "experiment=digits"], Command("train"))
