"""Networks whose output spikes: twin, gradient, devices, losses on spikes, decision times, training."""

import io
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from test_gradient import as_measured, worst_relative
from test_recurrence import attached, random_spikes, stepwise_layer

import hxtrain as hx
from hxtrain.backends import create_backend
from hxtrain.commands.evaluate import load_trained, silent_neurons
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.comparison import compare
from hxtrain.datasets import DataConfig
from hxtrain.execution.config import BackendConfig
from hxtrain.gradients import measured_layers
from hxtrain.network import NetworkConfig
from hxtrain.neurons import Model, get_surrogate
from hxtrain.objectives import Burst, SpikeCount, SpikeCountMSE, WeightDecay
from hxtrain.objectives.distillation import distillation_loss
from hxtrain.objectives.regularizers import ReadoutAmplitude
from hxtrain.plots.comparison import comparison_figure
from hxtrain.rules import train_step
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint
from hxtrain.runs.progress import Progress
from hxtrain.training.config import TrainerConfig
from hxtrain.training.diagnosis import diagnose

RULE = (get_surrogate("superspike"), 10.0, True)
RECURRENCES = {"feed-forward": list, "recurrent": lambda: [hx.Recurrent(4, gain=4)]}
LABELS = torch.arange(5) % 4


def spiking(recurrence=(), **settings):
    hidden = hx.Linear(20, 16, gain=4), hx.LIF(16)
    return hx.Network(*hidden, hx.Linear(16, 4, gain=8), hx.LIF(4), *recurrence, **settings)


def readout():
    return hx.Network(hx.Linear(20, 16, gain=4), hx.LIF(16), hx.Linear(16, 4, gain=2), hx.LI(4))


# Twin, gradient, devices


@pytest.mark.parametrize("recurrence", RECURRENCES.values(), ids=RECURRENCES)
def test_twin_equals_the_equations_step_by_step(recurrence):
    net = spiking(recurrence())
    spikes = random_spikes()
    with torch.no_grad():
        activity = net(spikes)
        x = spikes.to_grid(net.dt, net.steps)
        for layer, recorded in zip(net.layers, activity.layers, strict=True):
            alpha, beta = net.decays(layer)
            feedback = torch.zeros(len(layer.linear.weight)) if layer.recurrent is None else layer.recurrent.weight.t()
            i = u = torch.zeros(5, layer.neurons.size)
            for t in range(net.steps):
                torch.testing.assert_close(recorded.trace[t], u, atol=1e-4, rtol=1e-4)
                s = (u > 1).float()
                assert torch.equal(recorded.spikes[t], s)
                i = alpha * i + x[t] @ layer.linear.weight.t() + (s @ feedback if feedback.ndim == 2 else 0.0)
                u = beta * u + i - s
            x = recorded.spikes
        assert torch.equal(activity.output, x)
    assert x.sum() > 5


@pytest.mark.parametrize("loss", [SpikeCount(0.7, 0.1), SpikeCountMSE(3.0, 0.5)], ids=["cross-entropy", "mse"])
@pytest.mark.parametrize("settings", [None, {"preset": "ideal"}, {"preset": "uncalibrated"}])
@pytest.mark.parametrize("recurrence", RECURRENCES.values(), ids=RECURRENCES)
def test_gradient_in_the_loop_equals_stepwise_backpropagation(recurrence, settings, loss):
    net = spiking(recurrence())
    if settings is not None:
        attached(net, **settings)
    spikes = random_spikes()
    activity = net(spikes)
    assert activity.output.sum() > 2
    gradients = torch.autograd.grad(loss(activity.output, LABELS), list(net.parameters()))
    assert all(float(part.abs().max()) > 0 for part in gradients)
    measured = [(layer.spikes.detach(), layer.trace.detach()) for layer in activity.layers]
    decays = net.decays(net.layers[0])
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        weights = [weight.detach().to(dtype).requires_grad_() for weight in net.parameters()]
        pairs = [(weights[0], None), (weights[1], weights[2] if len(weights) > 2 else None)]
        layers = [(fired.to(dtype), trace.to(dtype)) for fired, trace in measured]
        dense = x = spikes.to_grid(net.dt, net.steps).to(dtype)
        for (w, v), (fired, trace) in zip(pairs, layers, strict=True):
            x, _ = stepwise_layer(w, v, x, fired, trace, *decays, RULE)
        expected = torch.autograd.grad(loss(x, LABELS), weights)
        if dtype == torch.float64:
            model = Model(*decays, *RULE)
            recordings = [as_measured(*layer) for layer in layers]
            output = measured_layers(pairs, dense, recordings, [model, model])[-1].spikes
            gradients = torch.autograd.grad(loss(output, LABELS), weights)
        assert worst_relative(gradients, expected) < bound, dtype


