"""What a session needs of `import hxtrain as hx`: a data set, a network, a device, training, evaluation, files."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_training import digits, quiet
from torch import Tensor

import hxtrain as hx
from hxtrain.backends.reference import ReferenceBackend
from hxtrain.commands.train import run
from hxtrain.objectives import LOSSES
from hxtrain.rules import Batch, Objective, Step
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from hxtrain.runs.progress import Progress

DATA = hx.load_dataset("digits")
SMALL = {"train_samples": 300, "test_samples": 100, "batch_size": 50}


def network(**settings: Any) -> hx.Network:
    return hx.Network(hx.Linear(64, 40, mean=1e-3, gain=1.4), hx.LIF(40), hx.Linear(40, 10), hx.LI(10), **settings)


def test_train_on_a_chip(tmp_path: Path) -> None:
    """The first sketch of the README, in fewer epochs."""
    net = hx.Network(hx.Linear(64, 100, mean=1e-3, gain=1.4), hx.LIF(100), hx.Linear(100, 10), hx.LI(10))
    with hx.open_device("emulator", chip="W66F3") as device:
        net.attach(device, gradient=hx.SurrogateGradient(slope=10))
        trained = hx.fit(net, DATA, rule=hx.Backprop(hx.MaxOverTime(), [hx.Burst()]), epochs=2, progress=False)
        accuracy = hx.evaluate(net, DATA.test).accuracy
    assert accuracy > 0.6
    assert [record["epoch"] for record in trained.records] == [1, 2]
    assert trained.accuracy == pytest.approx(accuracy, abs=0.05), "noise of the chip"
    hx.save(net, tmp_path / "digits.pt")
    stored = hx.load(tmp_path / "digits.pt")
    assert all(map(torch.equal, stored.net.parameters(), net.parameters()))
    assert (stored.encoder, stored.loss) == (hx.LatencyEncoder(), hx.MaxOverTime())


def test_evaluate_a_run_on_another_chip(tmp_path: Path) -> None:
    """The second sketch of the README."""
    result = run(digits(1, train_samples=300, test_samples=100), tmp_path, "test", quiet())
    trained = hx.load(tmp_path / "checkpoint.pt")
    assert isinstance(trained.net, hx.Network)
    with hx.open_device("emulator", chip="W66F3") as device:
        trained.net.attach(device)
        accuracy = hx.evaluate(trained.net, DATA.test[:100], encoder=trained.encoder).accuracy
    assert accuracy == pytest.approx(result["test_accuracy"], abs=0.1)


class MyChip(ReferenceBackend):
    """A device of one's own."""


def test_a_backend_of_ones_own_needs_no_registration() -> None:
    """The third sketch of the README."""
    net = network()
    with hx.Device(MyChip()) as device:
        net.attach(device)
        assert net(hx.LatencyEncoder()(DATA.test.images[:5] / 255)).cost is not None
    net.attach(MyChip())
    assert net(hx.LatencyEncoder()(DATA.test.images[:5] / 255)).cost is not None


def test_fit_is_the_training_of_the_command_line(tmp_path: Path) -> None:
    config = digits(2, "software", train_samples=300, test_samples=100)
    run(config, tmp_path, "test", quiet())
    net = config.network.build(64, 10, config.seed)
    penalties = config.regularizer
    hx.fit(net, DATA, penalties=penalties, epochs=2, progress=False, learning_rate_decay=0.95, **SMALL)
    weights = load_checkpoint(tmp_path / "checkpoint.pt")["model"]
    assert all(torch.equal(weights[name], value) for name, value in net.state_dict().items())


def test_a_training_resumes_in_its_folder(tmp_path: Path) -> None:
    nets = [network(), network(), network()]
    hx.fit(nets[0], DATA, epochs=2, progress=False, **SMALL)
    hx.fit(nets[1], DATA, epochs=1, progress=False, folder=tmp_path / "a", **SMALL)
    hx.fit(nets[2], DATA, epochs=2, progress=False, folder=str(tmp_path / "a"), resume=True, **SMALL)
    assert all(map(torch.equal, nets[0].parameters(), nets[2].parameters()))
    with pytest.raises(CheckpointError, match=r"loss: checkpoint 'MaxOverTime\(.*now 'MeanOverTime"):
        hx.fit(network(), DATA, loss=hx.MeanOverTime(), epochs=3, folder=tmp_path / "a", resume=True, **SMALL)
    with pytest.raises(CheckpointError, match=r"network: .*traces='spikes_only'"):
        hx.fit(network(traces="spikes_only"), DATA, epochs=3, folder=tmp_path / "a", resume=True, **SMALL)
    nets[2].stack[1].slope = 5.0
    with pytest.raises(CheckpointError, match=r"network.1: .*slope=5.0"):
        hx.fit(nets[2], DATA, epochs=3, folder=tmp_path / "a", resume=True, **SMALL)


