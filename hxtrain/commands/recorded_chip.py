"""The chip of a run that goes on: a pool is asked for the same one again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hxtrain.execution.config import BackendConfig
from hxtrain.runs.checkpoint import load_checkpoint


def at_recorded_chip(backend: BackendConfig, checkpoint: Path, rank: int = 0) -> BackendConfig:
    """Return the settings of a device, with the chip of a checkpoint as the one to ask a pool for.

    The settings of a device that is in no pool come back as they are: it has one chip, which is compared later.

    Args:
        backend: Settings of the device.
        checkpoint: Checkpoint of the run that goes on.
        rank: Number of this process among those that share the run, each with a chip.

    Raises:
        CheckpointError: The checkpoint cannot be read.
    """
    if not backend.asks_pool():
        return backend
    recorded = load_checkpoint(checkpoint)["settings"]
    names = {"chip": "chip", "preset": "preset", "chip_hash": "recorded"}
    wishes = {setting: recorded.get(f"identity.{entry}") for entry, setting in names.items()}
    entries = {setting: _of_rank(str(value), rank) for setting, value in wishes.items() if value is not None}
    return replace(backend, settings={**backend.settings, **entries})


def _of_rank(value: str, rank: int) -> str:
    """Return the entry of a process; values that all have in common are not repeated (`identity.joined`)."""
    values = value.split("|")
    return values[rank] if len(values) > rank else values[0]
