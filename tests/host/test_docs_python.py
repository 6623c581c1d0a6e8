"""The Python code of pages that readers follow, run unchanged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hxtrain.datasets import load_dataset

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks(page: Path) -> str:
    """Return the Python code of a page, one block after the other."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))


def test_the_readme_in_fewer_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train on a chip, train on another one from a file, run on a device of one's own."""
    code = blocks(ROOT / "README.md")
    assert "epochs=20" in code
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("epochs=20", "epochs=3"), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    trained, moved, retrained, weak = (float(line) for line in lines if re.fullmatch(r"[01]\.\d+", line))
    assert trained > 0.8
    assert moved < trained - 0.1, "weights of one uncalibrated chip suit another one less"
    assert retrained > moved + 0.1
    assert weak < trained - 0.1


def test_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(DOCS / "own-data.md"), "own-data.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Spikes(4000 events, 200 samples, 20 units, 2e-06..1.6e-05 s)"
    assert printed[1] == "tensor(23) tensor(1.2000e-05)"
    results = [line for line in printed[2:] if line and not line.startswith(("epoch", "compiling"))]
    assert results[:2] == ["1.0", "tensor(1.)"], "training in a call, and in a loop"
    loss, spikes = map(float, results[2].split())
    assert 0 < loss < 0.1 < spikes
    assert results[3] == "1.0"
    assert 0 <= float(results[4]) <= 1
    data = load_dataset("folder", folder=tmp_path)
    assert (data.title, len(data.train), data.classes) == ("folder (20 units)", 200, ("0", "1"))


def test_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = blocks(DOCS / "plots.md").replace("epochs=3", "epochs=1, train_samples=100").replace("frames=20", "frames=2")
    exec(compile(code.replace("data.test)", "data.test[:50])"), "plots.md", "exec"), {})
    names = ("raster.png", "traces.png", "rates.png", "chip.png", "decisions.png", "raster.gif")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_the_choice_of_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks(DOCS / "event-training.md"), "event-training.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "1.0 validation: groups 3, 4"


def test_conversion(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.findall(r"^```python\n(.*?)^```", (DOCS / "conversion.md").read_text(), re.DOTALL | re.MULTILINE)[0]
    exec(compile(code, "conversion.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:5]] == ["original", "fold batch norm", "merge linear", "data norm"]
    assert min(map(float, re.findall(r"0\.\d+", lines[5]))) > 0.95


def test_the_equations_are_those_of_the_twin() -> None:
    exec(compile(blocks(DOCS / "model.md"), "model.md", "exec"), {})


def test_tasks_one_after_the_other_in_fewer_epochs() -> None:
    code = blocks(DOCS / "continual.md")
    assert "epochs=15" in code
    names: dict[str, Any] = {}
    exec(compile(code.replace("epochs=15", "epochs=1, progress=False"), "continual.md", "exec"), names)
    fit = names["fit"]
    assert [len(row) for row in fit.selection["accuracy_matrix"]] == [1, 2, 3]
    assert fit.accuracy == fit.selection["mean_accuracy"]
    assert [record["task"] for record in fit.records] == [1, 2, 3]
