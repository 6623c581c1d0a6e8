"""Fixtures of all tests: the same seed for torch, and no process outlives its test."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Generator, Iterator
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Keep the handlers of libraries from Hydra, which closes all handlers that exist when it configures its own.

    The handler of absl, which jax imports, closes with itself the standard error stream of its import, unless that is
    the present one. In a test it is the file of pytest's capture, and a command in the tests' process has another.
    Log files stay in sight: Hydra closes those of earlier jobs.
    """
    handlers: list[Any] = logging._handlerList  # type: ignore[attr-defined]
    streams = [reference for reference in handlers if not isinstance(reference(), logging.FileHandler)]
    handlers[:] = [reference for reference in handlers if isinstance(reference(), logging.FileHandler)]
    try:
        return (yield)
    finally:
        handlers[:0] = [reference for reference in streams if reference() is not None]


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
