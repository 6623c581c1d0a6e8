"""Weights of a file for a network: those that count in a checkpoint, or those of another program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hxtrain.checks import require_kind
from hxtrain.exchange.errors import ExchangeError
from hxtrain.exchange.weights import matched_weights, read_archive
from hxtrain.network import Network
from hxtrain.runs.checkpoint import CheckpointError, is_state_dict, read_checkpoint, read_saved
from hxtrain.runs.saved import take_weights

from .selection import chosen_weights


def load_weights(net: Network, source: str | Path | Mapping[str, Any], transposed: bool = False) -> None:
    """Load weights into a network of the same sizes.

    Args:
        net: Network; all but its weights stays as it is.
        source: `checkpoint.pt` of a run, a file of `save`, a file with a `state_dict` of torch, an archive `.npz` of
            matrices, or tensors by name, such as `module.state_dict()`.
        transposed: Whether matrices of another program are `[sources, targets]`.

    Raises:
        CheckpointError: The source cannot be read, or belongs to another network.
    """
    require_kind(net, Network, "net", "load_weights(net, path)")
    try:
        if isinstance(source, Mapping):
            take_weights(net, matched_weights(net, source, "the state_dict", transposed), Path("state_dict"))
            return
        file = Path(source).expanduser()
        if file.suffix == ".npz":
            take_weights(net, matched_weights(net, read_archive(file), str(file), transposed), file)
            return
        content, _ = read_saved(file)
        if is_state_dict(content):
            take_weights(net, matched_weights(net, content, str(file), transposed), file)
            return
    except ExchangeError as error:
        raise CheckpointError(str(error)) from error
    take_weights(net, chosen_weights({"model": None, **read_checkpoint(file).state}, file).model, file)
