"""Key files for CURVE: who may talk to a server, and which server it is.

A directory of keys holds `server.key`, `client.key` (public), `server.key_secret`, `client.key_secret` (files of
mode 600 in ZeroMQ's certificate format), and `authorised/`, the public keys of the clients that a server accepts.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.auth import load_certificate

AUTHORISED = "authorised"
TEMPORARY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EIO, errno.ESTALE)
"""Why a file that is there may not be readable for now."""


class KeyFileError(ValueError):
    """A key file is missing, unreadable or open to others."""


class Pair(NamedTuple):
    """A public and a secret key (Z85)."""

    public: bytes
    secret: bytes


def make_keys(folder: Path, name: str = "client") -> list[Path]:
    """Make a server's pair of keys (unless it is there) and a client's, and authorise the client.

    Args:
        folder: where they go; made if needed, with access for its owner only.
        name: of the client's files.

    Raises:
        KeyFileError: the client's keys are there already, or its name cannot be a file's.
    """
    if not name.replace("-", "").replace("_", "").isalnum() or name == "server":
        raise KeyFileError(f"client name {name!r} must consist of letters, digits, - and _, and not be 'server'")
    for place in (folder, folder / AUTHORISED):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = [] if (folder / "server.key_secret").exists() else _make(folder, "server")
    if (folder / f"{name}.key_secret").exists():
        raise KeyFileError(f"{folder / name}.key_secret is there already; name another client, or remove it first")
    made += _make(folder, name)
    authorised = folder / AUTHORISED / f"{name}.key"
    _write(authorised, (folder / f"{name}.key").read_text())
    return [*made, authorised]


def _make(folder: Path, name: str) -> list[Path]:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    head = f'metadata\n    name = "{name}"\ncurve\n    public-key = "{public}"\n'
    files = [folder / f"{name}.key", folder / f"{name}.key_secret"]
    _write(files[0], head)
    _write(files[1], head + f'    secret-key = "{secret}"\n')
    return files


def _write(file: Path, text: str) -> None:
    """Write a new file that only its owner can read, whatever the umask."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(text)


def load_pair(folder: Path, name: str) -> Pair:
    """Return a pair of keys from its secret file.

    Raises:
        KeyFileError: the file is missing, broken, or others can read it.
    """
    file = folder / f"{name}.key_secret"
    _require(file)
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise KeyFileError(f"{file} has mode {mode:o}: others can read it; chmod 600 {file}")
    public, secret = _load(file)
    if secret is None:
        raise KeyFileError(f"{file} holds no secret key; make new ones with: hxtrain-serve keys DIR")
    return Pair(public, secret)


def load_public(folder: Path, name: str) -> bytes:
    """Return a public key.

    Raises:
        KeyFileError: the file is missing or broken.
    """
    file = folder / f"{name}.key"
    _require(file)
    return _load(file)[0]


def load_authorised(folder: Path) -> dict[bytes, str]:
    """Return the names of authorised clients by public key; broken files are left out.

    Raises:
        OSError: they cannot be read for now: too many files are open, or the disk fails.
    """
    names = {}
    for file in sorted(Path(entry.path) for entry in os.scandir(folder / AUTHORISED) if entry.name.endswith(".key")):
        try:
            names[_load(file)[0]] = file.stem
        except KeyFileError as error:
            reason = error.__cause__
            if isinstance(reason, OSError) and reason.errno in TEMPORARY:
                raise reason from None
    return names


def _require(file: Path) -> None:
    if not file.is_file():
        raise KeyFileError(f"{file} is missing; make keys with: hxtrain-serve keys DIR (and copy the client's)")


def _load(file: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = load_certificate(file)
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{file} is not a key file ({error}); make new ones with: hxtrain-serve keys DIR") from error
    if any(key is not None and len(key) != 40 for key in (public, secret)):
        raise KeyFileError(f"{file} holds a key that is not of 40 characters; make new ones")
    return public, secret
