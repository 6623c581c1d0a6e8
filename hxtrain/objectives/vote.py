r"""Votes of output neurons whose classes are unknown until they have fired: the answer of unsupervised learning.

In training, `responses[i, c]` is the mean number of spikes of neuron i in samples of class c. A sample with n_i spikes
has the scores (Diehl and Cook 2015; Hazan et al. 2018)::

    majority       mean of n_i over the neurons that respond most to c
    proportional   sum_i n_i responses[i, c] / sum_c responses[i, c]
    likelihood     sum_i (n_i log responses[i, c] - responses[i, c])      (a Poisson number of spikes)
    regression     a_c + sum_i n_i b_ic, the linear function with the least squared error (ridge) on training samples

Labels change no weight. They only tell what the spikes of a neuron stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import Data

from .losses import Loss, class_labels

VOTES = ("majority", "proportional", "likelihood", "regression")
"""Ways to turn spikes into scores."""


@dataclass
class Vote(Loss):
    """Share of the votes for wrong classes; each neuron votes by its responses to the classes of training samples.

    Attributes:
        neurons: Number of output neurons.
        votes: How they vote: `majority`, `proportional`, `likelihood` or `regression`.
        memory: Number of samples over which responses are remembered, since they change while weights do.
        floor: Smallest response in a likelihood (spikes).
        ridge: Penalty of large coefficients in a regression, in samples.
    """

    reads: ClassVar[str] = "spikes"

    neurons: int = 100
    votes: str = "majority"
    memory: float = 10_000
    floor: float = 0.02
    ridge: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neurons < 1:
            raise ValueError(f"loss.neurons={self.neurons} must be at least 1")
        if self.votes not in VOTES:
            raise ValueError(f"loss.votes={self.votes!r} is not known; choose one of {', '.join(VOTES)}")
        for name in ("memory", "floor", "ridge"):
            if not getattr(self, name) > 0:
                raise ValueError(f"loss.{name}={getattr(self, name)} must be positive")
        self.prepare(0)

    def outputs(self, classes: int, targets: Spikes | None = None) -> int:
        """Return the number of output neurons, `neurons`."""
        return self.neurons

    def classes(self, outputs: int) -> int:
        """Return the number of classes; it does not depend on the number of neurons."""
        return len(self.samples)

    def prepare(self, classes: int, targets: Spikes | None = None) -> None:
        """Forget all responses."""
        self.spikes = torch.zeros(self.neurons, classes, dtype=torch.float64)
        self.samples = torch.zeros(classes, dtype=torch.float64)
        size = self.neurons + 1 if self.votes == "regression" else 0
        self.products = torch.zeros(size, size, dtype=torch.float64)
        self._coefficients: Tensor | None = None

    def observe(self, output: Tensor, labels: Tensor) -> None:
        """Take note of the spikes `[T, B, N]` of training samples and of their classes `[B]`."""
        counts = output.sum(0).double().cpu()
        forgetting = (1 - 1 / self.memory) ** len(counts) if self.memory > 1 else 0.0
        members = torch.nn.functional.one_hot(labels.cpu(), len(self.samples)).double()
        self.spikes = forgetting * self.spikes + counts.T @ members
        self.samples = forgetting * self.samples + members.sum(0)
        if self.votes == "regression":
            extended = torch.nn.functional.pad(counts, (0, 1), value=1.0)
            self.products = forgetting * self.products + extended.T @ extended
            self._coefficients = None

    @property
    def coefficients(self) -> Tensor:
        """Coefficients of the regression `[N + 1, classes]`, the constant last."""
        if self._coefficients is None:
            correlation = torch.cat([self.spikes, self.samples[None]])
            penalty = self.ridge * torch.eye(len(self.products), dtype=torch.float64)
            self._coefficients = torch.linalg.solve(self.products + penalty, correlation)
        return self._coefficients

    @property
    def responses(self) -> Tensor:
        """Mean number of spikes of each neuron in samples of each class `[N, classes]`."""
        return self.spikes / self.samples.clamp(min=1e-300)

    @property
    def preferred(self) -> Tensor:
        """Class to which each neuron responds most `[N]`; -1 for neurons that have not fired."""
        responses = self.responses
        return torch.where(responses.sum(1) > 0, responses.argmax(1), -1)

    def scores(self, output: Tensor) -> Tensor:
        """Return the votes for each class `[B, classes]` of spikes `[T, B, N]`."""
        counts = output.sum(0)
        if counts.shape[1] != self.neurons or not len(self.samples):
            raise ValueError(
                f"loss.neurons={self.neurons}, but the output has {counts.shape[1]} neurons and the loss "
                f"{len(self.samples)} classes; give the network as many neurons, and call loss.prepare(classes)"
            )
        return self._votes(counts.double()).to(counts)

    def _votes(self, counts: Tensor) -> Tensor:
        """Return the votes for each class `[B, classes]` of numbers of spikes `[B, N]`."""
        if self.votes == "regression":
            coefficients = self.coefficients.to(counts.device)
            return counts @ coefficients[:-1] + coefficients[-1]
        responses = self.responses.to(counts.device)
        if self.votes == "likelihood":
            rates = responses.clamp(min=self.floor)
            return counts @ rates.log() - rates.sum(0)
        if self.votes == "proportional":
            return counts @ (responses / responses.sum(1, keepdim=True).clamp(min=1e-300))
        members = torch.nn.functional.one_hot(self.preferred.to(counts.device) + 1, len(self.samples) + 1)[
            :, 1:
        ].double()
        return counts @ members / members.sum(0).clamp(min=1)

    def __call__(self, output: Tensor, labels: Data) -> Tensor:
        """Return the mean share of votes for wrong classes; 1 where there is no vote."""
        votes = self.scores(output)
        votes = votes.softmax(1) if self.votes in ("likelihood", "regression") else votes
        truth = class_labels(labels, votes)
        if not truth.is_floating_point():
            truth = torch.nn.functional.one_hot(truth, votes.shape[1]).to(votes)
        return 1 - ((votes * truth).sum(1) / votes.sum(1).clamp(min=1e-12)).mean()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums over samples."""
        return {"spikes": self.spikes, "samples": self.samples, "products": self.products}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned.

        Raises:
            ValueError: the state belongs to another loss, or to other numbers of neurons or classes.
        """
        names = ("spikes", "samples", "products")
        if set(state) != set(names) or any(state[name].shape != getattr(self, name).shape for name in names):
            raise ValueError(
                f"a state of {', '.join(state) or 'nothing'} does not fit {self} of {len(self.samples)} classes"
            )
        for name in names:
            setattr(self, name, state[name])
        self._coefficients = None
