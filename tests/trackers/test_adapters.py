"""Adapters of trackers: what each library's own reader reads back. Without the library, its tests are skipped."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_trackers import config, global_state, lines, quiet
from torch import load

from hxtrain.commands.train import run
from hxtrain.trackers import TRACKERS, TrackedRun, Tracker, TrackerError, tracked


@pytest.fixture(autouse=True)
def no_service() -> Iterator[None]:
    """End the service process of Weights & Biases, if a test has started it."""
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def track(folder: Path, name: str, **settings: Any) -> tuple[Path, list[dict[str, Any]]]:
    """Train two epochs, interrupted after the first, in a run that continues; return its directory and its records."""
    trackers: dict[str, Tracker] = {name: TRACKERS.load(name)(steps=2, **settings)}
    place = folder / "my run"
    state = global_state()
    for epochs in (1, 2):
        run(config(epochs, epochs == 2, tracker=trackers), place, progress=(progress := quiet()), group="sweep/1")
        assert not [remark for remark in progress.remarks if "tracker" in remark]
    assert global_state() == state
    return place, lines(place / "metrics.jsonl")


def expected(records: list[dict[str, Any]], name: str) -> dict[int, float]:
    return {4 * record["epoch"]: record[name] for record in records}


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place, records = track(tmp_path, "tensorboard")
    reader = EventAccumulator(str(place / "tensorboard"), size_guidance={"images": 0})
    reader.Reload()
    accuracies = {event.step: event.value for event in reader.Scalars("epoch/test_accuracy")}
    assert accuracies == pytest.approx(expected(records, "test_accuracy"))
    assert [event.step for event in reader.Scalars("step/loss")] == [2, 4, 6, 8]
    for tag in ("raster", "weights/input_to_layer0", "weights/layer0_to_layer1"):
        images = reader.Images(tag)
        assert [image.step for image in images] == [4, 8]
        assert min(images[0].width, images[0].height) > 100
    graph = reader.Graph()
    nodes = {node.name: node for node in graph.node}
    assert list(nodes["layer0"].input) == ["input_to_layer0"]
    assert nodes["layer0"].attr["neurons"].s == b"12"
    assert "hidden" in reader.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()


@pytest.mark.filterwarnings("ignore")  # its libraries warn one another
def test_mlflow_reads_what_was_written(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'store.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("mine", artifact_location=(tmp_path / "artifacts").as_uri())
    place, records = track(tmp_path, "mlflow", uri=uri, experiment="mine")
    (entry,) = client.search_runs([experiment])
    assert (entry.info.run_name, entry.info.status) == ("my run", "FINISHED")
    assert entry.data.tags["group"] == "sweep/1"
    assert entry.data.params["network.hidden"] == "[12]"
    history = client.get_metric_history(entry.info.run_id, "epoch/test_accuracy")
    assert {metric.step: metric.value for metric in history} == expected(records, "test_accuracy")
    steps = sorted({metric.step for metric in client.get_metric_history(entry.info.run_id, "step/loss")})
    assert steps == [2, 4, 6, 8]
    names = {item.path for item in client.list_artifacts(entry.info.run_id)}
    assert names >= {"config.yaml", "result.json", "weights.npz", "images"}
    file = Path(client.download_artifacts(entry.info.run_id, "weights.npz", str(tmp_path)))
    with np.load(file) as read, np.load(place / "weights.npz") as written:
        assert all((read[name] == written[name]).all() for name in written)


def test_weights_and_biases_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    place, records = track(tmp_path, "wandb", project="mine")
    name = json.loads((place / "tracker.json").read_text(encoding="utf-8"))["id"]
    files = sorted((place / "wandb").glob(f"offline-run-*/run-{name}.wandb"))
    assert len(files) == 2  # offline, a run that continues has a second file, of the same id
    rows: dict[int, dict[str, Any]] = {}
    for file in files:
        contents = list(wandb_records(file))
        runs = [record.run for record in contents if record.WhichOneof("record_type") == "run"]
        assert (runs[0].run_id, runs[0].project, runs[0].run_group, runs[0].display_name) == (
            name,
            "mine",
            "sweep/1",
            "my run",
        )
        history = [record.history for record in contents if record.WhichOneof("record_type") == "history"]
        assert [record.exit.exit_code for record in contents if record.WhichOneof("record_type") == "exit"] == [0]
        for row in history:
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row.item}
            rows.setdefault(items["_step"], {}).update(items)
    accuracies = {step: row["epoch/test_accuracy"] for step, row in rows.items() if "epoch/test_accuracy" in row}
    assert accuracies == expected(records, "test_accuracy")
    assert sorted(step for step, row in rows.items() if "step/loss" in row) == [2, 4, 6, 8]
    assert (files[0].parent / "files" / rows[4]["raster.path"]).exists()
    assert (files[1].parent / "files" / "hxtrain" / "result.json").exists()


def wandb_records(file: Path) -> Iterator[Any]:
    """Yield the records of a file of Weights & Biases: LevelDB's log format, 7 bytes, then blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = file.read_bytes()
    place = 7
    parts: list[bytes] = []
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_folder_that_cannot_be_written_is_one_warning(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    place = str(tmp_path / "file" / "x")
    settings = {"uri": f"sqlite:///{place}/store.db"} if name == "mlflow" else {"folder": place}
    progress = quiet()
    with tracked(TrackedRun("x"), {name: TRACKERS.load(name)(**settings)}, progress) as tracking:
        tracking.log(1, {"a": 1.0})
    assert len([remark for remark in progress.remarks if f"tracker {name} failed" in remark]) == 1


@pytest.mark.filterwarnings("ignore")
def test_all_adapters_leave_the_weights_as_they_are(tmp_path: Path) -> None:
    for name in ("tensorboard", "mlflow", "wandb"):
        pytest.importorskip(name)
    trackers = {name: TRACKERS.load(name)() for name in ("json_lines", "tensorboard", "wandb")}
    trackers["mlflow"] = TRACKERS.load("mlflow")(uri=f"sqlite:///{tmp_path / 'store.db'}")
    models = []
    for number, chosen in enumerate((trackers, {})):
        run(config(tracker=chosen), tmp_path / str(number), progress=quiet())
        models.append(load(tmp_path / str(number) / "checkpoint.pt", weights_only=True)["model"])
    assert all((models[0][key] == models[1][key]).all() for key in models[0])


def test_a_mode_of_weights_and_biases_that_is_none() -> None:
    kind = TRACKERS.load("wandb")
    with pytest.raises(TrackerError, match=r"tracker\.wandb\.mode='of'"):
        kind(mode="of")
    with pytest.raises(TrackerError, match=r"tracker\.wandb\.mode='of'"):
        replace(kind(), mode="of")
