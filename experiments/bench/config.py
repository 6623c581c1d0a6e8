"""Settings of `hxtrain-bench`."""

from __future__ import annotations

from dataclasses import dataclass

SUITES = ("speed", "scale", "realism", "remote")


@dataclass
class BenchConfig:
    """Settings of the benchmark.

    Attributes:
        suite: `speed` (steps and answers beside other libraries), `scale` (how cost grows), `realism` (what each
            feature of an emulated chip costs) or `remote` (what a chip server costs).
        chip: name of the emulated chip, calibrated.
        rounds: how often every variant is timed.
        batch: samples per run (suite realism).
        threads: torch threads (the emulated chip and the host's loops use all cores anyway).
        torch_device: where everything runs, the emulated chip and other libraries, too; `cpu` or e.g. `cuda` (suite
            speed).
        peers: whether other libraries that are installed are timed, too (suite speed).
    """

    suite: str = "speed"
    chip: str = "W66F3"
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
