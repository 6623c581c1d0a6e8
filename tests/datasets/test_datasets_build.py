"""The command that makes and checks the shipped files."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hxtrain.datasets import build as build_module
from hxtrain.datasets import load_dataset
from hxtrain.datasets.build import digit_order, main
from hxtrain.datasets.catalogue import CATALOGUE, DIGITS, MNIST, UNKNOWN
from hxtrain.datasets.shipped import read_shipped, shipped_file


def test_two_builds_are_identical(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    folder = str(make_folder())
    results = []
    for out, time in (("a", 1_000_000_000.0), ("b", 1_700_000_000.0)):
        monkeypatch.setattr("time.time", lambda time=time: time)
        assert main(["build", "--mnist", folder, "--fashion", folder, "--out", str(tmp_path / out)]) == 0
        results.append({path.name: path.read_bytes() for path in (tmp_path / out).iterdir()})
    assert set(results[0]) == {"mnist16.npz", "fashion16.npz", "digits8.npz"}
    assert results[0] == results[1]


def test_built_file_is_what_the_folder_gives(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder()
    assert main(["build", "--mnist", str(folder), "--out", str(tmp_path / "out")]) == 0
    built = read_shipped(MNIST, tmp_path / "out" / "mnist16.npz")
    assert built.sha256 == load_dataset("mnist", folder=folder).sha256
    assert built.note == UNKNOWN
    assert not (tmp_path / "out" / "fashion16.npz").exists()
    with np.load(tmp_path / "out" / "mnist16.npz", allow_pickle=False) as arrays:
        assert str(arrays["licence"]) == MNIST.licence
        assert str(arrays["origin"]) == MNIST.origin


def test_build_reports(make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--fashion", str(make_folder()), "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "train: 7 images, per class 1 1 1 1 1 1 0 0 0 1" in text
    assert f"note: {UNKNOWN}" in text
    assert "licence: MIT" in text


def test_build_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--mnist", str(tmp_path / "absent"), "--out", str(tmp_path)]) == 1
    assert "hxtrain data: " in (text := capsys.readouterr().err)
    assert "no such folder" in text


def test_build_without_scikit_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert main(["build", "--out", str(tmp_path)]) == 0
    assert "digits: left out, scikit-learn is not installed" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_digits_rebuild_to_the_shipped_content(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    data = build_module.build_digits(tmp_path)
    assert data.sha256 == DIGITS.sha256
    with np.load(tmp_path / "digits8.npz") as new, np.load(shipped_file(DIGITS)) as old:
        assert set(new) == set(old)
        assert all(np.array_equal(new[key], old[key]) for key in old)


def test_digit_order_is_a_fixed_permutation() -> None:
    order = digit_order(1797)
    assert sorted(order.tolist()) == list(range(1797))
    with np.load(shipped_file(DIGITS)) as arrays:
        assert np.array_equal(order, arrays["permutation"])


def test_check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["check"]) == 0
    text = capsys.readouterr().out
    assert text.count("check: ok") == 5
    assert "note: NOT the original train/test partition" in text
    monkeypatch.setitem(CATALOGUE, "mnist", replace(DIGITS, sha256="0" * 64))
    assert main(["check"]) == 1
    assert f"check: FAILED, expected sha256 {'0' * 64}" in capsys.readouterr().out
