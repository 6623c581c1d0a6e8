"""Artificial neural networks: learning, bit-exact resumption, and error messages."""

import io
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from hxtrain.ann.models import MODELS, CNNConfig, LeNetConfig, MLPConfig
from hxtrain.ann.trainer import AnnTrainer
from hxtrain.commands.ann import AnnConfig, train_ann
from hxtrain.commands.evaluate import load_trained
from hxtrain.datasets import DataConfig
from hxtrain.datasets.augment import ImageAugmentation
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint
from hxtrain.runs.progress import Progress
from hxtrain.runs.randomness import seeded
from hxtrain.training.config import AnnTrainerConfig
from hxtrain.training.loop import TrainingInterrupt
from hxtrain.view.config import ViewConfig


def quiet():
    return Progress(show=False, console=Console(file=io.StringIO()))


def digits(epochs=1, model=None, augment=None, validation=0, **trainer):
    return AnnConfig(
        model=model or MLPConfig([60]),
        data=DataConfig("digits", validation=validation),
        augment=augment or ImageAugmentation(),
        trainer=AnnTrainerConfig(epochs=epochs, batch_size=50, learning_rate=3e-3, progress=False, **trainer),
    )


@pytest.mark.parametrize(
    ("model", "augment", "minimum"),
    [
        (MLPConfig([60]), ImageAugmentation(), 0.95),
        (CNNConfig(channels=4, hidden=32), ImageAugmentation(rotation=10), 0.95),
    ],
)
def test_digits_are_learnt(tmp_path, model, augment, minimum):
    result = train_ann(digits(20, model, augment), tmp_path, "test", quiet())
    assert result["test_accuracy"] > minimum
    saved = json.loads((tmp_path / "result.json").read_text())
    keys = "test_accuracy train_accuracy epochs seed seconds samples_per_second command data data_sha256 data_note"
    assert {*keys.split(), "evaluated_on", "train_samples", "test_samples", "settings", "versions"} <= set(saved)
    assert (saved["backend"], saved["chip"], saved["chip_hash"]) == ("ann", "none", "none")
    assert "hidden_spikes_per_sample" not in saved
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 21))
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert load_checkpoint(tmp_path / "checkpoint.pt")["kind"] == "ann"


def test_the_baseline_has_the_size_of_the_spiking_network_and_biases():
    shapes = [tuple(p.shape) for p in MLPConfig().build((16, 16), 10).parameters()]
    assert shapes == [(246, 256), (246,), (10, 246), (10,)]


@pytest.mark.parametrize("kind", MODELS.values())
@pytest.mark.parametrize("shape", [(8, 8), (16, 16), (9, 14)])
def test_models_take_images_of_any_shape(kind, shape):
    if kind is LeNetConfig and min(shape) < 12:
        with pytest.raises(ValueError, match=r"model=lenet takes images of 12x12 pixels or more, .* are \["):
            kind().build(shape, 7)
        return
    model = kind().build(shape, 7)
    assert model(torch.rand(3, *shape)).shape == (3, 7)


def weights(folder):
    return load_checkpoint(folder / "checkpoint.pt")["model"]


@pytest.mark.parametrize("model", [MLPConfig([60], dropout=0.3), CNNConfig(channels=4, hidden=32)])
def test_an_interrupted_run_resumes_to_the_very_same_weights(tmp_path, mocker, model):
    """The interruption comes in the second of three epochs, with dropout, augmentation and running statistics."""
    config = digits(3, model, ImageAugmentation(rotation=10, elastic=0.3))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_ann(config, whole, "test", quiet())
    step = AnnTrainer._train_step

    def interrupt(self, chosen):
        if (self.epoch, self.step) == (1, 7):
            raise KeyboardInterrupt
        step(self, chosen)

    patch = mocker.patch.object(AnnTrainer, "_train_step", interrupt)
    with pytest.raises(TrainingInterrupt, match="interrupted in epoch 2, which is run anew"):
        train_ann(config, broken, "test", quiet())
    mocker.stop(patch)
    trainer = replace(config.trainer, resume=True)
    resumed = replace(config, trainer=trainer, live=True, view=ViewConfig(serve=False))
    result = train_ann(resumed, broken, "test", quiet())
    assert result["epochs"] == 3
    snapshot = json.loads((broken / "live.json").read_text())
    assert snapshot["sample"] is None
    assert len(snapshot["steps"]["accuracy"]) == len(snapshot["steps"]["loss"]) > 0
    assert all(len(matrix["shape"]) == 2 for matrix in snapshot["weights"])
    assert weights(whole).keys() == weights(broken).keys()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(broken)[name]), name


