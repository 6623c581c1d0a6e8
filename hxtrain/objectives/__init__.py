"""What is minimised: losses of the readout, and penalties on activity and weights."""

from .losses import LOSSES, Loss, MaxOverTime, MeanOverTime, SpikeCount, SpikeCountMSE
from .regularizers import Burst, Regularizer, UpperActivity, WeightDecay

__all__ = [
    "LOSSES",
    "Burst",
    "Loss",
    "MaxOverTime",
    "MeanOverTime",
    "Regularizer",
    "SpikeCount",
    "SpikeCountMSE",
    "UpperActivity",
    "WeightDecay",
]
