"""What holds for every learning rule, as checks of a case: `test_every_rule.py` has the cases."""

from __future__ import annotations

import tempfile
import tracemalloc
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hxtrain as hx
from hxtrain.backends import Backend, BackendWrapper, Recording, Stimulus, create_backend
from hxtrain.backends.replay import Recorder, ReplayError
from hxtrain.network import Activity
from hxtrain.neurons.conversion import on_grid
from hxtrain.objectives import Loss
from hxtrain.objectives.losses import default_loss
from hxtrain.rules import Batch, LearningRule, Need, Objective, Step, StreamingRule, Window, learn

INPUTS = 12
CLASSES = 3
STEPS = 20
NUMPY = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
"""Memory of numpy's arrays, among all that Python allocates."""
WINDOW = 20
"""Time steps that a rule sees at a time when its memory is measured."""
LENGTHS = (100, 1_000)
"""Lengths of a trial whose peaks of memory are compared (time steps); a case may have longer ones, which take long."""


def network(steps: int = STEPS, output: str = "membranes", **settings: Any) -> hx.Network:
    """Return a network of 12 inputs, 20 hidden neurons and 3 outputs, in double precision.

    Args:
        steps: Number of time steps.
        output: Kind of the output, `membranes` or `spikes`.
        settings: Settings of the network.
    """
    readout = hx.Linear(20, CLASSES), hx.LI(CLASSES)
    last = readout if output == "membranes" else (hx.Linear(20, CLASSES, gain=6.0), hx.LIF(CLASSES))
    return hx.Network(hx.Linear(INPUTS, 20, gain=6.0), hx.LIF(20), *last, steps=steps, seed=1, **settings).double()


def spiking_network(steps: int = STEPS) -> hx.Network:
    """Return the network with an output that spikes."""
    return network(steps, "spikes")


def random_batch(net: hx.Network, samples: int = 8) -> Batch:
    """Return samples with a spike of each input in the first 80 % of the window, and labels of all classes."""
    generator = torch.Generator().manual_seed(3)
    units = net.layers[0].linear.inputs
    times = torch.rand(samples, units, generator=generator) * 0.8 * min(net.steps, STEPS) * net.dt
    return Batch(hx.Spikes.from_times(times), torch.arange(samples) % net.layers[-1].neurons.size)


def plain_objective(net: hx.Network) -> Objective:
    """Return the default loss of a network as an objective."""
    return Objective(default_loss(net))


@dataclass(frozen=True)
class Case:
    """How a rule runs in the checks.

    Attributes:
        rule: Makes the rule, with settings by which a step changes weights, and nothing happens without activity.
        net: Makes the network, for a number of time steps.
        batch: Makes the samples of a step.
        objective: Makes loss, reward and target spike trains.
        learning_rate: Learning rate of plain descent.
        reduction: Change of a batch in terms of the changes of its samples; None where there is no such relation.
        tolerance: Largest difference between a trial in windows and as a whole, relative to the largest gradient; 0:
            they are bit-equal, as for rules of events.
        lengths: Lengths of a trial whose peaks of memory are compared (time steps).
    """

    rule: Callable[[], LearningRule]
    net: Callable[[int], hx.Network] = network
    batch: Callable[[hx.Network], Batch] = random_batch
    objective: Callable[[hx.Network], Objective] = plain_objective
    learning_rate: float = 1e-3
    reduction: Literal["mean", "sum"] | None = "mean"
    tolerance: float = 1e-12
    lengths: tuple[int, ...] = LENGTHS


