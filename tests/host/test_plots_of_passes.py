"""Figures of a pass, of a chip and of runs; one line and one table for a notebook. No figure touches pyplot."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import hxtrain as hx
from hxtrain.backends import CircuitMap, create_backend
from hxtrain.network.firing import NeuronFiring
from hxtrain.training import decision_curve

DT = 1.7e-6


@pytest.fixture(autouse=True)
def no_pyplot(monkeypatch):
    """Refuse the import of pyplot, whose state is global."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)


@pytest.fixture(scope="module")
def data():
    return hx.load_dataset("digits")


@pytest.fixture(scope="module")
def net():
    return hx.Network(hx.Linear(64, 40, gain=5.0), hx.LIF(40), hx.Linear(40, 10), hx.LI(10), seed=3)


@pytest.fixture(scope="module")
def activity(net, data):
    with torch.no_grad(), net.twin.recording():
        return net(data.source(data.test, hx.LatencyEncoder()).spikes(torch.arange(30)))


def test_a_raster_has_every_spike_in_the_order_of_first_spikes(net, activity):
    events = activity.layers[0].times(DT)
    inside = events.sample == 4
    times, units = events.time[inside], events.unit[inside]
    figure = hx.plots.raster_figure(net, activity, 4)
    line = figure.axes[1].lines[0]
    assert sorted(line.get_xdata()) == pytest.approx(sorted((1e6 * times.double()).tolist()))
    first = {}
    for time, row in sorted(zip(line.get_xdata(), line.get_ydata(), strict=True)):
        first.setdefault(row, time)
    assert [first[row] for row in sorted(first)] == sorted(first.values())
    silent = 40 - len(set(units.tolist()))
    assert figure.axes[1].get_title(loc="left") == f"layer0: {len(times)} spikes, {silent} of 40 silent"
    by_unit = hx.plots.raster_figure(net, activity, 4, order="unit").axes[1].lines[0]
    assert sorted(by_unit.get_ydata()) == sorted(units.tolist())
    with pytest.raises(ValueError, match=r"order='size' is not known; choose one of first_spike, unit"):
        hx.plots.raster_figure(net, activity, 4, order="size")


def test_an_animated_raster_shows_the_past_of_each_frame(net, activity, tmp_path):
    animation = hx.plots.raster_animation(net, activity, 4, frames=3)
    events = activity.layers[0].times(DT)
    count = int(((events.sample == 4) & (events.time <= 2 / 3 * 20 * DT)).sum())
    artists = animation._func(1)
    assert len(artists[2].get_xdata()) == count > 0
    assert artists[3].get_xdata() == pytest.approx([2 / 3 * 34, 2 / 3 * 34])
    animation.save(tmp_path / "raster.gif", writer="pillow")
    assert (tmp_path / "raster.gif").read_bytes()[:3] == b"GIF"
    with pytest.raises(ValueError, match=r"frames=0 must be at least 1"):
        hx.plots.raster_animation(net, activity, frames=0)


def test_membranes_have_a_time_axis_and_both_curves(net, data):
    with hx.open_device("emulator", chip="W66F3", preset="ideal") as device:
        copy = hx.Network(hx.Linear(64, 40, gain=5.0), hx.LIF(40), hx.Linear(40, 10), hx.LI(10), seed=3)
        copy.attach(device)
        measured = copy(data.source(data.test, hx.LatencyEncoder()).spikes(torch.arange(3)))
        figure = hx.plots.traces_figure(copy, measured, 2, neurons=[1, 5])
        chip = device.backend.circuit_map
    lines = figure.axes[1].lines
    assert len(lines) == 4
    assert lines[0].get_xdata() == pytest.approx(1e6 * DT * np.arange(20))
    assert lines[2].get_ydata() == pytest.approx(measured.readout[:, 2, 5].detach().numpy())
    difference = lines[2].get_ydata() - lines[3].get_ydata()
    assert 0 < np.abs(difference).max() < 0.1  # an ideal chip has the noise of its ADC alone
    assert figure.axes[1].get_xlabel() == "time (µs)"
    assert chip.places.tolist() == [list(range(50))]
    assert chip.populations == ("layer0",) * 40 + ("layer1",) * 10
    assert not chip.failed.any()
    with pytest.raises(ValueError, match=r"layer='hidden' is not in the network; choose one of layer0, layer1"):
        hx.plots.traces_figure(copy, measured, layer="hidden")
    with pytest.raises(ValueError, match=r"layer1 has neurons 0 to 9, not 10"):
        hx.plots.traces_figure(copy, measured, layer="layer1", neurons=[10])