def test_functions_serve_as_loss_penalty_and_surrogate() -> None:
    def loss(output: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(10 * output.amax(0), labels)

    def silence(activity: hx.Activity, weights: list[Tensor]) -> Tensor:
        return 5e-4 * activity.hidden[0].counts.square().mean()  # type: ignore[union-attr]

    def surrogate(x: Tensor, slope: float) -> Tensor:
        return 1 / (1 + slope * x.abs()) ** 2

    named = network()
    hx.fit(named, DATA, penalties=[hx.Burst()], epochs=1, progress=False, **SMALL)
    free = network()
    free.stack[1].surrogate = surrogate
    hx.fit(free, DATA, loss=loss, penalties=[silence], epochs=1, progress=False, **SMALL)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(named.parameters(), free.parameters(), strict=True))


def test_a_spiking_output_has_its_own_default_loss() -> None:
    net = hx.Network(hx.Linear(64, 40, mean=1e-3, gain=1.4), hx.LIF(40), hx.Linear(40, 10, gain=2.0), hx.LIF(10))
    trained = hx.fit(net, DATA, epochs=2, progress=False, learning_rate=3e-3, batch_size=50)
    assert trained.accuracy == hx.evaluate(net, DATA.test).accuracy > 0.4


def test_settings_of_the_gradient_replace_those_of_the_populations() -> None:
    gradients = []
    spikes = hx.LatencyEncoder()(DATA.train.images[:20] / 255)
    chosen = hx.SurrogateGradient(surrogate="triangle", slope=3.0, at_spike="trace")
    for settings, gradient in (
        ({"surrogate": "triangle", "slope": 3.0, "at_spike": "trace"}, None),
        ({}, chosen),
        ({}, None),
    ):
        net = hx.Network(hx.Linear(64, 40, gain=3.0), hx.LIF(40, **settings), hx.Linear(40, 10), hx.LI(10))  # type: ignore[arg-type]
        net.attach(None, gradient)
        hx.MaxOverTime()(net(spikes).readout, DATA.train.labels[:20]).backward()
        gradients.append(net.stack[0].weight.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.equal(gradients[1], gradients[2])


NETWORKS: dict[str, Callable[[], hx.Network]] = {
    "recurrent": lambda: hx.Network(
        hx.Linear(6, 4), hx.LIF(4, surrogate="arctan", slope=3.0), hx.Recurrent(4, gain=0.3), hx.Dropout(0.2),
        hx.Linear(4, 3, autoscale=True), hx.LI(3, tau_mem=8e-6), steps=9, dt=2e-6, weight_bits=4, traces="spikes_only",
    ),
    "inhibition": lambda: hx.Network(
        hx.Linear(6, 4, learned=False), hx.LIF(4), hx.LateralInhibition(4, 0.3), hx.Linear(4, 3), hx.LIF(3)
    ),
    "gradient": lambda: hx.Network(
        hx.Linear(6, 4), hx.LIF(4), hx.Linear(4, 3), hx.LI(3), gradient=hx.SurrogateGradient("boxcar", 3.0, "trace")
    ),
    "double": lambda: hx.Network(hx.Linear(6, 4), hx.LIF(4), hx.Linear(4, 3), hx.LI(3)).double(),
    "masked": lambda: hx.Network(hx.Linear(6, 4, mask=torch.eye(4, 6)), hx.LIF(4), hx.Linear(4, 3), hx.LI(3)),
}  # fmt: skip


def test_a_saved_network_keeps_what_its_loss_learned(tmp_path: Path) -> None:
    net = hx.Network(hx.Linear(4, 6, mean=0.1), hx.LIF(6))
    loss = LOSSES.load("vote")(neurons=6, votes="regression")
    loss.prepare(3)
    output = (torch.rand(20, 30, 6, generator=torch.Generator().manual_seed(0)) > 0.8).float()
    loss.observe(output, torch.arange(30) % 3)
    hx.save(net, tmp_path / "net.pt", loss=loss)
    assert torch.equal(hx.load(tmp_path / "net.pt").loss.scores(output), loss.scores(output))
    state = load_checkpoint(tmp_path / "net.pt")
    save_checkpoint(tmp_path / "net.pt", {**state, "loss_state": {"spikes": state["loss_state"]["spikes"]}})
    with pytest.raises(CheckpointError, match="its state is none of Vote"):
        hx.load(tmp_path / "net.pt")


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_is_stored_whole(tmp_path: Path, name: str) -> None:
    net = NETWORKS[name]()
    hx.save(net, str(tmp_path / "net.pt"), encoder=hx.LatencyEncoder(tau=5e-6), loss=hx.MeanOverTime(readout_scale=2.0))
    stored = hx.load(str(tmp_path / "net.pt"))
    assert str(stored.net) == str(net)
    assert (stored.encoder, stored.loss) == (hx.LatencyEncoder(tau=5e-6), hx.MeanOverTime(readout_scale=2.0))
    for weight, original in zip(stored.net.effective_weights(), net.effective_weights(), strict=True):
        assert weight.dtype == original.dtype
        assert torch.equal(weight, original)
    assert {rule: getattr(stored.net, rule) for rule in net.RULES} == {rule: getattr(net, rule) for rule in net.RULES}


def damaged(path: Path, **entries: Any) -> Path:
    hx.save(network(), path)
    save_checkpoint(path, {**load_checkpoint(path), **entries})
    return path


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"modules": [{"class": "Convolution"}]}, "its modules make no network"),
        ({"modules": [{"class": "LIF", "size": -1}]}, "LIF: size=-1 must be positive"),
        ({"constants": {"dt": "now"}}, "its modules make no network|its settings make no network"),
        ({"encoder": {"kind": "no_module:Mine"}}, "encoder='no_module:Mine' is not registered"),
        ({"loss": {"kind": "max_over_time", "readout_scale": -1.0}}, "readout_scale=-1.0 must be positive"),
        ({"model": {}}, "holds weights {}, the network has"),
        ({"modules": 3}, "modules is a int, which it never is"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, entries: dict[str, Any], text: str) -> None:
    with pytest.raises(CheckpointError, match=text):
        hx.load(damaged(tmp_path / "net.pt", **entries))


