"""The engine for GPUs: a layer's loops over time are Triton kernels, all else is torch (decision 0011)."""

from __future__ import annotations

from torch import Tensor

from hxtrain.neurons.model import Model

from . import gpu_kernel
from .readable import GridEngine


class GpuEngine(GridEngine):
    """Kernels whose state of a neuron stays in registers; for layers without saturation."""

    def response(
        self, drive: Tensor, model: Model, spiking: bool, recurrent: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        """Return spikes and membranes of a layer of the twin; see `GridEngine.response`."""
        return gpu_kernel.respond(drive.detach(), model, spiking, None if recurrent is None else recurrent.detach())

    def charges(
        self,
        model: Model,
        spikes: Tensor | None,
        trace: Tensor,
        grad_spikes: Tensor | None,
        grad_trace: Tensor | None,
        recurrent: Tensor | None,
    ) -> Tensor:
        """Return the gradient of each step's charge; see `GridEngine.charges`."""
        return gpu_kernel.charges(model, spikes, trace, grad_spikes, grad_trace, recurrent)