def test_rates_count_every_neuron(net, activity):
    figure = hx.plots.rates_figure(net, activity)
    counts = activity.layers[0].counts.mean(0)
    silent = int((counts == 0).sum())
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert f"{silent} silent" in labels
    assert f"mean {counts.mean():.2f}" in labels
    readout = hx.Network(hx.Linear(64, 10), hx.LI(10))
    with pytest.raises(ValueError, match=r"no layer of the network spikes"):
        hx.plots.rates_figure(readout, readout(activity.inputs.spikes))


def test_a_map_of_a_chip_places_every_neuron():
    device = create_backend("emulator", chip="W66F3")
    chip = device.circuit_map
    assert chip.failed.sum() == 7
    assert set(chip.codes) >= {"leak", "threshold", "tau_mem"}
    assert chip.places.shape == (1, 0)
    small = CircuitMap("x", 64, ("a", "a", "b"), np.array([[3, 5, 60], [4, 6, -1]]), {"leak": np.arange(64) == 5})
    values = small.spread(np.array([1.0, 2.0, 3.0]))
    assert values[[3, 4, 5, 6, 60]].tolist() == [1, 1, 2, 2, 3]
    assert np.isnan(values).sum() == 59
    firing = NeuronFiring("a", torch.zeros(2), torch.tensor([False, True]), torch.tensor([True, False]))
    figure = hx.plots.chip_figure(small, [firing], {"leak": values})
    places = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_marker() in "xo^"]
    assert places == [[[5, 0]], [[5, 0], [6, 0]], [[3, 0], [4, 0]]]
    with pytest.raises(ValueError, match=r"values of leak are \[3\], expected \[64\]"):
        hx.plots.chip_figure(small, values={"leak": np.zeros(3)})
    with pytest.raises(ValueError, match=r"expected \[3\], one for each neuron"):
        small.spread(np.zeros(4))
    parameters = SimpleNamespace(
        leak=np.ones(3), threshold=np.array([1.0, np.inf, 2.0]), tau_mem=np.full(3, 6e-6),
        tau_syn=np.full((2, 2, 3), 5e-6), strength=np.full((9, 2, 3), 0.5),
    )  # fmt: skip
    maps = hx.plots.parameter_maps(small, parameters)
    assert maps["tau_mem (µs)"][60] == pytest.approx(6)
    assert np.isnan(maps["threshold (LSB)"][5])
    assert len(hx.plots.chip_figure(small, values=maps).axes) == 1 + 2 * 6


def test_accuracy_over_time_ends_at_the_accuracy(net, data):
    part = data.test[:60]
    curve = decision_curve(net, part)
    evaluation = hx.evaluate(net, part)
    assert curve.accuracy == evaluation.accuracy == pytest.approx(float(curve.accuracies[-1]))
    assert curve.decision_time == pytest.approx(evaluation.decision_time)
    assert curve.times.tolist() == pytest.approx([k * DT for k in range(20)])
    axes = hx.plots.decision_figure({"twin": curve}).axes[0]
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(100 * evaluation.accuracy)
    spiking = hx.Network(hx.Linear(64, 10, gain=9.0), hx.LIF(10), seed=1)
    for loss in (hx.SpikeCount(), hx.TimeToFirstSpike()):
        late = decision_curve(spiking, part, loss)
        assert late.accuracy == hx.evaluate(spiking, part, loss).accuracy
    with pytest.raises(ValueError, match=r"no curves to plot"):
        hx.plots.decision_figure({})


