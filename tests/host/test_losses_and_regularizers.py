"""Losses and regularisers against hand-computed values."""

import math

import pytest
import torch

from hxtrain import Activity, LayerActivity, MaxOverTime, MeanOverTime
from hxtrain.neurons import SpikeGrid
from hxtrain.objectives import Burst, UpperActivity, WeightDecay
from hxtrain.objectives.losses import predictions
from hxtrain.objectives.regularizers import ReadoutAmplitude

# T = 3, B = 2, two hidden neurons: spike counts [[2, 0], [3, 1]]
SPIKES = torch.tensor([[[1, 0], [1, 1]], [[1, 0], [1, 0]], [[0, 0], [1, 0]]]).float()
READOUT = torch.tensor([[[0.0, 0.1], [0.0, 0.0]], [[0.3, 0.2], [0.5, -1.0]], [[0.1, 0.4], [0.2, 0.1]]])
ACTIVITY = Activity([LayerActivity(SpikeGrid(SPIKES), torch.zeros_like(SPIKES)), LayerActivity(None, READOUT)])
WEIGHTS = [torch.tensor([[1.0, -2.0]]), torch.tensor([[30.0]])]


def test_max_over_time_is_the_cross_entropy_of_the_maxima():
    scores = MaxOverTime().scores(READOUT)
    torch.testing.assert_close(scores, torch.tensor([[0.3, 0.4], [0.5, 0.1]]))
    expected = (math.log(1 + math.exp(10 * (0.3 - 0.4))) + math.log(1 + math.exp(10 * (0.5 - 0.1)))) / 2
    assert float(MaxOverTime()(READOUT, torch.tensor([1, 1]))) == pytest.approx(expected, rel=1e-5)
    assert predictions(scores).tolist() == [1, 0]


def test_mean_over_time():
    torch.testing.assert_close(MeanOverTime().scores(READOUT)[0], torch.tensor([0.4 / 3, 0.7 / 3]))


@pytest.mark.parametrize(
    ("regularizer", "expected"),
    [
        (Burst(0.5), 0.5 * (4 + 0 + 9 + 1) / 4),
        (UpperActivity(2.0, allowed=1.5), 2.0 * (0.25 + 0 + 2.25 + 0) / 4),
        (ReadoutAmplitude(1.0), (0.09 + 0.16 + 0.25 + 0.01) / 4),
        (WeightDecay(0.1), 0.1 * 2.5),
    ],
)
def test_regularizers(regularizer, expected):
    assert float(regularizer(ACTIVITY, WEIGHTS)) == pytest.approx(expected, rel=1e-6)
    assert float(type(regularizer)(0.0)(ACTIVITY, WEIGHTS)) == 0


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Burst(-1.0), "strength=-1.0 must be finite and not negative"),
        (lambda: MaxOverTime(readout_scale=0), "readout_scale=0 must be positive"),
        (lambda: MaxOverTime(label_smoothing=1.0), "label_smoothing=1.0 must be in 0 <= x < 1"),
    ],
)
def test_bad_settings_are_named(build, text):
    with pytest.raises(ValueError, match=text):
        build()
