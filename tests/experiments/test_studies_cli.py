"""The console scripts of the studies, called from the command line."""

import json
import math

import pytest
from commands import call
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from test_cli import TINY

from hxtrain.execution.config import ChipName
from hxtrain.experiments.benchmark import snapshots as snapshots_bench
from hxtrain.experiments.benchmark.config import BenchConfig
from hxtrain.experiments.benchmark.plot import plot_scale
from hxtrain.experiments.benchmark.scale import Point, bench_scale
from hxtrain.experiments.benchmark.snapshots import bench_snapshots, snapshot_rows
from hxtrain.experiments.benchmark.workload import Workload
from hxtrain.experiments.schema import register


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """Calibrate only the CADC of a chip, which takes one second instead of six; return the folder and the output."""
    folder = tmp_path_factory.mktemp("calibrated")
    process = call("hxtrain-calibrate", "chip.name=T1", "stages=[cadc]", "file=t1.npz", "hydra.run.dir=.", cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder, process.stdout


def test_calibrate_writes_a_file_that_trains(calibrated):
    folder, text = calibrated
    assert f"use it with chip.calibration={folder / 't1.npz'}" in text
    record = json.loads((folder / "calibration.json").read_text())
    assert record["stages"] == ["cadc"]
    assert record["chip"] == "T1"
    assert {o["parameter"] for o in record["outcomes"]} >= {"leak", "threshold", "tau_mem", "gain_exc"}
    trained = call("hxtrain", *TINY, "chip.name=T1", "chip.calibration=t1.npz", "hydra.run.dir=run", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    result = json.loads((folder / "run/result.json").read_text())
    assert result["chip_hash"] == record["chip_hash"]
    assert result["calibration"].startswith(record["calibration"].split()[0])
    assert "missed a target of the calibration: leak of " in trained.stdout  # the leak is not calibrated


@pytest.mark.parametrize(
    ("script", "options", "text"),
    [
        ("hxtrain", ["chip.name=T2", "chip.calibration=t1.npz"], "the calibration is of chip T1"),
        ("hxtrain", ["chip.name=T1", "chip.calibration=t1.npz", "network.tau_mem=8e-6"], "network.tau_mem"),
        ("hxtrain", ["chip.calibration=none.npz"], "there is no none.npz"),
        ("hxtrain-calibrate", ["targets.tau_mem=1"], "target tau_mem=1..1 is out of the cells' reach"),
        ("hxtrain-calibrate", ["stages=[leek]"], "stages ['leek'] are not known"),
        ("hxtrain-calibrate", ["targets.reset=160"], "targets.reset=160.0 must be below targets.threshold=150.0"),
    ],
)
def test_refusals_name_field_value_and_remedy(calibrated, script, options, text):
    folder, _ = calibrated
    base = TINY if script == "hxtrain" else []
    process = call(script, *base, *options, "hydra.run.dir=refused", cwd=folder)
    assert process.returncode in (1, 2)
    assert text in process.stderr
    assert "Traceback" not in process.stderr


def test_calibration_needs_a_device_that_offers_it(tmp_path):
    process = call("hxtrain-calibrate", "backend=reference", cwd=tmp_path)
    assert process.returncode == 3
    assert "backend=reference cannot be calibrated from here" in process.stderr


def test_short_validation_passes(tmp_path):
    process = call("hxtrain-validate", "short=true", "hydra.run.dir=v", cwd=tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    record = json.loads((tmp_path / "v/validation.json").read_text())
    assert record["passed"]
    assert sum(check["control"] for check in record["checks"]) == 1
    assert len(record["checks"]) == 16
    assert all(c["passed"] == ((c["low"] <= c["value"] <= c["high"]) != c["control"]) for c in record["checks"])


def test_bench_times_every_feature(tmp_path):
    process = call("hxtrain-bench", "suite=realism", "rounds=1", "batch=10", "hydra.run.dir=b", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    timings = json.loads((tmp_path / "b/bench.json").read_text())["realism"]
    assert len(timings) > 10
    assert all(t["off"] > 0 and t["on"] > 0 for t in timings)


def test_bench_times_steps_and_answers(tmp_path):
    process = call("hxtrain-bench", "rounds=1", "peers=false", "hydra.run.dir=b", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    record = json.loads((tmp_path / "b/bench.json").read_text())
    works = {(row["task"], row["work"]) for row in record["speed"]}
    assert len(works) == len(record["speed"]) == 4 * 4 + 2
    assert all(0 < row["low"] <= row["middle"] <= row["high"] for row in record["speed"])
    assert record["processor"]
    assert (tmp_path / "b/bench.png").stat().st_size > 10_000


def test_bench_measures_snapshots(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots_bench, "BLOCK", 0.01)
    monkeypatch.setattr(snapshots_bench, "RecurrentWorkload", Workload)
    timings = bench_snapshots(BenchConfig(rounds=1), tmp_path, "test")
    record = json.loads((tmp_path / "bench_snapshots.json").read_text())
    assert len(timings) == len(record["snapshots"]) == 4
    assert record["processor"]
    assert all(timing.written >= 1 and timing.size > 10_000 and 0 < timing.share < 1 for timing in timings)
    assert all(len(row) == 8 for row in snapshot_rows(timings))


def test_bench_measures_growth(tmp_path):
    points = [Point("software", "batch", batch=batch, hidden=(16,)) for batch in (10, 40)]
    [growth] = bench_scale(BenchConfig(rounds=1), tmp_path, "test", selection=points)
    assert (growth.kind, growth.axis) == ("software", "batch")
    assert [scaling.point.size for scaling in growth.points] == [10, 40]
    assert all(scaling.memory > 2**24 for scaling in growth.points)
    first, second = (scaling.seconds for scaling in growth.points)
    assert growth.exponent == pytest.approx(math.log(second / first) / math.log(4))
    assert plot_scale([growth], tmp_path / "scale.png").stat().st_size > 5_000


def test_the_chip_of_the_benchmark_is_named_as_elsewhere():
    register("bench")
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        config = OmegaConf.to_object(compose("bench", ["suite=realism", "chip=W62F0"]))
    assert config == BenchConfig("realism", ChipName("W62F0"))
