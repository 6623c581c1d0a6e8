"""Data sets: MNIST, Fashion-MNIST and scikit-learn's digits, shipped or from IDX files; Yin-Yang; user's files."""

from .dataset import ImageDataset, Split, content_sha256
from .errors import DatasetError
from .idx import read_images, read_labels, write_idx
from .own import NAME as OWN
from .registry import DATASETS, DataConfig, load_dataset
from .resize import resize_images

__all__ = [
    "DATASETS",
    "OWN",
    "DataConfig",
    "DatasetError",
    "ImageDataset",
    "Split",
    "content_sha256",
    "load_dataset",
    "read_images",
    "read_labels",
    "resize_images",
    "write_idx",
]
