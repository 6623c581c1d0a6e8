"""Rate models: multilayer perceptrons with ReLU, on which scores that need no spikes are computed.

Shapes: `B` samples, `O` outputs, `N` neurons of a layer, `J` sources.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.network import Network


class RateModel(NamedTuple):
    """A chain of affine layers with ReLU between them.

    Attributes:
        weights: Weights of each layer `[N, J]`.
        biases: Biases of each layer `[N]`; None without biases.
    """

    weights: Sequence[Tensor]
    biases: Sequence[Tensor] | None = None

    def masked(self, masks: Sequence[Tensor]) -> RateModel:
        """Return the model without the synapses that masks `[N, J]` exclude; biases stay."""
        return self._replace(weights=[torch.where(m, w, 0.0) for m, w in zip(masks, self.weights, strict=True)])

    def activations(self, inputs: Tensor) -> list[Tensor]:
        """Return the inputs of each layer, then the outputs `[B, O]` of the last one."""
        activations = [inputs]
        for layer, weight in enumerate(self.weights):
            drive = activations[-1] @ weight.t()
            if self.biases is not None:
                drive = drive + self.biases[layer]
            activations.append(drive if layer == len(self.weights) - 1 else drive.relu())
        return activations

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return the outputs `[B, O]`."""
        return self.activations(inputs)[-1]

    def sensitivities(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """Return the derivatives of the outputs with respect to the drive of each layer `[B, O, N]`."""
        batch, outputs = activations[-1].shape
        identity = torch.eye(outputs, dtype=activations[-1].dtype, device=activations[-1].device)
        sensitivities = [identity.expand(batch, -1, -1)]
        for layer in range(len(self.weights) - 1, 0, -1):
            is_active = (activations[layer] > 0)[:, None]
            sensitivities.insert(0, (sensitivities[0] @ self.weights[layer]) * is_active)
        return sensitivities

    def kernel(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the empirical neural tangent kernel of all pairs of samples and outputs `[B1, O, B2, O]`.

        A layer adds the product of the correlations of its inputs and of the sensitivities of its drive. Every weight
        counts, also one that is zero because a mask excludes it, as in the code of Liu and Zenke (2020).
        """
        activations = [self.activations(first), self.activations(second)]
        sensitivities = [self.sensitivities(values) for values in activations]
        kernel: Tensor | float = 0.0
        for layer in range(len(self.weights)):
            correlation = activations[0][layer] @ activations[1][layer].t()
            if self.biases is not None:
                correlation = correlation + 1.0
            pair = torch.einsum("bon,cpn->bocp", sensitivities[0][layer], sensitivities[1][layer])
            kernel = kernel + pair * correlation[:, None, :, None]
        assert isinstance(kernel, Tensor)
        return kernel


def rate_model_of(net: Network) -> tuple[RateModel, list[float]]:
    """Return a rate model with the weights of a network, each scaled to the variance 2 / sources, and the factors.

    Raises:
        ValueError: The network has recurrent projections, or weights without spread.
    """
    recurrent = [projection.name for projection in net.projections if projection.pre == projection.post]
    if recurrent:
        raise ValueError(
            f"mask: {', '.join(recurrent)} is recurrent, of which there is no rate model; choose mask=snip, "
            "mask=magnitude, mask=random, mask=rigl or mask=deep_r"
        )
    weights = []
    factors = []
    for projection in net.projections:
        weight = projection.synapses.effective_weight.detach()
        rms = float(weight.square().mean().sqrt())
        if not rms > 0:
            raise ValueError(f"mask: all weights of {projection.name} are zero; give it a network.init_gain above 0")
        factors.append(math.sqrt(2 / weight.shape[1]) / rms)
        weights.append(weight * factors[-1])
    return RateModel(weights), factors
