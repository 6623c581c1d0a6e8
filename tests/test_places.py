"""Places where the package must start: other systems, newer Pythons, clones, users without a folder to write to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNIX_ONLY = ("_posixsubprocess", "fcntl", "grp", "pwd", "resource", "termios", "pty", "tty", "syslog", "readline")
IMPORT_ALL = """
import importlib, pkgutil, sys
import torch, numba, hydra, matplotlib.pyplot, rich.progress, zmq, triton  # they have their own ways on Windows
import multiprocessing.util
for name in {blocked!r}:
    sys.modules[name] = None
import hxtrain
for module in pkgutil.walk_packages(hxtrain.__path__, "hxtrain."):
    if not module.name.endswith(("_peer", "gpu_kernel", "engines.gpu")):
        importlib.import_module(module.name)
print("all")
"""
EAGER_CHECK = """
import argparse
plain = argparse.ArgumentParser.add_argument

def add_argument(self, *names, **options):
    action = plain(self, *names, **options)
    if action.help:
        if "%" not in action.help:
            return action
        self._get_formatter()._expand_help(action)
    return action

argparse.ArgumentParser.add_argument = add_argument
"""
TRAIN = "from hxtrain.experiments.train import main; main()"
KERNELS = (
    "import hxtrain.neurons.engines.cpu_forward, hxtrain.emulator.engines.cpu_kernel, hxtrain.emulator.volley; "
    "print('started')"
)


def python(code: str, folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process in a folder."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment
    return subprocess.run([sys.executable, "-c", code, *words], cwd=folder, env=env, capture_output=True, text=True)


def test_every_module_is_imported_without_modules_of_unix(tmp_path: Path) -> None:
    process = python(IMPORT_ALL.format(blocked=UNIX_ONLY), tmp_path)
    assert process.stdout == "all\n", process.stderr


def test_commands_start_where_help_texts_are_checked_at_once(tmp_path: Path) -> None:
    """As Python 3.14 does."""
    (tmp_path / "sitecustomize.py").write_text(EAGER_CHECK)
    process = python(TRAIN, tmp_path, "--hydra-help", PYTHONPATH=str(tmp_path))
    assert process.returncode == 0, process.stderr
    assert "Install or Uninstall shell completion" in process.stdout


@pytest.mark.parametrize("folder", [".", "hxtrain"])
def test_import_works_in_a_clone(folder: str) -> None:
    code = "import hxtrain.backends, hxtrain.emulator, hxtrain.experiments"
    process = python(code, ROOT / folder)
    assert process.returncode == 0, process.stderr


def test_a_clone_that_is_not_installed_says_so(tmp_path: Path) -> None:
    code = """
import importlib.metadata as metadata
metadata.entry_points = lambda **selection: metadata.EntryPoints()
import hxtrain.backends
try:
    hxtrain.backends.create_backend("reference")
except ValueError as error:
    print(error)
"""
    process = python(code, ROOT)
    assert f"not installed; run: pip install {ROOT}" in process.stdout, process.stderr


def test_an_incomplete_clone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hxtrain").mkdir()
    for file in ("__init__.py", "_start.py", "compilation.py"):
        (tmp_path / "hxtrain" / file).write_text((ROOT / "hxtrain" / file).read_text())
    process = python("import hxtrain", tmp_path)
    assert "hxtrain.backends, hxtrain.emulator, hxtrain.experiments are neither in it nor beside it" in process.stderr


def unwritable(folder: Path) -> str:
    """Return code that hides the package and the user's cache from numba as places to write to."""
    return f"""
import tempfile
plain = tempfile.TemporaryFile
def refuse(*args, dir=None, **options):
    if dir is None or {str(folder)!r} not in str(dir):
        raise PermissionError(13, "Permission denied")
    return plain(*args, dir=dir, **options)
tempfile.TemporaryFile = refuse
"""


def test_loops_are_compiled_without_a_cache(tmp_path: Path) -> None:
    process = python(unwritable(tmp_path) + KERNELS, tmp_path, NUMBA_CACHE_DIR="", TMPDIR=str(tmp_path))
    assert process.stdout == "started\n", process.stderr
    assert process.stderr.count("set NUMBA_CACHE_DIR to a folder that can be written") == 1
    assert list(tmp_path.iterdir()) == []  # the private folder is gone


def test_without_any_place_to_write_one_line_says_what_to_do(tmp_path: Path) -> None:
    code = unwritable(tmp_path) + "tempfile.mkdtemp = refuse\n" + KERNELS
    process = python(code, tmp_path, NUMBA_CACHE_DIR="")
    assert process.stderr.splitlines()[-1].startswith("ImportError: hxtrain compiles code and finds no folder")


@pytest.mark.skipif(os.name == "nt", reason="the numbers of users are Unix's")
@pytest.mark.parametrize(("home", "backend"), [(None, "emulator"), ("/nonexistent", "software")])
def test_a_user_without_a_home_trains(tmp_path: Path, home: str | None, backend: str) -> None:
    """The number of the user is in no list of users, as in containers.

    Compiled code comes from the cache of this environment; `test_loops_are_compiled_without_a_cache` has none.
    """
    nameless = """
import os, pwd, sys
def nobody(number):
    raise KeyError(number)
pwd.getpwuid = nobody
os.environ.pop("HOME", None) if {home!r} is None else os.environ.update(HOME={home!r})
sys.argv[0] = "hxtrain"
"""
    code = nameless.format(home=home) + TRAIN
    words = ["experiment=digits", f"backend={backend}", "network.hidden=[10]", "trainer.epochs=1"]
    places = {"TMPDIR": str(tmp_path), "XDG_CACHE_HOME": "", "HXTRAIN_CACHE": ""}
    sizes = "trainer.train_samples=50", "trainer.test_samples=10"
    process = python(code, tmp_path, *words, *sizes, "trainer.plots=false", **places)
    assert process.returncode == 0, process.stderr
    assert len(list(tmp_path.glob("outputs/*/*/result.json"))) == 1
