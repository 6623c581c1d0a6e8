"""Checkpoints: written atomically, read without executing code, resumed bit-equally."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FORMAT = 1
ZIP_SIGNATURE = b"PK\x03\x04"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or does not belong to this run."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values; an interruption leaves the old file or the new one, never half of one.

    Raises:
        CheckpointError: the file cannot be written (for example a full disk); the old one is intact.
    """
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"checkpoint {path} could not be written ({error}); the one before it is intact. "
            "Free some space and resume with trainer.resume=true"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted, no code is run.

    Raises:
        CheckpointError: there is none, it is damaged, or from an unknown version.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; give the path of a run's checkpoint.pt")
    if _first_bytes(path) != ZIP_SIGNATURE:
        raise CheckpointError(
            f"{path} is not a readable checkpoint: it does not begin like one (foreign or empty file)"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path} has checkpoint format {found!r}, this version reads {FORMAT}")
    return state


def _first_bytes(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(len(ZIP_SIGNATURE))


def require_same(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to resume with other settings; the text names every difference.

    A setting that one side does not know, since it is of another version, is as good as None on the other side.

    Raises:
        CheckpointError: a setting differs.
    """
    differences = [
        f"  {key}: checkpoint {saved.get(key, 'absent')!r}, now {now.get(key, 'absent')!r}"
        for key in sorted(set(saved) | set(now))
        if not _same(key, saved.get(key), now.get(key))
    ]
    if differences:
        raise CheckpointError(
            f"{path} was written with other settings:\n"
            + "\n".join(differences)
            + "\nrepeat the settings of that run, or start a new one in another hydra.run.dir"
        )


def _same(key: str, saved: Any, now: Any) -> bool:
    """Return whether two values of a setting are the same; a path may have become an absolute one."""
    if key != "trainer.initial" or saved is None or now is None:
        return bool(saved == now)
    paths = sorted((Path(saved).parts, Path(now).parts), key=len)
    return paths[0] == paths[1][-len(paths[0]) :]
