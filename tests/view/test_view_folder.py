"""Runs as the page sees them: their state, their order, and damaged files."""

import json
import os
import subprocess
import sys
from operator import itemgetter
from pathlib import Path

import pytest
from run_folders import record, write_run

from hxtrain.runs.holder import LOCK, Holder
from hxtrain.runs.lock import locked
from hxtrain.view.folder import Folder, Run


def state(folder: Path) -> str:
    return Run(folder, folder.name).summary()["state"]


def dead_process() -> Holder:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return Holder.current()._replace(pid=process.pid)


def test_the_state_of_a_run(tmp_path):
    run = write_run(tmp_path / "a", trained=1, is_finished=False)
    assert state(run) == "interrupted"
    with locked(run):
        assert state(run) == "running"
        assert json.loads((run / LOCK).read_text())["pid"] == os.getpid()
    assert (run / LOCK).read_bytes() == b""
    assert state(run) == "interrupted"
    (run / LOCK).write_text(json.dumps(dead_process()._asdict()))
    assert state(run) == "stopped"
    assert Run(run, "a").summary()["step"] == 25
    with (run / "metrics.jsonl").open("a") as stream:  # an epoch after the snapshot
        stream.write(json.dumps(record(2)) + "\n")
    assert itemgetter("epoch", "step")(Run(run, "a").summary()) == (2, 0)
    finished = write_run(tmp_path / "b")
    assert state(finished) == "finished"
    with locked(finished):
        assert state(finished) == "finished"  # an evaluation works there
        os.utime(finished / "live.json", (2**31, 2**31))
        assert state(finished) == "running"  # more epochs
    new = tmp_path / "c"
    new.mkdir()
    (new / "config.yaml").write_text("seed: 1\n")
    assert state(new) == "new"


def test_a_later_process_of_the_same_number_is_another_one(tmp_path):
    run = write_run(tmp_path / "a", trained=1, is_finished=False)
    holder = Holder.current()
    if holder.started is None:
        pytest.skip("the system does not tell when a process has started")
    (run / LOCK).write_text(json.dumps(holder._replace(started=holder.started - 1)._asdict()))
    assert state(run) == "stopped"


def test_a_process_of_another_machine_is_judged_by_its_files(tmp_path):
    run = write_run(tmp_path / "a", trained=1, is_finished=False)
    (run / LOCK).write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 1}))
    assert state(run) == "running"
    for name in ("live.json", "metrics.jsonl"):
        os.utime(run / name, (1, 1))
    assert state(run) == "silent"
    summary = Run(run, "a").summary()
    assert summary["machine"] == "elsewhere"
    assert summary["age"] > 1e9


def test_the_age_of_news_needs_no_common_clock(tmp_path, monkeypatch):
    run = write_run(tmp_path / "a", trained=1, is_finished=False)
    clock = 1000.0
    monkeypatch.setattr("hxtrain.view.folder.time.monotonic", lambda: clock)
    page = Run(run, "a")
    os.utime(run / "metrics.jsonl", (1, 1))
    os.utime(run / "live.json", (4e9, 4e9))  # a machine whose clock is ahead
    assert page.age() == 0
    clock += 5
    assert page.age() == 5
    os.utime(run / "live.json", (4e9 + 1, 4e9 + 1))
    clock += 2
    assert page.age() == 0
    os.utime(run / "live.json", (2, 2))  # a clock that is behind
    clock += 3
    assert page.age() == 3, "it was written since the last look"
    assert Run(tmp_path, "b").age() is None


@pytest.mark.parametrize(
    "text",
    ["[1]", "{}", '{"host": 1, "pid": 2, "started": 3}', "x" * 9000, '{"host": "a", "pid": -1, "started": null}'],
)
def test_a_lock_file_of_something_else_names_no_process(tmp_path, text):
    run = write_run(tmp_path / "a", trained=1, is_finished=False)
    (run / LOCK).write_text(text)
    assert state(run) == "interrupted"


def test_numbers_that_json_lacks_become_texts(tmp_path):
    run = write_run(tmp_path / "a")
    (run / "metrics.jsonl").write_text('{"train_loss": 1e999, "notes": [-1e999]}\n')
    (run / "config.yaml").write_text("limit: .inf\n")
    content = Run(run, "a").content()
    json.dumps(content, allow_nan=False)
    assert content["records"] == [{"train_loss": "inf", "notes": ["-inf"]}]
    assert content["settings"] == {"limit": "inf"}


def test_a_torn_line_spoils_no_other(tmp_path):
    run = write_run(tmp_path / "a")
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 4, "train_lo')
    assert [record["epoch"] for record in Run(run, "a").content()["records"]] == [1, 2, 3]


def test_a_link_in_the_place_of_a_run_is_not_followed(tmp_path):
    folder = Folder(write_run(tmp_path / "sweep" / "a").parent)
    (run,) = folder.runs()
    write_run(tmp_path / "foreign" / "b", trained=2)
    (tmp_path / "sweep" / "a").rename(tmp_path / "moved")
    (tmp_path / "sweep" / "a").symlink_to(tmp_path / "foreign" / "b")
    assert run.live() == b""
    assert run.content()["records"] == []


def test_a_search_says_that_it_left_out_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("hxtrain.view.folder.MOST_RUNS", 2)
    for name in ("c", "a", "b"):
        write_run(tmp_path / name)
        folder = Folder(tmp_path)
        runs = [run.name for run in folder.runs()]
        assert folder.is_complete == (name != "b")
    assert runs == ["a", "b"]


def test_a_folder_is_searched_for_runs(tmp_path):
    write_run(tmp_path / "sweep" / "b")
    write_run(tmp_path / "sweep" / "a" / "nested")
    write_run(tmp_path / "sweep" / ".hidden" / "c")
    write_run(tmp_path / "sweep" / ".hydra")
    write_run(tmp_path / "elsewhere" / "d")
    (tmp_path / "sweep" / "link").symlink_to(tmp_path / "elsewhere")
    assert [run.name for run in Folder(tmp_path / "sweep").runs()] == ["a/nested", "b"]
    assert [run.name for run in Folder(tmp_path / "sweep" / "b").runs()] == ["b"]
    with pytest.raises(ValueError, match=r"is no folder; name a run directory"):
        Folder(tmp_path / "absent")


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json", "config.yaml", "live.json"])
@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 5000, "null", '{"a": NaN}', "a: &x [1]\nb: *x\n", "\x00\xff", "[1]",
     "a: .nan\nb: [-.inf]"],
)  # fmt: skip
def test_a_damaged_file_spoils_its_own_part(tmp_path, name, text):
    run = write_run(tmp_path / "a")
    (run / name).write_bytes(text.encode("latin-1"))
    content = Run(run, "a").content()
    json.dumps(content, allow_nan=False)  # a browser parses no NaN
    assert bool(content["records"]) == (name != "metrics.jsonl")
    assert ("chip" in content["result"]) == (name != "result.json")
    assert ("trainer" in content["settings"]) == (name != "config.yaml")
