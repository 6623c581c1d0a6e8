"""Losses of decisions by firing, and of the correlation with target spike trains."""

import math

import pytest
import torch

import hxtrain as hx
from hxtrain.objectives.correlation import TrainCorrelation
from hxtrain.objectives.firing import Firing

DT = 1e-6


def output(counts, steps=5):
    """Return spikes `[T, B, N]` with these numbers `[B, N]`."""
    counts = torch.tensor(counts)
    return (torch.arange(steps)[:, None, None] < counts).float()


@pytest.mark.parametrize(("neurons", "classes", "size"), [(1, 2, 1), (3, 2, 3), (1, 3, 3), (2, 10, 20)], ids=str)
def test_firing_has_neurons_for_each_class(neurons, classes, size):
    loss = Firing(neurons=neurons)
    assert loss.outputs(classes) == size
    assert loss.classes(size) == classes


def test_neurons_fire_for_their_class():
    assert Firing().goals([0, 1], 1).tolist() == [[False], [True]]
    assert Firing(neurons=2).goals([2, 0], 6).long().tolist() == [[0, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 0]]


def test_the_answer_is_the_class_of_which_most_neurons_fire():
    spikes = output([[0, 4, 1, 1, 0, 0], [2, 0, 0, 0, 0, 0]])
    assert Firing(neurons=2).scores(spikes).tolist() == [[0.5, 1.0, 0.0], [0.5, 0.0, 0.0]]
    assert Firing().scores(output([[0], [3]])).argmax(1).tolist() == [0, 1]


def test_the_loss_is_the_share_of_wrong_neurons():
    loss = Firing()
    assert float(loss(output([[0], [3], [1], [0]]), [0, 1, 0, 1])) == 0.5
    assert float(loss(output([[1, 0, 0], [1, 1, 0]]), [0, 1])) == pytest.approx(1 / 6)


def test_its_gradient_asks_silent_neurons_to_fire_and_others_to_be_silent():
    spikes = output([[0], [1], [2], [1]]).requires_grad_()
    Firing()(spikes, [1, 0, 0, 1]).backward()
    assert spikes.grad[0, :, 0].tolist() == [-0.5, 0.5, 0.0, 0.0]


def test_firing_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"loss.neurons=0 must be at least 1"):
        Firing(neurons=0)
    with pytest.raises(ValueError, match=r"2 output neurons are not 1 \(two classes\), nor so many for each of three"):
        Firing().classes(2)
    with pytest.raises(ValueError, match=r"labels span 0\.\.3, but 3 neurons tell 3 classes apart"):
        Firing().goals([0, 3], 3)


def fired(times):
    """Return the activity of a network whose neuron n fires at the given times [n]: inputs drive it directly."""
    net = hx.Network(hx.Linear(len(times), len(times), gain=0.0), hx.LIF(len(times), 3e-7, 3e-7), dt=DT, steps=60)
    with torch.no_grad():
        net.projections[0].synapses.weight.copy_(1.5 * torch.eye(len(times)))
    events = [(0, n, time - DT) for n, train in enumerate(times) for time in train]
    sample, unit, time = zip(*events, strict=True)
    spikes = hx.Spikes.from_events(list(sample), list(unit), list(time), 1, len(times))
    return net, net(spikes)


def targets(*classes):
    """Return target trains: of each class, of each neuron, the times."""
    events = [(c, n, time) for c, trains in enumerate(classes) for n, train in enumerate(trains) for time in train]
    sample, unit, time = zip(*events, strict=True)
    return hx.Spikes.from_events(list(sample), list(unit), list(time), len(classes), len(classes[0]))


def correlation(times, *classes, sigma=2e-6):
    loss = TrainCorrelation(sigma=sigma)
    loss.prepare(len(classes), targets(*classes))
    return loss.scores(loss.read(fired(times)[1])).detach()


def test_equal_trains_have_a_correlation_of_one():
    times = [[1e-5, 3e-5], [2e-5]]
    assert float(correlation(times, times)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shift", [1e-6, 3e-6])
def test_the_correlation_falls_with_the_distance_of_spikes(shift):
    value = correlation([[2e-5]], [[2e-5 + shift]])
    assert float(value) == pytest.approx(math.exp(-((shift / 2e-6) ** 2) / 4), abs=1e-3)


def test_the_class_with_the_nearest_trains_is_the_answer():
    values = correlation([[2e-5]], [[1e-5]], [[2.2e-5]], [[4e-5]])
    assert int(values.argmax(1)) == 1


def test_a_silent_output_has_no_correlation():
    loss = TrainCorrelation()
    loss.prepare(1, targets([[1e-5]]))
    net = hx.Network(hx.Linear(1, 1, gain=0.0), hx.LIF(1), dt=DT, steps=20)
    activity = net(hx.Spikes.from_events([0], [0], [1e-6], 1, 1))
    assert float(loss(loss.read(activity), [0]).detach()) == 1


def test_the_loss_has_a_gradient():
    net, activity = fired([[1e-5, 3e-5]])
    loss = TrainCorrelation()
    loss.prepare(1, targets([[1.2e-5, 2.8e-5]]))
    loss(loss.read(activity), [0]).backward()
    assert bool(net.projections[0].synapses.weight.grad.any())


def test_the_network_gets_a_neuron_for_each_target_train():
    loss = TrainCorrelation()
    trains = targets([[1e-5], [2e-5]], [[1e-5], [3e-5]], [[2e-5], [1e-5]])
    assert (loss.outputs(3, trains), loss.classes(2)) == (2, 3)


def test_correlation_refuses_data_without_targets():
    with pytest.raises(ValueError, match="loss=correlation needs target spike trains; choose data that have them"):
        TrainCorrelation().outputs(10)
    with pytest.raises(ValueError, match=r"loss.sigma=0.0 s must be positive"):
        TrainCorrelation(sigma=0.0)
    loss = TrainCorrelation()
    loss.prepare(1, targets([[1e-5]]))
    with pytest.raises(ValueError, match="the output has 2 neurons, but the targets 1; give it as many"):
        loss.read(fired([[1e-5], [1e-5]])[1])
