"""Data sets of images, features or events, and sources: what gives a network its input spikes."""

from .dataset import Dataset, content_sha256
from .errors import DatasetError
from .events import EventSamples, EventSplit
from .idx import read_images, read_labels, write_idx
from .own import NAME as OWN
from .registry import DATASETS, DataConfig, load_dataset
from .resize import resize_images
from .source import EventSource, ImageSource, Source
from .split import Samples, Split, intensities

__all__ = [
    "DATASETS",
    "OWN",
    "DataConfig",
    "Dataset",
    "DatasetError",
    "EventSamples",
    "EventSource",
    "EventSplit",
    "ImageSource",
    "Samples",
    "Source",
    "Split",
    "content_sha256",
    "intensities",
    "load_dataset",
    "read_images",
    "read_labels",
    "resize_images",
    "write_idx",
]
