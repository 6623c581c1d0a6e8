"""Distillation: the published loss, the images that a teacher sees, and refusals of unsuitable teachers."""

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call
from rich.console import Console
from teams import call_together
from torch import nn
from torch.nn.functional import cross_entropy, kl_div

from hxtrain.ann.models import MLPConfig
from hxtrain.ann.teachers import load_ann, load_teacher
from hxtrain.commands.ann import AnnConfig, train_ann
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig
from hxtrain.datasets.augment import ImageAugmentation
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.objectives import MaxOverTime
from hxtrain.objectives.distillation import Distillation, Lessons, Teacher, distillation_loss
from hxtrain.rules import RuleError
from hxtrain.rules.rtrl import RTRL, EProp
from hxtrain.rules.superspike import SuperSpike
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from hxtrain.runs.progress import Progress
from hxtrain.training.config import AnnTrainerConfig, TrainerConfig


def quiet():
    return Progress(show=False, console=Console(file=io.StringIO()))


def ann(folder, seed=0, data=None, epochs=20):
    trainer = AnnTrainerConfig(epochs=epochs, batch_size=50, learning_rate=3e-3, progress=False)
    config = AnnConfig(seed=seed, model=MLPConfig([60]), data=data or DataConfig("digits"), trainer=trainer)
    train_ann(config, folder, "test", quiet())
    return str(folder / "checkpoint.pt")


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Return the checkpoints of two teachers of the digits that differ by their seeds."""
    return [ann(tmp_path_factory.mktemp("ann"), seed) for seed in (0, 1)]


def student(teacher=None, epochs=1, backend="software", validation=0, augment=None, **trainer):
    return RunConfig(
        backend=BackendConfig(backend),
        chip=ChipConfig(preset="calibrated"),
        network=NetworkConfig(hidden=[60], init_gain=1.4, dropout=0.1),
        data=DataConfig("digits", validation=validation),
        augment=augment or ImageAugmentation(),
        distillation=Distillation(teacher, weight=0.8, temperature=2.0),
        trainer=TrainerConfig(**{"epochs": epochs, "batch_size": 50, "progress": False, "plots": False}, **trainer),
    )


def test_the_loss_is_zero_for_equal_answers_and_known_for_others():
    logits = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 5.0]])
    assert float(distillation_loss(logits, logits + 3.0, 2.0)) == pytest.approx(0, abs=1e-6)
    # Two classes: after division by the temperature the teacher has odds of e^2 : 1, the student is undecided.
    p = math.e**2 / (1 + math.e**2)
    expected = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert float(distillation_loss(torch.zeros(3, 2), torch.tensor([[4.0, 0.0]] * 3), 2.0)) == pytest.approx(expected)


def test_the_mixed_loss_is_the_formula():
    g = torch.Generator().manual_seed(0)
    readout = torch.randn(5, 6, 4, generator=g, requires_grad=True)
    images = torch.rand(6, 3, 3, generator=g)
    labels = torch.randint(4, (6,), generator=g)
    model = MLPConfig([5]).build((3, 3), 4).eval()
    teacher = Teacher((model,), Distillation("x", weight=0.3, temperature=3.0), ("x",))
    loss = MaxOverTime(readout_scale=7.0, label_smoothing=0.1)
    mixed = teacher.loss(loss, teacher.logits(images))(readout, labels)
    s = 7.0 * readout.detach().amax(0)
    t = model(images).detach()
    divergence = kl_div((s / 3).log_softmax(1), (t / 3).softmax(1), reduction="none").sum() / 6
    expected = 0.7 * cross_entropy(s, labels, label_smoothing=0.1) + 0.3 * 9 * divergence
    assert float(mixed.detach()) == pytest.approx(float(expected), rel=1e-5)
    mixed.backward()
    assert float(readout.grad.abs().max()) > 1e-3
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_gradient_leads_to_the_teachers_answer():
    """With all weight on the teacher, the student converges to its probabilities, whatever the labels."""
    target = torch.tensor([[2.0, 1.0, 0.0]])
    teacher = Teacher((nn.Sequential(nn.Flatten(), Constant(target)),), Distillation("x", 1.0, 2.0), ("x",))
    readout = torch.zeros(4, 1, 3, requires_grad=True)
    optimizer = torch.optim.Adam([readout], lr=0.05)
    loss = MaxOverTime()
    mixed = teacher.loss(loss, teacher.logits(torch.zeros(1, 2, 2)))
    for _ in range(300):
        optimizer.zero_grad()
        mixed(readout, torch.tensor([2])).backward()
        optimizer.step()
    torch.testing.assert_close(loss.logits(readout).softmax(1), target.softmax(1), atol=2e-3, rtol=0)


class Constant(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return self.logits


def test_an_ensemble_is_the_mean_of_log_probabilities(teachers):
    data = DataConfig("digits").load()
    images = data.test.images[:20] / 255
    cpu = torch.device("cpu")
    logits = load_teacher(Distillation(teachers), data, DataConfig("digits"), cpu).logits(images)
    members = [load_ann(Path(path)).model(images).log_softmax(1) for path in teachers]
    assert not torch.allclose(*members, atol=1e-2)
    torch.testing.assert_close(logits, (members[0] + members[1]) / 2)
    assert not logits.requires_grad


@pytest.mark.parametrize("backend", ["software", "emulator"])
def test_a_network_learns_from_a_teacher_in_the_loop(tmp_path, teachers, backend):
    config = student(teachers[0], 5, backend, augment=ImageAugmentation(rotation=5))
    result = run(config, tmp_path, "test", quiet())
    assert result["test_accuracy"] > 0.85
    assert result["settings"]["distillation.sha256"] == [load_ann(Path(teachers[0])).sha256]
    assert result["settings"]["distillation.weight"] == 0.8
    assert "distillation.teacher" not in result["settings"]


def test_a_network_learns_without_labels(tmp_path, teachers, mocker):
    """All training labels are wrong; the network learns the answers of the teacher."""
    config = student(teachers[0], 5)
    config.distillation.weight = 1.0
    data = config.data.load()
    data.train.labels.copy_((data.train.labels + 1) % 10)
    mocker.patch.object(DataConfig, "load", return_value=data)
    assert run(config, tmp_path, "test", quiet())["test_accuracy"] > 0.85


def test_the_teacher_sees_the_images_of_the_students_spikes(tmp_path, teachers, mocker):
    """Teacher and student get the same distorted images, also with jitter."""
    batches = []
    mocker.patch.object(Teacher, "logits", lambda self, x: batches.append(x) or torch.zeros(len(x), 10))
    config = student(teachers[0], augment=ImageAugmentation(rotation=30), train_samples=50, test_samples=10)
    config.encoder.jitter = 1e-12
    encoder_spy = mocker.spy(type(config.encoder), "times")
    run(config, tmp_path, "test", quiet())
    (images,) = batches
    original = config.data.load().train.images[:50] / 255
    nearest = (images.flatten(1)[:, None] - original.flatten(1)[None]).abs().amax(2).amin(1)
    assert nearest.median() > 0.2, "they are distorted"
    assert torch.equal(images.flatten(1), encoder_spy.call_args_list[0].args[1])


def test_undistorted_images_go_to_the_teacher_once(tmp_path, teachers, mocker):
    config = student(teachers[0], 3, train_samples=130, test_samples=10)
    spy = mocker.spy(Teacher, "logits")
    run(config, tmp_path / "once", "test", quiet())
    assert sum(len(call.args[1]) for call in spy.call_args_list) == 130
    mocker.patch.object(Lessons, "logits", lambda self, indices, values: self._teacher.logits(values))
    run(config, tmp_path / "always", "test", quiet())
    cached, computed = (load_checkpoint(tmp_path / name / "checkpoint.pt")["model"] for name in ("once", "always"))
    for name in cached:
        torch.testing.assert_close(cached[name], computed[name], atol=1e-5, rtol=0)


def test_a_teacher_takes_samples_to_its_device(teachers):
    """The meta device stands for a GPU: a model on it refuses samples of another device."""
    device = torch.device("meta")
    teacher = load_teacher(Distillation(teachers), DataConfig("digits").load(), DataConfig("digits"), device)
    assert teacher.logits(torch.rand(5, 8, 8)).device == device


@pytest.mark.parametrize(
    "augment", [ImageAugmentation(rotation=10), ImageAugmentation()], ids=["distorted", "as they are"]
)
def test_a_run_with_a_teacher_resumes_to_the_very_same_weights(tmp_path, teachers, augment):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    config = student(teachers[0], 3, augment=augment)
    run(config, whole, "test", quiet())
    run(replace(config, trainer=replace(config.trainer, epochs=1)), broken, "test", quiet())
    copy = tmp_path / "moved.pt"
    copy.write_bytes(Path(teachers[0]).read_bytes())
    resume = replace(config.trainer, resume=True)
    moved = replace(config, distillation=replace(config.distillation, teacher=[str(copy)]), trainer=resume)
    run(moved, broken, "test", quiet())
    expected, resumed = (load_checkpoint(folder / "checkpoint.pt")["model"] for folder in (whole, broken))
    for name in expected:
        assert torch.equal(expected[name], resumed[name]), name


def test_another_teacher_or_none_is_another_run(tmp_path, teachers):
    config = student(teachers[0], train_samples=100, test_samples=20)
    run(config, tmp_path, "test", quiet())
    config = replace(config, trainer=replace(config.trainer, resume=True, epochs=2))
    for teacher in (teachers[1], teachers, None):
        candidate = replace(config, distillation=replace(config.distillation, teacher=teacher))
        with pytest.raises(CheckpointError, match=r"distillation.sha256: checkpoint"):
            run(candidate, tmp_path, "test", quiet())
    with pytest.raises(CheckpointError, match=r"distillation.temperature: checkpoint 2.0, now 4.0"):
        run(replace(config, distillation=replace(config.distillation, temperature=4.0)), tmp_path, "test", quiet())


def test_without_a_teacher_nothing_of_it_identifies_a_run(tmp_path):
    config = student(train_samples=100, test_samples=20)
    out = io.StringIO()
    result = run(config, tmp_path, "test", Progress(False, Console(file=out)))
    assert not [key for key in result["settings"] if key.startswith("distillation.")]
    assert "distillation.weight=0.8 has no effect: there is no distillation.teacher" in out.getvalue()


@pytest.mark.parametrize("rule", [RTRL(), EProp(), SuperSpike()])
def test_a_teacher_of_an_online_rule_is_refused_before_anything_runs(tmp_path, teachers, rule, mocker):
    step = mocker.patch("hxtrain.training.trainer.learn")
    text = f"rule={rule.name} learns while a trial runs, but the loss of a teacher is known at its end alone"
    with pytest.raises(RuleError, match=text):
        run(replace(student(teachers[0]), rule=rule), tmp_path, "test", quiet())
    step.assert_not_called()


def write_altered(path, folder, **changes):
    """Write a copy of a teacher that claims to be something else."""
    state = load_checkpoint(Path(path))
    settings = {**state["settings"], **changes.pop("settings", {})}
    save_checkpoint(folder / "changed.pt", {**state, "settings": settings, **changes})
    return str(folder / "changed.pt")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"settings": {"data.sha256": "f" * 64}}, "was trained on digits ffffffffffffffff, the data here are digits"),
        ({"classes": list("abcdefghij")}, "knows the classes a, b, c, d, e, f, g, h, i, j, digits has 0, 1"),
        ({"kind": "snn"}, "holds a spiking network, or something else"),
    ],
)
def test_a_teacher_of_something_else_is_refused(tmp_path, teachers, changes, text):
    path = write_altered(teachers[0], tmp_path, **changes)
    with pytest.raises(CheckpointError, match=text) as refused:
        run(student(path), tmp_path / "run", "test", quiet())
    assert path in str(refused.value)
    assert "hxtrain ann" in str(refused.value)


def test_teachers_of_other_sizes_and_spiking_ones_are_refused(tmp_path, teachers):
    config = replace(student(teachers[0]), data=DataConfig("mnist"))
    with pytest.raises(CheckpointError, match=r"takes samples \[8, 8\], mnist has \[16, 16\]; give a teacher trained"):
        run(config, tmp_path / "size", "test", quiet())
    run(student(train_samples=50, test_samples=10), tmp_path / "spiking", "test", quiet())
    with pytest.raises(CheckpointError, match="holds a spiking network, or something else"):
        run(student(str(tmp_path / "spiking/checkpoint.pt")), tmp_path / "run", "test", quiet())
    with pytest.raises(
        CheckpointError, match=r"there is no network nowhere.pt; train one with `hxtrain ann hydra.run.dir=\."
    ):
        run(student("nowhere.pt"), tmp_path / "run", "test", quiet())


def test_a_teacher_that_knows_held_out_writers_is_refused(tmp_path, teachers):
    digits = DataConfig("digits").load()
    for part, split in (("train", digits.train[:100]), ("test", digits.test[:20])):
        np.savez(
            tmp_path / f"{part}.npz",
            images=split.images.numpy(),
            labels=split.labels.numpy(),
            groups=np.arange(len(split)) % 4,
        )
    data = DataConfig("folder", folder=str(tmp_path))
    held_out = replace(data, validation_groups=[1])
    refused, valid = (Distillation(ann(tmp_path / str(n), 0, part, 1)) for n, part in enumerate((data, held_out)))
    assert load_teacher(valid, held_out.load(), held_out, torch.device("cpu")) is not None
    with pytest.raises(CheckpointError, match="with other held out groups, so that it knows some of the samples held"):
        load_teacher(refused, held_out.load(), held_out, torch.device("cpu"))


def test_a_teacher_that_knows_the_validation_images_is_refused(tmp_path, teachers):
    with pytest.raises(CheckpointError, match=r"data.validation=0: it knows some of the 297 samples held out here"):
        run(student(teachers[0], validation=297), tmp_path / "run", "test", quiet())
    honest = ann(tmp_path / "ann", data=DataConfig("digits", validation=297), epochs=1)
    sizes = {"train_samples": 100, "test_samples": 20}
    assert (
        run(student(honest, validation=297, **sizes), tmp_path / "a", "test", quiet())["evaluated_on"] == "validation"
    )
    assert run(student(honest, **sizes), tmp_path / "b", "test", quiet())["evaluated_on"] == "test"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"teacher": 3}, r"distillation.teacher=3 must be the path of a checkpoint, or a list"),
        ({"teacher": ["a", 3]}, r"distillation.teacher=\['a', 3\] must be the path"),
        ({"teacher": "a", "weight": 0.0}, "distillation.weight=0.0 must be in 0 < x <= 1; to train without a teacher"),
        ({"teacher": "a", "weight": 1.5}, "distillation.weight=1.5 must be in 0 < x <= 1"),
        ({"teacher": "a", "temperature": 0.0}, "distillation.temperature=0.0 must be positive"),
    ],
)
def test_bad_settings_are_named(settings, text):
    with pytest.raises(ValueError, match=text):
        Distillation(**settings)


@pytest.mark.timeout(600)
def test_two_processes_with_a_teacher_equal_one(tmp_path, teachers):
    words = (
        "backend=software", "data=digits", "network.hidden=[30]", "network.init_gain=1.4", "trainer.train_samples=145",
        "trainer.test_samples=20", "trainer.batch_size=48", "trainer.epochs=1", "trainer.plots=false",
        "trainer.progress=false", "augment.rotation=10", "encoder.jitter=2e-7", f"distillation.teacher={teachers[0]}",
    )  # fmt: skip
    place = f"hydra.run.dir={tmp_path / 'together'}"
    together = call_together("hxtrain", *words, place, cwd=tmp_path, processes=2)
    alone = call("hxtrain", *words, f"hydra.run.dir={tmp_path / 'alone'}", cwd=tmp_path)
    for process in (alone, together):
        assert process.returncode == 0, process.stderr
        assert process.stdout.count("teacher MLP") == 1
    single, shared = (load_checkpoint(tmp_path / name / "checkpoint.pt")["model"] for name in ("alone", "together"))
    for name in single:
        torch.testing.assert_close(single[name], shared[name], atol=1e-5, rtol=0)
