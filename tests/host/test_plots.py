"""Plots: the data in the figures, edge cases, and the files written."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch import Tensor

from hxtrain.plots import training as plots
from hxtrain.plots.style import BLUE, DPI, VERMILLION
from hxtrain.plots.training import SampleView

DT = 1.7e-6


def record(epoch: int, test: float | None = None) -> dict[str, float]:
    values = {"epoch": epoch, "train_loss": 2.0 / epoch, "train_accuracy": 1 - 0.5 / epoch}
    values["hidden_spikes_per_sample"] = 40.0 + epoch
    return values if test is None else values | {"test_accuracy": test}


def view(label: int = 2, prediction: int = 2, events: int = 30, image: bool = True) -> SampleView:
    rng = torch.Generator().manual_seed(label)
    units = torch.randint(0, 16, (events,), generator=rng)
    times = torch.rand(events, generator=rng) * 20e-6
    measured = torch.randn(12, 4, generator=rng)
    picture = torch.rand(4, 4, generator=rng) if image else None
    return SampleView(
        picture, times, units, times / 2, units + 1, measured, measured * 0.9, DT, label, prediction, 16, 40
    )


def png_size(path: Path) -> tuple[int, int]:
    """Return width and height in pixels, after checking that this is a whole PNG."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[12:16] == b"IHDR"
    assert data[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def xy(line: Any) -> Any:
    x, y = line.get_data()
    return list(x), list(y)


def axes_of(figure: Figure) -> list[Any]:
    return list(figure.axes)


SAMPLE = view()
NO_SPIKES = replace(SAMPLE, hidden_times=torch.zeros(0), hidden_units=torch.zeros(0, dtype=torch.long))
SILENT = replace(NO_SPIKES, input_times=torch.zeros(0), input_units=torch.zeros(0, dtype=torch.long))
ZERO = torch.zeros(2, 3, dtype=torch.int32)

Plot = Callable[[Path], Path]
CASES: dict[str, tuple[Plot, Callable[[], Figure]]] = {
    "curves": (
        lambda p: plots.plot_learning_curves([record(1), record(2, 0.7)], p),
        lambda: plots.learning_curves_figure([record(1), record(2, 0.7)]),
    ),
    "samples": (lambda p: plots.plot_samples([SAMPLE], p), lambda: plots.samples_figure([SAMPLE])),
    "weights": (
        lambda p: plots.plot_weights({"a": ZERO}, p, 63),
        lambda: plots.weights_figure({"a": ZERO}, 63),
    ),
    "plane": (
        lambda p: plots.plot_plane(torch.arange(9) % 2, torch.arange(9) % 2, ["a", "b"], p),
        lambda: plots.plane_figure(torch.arange(9) % 2, torch.arange(9) % 2, ["a", "b"]),
    ),
    "confusion": (
        lambda p: plots.plot_confusion(torch.eye(3), ["a", "b", "c"], p),
        lambda: plots.confusion_figure(torch.eye(3), ["a", "b", "c"]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_writes_one_png_of_the_figures_size(name: str, tmp_path: Path) -> None:
    plot, build = CASES[name]
    path = tmp_path / "new" / f"{name}.png"
    assert plot(path) == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert png_size(path) == tuple(int(inches * DPI + 1e-6) for inches in build().get_size_inches())


def test_replaces_a_file_and_leaves_nothing_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "curves.png"
    path.write_text("old")

    def fail(self: Figure, file: IO[bytes], **_: object) -> None:
        file.write(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            plots.plot_learning_curves([record(1)], path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    plots.plot_learning_curves([record(1)], path)
    assert png_size(path)[0] > 1000
    assert list(tmp_path.iterdir()) == [path]


def test_learning_curves_show_every_epoch_given() -> None:
    records = [record(1), record(2, 0.7), record(3), record(4, 0.8)]
    curve = plots.learning_curves_figure(records, "validation").axes[1].lines[1]
    assert curve.get_label() == "validation, last 80.00 %"
    figure = plots.learning_curves_figure(records)
    loss, accuracy, spikes = axes_of(figure)
    assert xy(loss.lines[0]) == ([1, 2, 3, 4], pytest.approx([2.0, 1.0, 2 / 3, 0.5]))
    assert xy(accuracy.lines[0]) == ([1, 2, 3, 4], pytest.approx([50, 75, 100 - 50 / 3, 87.5]))
    assert xy(accuracy.lines[1]) == ([2, 4], pytest.approx([70, 80]))
    assert xy(spikes.lines[0]) == ([1, 2, 3, 4], [41, 42, 43, 44])
    assert [a.get_ylabel() for a in figure.axes] == ["loss", "accuracy (%)", "hidden spikes per sample"]
    assert [line.get_label() for line in accuracy.lines] == ["train, last 87.50 %", "test, last 80.00 %"]


@pytest.mark.parametrize(
    "records",
    [
        [record(1)],
        [{"epoch": 1.0}],
        [record(1) | {"train_loss": float("nan")}],
        [record(1, 1.0) | {"train_accuracy": 1.0, "train_loss": 0.0, "hidden_spikes_per_sample": 0.0}],
    ],
    ids=["one", "empty", "nan", "perfect"],
)
def test_learning_curves_survive_one_epoch(records: list[dict[str, float]]) -> None:
    figure = plots.learning_curves_figure(records)
    figure.draw_without_rendering()
    assert figure.axes[1].get_ylim()[1] <= 101


def test_samples_show_spikes_and_traces_in_microseconds() -> None:
    sample = view(label=2, prediction=1)
    figure = plots.samples_figure([sample])
    image, inputs, hidden, readout = axes_of(figure)
    assert sample.values is not None
    np.testing.assert_allclose(image.images[0].get_array(), sample.values)
    assert image.get_title(loc="left") == "label 2, predicted 1"
    for axes, times, units in (
        (inputs, sample.input_times, sample.input_units),
        (hidden, sample.hidden_times, sample.hidden_units),
    ):
        x, y = xy(axes.lines[0])
        assert x == pytest.approx((times.double() * 1e6).tolist())
        assert y == units.tolist()
        assert axes.get_xlim()[1] == pytest.approx(12 * 1.7)
    assert len(readout.lines) == 8
    for line, trace in zip(readout.lines, torch.cat([sample.measured, sample.modelled], 1).T, strict=True):
        x, y = xy(line)
        assert x == pytest.approx([1.7 * k for k in range(12)])
        assert y == pytest.approx(trace.tolist())
    assert [line.get_linestyle() for line in readout.lines] == ["-"] * 4 + ["--"] * 4


def test_samples_emphasise_the_true_class() -> None:
    readout = axes_of(plots.samples_figure([view(label=2, prediction=1)]))[-1]
    for first in (0, 4):
        lines = readout.lines[first : first + 4]
        assert [to_hex(line.get_color()) for line in lines][1:3] == [VERMILLION.lower(), BLUE.lower()]
        assert max(lines, key=lambda line: line.get_linewidth()) is lines[2]
        assert max(lines, key=lambda line: line.get_zorder()) is lines[2]
    names = [text.get_text() for text in readout.get_legend().get_texts()]
    assert names == ["class 2 (true)", "class 1 (predicted)", "other classes", "measured", "modelled"]


def test_samples_show_at_most_four_rows() -> None:
    assert len(plots.samples_figure([view(image=False)] * 6).axes) == 4 * 3


def test_samples_have_an_image_column_only_where_needed() -> None:
    bare = view(image=False)
    figure = plots.samples_figure([bare])
    assert len(figure.axes) == 3
    assert figure.axes[0].get_title(loc="left") == "label 2, predicted 2"
    mixed = plots.samples_figure([bare, view()])
    assert [len(axes.images) for axes in mixed.axes[::4]] == [0, 1]


def test_samples_of_a_network_without_a_hidden_population_have_no_column_for_it() -> None:
    figure = plots.samples_figure([replace(NO_SPIKES, values=None, hidden=0)])
    assert [axes.get_ylabel() for axes in figure.axes][:1] == ["input"]
    assert len(figure.axes) == 2


def test_samples_show_features_as_bars() -> None:
    features = torch.tensor([0.1, 0.9, 0.5])
    axes = plots.samples_figure([replace(SAMPLE, values=features)]).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(features.tolist())
    assert [bar.get_y() + bar.get_height() / 2 for bar in axes.patches] == [0, 1, 2]
    assert axes.get_xlim() == (0, 1)


def test_late_spikes_stay_in_view() -> None:
    late = replace(SAMPLE, hidden_times=torch.tensor([50e-6]), hidden_units=torch.tensor([0]))
    assert plots.samples_figure([late]).axes[2].get_xlim()[1] == pytest.approx(50)


@pytest.mark.parametrize("samples", [[NO_SPIKES], [replace(SILENT, values=torch.zeros(4, 4))]])
def test_samples_survive_silence(samples: list[SampleView]) -> None:
    figure = plots.samples_figure(samples)
    figure.draw_without_rendering()
    hidden = figure.axes[-2]
    assert [text.get_text() for text in hidden.texts] == ["no spikes"]


def test_samples_take_traces_that_need_gradients() -> None:
    plots.samples_figure([replace(SAMPLE, modelled=SAMPLE.modelled.clone().requires_grad_())])


def test_weights_show_matrix_histogram_and_shares() -> None:
    weights = {
        "hidden": torch.tensor([[-63, 0, 5, 5], [63, 63, -1, 0]], dtype=torch.int8),
        "readout": torch.tensor([[1.0], [-2.0]]),
    }
    figure = plots.weights_figure(weights, 63)
    matrix, histogram, second, _, *bars = axes_of(figure)
    np.testing.assert_array_equal(matrix.images[0].get_array(), weights["hidden"])
    assert matrix.images[0].get_clim() == (-63, 63)
    counts, edges, _ = histogram.patches[0].get_data()
    bins = {int(e + 0.5): int(c) for c, e in zip(counts, edges, strict=False) if c}
    assert bins == {-63: 1, -1: 1, 0: 2, 5: 2, 63: 2}
    limits = histogram.patches[1].get_data().values
    assert (limits[0], limits[-1], limits.sum()) == (1, 2, 3)
    assert histogram.get_title() == "37.5 % at the limit ±63, 25.0 % zero"
    assert matrix.get_title() == "hidden: 2 × 4 synapses"
    assert second.get_title() == "readout: 2 × 1 synapses"
    assert (matrix.get_xlabel(), matrix.get_ylabel()) == ("source (pre)", "target (post)")
    assert [bar.get_ylabel() for bar in bars] == ["weight (LSB)"] * 2


def test_weights_survive_zero() -> None:
    histogram = plots.weights_figure({"a": ZERO}, 63).axes[1]
    assert histogram.get_title() == "0.0 % at the limit ±63, 100.0 % zero"


def test_confusion_shows_counts_shares_and_accuracy() -> None:
    figure = plots.confusion_figure(torch.tensor([[8, 2, 0], [1, 3, 0], [0, 0, 0]]), ["cat", "dog", "long name"])
    axes, bar = axes_of(figure)
    expected = [[80, 20, 0], [25, 75, 0], [0, 0, 0]]
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    assert [text.get_text() for text in axes.texts] == list("820130000")
    assert axes.get_title() == "accuracy 78.57 % (11 of 14)"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cat", "dog", "long name"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert bar.get_ylabel() == "share of the true class (%)"


@pytest.mark.parametrize("size", [1, 31])
def test_confusion_survives_no_samples_and_many_classes(size: int) -> None:
    empty = torch.zeros(size, size, dtype=torch.long)
    names = [str(i) for i in range(size)]
    axes = plots.confusion_figure(empty, names).axes[0]
    assert axes.get_title() == "no samples"
    assert len(axes.texts) == (1 if size == 1 else 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: plots.learning_curves_figure([]), "at least one record"),
        (lambda: plots.samples_figure([]), "at least one"),
        (lambda: plots.weights_figure({}, 63), "at least one projection"),
        (lambda: plots.weights_figure({"a": torch.full((1, 1), 64)}, 63), "a has a weight of magnitude 64"),
        (lambda: plots.confusion_figure(torch.zeros(2, 3), ["a", "b"]), r"\[2, 3\], 2 classes need \[2, 2\]"),
        (lambda: plots.transfer_figure({}), r"no accuracies to plot"),
        (lambda: plots.confusion_figure(torch.zeros(2, 2), ["a"]), r"1 classes need \[1, 1\]"),
    ],
)
def test_rejects(build: Callable[[], Figure], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.bool])
def test_takes_any_type(dtype: torch.dtype) -> None:
    matrix: Tensor = torch.eye(2).to(dtype)
    assert plots.confusion_figure(matrix, ["a", "b"]).axes[0].get_title() == "accuracy 100.00 % (2 of 2)"


def test_leaves_global_settings_alone(tmp_path: Path) -> None:
    settings = dict(matplotlib.rcParams)
    plots.plot_confusion(torch.zeros(1, 1), ["a"], tmp_path / "confusion.png")
    assert dict(matplotlib.rcParams) == settings


def test_plane_shows_answers_where_there_is_a_class_and_the_share_of_right_ones() -> None:
    regions = torch.tensor([0, 0, 1, -1, 2, 1, -1, 2, 2])
    answers = torch.where(regions < 0, -1, torch.tensor([0, 1, 1, 0, 2, 1, 0, 2, 0]))
    axes = plots.plane_figure(answers, regions, ["yin", "yang", "dot"]).axes[0]
    image = axes.images[0].get_array()
    assert image.mask.ravel().tolist() == (regions < 0).tolist()
    assert image.compressed().tolist() == answers[regions >= 0].tolist()
    assert axes.images[0].origin == "lower"
    assert axes.get_title() == "71.43 % of 7 points right"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["yin", "yang", "dot"]


@pytest.mark.parametrize(
    ("answers", "regions", "classes", "text"),
    [
        (torch.zeros(8), torch.zeros(8), ["a"], "8 answers and 8 true classes are not those of a square grid"),
        (torch.zeros(4), torch.zeros(9), ["a"], "4 answers and 9 true classes"),
        (torch.zeros(0), torch.zeros(0), ["a"], "0 answers"),
        (torch.zeros(4), torch.zeros(4), list("abcdefghi"), "9 classes are more than the 8 colours"),
    ],
)
def test_plane_refuses(answers: Tensor, regions: Tensor, classes: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        plots.plane_figure(answers, regions, classes)
