"""The pages on trackers and notebooks, run as they stand; the notebook in a kernel, where nbclient is installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the options and the code of each block of Python on a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```python([^\n]*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_page_on_trackers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (_, example), (_, module) = blocks("trackers.md")
    scope: dict[str, Any] = {}
    exec(compile(example, "trackers.md", "exec"), scope)
    printed = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"\[0\.\d+, 0\.\d+\]", printed)
    (tmp_path / "my_tracker.py").write_text(module, encoding="utf-8")
    from my_tracker import Table  # type: ignore[import-not-found]

    tracker = Table(file="table.txt")
    scope["hx"].fit(
        scope["net"],
        scope["hx"].load_dataset("digits"),
        epochs=1,
        train_samples=100,
        test_samples=20,
        trackers=[tracker],
    )
    assert re.fullmatch(r"1 [01]\.\d{4}\n", (tmp_path / "table.txt").read_text(encoding="utf-8"))


def test_the_cells_of_the_page_on_notebooks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, Any] = {}
    for _, cell in blocks("notebooks.md"):
        exec(compile(cell, "notebooks.md", "exec"), scope)
    assert scope["fit"].accuracy > 0.2
    assert repr(scope["fit"]) == f"Fit(accuracy={scope['fit'].accuracy:.4g}, 2 epochs)"
    assert scope["fit"]._repr_html_().count("<tr>") == 3
    assert capsys.readouterr().out.count("epoch ") == 2


@pytest.mark.filterwarnings("ignore")
def test_the_page_as_a_notebook(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    kernels = pytest.importorskip("jupyter_client.kernelspec")
    cells = [nbformat.v4.new_code_cell(code) for _, code in blocks("notebooks.md")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    specification = kernels.KernelSpecManager().get_kernel_spec("python3")
    assert Path(specification.argv[0]).name.startswith("python")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    trained, plan, raster, closed = (
        [output for output in cell.outputs if output.get("name") != "stderr"] for cell in notebook.cells
    )
    texts = [output.data["text/plain"] for output in trained if "data" in output]
    assert sum(text.startswith("epoch") for text in texts) == 2
    assert float(texts[-1]) > 0.2
    errors = [output for cell in notebook.cells for output in cell.outputs if output.get("name") == "stderr"]
    assert not [output for output in errors if "Warning" in output.text]
    assert "<table>" in plan[-1].data["text/html"]
    assert raster[-1].data["image/png"]
    assert closed == []
