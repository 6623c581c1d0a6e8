"""Weights as a device gets them: integers and scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from hxtrain.execution import device_of
from hxtrain.network import Network


class DeviceWeights(NamedTuple):
    """Integer weights as a device gets them.

    Attributes:
        identity: Identity of the device: backend, chip, hash, and calibration if there is one.
        integers: Integer weights by projection `[N, J]`.
        scales: Integer weight per unit of float weight, by projection.
    """

    identity: Mapping[str, str]
    integers: Mapping[str, Tensor]
    scales: Mapping[str, float]


def device_weights_of(net: Network) -> DeviceWeights | None:
    """Return the integer weights on the device of a network; None in software."""
    device = device_of(net)
    if device is None or device.plan is None:
        return None
    integers, scales = device.plan.quantise(net.effective_weights())
    names = [projection.name for projection in net.projections]
    return DeviceWeights(dict(device.backend.identity), integers, dict(zip(names, scales, strict=True)))
