"""Settings of `hxtrain bench`."""

from __future__ import annotations

from dataclasses import dataclass, field

from hxtrain.execution.config import ChipName

SUITES = ("speed", "recurrent", "scale", "realism", "remote", "rules", "pool", "snapshots")


@dataclass
class BenchConfig:
    """Settings of the benchmark.

    Attributes:
        suite: `speed` (steps and answers, beside other libraries), `recurrent` (steps of a recurrent network, beside
            other libraries), `scale` (growth of costs), `realism` (cost of each
            feature of an emulated chip), `remote` (cost of a chip server), `rules` (an epoch by each learning rule),
            `pool` (short runs in a pool of chips, in peace and with kills) or `snapshots` (what the live view costs a
            training).
        chip: Emulated chip, calibrated.
        rounds: Number of timings of every variant.
        batch: Samples per run (suite realism).
        threads: Torch threads (the emulated chip and the host's loops always use all cores).
        torch_device: Device of all arithmetic, including the emulated chip and other libraries; `cpu` or e.g. `cuda`
            (suites speed, recurrent and snapshots).
        peers: Whether to time other installed libraries (suites speed and recurrent).
    """

    suite: str = "speed"
    chip: ChipName = field(default_factory=ChipName)
    rounds: int = 25
    batch: int = 100
    threads: int = 1
    torch_device: str = "cpu"
    peers: bool = True

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise ValueError(f"suite={self.suite!r} is not known; choose one of {', '.join(SUITES)}")
        for name in ("rounds", "batch", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
