"""Functions that torch.compile leaves alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., Any])


def eager(function: F) -> F:
    """Let a function run as it is written within `torch.compile`, too: its loops are compiled already.

    `torch.compiler.disable` does this, but imports the compiler, which takes seconds; here it is imported only where
    somebody else did.
    """

    @wraps(function)
    def call(*arguments: Any, **settings: Any) -> Any:
        chosen = function if "torch._dynamo" not in sys.modules else torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return chosen(*arguments, **settings)

    return cast(F, call)
