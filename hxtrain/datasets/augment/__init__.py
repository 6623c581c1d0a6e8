"""Augmentation: training samples are distorted anew in every epoch; all other samples stay as they are."""

from .base import Augmentation
from .events import EventAugmentation
from .images import ImageAugmentation

__all__ = ["Augmentation", "EventAugmentation", "ImageAugmentation"]