def test_seeds_decide_and_the_global_generator_does_not_matter(tmp_path):
    config = digits(1, MLPConfig([20], dropout=0.3), train_samples=200)
    for folder, seed, state in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        torch.manual_seed(state)
        rng_state = torch.get_rng_state()
        train_ann(replace(config, seed=seed), tmp_path / folder, "test", quiet())
        assert torch.equal(rng_state, torch.get_rng_state())
    assert torch.equal(weights(tmp_path / "a")["1.weight"], weights(tmp_path / "b")["1.weight"])
    assert not torch.equal(weights(tmp_path / "a")["1.weight"], weights(tmp_path / "c")["1.weight"])


def test_seeded_dropout_is_a_function_of_place():
    drop, ones = nn.Dropout(0.5), torch.ones(50)

    def draw(*place):
        with seeded(3, *place):
            return drop(ones)

    assert torch.equal(draw("dropout", 0, 1), draw("dropout", 0, 1))
    assert not torch.equal(draw("dropout", 0, 1), draw("dropout", 0, 2))


def test_dropout_and_augmentation_are_off_in_evaluation(tmp_path):
    config = digits(
        1, MLPConfig([20], dropout=0.5), ImageAugmentation(rotation=90), train_samples=200, test_samples=100
    )
    accuracy = train_ann(config, tmp_path, "test", quiet())["test_accuracy"]
    model = config.model.build((8, 8), 10).eval()
    data = config.data.load()
    model.load_state_dict(weights(tmp_path))
    answers = model(data.test.images[:100] / 255).argmax(1)
    assert accuracy == pytest.approx(float((answers == data.test.labels[:100]).float().mean()))


def test_validation_images_stand_in_for_test_images(tmp_path):
    result = train_ann(digits(1, validation=297), tmp_path, "test", quiet())
    assert (result["evaluated_on"], result["train_samples"], result["test_samples"]) == ("validation", 1000, 297)


def test_another_runs_folder_is_refused(tmp_path):
    config = digits(1, train_samples=100)
    train_ann(config, tmp_path, "test", quiet())
    with pytest.raises(CheckpointError, match=r"holds a run already; continue it with trainer.resume=true"):
        train_ann(config, tmp_path, "test", quiet())
    resume = replace(config.trainer, resume=True)
    with pytest.raises(CheckpointError, match=r"model.hidden: checkpoint \[60\], now \[61\]"):
        train_ann(replace(config, model=MLPConfig([61]), trainer=resume), tmp_path, "test", quiet())
    with pytest.raises(CheckpointError, match=r"model.kind: checkpoint 'mlp', now 'cnn'"):
        train_ann(replace(config, model=CNNConfig(), trainer=resume), tmp_path, "test", quiet())
    with pytest.raises(CheckpointError, match=r"trainer.resume=true, but .* holds no checkpoint.pt"):
        train_ann(replace(config, trainer=resume), tmp_path / "empty", "test", quiet())


def test_no_spiking_network_is_built_from_its_checkpoint(tmp_path):
    train_ann(digits(1, train_samples=100), tmp_path, "test", quiet())
    with pytest.raises(
        CheckpointError, match=r"is of an artificial neural network; its accuracy is in the result.json"
    ):
        load_trained(str(tmp_path / "checkpoint.pt"))


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: MLPConfig([0]), r"model.hidden=\[0\] must be positive"),
        (lambda: MLPConfig(dropout=1.0), "model.dropout=1.0 must be in 0 <= x < 1"),
        (lambda: CNNConfig(channels=0), "model.channels=0 must be positive"),
        (lambda: CNNConfig().build((3, 8), 10), r"4x4 pixels or more, the data's samples are \[3, 8\]; take model=mlp"),
        (lambda: CNNConfig().build((4,), 3), r"the data's samples are \[4\]; take model=mlp"),
        (lambda: AnnTrainerConfig(weight_decay=-1.0), "trainer.weight_decay=-1.0 must be at least 0"),
        (lambda: AnnTrainerConfig(label_smoothing=1.0), "trainer.label_smoothing=1.0 must be in 0 <= x < 1"),
        (lambda: AnnTrainerConfig(epochs=0), "trainer.epochs=0 must be at least 1"),
        (lambda: AnnTrainerConfig(activity_l2=-1.0), "trainer.activity_l2=-1.0 must be at least 0"),
        (lambda: AnnTrainerConfig(pretraining_zeros=1.0), "trainer.pretraining_zeros=1.0 must be in 0 <= x < 1"),
        (lambda: MLPConfig(activation="tanh"), "model.activation='tanh' is not known; choose one of relu, softlif"),
        (lambda: MLPConfig(noise=0.1), "model.noise=0.1 is noise on rates; add model.activation=softlif"),
    ],
)
def test_bad_settings_are_named(build, text):
    with pytest.raises(ValueError, match=text):
        build()


def test_a_loss_that_is_not_finite_names_the_step(tmp_path):
    config = digits(2, train_samples=100)
    config.trainer.learning_rate = 1e38
    with pytest.raises(ValueError, match=r"in epoch \d, step \d; try a `learning_rate` below 1e\+38"):
        train_ann(config, tmp_path, "test", quiet())