def own_surrogate(x: Tensor, slope: float) -> Tensor:
    return x


class OwnLoss(hx.MaxOverTime):
    """A loss that is not registered."""


class OwnLIF(hx.LIF):
    """A population that no file can name."""


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: hx.fit(network(), DATA.train), "data: expected Dataset, got Split; give hx.load_dataset"),
        (lambda: hx.fit(DATA, network()), "net: expected Network, got Dataset; fit"),
        (lambda: hx.fit(network(), DATA, epoch=3), "fit has no argument 'epoch'; did you mean epochs?"),
        (lambda: hx.fit(network(), DATA, augment=3), "augment: expected Augmentation, got int 3"),
        (lambda: hx.fit(network(), DATA, epochs=0), "trainer.epochs=0 must be at least 1"),
        (
            lambda: hx.fit(network(), DATA, hx.MaxOverTime()),
            "rule: expected LearningRule, got MaxOverTime",
        ),
        (lambda: hx.fit(network(), DATA, loss=hx.MaxOverTime), "loss: expected Loss, got the class MaxOverTime"),
        (lambda: hx.fit(network(), DATA, penalties=[3]), "penalties: expected Regularizer, got int 3"),
        (lambda: hx.fit(network(), DATA, penalties=3), "penalties: expected several, got 3"),
        (
            lambda: hx.fit(network(), DATA, hx.Backprop(hx.MaxOverTime()), penalties=[hx.Burst()]),
            "loss and penalties are given twice: rule=backprop has its own",
        ),
        (lambda: hx.fit(network(), DATA, resume=True), "resume=True needs the run directory: give folder"),
        (lambda: hx.fit(network(), DATA, loss=hx.SpikeCount()), "SpikeCount reads spikes of the output"),
        (lambda: hx.evaluate(network(), DATA), "source: expected a part of the data, got Dataset"),
        (lambda: hx.open_device("emulatr"), "Did you mean emulator?"),
        (lambda: hx.open_device("emulator", chp="W66F3"), "backend 'emulator' has no setting 'chp'"),
        (lambda: hx.open_device("emulator", retries=-1), "retries=-1"),
        (lambda: hx.SurrogateGradient(slope=-1.0), "gradient.slope=-1.0 must be positive"),
        (lambda: hx.SurrogateGradient(at_spike="never"), "gradient.at_spike='never' is not known"),
        (lambda: hx.SurrogateGradient(surrogate="step"), "surrogate='step' is not registered"),
        (lambda: network().attach(None, hx.MaxOverTime()), "gradient: expected Gradient, got MaxOverTime"),
        (lambda: network(gradient="boxcar"), "Network: gradient: expected Gradient, got str 'boxcar'"),
        (lambda: setattr(network(), "gradient", "boxcar"), "Network: gradient: expected Gradient, got str 'boxcar'"),
        (
            lambda: hx.save(hx.Network(hx.Linear(2, 2), OwnLIF(2), hx.Linear(2, 2), hx.LI(2)), "x"),
            "OwnLIF cannot be stored by name; networks in files consist of Linear",
        ),
        (
            lambda: hx.save(network(gradient=hx.SurrogateGradient(own_surrogate)), "x.pt"),
            "SurrogateGradient: surrogate=.* cannot be stored; register it under a name",
        ),
        (lambda: hx.save(DATA, "x.pt"), "net: expected Network, got Dataset"),
        (
            lambda: hx.save(
                hx.Network(hx.Linear(2, 2), hx.LIF(2, surrogate=own_surrogate), hx.Linear(2, 2), hx.LI(2)), "x"
            ),
            "LIF: surrogate=.* cannot be stored; register it under a name",
        ),
        (
            lambda: hx.save(network(), "x.pt", loss=OwnLoss()),
            "loss OwnLoss cannot be stored by name; register it",
        ),
    ],
)
def test_mistakes_are_named(call: Callable[[], Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text.replace("?", r"\?")):
        call()


def test_progress_goes_where_it_is_told_to() -> None:
    stream = io.StringIO()
    hx.fit(network(), DATA, epochs=1, progress=Progress(False, Console(file=stream, width=120)), **SMALL)
    assert "epoch   1" in stream.getvalue()


@pytest.mark.parametrize("in_software", [True, False])
def test_a_training_leaves_the_network_as_it_was(in_software: bool) -> None:
    net = network()
    net.attach(MyChip())
    net.in_software = in_software
    trained = hx.fit(net, DATA, epochs=1, progress=False, train_samples=20, test_samples=10)
    assert trained.records[0]["in_software"] == net.in_software == in_software
    assert net.input_watch.active, "the network warns of missing input again"


def test_a_reward_of_ones_own_stays_in_a_training() -> None:
    rewards: list[Any] = []

    class Learner(hx.Backprop):
        def step(self, net: hx.Network, batch: Batch) -> Step:
            rewards.append(self.objective.reward)
            return super().step(net, batch)

    rule = Learner()
    rule.prepare(network(), Objective(hx.MaxOverTime(), reward=own_surrogate))
    hx.fit(network(), DATA, rule, epochs=1, progress=False, train_samples=10, test_samples=10)
    assert rewards == [own_surrogate]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_of_a_network_has_a_twin_of_its_own(duplicate: Callable[[hx.Network], hx.Network]) -> None:
    net = hx.Network(hx.Linear(64, 40, gain=6.0), hx.LIF(40), hx.Linear(40, 10), hx.LI(10))
    net.attach(MyChip())
    twofold = duplicate(net)
    twofold.steps = 5
    assert twofold.runner is twofold.twin
    assert twofold.twin is not net.twin
    spikes = hx.LatencyEncoder()(DATA.test.images[:5] / 255)
    assert len(twofold(spikes).output) == 5
    assert len(net(spikes).output) == net.steps


def test_a_copy_of_a_network_has_weights_of_its_own() -> None:
    net = hx.Network(hx.Linear(64, 40, gain=6.0), hx.LIF(40), hx.Linear(40, 10), hx.LI(10))
    twofold = copy.deepcopy(net)
    with torch.no_grad():
        twofold.stack[0].weight.zero_()
    spikes = hx.LatencyEncoder()(DATA.test.images[:5] / 255)
    assert twofold(spikes).hidden_spikes() == 0 < net(spikes).hidden_spikes()


def test_a_twin_attached_to_a_network_means_software() -> None:
    slow = hx.Network(hx.Linear(64, 40), hx.LIF(40, tau_mem=2e-5), hx.Linear(40, 10), hx.LI(10), steps=9)
    net = network(weight_bits=3)
    net.attach(slow.twin)
    spikes = hx.LatencyEncoder()(DATA.test.images[:5] / 255)
    assert len(slow(spikes).output) == 9, "the twin still runs its network"
    with pytest.raises(ValueError, match="weight_bits=3: in software"):
        net(spikes)


def test_settings_of_a_gradient_take_effect_at_once() -> None:
    def gradient(surrogate: str, successor: str) -> Tensor:
        net = hx.Network(
            hx.Linear(64, 40, gain=6.0), hx.LIF(40), hx.Linear(40, 10), hx.LI(10),
            gradient=hx.SurrogateGradient(surrogate),
        )  # fmt: skip
        net.gradient.surrogate = successor
        net(hx.LatencyEncoder()(DATA.test.images[:5] / 255)).output.sum().backward()
        return net.stack[0].weight.grad

    assert torch.equal(gradient("superspike", successor="boxcar"), gradient("boxcar", successor="boxcar"))
    assert not torch.equal(gradient("superspike", successor="boxcar"), gradient("superspike", successor="superspike"))
