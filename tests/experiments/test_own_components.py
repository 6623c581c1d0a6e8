"""Components of other packages and of a user's own modules, by name: on the command line and in Python."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import hxtrain as hx
from hxtrain.backends import Registry, UnknownComponentError
from hxtrain.commands.evaluate import load_trained
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DATASETS, DataConfig, load_dataset
from hxtrain.datasets.encoders import ENCODERS
from hxtrain.execution.config import BackendConfig
from hxtrain.experiments.checks import typed_settings
from hxtrain.experiments.components import COMPONENTS, NamedComponents, import_named
from hxtrain.experiments.mistakes import Command, MistakeError
from hxtrain.experiments.overview import overview
from hxtrain.experiments.rerun import expanded
from hxtrain.experiments.schema import choices, register
from hxtrain.experiments.train import main
from hxtrain.network import NetworkConfig
from hxtrain.neurons import SURROGATES, get_surrogate
from hxtrain.objectives import LOSSES, PENALTIES
from hxtrain.rules import OPTIMIZERS, RULES
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint
from hxtrain.training import TrainerConfig

TOYS = '''
"""Toy components."""

from dataclasses import dataclass, replace

from torch import nn, optim

from hxtrain.datasets import load_dataset
from hxtrain.datasets.encoders import LatencyEncoder
from hxtrain.objectives import CrossEntropy, Regularizer
from hxtrain.rules import Optimizer


@dataclass
class ToyCode(LatencyEncoder):
    """A code.

    Attributes:
        late: Factor on all times.
    """

    late: float = 1.0

    def times(self, intensity):
        return super().times(intensity) * self.late


@dataclass
class ToyLoss(CrossEntropy):
    """A loss of the last steps.

    Attributes:
        last: Number of steps.
    """

    last: int = 3

    def scores(self, readout):
        return readout[-self.last:].mean(0)


@dataclass
class ToyPenalty(Regularizer):
    """A penalty of large weights."""

    def penalty(self, activity, weights):
        return weights[0].abs().mean()


@dataclass
class ToyOptimizer(Optimizer):
    """Descent by the sign of the gradient."""

    def build(self, parameters, learning_rate):
        return optim.Rprop(parameters, lr=learning_rate)


def toy_surrogate(x, slope):
    """Return a bump."""
    return (x * slope).square().neg().exp()


def toy_data(samples=40):
    """Return a few digits."""
    digits = load_dataset("digits")
    return replace(digits, name="toy", train=digits.train[:samples], test=digits.test[:10], sha256=str(samples))


class NotDecorated(ToyLoss):
    width: int = 3


@dataclass
class Reserved(ToyLoss):
    kind: str = "x"


@dataclass
class Abstract(CrossEntropy):
    pass


@dataclass
class Weird(ToyLoss):
    net: nn.Module = None


class Inner:
    @dataclass
    class ToyPenalty(ToyPenalty):
        pass
'''
POINTS = {
    "encoders": "toy = toys:ToyCode",
    "losses": "toy = toys:ToyLoss\nbroken = toys:Nothing",
    "penalties": "toy = toys:ToyPenalty",
    "optimizers": "toy = toys:ToyOptimizer",
    "surrogates": "toy = toys:toy_surrogate",
    "datasets": "toy = toys:toy_data",
    "rules": "delta = toys_rule:Delta",
}
SMALL = ["network.hidden=[5]", "backend=software", "trainer.epochs=1", "trainer.batch_size=20", "trainer.plots=false"]
BY_NAME = ["data=toy", "data.settings.samples=30", "loss=toy", "loss.last=2", "encoder=toy", "encoder.late=0.5"]
BY_NAME += ["regularizer=[burst,toy]", "regularizer.toy.strength=0.1", "optimizer=toy", "network.surrogate=toy"]
BY_PATH = ["data=toys:toy_data", "data.settings.samples=30", "loss=toys:ToyLoss", "loss.last=2", "encoder=toys:ToyCode"]
BY_PATH += ["encoder.late=0.5", "regularizer=[burst,toys:ToyPenalty]", "regularizer.ToyPenalty.strength=0.1"]
BY_PATH += ["optimizer=toys:ToyOptimizer", "network.surrogate=toys:toy_surrogate"]
DELTA = ["network.hidden=[50]", "network.init_gain=5", "network.output=spikes", "loss=spike_count", "data=digits"]
DELTA += ["trainer.batch_size=20", "trainer.learning_rate=1e-2", "rule=delta", "rule.target=3"]
REGISTRIES: tuple[Registry[Any], ...] = (ENCODERS, LOSSES, PENALTIES, OPTIMIZERS, SURROGATES, DATASETS, RULES)


def rule() -> str:
    """Return the module of the page on own components with its learning rule alone."""
    page = (Path(__file__).parents[2] / "docs" / "own-components.md").read_text()
    blocks = re.findall(r"^```python file=my_module.py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    imports = blocks[0].partition("\n\n\n")[0]
    [text] = [block for block in blocks if "(hx.LearningRule)" in block]
    return f"{imports}\n\n\n{text}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the current folder, with a module `toys`; registries forget it after the test."""
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_loaded", {})
        monkeypatch.setattr(registry, "_added", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv(COMPONENTS, raising=False)
    (tmp_path / "toys.py").write_text(TOYS)
    (tmp_path / "toys_rule.py").write_text(rule())
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("toys", "toys_rule"):
        sys.modules.pop(name, None)
    os.environ.pop(COMPONENTS, None)


@pytest.fixture
def package(folder: Path) -> Path:
    """Install the module `toys` as a package with entry points."""
    meta = folder / "toys-1.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1\n")
    points = "\n".join(f"[hxtrain.{kind}]\n{text}" for kind, text in POINTS.items())
    (meta / "entry_points.txt").write_text(points)
    sys.path.append(str(folder))
    return folder


