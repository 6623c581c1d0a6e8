"""What runs a network: the protocol that devices keep, so that a network need not know them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from hxtrain.backends import Backend, Registry, Spikes
from hxtrain.neurons import GridEvents, Saturation

from .activity import Activity

N_contra = TypeVar("N_contra", contravariant=True)


class PlacementError(ValueError):
    """The network does not fit the device; the text lists every misfit with a remedy."""


class Write(NamedTuple):
    """A change of the weights as the device represents them: after optimiser, constraints, rounding and clipping.

    Attributes:
        previous: Weights of each projection `[N, J]`, before the step.
        current: Weights of each projection `[N, J]`, after the step.
        gradients: Gradients of the loss without penalties, before the step, of each projection `[N, J]`; None for a
            projection that does not learn. None as a whole if no penalty reads them.
    """

    previous: list[Tensor]
    current: list[Tensor]
    gradients: list[Tensor | None] | None = None


@runtime_checkable
class Runner(Protocol[N_contra]):
    """Runs networks of a kind: a device (`hxtrain.execution.Device`), or the twin in software (`Twin`).

    Attributes:
        plan: How the network is placed, as `place` returned it; None before.
    """

    @property
    def plan(self) -> Any:
        """Return the placement of the network that is configured."""

    def place(self, net: N_contra) -> Any:
        """Plan a network and configure what runs it; returns the plan.

        Raises:
            PlacementError: The network does not fit.
        """

    def run(self, weights: list[Tensor], spikes: Spikes, events: GridEvents | None = None) -> Activity:
        """Run a batch of the placed network; returns an activity without a graph.

        Args:
            weights: Float weights of each projection.
            spikes: Input events of `B` samples.
            events: The same events on the time grid, if they are at hand.
        """

    def saturations(self, current: float) -> Sequence[Saturation | None]:
        """Return by layer where synaptic inputs saturate, for a current (weight LSB); None for linear inputs."""

    def weight_limits(self) -> list[float | None]:
        """Return by projection the largest float weight that is not clipped; None where there is none."""

    def representable(self, weights: list[Tensor]) -> list[Tensor]:
        """Return the float weights of each projection as they are sent: rounded and clipped."""


RUNNERS: Registry[Callable[[Backend], Runner[Any]]] = Registry("runners", "runner")
"""What makes a runner of a bare backend, by name; `device` is `hxtrain.execution.Device`."""
