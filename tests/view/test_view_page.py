"""The page in a browser: every panel, a killed training, several runs, and hostile names."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
from browser import CHROMIUM, browser
from hostile import hostile_folder
from run_folders import snapshot, write_run

from hxtrain.runs.holder import LOCK
from hxtrain.runs.lock import locked
from hxtrain.view.config import ViewConfig
from hxtrain.view.folder import Folder
from hxtrain.view.server import ViewServer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium")
HOSTILE = "<img src=x onerror=document.title=1>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def serve():
    servers = []

    def start(folder: Path) -> str:
        server = ViewServer(Folder(folder), ViewConfig(token="token-of-these-tests"))
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server.url

    yield start
    for server in servers:
        server.stop()
        server.server_close()


def caption(page, name):
    return page.value(f"document.querySelector('#panel-{name} .caption').textContent")


def text(page, selector):
    return page.value(f"document.querySelector({json.dumps(selector)}).textContent")


def painted(page, selector):
    """Return the number of colours on a canvas."""
    return page.value(
        f"(() => {{const c = document.querySelector({json.dumps(selector)}); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; const s = new Set(); for (let i = 0; i < d.length; i += 4)"
        " s.add(d[i] + ',' + d[i + 1] + ',' + d[i + 2] + ',' + d[i + 3]); return s.size;})()"
    )


def test_every_panel_of_a_finished_run(page, serve, tmp_path):
    page.errors.clear()
    page.open(serve(write_run(tmp_path / "run")))
    page.wait("document.body.dataset.drawn")
    assert text(page, "#state") == "finished"
    assert text(page, "#place") == "3 of 3 epochs"
    assert caption(page, "loss") == "3 epochs; last epoch 0.333, last step 0.00833"
    assert page.value("document.getElementById('panel-loss').dataset.points") == "43"
    assert caption(page, "accuracy") == "test 79.00 %, training 80.00 %"
    assert caption(page, "spikes") == "23 per sample"
    assert caption(page, "throughput") == "samples per second; last epoch 1,000, last step 900"
    assert caption(page, "raster") == "first sample of the step, class 1: input 3 spikes, layer0 2 spikes"
    assert caption(page, "membranes") == "threshold = 1; measured and modelled differ by 0.22 rms"
    assert caption(page, "firing") == "1 silent and 1 saturated neurons in the last batch"
    assert caption(page, "weights").startswith("1 matrix")
    assert "4 × 6, 12.5 % zero, 25.0 % at the limit ±63" in text(page, "#panel-weights .sub")
    assert caption(page, "chip") == (
        "chip W66F3: 10 of 64 circuits in use; 2 missed a target of the calibration, 1 of them in use"
    )
    assert "2 circuits of silent neurons" in text(page, "#panel-chip .legend")
    assert caption(page, "health").startswith("3 warnings and notes; 9 spikes dropped, 3 runs repeated")
    assert text(page, "#panel-placement td") == "neuron circuits"
    assert "trainer.epochs" in text(page, "#panel-settings")
    assert "87.00 %" in text(page, "#panel-numbers")
    assert "0.333loss" in text(page, "#panel-numbers")  # of the last epoch, as in the table
    for selector in ("canvas.raster", "canvas.chip", ".weights canvas"):
        assert painted(page, selector) > 3
    assert page.value("document.querySelectorAll('svg path').length") >= 12
    assert page.value("document.getElementById('panel-runs').hidden")
    page.value("document.getElementById('axis-chip').click()")
    assert page.value("document.getElementById('panel-loss').dataset.axis") == "chip"
    theme = page.value("document.documentElement.dataset.theme")
    page.value("document.getElementById('theme').click()")
    assert page.value("document.documentElement.dataset.theme") == {"dark": "light", "light": "dark"}[theme]
    assert page.value("Number(document.body.dataset.drawn)") < 2000  # ms after the address was entered
    assert page.errors == []


def test_a_killed_training_and_its_continuation(page, serve, tmp_path):
    run = write_run(tmp_path / "run", trained=1, is_finished=False)
    with locked(run):
        page.open(serve(run))
        page.wait("document.getElementById('state').textContent == 'running'")
        (run / "live.json").write_text(json.dumps(snapshot(1, 3, 31), separators=(",", ":")))
        page.wait("document.getElementById('place').textContent == 'epoch 2 of 3, step 31 of 40'")
        holder = json.loads((run / LOCK).read_text())
    (run / LOCK).write_text(json.dumps({**holder, "started": 1}))  # what a killed process leaves
    page.wait("document.getElementById('state').textContent == 'stopped at step 31 of epoch 2'")
    assert "trainer.resume=true" in text(page, "#notice")
    with locked(run):
        page.wait("document.getElementById('state').textContent == 'running'")
        assert page.value("document.getElementById('notice').hidden")


def test_many_runs_on_one_page(page, serve, tmp_path):
    for index in range(20):
        write_run(tmp_path / f"seed{index:02}{'x' * (index % 3)}", trained=1 + index % 3, is_finished=index % 3 == 2)
    page.open(serve(tmp_path))
    page.wait("document.querySelectorAll('#runs tbody tr').length == 20")
    assert caption(page, "runs").startswith("20 runs: 14 interrupted, 6 finished; best accuracy 87.00 %")
    page.value("document.querySelectorAll('#runs tbody tr')[4].click()")
    page.wait("document.getElementById('name').textContent == 'seed04x'")
    assert page.value("document.querySelectorAll('#panel-runs .chart path').length") == 20


def test_texts_of_files_stay_texts(page, serve, tmp_path):
    run = write_run(tmp_path / HOSTILE.replace("/", ""))
    content = snapshot(2, 3, 40)
    content["remarks"] = [HOSTILE, "</li><script>document.title='bad'</script>"]
    content["chip"]["populations"] = [HOSTILE, HOSTILE]
    content["sample"]["trains"] = "no list"
    (run / "live.json").write_text(json.dumps(content, separators=(",", ":")))
    page.open(serve(run))
    page.wait("document.querySelectorAll('.remarks li').length > 1")
    assert HOSTILE in text(page, ".remarks")
    assert page.value("document.querySelectorAll('img, main script').length") == 0
    assert "bad" not in page.value("document.title")
    assert caption(page, "weights").startswith("1 matrix")  # a damaged panel leaves the others


def test_play_has_a_score(page, serve, tmp_path):
    for name, score in (("a", 1.5), ("b", 2.5)):
        run = write_run(tmp_path / "sweep" / name, is_live=False)
        record = {
            "epoch": 1,
            "score": score,
            "success": 0.25,
            "output_spikes_per_trial": 7.0,
            "trials_per_second": 80.0,
        }
        (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
        result = {"score": score, "best_score": 4, "environment": "pong", "backend": "emulator"}
        (run / "result.json").write_text(json.dumps(result))
    page.open(serve(run.parent))
    page.wait("document.body.dataset.drawn")
    assert caption(page, "runs") == "2 runs: 2 finished; best score 2.5 by b"
    assert caption(page, "accuracy") == "reward of an action; last epoch 1.5 of 4"
    assert caption(page, "spikes") == "7 per trial"
    assert "trials per second; last epoch 80" in caption(page, "throughput")
    assert "25.00 %success" in text(page, "#panel-numbers")
    assert text(page, "#panel-loss .empty") == "rewards take the place of a loss"


def test_hostile_runs_leave_the_page_standing(page, serve, tmp_path):
    page.open("about:blank")
    page.errors.clear()
    page.open(serve(hostile_folder(tmp_path)))
    page.wait("document.body.dataset.drawn")
    rows = page.value("document.querySelectorAll('#runs tbody tr').length")
    assert rows > 20
    for index in range(rows):
        page.value(f"document.querySelectorAll('#runs tbody tr')[{index}].click()")
        page.wait(f"document.querySelectorAll('#runs tbody tr')[{index}].getAttribute('aria-selected') == 'true'")
        assert "does not get its data" not in text(page, "#notice")
    assert page.value("document.querySelectorAll('img, main script').length") == 0
    assert page.errors == []


def test_a_page_tells_how_old_its_data_are(page, serve, tmp_path, monkeypatch):
    run = write_run(tmp_path / "sweep" / "a", trained=1, is_finished=False)
    write_run(tmp_path / "sweep" / "b")
    with locked(run):
        page.open(serve(run.parent))
        page.wait("document.getElementById('age').textContent.startsWith('last news ')")
        os.utime(run / "live.json", (1, 1))
        os.utime(run / "metrics.jsonl", (1, 1))
        page.value("document.querySelectorAll('#runs tbody tr')[1].click()")
        page.wait("document.getElementById('age').textContent == ''")  # it is finished
    page.value("document.querySelectorAll('#runs tbody tr')[0].click()")
    (run / LOCK).write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 1}))
    page.open(serve(run))
    page.wait("document.getElementById('age').textContent.startsWith('no news for ')")
    assert text(page, "#state") == "no news"
    assert "it runs on elsewhere" in page.value("document.getElementById('age').title")


def test_a_run_that_is_deleted_stays_on_its_page(page, serve, tmp_path):
    run = write_run(tmp_path / "run")
    page.open(serve(run))
    page.wait("document.body.dataset.stream == 'open'")
    time.sleep(0.4)  # the answers to the first event
    run.rename(tmp_path / "moved")
    page.wait("document.getElementById('state').textContent == 'gone'")
    assert "run is no longer in" in text(page, "#notice")
    assert "87.00 %" in text(page, "#panel-numbers")
    (tmp_path / "moved").rename(run)
    page.wait("document.getElementById('state').textContent == 'finished'")


def test_a_page_without_snapshots_says_how_to_get_them(page, serve, tmp_path):
    run = write_run(tmp_path / "run", is_live=False)
    (run / "result.json").unlink()
    os.utime(run / "metrics.jsonl", (1, 1))
    page.open(serve(run))
    page.wait("document.body.dataset.drawn")
    assert caption(page, "raster") == "recorded only with live=true"
    assert text(page, "#state") == "interrupted at the end of epoch 3"
