"""What is minimised: losses of the readout, and penalties on activity and weights."""

from .losses import LOSSES, CrossEntropy, Loss, MaxOverTime, MeanOverTime, SpikeCount, SpikeCountMSE
from .regularizers import PENALTIES, Burst, ReadoutAmplitude, Regularizer, UpperActivity, WeightDecay
from .time_losses import SpikeTimeMSE, SpikeTimeTargets, TimeLoss, TimeToFirstSpike

__all__ = [
    "LOSSES",
    "PENALTIES",
    "Burst",
    "CrossEntropy",
    "Loss",
    "MaxOverTime",
    "MeanOverTime",
    "ReadoutAmplitude",
    "Regularizer",
    "SpikeCount",
    "SpikeCountMSE",
    "SpikeTimeMSE",
    "SpikeTimeTargets",
    "TimeLoss",
    "TimeToFirstSpike",
    "UpperActivity",
    "WeightDecay",
]
