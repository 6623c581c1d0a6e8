"""Several processes of a command at once, forked from one that has imported everything.

A new process costs the start of Python and the import of torch, several seconds each, and torchrun is one more. Tests
of the launcher itself start torchrun.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from commands import POINTS, status
from torch import distributed

PRELOADED = ["commands", "hxtrain.experiments.train", "hxtrain.backends.emulated", "torch._dynamo"]
LIMIT = 300
"""Time after which a process counts as hanging (s)."""


def call_together(script: str, *words: object, cwd: Path, processes: int) -> subprocess.CompletedProcess[str]:
    """Run a command in processes that share a run, as torchrun starts them, in a folder.

    Returns the greatest exit status, and the output of all processes. None of them is ended from outside when another
    one fails: each has to end by itself.
    """
    store = distributed.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=LIMIT)
    )
    shared = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the processes take this store
    }
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    members = call_at_once(script, *words, cwd=cwd, environments=[{**shared, **rank} for rank in ranks])
    text = "\n".join(member.stdout for member in members)
    return subprocess.CompletedProcess(members[0].args, max(member.returncode for member in members), text, text)


def call_at_once(
    script: str,
    *words: object,
    cwd: Path,
    environments: Sequence[dict[str, str]] = ({},),
    variants: Sequence[Sequence[str]] = ((),),
) -> list[subprocess.CompletedProcess[str]]:
    """Run a command in processes of their own, at once, in a folder.

    Args:
        script: Command, such as `hxtrain-evaluate`.
        words: Its words.
        cwd: Folder.
        environments: Further variables of each process; by default there is one process.
        variants: Further words of each process; a single entry of these or of the variables is that of all processes.
    """
    count = max(len(environments), len(variants))
    environments = environments if len(environments) == count else [environments[0]] * count
    variants = variants if len(variants) == count else [variants[0]] * count
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    arguments = [[script, *map(str, words), *variant] for variant in variants]
    with tempfile.TemporaryDirectory() as place:
        outputs = [Path(place) / f"{number}.txt" for number in range(count)]
        members = [
            context.Process(target=_work, args=(command, cwd, output, {**os.environ, **environment}))
            for command, output, environment in zip(arguments, outputs, environments, strict=True)
        ]
        try:
            for member in members:
                member.start()
            for member in members:
                member.join(LIMIT)
            codes = [member.exitcode for member in members]
        finally:
            for member in members:
                member.kill()
        texts = [output.read_text() for output in outputs]
    assert None not in codes, f"after {LIMIT} s processes still run, {codes}:\n" + "\n".join(texts)
    return [
        subprocess.CompletedProcess(command, abs(code), text, text)
        for command, code, text in zip(arguments, codes, texts, strict=True)
    ]


def _work(arguments: list[str], folder: Path, output: Path, environment: dict[str, str]) -> None:
    """Run a command in this process, whose output goes to a file."""
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment, OMP_NUM_THREADS="1", COLUMNS="200")
    os.chdir(folder)
    sys.argv = arguments
    sys.exit(status(POINTS[arguments[0]].load()))
