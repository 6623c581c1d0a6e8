"""What other systems need: encodings, names of files, attributes of modules, locks, output that is no terminal."""

from __future__ import annotations

import ast
import io
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

import hxtrain
from hxtrain.backends.files import replacing
from hxtrain.console import EnduringConsole, takes_bar
from hxtrain.execution.device import close_devices, open_device
from hxtrain.plots import style
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.lock import locked
from hxtrain.runs.progress import Progress

ROOT = Path(__file__).parents[1]
FOLDERS = ("hxtrain", "backends", "emulator", "experiments")
FILES = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
UNIX_ONLY = {
    "os": {
        *("fork", "getuid", "geteuid", "setsid", "killpg", "getpgid", "sched_getaffinity", "getloadavg", "uname"),
        *("O_NOFOLLOW", "O_CLOEXEC", "O_DIRECTORY", "statvfs", "mkfifo", "chown", "getpriority", "nice", "pread"),
    },
    "signal": {"SIGKILL", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGALRM", "SIGQUIT", "alarm", "setitimer", "pthread_kill"},
    "socket": {"AF_UNIX", "SO_REUSEPORT", "SOCK_SEQPACKET", "socketpair"},
    "time": {"tzset"},
}
"""Attributes that Windows lacks."""
GUARDED = {
    "hxtrain/neurons/threads.py": {"sched_getaffinity"},  # behind hasattr
    "hxtrain/datasets/events/hdf5.py": {"pread"},  # behind hasattr
    "experiments/benchmark/speed.py": {"getloadavg"},  # behind hasattr
    "hxtrain/view/companion.py": {"nice"},  # without it, an ordinary priority
    "backends/remote/keys.py": {"geteuid"},  # behind hasattr
    # the server of a chip runs on Unix alone, and says so; its clients run anywhere
    "backends/remote/address.py": {"AF_UNIX", "O_NOFOLLOW"},
    "backends/remote/front/channel.py": {"SOCK_SEQPACKET"},
    "backends/remote/front/front.py": {"AF_UNIX", "socketpair"},
}
"""Uses of such attributes that no other system reaches."""
RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{number}" for name in ("com", "lpt") for number in range(1, 10))}
"""Names of files that Windows refuses, with any ending."""


def calls(file: Path) -> Iterator[ast.Call]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def lacks_encoding(call: ast.Call) -> bool:
    """Return whether a call opens, reads or writes a text in the encoding of the machine."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    options = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in ("read_text", "write_text"):
        return "encoding" not in options and len(call.args) <= (name == "write_text")
    if name == "NamedTemporaryFile":
        mode = call.args[0] if call.args else options.get("mode")
        return isinstance(mode, ast.Constant) and "b" not in str(mode.value) and "encoding" not in options
    if name != "open" or "encoding" in options:
        return False
    is_path = isinstance(function, ast.Attribute)
    position = 0 if is_path else 1
    mode = call.args[position] if len(call.args) > position else options.get("mode")
    if mode is None:
        return not is_path  # `backend.open()` is no file
    return isinstance(mode, ast.Constant) and set(str(mode.value)) <= set("rwax+t")


def test_every_text_file_has_an_encoding() -> None:
    places = ((file.relative_to(ROOT), call.lineno) for file in FILES for call in calls(file) if lacks_encoding(call))
    assert list(places) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("open(p)", True),
        ("open(p, 'rb')", False),
        ("open(p, 'w', encoding='utf-8')", False),
        ("p.open('a')", True),
        ("p.read_text()", True),
        ("p.write_text(t)", True),
        ("p.write_text(t, encoding='utf-8')", False),
        ("device.open()", False),
        ("NamedTemporaryFile('w')", True),
    ],
)
def test_the_search_for_encodings(code: str, expected: bool) -> None:
    call = ast.parse(code).body[0].value  # type: ignore[attr-defined]
    assert lacks_encoding(call) is expected


def test_no_module_needs_what_windows_lacks() -> None:
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.attr in UNIX_ONLY.get(node.value.id, ())
        }
        path = file.relative_to(ROOT).as_posix()
        assert names == GUARDED.get(path, set()), path


def test_names_of_files_differ_and_are_allowed_everywhere() -> None:
    paths = [path for folder in (*FOLDERS, "docs", "tests") for path in (ROOT / folder).rglob("*")]
    names = [path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts]
    assert len({name.casefold() for name in names}) == len(names)
    assert [name for name in names if set(name) & set('<>:"|?*\\') or name != name.rstrip(". ")] == []
    assert [name for name in names if Path(name).stem.casefold() in RESERVED] == []


def test_the_package_is_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/__main__.py", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(Path(hxtrain.__file__).with_name("__main__.py")), run_name="__main__")
    assert not end.value.code
    assert capsys.readouterr().out.startswith("hxtrain ")


def test_a_folder_is_locked_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: set[tuple[int, int]] = set()

    def locking(descriptor: int, mode: int, count: int) -> None:
        place = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        if place in held:
            raise PermissionError(13, "Permission denied")
        held.add(place)

    monkeypatch.setattr("hxtrain.runs.lock.fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    with (
        locked(tmp_path),
        pytest.raises(CheckpointError, match="another process"),
        locked(tmp_path),
    ):
        pass
    assert len(held) == 1


def test_a_file_in_use_is_replaced_a_moment_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.replace
    refusals = [PermissionError(13, "in use")] * 2

    def replace(source: Path, target: Path) -> None:
        if refusals:
            raise refusals.pop()
        plain(source, target)

    monkeypatch.setattr("hxtrain.backends.files.os", SimpleNamespace(**{**vars(os), "name": "nt", "replace": replace}))
    with replacing(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


class BrokenPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_leaves_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "dup2", lambda first, second: moved.append((first, second)))
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1)
    progress = Progress(console=EnduringConsole(file=BrokenPipe()))
    progress.say("a")
    progress.say("b")
    assert [second for _, second in moved] == [1]
    for first, _ in moved:
        os.close(first)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_file_gets_lines_without_bar_and_without_codes(terminal: bool) -> None:
    class Course:
        epochs = 1
        epoch = 0
        step = 0
        steps_per_epoch = 10

    stream = io.StringIO()
    progress = Progress(console=Console(file=stream, force_terminal=terminal, width=80))
    with progress.training(Course()):  # type: ignore[arg-type]
        progress.say("a line")
    assert ("\x1b" in stream.getvalue()) is terminal
    assert terminal or stream.getvalue() == "a line\n"


def test_a_notebook_has_a_bar_only_with_ipywidgets(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_jupyter=True)
    for specification in (None, object()):
        monkeypatch.setattr("hxtrain.console.find_spec", lambda name, value=specification: value)
        assert takes_bar(console) is (specification is not None)


def test_a_figure_is_an_image_in_a_notebook() -> None:
    assert style.new_figure(2, 1)._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_the_end_of_the_process_closes_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    device = open_device("reference")
    closed: list[object] = []
    monkeypatch.setattr(device.backend, "close", lambda: closed.append(device))
    close_devices()
    assert closed == [device]
