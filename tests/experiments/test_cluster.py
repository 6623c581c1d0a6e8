"""A job of a cluster that is to end: its state is saved, it goes into the queue again, and goes on there."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from commands import SCRIPTS, call

from hxtrain.training import interruption
from hxtrain.training.interruption import stopped_by_signals

SETTINGS = (
    "data=digits", "network.hidden=[20]", "network.init_gain=1.4", "trainer.train_samples=100",
    "trainer.test_samples=50", "trainer.epochs=40", "trainer.plots=false", "trainer.progress=false", "seed=1",
)  # fmt: skip
STUBS = {
    "sbatch": r"""
script=$(readlink -f "${@: -1}")
cp "$script" "$STUB/script.sh"
echo "Submitted batch job 77"
STUB_ATTEMPT=1 setsid "$STUB/start" > /dev/null 2>&1 &
""",
    "start": r"""
export SLURM_JOB_ID=77 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1
export SLURM_JOB_NODELIST=localhost
bash "$STUB/script.sh" > "$STUB/log$STUB_ATTEMPT" 2>&1
if [ -e "$STUB/requeue" ]; then mv "$STUB/requeue" "$STUB/requeued"; STUB_ATTEMPT=2 "$STUB/start"; fi
""",
    "srun": r"""
while [ "${1#-}" != "$1" ]; do case "$1" in --output|--error) shift 2;; *) shift;; esac; done
echo $$ > "$STUB/pid$STUB_ATTEMPT"
exec "$@"
""",
    "scontrol": r"""echo "$@" > "$STUB/requeue" """,
    "sacct": r"""printf 'JobID|State|NodeList\n77|RUNNING|localhost\n'""",
    "scancel": "",
}
"""Commands of Slurm, as far as submitit uses them: one job, which `scontrol requeue` starts once more after its end."""


def test_a_notice_of_the_cluster_ends_a_training_when_its_state_is_saved() -> None:
    order: list[str] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: order.append("launcher"))
    try:
        stop = threading.Event()
        with stopped_by_signals(stop):
            signal.raise_signal(signal.SIGUSR1)
            assert stop.is_set()
            order.append("saved")
        assert order == ["saved", "launcher"]
        signal.raise_signal(signal.SIGUSR1)
        assert order[2:] == ["launcher"], "its handler is in place again"
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        with stopped_by_signals(threading.Event()) as nothing:
            signal.raise_signal(signal.SIGUSR1)
        assert nothing is None
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_a_step_that_does_not_end_after_a_notice_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a chip, and Slurm does not wait."""
    monkeypatch.setattr(interruption, "GRACE", 0.05)
    order: list[str] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: order.append("launcher"))

    def wait_for_a_chip() -> None:
        with stopped_by_signals(threading.Event()):
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGUSR1)
            time.sleep(30)

    try:
        with pytest.raises(KeyboardInterrupt):
            wait_for_a_chip()
        assert order == ["launcher"]
        with stopped_by_signals(threading.Event()):
            signal.raise_signal(signal.SIGUSR1)
        time.sleep(0.2)
        assert order == ["launcher"] * 2, "the end of a step in time is the end of the limit"
    finally:
        signal.signal(signal.SIGUSR1, previous)


@pytest.mark.skipif(os.environ.get("HXTRAIN_SOAK") != "1", reason="three processes; HXTRAIN_SOAK=1 runs it")
def test_a_job_is_requeued_at_a_signal_and_goes_on(tmp_path: Path) -> None:
    stubs = tmp_path / "slurm"
    stubs.mkdir()
    for name, text in STUBS.items():
        (stubs / name).write_text(f"#!/bin/bash\n{text}\n")
        (stubs / name).chmod(stat.S_IRWXU)
    environment = {
        **os.environ, "STUB": str(stubs), "PATH": f"{stubs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
        "SUBMITIT_PREEMPT_SIGNAL": "USR1",
    }  # fmt: skip
    words = [
        "--multirun", *SETTINGS, "hydra/launcher=cluster", "hydra.sweep.dir=sweep",
        "+hydra.launcher.additional_parameters.licenses=chip:1",
    ]  # fmt: skip
    sweep = subprocess.Popen(
        [sys.executable, SCRIPTS / "hxtrain", *words], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        end = time.time() + 120
        while not (tmp_path / "sweep/0/checkpoint.pt").exists() and time.time() < end and sweep.poll() is None:
            time.sleep(0.02)
        assert sweep.poll() is None, sweep.communicate()[0]
        os.kill(int((stubs / "pid1").read_text()), signal.SIGUSR1)
        text = sweep.communicate(timeout=120)[0]
    finally:
        sweep.kill()
    assert sweep.returncode == 0, text
    script = (stubs / "script.sh").read_text()
    assert "#SBATCH --licenses=chip:1" in script
    assert "#SBATCH --signal=USR1@120" in script
    assert (stubs / "requeued").read_text() == "requeue 77\n"
    assert (stubs / "pid1").read_text() != (stubs / "pid2").read_text()
    alone = call("hxtrain", *SETTINGS, "hydra.run.dir=alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    first, second = (torch.load(tmp_path / name / "checkpoint.pt")["model"] for name in ("alone", "sweep/0"))
    assert all(torch.equal(first[name], second[name]) for name in first)
