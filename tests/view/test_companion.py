"""The server beside a training: a process that starts with it and ends with it."""

import io
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
from run_folders import write_run

from hxtrain.view import companion as module
from hxtrain.view.companion import companion
from hxtrain.view.config import ViewConfig


def answer(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as response:
        content: bytes = response.read()
    return content


def test_the_server_ends_with_the_training(tmp_path):
    run = write_run(tmp_path / "run")
    warnings: list[str] = []
    with companion(run, ViewConfig(), warnings.append) as url:
        assert url is not None
        assert b'"name":"run"' in answer(f"{url}runs")
    with pytest.raises(urllib.error.URLError):
        answer(url)
    assert warnings == []


def test_a_server_that_cannot_start_is_a_warning(tmp_path, monkeypatch):
    warnings: list[str] = []
    monkeypatch.setattr(module, "CODE", "print('port 80: Permission denied')")
    with companion(tmp_path, ViewConfig(), warnings.append) as url:
        assert url is None
    monkeypatch.setattr(module, "CODE", "raise ValueError('no such module')")
    with companion(tmp_path, ViewConfig(), warnings.append) as url:
        assert url is None
    monkeypatch.setattr(module, "CODE", "import time; time.sleep(60)")
    monkeypatch.setattr(module, "START", 0.2)
    with companion(tmp_path, ViewConfig(), warnings.append) as url:
        assert url is None
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with companion(tmp_path, ViewConfig(), warnings.append) as url:
        assert url is None
    reasons = [text.removeprefix("the live view did not start: ") for text in warnings]
    assert [text.removesuffix("; the training goes on") for text in reasons[:3]] == [
        "port 80: Permission denied",
        "ValueError: no such module",
        "its process ended, or was silent for 0 s",
    ]
    assert "No such file" in reasons[3]


@pytest.mark.parametrize("text", [b"end\n", b""])
def test_after_a_killed_training_the_server_waits_for_its_pages(text, monkeypatch):
    monkeypatch.setattr(module, "LAST_LOOK", 0.1)
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    stopped = threading.Event()
    server = SimpleNamespace(streams=1, last_stream=0.0, stop=stopped.set)
    thread = threading.Thread(target=module._watch, args=(server, io.BytesIO(text)), daemon=True)
    start = time.monotonic()
    thread.start()
    if text:
        assert stopped.wait(2)
        assert 0.1 <= time.monotonic() - start < 1.5
        return
    assert not stopped.wait(0.4), "a page is open"
    server.streams = 0
    server.last_stream = time.monotonic()
    assert stopped.wait(3)


def test_the_server_imports_no_torch():
    code = "import sys; import hxtrain.view.companion, hxtrain.experiments.view; print('torch' in sys.modules)"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert outcome.stdout == "False\n"
