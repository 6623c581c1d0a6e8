"""Sources: what gives a network its input spikes, from samples in memory or from anything else.

A network knows nothing of images or events. `ImageSource` distorts and encodes values, `EventSource` passes recorded
events; a class of your own may read files as they are needed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hxtrain.backends import Spikes

from .augment import Augmentation, EventAugmentation, ImageAugmentation
from .augment.events import Classmates, blend
from .encoders import EVENTS, INTENSITIES, Encoder
from .errors import DatasetError
from .events import EventSamples
from .split import Samples, Split, intensities, values_of

CPU = torch.device("cpu")
Randomness = torch.Generator | Callable[[str], torch.Generator]
"""A generator; or a function from the name of a stream, `augment` or `jitter`, to the generator of that stream."""


class Source(ABC):
    """Base: input spikes of labelled samples."""

    @property
    @abstractmethod
    def units(self) -> int:
        """Number of network inputs."""

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """Class numbers from 0, int64 [N]."""

    @property
    @abstractmethod
    def is_random(self) -> bool:
        """Whether the spikes for training depend on random numbers."""

    @abstractmethod
    def spikes(self, indices: Tensor, generator: Randomness | None = None) -> Spikes:
        """Return the input spikes of some samples, in the order of the indices.

        Args:
            indices: numbers of samples, int64 `[B]`.
            generator: source of all random numbers; None for spikes without randomness, as in an evaluation.
        """

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        """Describe the source in a line."""
        return f"{type(self).__name__}({len(self)} samples, {self.units} units)"


@dataclass(frozen=True, eq=False, repr=False)
class ImageSource(Source):
    """Images, distorted and encoded; or feature vectors, encoded.

    Attributes:
        split: images or feature vectors, and their labels.
        encoder: code from intensities to input events.
        augment: distortion of images for training.
        torch_device: device on which samples are encoded.
        title: name of the data, for errors.

    Raises:
        DatasetError: the encoder takes no intensities, or the samples have none.
        ValueError: feature vectors are to be distorted.
    """

    split: Split
    encoder: Encoder
    augment: ImageAugmentation = field(default_factory=ImageAugmentation)
    torch_device: torch.device = CPU
    title: str = ""

    def __post_init__(self) -> None:
        values_of(self.split, self.title, "ImageSource")
        _require_encoder(self.encoder, INTENSITIES, self.split, self.title)
        self.augment.check(self.split, self.title)

    @property
    def units(self) -> int:
        """Number of network inputs."""
        return self.encoder.units(math.prod(self.split.shape))

    @property
    def labels(self) -> Tensor:
        """Class numbers, int64 [N]."""
        return self.split.labels

    @property
    def is_random(self) -> bool:
        """Whether images are distorted or spikes have jitter."""
        return self.augment.active or self.encoder.jitter > 0

    def spikes(self, indices: Tensor, generator: Randomness | None = None) -> Spikes:
        """Return the input spikes of some samples, see `Source`."""
        return self.encode(self.intensities(indices, generator), generator)

    def intensities(self, indices: Tensor, generator: Randomness | None = None) -> Tensor:
        """Return the intensities in 0..1 of some samples `[B, ...]`, distorted if there is a generator."""
        values = intensities(self.split.samples[indices].to(self.torch_device))
        if generator is None or not self.augment.active:
            return values
        return self.augment(values, stream(generator, "augment"))

    def encode(self, values: Tensor, generator: Randomness | None = None) -> Spikes:
        """Return the input spikes of intensities `[B, ...]`, with jitter if there is a generator."""
        return _encoded(self.encoder, values, generator)


@dataclass(frozen=True, eq=False, repr=False)
class EventSource(Source):
    """Recorded events, distorted and encoded.

    Attributes:
        split: events and labels.
        encoder: code from recorded events to input events.
        augment: distortion of events for training.
        torch_device: device of the input events.
        title: name of the data, for errors.

    Raises:
        DatasetError: the encoder takes no events, or the samples have none.
    """

    split: EventSamples
    encoder: Encoder
    augment: EventAugmentation = field(default_factory=EventAugmentation)
    torch_device: torch.device = CPU
    title: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.split, EventSamples):
            raise DatasetError(
                f"EventSource takes an EventSplit, not {type(self.split).__name__}; make one by EventSplit.from_spikes"
            )
        _require_encoder(self.encoder, EVENTS, self.split, self.title)

    @property
    def units(self) -> int:
        """Number of network inputs."""
        return self.encoder.units(self.split.units)

    @property
    def labels(self) -> Tensor:
        """Class numbers, int64 [N]."""
        return self.split.labels

    @property
    def is_random(self) -> bool:
        """Whether events are distorted or spikes have jitter."""
        return self.augment.active or self.encoder.jitter > 0

    def spikes(self, indices: Tensor, generator: Randomness | None = None) -> Spikes:
        """Return the input spikes of some samples, see `Source`."""
        events = self.split.events(indices)
        if generator is not None and self.augment.active:
            events = self._distorted(events, indices, stream(generator, "augment"))
        return _encoded(self.encoder, events.to(self.torch_device), generator)

    def _distorted(self, events: Spikes, indices: Tensor, generator: torch.Generator) -> Spikes:
        """Return distorted events of samples; a sample may be blended with any one of its class."""
        if self.augment.blending > 0:
            rows = self.augment.rows(len(indices), generator)
            partners = self._classmates.draw(indices[rows], generator)
            events = blend(events, rows, self.split.events(partners), generator)
        return self.augment(events, generator)

    @cached_property
    def _classmates(self) -> Classmates:
        """The samples of each class."""
        return Classmates(self.split.labels)


def source(
    samples: Samples,
    encoder: Encoder,
    augment: Augmentation | None = None,
    torch_device: torch.device = CPU,
    title: str = "",
) -> Source:
    """Return the source of samples of any kind; see `ImageSource` for arguments and errors."""
    if augment is not None and isinstance(samples, Samples):
        augment.check(samples, title)
    if isinstance(samples, Split):
        images = augment if isinstance(augment, ImageAugmentation) else ImageAugmentation()
        return ImageSource(samples, encoder, images, torch_device, title)
    if isinstance(samples, EventSamples):
        events = augment if isinstance(augment, EventAugmentation) else EventAugmentation()
        return EventSource(samples, encoder, events, torch_device, title)
    raise DatasetError(
        f"expected a Split or an EventSplit, got {type(samples).__name__}; give a part of the data, such as data.test"
    )


def stream(generator: Randomness, name: str) -> torch.Generator:
    """Return the generator of a stream.

    Raises:
        TypeError: `generator` is neither a generator nor a function that returns one.
    """
    if isinstance(generator, torch.Generator):
        return generator
    result: Any = generator(name) if callable(generator) else generator
    if not isinstance(result, torch.Generator):
        raise TypeError(
            f"generator: expected a torch.Generator, or a function from {name!r} to one, got {generator!r:.60}"
        )
    return result


def _encoded(encoder: Encoder, samples: Tensor | Spikes, generator: Randomness | None) -> Spikes:
    """Return spikes, with jitter if there is a generator."""
    if encoder.jitter == 0:
        return encoder(samples)
    return encoder.without_jitter()(samples) if generator is None else encoder(samples, stream(generator, "jitter"))


def _require_encoder(encoder: Encoder, kind: str, samples: Samples, title: str) -> None:
    """Raise an error for an encoder of the other kind of samples."""
    if not isinstance(encoder, Encoder):
        raise DatasetError(f"encoder: expected an Encoder, got {type(encoder).__name__}; give LatencyEncoder()")
    if kind != encoder.TAKES:
        remedy = {
            EVENTS: "EventEncoder(speedup=...) (encoder=events)",
            INTENSITIES: "LatencyEncoder() (encoder=latency)",
        }
        raise DatasetError(
            f"{type(encoder).__name__} takes {encoder.TAKES}, but the samples of {title or 'the data'} are "
            f"{samples.kind}; take {remedy[kind]}"
        )
