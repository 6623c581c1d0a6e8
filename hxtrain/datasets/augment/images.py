"""Distortion of images.

One affine map per image (rotation, size, shear, shift), and a smooth random displacement of its points
(Simard, Steinkraus and Platt 2003), in one bilinear resampling with zeros outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from hxtrain.checks import check_types

from .base import Augmentation

WAVES = 4
"""Points per side of the coarse grid on which elastic displacements are drawn; smooth in between."""


@dataclass
class ImageAugmentation(Augmentation):
    """Distortion of training images, uniform within +- each value and independent for each image.

    Attributes:
        rotation: Largest angle (degrees).
        shift: Largest shift along each axis (pixels).
        scale: Largest relative change of size, along each axis.
        shear: Largest shear: shift along x per shift along y.
        elastic: Standard deviation of a smooth displacement of the image's points (pixels).
        mirror: Whether half of the images, drawn at random, are mirrored left to right.
    """

    TAKES: ClassVar[str] = "images"

    rotation: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    mirror: bool = False

    def __post_init__(self) -> None:
        check_types(self, "augment.")
        for name, limit in (("rotation", 180), ("scale", 0.9), ("shift", math.inf), ("shear", math.inf)):
            if not (0 <= getattr(self, name) <= limit and getattr(self, name) < math.inf):
                raise ValueError(f"augment.{name}={getattr(self, name)} must be in 0..{limit}")
        if not 0 <= self.elastic < math.inf:
            raise ValueError(f"augment.elastic={self.elastic} must be finite and not negative")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Distort images.

        Args:
            images: Images, float `[B, H, W]` in 0..1.
            generator: Source of all random numbers, on the CPU.
        """
        if not self.active:
            return images
        maps = self._maps(len(images), images.shape[1:], generator)
        grid = affine_grid(maps.to(images), [len(images), 1, *images.shape[1:]], align_corners=False)
        if self.elastic > 0:
            grid = grid + self._displacements(images.shape, generator).to(images)
        return grid_sample(images[:, None], grid, align_corners=False)[:, 0].clamp_(0, 1)

    def _maps(self, count: int, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Return the matrix of each image that maps its new points to its old ones `[B, 2, 3]`."""

        def uniform(limit: float) -> Tensor:
            if limit == 0:
                return torch.zeros(count)
            return (torch.rand(count, generator=generator) * 2 - 1) * limit

        angle = uniform(math.radians(self.rotation))
        cos, sin = angle.cos(), angle.sin()
        width_factors, height_factors = 1 + uniform(self.scale), 1 + uniform(self.scale)
        shear = uniform(self.shear)
        if self.mirror:
            width_factors = torch.where(torch.rand(count, generator=generator) < 0.5, -width_factors, width_factors)
        x_shifts, y_shifts = uniform(2 * self.shift / shape[1]), uniform(2 * self.shift / shape[0])
        along_x = torch.stack([cos * width_factors, (shear - sin) * height_factors, x_shifts], 1)
        along_y = torch.stack([sin * width_factors, cos * height_factors, y_shifts], 1)
        return torch.stack([along_x, along_y], 1)

    def _displacements(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Return a smooth displacement of every point `[B, H, W, 2]`, in half image sizes."""
        height, width = shape[1:]
        coarse = torch.randn(shape[0], 2, WAVES, WAVES, generator=generator)
        coarse = coarse * torch.tensor([2 * self.elastic / width, 2 * self.elastic / height])[:, None, None]
        smooth = interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
        return smooth.permute(0, 2, 3, 1)
