"""Compiled loops do not check bounds: arguments whose shapes or types disagree are refused before they run."""

import pytest
import torch

from hxtrain.backends import Spikes
from hxtrain.gradients import measured_layers
from hxtrain.neurons import Codes, Grads, GridEvents, MeasuredLayer, Model, Saturation, SpikeGrid, conversion
from hxtrain.neurons.engines import cpu

T = 6
B = 3
N = 5
J = 4
M = 2
LINEAR = Model(0.7, 0.8)
SATURATING = LINEAR._replace(saturation=Saturation(1.0, 8))


def events(units=J, samples=B, steps=T):
    return conversion.group_events(
        Spikes.from_times(torch.rand(samples, units, generator=torch.Generator().manual_seed(0)) * steps), 1.0, steps
    )


def forward(**changes):
    defaults = {"weight": torch.rand(N, J), "inputs": events(), "shape": (T, B, N), "recurrent": torch.rand(N, N)}
    return cpu.respond(**(defaults | changes), model=LINEAR, spiking=True)


def follow(**changes):
    defaults = {"weight": torch.rand(N, J), "inputs": events(), "fired": events(N), "shape": (T, B, N)}
    return cpu.follow(**({"recurrent": torch.rand(N, N)} | defaults | changes), model=LINEAR)


def arguments():
    return {
        "fired": events(N),
        "membrane": torch.rand(T, B, N),
        "grads": Grads(torch.rand(T, B, N), torch.rand(T, B, N), torch.rand(B, N)),
        "downstream": (torch.rand(T, B, M), torch.rand(M, N)),
        "events": events(),
        "charges": True,
    }


def backward(**changes):
    return cpu.gradient(LINEAR, **(arguments() | changes))


def saturating(weight=None, **changes):
    weight = torch.rand(N, J) if weight is None else weight
    return cpu.saturating_gradient(SATURATING, weight, **(arguments() | changes))


def layers(**changes):
    values = {
        "weight": torch.rand(N, J),
        "fired": SpikeGrid(torch.zeros(T, B, N)),
        "membrane": torch.rand(T, B, N),
        "inputs": torch.rand(T, B, J),
    } | changes
    layer = MeasuredLayer(values["fired"], values["membrane"])
    return measured_layers([(values["weight"], values.get("recurrent"))], values["inputs"], [layer], [LINEAR])


def test_what_fits_is_taken():
    for call in (forward, follow, backward, saturating, layers):
        call()


DRIVE = [
    {"weight": torch.rand(N, J + 1)},
    {"weight": torch.rand(N - 1, J)},
    {"weight": torch.rand(100 * N, J)},
    {"weight": torch.rand(N, J).double()},
    {"inputs": events(J - 1)},
    {"inputs": events(steps=T - 1)},
    {"inputs": events(samples=B + 1)},
    {"inputs": events()._replace(units=torch.zeros(0, dtype=torch.int64))},
    {"inputs": torch.rand(T + 1, B, J)},
    {"inputs": torch.rand(T, B, J).double()},
    {"shape": (T + 1, B, N)},
    {"shape": (T, B + 1, N)},
    {"shape": (T, B, N + 1)},
    {"shape": (0, B, N)},
    {"recurrent": torch.rand(N, N + 1)},
]
BACKWARD = [
    {"fired": events(N + 1)},
    {"fired": events(N, steps=T - 1)},
    {"membrane": torch.rand(T + 1, B, N)},
    {"membrane": torch.rand(T, B)},
    {"membrane": torch.rand(T, B, N).double()},
    {"membrane": Codes(torch.zeros(B, T + 1, N, dtype=torch.uint8), 70.0)},
    {"membrane": Codes(torch.zeros(B, T, N, dtype=torch.int64), 70.0)},
    {"grads": Grads(spikes=torch.rand(T, B, N - 1))},
    {"grads": Grads(traces=torch.rand(T - 1, B, N))},
    {"grads": Grads(counts=torch.rand(B - 1, N))},
    {"grads": Grads(counts=torch.rand(B, N).double())},
    {"downstream": (torch.rand(T - 1, B, M), torch.rand(M, N))},
    {"downstream": (torch.rand(T, B, M), torch.rand(M + 1, N))},
    {"downstream": (torch.rand(T, B, M), torch.rand(M, N + 1))},
    {"events": events(steps=T - 1)},
    {"events": events(samples=B - 1)},
]
LAYERS = [
    {"weight": torch.rand(N, J + 1)},
    {"weight": torch.rand(N + 1, J)},
    {"fired": SpikeGrid(torch.zeros(T, B, N + 1))},
    {"membrane": torch.rand(T - 1, B, N)},
    {"inputs": torch.rand(T - 1, B, J)},
    {"recurrent": torch.rand(N, N + 1)},
]
CASES = [
    *((forward, change) for change in DRIVE),
    *((follow, change) for change in [*DRIVE, {"fired": events(N - 1)}, {"fired": events(N, steps=T - 1)}]),
    *((backward, change) for change in BACKWARD),
    *((saturating, change) for change in [*BACKWARD, {"weight": torch.rand(N, J + 1)}, {"events": events(J + 1)}]),
    *((layers, change) for change in LAYERS),
]


@pytest.mark.parametrize(("call", "change"), CASES)
def test_other_shapes_and_types_are_refused(call, change):
    with pytest.raises(ValueError, match=r"expected|must match|at least one step|but there are"):
        call(**change)


def test_grids_counts_and_codes_are_checked_too():
    with pytest.raises(ValueError, match="must match"):
        conversion.to_grid(events(), (T, B, J - 1), torch.float32)
    with pytest.raises(ValueError, match="expected"):
        conversion.to_grid(events(), (T - 1, B, J), torch.float32)
    with pytest.raises(ValueError, match="expected"):
        conversion.count_events(events(), T, B + 1)
    for codes in (torch.zeros(B, 0, N, dtype=torch.uint8), torch.zeros(B, N, dtype=torch.uint8), torch.zeros(B, T, N)):
        with pytest.raises(ValueError, match="codes: expected"):
            conversion.membranes(codes, 70.0)


@pytest.mark.parametrize("part", ["sample", "unit", "time"])
def test_events_of_different_lengths_are_refused(part):
    parts = {"sample": torch.zeros(4).long(), "unit": torch.zeros(4).long(), "time": torch.zeros(4)}
    spikes = Spikes.trusted(**(parts | {part: parts[part][:3]}), samples=B, units=J)
    for group in (conversion.group_events, conversion.bin_spikes):
        with pytest.raises(ValueError, match=r"spikes.* expected"):
            group(spikes, 1.0, T)


@pytest.mark.parametrize(("dt", "steps"), [(-1.0, T), (0.0, T), (1.0, 0)])
def test_a_time_grid_needs_steps(dt, steps):
    with pytest.raises(ValueError, match="a time grid needs dt > 0 and at least one step"):
        conversion.group_events(Spikes.from_times(torch.rand(B, J)), dt, steps)


def test_events_on_a_grid_meet_weights_and_gradients_of_their_size():
    grid = GridEvents(Spikes.from_times(torch.rand(B, J)), 1.0, T)
    with pytest.raises(ValueError, match="weights: expected"):
        grid.drive(torch.rand(N, J - 1))
    with pytest.raises(ValueError, match="gradient: expected"):
        grid.weight_gradient(torch.rand(T - 1, B, N))
