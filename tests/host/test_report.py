"""Reports: the right runs in the right rows, means and spreads, published values, origins."""

import io
import json
import re

import pytest
from rich.console import Console

from hxtrain.commands.report.config import Column, Measure, PublishedValue, ReportConfig, Series
from hxtrain.commands.report.report import report, write_report
from hxtrain.rules import RULES
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.progress import Progress


def quiet():
    return Progress(show=False, console=Console(file=io.StringIO(), width=200))


def write(folder, accuracy, seed=0, chip="W66F3", backend="emulator", name="result.json", **settings):
    folder.mkdir(parents=True)
    values = {
        "test_accuracy": accuracy, "hidden_spikes_per_sample": 20.0 + seed, "seed": seed, "chip": chip,
        "chip_hash": f"hash of {chip}", "preset": "calibrated", "backend": backend, "data": "mnist",
        "data_sha256": "0123456789abcdef0123", "test_samples": 10, "evaluated_on": "test", "seconds": 1800.0,
        "versions": {"hxtrain": "1"}, "settings": {"backend.name": backend, "network.dropout": 0.0, **settings},
    }  # fmt: skip
    (folder / name).write_text(json.dumps(values))


def config(tmp_path, **changes):
    settings = {
        "name": "table", "out": str(tmp_path / "out"), "folders": [str(tmp_path / "runs")],
        "series": [
            Series("chip", {"backend.name": "emulator"}, [PublishedValue(97.2, 0.1, source="Table 1")]),
            Series("software", {"backend.name": "software"}),
        ],
    }  # fmt: skip
    return ReportConfig(**{**settings, **changes})


def test_rows_with_means_spreads_published_values_and_origin(tmp_path):
    for seed, accuracy in enumerate((0.96, 0.97, 0.98)):
        write(tmp_path / f"runs/{seed}", accuracy, seed, f"W{seed}")
    write(tmp_path / "runs/software", 0.975, backend="software", chip="none")
    columns = [Column("hidden_spikes_per_sample", "spikes"), Column("decision_seconds", "decided")]
    points = report(config(tmp_path, columns=columns, commands=["hxtrain x"]), quiet())
    assert points["chip"][0].mean == pytest.approx(97)
    assert points["chip"][0].std == pytest.approx(1)
    assert points["software"][0].std is None
    text = (tmp_path / "out/table.md").read_text()
    assert "| chip | 97.00 ± 1.00 | 3 | 21.0 | - | 97.2 ± 0.1 (Table 1) |" in text
    assert "| software | 97.50 | 1 | 20.0 | - | - |" in text
    for part in (
        "4 finished runs or evaluations, 2.00 hours",
        "Seeds: 0; 1; 2",
        "W1 calibrated (hash of W1)",
        "none (software)",
        "hxtrain x",
    ):
        assert part in text
    assert "nothing here was run on a physical chip" in text
    assert (tmp_path / "out/table.png").stat().st_size > 5000
    saved = json.loads((tmp_path / "out/table.json").read_text())
    assert [run["test_accuracy"] for run in saved["series"]["chip"][0]["runs"]] == [0.96, 0.97, 0.98]


def test_curves_over_a_setting_and_over_a_measured_quantity(tmp_path):
    for seed in (0, 1):
        for strength in (1e-3, 0.0):
            place = tmp_path / f"runs/{seed}-{strength}"
            write(place, 0.9 + seed / 100, seed, **{"regularizer.burst.strength": strength})
    series = [Series("chip", {}, [PublishedValue(90, None, x=0.0), PublishedValue(50, None, x=7.0)])]
    group = "regularizer.burst.strength"
    points = report(config(tmp_path, series=series, group=group), quiet())["chip"]
    assert [point.x for point in points] == [0.0, 1e-3]
    assert [len(point.records) for point in points] == [2, 2]
    rows = [line for line in (tmp_path / "out/table.md").read_text().splitlines() if line.startswith("| chip")]
    assert rows[0].endswith("| 90.0 |")
    assert rows[1].endswith("| - |")
    points = report(config(tmp_path, series=series, group=group, x="hidden_spikes_per_sample"), quiet())["chip"]
    assert [point.x for point in points] == [20.5, 20.5]
    rows = [line for line in (tmp_path / "out/table.md").read_text().splitlines() if line.startswith("| chip")]
    assert rows[2:] == ["| chip | - | 0 | - | - | 90.0 |", "| chip | - | 7 | - | - | 50.0 |"]


