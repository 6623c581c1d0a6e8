"""What is minimised: losses of the readout, and penalties on activity and weights."""

from .losses import LOSSES, CrossEntropy, Loss, MaxOverTime, MeanAfter, MeanOverTime, SpikeCount, SpikeCountMSE
from .online import Grid, OnlineErrors
from .regularizers import PENALTIES, Burst, ReadoutAmplitude, Regularizer, UpperActivity, WeightDecay
from .van_rossum import VanRossum

__all__ = [
    "LOSSES",
    "PENALTIES",
    "Burst",
    "CrossEntropy",
    "Grid",
    "Loss",
    "MaxOverTime",
    "MeanAfter",
    "MeanOverTime",
    "OnlineErrors",
    "ReadoutAmplitude",
    "Regularizer",
    "SpikeCount",
    "SpikeCountMSE",
    "UpperActivity",
    "VanRossum",
    "WeightDecay",
]
