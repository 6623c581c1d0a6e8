"""Budgets: how many synapses a mask leaves, and which ones for given scores.

A device limits the fan-in of each neuron, not the number of synapses: a neuron circuit has a fixed number of signed
inputs. A budget per neuron is therefore the default. On a device whose signed inputs can be shared by several sources
(decision 0026), sources j, j + `rows`, j + 2 `rows`, ... stand at one signed input, of which a neuron uses one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hxtrain.checks import count, not_negative, number, one_of, optional, whole

NEURON = "neuron"
LAYER = "layer"
NETWORK = "network"
SCOPES = (NEURON, LAYER, NETWORK)
"""Parts of a network within which synapses compete: of a neuron, of a projection, of all projections."""


@dataclass(frozen=True)
class Budget:
    """Number of synapses that a mask leaves.

    Attributes:
        fan_in: Synapses of each neuron; a projection with fewer sources keeps all of them. None: by `density`.
        density: Share of the synapses that remain, above 0; at least one per neuron, or per projection. None: by
            `fan_in`.
        scope: Part of the network within which synapses compete: `neuron` (constant fan-in), `layer` or `network`.
        rows: Number of signed inputs that all sources share: source j stands at input j mod `rows`, and a neuron has at
            most one synapse at each. None: any synapses.
        least: Synapses that each neuron keeps before all others compete, with the scopes `layer` and `network`: a small
            layer can otherwise lose all synapses of a neuron.

    Raises:
        ValueError: A value is out of range, or both or neither of `fan_in` and `density` are given.
    """

    fan_in: int | None = None
    density: float | None = None
    scope: str = NEURON
    rows: int | None = None
    least: int = 0

    def __post_init__(self) -> None:
        if (self.fan_in is None) == (self.density is None):
            values = f"fan_in={self.fan_in}, density={self.density}"
            raise ValueError(f"mask: {values}; give one of both, such as mask.fan_in=64 or mask.density=0.25")
        optional(count)("mask.fan_in", self.fan_in)
        optional(count)("mask.rows", self.rows)
        one_of(SCOPES)("mask.scope", self.scope)
        not_negative("mask.least", whole("mask.least", self.least))
        if self.least and self.scope == NEURON:
            raise ValueError(
                f"mask.least={self.least}: with mask.scope={NEURON} all neurons keep as many; leave it out, or "
                f"set mask.scope={LAYER}"
            )
        if self.density is not None and not 0 < number("mask.density", self.density) <= 1:
            raise ValueError(f"mask.density={self.density} must be in 0 < x <= 1")
        if self.fan_in is not None and self.scope != NEURON:
            raise ValueError(
                f"mask.fan_in={self.fan_in} is per neuron, but mask.scope={self.scope}; set mask.scope={NEURON}, or "
                "give mask.density instead"
            )
        if self.rows is not None and self.fan_in is not None and self.fan_in > self.rows:
            raise ValueError(
                f"mask.fan_in={self.fan_in} exceeds mask.rows={self.rows}, of which a neuron uses each once; give at "
                f"least mask.rows={self.fan_in}"
            )

    def synapses(self, sources: int) -> int:
        """Return the number of synapses of each neuron with some number of sources, for the scope `neuron`."""
        if self.fan_in is not None:
            return min(self.fan_in, sources)
        assert self.density is not None
        return max(1, round(self.density * sources))

    def relaxed(self, share: float, sources: int) -> Budget:
        """Return a density on the way from all synapses (`share` = 0) to this budget (1), within the signed inputs."""
        if self.density is None:
            raise ValueError("a budget of a fan-in has no density; use `Budget.as_density`")
        return replace(self, density=min(self.density**share, (self.rows or sources) / sources))

    def as_density(self, sources: int) -> Budget:
        """Return the budget as a density, for projections with some number of sources."""
        return replace(self, fan_in=None, density=self.synapses(sources) / sources) if self.fan_in else self


def select(scores: Sequence[Tensor], budget: Budget) -> list[Tensor]:
    """Return the synapses with the largest scores, True in `[N, J]` for each projection.

    Args:
        scores: Scores of the synapses of each projection `[N, J]`; -inf excludes one. Equal scores are taken in the
            order of their sources.
        budget: Number of synapses that remain.

    Raises:
        ValueError: A score is NaN, the budget exceeds the signed inputs, or it leaves fewer synapses than neurons keep.
    """
    if any(bool(values.isnan().any()) for values in scores):
        raise ValueError("scores of synapses are NaN; look at the weights and at the data that they were measured with")
    allowed = [values if budget.rows is None else best_of_rows(values, budget.rows) for values in scores]
    if budget.scope == NEURON:
        return [_select_per_neuron(values, budget) for values in allowed]
    if budget.scope == LAYER:
        return [_compete([values], budget)[0] for values in allowed]
    return _compete(allowed, budget)


def _select_per_neuron(scores: Tensor, budget: Budget) -> Tensor:
    neurons, sources = scores.shape
    synapses = budget.synapses(sources)
    inputs = min(budget.rows or sources, sources)
    if synapses > inputs:
        raise ValueError(
            f"mask.density={budget.density} of {sources} sources leaves {synapses} synapses per neuron, more than the "
            f"{inputs} signed inputs (mask.rows); give at least mask.rows={synapses}, or at most "
            f"mask.density={inputs / sources:.3g}"
        )
    return largest(scores, torch.full((neurons,), synapses, device=scores.device))


def _compete(scores: Sequence[Tensor], budget: Budget) -> list[Tensor]:
    """Return the largest scores of some projections; the first `budget.least` of each neuron are among them."""
    assert budget.density is not None
    synapses = max(1, round(budget.density * sum(values.numel() for values in scores)))
    neurons = sum(len(values) for values in scores)
    if budget.least * neurons > synapses:
        raise ValueError(
            f"mask.least={budget.least} of {neurons} neurons exceed the {synapses} synapses that mask.density="
            f"{budget.density} leaves; give at most mask.least={synapses // neurons}"
        )
    if budget.least:
        first = [largest(values, torch.full((len(values),), budget.least)) for values in scores]
        scores = [values.masked_fill(mask, torch.inf) for values, mask in zip(scores, first, strict=True)]
    pooled = torch.cat([values.flatten() for values in scores])
    chosen = largest(pooled[None], torch.tensor([synapses]))[0]
    parts = torch.split(chosen, [values.numel() for values in scores])
    return [part.view_as(values) for part, values in zip(parts, scores, strict=True)]


def largest(scores: Tensor, numbers: Tensor) -> Tensor:
    """Return where the largest scores of each row are, True in `[N, J]`; -inf is never chosen.

    Args:
        scores: Scores `[N, J]`.
        numbers: Number of scores to choose in each row `[N]`.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(scores.shape[1], device=scores.device).expand_as(order))
    return (ranks < numbers[:, None].to(ranks.device)) & (scores > -torch.inf)


def best_of_rows(scores: Tensor, rows: int) -> Tensor:
    """Return the scores `[N, J]`, with -inf for all but the best source of each signed input j mod `rows`."""
    neurons, sources = scores.shape
    depth = -(-sources // rows)
    padded = scores.new_full((neurons, depth * rows), -torch.inf)
    padded[:, :sources] = scores
    stacked = padded.view(neurons, depth, rows)
    best = stacked.argmax(1, keepdim=True)
    is_best = torch.zeros_like(stacked, dtype=torch.bool).scatter_(1, best, True)
    return stacked.masked_fill(~is_best, -torch.inf).view(neurons, -1)[:, :sources]


def free_rows(mask: Tensor, rows: int) -> Tensor:
    """Return the synapses `[N, J]` whose signed input j mod `rows` no synapse of the mask uses."""
    neurons, sources = mask.shape
    index = torch.arange(sources, device=mask.device) % rows
    used = torch.zeros(neurons, rows, dtype=torch.int64, device=mask.device)
    used.index_add_(1, index, mask.to(torch.int64))
    return used[:, index] == 0
