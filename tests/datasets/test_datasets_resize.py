"""Resizing: hand-computed values, no wrap-around, cropping."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hxtrain.datasets import DatasetError, resize_images


def u8(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8)


def test_by_hand() -> None:
    # 4 -> 2: the triangle filter has radius 2 source pixels around x = 1; the pixel centres 0.5, 1.5, 2.5
    # weigh 3, 3, 1 (of 7). Rows are equal, so only the columns matter: (0*3 + 70*3 + 140*1) / 7 = 50 and
    # (70*1 + 140*3 + 210*3) / 7 = 160.
    images = u8([[0, 70, 140, 210]] * 4).unsqueeze(0)
    assert resize_images(images, 2).tolist() == [[[50, 160], [50, 160]]]


def test_rounds_to_nearest_and_halves_up() -> None:
    # 4 -> 1 with columns 0, 0, 0, v: radius 4 around x = 2, weights 2.5, 3.5, 3.5, 2.5 of 12.
    for value, expected in ((2, 0), (3, 1), (12, 3), (36, 8), (255, 53)):  # 0.42, 0.63, 2.5, 7.5, 53.1
        assert resize_images(u8([[[0, 0, 0, value]] * 4]), 1).item() == expected


@pytest.mark.parametrize("size", [1, 3, 7, 16, 24, 28, 40])
@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_constant_stays(size: int, level: int) -> None:
    images = torch.full((3, 28, 28), level, dtype=torch.uint8)
    assert resize_images(images, size, crop=2).eq(level).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 20), side=st.integers(2, 14))
def test_no_wrap_around(seed: int, size: int, side: int) -> None:
    """An average never leaves the range of what is averaged."""
    rng = torch.Generator().manual_seed(seed)
    images = (250 + torch.randint(0, 6, (2, side, side), generator=rng)).to(torch.uint8)
    resized = resize_images(images, size)
    assert resized.min() >= images.min()
    assert resized.max() <= images.max()


def test_crop_comes_first() -> None:
    images = torch.full((1, 6, 6), 255, dtype=torch.uint8)
    images[:, 1:5, 1:5] = 10
    assert resize_images(images, 2, crop=1).eq(10).all()
    assert resize_images(images, 2).gt(10).all()


def test_same_size_is_an_exact_copy() -> None:
    images = torch.arange(32, dtype=torch.uint8).reshape(2, 4, 4)
    resized = resize_images(images, 2, crop=1)
    assert torch.equal(resized, images[:, 1:3, 1:3])
    resized.zero_()
    assert images[0, 1, 1] == 5


def test_chunks_do_not_matter() -> None:
    images = torch.randint(0, 256, (7, 9, 11), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    whole = resize_images(images, 5)
    assert whole.shape == (7, 5, 5)
    assert torch.equal(resize_images(images, 5, chunk=3), whole)


@pytest.mark.parametrize(
    ("images", "size", "crop", "text"),
    [
        (torch.zeros(1, 4, 4), 2, 0, r"expected uint8 \[N, H, W\], found torch.float32 \[1, 4, 4\]"),
        (u8([[1, 2]]), 2, 0, r"expected uint8 \[N, H, W\], found torch.uint8 \[1, 2\]"),
        (u8([[[1, 2]]]), 0, 0, "resize to 0 from images of 1x2"),
        (torch.zeros(1, 4, 6, dtype=torch.uint8), 2, 2, "cannot crop 2 and resize to 2 from images of 4x6"),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), 2, -1, "cannot crop -1"),
    ],
)
def test_refused(images: Tensor, size: int, crop: int, text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        resize_images(images, size, crop)