def write_run(folder: Path, epochs: int, seed: int) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(f"seed: {seed}\ntrainer:\n  epochs: 4\n")
    records = [{"epoch": k + 1, "train_loss": 1.0 / (k + seed), "test_accuracy": 0.5} for k in range(epochs)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_runs_side_by_side(tmp_path):
    runs = {"a": write_run(tmp_path / "a", 3, 1), "b": write_run(tmp_path / "b", 2, 2)}
    figure = hx.plots.runs_figure(runs)
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[1, 1 / 2, 1 / 3], [1 / 2, 1 / 3]]
    table = figure.axes[-1].texts[0].get_text()
    assert table.splitlines() == ["setting  a  b", "seed     1  2"]
    with pytest.raises(ValueError, match=r"no runs to plot"):
        hx.plots.runs_figure({})
    (tmp_path / "b" / "metrics.jsonl").unlink()
    with pytest.raises(
        hx.runs.checkpoint.CheckpointError, match=r"b has no metrics.jsonl; name the directory of a run"
    ):
        hx.plots.runs_figure(runs)


def test_names_of_runs_are_no_formulas(tmp_path):
    runs = {"cost $x_{$": write_run(tmp_path / "a", 3, 1), "_b": write_run(tmp_path / "b", 2, 2)}
    (tmp_path / "a/config.yaml").write_text("seed: '$n_{$'\n")
    figure = hx.plots.runs_figure(runs)
    figure.savefig(tmp_path / "runs.png")
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["cost $x_{$, last 0.333", "_b, last 0.333"]
    assert figure.axes[2].texts[0].get_text() == "not recorded"


def test_runs_that_play_have_scores(tmp_path):
    run = write_run(tmp_path / "a", 1, 1)
    (run / "metrics.jsonl").write_text('{"epoch": 1, "score": 2.0, "success": 0.5, "output_spikes_per_trial": 9.0}\n')
    axes = hx.plots.runs_figure({"a": run}).axes
    assert [float(panel.lines[0].get_ydata()[0]) for panel in axes[:3]] == [2.0, 50.0, 9.0]


def test_every_public_figure_has_a_home():
    for name in hx.plots.__all__:
        assert getattr(hx.plots, name).__module__.startswith("hxtrain.plots.")
    assert isinstance(hx.plots.window_figure(torch.ones(2), torch.ones(2)), Figure)
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'"):
        hx.plots.nothing  # noqa: B018


def test_one_line_and_one_table_for_a_notebook(net, activity, data):
    assert repr(net) == "Network(64-40-10, membranes, dt=1.7e-06 s, steps=20, in software)"
    assert str(net).startswith("Network(\n  dt=1.7e-06 s, steps=20")
    assert "<td>2560</td>" in net._repr_html_()
    assert "silent neurons" in activity._repr_html_()
    hostile = replace(data, name="<script>alert(1)</script>", note="a & b")
    table = hostile._repr_html_()
    assert "<script>" not in table
    assert "&lt;script&gt;" in table
    assert "a &amp; b" in table
    with hx.open_device("emulator", chip="W66F3", preset="ideal") as device:
        assert "W66F3" in device._repr_html_()
    masked = hx.Network(hx.Linear(4, 3, mask=torch.eye(3, 4)), hx.LIF(3), hx.Recurrent(3), hx.Linear(3, 2), hx.LI(2))
    assert repr(masked).startswith("Network(4-3-2, 1 recurrent, membranes")
    assert f"<td>{3 + 9}</td>" in masked._repr_html_()
    masked.stack[0] = hx.LI(2)
    assert repr(masked).startswith("Network(\n")
