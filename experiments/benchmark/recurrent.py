"""Speed of training a recurrent network: in software, on emulated chips, and in other libraries.

The network is that of the published run on spoken digits, 70-186-20 with 100 steps (Cramer et al. 2022). Timing is as
in `speed`. Peers fire as many hidden spikes as our software.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from hxtrain.backends import create_backend

from .config import BenchConfig
from .peers import installed
from .replay import ReplayBackend
from .rounds import Report
from .speed import (
    CALIBRATED,
    HOST,
    IDEAL,
    RECURRENT,
    SIZES,
    SOFTWARE,
    Speed,
    Work,
    Works,
    numbers_of_threads,
    peer_works,
    task_of,
    time_works,
)
from .workload import RecurrentWorkload

SLOW_TO_COMPILE = frozenset({"torch.compile, loop by hand"})
"""Peers that are left out: they would compile an unrolled loop of 100 steps."""


def bench_recurrent(
    config: BenchConfig, folder: Path, command: str, report: Report = lambda count, total: None
) -> list[Speed]:
    """Time all works; write `bench_recurrent.json` into `folder`; the arguments are as in `bench_speed`."""
    return time_works(config, _works, folder / "bench_recurrent.json", command, report)


def _works(config: BenchConfig, stack: ExitStack) -> tuple[Works, dict[str, str]]:
    """Return all works by task and name, and the errors of peers that do not work on this machine."""
    samples = SIZES[RECURRENT]
    device = config.torch_device
    load = RecurrentWorkload(stack, samples, device)
    backends = {
        SOFTWARE: None,
        IDEAL: create_backend("emulator", preset="ideal", device=device),
        CALIBRATED: create_backend("emulator", chip=config.chip.name, device=device),
        HOST: ReplayBackend(create_backend("emulator", chip=config.chip.name, device=device)),
    }
    nets = {name: load.network(backend) for name, backend in backends.items()}
    works: Works = {
        (RECURRENT, name): Work(load.training(net, samples), (config.threads,)) for name, net in nets.items()
    }
    names = [name for name in installed() if name not in SLOW_TO_COMPILE] if config.peers else []
    tasks = {RECURRENT: task_of(load, nets[SOFTWARE], samples)}
    peers, errors = peer_works(names, tasks, tasks.keys(), numbers_of_threads(config))
    return works | peers, errors
