"""Checkpoints: written in one step, checked against their hash, read without executing code, resumed bit-equally.

A checkpoint is an archive of `torch.save`. The comment of the archive holds the SHA-256 of all preceding bytes, so that
any damage by a bad sector or a broken copy is noticed before the content is used. Files without such a comment, from
earlier versions and other programs, are checked by the sums (CRC-32) that every archive has.
"""

from __future__ import annotations

import errno
import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hxtrain.backends.files import replacing
from hxtrain.checks import text

from .names import current_names, with_later_settings

FORMAT = 1
ZIP_SIGNATURE = b"PK\x03\x04"
ZIP_END = b"PK\x05\x06"
ZIP_END_BYTES = 22
"""Length of an archive's last record; its last two bytes say how long the comment is that follows."""
HASH_LABEL = b"hxtrain sha256 "
COMMENT_BYTES = len(HASH_LABEL) + 64


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or does not belong to this run."""


class CheckpointContent(NamedTuple):
    """Content of a checkpoint file, and SHA-256 of the file."""

    state: dict[str, Any]
    sha256: str


def previous_of(path: Path) -> Path:
    """Return the path of the previous checkpoint, `checkpoint.previous.pt`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values; an interruption leaves the old file or the new one, never half of one.

    An existing file is moved to `previous_of(path)`.

    Raises:
        CheckpointError: The file cannot be written (for example on a full disk); the old one is intact.
    """
    path = Path(text("path", path))
    archive = io.BytesIO()
    torch.save({"format": FORMAT, **state}, archive)
    try:
        with replacing(path, previous_of(path)) as file:
            file.write(_with_hash(archive.getvalue()))
    except OSError as error:
        intact = "; the one before it is intact" if path.exists() else "; there is none before it"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "Free some space" if full else "Name a folder that is there and can be written"
        raise CheckpointError(
            f"checkpoint {path} could not be written ({error.strerror}){intact}. {remedy} and "
            + ("resume with trainer.resume=true" if path.exists() else "start again")
        ) from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted, no code is run.

    Raises:
        CheckpointError: The file does not exist, is damaged, or has an unknown version.
    """
    return read_checkpoint(Path(text("path", path))).state


def read_checkpoint(path: Path) -> CheckpointContent:
    """Return a checkpoint and its SHA-256; see `load_checkpoint`."""
    state, sha256 = read_saved(path)
    version = state.get("format") if isinstance(state, dict) else type(state).__name__
    if type(version) is not int or version != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {_short(version)}, this version reads {FORMAT}"
            + ("; it is a state_dict, which trainer.initial takes" if is_state_dict(state) else "")
        )
    return CheckpointContent(state, sha256)


def is_state_dict(content: object) -> bool:
    """Return whether the content of a file is a torch `state_dict`: tensors by name, nothing else."""
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items())
    )


def read_saved(path: Path) -> tuple[Any, str]:
    """Return the content of any file of `torch.save`, such as a checkpoint, and the SHA-256 of the file.

    Raises:
        CheckpointError: The file does not exist, is damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(
            f"there is no checkpoint {path}; give the path of a run's checkpoint.pt or of a file of hx.save"
        )
    try:
        return _content(path)
    except OSError as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error.strerror}") from error
    except _DamagedError as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}{_way_back(path)}") from error


class _DamagedError(ValueError):
    """The bytes are damaged, or are no archive of tensors."""


def _content(path: Path) -> tuple[Any, str]:
    data = path.read_bytes()
    if not data.startswith(ZIP_SIGNATURE):
        raise _DamagedError("it does not begin like one (foreign or empty file)")
    if not _ends_plainly(data):
        if data[-COMMENT_BYTES:] != _comment(data[:-COMMENT_BYTES]):
            raise _DamagedError("it is damaged, its content is not what its hash says")
        _check_archive(data, sums=False)
    else:  # no comment, no hash
        _check_archive(data, sums=True)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:  # torch's own text tells how to bypass this check
        raise _DamagedError(
            "it holds more than tensors and plain values, or is damaged; nothing of it was run. "
            "Of a module of torch, save its state_dict()"
        ) from error
    except Exception as error:  # a foreign archive raises nearly anything
        raise _DamagedError((str(error) or type(error).__name__).splitlines()[0]) from error
    return content, hashlib.sha256(data).hexdigest()


def _check_archive(data: bytes, sums: bool) -> None:
    """Raise an error for an archive with compressed parts, or with content that contradicts its sums."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            compressed = [item.filename for item in archive.infolist() if item.compress_type != zipfile.ZIP_STORED]
            damaged = archive.testzip() if sums and not compressed else None
    except Exception as error:  # a damaged archive raises nearly anything
        raise _DamagedError(f"it is damaged or no archive of tensors ({error})") from error
    if compressed:
        raise _DamagedError(f"its part {compressed[0]!r} is compressed, which torch.save never does")
    if damaged is not None:
        raise _DamagedError(f"it is damaged, its part {damaged!r} is not what was written")


def _ends_plainly(archive: bytes) -> bool:
    """Return whether an archive ends without a comment, as after torch.save."""
    return archive[-ZIP_END_BYTES:][:4] == ZIP_END and archive[-2:] == b"\0\0"


def _with_hash(archive: bytes) -> bytes:
    """Return an archive with its hash as its comment."""
    if not _ends_plainly(archive):
        raise RuntimeError("torch.save wrote no archive that can take a comment; use another version of torch")
    body = archive[:-2] + COMMENT_BYTES.to_bytes(2, "little")
    return body + _comment(body)


def _comment(body: bytes) -> bytes:
    return HASH_LABEL + hashlib.sha256(body).hexdigest().encode()


def _way_back(path: Path) -> str:
    """Return the clause of an error text on the checkpoint that precedes a damaged one."""
    previous = previous_of(path)
    if not previous.is_file():
        return ""
    try:
        _content(previous)
    except (OSError, _DamagedError):
        return f"; the one before it, {previous}, is damaged, too"
    return f"; the one before it is intact: move {previous} to {path}, and resume with trainer.resume=true"


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, int | float | str | None) else type(value).__name__
    return text if len(text) <= 40 else text[:37] + "..."


def require_same(path: Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Check that a run is resumed with the same settings; the error names every difference.

    A setting that is missing on one side, since the version differs, equals None, or the value that changes nothing, on
    the other side. Components are compared by their registered names.

    Raises:
        CheckpointError: A setting differs.
    """
    saved = with_later_settings(current_names(saved))
    current = with_later_settings(current_names(current))
    differences = [
        f"  {key}: checkpoint {saved.get(key, 'absent')!r}, now {current.get(key, 'absent')!r}"
        for key in sorted(set(saved) | set(current))
        if not _is_same(key, saved.get(key), current.get(key))
    ]
    if differences:
        raise CheckpointError(
            f"{path} was written with other settings:\n"
            + "\n".join(differences)
            + "\nrepeat the settings of that run, or start a new one in another hydra.run.dir"
        )


def _is_same(key: str, saved: Any, current: Any) -> bool:
    """Return whether two values of a setting are equal; a relative path equals an absolute one with the same end."""
    if key != "trainer.initial" or saved is None or current is None:
        return bool(saved == current)
    paths = sorted((Path(saved).parts, Path(current).parts), key=len)
    return paths[0] == paths[1][-len(paths[0]) :]
