"""Checkpoints: written in one step, checked against their hash, read without executing code, resumed bit-equally.

A checkpoint is an archive of `torch.save`; the archive's comment holds the SHA-256 of all that stands before it, so
that whatever a bad sector or a broken copy changes in a file is noticed before anything of it is used. Files without
such a comment, of earlier versions and other programs, are checked by the sums (CRC-32) that every archive has.
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

FORMAT = 1
ZIP_SIGNATURE = b"PK\x03\x04"
ZIP_END = b"PK\x05\x06"
ZIP_END_BYTES = 22
"""Length of an archive's last record; its last two bytes say how long the comment is that follows."""
HASH_LABEL = b"hxtrain sha256 "
COMMENT_BYTES = len(HASH_LABEL) + 64


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or does not belong to this run."""


class Saved(NamedTuple):
    """What a file holds: its content, and the SHA-256 of the file."""

    state: dict[str, Any]
    sha256: str


def previous_of(path: Path) -> Path:
    """Return where the checkpoint before the last one is kept, `checkpoint.previous.pt`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values; an interruption leaves the old file or the new one, never half of one.

    The file that was there becomes `previous_of(path)`.

    Raises:
        CheckpointError: the file cannot be written (for example a full disk); the old one is intact.
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
        CheckpointError: there is none, it is damaged, or from an unknown version.
    """
    return read_checkpoint(Path(text("path", path))).state


def read_checkpoint(path: Path) -> Saved:
    """Return a checkpoint and its SHA-256; see `load_checkpoint`."""
    state, sha256 = read_saved(path)
    version = state.get("format") if isinstance(state, dict) else type(state).__name__
    if type(version) is not int or version != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {_short(version)}, this version reads {FORMAT}"
            + ("; it is a state_dict, which trainer.initial takes" if is_state_dict(state) else "")
        )
    return Saved(state, sha256)


def is_state_dict(content: object) -> bool:
    """Return whether a file's content is that of torch's `module.state_dict()`: tensors by name, nothing else."""
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items())
    )


def read_saved(path: Path) -> tuple[Any, str]:
    """Return what `torch.save` wrote, a checkpoint or anything else, and the SHA-256 of the file.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it holds more than tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; give the path of a run's checkpoint.pt")
    try:
        return _content(path)
    except OSError as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error.strerror}") from error
    except _DamagedError as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}{_way_back(path)}") from error


class _DamagedError(ValueError):
    """The bytes are not those that were written, or of no archive of tensors."""


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
    except pickle.UnpicklingError as error:  # torch's text is on how to read it all the same
        raise _DamagedError(
            "it holds more than tensors and plain values, or is damaged; nothing of it was run"
        ) from error
    except Exception as error:  # a foreign archive raises nearly anything
        raise _DamagedError((str(error) or type(error).__name__).splitlines()[0]) from error
    return content, hashlib.sha256(data).hexdigest()


def _check_archive(data: bytes, sums: bool) -> None:
    """Refuse an archive whose content would be larger than the file, or is not what its sums say."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            packed = [item.filename for item in archive.infolist() if item.compress_type != zipfile.ZIP_STORED]
            changed = archive.testzip() if sums and not packed else None
    except Exception as error:  # a damaged archive raises nearly anything
        raise _DamagedError(f"it is damaged or no archive of tensors ({error})") from error
    if packed:
        raise _DamagedError(f"its part {packed[0]!r} is compressed, which torch.save never does")
    if changed is not None:
        raise _DamagedError(f"it is damaged, its part {changed!r} is not what was written")


def _ends_plainly(archive: bytes) -> bool:
    """Return whether an archive ends as torch.save leaves it, without a comment."""
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
    """Return what a text on a damaged checkpoint says of the one before it."""
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