def settings(words: list[str], command: str = "train") -> Any:
    """Return the settings that words make."""
    import_named(words)
    register(command)
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        return typed_settings(compose(command, overrides=words))


def train(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """Train as the command does."""
    monkeypatch.setattr("sys.argv", ["hxtrain", *SMALL, "trainer.progress=false", "hydra.run.dir=run", *words])
    main()


def test_an_installed_package_trains_by_name(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(monkeypatch, BY_NAME)
    saved = json.loads((package / "run/result.json").read_text())["settings"]
    assert [saved[f"{group}.kind"] for group in ("encoder", "loss", "optimizer")] == ["toy"] * 3
    assert saved["regularizer.kinds"] == ["burst", "toy"]
    assert (saved["loss.last"], saved["encoder.late"], saved["data.settings.samples"]) == (2, 0.5, 30)
    trained = hx.load(package / "run")
    assert (type(trained.loss).__name__, len(trained.data.train)) == ("ToyLoss", 30)
    rerun = settings(expanded(["run=run"], Command("train")))
    assert (rerun.loss.last, list(rerun.regularizer), rerun.data.settings) == (2, ["burst", "toy"], {"samples": 30})


def test_python_trains_with_the_same_components(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(monkeypatch, [*BY_NAME, "backend=reference"])
    config = RunConfig(
        backend=BackendConfig("reference"),
        network=NetworkConfig(hidden=[5], surrogate="toy"),
        encoder=ENCODERS["toy"](late=0.5),  # type: ignore[call-arg]
        loss=LOSSES["toy"](last=2),  # type: ignore[call-arg]
        regularizer={"burst": PENALTIES["burst"](), "toy": PENALTIES["toy"](strength=0.1)},
        optimizer=OPTIMIZERS["toy"](),
        data=DataConfig("toy", settings={"samples": 30}),
        trainer=TrainerConfig(epochs=1, batch_size=20, plots=False, progress=False),
    )
    run(config, "python")
    assert equal(weights(package / "run"), weights(package / "python"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a run."""
    model: dict[str, torch.Tensor] = load_checkpoint(folder / "checkpoint.pt")["model"]
    return model


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return whether all weights are equal, bit by bit."""
    return first.keys() == second.keys() and all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_a_learning_rule_of_a_package_trains_by_name_in_python_and_after_a_break(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(rule().split("@dataclass")[1].strip().splitlines()) < 30
    train(monkeypatch, [*DELTA, "trainer.epochs=5"])
    whole = weights(package / "run")
    result = json.loads((package / "run/result.json").read_text())
    assert result["test_accuracy"] > 0.7  # chance: 0.1
    assert (result["settings"]["rule.kind"], result["settings"]["rule.target"]) == ("delta", 3)
    assert hx.load(package / "run").net.output_kind == "spikes"

    net = NetworkConfig(hidden=[50], init_gain=5.0, output="spikes").build(64, 10, seed=0)
    initial = net.stack[0].weight.detach().clone()
    delta = RULES["delta"](target=3.0)  # type: ignore[call-arg]
    fit = hx.fit(net, load_dataset("digits"), delta, epochs=5, batch_size=20, learning_rate=1e-2, progress=False)
    assert fit.accuracy == result["test_accuracy"]
    assert equal(whole, net.state_dict())
    assert torch.equal(net.stack[0].weight, initial), "the rule changes the last projection alone"

    train(monkeypatch, [*DELTA, "trainer.epochs=3", "hydra.run.dir=broken"])
    assert not equal(whole, weights(package / "broken"))
    train(monkeypatch, [*DELTA, "trainer.epochs=5", "hydra.run.dir=broken", "trainer.resume=true"])
    assert equal(whole, weights(package / "broken"))


def test_help_lists_an_installed_component_with_its_settings(package: Path) -> None:
    text = overview(Command("train"), "train.")
    for group in ("loss", "encoder", "regularizer", "optimizer", "data"):
        assert "toy" in choices("train", group)
    assert re.search(r"  loss\.last= +Number of steps", text)
    assert "  regularizer.toy.strength=" in text


def test_a_module_of_the_current_folder_trains_resumes_and_is_evaluated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(monkeypatch, BY_PATH)
    train(monkeypatch, [*BY_PATH, "trainer.resume=true", "trainer.epochs=2"])
    assert str(folder) not in sys.path
    result = json.loads((folder / "run/result.json").read_text())
    assert (result["epochs"], result["settings"]["loss.kind"]) == (2, "toys:ToyLoss")
    assert load_trained("run/checkpoint.pt").loss.last == 2, "known in this process"  # type: ignore[attr-defined]


def test_a_file_imports_no_module_unless_a_user_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(monkeypatch, BY_PATH)
    for registry in REGISTRIES:
        registry._loaded.clear()
    sys.modules.pop("toys")
    with pytest.raises(CheckpointError, match=r"name it in modules=\[toys\], or in Python add it to the registry"):
        load_trained("run/checkpoint.pt")
    with pytest.raises(MistakeError, match=r"toys:ToyCode is not registered; name it again"):
        expanded(["run=run"], Command("train"))
    assert "toys" not in sys.modules
    assert hx.load("run", modules=["toys"]).loss.last == 2  # type: ignore[attr-defined]
    assert settings(["checkpoint=run", "modules=[toys]"], "evaluate").modules == ["toys"]


def test_a_component_that_was_added_is_found_by_its_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [word for word in BY_PATH if not word.startswith(("data", "network"))]
    train(monkeypatch, [*words, "data=digits", "trainer.train_samples=30", "trainer.test_samples=30"])
    LOSSES._loaded.clear()
    ENCODERS._loaded.clear()
    toys = sys.modules["toys"]
    LOSSES.add("mine", toys.ToyLoss)
    ENCODERS.add("mine", toys.ToyCode)
    assert isinstance(hx.load("run").loss, toys.ToyLoss)
    assert LOSSES.name_of(toys.ToyLoss) == "mine"


def test_jobs_of_a_sweep_import_the_components(folder: Path) -> None:
    import_named(["--multirun", "loss=toys:ToyLoss,max_over_time", "network.surrogate=toys:toy_surrogate"])
    assert sys.path[-1] == str(folder), "for the processes of a launcher"
    for registry in REGISTRIES:
        registry._loaded.clear()  # as in another process
    NamedComponents().on_job_start(OmegaConf.create({}))
    assert get_surrogate("toys:toy_surrogate") is sys.modules["toys"].toy_surrogate
    assert LOSSES.load("toys:ToyLoss") is sys.modules["toys"].ToyLoss


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("loss=toys:NotDecorated", "NotDecorated is no dataclass; write @dataclass above it"),
        ("loss=toys:Reserved", "has a field kind, which checkpoints need; rename it"),
        ("loss=toys:Weird", "has a field that is no setting"),
        ("loss=toys:Abstract", "is abstract; Abstract lacks scores"),
        ("loss=toys:ToyCode", "expected a subclass of Loss"),
        ("loss=toys:Nothing", "fails with AttributeError.*Start the command in the folder of the module"),
        ("loss=nowhere:Mine", "fails with ModuleNotFoundError"),
        ("regularizer=[toys:ToyPenalty,toys:Inner.ToyPenalty]", "would both be regularizer.ToyPenalty"),
    ],
)
def test_an_unsuitable_class_is_refused(folder: Path, word: str, text: str) -> None:
    with pytest.raises((MistakeError, UnknownComponentError), match=text):
        settings([word])


def test_a_broken_package_is_named_only_when_it_is_chosen(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert settings([]).loss == hx.MaxOverTime()
    monkeypatch.setattr("sys.argv", ["hxtrain", "loss=broken"])
    with pytest.raises(SystemExit):
        main()
    assert "loss='broken' cannot be imported: its entry point 'toys:Nothing' of the package toys" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"settings": {"sample": 3}}, "data=toy has no setting data.settings.sample=3; it accepts: samples"),
        ({"size": 8}, "data=toy has no setting data.size=8"),
    ],
)
def test_a_data_set_refuses_settings_that_it_lacks(package: Path, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        load_dataset("toy", **arguments)


def test_two_packages_with_one_name_are_refused(package: Path) -> None:
    meta = package / "rival-1.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1\n")
    (meta / "entry_points.txt").write_text("[hxtrain.losses]\ntoy = toys:Abstract\n")
    with pytest.raises(UnknownComponentError, match=r"loss='toy' is provided twice, by (toys|rival) .* and "):
        LOSSES.load("toy")
