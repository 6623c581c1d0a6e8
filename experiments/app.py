"""Common functions of the console scripts: run directories, command lines, warnings, and readable errors."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from hxtrain.backends import DeviceError
from hxtrain.compilation import announced
from hxtrain.execution.config import BackendConfig
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.progress import device_work_shown
from hxtrain.training.loop import TrainingInterrupt
from hxtrain.training.network_loop import DeviceLostError

from .checks import typed_settings as typed_settings
from .command import TYPED, end, of_system
from .keys import with_keys
from .mistakes import MistakeError
from .schema import schema
from .settings import Setting, of_device, settings
from .sweeps import require_sweep
from .verbs import program
from .words import is_set, pasted, quote

Result = TypeVar("Result")


def run_directory() -> Path:
    """Return the directory that Hydra made for this run (`hydra.run.dir`)."""
    return Path(HydraConfig.get().runtime.output_dir)


def command_line() -> str:
    """Return the command as typed; a process that Hydra starts for a job of a sweep has only the words of Hydra."""
    name, *words = TYPED.get(tuple(sys.argv))
    return shlex.join([*Path(name).name.split(), *words])


def warn_without_effect(backend: BackendConfig, prefix: str = "") -> None:
    """Warn of options on the command line that have no effect with the chosen backend.

    `prefix` is the prefix of the config groups: `other_` for `other_backend` and `other_chip`.
    """
    for override in HydraConfig.get().overrides.task:
        key = override.lstrip("+~").split("=")[0]
        if key.split(".")[0] == f"{prefix}chip" and not backend.takes_chip():
            warnings.warn(
                f"{override} has no effect: {prefix}backend={backend.name} has no chip individuals", stacklevel=2
            )
        if key.startswith(f"{prefix}backend.settings.") and backend.name == "software":
            warnings.warn(f"{override} has no effect: software has no settings", stacklevel=2)
        if key == f"{prefix}backend.retries" and backend.name == "software":
            warnings.warn(f"{override} has no effect: software does not fail", stacklevel=2)
        if key == "network.traces" and backend.name == "software":
            warnings.warn(f"{override} has no effect: membranes of software are the model's", stacklevel=2)
        if key == f"{prefix}backend.fault_seed" and not backend.faulty():
            warnings.warn(f"{override} has no effect: {prefix}backend.faults are all 0", stacklevel=2)


def guarded(work: Callable[[], Result]) -> Result:
    """Return the result of a function; expected errors end the program with their text.

    Exit status: 2 for settings and files, 3 for a failed device, 130 for an interruption. In a sweep
    (`--multirun`) errors are passed on, so that the remaining jobs still run; an interruption ends the sweep.
    """
    log_reports()
    with announced(lambda text: print(text, file=sys.stderr, flush=True)):
        return _guarded(device_work_shown()(work))


def _guarded(work: Callable[[], Result]) -> Result:
    if in_sweep():
        return _guarded_job(work)
    try:
        return work()
    except TrainingInterrupt as stop:
        end(f"{stop}; the state is saved. Continue with: {resume_command()}", 130)
    except KeyboardInterrupt:
        end("interrupted", 130)
    except DeviceLostError as error:
        end(f"error: {error}. Continue with: {resume_command()}", 3)
    except DeviceError as error:
        end(f"error: {with_keys(str(error), _names())}", 3)
    except MistakeError as error:
        end(f"error: {error}", 2)
    except (ValueError, CheckpointError, OmegaConfBaseException) as error:
        end(f"error: {with_keys(str(error), _names())}", 2)
    except OSError as error:
        end(f"error: {of_system(error)}", 2)
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        end(
            "error: there is not enough memory; choose a smaller batch (trainer.batch_size and "
            "trainer.evaluation_batch_size, of an evaluation batch_size), fewer network.steps or a smaller network",
            2,
        )
    raise AssertionError("unreachable")


def log_reports() -> None:
    """Write all reports also into the log file of this job (`train.log`, `evaluate.log`)."""
    files = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
    logging.getLogger("hxtrain.report").handlers = list(files)


def _lacks_memory(error: Exception) -> bool:
    """Return whether an error means a lack of memory; torch raises a RuntimeError with one of these texts."""
    return isinstance(error, MemoryError) or any(
        part in str(error) for part in ("can't allocate memory", "out of memory", "not enough memory")
    )


def leads() -> bool:
    """Return whether this process reports for all processes of torchrun."""
    return os.environ.get("RANK", "0") == "0"


def in_sweep() -> bool:
    """Return whether this is a job of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def sweep_name() -> str:
    """Return the name of the sweep that this job is part of: the end of its folder; empty for a single run."""
    return "/".join(Path(HydraConfig.get().sweep.dir).parts[-2:]) if in_sweep() else ""


def names_device() -> bool:
    """Return whether the command line has a setting of the device."""
    keys = (override.lstrip("+~").split("=")[0] for override in HydraConfig.get().overrides.task)
    return any(key.split(".")[0] in ("backend", "chip", "own_chip") for key in keys)


def _guarded_job(work: Callable[[], Result]) -> Result:
    require_sweep()
    try:
        return work()
    except KeyboardInterrupt:
        folder = HydraConfig.get().sweep.dir
        end(
            "interrupted; the state is saved. The same command continues the sweep, with "
            f"hydra.sweep.dir={shlex.quote(quote(folder))}, from any folder: {sweep_command(folder)}",
            130,
        )
    raise AssertionError("unreachable")


def resume_command() -> str:
    """Return the command that continues this run, for a shell in any folder."""
    names = _settings()
    words = [*_without("hydra.run.dir", "trainer.resume"), f"hydra.run.dir={quote(str(run_directory()))}"]
    words += ["trainer.resume=true"] if "trainer.resume" in names else []
    return pasted(program(_verb()), words, Path.cwd())


def _verb() -> str:
    return str(HydraConfig.get().job.config_name)


def _names() -> list[str]:
    """Return the settings of the running verb and of its device."""
    return of_device(_settings(), str(HydraConfig.get().runtime.choices.get("backend")))


def _settings() -> Mapping[str, Setting]:
    """Return the settings of the running verb."""
    return settings(schema(_verb()))


def sweep_command(folder: str) -> str:
    """Return the command that continues a sweep, for a shell in any folder."""
    words = [*_without("hydra.sweep.dir"), f"hydra.sweep.dir={quote(folder)}"]
    return pasted(program(_verb()), words, Path.cwd())


def _without(*keys: str) -> list[str]:
    return [word for word in sys.argv[1:] if not any(is_set(key, [word]) for key in keys)]