def test_a_list_allows_several_values_and_trained_settings_are_found(tmp_path):
    write(tmp_path / "runs/a", 0.9, chip="A")
    write(tmp_path / "runs/b", 0.8, chip="B")
    write(tmp_path / "runs/c", 0.1, chip="C")
    file = tmp_path / "runs/a/result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "trained_settings": {"network.dropout": 0.4}}))
    series = [Series("both", {"chip": ["A", "B"]}), Series("dropped", {"trained.network.dropout": 0.4})]
    points = report(config(tmp_path, series=series), quiet())
    assert points["both"][0].mean == pytest.approx(85)
    assert [run.get("chip") for run in points["dropped"][0].records] == ["A"]


def test_series_of_their_own_folders_and_groups(tmp_path):
    write(tmp_path / "runs/tau/a", 0.9, spread=0.1, other=0.0)
    write(tmp_path / "runs/theta/b", 0.8, spread=0.0, other=0.3)
    series = [
        Series("tau", folders=[str(tmp_path / "runs/tau")]),
        Series("theta", folders=[str(tmp_path / "runs/theta")], group="other"),
    ]
    points = report(config(tmp_path, series=series, group="spread", xscale=100), quiet())
    assert [(point.x, point.mean) for point in points["tau"]] == [(pytest.approx(10), pytest.approx(90))]
    assert [(point.x, point.mean) for point in points["theta"]] == [(pytest.approx(30), pytest.approx(80))]


def test_a_row_without_runs_says_so(tmp_path):
    write(tmp_path / "runs/a", 0.9)
    progress = quiet()
    report(config(tmp_path), progress)
    assert "| software | no runs | - | - |" in (tmp_path / "out/table.md").read_text()
    assert re.search("series 'software' has no runs", progress.console.file.getvalue())


def test_refusals(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(CheckpointError, match="no finished run below"):
        report(config(tmp_path), quiet())
    write(tmp_path / "runs/a", None)
    with pytest.raises(ValueError, match="test_accuracy is None, expected a number"):
        report(config(tmp_path), quiet())
    (tmp_path / "runs/a/result.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        report(config(tmp_path), quiet())
    with pytest.raises(ValueError, match="labels"):
        config(tmp_path, series=[Series("a"), Series("a")])
    with pytest.raises(ValueError, match="needs group"):
        config(tmp_path, x="seed")
    with pytest.raises(ValueError, match="names no runs"):
        config(tmp_path, folders=[])


def matrix(tmp_path, **changes):
    series = [Series("ideal", {"preset": "ideal"}), Series("calibrated", {"preset": "calibrated"})]
    rows = [Column("rule.kind", "rule"), Column("network.hidden", "neurons")]
    return config(tmp_path, layout="matrix", rows=rows, series=series, ylabel="accuracy (%)", **changes)


def write_rule(folder, rule, accuracy, preset="calibrated", seed=0, **values):
    write(folder, accuracy, seed, **{"rule.kind": rule, "network.hidden": [30, 10]})
    file = folder / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "preset": preset, **values}))


