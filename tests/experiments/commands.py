"""Console scripts called in the process of the tests: most tests need what a command does, not a new process of it.

A new process costs the start of Python and the import of torch, several seconds each. `launch` starts one where the
process itself is tested: signals, several at a time, the installed script.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

SCRIPTS = Path(sys.executable).parent
"""Folder of the installed scripts."""
POINTS = {
    point.name: point for point in metadata.distribution("hxtrain").entry_points if point.group == "console_scripts"
}
REPORT = logging.getLogger("hxtrain.report")


def call(script: str, *words: object, cwd: Path, columns: int = 200) -> subprocess.CompletedProcess[str]:
    """Run a command such as `hxtrain evaluate` in this process, in a folder.

    Returns its exit status and its output like `subprocess.run`.
    """
    program, *verb = script.split()
    arguments = [program, *verb, *map(str, words)]
    output, errors = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), _environment(arguments, cwd, columns),
        _logging(), _hydra(), _warnings(),
    ):  # fmt: skip
        returned = status(POINTS[program].load())
    return subprocess.CompletedProcess(arguments, returned, output.getvalue(), errors.getvalue())


def launch(script: str, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, in a folder."""
    program, *verb = script.split()
    command = [SCRIPTS / program, *verb, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def status(main: Callable[[], object]) -> int:
    """Return the exit status that the interpreter gives to a script of this function."""
    try:
        value = main()
    except SystemExit as end:
        value = end.code
    except Exception:
        traceback.print_exc()
        return 1
    if isinstance(value, str):
        print(value, file=sys.stderr)
        return 1
    return int(value or 0)  # type: ignore[call-overload, no-any-return]


@contextlib.contextmanager
def _environment(arguments: list[str], folder: Path, columns: int) -> Iterator[None]:
    words = sys.argv
    directory = Path.cwd()
    variables = dict(os.environ)
    sys.argv = arguments
    os.environ["COLUMNS"] = str(columns)
    os.chdir(folder)
    try:
        yield
    finally:
        sys.argv = words
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(variables)


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Close the log files of the run, and give the root logger back its handlers and level.

    Objects that exist before the run are kept from the garbage collector, which else walks over all of torch, numba and
    the tests, several times in a command.
    """
    root = logging.getLogger()
    handlers = list(root.handlers)
    level = root.level
    gc.freeze()
    try:
        yield
    finally:
        added = {*root.handlers, *REPORT.handlers} - set(handlers)
        for handler in added:
            handler.close()
        root.handlers = handlers
        REPORT.handlers = []
        root.setLevel(level)
        if added:  # a file of a job that logging has let go of must not fail a test to come
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
        gc.unfreeze()


@contextlib.contextmanager
def _hydra() -> Iterator[None]:
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None


@contextlib.contextmanager
def _warnings() -> Iterator[None]:
    """Print warnings for users as the interpreter does; all others stay errors."""

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield
