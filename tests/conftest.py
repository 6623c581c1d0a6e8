"""Fixtures of all tests: torch's generator starts with the same seed, and no process outlives its test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hxtrain

ROOT = Path(__file__).parents[1]


def pytest_report_header() -> str:
    """Name the hxtrain under test: the installed one, unless Python was started in the root of a clone (0001)."""
    source = Path(hxtrain.__file__).parent
    clone = source == ROOT / "hxtrain"
    return f"hxtrain: {source}" + (" (this clone's folders; `pytest` tests what is installed)" if clone else "")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[Any]]]:
    """End the processes that a test leaves, for example after a timeout, so that they do not disturb the next test."""
    started: list[subprocess.Popen[Any]] = []
    plain = subprocess.Popen.__init__

    def remember(process: subprocess.Popen[Any], *args: Any, **options: Any) -> None:
        plain(process, *args, **options)
        started.append(process)

    monkeypatch.setattr(subprocess.Popen, "__init__", remember)
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