@pytest.mark.parametrize("backend", ["reference", "emulator"])
def test_devices_have_a_threshold_at_the_output_and_fire_as_the_twin(backend):
    """Each class has five inputs, and five hidden neurons that fire once and drive it to one spike."""
    net = hx.Network(hx.Linear(20, 20), hx.LIF(20), hx.Linear(20, 4), hx.LIF(4))
    label = torch.arange(8) % 4
    times = torch.where(torch.arange(20)[None] // 5 == label[:, None], 1e-6, torch.inf)
    with torch.no_grad():
        group = torch.arange(20) // 5
        net.layers[0].linear.weight.copy_(0.16 * (group[:, None] == group))
        net.layers[1].linear.weight.copy_(0.16 * (torch.arange(4)[:, None] == group))
        twin = net(hx.Spikes.from_times(times))
        attached(net, backend, **({"preset": "ideal"} if backend == "emulator" else {}))
        measured = net(hx.Spikes.from_times(times))
    assert net.device.plan.circuit.populations[1].threshold == net.device.plan.capabilities.threshold
    counts = torch.nn.functional.one_hot(label, 4).float()
    assert torch.equal(twin.output.sum(0), counts)
    assert torch.equal(measured.output.sum(0), counts)
    assert torch.equal(measured.layers[1].counts, counts)
    assert any(label == "layer1: 4 spiking neurons" for label, _, _ in net.device.plan.rows())


def test_spikes_only_models_the_membranes_of_the_output_too():
    net = attached(spiking(traces="spikes_only"), preset="ideal")
    spikes = random_spikes()
    with torch.no_grad():
        activity = net(spikes)
        weight = net.device.plan.as_sent(*net.device.plan.quantise(net.effective_weights()))["layer1"][0]
    layer = activity.layers[1]
    alpha, beta = net.decays(net.layers[1])
    i = u = torch.zeros(5, 4)
    for t in range(net.steps):
        torch.testing.assert_close(layer.trace[t], u, atol=1e-4, rtol=1e-4)
        i = alpha * i + activity.layers[0].spikes[t] @ weight.t()
        u = beta * u + i - layer.spikes[t]
    assert layer.spikes.sum() > 2


def test_hidden_layers_and_penalties_leave_the_output_out():
    net = spiking(RECURRENCES["recurrent"]())
    with torch.no_grad():
        activity = net(random_spikes())
        weights = [weight.detach() for weight in net.effective_weights()]
    assert [layer.counts.shape[1] for layer in activity.hidden] == [16]
    assert activity.hidden_spikes() == float(activity.layers[0].counts.sum())
    assert float(Burst(1.0)(activity, weights)) == pytest.approx(float(activity.layers[0].counts.square().mean()))
    assert float(WeightDecay(1.0)(activity, weights)) == pytest.approx(float(weights[0].square().mean()), rel=1e-6)
    masks = net.silenced_masks(0.5, torch.Generator().manual_seed(0))
    assert masks[1] is None
    assert silent_neurons(net, masks) == {"layer0": 8}


# Losses

COUNTS = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 2.0]])
"""Spikes of three output neurons in two samples."""
SPIKES = torch.stack([(t <= COUNTS).float() for t in range(1, 5)])


def test_losses_on_spikes_equal_their_formulas():
    labels = torch.tensor([0, 2])
    loss = SpikeCount(count_scale=0.5)
    assert torch.equal(loss.scores(SPIKES), COUNTS)
    expected = -sum(math.log(math.exp(0.5 * row[k]) / sum(math.exp(0.5 * c) for c in row))
                    for row, k in zip(COUNTS.tolist(), labels.tolist(), strict=True)) / 2  # fmt: skip
    assert float(loss(SPIKES, labels)) == pytest.approx(expected, rel=1e-6)
    squares = [(3 - 4) ** 2, (1 - 1) ** 2, (0 - 1) ** 2, (0 - 1) ** 2, (2 - 1) ** 2, (2 - 4) ** 2]
    mse = SpikeCountMSE(true_count=4.0, false_count=1.0)
    assert float(mse(SPIKES, labels)) == pytest.approx(sum(squares) / 6)
    soft = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert float(mse(SPIKES, soft)) == pytest.approx(sum(squares) / 6)
    assert float(distillation_loss(loss.logits(SPIKES), 0.5 * COUNTS, 2.0)) == pytest.approx(0.0, abs=1e-6)


def step(net, loss, penalties=()):
    return train_step(net, loss, penalties, torch.optim.Adam(net.parameters()), random_spikes(), LABELS)


