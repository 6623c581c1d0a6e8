"""What a NIR graph says of the network here besides the ideal network: metadata that no other reader needs.

The graph's entry `hxtrain` is JSON, so that every version of NIR reads it back. Arrays stand in the metadata of their
nodes: integer weights and masks at the weights, fitted parameters at the neurons, delays at the delays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hxtrain.datasets.encoders import ENCODERS, Encoder
from hxtrain.network import Network
from hxtrain.objectives import LOSSES, Loss
from hxtrain.runs.plain import check_plain

from .errors import ExchangeError
from .plain import component_values, network_values

KEY = "hxtrain"
VERSION = 1
INTEGERS = "hxtrain_integers"
"""Entry of a node of weights: integer weights as sent, int8 or int16 `[N, J]`."""
MASK = "hxtrain_mask"
"""Entry of a node of weights: existing synapses, uint8 `[N, J]`."""
DELAYS = "hxtrain_delays"
"""Entry of a node of delays: delays of the terminals of inputs in the unit of the network, `[K J]`."""
PARAMETER = "hxtrain_"
"""Start of the entries of a node of neurons: fitted parameters, float64 `[N]`."""
ENTRIES: Mapping[str, type | tuple[type, ...]] = {
    "version": int,
    "discretisation": str,
    "time_scale": float,
    "network": dict,
    "nodes": list,
}
"""Required entries, with their types."""


def metadata_text(net: Network, encoder: Encoder | None, loss: Loss | None, entries: Mapping[str, Any]) -> str:
    """Return the metadata of a network as JSON.

    Args:
        net: Network.
        encoder: Code of the samples.
        loss: Loss that turns outputs into answers.
        entries: Further entries, see `ENTRIES`.

    Raises:
        ExchangeError: A constant is no plain value.
    """
    values: dict[str, Any] = {"version": VERSION, "network": network_values(net), **entries}
    if encoder is not None:
        values["encoder"] = component_values(ENCODERS, encoder)
    if loss is not None:
        values["loss"] = component_values(LOSSES, loss)
        values["classes"] = loss.classes(net.layers[-1].neurons.size)
        values["loss_state"] = {name: tensor.tolist() for name, tensor in loss.state_dict().items()}
    try:
        return json.dumps(values, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ExchangeError(
            f"the network has a constant that no file holds ({error}); give finite plain values"
        ) from error


def read_metadata(metadata: Any, origin: str) -> dict[str, Any] | None:
    """Return the checked metadata of a graph; None for a graph of another program.

    Raises:
        ExchangeError: They are damaged, or of a later version.
    """
    content = metadata.get(KEY) if isinstance(metadata, dict) else None
    if content is None:
        return None
    try:
        values = json.loads(content) if isinstance(content, str | bytes) else content
        check_plain(values)
        if not isinstance(values, dict):
            raise ValueError(f"they are a {type(values).__name__}, no mapping")
        if values.get("version") != VERSION:
            raise ValueError(f"they have version {str(values.get('version'))[:20]}, this version reads {VERSION}")
        for name, kind in ENTRIES.items():
            if not isinstance(values.get(name), kind) or isinstance(values[name], bool):
                raise ValueError(f"{name} is missing, or of another type")
    except (ValueError, TypeError, RecursionError) as error:
        raise ExchangeError(
            f"{origin}: the metadata {KEY!r} are damaged: {error}; read it with metadata=False"
        ) from error
    return values


def loss_state(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state of a loss from metadata."""
    return {name: torch.tensor(value) for name, value in (values.get("loss_state") or {}).items()}


def origin_of(source: Any) -> Path:
    """Return the path of a graph for errors; that of a graph in memory is its description."""
    return Path(source) if isinstance(source, str | Path) else Path("graph")
