"""Fetch published files from their mirrors, verified by checksum."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from .catalogue import IDX_NAMES, DatasetInfo
from .errors import DatasetError
from .folder import find_idx

TIMEOUT = 30.0  # seconds without a byte after which a mirror has failed
BLOCK = 1 << 20  # bytes


def cache_folder(name: str) -> Path:
    """Return the default folder of downloads: `$HXTRAIN_DATA/<name>` or `~/.cache/hxtrain/<name>`.

    Raises:
        DatasetError: the user has no home, and no variable names a folder.
    """
    root = os.environ.get("HXTRAIN_DATA")
    if root:
        return Path(root) / name
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise DatasetError("this user has no home to download to; set HXTRAIN_DATA to a folder") from None
    return cache / "hxtrain" / name


def download_dataset(info: DatasetInfo, folder: Path, timeout: float = TIMEOUT) -> None:
    """Fetch the IDX files, out of four, that `folder` lacks; existing files stay unchanged.

    Raises:
        DatasetError: the data set has no mirrors, or no mirror delivers a file.
    """
    if not info.mirrors:
        raise DatasetError(f"'{info.name}' has nothing to download; leave download out")
    checksums = {
        f"{name}.gz": md5 for name, md5 in zip(IDX_NAMES, info.md5, strict=True) if find_idx(folder, name) is None
    }
    download_files(info.mirrors, checksums, folder, timeout)


def download_files(
    mirrors: Sequence[str], checksums: Mapping[str, str], folder: Path, timeout: float = TIMEOUT
) -> None:
    """Fetch each file of `checksums` (file name -> MD5) from the first mirror that delivers it.

    Raises:
        DatasetError: all mirrors fail for a file; the text lists every failure.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(
            f"{folder} cannot be made ({error.strerror}); name another `folder`, or set HXTRAIN_DATA"
        ) from None
    for name, md5 in checksums.items():
        failures = []
        for mirror in mirrors:
            url = mirror.rstrip("/") + "/" + name
            try:
                fetch(url, folder / name, md5, timeout)
                break
            except (OSError, http.client.HTTPException, ValueError) as error:
                failures.append(f"  {url}: {_reason(error)}")
        else:
            raise DatasetError(
                f"could not download {name}, all {len(mirrors)} mirror(s) failed:\n"
                + "\n".join(failures)
                + f"\nCheck the connection and try again, or put the file into {folder} by hand."
            )


def file_md5(path: Path) -> str:
    """Return the MD5 of a file (hex)."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as source:
        while block := source.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fetch(url: str, target: Path, md5: str, timeout: float = TIMEOUT) -> None:
    """Fetch one file; `target` appears only when it is complete and its MD5 is correct.

    `timeout` (seconds) limits each wait for the network, not the whole transfer.

    Raises:
        DatasetError: the checksum is wrong.
        OSError, http.client.HTTPException: the transfer fails.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with urllib.request.urlopen(url, timeout=timeout) as source, part.open("wb") as sink:
            while block := source.read(BLOCK):
                digest.update(block)
                sink.write(block)
        if digest.hexdigest() != md5:
            raise DatasetError(
                f"wrong checksum: expected MD5 {md5}, found {digest.hexdigest()} ({part.stat().st_size} bytes)"
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
    return str(error) or type(error).__name__
