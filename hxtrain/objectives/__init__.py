"""What is minimised: losses of the readout, and penalties on activity and weights."""

from .correlation import TrainCorrelation
from .firing import Firing
from .losses import LOSSES, CrossEntropy, Loss, MaxOverTime, MeanAfter, MeanOverTime, SpikeCount, SpikeCountMSE
from .online import Grid, OnlineErrors
from .regularizers import PENALTIES, Burst, ReadoutAmplitude, Regularizer, UpperActivity, WeightDecay
from .time_losses import SpikeTimeMSE, SpikeTimeTargets, TimeLoss, TimeToFirstSpike
from .van_rossum import VanRossum

__all__ = [
    "LOSSES",
    "PENALTIES",
    "Burst",
    "CrossEntropy",
    "Firing",
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
    "SpikeTimeMSE",
    "SpikeTimeTargets",
    "TimeLoss",
    "TimeToFirstSpike",
    "TrainCorrelation",
    "UpperActivity",
    "VanRossum",
    "WeightDecay",
]
