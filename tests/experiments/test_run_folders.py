"""Folders of the runs of a sweep: short, in letters that every shell takes, one per setting, old ones used again."""

import logging
import re
from pathlib import Path

import pytest

from hxtrain.experiments.folders import RotatedLog, RunLog
from hxtrain.experiments.resolvers import run_folder
from hxtrain.runs.checkpoint import CheckpointError, require_same

SETTINGS = [
    "network.weight_bits=2",
    "network.weight_bits=2,seed=1",
    "network.hidden=[10],seed=1",
    "network.hidden=[10,20],seed=1",
    "network.hidden=[1020],seed=1",
    "trainer.initial=/data/a b/checkpoint.pt,seed=1",
    "trainer.initial=/data/a-b/checkpoint.pt,seed=1",
    'trainer.initial="plan (v2)/ü.pt"',
    "++chip.changes.gain_cv=-0.1",
    "++chip.changes.gain_cv=0.1",
    ",".join(f"network.some_long_name_{index}={index / 7}" for index in range(40)),
    ",".join(f"network.some_long_name_{index}={index / 7}" for index in range(41)),
    "chip.name=../../x",
]


def test_names_are_safe_short_and_differ(tmp_path: Path) -> None:
    names = [run_folder(str(tmp_path), settings) for settings in SETTINGS]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]*", name), name
        assert len(name) < 200
        (tmp_path / name).mkdir()
        assert (tmp_path / name).parent == tmp_path


def test_simple_settings_stay_readable(tmp_path: Path) -> None:
    assert run_folder(str(tmp_path), "network.weight_bits=2,seed=1") == "network.weight_bits-2__seed-1"
    assert run_folder(str(tmp_path), "") == ""


@pytest.mark.parametrize("settings", SETTINGS[:6])
def test_a_folder_of_earlier_versions_is_used_again(tmp_path: Path, settings: str) -> None:
    (tmp_path / settings).mkdir(parents=True)
    assert run_folder(str(tmp_path), settings) == settings


def test_a_relative_path_of_weights_may_become_an_absolute_one() -> None:
    saved = {"trainer.initial": "first/checkpoint.pt", "seed": 1}
    require_same(Path("x"), saved, {**saved, "trainer.initial": "/runs/first/checkpoint.pt"})
    for path in ("/runs/second/checkpoint.pt", None):
        with pytest.raises(CheckpointError, match=r"trainer\.initial"):
            require_same(Path("x"), saved, {**saved, "trainer.initial": path})


@pytest.mark.parametrize(("kind", "options"), [(RunLog, {}), (RotatedLog, {"maxBytes": 200, "backupCount": 1})])
def test_a_log_that_cannot_be_written_stops_nothing_and_follows_no_link(tmp_path, capsys, mocker, kind, options):
    record = logging.makeLogRecord({"msg": "x" * 90})
    (tmp_path / "link.log").symlink_to(tmp_path / "victim")
    link = kind(tmp_path / "link.log", delay=True, **options)
    link.emit(record)
    assert not (tmp_path / "victim").exists()
    log = kind(tmp_path / "run.log", delay=True, **options)
    for _ in range(5):
        log.emit(record)
    mocker.patch.object(log.stream, "write", side_effect=OSError(28, "No space left on device"))
    log.emit(record)
    log.close()
    assert capsys.readouterr().err == ""
    assert sorted(file.name for file in tmp_path.glob("run*")) == ["run.log", "run.log.1"][: 1 + bool(options)]