class Training:
    """A network with a prepared rule and an optimiser.

    Args:
        case: Case of the rule.
        backend: Device; None: the network runs in software.
        rule: Rule; None: that of the case.
        steps: Number of time steps.
        masked: Whether half of the synapses are absent.
    """

    def __init__(
        self,
        case: Case,
        backend: Backend | None = None,
        rule: LearningRule | None = None,
        steps: int = STEPS,
        masked: bool = False,
    ) -> None:
        self.net = case.net(steps)
        for projection in self.net.projections if masked else ():
            rows, columns = projection.synapses.weight.shape
            parity = torch.arange(rows)[:, None] + torch.arange(columns)
            self.net.set_mask(projection.name, parity % 2 == 0)
        self.rule = case.rule() if rule is None else rule
        self.objective = case.objective(self.net)
        self.batch = case.batch(self.net)
        if backend is not None:
            device = hx.Device(backend)
            device.__enter__()
            self.net.attach(device)
        loss = self.objective.loss
        if isinstance(loss, Loss):
            targets = self.objective.targets
            outputs = self.net.layers[-1].neurons.size
            loss.prepare(loss.classes(outputs) if targets is None else targets.samples, targets)
        self.rule.prepare(self.net, self.objective)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=case.learning_rate)

    def step(self, batch: Batch | None = None) -> Step:
        """Leave the gradients of a step in `.grad`."""
        return self.rule.step(self.net, self.batch if batch is None else batch)

    def gradients(self, batch: Batch | None = None) -> dict[str, Tensor]:
        """Return the gradients of a step; those without a gradient are zero."""
        self.net.zero_grad(set_to_none=True)
        self.step(batch)
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in self.net.named_parameters()
        }

    def learn(self, count: int) -> None:
        """Train some steps as a trainer does."""
        for _ in range(count):
            learn(self.net, self.rule, self.optimizer, self.batch, before_step=self._observe)

    def _observe(self, step: Step) -> None:
        loss = self.objective.loss
        if isinstance(loss, Loss):
            with torch.no_grad():
                loss.observe(loss.read(step.activity), self.batch.labels)

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint holds, as a file gives it back."""
        loss = self.objective.loss
        state = {
            "model": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rule": self.rule.state_dict(),
            "loss": loss.state_dict() if isinstance(loss, Loss) else {},
            "penalties": [penalty.state_dict() for penalty in self.objective.penalties],
        }
        file = BytesIO()
        torch.save(state, file)
        file.seek(0)
        restored: dict[str, Any] = torch.load(file, weights_only=True)
        return restored

    def take(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.net.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rule.load_state_dict(state["rule"])
        if isinstance(self.objective.loss, Loss):
            self.objective.loss.load_state_dict(state["loss"])
        for penalty, values in zip(self.objective.penalties, state["penalties"], strict=True):
            penalty.load_state_dict(values)


class Silent(BackendWrapper):
    """A device of which no neuron does anything."""

    def map_recording(self, recording: Recording, stimulus: Stimulus) -> Recording:
        """Return a recording without spikes, with membranes at rest."""
        spikes = {name: silence(events.samples, events.units) for name, events in recording.spikes.items()}
        rest = round(self.capabilities.leak)
        return replace(
            recording,
            spikes=spikes,
            traces={name: torch.full_like(codes, rest) for name, codes in recording.traces.items()},
        )


def silence(samples: int, units: int) -> hx.Spikes:
    """Return no events of a number of samples."""
    return hx.Spikes.from_events([], [], [], samples, units)


def a_recording_without_activity_changes_nothing(case: Case) -> None:
    """Without events and spikes, and with membranes at rest, every gradient is zero."""
    training = Training(case, Silent(create_backend("emulator", preset="ideal")))
    training.net.input_watch.active = False
    spikes = training.batch.spikes
    gradients = training.gradients(training.batch._replace(spikes=silence(spikes.samples, spikes.units)))
    changed = [name for name, grad in gradients.items() if bool(grad.any())]
    assert not changed, f"gradients of {changed} without any activity"


def gradients_are_finite_and_have_the_shape_of_the_weights(case: Case) -> None:
    """A step in software and one on a device change weights, by finite numbers."""
    for backend in (None, create_backend("emulator", preset="ideal")):
        training = Training(case, backend)
        step = training.step()
        grads = {name: (p, p.grad) for name, p in training.net.named_parameters() if p.grad is not None}
        assert all(grad.shape == p.shape and grad.dtype == p.dtype for p, grad in grads.values())
        assert all(bool(torch.isfinite(grad).all()) for _, grad in grads.values())
        assert any(bool(grad.any()) for _, grad in grads.values()), "the step changes nothing; choose other settings"
        assert isinstance(step, Step)
        assert isinstance(step.activity, Activity)
        assert np.isfinite(step.loss)


def a_batch_is_the_mean_of_its_samples(case: Case) -> None:
    """The change of a batch is the mean (or the sum) of the changes of its samples."""
    if case.reduction is None:
        pytest.skip("the changes of samples depend on one another")
    batch = Training(case).batch
    samples = batch.spikes.samples
    whole = Training(case).gradients()
    singles = [
        Training(case).gradients(batch._replace(spikes=batch.spikes[[i]], labels=batch.labels[[i]]))
        for i in range(samples)
    ]
    for name, grad in whole.items():
        total = torch.stack([single[name] for single in singles]).sum(0)
        expected = total / samples if case.reduction == "mean" else total
        assert_close(grad, expected, 1e-10 if grad.dtype == torch.float64 else 1e-5, name)


def equal_states_give_equal_changes(case: Case) -> None:
    """A step is a function of state and samples; global random numbers do not enter."""
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the generator that a rule must not use
        training = Training(case)
        training.learn(2)
        results.append(training.state())
    assert_equal(*results)


def software_sees_inputs_on_the_time_grid(case: Case) -> None:
    """In software, inputs anywhere within their time steps give the gradients of inputs at the starts of the steps."""
    training = Training(case)
    batch = training.batch
    grid = batch._replace(spikes=on_grid(batch.spikes, training.net.dt))
    assert not torch.equal(grid.spikes.time, batch.spikes.time)
    assert_equal(training.gradients(), Training(case).gradients(grid))


def windows_make_no_difference(case: Case) -> None:
    """A trial in windows of any length gives the gradients of the trial in one."""
    rule = streaming(case)
    whole = Training(case, rule=replace(rule, window=STEPS)).gradients()
    for window in (1, 3, 7, 50):
        parts = Training(case, rule=replace(rule, window=window)).gradients()
        for name, grad in parts.items():
            if case.tolerance:
                assert_close(grad, whole[name], case.tolerance, f"{name}, windows of {window}")
            else:
                assert torch.equal(grad, whole[name]), f"{name} differs with windows of {window}"


def a_replay_gives_the_same_weights(case: Case) -> None:
    """A training that is fed from recordings ends with the very weights of the live one."""
    with tempfile.TemporaryDirectory() as archive:
        live = Training(case, Recorder(create_backend("emulator", preset="uncalibrated"), archive))
        live.learn(3)
        replayed = Training(case, create_backend("replay", archive=archive))
        try:
            replayed.learn(3)
        except ReplayError as error:
            raise AssertionError(f"the replay gives other weights: {error}") from error
    assert_equal(live.state(), replayed.state())


def a_resumed_training_is_the_same(case: Case) -> None:
    """Two steps, a checkpoint, and two more steps in a new process end like four steps."""
    whole = Training(case)
    whole.learn(4)
    first = Training(case)
    first.learn(2)
    second = Training(case)
    second.take(first.state())
    second.learn(2)
    assert_equal(whole.state(), second.state())


def memory_does_not_grow_with_a_trial(case: Case) -> None:
    """The peak of memory while a rule sees a trial in windows is the same for trials of any length."""
    rule = streaming(case)
    peak_of(case, replace(rule, window=WINDOW), min(case.lengths))  # loops are compiled
    peaks = [peak_of(case, replace(rule, window=WINDOW), steps) for steps in case.lengths]
    assert max(peaks) <= 1.05 * min(peaks), f"peaks of {peaks} bytes for {case.lengths} steps"


class Watched(BackendWrapper):
    """A device that notes which synapses ever had a weight other than zero.

    Attributes:
        used: Synapses with a weight in some run, True in `[N, J]`, by projection.
        runs: Number of runs.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.used: dict[str, Tensor] = {}
        self.runs = 0

    def map_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Note the weights of a run, and pass them on."""
        self.runs += 1
        for name, matrix in weights.items():
            self.used[name] = self.used.get(name, torch.zeros_like(matrix, dtype=torch.bool)) | (matrix != 0)
        return weights


def absent_synapses_are_never_sent(case: Case) -> None:
    """In 100 steps, no matrix that the device gets has a weight where a mask has no synapse."""
    backend = Watched(create_backend("emulator", preset="ideal"))
    training = Training(case, backend, masked=True)
    training.learn(100)
    assert backend.runs >= 100
    for projection in training.net.projections:
        mask = projection.synapses.mask
        assert mask is not None
        used = backend.used[projection.name]
        assert not bool((used & ~mask).any()), f"a weight of {projection.name} where there is no synapse"
        assert bool(used.any()), f"no weight of {projection.name} at all"


def settings_stay_settings(case: Case) -> None:
    """A step leaves the fields of a rule as they were, and the rule says what it reads and solves."""
    training = Training(case)
    assert training.rule.check(training.net, None) == []
    settings = asdict(case.rule())
    training.learn(1)
    assert asdict(training.rule) == settings
    rule = type(training.rule)
    assert rule.needs
    assert all(isinstance(need, Need) for need in rule.needs)
    assert rule.solves, "name the task that the rule was shown to solve, in `solves`"
    assert (rule.__doc__ or "").strip()


CHECKS: tuple[Callable[[Case], None], ...] = (
    a_recording_without_activity_changes_nothing,
    gradients_are_finite_and_have_the_shape_of_the_weights,
    a_batch_is_the_mean_of_its_samples,
    equal_states_give_equal_changes,
    software_sees_inputs_on_the_time_grid,
    windows_make_no_difference,
    a_replay_gives_the_same_weights,
    a_resumed_training_is_the_same,
    memory_does_not_grow_with_a_trial,
    absent_synapses_are_never_sent,
    settings_stay_settings,
)


def streaming(case: Case) -> StreamingRule:
    """Return the rule of a case, if it takes a trial in windows."""
    rule = case.rule()
    if not isinstance(rule, StreamingRule):
        pytest.skip("the rule takes whole trials")
    return rule


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that live at a time, of those that are made within the block.

    Attributes:
        live: Bytes of the tensors that live.
        peak: Largest value of `live`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._storages: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        if storage in self._storages:
            return
        size = storage.nbytes()
        self._storages.add(storage)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.live -= size


def peak_of(case: Case, rule: StreamingRule, steps: int) -> int:
    """Return the peak of torch's memory with numpy's at the end (bytes), while a rule sees a trial of random spikes."""
    training = Training(case, rule=rule, steps=steps)
    net = training.net
    tracemalloc.start()
    try:
        with torch.no_grad(), PeakMemory() as memory:
            rule.begin(net, training.batch)
            for window in random_windows(net, training.batch, rule):
                rule.observe(net, training.batch, window)
        arrays = tracemalloc.take_snapshot().filter_traces([NUMPY]).traces
    finally:
        tracemalloc.stop()
    return memory.peak + sum(array.size for array in arrays)


def random_windows(net: hx.Network, batch: Batch, rule: StreamingRule) -> Iterator[Window]:
    """Yield the windows of a trial of random activity, each of which is made when it is asked for."""
    generator = torch.Generator().manual_seed(5)
    samples = batch.spikes.samples
    sizes = [layer.neurons.size for layer in net.layers]
    is_spiking = [layer.neurons.spiking for layer in net.layers]
    reads_membranes = Need.MEMBRANES in rule.needs
    for first in range(0, net.steps, rule.window):
        count = min(rule.window, net.steps - first)

        def draw(units: int, count: int = count) -> Tensor:
            return torch.rand(count, samples, units, generator=generator, dtype=torch.float64)

        yield Window(
            first,
            (draw(net.layers[0].linear.inputs) < 0.05).float(),
            [(draw(n) < 0.05).double() if fires else None for n, fires in zip(sizes, is_spiking, strict=True)],
            [draw(n) if reads_membranes else None for n in sizes],
        )


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, label: str) -> None:
    """Compare two tensors, relative to the largest value."""
    largest = float(expected.abs().max())
    difference = float((actual - expected).abs().max())
    assert difference <= tolerance * max(largest, 1e-300), f"{label}: {difference:.3g} apart, largest {largest:.3g}"


def assert_equal(first: Any, second: Any, label: str = "state") -> None:
    """Compare two states bit by bit."""
    assert type(first) is type(second), label
    if isinstance(first, Tensor):
        assert torch.equal(first, second), f"{label} differs by {float((first - second).abs().max()):.3g}"
    elif isinstance(first, Mapping):
        assert first.keys() == second.keys(), label
        for name, value in first.items():
            assert_equal(value, second[name], f"{label}.{name}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), label
        for number, (value, twin) in enumerate(zip(first, second, strict=True)):
            assert_equal(value, twin, f"{label}[{number}]")
    else:
        assert first == second, label
