"""Metrics of a run: sums over an epoch, one record per epoch, JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hxtrain.backends.files import replacing

from .plain import METRICS as METRICS


@dataclass
class Sums:
    """Sums over the samples of the current epoch.

    `hidden_spikes` is None for networks without a hidden population that spikes; `metrics` are those of the learning
    rule, by name.
    """

    samples: int = 0
    loss: float = 0.0
    correct: float = 0.0
    hidden_spikes: float | None = 0.0
    seconds: float = 0.0
    chip_seconds: float = 0.0
    dropped_spikes: int = 0
    retries: int = 0
    notes: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def add(
        self,
        samples: int,
        loss: float,
        correct: float,
        hidden_spikes: float,
        seconds: float,
        chip_seconds: float = 0.0,
        metrics: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Add one step; `loss` is a mean over its samples, `metrics` are sums."""
        for name, value in metrics.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value
        self.samples += samples
        self.loss += loss * samples
        self.correct += correct
        if self.hidden_spikes is not None:
            self.hidden_spikes += hidden_spikes
        self.seconds += seconds
        self.chip_seconds += chip_seconds

    def since(self, previous: Sums) -> Sums:
        """Return the sums over the steps after a previous state of the same epoch."""
        parts: dict[str, Any] = {}
        for item in fields(self):
            value, old = getattr(self, item.name), getattr(previous, item.name)
            if isinstance(value, dict):
                parts[item.name] = {name: number - old.get(name, 0.0) for name, number in value.items()}
            elif isinstance(value, (int, float)):
                parts[item.name] = value - old
            else:
                parts[item.name] = value
        return type(self)(**parts)

    def means(self) -> dict[str, float]:
        """Return means per sample."""
        count = max(self.samples, 1)
        return {
            "loss": self.loss / count,
            "accuracy": self.correct / count,
            **({} if self.hidden_spikes is None else {"hidden_spikes_per_sample": self.hidden_spikes / count}),
            "samples_per_second": self.samples / self.seconds if self.seconds else 0.0,
        }

    def mean_metrics(self) -> dict[str, float]:
        """Return the means per sample of the learning rule's metrics."""
        return {name: value / max(self.samples, 1) for name, value in self.metrics.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return asdict(self)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file in one step."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_json_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, in one step."""
    write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    with replacing(path) as file:
        file.write(text.encode())
