"""`hxtrain nir`: each form, through its main function."""

import sys
from pathlib import Path

import pytest

import hxtrain as hx
from hxtrain.experiments import nir as verb

pytest.importorskip("nir")


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Return the exit status of a command."""
    monkeypatch.setattr(sys, "argv", ["hxtrain nir", *words])
    return verb.main()


def test_export_check_and_import(tmp_path: Path, monkeypatch, capsys) -> None:
    net = hx.Network(hx.Linear(4, 3), hx.LIF(3, refractory=0.0), hx.Linear(3, 2), hx.LI(2), steps=20, seed=5)
    hx.save(net, tmp_path / "net.pt")
    out = tmp_path / "net.nir"
    assert call(monkeypatch, "export", str(tmp_path / "net.pt"), f"out={out}", "dialect=snntorch", "readout=omit") == 0
    assert "4-3-2, 20 steps of 1.7e-06 s" in capsys.readouterr().out
    assert call(monkeypatch, "check", str(out)) == 0
    text = capsys.readouterr().out
    assert "steps of 0.0001 s" in text
    assert "sinabs" in text
    assert call(monkeypatch, "import", str(out), f"out={tmp_path / 'again.pt'}") == 0
    restored = hx.load(tmp_path / "again.pt").net
    assert repr(restored) == repr(net)
    assert (restored.effective_weights()[0] == net.effective_weights()[0]).all()
    assert call(monkeypatch, "export", str(tmp_path / "again.pt"), f"out={out}") == 0
    assert "the previous net.nir is net.previous.nir now" in capsys.readouterr().out
    assert call(monkeypatch, "import", str(out), f"out={out}") == 2
    assert "is the file that is read; give the path of another one" in capsys.readouterr().err


def test_a_check_names_what_no_graph_says_in_lines_of_a_page(tmp_path: Path, monkeypatch, capsys) -> None:
    net = hx.Network(hx.Linear(4, 3), hx.LIF(3, refractory=2e-6), hx.Recurrent(3), hx.Linear(3, 2), hx.LI(2))
    hx.save(net, tmp_path / "net.nir", approximate=True, readout="omit")
    assert call(monkeypatch, "check", str(tmp_path / "net.nir")) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 120
    verdicts = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "differs" in verdicts["norse"]
    assert "layer0: the network has a refractory period of 2e-06 s" in verdicts["norse"]


def test_errors_have_a_status_and_a_remedy(tmp_path: Path, monkeypatch, capsys) -> None:
    assert call(monkeypatch, "--help") == 0
    assert "discretisation (default None)" in capsys.readouterr().out
    assert call(monkeypatch, "convert") == 2
    assert "convert is no form of this command" in capsys.readouterr().err
    assert call(monkeypatch, "import", str(tmp_path / "absent.nir"), "out=x.pt") == 2
    assert "absent.nir cannot be read" in capsys.readouterr().err
    assert call(monkeypatch, "agree", "simulators=[nest]") == 2
    assert "nest is not known; choose of norse" in capsys.readouterr().err
