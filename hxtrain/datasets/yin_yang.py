r"""The Yin-Yang data set: points of a disc, classified by region (Kriener, Göltz and Petrovici 2022, arXiv:2102.08211).

The disc has radius R = 0.5 around (R, R), with two dots of radius r = 0.1 around (R/2, R) and (3R/2, R). With the
distances d_left and d_right of a point (x, y) from the dots' centres, its class is::

    2 (dot)    d_left < r or d_right < r
    1 (yang)   otherwise, if r < d_left <= R/2, or y > R and d_right > R/2
    0 (yin)    otherwise

A sample is (x, y, 1 - x, 1 - y): the mirrored axes replace a bias of the neurons. For each sample a class is drawn,
then points of the square around the disc until one has this class; so the classes are balanced.

The points equal those of the authors' code and files (github.com/lkriener/yin_yang_data_set) in every bit: numpy's
`RandomState`, whose stream never changes, draws the same numbers in the same order. Only the samples are rounded, from
double to single precision. A test checks some of them, and the hash covers all.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from .catalogue import YIN_YANG
from .dataset import Dataset
from .shipped import assemble
from .split import Split

Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

BIG = 0.5  # radius of the disc
SMALL = 0.1  # radius of the dots
# number of samples and seed of each part
TRAIN = (5000, 42)
VALIDATION = (1000, 41)
TEST = (1000, 40)
OUTSIDE = -1
NOTE = (
    "Generated: bit by bit the points of the published training (seed 42), validation (41) and test part (40), "
    "rounded to single precision."
)


def generate() -> Dataset:
    """Return 5,000 training, 1,000 test and 1,000 validation samples, features float32 [N, 4]."""
    train, test, validation = (_split(*draw(count, seed)) for count, seed in (TRAIN, TEST, VALIDATION))
    return replace(assemble(YIN_YANG, train, test, NOTE), validation=validation, plane=plane)


def draw(count: int, seed: int) -> tuple[Floats, Classes]:
    """Return points `[N, 2]` of the disc and their classes `[N]`."""
    numbers = np.random.RandomState(seed)
    points = np.empty((count, 2))
    classes = np.empty(count, np.int64)
    for index in range(count):
        classes[index] = numbers.randint(len(YIN_YANG.classes))
        points[index] = numbers.random_sample(2)
        while region(*points[index]) != classes[index]:
            points[index] = numbers.random_sample(2)
    return points, classes


def region(x: Floats, y: Floats) -> Classes:
    """Return the class of points, elementwise; `OUTSIDE` for points outside the disc."""
    left = _distance(x - BIG / 2, y - BIG)
    right = _distance(x - 3 * BIG / 2, y - BIG)
    yang = ((left > SMALL) & (left <= BIG / 2)) | ((y > BIG) & (right > BIG / 2))
    classes: Classes = np.where((left < SMALL) | (right < SMALL), 2, yang)
    return np.where(_distance(x - BIG, y - BIG) > BIG, OUTSIDE, classes)


def plane(side: int) -> Split:
    """Return a grid of `side` x `side` points in the square, see `Dataset.plane`."""
    axis = (np.arange(side) + 0.5) / side
    y, x = (values.ravel() for values in np.meshgrid(axis, axis, indexing="ij"))
    return _split(np.stack([x, y], 1), region(x, y))


def _distance(x: Floats, y: Floats) -> Floats:
    """Return the lengths of vectors; `hypot` is avoided, since its rounding depends on the platform."""
    lengths: Floats = np.sqrt(x * x + y * y)
    return lengths


def _split(points: Floats, classes: Classes) -> Split:
    samples = np.concatenate([points, 1 - points], axis=1).astype(np.float32)
    return Split(torch.from_numpy(samples), torch.from_numpy(classes))
