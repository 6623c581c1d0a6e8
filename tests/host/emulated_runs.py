"""Replacement of `run` of emulated chips, one run at a time."""

from collections.abc import Callable

from pytest_mock import MockerFixture

from hxtrain.backends import DeviceError, Recording
from hxtrain.backends.emulated import EmulatorBackend

HEALTHY = EmulatorBackend.run


def replace_runs(mocker: MockerFixture, run: Callable[..., Recording]) -> list[object]:
    """Replace the runs of emulated chips, of as many trials as the trace memory holds, by another function.

    The function is called as `run(backend, weights, stimulus)`. Returns the patches.
    """

    def attempt(backend: EmulatorBackend, weights: object, stimulus: object) -> Recording | DeviceError:
        try:
            return run(backend, weights, stimulus)
        except DeviceError as error:
            return error

    return [
        mocker.patch.object(EmulatorBackend, "takes_any_batch", False),
        mocker.patch.object(EmulatorBackend, "run", run),
        mocker.patch.object(EmulatorBackend, "run_all", lambda b, w, stimuli: [attempt(b, w, s) for s in stimuli]),
    ]
