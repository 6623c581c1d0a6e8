"""Calls of a device that may never return: a thread makes them, and the caller stops waiting at a time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

import torch

from hxtrain.backends import DeviceError
from hxtrain.checks import positive

Result = TypeVar("Result")


class HangingError(DeviceError):
    """A call of a device has not returned; a repetition would only wait for it."""


class Watch:
    """Calls functions of a device, one at a time, and stops waiting for a call that hangs.

    The waiting thread can be interrupted whatever the call does. A hanging thread cannot be stopped, but it does not
    keep the process alive.

    Args:
        limit: longest duration of a call (s).
        device: name of the device, for errors.

    Raises:
        ValueError: the limit is not positive.
    """

    def __init__(self, limit: float, device: str) -> None:
        self.limit = positive("run_timeout", limit)
        self.device = device
        self._hanging: tuple[threading.Thread, str] | None = None

    def call(self, work: Callable[[], Result], name: str) -> Result:
        """Return what `work` returns.

        Args:
            work: function that calls the device.
            name: name of the call, for errors.

        Raises:
            HangingError: the call takes longer than the limit, or an earlier call has not returned yet.
        """
        if self._hanging is not None and self._hanging[0].is_alive():
            raise HangingError(self._text(self._hanging[1], "has still not come back"))
        outcome: Future[Result] = Future()
        gradients = torch.is_grad_enabled()  # each thread has its setting
        thread = threading.Thread(target=_work, args=(work, outcome, gradients), name="hxtrain-run", daemon=True)
        self._hanging = thread, name
        thread.start()
        try:
            return outcome.result(self.limit)
        except FutureTimeoutError:
            if outcome.done():  # an error of the device
                raise
            raise HangingError(self._text(name, f"has not come back after {self.limit:g} s")) from None

    def _text(self, name: str, state: str) -> str:
        return (
            f"{name} on {self.device!r}: it {state}; the device or its driver hangs. Restart it, and this "
            f"process with it; if runs do take so long, raise run_timeout={self.limit:g} s"
        )


def _work(work: Callable[[], Result], outcome: Future[Result], gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)
