"""Addresses of a server: which ones are accepted, and the socket that listens at one."""

from __future__ import annotations

import os
import socket
import stat
import struct
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import IO, NamedTuple

SIOCGIFADDR = 0x8915
"""Request to Linux for the address of an interface."""
BACKLOG = 128
"""Number of connections that may wait for acceptance."""
EXAMPLES = "use e.g. tcp://127.0.0.1:5555 or ipc:///run/chip.sock"


class Listener(NamedTuple):
    """A socket that listens, its address, and for a local socket its path and lock.

    The operating system frees a lock with the process that holds it.
    """

    socket: socket.socket
    address: str
    path: Path | None = None
    lock: IO[str] | None = None

    def close(self) -> None:
        """Stop listening; may be called twice."""
        if self.socket.fileno() < 0:
            return
        self.socket.close()
        if self.path is not None and self.lock is not None:
            self.path.unlink(missing_ok=True)
            self.lock.close()


def is_private(address: str) -> bool:
    """Return whether an address is reachable from this machine only: loopback, or a local socket."""
    scheme, _, rest = address.partition("://")
    if scheme in ("ipc", "inproc"):
        return True
    host = _host_and_port(rest)[0]
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_bind(address: str, keys: str | None, insecure: bool) -> None:
    """Check that an address is valid, and that it is private or the server has keys.

    Raises:
        ValueError: The address is not one of ZeroMQ's, or other machines reach it and there are no keys.
    """
    scheme, _, rest = address.partition("://")
    if scheme not in ("tcp", "ipc") or not rest:
        raise ValueError(f"bind={address} is not an address; {EXAMPLES}")
    if scheme == "tcp":
        _check_port(address, _host_and_port(rest)[1])
    if keys is not None or insecure:
        return
    if scheme == "ipc" and rest.startswith("@"):
        raise ValueError(
            f"bind={address} is an abstract socket: it has no permissions, any user of this machine could use the "
            "chip. Bind a path (ipc:///run/chip.sock), which only its owner can use, or serve with keys=DIR"
        )
    if not is_private(address):
        raise ValueError(
            f"bind={address} can be reached from other machines, and without keys anyone there could use the chip. "
            "Make keys with `hxtrain serve keys DIR` and serve with keys=DIR, or bind tcp://127.0.0.1:PORT and let "
            "users come through ssh -L; insecure=true serves anyone"
        )


def check_endpoint(address: str) -> None:
    """Check that an address is one to connect to.

    Raises:
        ValueError: The address is not one of ZeroMQ's, or has no host or no port.
    """
    scheme, _, rest = address.partition("://")
    if scheme not in ("tcp", "ipc") or not rest:
        raise ValueError(f"it is not an address; {EXAMPLES}")
    if scheme == "ipc":
        return
    host, port = rest.rpartition(":")[::2]
    if not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise ValueError("it must be HOST:PORT, with an IPv6 address in brackets, e.g. tcp://[::1]:5555")
    if not _is_port(port):
        raise ValueError(f"port {port!r} must be 1 to 65535; {EXAMPLES}")


def listen(address: str) -> Listener:
    """Return a socket that listens at an address that `check_bind` accepts.

    Raises:
        ValueError: The address cannot be bound or is in use, or the system has no such sockets.
    """
    if os.name == "nt":
        raise ValueError("hxtrain serve needs Linux or macOS; on Windows, use the chip of a server with backend=remote")
    scheme, _, rest = address.partition("://")
    try:
        return _listen_tcp(rest) if scheme == "tcp" else _listen_local(rest)
    except (OSError, OverflowError, UnicodeError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"bind={address}: {text}; is another server running there?") from None


def _host_and_port(rest: str) -> tuple[str, str]:
    host, _, port = rest.rpartition(":")
    return host.strip("[]"), port


def _check_port(address: str, port: str) -> None:
    if port in ("*", "0"):
        return
    if not _is_port(port):
        raise ValueError(f"bind={address}: port {port!r} must be 1 to 65535, or * for a free one; {EXAMPLES}")


def _is_port(port: str) -> bool:
    return port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535


def _listen_tcp(rest: str) -> Listener:
    host, port = _host_and_port(rest)
    name = "0.0.0.0" if host == "*" else _interface(host) or host
    number = 0 if port == "*" else int(port)
    family, _, _, _, place = socket.getaddrinfo(
        name, number, socket.AF_INET6 if ":" in name else socket.AF_INET, socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        _start(listener)
    except BaseException:
        listener.close()
        raise
    bound, port_bound = listener.getsockname()[:2]
    return Listener(listener, f"tcp://[{bound}]:{port_bound}" if ":" in bound else f"tcp://{bound}:{port_bound}")


def _listen_local(rest: str) -> Listener:
    """Listen at a path, for its owner only; a path that is in use, or holds no socket, stays as it is."""
    if rest.startswith("@"):
        return Listener(_bind_local("\0" + rest[1:]), f"ipc://{rest}")
    path = Path(rest)
    _is_socket(path)  # before there is a lock beside it
    lock = lock_path(path)
    try:
        _remove_abandoned(path)
        return Listener(_bind_local(rest), f"ipc://{rest}", path, lock)
    except BaseException:
        lock.close()
        raise


def _bind_local(name: str) -> socket.socket:
    """Return a listening local socket; other users cannot connect to its path."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(name)
        _start(listener)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _interface(name: str) -> str | None:
    """Return the IPv4 address of a network interface (Linux); None if no interface has this name."""
    import fcntl

    if name not in (interface for _, interface in socket.if_nameindex()):
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
    return socket.inet_ntoa(answer[20:24])


def _start(listener: socket.socket) -> None:
    listener.setblocking(False)  # another process accepts
    listener.listen(BACKLOG)


def lock_path(path: Path) -> IO[str]:
    """Lock a path and return the lock; the lock file stays, since a removed file could be locked twice.

    Raises:
        OSError: Another process holds the lock, or the path is not possible.
    """
    import fcntl

    name = path.with_name(path.name + ".lock")
    lock = open(name, "a", encoding="utf-8", opener=lambda file, flags: os.open(file, flags | os.O_NOFOLLOW, 0o600))  # noqa: SIM115
    try:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise FileExistsError(0, f"another process holds {name}") from None
    return lock


def _is_socket(path: Path) -> bool:
    """Return whether a path is a socket.

    Raises:
        OSError: The path is something else.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(0, f"{path} is there and is no socket, it was left alone")
    return True


def _remove_abandoned(path: Path) -> None:
    """Remove a socket without a listening process.

    Raises:
        OSError: A process listens at the socket.
    """
    if not _is_socket(path):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        with suppress(ConnectionRefusedError):
            probe.connect(str(path))
            raise FileExistsError(0, f"a server answers at {path}")
    path.unlink()
