"""Antialiased resizing of uint8 images."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .errors import DatasetError

# Grey levels added before rounding down: exact halves are rounded up on every machine,
# regardless of the last bit of the float32 sum.
TIE = 0.5 + 2.0**-10


def resize_images(images: Tensor, size: int, crop: int = 0, chunk: int = 4096) -> Tensor:
    """Crop, then resize to square images with an antialiased bilinear filter.

    Args:
        images: grey images, uint8 [N, H, W].
        size: side of the result in pixels.
        crop: number of pixels removed from each of the four sides first.
        chunk: number of images converted to float at a time (limits the memory).

    Returns:
        Images uint8 [N, size, size], rounded to the nearest level (halves up), clamped to 0..255.

    Raises:
        DatasetError: dtype or rank are wrong, `size` is below 1, or the crop leaves nothing.
    """
    if images.dtype != torch.uint8 or images.ndim != 3:
        raise DatasetError(f"expected uint8 [N, H, W], found {images.dtype} {list(images.shape)}")
    height, width = images.shape[1:]
    if size < 1 or crop < 0 or 2 * crop >= min(height, width):
        raise DatasetError(f"cannot crop {crop} and resize to {size} from images of {height}x{width} pixels")
    images = images[:, crop : height - crop, crop : width - crop]
    if tuple(images.shape[1:]) == (size, size):
        return images.clone(memory_format=torch.contiguous_format)
    result = torch.empty(len(images), size, size, dtype=torch.uint8)
    for start in range(0, len(images), chunk):
        result[start : start + chunk] = _resize(images[start : start + chunk], size)
    return result


def _resize(images: Tensor, size: int) -> Tensor:
    scaled = interpolate(
        images.unsqueeze(1).float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return (scaled + TIE).floor().clamp(0, 255).to(torch.uint8).squeeze(1)
