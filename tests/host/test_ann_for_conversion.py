"""Options of the training of artificial neural networks that make their conversion easier."""

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from hxtrain.ann.activity import mean_square, watched_activations
from hxtrain.ann.models import CNNConfig, MLPConfig
from hxtrain.ann.pretraining import Pretraining, pretrain
from hxtrain.ann.teachers import load_ann
from hxtrain.commands.ann import AnnConfig, train_ann
from hxtrain.conversion import LIFCurve, SoftLIF, from_sequential
from hxtrain.datasets import DataConfig
from hxtrain.runs.progress import Progress
from hxtrain.runs.randomness import seeded
from hxtrain.training.config import AnnTrainerConfig


def digits(model, learning_rate=3e-3, epochs=4, **trainer):
    settings = AnnTrainerConfig(epochs=epochs, batch_size=50, learning_rate=learning_rate, progress=False, **trainer)
    return AnnConfig(model=model, data=DataConfig("digits"), trainer=settings)


def train(config, folder):
    """Return accuracy, network and the mean square of its activations on test images."""
    accuracy = train_ann(config, folder, "test", Progress(show=False, console=Console(file=io.StringIO())))
    ann = load_ann(folder / "checkpoint.pt")
    images = config.data.load().test.images / 255
    with torch.no_grad(), watched_activations(ann.model) as activations:
        logits = ann.model(images)
    rates = from_sequential(ann.model, ann.shape).activations(images)
    torch.testing.assert_close(rates[-1], logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rates[0], activations[0])
    return accuracy["test_accuracy"], ann.model, float(mean_square(activations))


def test_activity_is_held_down_by_its_square(tmp_path):
    config = digits(MLPConfig([60], bias=False))
    accuracy, model, activity = train(config, tmp_path / "free")
    quiet_accuracy, _, quiet_activity = train(
        replace(config, trainer=replace(config.trainer, activity_l2=0.3)), tmp_path / "quiet"
    )
    assert quiet_activity < 0.7 * activity
    assert quiet_accuracy > accuracy - 0.02 > 0.85
    assert all(part.bias is None for part in model if isinstance(part, nn.Linear))


def test_soft_lif_networks_are_learnt_with_noise_and_keep_their_curve(tmp_path):
    config = digits(MLPConfig([60], activation="softlif", noise=0.02, tau_mem=10e-3), learning_rate=2e-2)
    accuracy, model, _ = train(config, tmp_path)
    assert accuracy > 0.9
    assert isinstance(model[2], SoftLIF)
    assert model[2].curve == LIFCurve(tau_mem=10e-3)
    assert model[2].noise == 0.02


def test_auto_encoders_restore_inputs_that_are_set_to_zero():
    images = DataConfig("digits").load().train.images[:600] / 255
    with seeded(0):
        model = MLPConfig([50, 30]).build((8, 8), 10)
    last = model[-1].weight.clone()
    settings = Pretraining(epochs=20, zeros=0.5, learning_rate=3e-3, batch_size=50, seed=0)
    errors = pretrain(model, images, settings)
    assert errors[0] < 0.7 * float(images.flatten(1).var(0).mean())  # of the mean image as an answer
    with torch.no_grad():
        codes = torch.relu(model[1](images.flatten(1)))
    assert errors[1] < 0.7 * float(codes.var(0).mean())
    assert torch.equal(model[-1].weight, last)


def test_pretraining_comes_before_the_first_epoch_and_changes_its_result(tmp_path):
    results = [
        train(digits(MLPConfig([40]), epochs=1, pretraining_epochs=epochs), tmp_path / str(epochs))[0]
        for epochs in (0, 5)
    ]
    assert results[1] > results[0] + 0.02


def test_networks_that_are_no_stack_of_auto_encoders_are_refused_at_the_start(tmp_path):
    with pytest.raises(ValueError, match=r"Unflatten cannot be pre-trained as an auto-encoder; take model=mlp"):
        train(digits(CNNConfig(), pretraining_epochs=1), tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()
