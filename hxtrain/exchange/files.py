"""Files of networks that other programs read: written as a whole, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hxtrain.backends.files import replacing
from hxtrain.checks import text
from hxtrain.runs.checkpoint import CheckpointError, previous_of


@contextmanager
def output(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends; an interruption leaves the old file.

    An existing file is moved to `previous_of(path)`, as that of a checkpoint is.

    Raises:
        CheckpointError: The file cannot be written; an old one is intact.
    """
    file = file_path(path)
    try:
        with replacing(file, previous_of(file)) as stream:
            yield stream
    except OSError as error:
        intact = ", and the existing file is intact" if file.is_file() else ""
        raise CheckpointError(
            f"{file} could not be written ({error.strerror or error}){intact}; name a file in a folder that is there "
            "and can be written, on a disk with space"
        ) from error


def file_path(path: str | Path) -> Path:
    """Return the path of a file to write.

    Raises:
        ValueError: It is empty, or the path of a folder.
    """
    file = Path(text("path", path)).expanduser()
    if not file.name or file.is_dir():
        raise ValueError(f"path={str(path)!r} is {'a folder' if str(path) else 'empty'}; give the path of a file in it")
    return file
