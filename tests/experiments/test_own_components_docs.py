"""The page on own components: its module, its package, its commands and its Python code, run as written."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

import hxtrain as hx
from hxtrain.experiments.train import main
from hxtrain.network import Network
from hxtrain.objectives import LOSSES

PAGE = (Path(__file__).parents[2] / "docs" / "own-components.md").read_text()


def blocks(start: str) -> list[str]:
    """Return the code blocks whose first line is `start`."""
    return re.findall(rf"^```{re.escape(start)}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = "\n\n".join(blocks("python file=my_module.py"))
    [project] = blocks("toml file=pyproject.toml")
    commands = [shlex.split(text.replace("\\\n", " ")) for text in blocks("sh")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LOSSES, "_added", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("my_module.py").write_text(module)
    for number, words in enumerate(commands):
        if words == commands[-1]:
            install(project)
        quick = ["trainer.plots=false", "trainer.progress=false", f"hydra.run.dir=run{number}"]
        monkeypatch.setattr("sys.argv", [*words, *quick])
        main()
    assert type(hx.load(f"run{len(commands) - 1}").loss).__name__ == "LastSteps"
    assert isinstance(hx.load("run0", modules=["my_module"]).net, Network)
    capsys.readouterr()
    exec(compile("\n".join(blocks("python")), "own-components.md", "exec"), {})
    assert "LastSteps(readout_scale=10.0, label_smoothing=0.0, count=2)" in capsys.readouterr().out


def install(project: str) -> None:
    """Install the package of the page in the current folder: its entry points, as pip writes them."""
    meta = Path("my_package-1.dist-info")
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    groups = re.findall(r'^\[project.entry-points."([^"]+)"\]\n(.*?)\n\n', project, re.DOTALL | re.MULTILINE)
    text = "\n".join(f"[{group}]\n{points}" for group, points in groups).replace('"', "")
    (meta / "entry_points.txt").write_text(text)
    sys.path.append(str(Path.cwd()))
