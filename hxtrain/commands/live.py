"""The live view of a training: snapshots, and the server of their page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from hxtrain.runs.progress import Progress
from hxtrain.training.loop import Loop
from hxtrain.training.snapshots import Snapshots
from hxtrain.view.companion import companion
from hxtrain.view.config import ViewConfig


@contextmanager
def live_view(
    is_live: bool, config: ViewConfig, loop: Loop[Any], net: nn.Module, folder: Path, progress: Progress
) -> Iterator[None]:
    """Write snapshots of a training and serve them within the block; without `live=true`, do nothing.

    Args:
        is_live: Whether the training is shown.
        config: Settings of the server.
        loop: Training.
        net: Network that it trains.
        folder: Run directory.
        progress: Receiver of the page's address.
    """
    if not is_live:
        yield
        return
    loop.snapshots = Snapshots(folder, net, progress.warn, progress.remarks)
    if not config.serve:
        progress.say(f"live view of this run: hxtrain view {folder}")
        yield
        return
    with companion(folder, config, progress.warn) as url:
        if url is not None:
            progress.say(f"live view: {url}")
        yield
    if url is not None:
        progress.say(f"the live view ended with the training; look again with: hxtrain view {folder}")
