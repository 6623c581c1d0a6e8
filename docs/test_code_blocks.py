"""The Python code of all pages, run as it stands: `pytest docs` (the stage of CI that builds the site runs it).

Pages whose code other tests run in fewer epochs, or through an installation, are in `ELSEWHERE`.
"""

from __future__ import annotations

import json
import re
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hxtrain.datasets.events import HeidelbergWriter

DOCS = Path(__file__).parent
BLOCK = re.compile(r"^```python(?: file=\S+)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
ELSEWHERE = {
    "continual.md",
    "conversion.md",
    "event-training.md",
    "model.md",
    "own-components.md",
    "own-data.md",
    "write-a-backend.md",
}
"""Pages whose code `tests/` runs."""
QUICKER: dict[str, dict[str, str]] = {
    "fit.md": {"bench_circuit(512, 1, backend)": "bench_circuit(4, 1, backend)"},
    "start.md": {"epochs=5": "epochs=1"},
}
"""Changes that save time."""
UNREACHABLE = {"data.md": ("/path/to/fashion", "download=True")}
"""Lines that need files or addresses which are not here; they are left out."""


def code_pages() -> list[str]:
    """Return the pages with Python code, from docs/."""
    pages = (page for page in DOCS.rglob("*.md") if not {"_build", "_generated"} & set(page.relative_to(DOCS).parts))
    return sorted(page.relative_to(DOCS).as_posix() for page in pages if BLOCK.search(page.read_text("utf-8")))


def files() -> None:
    """Write the files that pages name into the current folder."""
    with wave.open("three.wav", "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes((np.sin(np.arange(9_600) / 8) * 9_000).astype("<i2").tobytes())
    run = Path("sizes/0")
    run.mkdir(parents=True)
    (run / "result.json").write_text(json.dumps({"test_accuracy": 0.94}))
    with HeidelbergWriter("ssc_train.h5", ("yes", "no"), units=70) as file:
        file.append(*samples())


def samples() -> tuple[list[Any], list[Any], list[int], list[int]]:
    """Return times, units, labels and speakers of two recordings."""
    return [np.array([0.1, 0.2]), np.array([0.3])], [np.array([3, 4]), np.array([5])], [0, 1], [0, 1]


def names() -> dict[str, Any]:
    """Return the names that pages take for given."""
    events = np.zeros(3, np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)]))
    part = type("Recordings", (list,), {"sensor_size": (4, 4, 2), "classes": ["left", "right"]})
    times, units, labels, speakers = samples()
    return {
        "train": part([(events, 0), (events, 1)]),
        "test": part([(events, 0)]),
        "times": times,
        "units": units,
        "labels": labels,
        "speakers": speakers,
    }


@pytest.mark.parametrize("page", [page for page in code_pages() if page not in ELSEWHERE])
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files()
    code = "\n".join(BLOCK.findall((DOCS / page).read_text("utf-8")))
    for words, quicker in QUICKER.get(page, {}).items():
        assert words in code
        code = code.replace(words, quicker)
    lines = [line for line in code.splitlines() if not any(text in line for text in UNREACHABLE.get(page, ()))]
    exec(compile("\n".join(lines), page, "exec"), names())


def test_other_tests_cover_the_rest() -> None:
    tests = "\n".join(test.read_text("utf-8") for test in (DOCS.parent / "tests").rglob("test_*.py"))
    assert [page for page in sorted(ELSEWHERE) if page not in tests] == []
    assert set(code_pages()) >= ELSEWHERE
