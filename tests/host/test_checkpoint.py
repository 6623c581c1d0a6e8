"""Checkpoints: atomic, without code execution, tied to their settings."""

import pickle

import pytest
import torch

import hxtrain as hx
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint, require_same, save_checkpoint
from hxtrain.runs.versions import versions


def test_round_trip(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"model": {"w": torch.arange(3)}, "epoch": 2, "settings": {"a.b": [1, "x", None]}})
    state = load_checkpoint(path)
    assert state["epoch"] == 2
    assert torch.equal(state["model"]["w"], torch.arange(3))
    assert state["settings"] == {"a.b": [1, "x", None]}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, mocker):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"epoch": 1})
    mocker.patch("hxtrain.backends.files.os.fsync", side_effect=OSError(28, "No space left on device"))
    with pytest.raises(CheckpointError, match=r"could not be written .*No space left.*the one before it is intact"):
        save_checkpoint(path, {"epoch": 2})
    assert load_checkpoint(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


class Harmful:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w')",)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path, marker = tmp_path / "harmful.pt", tmp_path / "marker"
    torch.save({"format": 1, "x": Harmful(marker)}, path)
    with pytest.raises(CheckpointError, match="holds more than tensors and plain values"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Harmful(marker)))
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        load_checkpoint(path)
    assert not marker.exists()


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*nothing.pt"):
        load_checkpoint(tmp_path / "nothing.pt")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="has checkpoint format None, this version reads 1"):
        load_checkpoint(tmp_path / "other.pt")


def test_all_differing_settings_are_named(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        require_same(tmp_path, {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5, "d": 4})
    text = str(caught.value)
    assert all(part in text for part in ("b: checkpoint 2, now 5", "c: checkpoint 3, now 'absent'", "d: checkpoint"))
    assert "a:" not in text


def test_a_setting_of_another_version_that_is_not_in_use_is_no_difference(tmp_path):
    require_same(tmp_path, {"a": 1}, {"a": 1, "encoder.grid": None})
    require_same(tmp_path, {"a": 1, "gone": None}, {"a": 1})
    with pytest.raises(CheckpointError, match=r"encoder\.grid: checkpoint 'absent', now 1\.7e-06"):
        require_same(tmp_path, {"a": 1}, {"a": 1, "encoder.grid": 1.7e-6})


NEWER = {
    "data.validation_groups": [],
    "data.validation_random_groups": 0,
    "data.validation_seed": 0,
    "data.shuffled_times": False,
    "encoder.first": 0,
    "encoder.stride": 1,
    "encoder.pooled": False,
    "gradient.refractory": False,
    "network.refractory": None,
    "trainer.choose": "last",
    "trainer.retrain": False,
}
"""Settings that runs before event data did not have, as their continuation has them."""


def test_fits_from_before_event_data_are_continued(tmp_path):
    net = hx.Network(hx.Linear(4, 3), hx.LIF(3), hx.Linear(3, 2), hx.LI(2), steps=10)
    split = hx.EventSplit.from_arrays([1e-6], [0], [0, 1], [0], 4)
    data = hx.Dataset("one", split, split, ("a", "b"), 4, "made here", "-", "", sha256="one")
    settings = {"epochs": 1, "encoder": hx.EventEncoder(), "folder": tmp_path, "progress": False}
    hx.fit(net, data, **settings)
    state = dict(load_checkpoint(tmp_path / "checkpoint.pt"))
    old_texts = {
        "augment": "Augmentation(rotation=0.0, shift=0.0, scale=0.0, shear=0.0, elastic=0.0, mirror=False)",
        "encoder": "EventEncoder(jitter=0.0, grid=None, speedup=1.0)",
        "gradient": "SurrogateGradient(surrogate=None, slope=None, at_spike=None)",
        "network.1": "LIF(3, tau_mem=6e-06 s, tau_syn=6e-06 s): LIF(at_spike='threshold', size=3, slope=10.0, "
        "surrogate='superspike', tau_mem=6e-06, tau_syn=6e-06)",
    }
    new_names = {"trainer.choose", "trainer.retrain"}
    common = {name: value for name, value in state["settings"].items() if name not in new_names}
    assert old_texts.keys() <= common.keys()
    save_checkpoint(tmp_path / "checkpoint.pt", state | {"settings": common | old_texts})
    assert len(hx.fit(net, data, resume=True, **settings | {"epochs": 2}).records) == 2
    net.gradient = hx.SurrogateGradient(refractory=True)
    with pytest.raises(CheckpointError, match=r"gradient: checkpoint .* now .*refractory=True"):
        hx.fit(net, data, resume=True, **settings | {"epochs": 3})


def test_runs_from_before_event_data_are_continued(tmp_path):
    old = {"gradient.kind": "surrogate", "encoder.kind": "events", "seed": 1}
    require_same(tmp_path, old, old | NEWER)
    with pytest.raises(CheckpointError, match=r"gradient\.refractory: checkpoint False, now True"):
        require_same(tmp_path, old, old | NEWER | {"gradient.refractory": True})


def test_versions_name_the_gpu_if_there_is_one(mocker):
    mocker.patch("torch.cuda.is_available", return_value=True)
    mocker.patch("torch.cuda.get_device_name", return_value="a card")
    assert versions.__wrapped__()["gpu"] == "a card"