def test_a_matrix_has_a_row_for_what_the_runs_have_and_a_column_for_each_series(tmp_path):
    for seed in (0, 1):
        write_rule(tmp_path / f"runs/a{seed}", "backprop", 0.9 + 0.02 * seed, "ideal", seed)
    write_rule(tmp_path / "runs/b", "backprop", 0.86)
    write_rule(tmp_path / "runs/c", "toy", 0.5, distance=0.25)
    measures = [Measure({"rule.kind": "toy"}, "distance", "distance", digits=3)]
    columns = [Column("hidden_spikes_per_sample", "spikes")]
    rows = write_report(matrix(tmp_path, measures=measures, columns=columns), quiet())
    text = (tmp_path / "out/table.md").read_text()
    assert "| rule | neurons | quantity | ideal | calibrated | change | runs | spikes |" in text
    assert "| backprop | 30-10 | accuracy (%) | 91.00 ± 1.41 | 86.00 | -5.00 | 2 / 1 | 20.5 / 20.0 |" in text
    assert "| toy | 30-10 | distance | no runs | 0.250 | - | 0 / 1 | - / 20.0 |" in text
    assert "`change` is calibrated less ideal" in text
    assert "4 finished runs" in text
    assert rows[0] == ("backprop, 30-10", "ideal", "91.00", "1.41", "2")
    assert (tmp_path / "out/table.png").stat().st_size > 5000
    saved = json.loads((tmp_path / "out/table.json").read_text())["rows"]
    assert [row["quantity"] for row in saved] == ["test_accuracy", "distance"]
    assert saved[0]["series"]["ideal"]["runs"][1] == {"seed": 1, "chip": "W66F3", "test_accuracy": 0.92}


def test_a_matrix_names_the_registered_rules_without_runs(tmp_path):
    write_rule(tmp_path / "runs/a", "backprop", 0.9)
    progress = quiet()
    write_report(matrix(tmp_path), progress)
    missing = [name for name in RULES.names() if name != "backprop"]
    text = (tmp_path / "out/table.md").read_text()
    assert all(f"`{name}`" in text for name in missing)
    assert ("Rules without a run here" in text) == bool(missing)
    assert ("rules without runs" in progress.console.file.getvalue()) == bool(missing)


def test_a_gallery_has_a_section_for_every_rule_and_a_plot_of_every_experiment(tmp_path):
    write_rule(tmp_path / "runs/backprop_toy", "backprop", 0.9, epochs=3)
    (tmp_path / "runs/backprop_toy/plots").mkdir()
    for name, content in (("learning_curves", b"curves"), ("window", b"window")):
        (tmp_path / f"runs/backprop_toy/plots/{name}.png").write_bytes(content)
    experiments = dict.fromkeys(["backprop_toy", "backprop_other", "backprop_long"], "backprop")
    progress = quiet()
    gallery = config(
        tmp_path, layout="gallery", series=[], name="rules", title="Rules", experiments=experiments,
        pages={"long": "results/long_runs.md"},
    )  # fmt: skip
    write_report(gallery, progress)
    text = (tmp_path / "out/rules.md").read_text()
    assert all(f"\n## {name}\n" in text for name in RULES.names())
    assert "Descent of a loss and penalties by autograd" in text
    assert "goes with `optimizer=adam`" in text
    assert "hxtrain experiment=backprop_toy\n" in text
    assert "90.00 after 3 epochs in 1800 s, 20.0 hidden spikes per sample, on emulator W66F3 (calibrated)." in text
    assert "![backprop_toy](images/rules/backprop_toy.png)" in text
    assert (tmp_path / "out/images/rules/backprop_toy.png").read_bytes() == b"window"
    assert text.count("No run of it is shown here.") == 1
    assert "Its results: [long_runs](results/long_runs.md)." in text
    assert "backprop_other" in progress.console.file.getvalue()


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"layout": "table"}, "layout='table' is not known"), ({"layout": "matrix"}, r"rows=\[\] makes no")],
)
def test_wrong_layouts_are_refused(tmp_path, changes, text):
    with pytest.raises(ValueError, match=text):
        config(tmp_path, **changes)


def test_a_key_that_runs_lack_is_a_dash_in_the_name_of_a_row(tmp_path):
    write_rule(tmp_path / "runs/a", "backprop", 0.9)
    rows = [Column(key="rule.kind", label="rule"), Column(key="network.hiding", label="hidden")]
    series = [Series(label="all")]
    write_report(config(tmp_path, layout="matrix", series=series, rows=rows, name="table"), quiet())
    assert "| backprop | - |" in (tmp_path / "out/table.md").read_text()
