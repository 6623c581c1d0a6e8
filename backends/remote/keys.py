"""Key files for CURVE, which authenticate clients and server.

A directory of keys holds `server.key`, `client.key` (public), `server.key_secret`, `client.key_secret` (files of
mode 600 in ZeroMQ's certificate format), and `authorised/`, the public keys of the clients that a server accepts.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import zmq

AUTHORISED = "authorised"
LONGEST_FILE = 2**16
"""Largest part of a key file that is read (bytes)."""
TEMPORARY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EIO, errno.ESTALE)
"""Errors of an existing file that may be temporary."""
SECRET = (stat.S_IRWXG | stat.S_IRWXO, "read it", "600")
PUBLIC = (stat.S_IWGRP | stat.S_IWOTH, "change it", "go-w")
"""Forbidden bits of the mode of such a file, the deed that they allow to others, and the mode that mends it."""
log = logging.getLogger(__name__)


class KeyFileError(ValueError):
    """A key file is missing, unreadable or open to others."""


class Pair(NamedTuple):
    """A public and a secret key (Z85)."""

    public: bytes
    secret: bytes


def make_keys(folder: Path, name: str = "client") -> list[Path]:
    """Make a server's pair of keys (unless it exists) and a client's, and authorise the client.

    Args:
        folder: Folder of the keys; made if needed, with access for its owner only.
        name: Name of the client, and of its files.

    Raises:
        KeyFileError: The client's keys exist already, or its name is no file name.
    """
    if not (name[:1].isalnum() and name.replace("-", "").replace("_", "").isalnum() and len(name) <= 64):
        raise KeyFileError(
            f"client name {ascii(name)[:80]} must consist of letters, digits, - and _, at most 64 of them, and begin "
            "with a letter or digit"
        )
    if name == "server":
        raise KeyFileError("client name 'server' is the server's; choose another one")
    for place in (folder, folder / AUTHORISED):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(place)
    secret = folder / f"{name}.key_secret"
    if secret.exists() and (folder / AUTHORISED / f"{name}.key").exists():
        raise KeyFileError(f"{secret} is there already; name another client, or remove it first")
    files = _complete(folder, "server") + _complete(folder, name)
    authorised = folder / AUTHORISED / f"{name}.key"
    _write(authorised, (folder / f"{name}.key").read_text(encoding="utf-8"))
    return [*files, authorised]


def _complete(folder: Path, name: str) -> list[Path]:
    """Make a pair of keys, or only the public file of an existing secret one; the secret file comes last.

    A second call therefore completes the files after an interruption.
    """
    public, secret = folder / f"{name}.key", folder / f"{name}.key_secret"
    if secret.exists():
        if public.exists():
            return []
        _write(public, _text(name, load_pair(folder, name).public))
        return [public]
    pair = Pair(*zmq.curve_keypair())
    _write(public, _text(name, pair.public))
    _write(secret, _text(name, pair.public) + f'    secret-key = "{pair.secret.decode()}"\n')
    return [public, secret]


def _text(name: str, public: bytes) -> str:
    return f'metadata\n    name = "{name}"\ncurve\n    public-key = "{public.decode()}"\n'


def _write(file: Path, text: str) -> None:
    """Write a file that only its owner can read, whatever the umask; the file appears complete or not at all."""
    with NamedTemporaryFile(  # of mode 600
        "w", encoding="utf-8", dir=file.parent, prefix=".", suffix=".part", delete=False
    ) as handle:
        try:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
            os.replace(handle.name, file)
        except BaseException:
            os.unlink(handle.name)
            raise


def _require_private(place: Path) -> None:
    """Refuse a folder, or an open file's path, that others could change.

    Raises:
        KeyFileError: The place belongs to another user, or others can write to it.
    """
    _check_owner(place, place.stat(), *PUBLIC)


def _check_owner(place: Path, status: os.stat_result, forbidden: int, deed: str, remedy: str) -> None:
    """Check that a place belongs to this user or root, and that its mode has no forbidden bits."""
    if not hasattr(os, "geteuid"):
        return  # Windows: access is not described by a mode
    if status.st_uid not in (os.geteuid(), 0):
        raise KeyFileError(
            f"{place} belongs to user {status.st_uid}: only its owner and root could be trusted; chown it"
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        raise KeyFileError(f"{place} has mode {mode:o}: others can {deed}; chmod {remedy} {place}")


def load_pair(folder: Path, name: str) -> Pair:
    """Return a pair of keys from its secret file.

    Raises:
        KeyFileError: The file is missing, broken or another user's, or others can read it or change its folder.
    """
    file = folder / f"{name}.key_secret"
    public, secret = _load(file, *SECRET)
    _require_private(folder)
    if (folder / AUTHORISED).exists():
        _require_private(folder / AUTHORISED)
    if secret is None:
        raise KeyFileError(f"{file} holds no secret key; make new ones with: hxtrain serve keys DIR")
    return Pair(public, secret)


def load_public(folder: Path, name: str) -> bytes:
    """Return a public key.

    Raises:
        KeyFileError: The file is missing or broken.
    """
    return _load(folder / f"{name}.key", *PUBLIC)[0]


def load_authorised(folder: Path) -> dict[bytes, str]:
    """Return the names of authorised clients by public key, without files that are broken or belong to others.

    Nobody is authorised if others could authorise themselves.

    Raises:
        OSError: The files cannot be read at present: too many files are open, or the disk fails.
    """
    if not (folder / AUTHORISED).is_dir():
        return {}
    try:
        _require_private(folder / AUTHORISED)
    except KeyFileError as error:
        log.error("nobody is let in: %s", error)
        return {}
    names = {}
    for file in sorted(Path(entry.path) for entry in os.scandir(folder / AUTHORISED) if entry.name.endswith(".key")):
        try:
            names[_load(file, *PUBLIC)[0]] = file.stem
        except KeyFileError as error:
            reason = error.__cause__
            if isinstance(reason, OSError) and reason.errno in TEMPORARY:
                raise reason from None
    return names


def _load(file: Path, forbidden: int, deed: str, remedy: str) -> tuple[bytes, bytes | None]:
    """Return the public key in a file, and the secret key or None.

    Check and reading use one open file, whatever happens to its name meanwhile.
    """
    try:
        with file.open("rb") as handle:
            _check_owner(file, os.fstat(handle.fileno()), forbidden, deed, remedy)
            text = handle.read(LONGEST_FILE).decode()
    except FileNotFoundError:
        text = f"{file} is missing; make keys with: hxtrain serve keys DIR (and copy the client's)"
        raise KeyFileError(text) from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{file} is not a key file ({error}); make new ones with: hxtrain serve keys DIR") from error
    public, secret = (
        re.search(rf"""^\s*{kind}-key\s*=\s*["']?([^"'\n]*)""", text, re.M) for kind in ("public", "secret")
    )
    if public is None:
        raise KeyFileError(f"{file} is not a key file (no public key); make new ones with: hxtrain serve keys DIR")
    keys = [None if key is None else key[1].encode() for key in (public, secret)]
    if any(key is not None and len(key) != 40 for key in keys):
        raise KeyFileError(f"{file} holds a key that is not of 40 characters; make new ones")
    return public[1].encode(), keys[1]
