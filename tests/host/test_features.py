"""Data sets of features: training, checkpoints, evaluation and comparison with a code that adds inputs."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hxtrain.ann.models import MLPConfig
from hxtrain.ann.teachers import load_teacher
from hxtrain.commands.ann import AnnConfig, train_ann
from hxtrain.commands.compare import CompareConfig, compare_checkpoint
from hxtrain.commands.evaluate import EvaluateConfig, evaluate_checkpoint, load_trained
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig, intensities
from hxtrain.datasets.augment import ImageAugmentation
from hxtrain.datasets.encoders import LatencyEncoder, LinearLatencyEncoder
from hxtrain.execution.config import BackendConfig
from hxtrain.network import NetworkConfig
from hxtrain.objectives import MeanOverTime
from hxtrain.objectives.distillation import Distillation
from hxtrain.runs.progress import Progress
from hxtrain.training.config import AnnTrainerConfig, TrainerConfig

ENCODER = LinearLatencyEncoder(late=24e-6, bias=10e-6, repeats=5)


def quiet() -> Progress:
    return Progress(show=False, console=Console(file=io.StringIO()))


def config(**changes) -> RunConfig:
    trainer = TrainerConfig(epochs=4, batch_size=50, learning_rate=5e-3, learning_rate_decay=1.0, progress=False)
    settings = {
        "backend": BackendConfig("software"),
        "network": NetworkConfig(hidden=[30], init_mean=0.02, init_gain=3.0, steps=30),
        "encoder": ENCODER,
        "loss": MeanOverTime(readout_scale=60.0),
        "regularizer": {},
        "data": DataConfig("yin_yang"),
        "trainer": trainer,
    }
    return RunConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run(config(), folder, "test", quiet())
    return folder


def test_it_learns_what_no_linear_classifier_can(trained):
    result = json.loads((trained / "result.json").read_text())
    assert result["test_accuracy"] > 0.75  # linear: 0.64 (Kriener et al. 2022)
    assert result["settings"]["encoder.kind"] == "linear_latency"
    assert {path.name for path in (trained / "plots").iterdir()} >= {"plane.png", "samples.png", "confusion.png"}


def test_a_checkpoint_brings_its_encoder(trained, tmp_path):
    model = load_trained(str(trained / "checkpoint.pt"))
    assert model.encoder == ENCODER
    assert model.net.layers[0].linear.inputs == 25
    outcome = evaluate_checkpoint(
        EvaluateConfig(str(trained / "checkpoint.pt"), BackendConfig("software")), tmp_path, "test", quiet()
    )
    result = json.loads((trained / "result.json").read_text())
    assert outcome["test_accuracy"] == result["test_accuracy"]


def test_an_older_checkpoint_has_the_latency_code(trained, tmp_path):
    folder = tmp_path / "old"
    short = TrainerConfig(epochs=1, progress=False, plots=False)
    run(config(encoder=LatencyEncoder(tau=7e-6), trainer=short), folder, "test", quiet())
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert state["settings"].pop("encoder.kind") == "latency"
    torch.save(state, folder / "old.pt")
    assert load_trained(str(folder / "old.pt")).encoder == LatencyEncoder(tau=7e-6)


def test_devices_are_compared_on_features(trained, tmp_path):
    settings = CompareConfig(
        str(trained / "checkpoint.pt"), BackendConfig("reference"), other_backend=BackendConfig("software"), samples=50
    )
    record = compare_checkpoint(settings, tmp_path, "test", quiet())
    assert record["samples"] == 50
    assert (tmp_path / "comparison.png").is_file()


def test_artificial_networks_take_features_and_teach(tmp_path):
    """A teacher that was trained without held-out samples has not seen those of a validation part."""
    trainer = AnnTrainerConfig(epochs=3, batch_size=50, learning_rate=1e-2, progress=False)
    settings = AnnConfig(model=MLPConfig([60]), data=DataConfig("yin_yang"), trainer=trainer)
    assert train_ann(settings, tmp_path, "test", quiet())["test_accuracy"] > 0.75
    distillation = Distillation(teacher=str(tmp_path / "checkpoint.pt"))
    data = DataConfig("yin_yang", validation=100)
    teacher = load_teacher(distillation, data.load(), data, torch.device("cpu"))
    assert teacher is not None
    assert len(teacher.names) == 1


def test_only_images_can_be_distorted(tmp_path):
    augmentation = ImageAugmentation(rotation=5.0, mirror=True)
    text = r"augment.rotation=5.0, augment.mirror=True: this distorts images, not yin_yang \(4 features\)"
    with pytest.raises(ValueError, match=text):
        run(config(augment=augmentation), tmp_path, "test", quiet())
    assert not (tmp_path / "checkpoint.pt").exists()


def test_features_are_intensities_already():
    features = torch.tensor([[0.0, 0.25, 1.0]])
    assert intensities(features) is features
    images = torch.tensor([[[0, 51], [255, 102]]], dtype=torch.uint8)
    assert torch.allclose(intensities(images), torch.tensor([[[0.0, 0.2], [1.0, 0.4]]]))
