"""Methods that find a mask, by name: the config group `mask`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, List, NamedTuple, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

import torch
from torch import Tensor

from hxtrain.backends import Registry
from hxtrain.checks import check_types, count, not_negative, positive
from hxtrain.datasets import ImageSource, Source
from hxtrain.network import Network
from hxtrain.network.layers import Incoming
from hxtrain.objectives import Loss, Regularizer
from hxtrain.runs.randomness import generator

from .budget import NETWORK, NEURON, Budget, select
from .rate_model import rate_model_of
from .rewiring import DeepR, RigL
from .scores import active_sources, grasp, magnitude, snip, synflow_masks
from .transfer import transfer

BATCH = 50
"""Samples of a batch of which passes are measured."""


class Material(NamedTuple):
    """What a method may read.

    Attributes:
        net: Network, attached to a device or in software.
        source: Training samples with their labels.
        loss: Loss of the output.
        seed: Seed of all random numbers.
    """

    net: Network
    source: Source
    loss: Loss
    seed: int

    def batches(self, number: int, size: int = BATCH) -> list[Tensor]:
        """Return the numbers of samples of some batches, drawn at random.

        Raises:
            ValueError: There are too few samples.
        """
        if number * size > len(self.source):
            raise ValueError(
                f"mask.batches={number} of {size} samples exceed the {len(self.source)} training samples; give at most "
                f"mask.batches={len(self.source) // size}"
            )
        order = torch.randperm(len(self.source), generator=generator(self.seed, "mask", "batches"))
        return list(torch.split(order[: number * size], size))

    def intensities(self, indices: Tensor, method: str) -> Tensor:
        """Return intensities `[B, J]` of samples.

        Raises:
            ValueError: The samples are events, or the encoder makes other inputs of them.
        """
        source = self.source
        inputs = self.net.layers[0].linear.inputs
        if isinstance(source, ImageSource):
            values = source.intensities(indices).flatten(1)
            if values.shape[1] == inputs:
                return values.to(self.net.layers[0].linear.weight)
        raise ValueError(
            f"mask={method} reads intensities, one for each of the {inputs} inputs, but the samples are events, or the "
            "encoder makes another number of inputs of them; choose mask=snip, mask=magnitude, mask=random, mask=rigl "
            "or mask=deep_r"
        )


class Choice(NamedTuple):
    """Masks that a method chose, in the order of the projections.

    Attributes:
        masks: Existing synapses, True in `[N, J]`.
        weights: Weights `[N, J]` that go with them, of all projections of the network; None: those of the network.
    """

    masks: list[Tensor]
    weights: list[Tensor] | None = None


@dataclass
class MaskMethod(ABC):
    """Base of methods; a subclass is a dataclass whose fields are its settings."""

    def __post_init__(self) -> None:
        check_types(self, "mask.")

    @property
    def measures(self) -> bool:
        """Whether the dense network runs, on its device if it has one."""
        return False

    def check(self, net: Network) -> None:  # noqa: B027 - a hook
        """Refuse a network that the method cannot mask.

        Raises:
            ValueError: There is a reason.
        """

    @abstractmethod
    def find(self, material: Material) -> dict[str, Tensor]:
        """Return the existing synapses of each projection that gets a mask, True in `[N, J]`, by its name."""

    def rewiring(self, seed: int, steps: int) -> Regularizer | None:
        """Return what moves the synapses during training; None if they stay.

        Args:
            seed: Seed of the run.
            steps: Steps of the whole training.
        """
        return None


@dataclass
class NoMask(MaskMethod):
    """All synapses exist, but those that the network itself lacks."""

    def find(self, material: Material) -> dict[str, Tensor]:
        """Return no masks."""
        return {}


@dataclass
class BudgetedMask(MaskMethod):
    """Base of methods with a budget.

    Attributes:
        fan_in: Synapses of each neuron; a projection with fewer sources keeps all of them. None: by `density`.
        density: Share of the synapses that remain. None: by `fan_in`.
        scope: Part of the network within which synapses compete: `neuron` (constant fan-in), `layer` or `network`.
        rows: Number of signed inputs that all sources share: source j stands at input j mod `rows`, and a neuron has at
            most one synapse at each, so that a device needs no more circuits than for `rows` sources. None: any
            synapses.
        least: Synapses that each neuron keeps before all others compete, with the scopes `layer` and `network`.
        projections: Names of the projections that get a mask, such as `input->layer0`; None: all that are learned, but
            those onto the output.
        rescale: Whether the weights that remain are multiplied by sqrt(sources / synapses) of their neuron, so that the
            drive stays as large. None: for weights that were drawn, not for those of `trainer.initial`.
    """

    trains_weights: ClassVar[bool] = False
    """Whether the weights that the network takes over were trained under the mask."""
    counts: ClassVar[tuple[str, ...]] = ()
    """Further settings that are numbers of something, at least 1."""
    fan_in: Optional[int] = None  # noqa: UP045 - OmegaConf resolves these on every Python
    density: Optional[float] = None  # noqa: UP045
    scope: str = NEURON
    rows: Optional[int] = None  # noqa: UP045
    least: int = 0
    projections: Optional[List[str]] = None  # noqa: UP006, UP045
    rescale: Optional[bool] = None  # noqa: UP045

    def __post_init__(self) -> None:
        super().__post_init__()
        self.budget  # noqa: B018 - its checks
        for name in self.counts:
            count(f"mask.{name}", getattr(self, name))

    @property
    def budget(self) -> Budget:
        """Number of synapses that remain."""
        return Budget(self.fan_in, self.density, self.scope, self.rows, self.least)

    def chosen(self, net: Network) -> list[Incoming]:
        """Return the projections that get a mask.

        Raises:
            ValueError: There is no such projection, or it is not learned.
        """
        learned = {p.name: p for p in net.projections if p.synapses.is_trainable}
        output = net.layers[-1].name
        names = [n for n, p in learned.items() if p.post != output] if self.projections is None else self.projections
        unknown = [name for name in names if name not in learned]
        if unknown or not names:
            raise ValueError(
                f"mask.projections={self.projections} names no projection that is learned"
                f"{'' if self.projections else ' besides those onto the output'}; choose from {', '.join(learned)}"
            )
        return [learned[name] for name in dict.fromkeys(names)]

    def check(self, net: Network) -> None:
        """Refuse a network without the projections."""
        self.chosen(net)

    def find(self, material: Material) -> dict[str, Tensor]:
        """Return the masks by name of the projection."""
        chosen = self.chosen(material.net)
        names = [projection.name for projection in material.net.projections]
        places = [names.index(projection.name) for projection in chosen]
        choice = self.choose(material, places)
        if choice.weights is not None:
            with torch.no_grad():
                for projection, weight in zip(material.net.projections, choice.weights, strict=True):
                    if projection.synapses.is_trainable:
                        projection.synapses.weight.copy_(weight)
        return {projection.name: mask for projection, mask in zip(chosen, choice.masks, strict=True)}

    @abstractmethod
    def choose(self, material: Material, places: Sequence[int]) -> Choice:
        """Return the masks of the projections at some places of `Network.projections`."""


@dataclass
class RandomMask(BudgetedMask):
    """Random synapses.

    Attributes:
        active: Whether sources that fire in some of the training samples come first.
        batches: Batches of 50 samples in which they fire.
    """

    counts: ClassVar[tuple[str, ...]] = ("batches",)
    active: bool = False
    batches: int = 6

    @property
    def measures(self) -> bool:
        """Whether the dense network runs."""
        return self.active

    def choose(self, material: Material, places: Sequence[int]) -> Choice:
        """Return random masks."""
        net = material.net
        scores = []
        for place in places:
            projection = net.projections[place]
            random = generator(material.seed, "mask", projection.name)
            scores.append(torch.rand(projection.synapses.weight.shape, generator=random).to(net.torch_device))
        if self.active:
            fired = active_sources(net, material.source, material.batches(self.batches))
            scores = [score + fired[place] for score, place in zip(scores, places, strict=True)]
        return Choice(select(scores, self.budget))


@dataclass
class ActiveMask(RandomMask):
    """Random synapses from sources that fire in some of the training samples, and from others if there are too few."""

    active: bool = True


@dataclass
class MagnitudeMask(BudgetedMask):
    """The largest weights, of a trained network or as they were drawn."""

    def choose(self, material: Material, places: Sequence[int]) -> Choice:
        """Return the masks of the largest weights."""
        weights = material.net.effective_weights()
        return Choice(select(magnitude([weights[place] for place in places]), self.budget))


@dataclass
class SnipMask(BudgetedMask):
    """The largest `|g w|`, with gradients of passes as they are measured (after Lee et al. 2019).

    Attributes:
        batches: Batches of 50 samples whose gradients are averaged.
    """

    counts: ClassVar[tuple[str, ...]] = ("batches",)
    batches: int = 6

    @property
    def measures(self) -> bool:
        """Whether the dense network runs."""
        return True

    def choose(self, material: Material, places: Sequence[int]) -> Choice:
        """Return the masks of the largest `|g w|`."""
        scores = snip(material.net, material.source, material.loss, material.batches(self.batches))
        return Choice(select([scores[place] for place in places], self.budget))


@dataclass
class GraspMask(BudgetedMask):
    """The synapses that keep the gradient large, in a rate model with the same weights (after Wang et al. 2020).

    Attributes:
        batches: Batches of 50 samples.
    """

    counts: ClassVar[tuple[str, ...]] = ("batches",)
    batches: int = 6

    def choose(self, material: Material, places: Sequence[int]) -> Choice:
        """Return the masks by `w H g`."""
        indices = torch.cat(material.batches(self.batches))
        inputs = material.intensities(indices, "grasp")
        labels = material.source.labels[indices].to(inputs.device)
        scores = grasp(rate_model_of(material.net)[0], inputs, labels)
        return Choice(select([scores[place] for place in places], self.budget))


@dataclass
class SynFlowMask(BudgetedMask):
    """Iterative synaptic flow, without data, in a rate model with the same weights (after Tanaka et al. 2020).

    Attributes:
        iterations: Number of iterations.
    """

    counts: ClassVar[tuple[str, ...]] = ("iterations",)
    iterations: int = 100

    def choose(self, material: Material, places: Sequence[int]) -> Choice:
        """Return the masks by synaptic flow; projections without a mask stay whole."""
        model, _ = rate_model_of(material.net)
        if self.scope == NETWORK and len(places) < len(model.weights):
            raise ValueError(
                f"mask.scope={NETWORK}: synapses of all projections compete, but mask.projections leaves some out; "
                f"name all of them, {[projection.name for projection in material.net.projections]}"
            )
        whole = Budget(density=1.0)
        budgets = [self.budget if number in places else whole for number in range(len(model.weights))]
        masks = synflow_masks(model, budgets, self.iterations)
        return Choice([masks[place] for place in places])


@dataclass
class TransferMask(BudgetedMask):
    """Neural Tangent Transfer, without labels, in a rate model with the same weights, which the network takes over.

    Attributes:
        iterations: Steps of the transfer.
        interval: Steps between two choices of the masks.
        student_batch_size: Samples of a step.
        student_learning_rate: Learning rate of Adam.
        kernel_weight: Factor of the distance of the kernels.
        decay: Factor of the squared weights, for a density of 1.
    """

    trains_weights: ClassVar[bool] = True
    counts: ClassVar[tuple[str, ...]] = ("iterations", "interval", "student_batch_size")
    iterations: int = 500
    interval: int = 100
    student_batch_size: int = 32
    student_learning_rate: float = 1e-3
    kernel_weight: float = 1e-3
    decay: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("mask.student_learning_rate", self.student_learning_rate)
        for name in ("kernel_weight", "decay"):
            not_negative(f"mask.{name}", getattr(self, name))

    def choose(self, material: Material, places: Sequence[int]) -> Choice:
        """Return masks and weights of the sparse student."""
        teacher, factors = rate_model_of(material.net)
        inputs = material.intensities(torch.arange(len(material.source)), "ntt")

        def masker(weights: Sequence[Tensor]) -> list[Tensor]:
            masks = [torch.ones_like(weight, dtype=torch.bool) for weight in weights]
            chosen = select(magnitude([weights[place] for place in places]), self.budget)
            for place, mask in zip(places, chosen, strict=True):
                masks[place] = mask
            return masks

        result = transfer(
            teacher,
            inputs,
            masker,
            kernel_weight=self.kernel_weight,
            decay=self.decay,
            learning_rate=self.student_learning_rate,
            batch_size=self.student_batch_size,
            steps=self.iterations,
            interval=self.interval,
            generator=generator(material.seed, "mask", "transfer"),
        )
        weights = [weight / factor for weight, factor in zip(result.student.weights, factors, strict=True)]
        return Choice([result.masks[place] for place in places], weights)


@dataclass
class RigLMask(RandomMask):
    """Random synapses that move during training to where gradients are large, see `RigL`.

    Attributes:
        interval: Steps between two rewirings.
        share: Share of the synapses of a neuron that are replaced at first.
        until: Share of the training after which synapses stay.
    """

    interval: int = 25
    share: float = 0.2
    until: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.until <= 1:
            raise ValueError(f"mask.until={self.until} must be in 0 < x <= 1, a share of the training")
        self.rewiring(0, 1)

    def rewiring(self, seed: int, steps: int) -> Regularizer:
        """Return what moves the synapses."""
        end = max(1, round(self.until * steps))
        return RigL(
            interval=self.interval, share=self.share, end=end, rows=self.rows, projections=self.projections or []
        )


@dataclass
class DeepRMask(RandomMask):
    """Random synapses that are replaced by random ones when their weights change sign, see `DeepR`.

    Attributes:
        strength: Factor of the L1 penalty.
        interval: Steps between two rewirings.
    """

    strength: float = 1e-5
    interval: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rewiring(0, 1)

    def rewiring(self, seed: int, steps: int) -> Regularizer:
        """Return what moves the synapses."""
        projections = self.projections or []
        return DeepR(strength=self.strength, interval=self.interval, rows=self.rows, projections=projections, seed=seed)


MASKS: Registry[type[MaskMethod]] = Registry("masks", "mask", MaskMethod)
"""Methods that find masks, by name."""
