"""Augmentation of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def rotate(images: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Rotate each image by its own angle, uniform within +-`degrees` (bilinear, zeros outside).

    Args:
        images: float `[B, H, W]`.
        degrees: largest angle.
        generator: source of the angles.
    """
    angle = (torch.rand(len(images), generator=generator) * 2 - 1) * math.radians(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = affine_grid(theta, [len(images), 1, *images.shape[1:]], align_corners=False)
    return grid_sample(images[:, None], grid.to(images), align_corners=False)[:, 0].clamp_(0, 1)