MISFITS = {
    "membranes of spikes": (lambda: step(spiking(), hx.MaxOverTime()), r"MaxOverTime reads membranes .* in LIF\(4\)"),
    "spikes of membranes": (lambda: step(readout(), SpikeCount()), r"SpikeCount reads spikes .*; end it in LIF\(4\)"),
    "a penalty": (lambda: step(spiking(), SpikeCount(), [ReadoutAmplitude()]), "ReadoutAmplitude reads membranes"),
    "a comparison": (lambda: compare(spiking(), None, None, random_spikes(), hx.MaxOverTime()), "MaxOverTime reads"),
    "the readout": (lambda: spiking()(random_spikes()).readout, "ends in a spiking LIF.*use activity.output"),
    "a label": (lambda: SpikeCountMSE()(SPIKES, torch.tensor([0, 3])), r"labels span 0\.\.3, but the output has 3"),
    "a scale": (lambda: SpikeCount(count_scale=0.0), "loss.count_scale=0.0 must be positive"),
    "targets": (lambda: SpikeCountMSE(1.0, 2.0), "true_count=1.0 and loss.false_count=2.0 must be in"),
    "an output": (lambda: NetworkConfig(output="both"), "network.output='both' is not known; choose one of membranes"),
    "an autoscale": (lambda: NetworkConfig(output="spikes", autoscale_readout=True), "has a threshold; leave one out"),
}  # fmt: skip


@pytest.mark.parametrize("build", MISFITS)
def test_misfits_of_an_output_are_named(build, mocker):
    passes = mocker.spy(hx.Network, "_pass")
    action, text = MISFITS[build]
    with pytest.raises(ValueError, match=text):
        action()
    assert passes.call_count == (build == "the readout")


def test_a_run_whose_loss_does_not_fit_ends_before_the_device_opens(tmp_path, mocker):
    configure = mocker.spy(hx.Device, "place")
    config = digits("emulator", loss=hx.MaxOverTime())
    with pytest.raises(ValueError, match="MaxOverTime reads membranes of the output"):
        run(config, tmp_path, "test", silent())
    assert configure.call_count == 0


def test_decisions_on_spikes_fall_when_the_step_of_the_spike_is_over():
    """Neuron 1 leads from step 1 on; a tie at the end is decided at the end of the window."""
    spikes = torch.zeros(4, 2, 2)
    spikes[1, 0, 1] = spikes[3, 0, 1] = 1
    assert SpikeCount().decision_times(spikes, 2.0).tolist() == [4.0, 8.0]
    assert SpikeCountMSE().decision_times(spikes, 2.0).tolist() == [4.0, 8.0]


# Diagnosis, comparison, training


def test_a_silent_output_is_diagnosed_as_such():
    net = spiking()
    with torch.no_grad():
        net.layers[1].linear.weight.zero_()
    assert any(
        "layer1 is silent" in text and "there is no answer" in text
        for text in diagnose(net, net(random_spikes()), True)
    )


def test_two_devices_with_a_spiking_output_are_compared():
    net = spiking()
    with (
        hx.Device(create_backend("reference")) as first,
        hx.Device(create_backend("emulator", preset="ideal")) as second,
    ):
        comparison = compare(net, first, second, random_spikes(20), SpikeCount(), torch.arange(20) % 4)
    assert [layer.rates is None for layer in comparison.layers] == [False, False]
    assert comparison.same_answers.repeat == 1.0
    titles = [axes.get_xlabel() for axes in comparison_figure(comparison).axes]
    assert titles.count("cosine of the gradients") == 1


def silent():
    return Progress(show=False, console=Console(file=io.StringIO()))


def digits(backend, epochs=3, loss=None, **trainer):
    return RunConfig(
        backend=BackendConfig(backend),
        network=NetworkConfig(hidden=[40], init_gain=3.0, init_mean=0.02, output="spikes"),
        loss=loss or SpikeCount(),
        data=DataConfig("digits"),
        trainer=TrainerConfig(
            epochs=epochs, batch_size=50, progress=False, plots=epochs == 3, train_samples=300, test_samples=100,
            learning_rate=1e-2, learning_rate_decay=1.0, **trainer,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("loss", [SpikeCount(), SpikeCountMSE()], ids=["cross-entropy", "mse"])
@pytest.mark.parametrize("backend", ["software", "emulator"])
def test_runs_with_a_spiking_output_learn_and_are_read_again(tmp_path, backend, loss):
    outcome = run(digits(backend, loss=loss), tmp_path, "test", silent())
    losses = [record["train_loss"] for record in load_checkpoint(tmp_path / "checkpoint.pt")["records"]]
    assert losses[2] < 0.9 * losses[0]
    assert outcome["test_accuracy"] > 0.2
    assert (tmp_path / "plots" / "samples.png").exists()
    trained = load_trained(str(tmp_path / "checkpoint.pt"))
    assert trained.loss == loss
    assert trained.net.output_kind == "spikes"


def test_a_resumed_run_keeps_its_output(tmp_path):
    run(digits("software", 1), tmp_path, "test", silent())
    config = digits("software", 2, resume=True)
    readout_config = replace(config, network=replace(config.network, output="membranes"), loss=hx.MaxOverTime())
    with pytest.raises(CheckpointError, match=r"network\.output: checkpoint 'spikes', now 'membranes'"):
        run(readout_config, tmp_path, "test", silent())
