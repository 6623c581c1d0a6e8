"""Calls of a device that may never come back: made in a thread, and given up after a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from typing import TypeVar

import torch

from hxtrain.backends import DeviceError
from hxtrain.checks import positive

Result = TypeVar("Result")


class HangingError(DeviceError):
    """A call of a device has not come back; repeating it would only wait behind it."""


class Watch:
    """Calls functions of a device, one at a time, and stops to wait for one that hangs.

    The waiting thread can be interrupted, whatever the call does. A thread that hangs cannot be ended; it does not keep
    the process from ending.

    Args:
        limit: longest time of a call (s).
        device: name of the device, for errors.

    Raises:
        ValueError: the limit is not positive.
    """

    def __init__(self, limit: float, device: str) -> None:
        self.limit, self.device = positive("run_timeout", limit), device
        self._hanging: tuple[threading.Thread, str] | None = None

    def call(self, work: Callable[[], Result], name: str) -> Result:
        """Return what `work` returns.

        Args:
            work: call of the device.
            name: what it is, for errors.

        Raises:
            HangingError: it takes longer than the limit, or an earlier call has not come back yet.
        """
        if self._hanging is not None and self._hanging[0].is_alive():
            raise HangingError(self._text(self._hanging[1], "has still not come back"))
        outcome: Future[Result] = Future()
        gradients = torch.is_grad_enabled()  # a setting of each thread
        thread = threading.Thread(target=_work, args=(work, outcome, gradients), name="hxtrain-run", daemon=True)
        self._hanging = thread, name
        thread.start()
        try:
            return outcome.result(self.limit)
        except Late:
            if outcome.done():  # the device's own
                raise
            raise HangingError(self._text(name, f"has not come back after {self.limit:g} s")) from None

    def _text(self, name: str, state: str) -> str:
        return (
            f"{name} on {self.device!r}: it {state}; the device or its driver hangs. Restart it, and this "
            f"process with it; if runs do take so long, raise backend.run_timeout={self.limit:g} s"
        )


def _work(work: Callable[[], Result], outcome: Future[Result], gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)
