"""The compiled engine of the host equals the readable one in all results."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch

import hxtrain as hx
from hxtrain.backends import Spikes, create_backend
from hxtrain.gradients import measured_layers
from hxtrain.network.twin import simulate
from hxtrain.neurons import (
    SURROGATES,
    Codes,
    Grads,
    GridEvents,
    MeasuredLayer,
    Model,
    SpikeGrid,
    UnrecordedMembranes,
    conversion,
    threads,
)
from hxtrain.neurons.engines import Demand, ModelLayer, cpu, engine_for, readable

DT = 1.7e-6
STEPS = 17
SAMPLES = 9
INPUTS = 11
NEURONS = 70
DTYPES = [(torch.float64, 1e-12), (torch.float32, 2e-5)]


def events(seed: int = 1, count: int = 400) -> Spikes:
    g = torch.Generator().manual_seed(seed)
    return Spikes.from_events(
        torch.randint(SAMPLES, (count,), generator=g),
        torch.randint(INPUTS, (count,), generator=g),
        torch.rand(count, generator=g) * STEPS * DT * 1.2,  # some after the window
        SAMPLES,
        INPUTS,
    )


def normal(*shape: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(actual: torch.Tensor, expected: torch.Tensor, bound: float) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= bound * float(expected.abs().max())


def test_events_are_grouped_by_sample_and_step() -> None:
    spikes = events()
    offsets, units, sources = conversion.group_events(spikes, DT, STEPS)
    grid = torch.zeros(STEPS, SAMPLES, INPUTS)
    for b in range(SAMPLES):
        for t in range(STEPS):
            row = b * STEPS + t
            for unit in units[offsets[row] : offsets[row + 1]]:
                grid[t, b, unit] += 1
    assert torch.equal(grid, spikes.to_grid(DT, STEPS))
    assert int(offsets[-1]) == int(grid.sum()) < len(spikes)
    assert sources == INPUTS
    assert torch.equal(conversion.count_events(conversion.group_events(spikes, DT, STEPS), STEPS, SAMPLES), grid.sum(0))


def test_spikes_on_a_grid_count_once_per_step() -> None:
    spikes = events(count=3000)
    grouped = conversion.bin_spikes(spikes, DT, STEPS)
    expected = spikes.to_grid(DT, STEPS, binary=True)
    assert expected.sum() < spikes.to_grid(DT, STEPS).sum()
    assert torch.equal(conversion.to_grid(grouped, tuple(expected.shape), torch.float32), expected)
    regrouped = conversion.group_grid(expected)
    assert torch.equal(regrouped.offsets, grouped.offsets)
    assert torch.equal(conversion.to_grid(regrouped, tuple(expected.shape), torch.float32), expected)
    assert regrouped.sources == grouped.sources == INPUTS
    assert len(grouped.units) == int(grouped.offsets[-1]) == int(expected.sum())
    assert torch.equal(conversion.count_events(grouped, STEPS, SAMPLES), expected.sum(0))


def test_no_events_are_no_problem() -> None:
    none = torch.zeros(0)
    silent = Spikes(none.long(), none.long(), none, SAMPLES, INPUTS)
    grouped = conversion.bin_spikes(silent, DT, STEPS)
    assert not conversion.to_grid(grouped, (STEPS, SAMPLES, INPUTS), torch.float32).any()
    weight = normal(NEURONS, INPUTS, seed=1, dtype=torch.float32)
    fired, trace = cpu.respond(weight, grouped, (STEPS, SAMPLES, NEURONS), Model(0.7, 0.8), True, None)
    assert not trace.any()
    assert len(fired.units) == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sample": SAMPLES}, f"event 2 of 4 has sample {SAMPLES}, unit 0"),
        ({"sample": -1}, "has sample -1"),
        ({"unit": INPUTS}, rf"unit {INPUTS} and time 0 s, outside 0..{SAMPLES - 1}, 0..{INPUTS - 1} and >= 0 s; build"),
        ({"unit": -1}, "unit -1"),
        ({"time": -1e-6}, "time -1e-06 s"),
        ({"time": float("nan")}, "time nan s"),
    ],
)
def test_events_out_of_range_are_refused(change: dict[str, float], text: str) -> None:
    """`Spikes.trusted` does not check events, and the loops do not check bounds."""
    parts = [torch.zeros(4, dtype=dtype) for dtype in (torch.int64, torch.int64, torch.float32)]
    for part, name in zip(parts, ("sample", "unit", "time"), strict=True):
        part[2] = change.get(name, 0)
    spikes = Spikes.trusted(*parts, SAMPLES, INPUTS)
    for group in (conversion.group_events, conversion.bin_spikes):
        with pytest.raises(ValueError, match=text):
            group(spikes, DT, STEPS)
    weight = normal(NEURONS, INPUTS + 1, seed=1, dtype=torch.float32)
    good = conversion.group_events(events(), DT, STEPS)
    with pytest.raises(ValueError, match=rf"events have {INPUTS} sources, the weights {INPUTS + 1}"):
        cpu.respond(weight, good, (STEPS, SAMPLES, NEURONS), Model(0.7, 0.8), True, None)


def test_membranes_of_codes() -> None:
    codes = torch.randint(256, (SAMPLES, STEPS, NEURONS), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    for part in (codes, codes[2:5], codes[:, :, 3:40]):
        expected = (part.float() - part[:, :1].float()).transpose(0, 1) / 70.0
        membranes = conversion.membranes(part, 70.0)
        assert membranes.is_contiguous()
        torch.testing.assert_close(membranes, expected)


@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_responses_of_the_twin(dtype: torch.dtype, bound: float, recurrent: bool, dense: bool) -> None:
    """Spiking layers and a downstream readout, from events and from a grid."""
    model = Model(0.75, 0.8)
    weight = 0.6 * normal(NEURONS, INPUTS, seed=3, dtype=dtype)
    recurrent_weight = 0.15 * normal(NEURONS, NEURONS, seed=4, dtype=dtype) if recurrent else None
    readout_weight = normal(5, NEURONS, seed=5, dtype=dtype)
    sparse = GridEvents(events(), DT, STEPS)
    inputs = events().to_grid(DT, STEPS).to(dtype) if dense else sparse
    shape = (STEPS, SAMPLES, NEURONS)
    grouped, trace = cpu.respond(weight, inputs if dense else sparse.grouped, shape, model, True, recurrent_weight)
    spikes = conversion.to_grid(grouped, shape, dtype)
    layer = ModelLayer(model, weight, recurrent_weight, inputs)
    answer, membrane = readable.READABLE.respond(layer, spiking=True, recorded=True)
    expected = answer.grid
    assert 0.02 < float(expected.mean()) < 0.5
    assert torch.equal(spikes, expected)
    close(trace, membrane, 10 * bound)
    assert torch.equal(conversion.count_events(grouped, STEPS, SAMPLES).to(dtype), expected.sum(0))
    last = (STEPS, SAMPLES, 5)
    for source in (spikes, grouped):
        none, readout = cpu.respond(readout_weight, source, last, model, False, None)
        assert none is None
        layer = ModelLayer(model, readout_weight, None, spikes)
        close(readout, readable.READABLE.respond(layer, spiking=False, recorded=True)[1], 10 * bound)


SOURCES = {"spikes": [0], "traces": [1], "counts": [2], "all": [0, 1, 2]}
"""Indices of the gradients that a layer gets: of spikes, membranes, numbers of spikes."""
CASES = [("superspike", size, parts) for size in (0, 5, 11, 50) for parts in SOURCES]
CASES += [(name, 5, "all") for name in SURROGATES if name != "superspike"]


@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
@pytest.mark.parametrize("at_threshold", [True, False])
@pytest.mark.parametrize(("surrogate", "n_downstream", "parts"), CASES)
def test_gradients(
    dtype: torch.dtype, bound: float, at_threshold: bool, surrogate: str, n_downstream: int, parts: str
) -> None:
    """All sources of gradients, alone and together; a downstream layer with few neurons, with many, or none."""
    model = Model(0.75, 0.8, SURROGATES[surrogate], 3.0, at_threshold)
    shape = (STEPS, SAMPLES, NEURONS)
    trace = normal(*shape, seed=6, dtype=dtype)
    spikes = (normal(*shape, seed=7, dtype=dtype) > 1.3).to(dtype)
    by_spikes, by_traces = (normal(*shape, seed=seed, dtype=dtype) for seed in (8, 9))
    by_counts = normal(SAMPLES, NEURONS, seed=10, dtype=dtype)
    grads = [by_spikes, by_traces, by_counts]
    grads = [grad if i in SOURCES[parts] else None for i, grad in enumerate(grads)]
    downstream = None
    if n_downstream:
        downstream = (
            normal(STEPS, SAMPLES, n_downstream, seed=11, dtype=dtype),
            normal(n_downstream, NEURONS, seed=12, dtype=dtype),
        )
        downstream[0][-4:] = 0  # rows that are left out
        downstream[0][:, 2] = 0
    sparse = GridEvents(events(), DT, STEPS)
    fired = conversion.group_grid(spikes)
    charge, weight = cpu.gradient(model, fired, trace, Grads(*grads), downstream, sparse.grouped, True)

    total = [
        grads[0],
        None if grads[2] is None else grads[2].expand(shape),
        None if downstream is None else downstream[0] @ downstream[1],
    ]
    total = [part for part in total if part is not None]
    summed = sum(total[1:], total[0]) if total else None
    expected = readable.charges(model, spikes, trace, summed, grads[1])
    expected_weight = sparse.weight_gradient(expected)
    close(charge, expected, bound)
    close(weight, expected_weight, bound)
    charge_only, _ = cpu.gradient(model, fired, trace, Grads(*grads), downstream, None, True)
    assert torch.equal(charge_only, charge)


RECURRENT_CASES = [("superspike", size, parts) for size in (0, 5, 50) for parts in SOURCES]
RECURRENT_CASES += [("boxcar", 5, "all")]


@pytest.mark.parametrize("stored", ["float64", "float32", "codes"])
@pytest.mark.parametrize("at_threshold", [True, False])
@pytest.mark.parametrize(("surrogate", "n_downstream", "parts"), RECURRENT_CASES)
def test_gradients_of_recurrent_layers(
    stored: str, at_threshold: bool, surrogate: str, n_downstream: int, parts: str
) -> None:
    """Two samples fill no group of four, and the last of two chunks of steps has one; inputs are events or values."""
    dtype = torch.float64 if stored == "float64" else torch.float32
    model = Model(0.75, 0.8, SURROGATES[surrogate], 3.0, at_threshold)
    shape = (STEPS, SAMPLES, NEURONS)
    membrane: torch.Tensor | Codes = normal(*shape, seed=6, dtype=dtype)
    if stored == "codes":
        g = torch.Generator().manual_seed(2)
        codes = torch.randint(60, 170, (SAMPLES, STEPS, NEURONS + 9), generator=g).to(torch.uint8)
        membrane = Codes(codes[:, :, 3 : 3 + NEURONS], 70.3)
    spikes = SpikeGrid((normal(*shape, seed=7, dtype=dtype) > 1.3).to(dtype))
    sizes = {0: shape, 1: shape, 2: (SAMPLES, NEURONS)}
    ordered = [normal(*sizes[i], seed=8 + i, dtype=dtype) if i in SOURCES[parts] else None for i in range(3)]
    for grad in ordered[:2]:
        if grad is not None:
            grad[-3:] = 0  # late steps on which the loss does not depend
    grads = Grads(*ordered)
    downstream = None
    if n_downstream:
        size = (STEPS, SAMPLES, n_downstream)
        downstream = normal(*size, seed=11, dtype=dtype), normal(n_downstream, NEURONS, seed=12, dtype=dtype)
    recurrent = 0.1 * normal(NEURONS, NEURONS, seed=4, dtype=dtype)
    weight = normal(NEURONS, INPUTS, seed=3, dtype=dtype)
    bound = 1e-11 if dtype == torch.float64 else 5e-5
    for inputs in (GridEvents(events(), DT, STEPS), events().to_grid(DT, STEPS).to(dtype)):
        layer = ModelLayer(model, weight, recurrent, inputs)
        engine = engine_for(weight, model, recurrent, backward=True, dense=isinstance(inputs, torch.Tensor))
        assert isinstance(engine, cpu.CpuEngine)
        arguments = (layer, spikes, membrane, grads, downstream)
        actual = engine.gradient(*arguments, Demand(True, True, True))
        expected = readable.READABLE.gradient(*arguments, Demand(True, True, True))
        for name, part, reference in zip(actual._fields, actual, expected, strict=True):
            assert float(reference.abs().max()) > 0, name
            close(part, reference, bound)
        no_weights = engine.gradient(*arguments, Demand(True, False, False))
        assert torch.equal(no_weights.charge, actual.charge)
        assert no_weights.weight is no_weights.recurrent is None


def test_loops_refuse_a_surrogate_that_they_do_not_know() -> None:
    trace = normal(STEPS, SAMPLES, NEURONS, seed=6, dtype=torch.float32)
    model = Model(0.7, 0.8, lambda x, slope: x.abs_())
    with pytest.raises(ValueError, match=r"surrogate .*lambda.* has no compiled loop; the readable engine"):
        cpu.gradient(model, None, trace, Grads(trace), None, None, True)


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MIN_SHARE", 1)
    stack = [
        hx.Linear(40, 300, gain=3), hx.LIF(300), hx.Linear(300, 70, gain=3), hx.LIF(70), hx.Recurrent(70, gain=2),
        hx.Linear(70, 5), hx.LI(5),
    ]  # fmt: skip
    net = hx.Network(*stack)
    spikes = hx.LatencyEncoder()(torch.rand(23, 40, generator=torch.Generator().manual_seed(3)))
    results = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(threads, "_cores", partial(int, cores))
        with ThreadPoolExecutor(cores) as pool:
            monkeypatch.setattr(threads, "_pool", lambda pool=pool: pool)
            activity = net(spikes)
            loss = activity.readout.amax(0).square().sum() + activity.layers[0].counts.square().sum()
            results.append([activity.readout.detach(), *torch.autograd.grad(loss, [*net.parameters()])])
    for result in results[1:]:
        assert all(torch.equal(*parts) for parts in zip(results[0], result, strict=True))
    assert all(part.any() for part in results[0])


def test_the_gradient_of_counts_is_that_of_the_sum_of_spikes() -> None:
    net = hx.Network(hx.Linear(40, 30, gain=3), hx.LIF(30), hx.Linear(30, 5), hx.LI(5))
    spikes = hx.LatencyEncoder()(torch.rand(6, 40, generator=torch.Generator().manual_seed(3)))
    [weight, *_] = net.parameters()
    gradients = []
    for count in (lambda layer: layer.counts, lambda layer: layer.spikes.sum(0)):
        layer = net(spikes).layers[0]
        assert torch.equal(layer.counts, layer.spikes.sum(0))
        gradients.append(torch.autograd.grad(count(layer).square().mean(), weight)[0])
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("recurrent", [False, True])
def test_membranes_computed_on_demand_equal_recorded_ones(recurrent: bool) -> None:
    """Membranes are not recorded without a graph; a later request computes the same ones, bit by bit."""
    recurrence = [hx.Recurrent(30, gain=3)] if recurrent else []
    net = hx.Network(
        hx.Linear(40, 30, gain=3),
        hx.LIF(30),
        *recurrence,
        hx.Linear(30, 20, gain=3),
        hx.LIF(20),
        hx.Linear(20, 5),
        hx.LI(5),
    )
    spikes = hx.LatencyEncoder()(torch.rand(6, 40, generator=torch.Generator().manual_seed(3)))
    recorded = net(spikes).layers
    with torch.no_grad():
        quick = net(spikes).layers
        for weight in net.parameters():
            weight.mul_(-1)
    for expected, layer in zip(recorded, quick, strict=True):
        assert layer.trace.shape == expected.trace.shape
        assert torch.equal(layer.trace, expected.trace)
        assert layer.trace is layer.trace, "computed once"
        assert (expected.spikes is None) is (layer.spikes is None)
        assert expected.spikes is None or torch.equal(expected.spikes, layer.spikes)
        assert not layer.trace.requires_grad
    assert isinstance(quick[0].membrane, UnrecordedMembranes)
    assert quick[0].spikes.sum() > 10


@pytest.mark.parametrize("n_downstream", [0, 5, 50])
@pytest.mark.parametrize("parts", SOURCES)
def test_gradients_of_codes_are_those_of_their_membranes(n_downstream: int, parts: str) -> None:
    """The gradients are equal bit by bit, also if the codes are a slice of a larger recording."""
    model = Model(0.75, 0.8)
    shape = (STEPS, SAMPLES, NEURONS)
    g = torch.Generator().manual_seed(2)
    whole = torch.randint(60, 170, (SAMPLES, STEPS, NEURONS + 9), generator=g).to(torch.uint8)
    fired = conversion.group_grid((normal(*shape, seed=7, dtype=torch.float32) > 1.3).float())
    sizes = {0: shape, 1: shape, 2: (SAMPLES, NEURONS)}
    grads = Grads(
        *(normal(*sizes[i], seed=8 + i, dtype=torch.float32) if i in SOURCES[parts] else None for i in range(3))
    )
    downstream = None
    if n_downstream:
        size = (STEPS, SAMPLES, n_downstream)
        charges = normal(*size, seed=11, dtype=torch.float32)
        charges[-5:] = 0
        downstream = charges, normal(n_downstream, NEURONS, seed=12, dtype=torch.float32)
    inputs = GridEvents(events(), DT, STEPS).grouped
    for codes in (whole[:, :, 3 : 3 + NEURONS], whole[:, :, :NEURONS].contiguous()):
        membrane = Codes(codes, 70.3)
        assert membrane.shape == shape
        actual = cpu.gradient(model, fired, membrane, grads, downstream, inputs, True)
        expected = cpu.gradient(model, fired, membrane.trace(), grads, downstream, inputs, True)
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
        assert expected[1].abs().max() > 0


def small(on_chip: bool) -> tuple[hx.Network, Spikes]:
    net = hx.Network(hx.Linear(40, 30, gain=3), hx.LIF(30), hx.Linear(30, 5), hx.LI(5))
    if on_chip:
        net.attach(hx.Device(create_backend("emulator")))
    return net, hx.LatencyEncoder()(torch.rand(6, 40, generator=torch.Generator().manual_seed(3)))


def test_membranes_of_a_device_are_in_the_graph() -> None:
    """Membranes of hidden layers stay codes until they are read."""
    net, spikes = small(on_chip=True)
    hidden, readout = net(spikes).layers
    assert isinstance(hidden.membrane, Codes)
    assert isinstance(readout.membrane, torch.Tensor)
    codes = hidden.membrane.codes.float()
    torch.testing.assert_close(hidden.trace, (codes - codes[:, :1]).transpose(0, 1) / hidden.membrane.unit)
    weights = list(net.parameters())
    trace_gradient = torch.autograd.grad(hidden.trace.sin().sum(), weights[0])[0]
    layer = MeasuredLayer(hidden.fired, hidden.membrane.trace())
    inputs = GridEvents(spikes, net.dt, net.steps)
    [rebuilt] = measured_layers([(weights[0], None)], inputs, [layer], [net.model(net.layers[0])])
    assert torch.equal(trace_gradient, torch.autograd.grad(rebuilt.trace.sin().sum(), weights[0])[0])
    assert trace_gradient.abs().max() > 0


@pytest.mark.parametrize("on_chip", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_first_reader_does_not_matter(on_chip: bool, mode: Callable[[], AbstractContextManager[None]]) -> None:
    """Tensors made on demand are in the graph, even if the first reader needs no gradient."""

    def loss(layer: hx.LayerActivity) -> torch.Tensor:
        assert layer.spikes is not None
        return (layer.spikes.sum(0) * layer.trace.sin().sum(0)).sum()

    gradients = []
    for is_read in (False, True):
        net, spikes = small(on_chip)
        hidden = net(spikes).layers[0]
        if is_read:
            with mode():
                assert float(loss(hidden).detach()) != 0
                assert hidden.fired is not None
                assert hidden.fired.grid.sum() > 5
        gradients.append(torch.autograd.grad(loss(hidden), next(net.parameters()))[0])
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_unrecorded_membranes_can_be_put_into_a_graph() -> None:
    net, spikes = small(on_chip=False)
    weight = next(net.parameters())
    gradients = []
    for recorded in (True, False):
        events = GridEvents(spikes, net.dt, net.steps)
        models = [net.model(layer) for layer in net.layers]
        hidden = simulate(net.layers, models, net.by_layer(net.effective_weights()), events, recorded)[0]
        assert isinstance(hidden.membrane, UnrecordedMembranes) is not recorded
        [layer] = measured_layers([(weight, None)], events, [hidden], [net.model(net.layers[0])])
        gradients.append(torch.autograd.grad(layer.trace.sin().sum() + layer.counts.sin().sum(), weight)[0])
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_spikes_need_a_grid_or_events() -> None:
    with pytest.raises(ValueError, match="spikes need a grid, or events and their shape"):
        SpikeGrid()


def test_spikes_are_zeros_and_ones() -> None:
    with pytest.raises(ValueError, match="a grid of spikes has the value 2, but only zeros and ones are spikes"):
        conversion.group_grid(torch.tensor([[[0.0, 1.0, 2.0]]]))


def test_shares_of_work() -> None:
    """Each share is processed once, by any thread, and an error in any of them is raised."""
    calls: list[tuple[int, int, int]] = []
    edges = [0, 3, 5, 9, 12]
    shares = {(1, 3, 5), (2, 5, 9), (3, 9, 12)}
    threads.run_shares(lambda *share: calls.append(share), edges)
    assert set(calls) == {(0, 0, 3), *shares}
    assert len(calls) == 4
    calls.clear()
    gate = threading.Event()
    jobs = [threads._pool().submit(lambda: gate.wait(20)) for _ in range(threads._cores())]
    threads.run_shares(lambda *share: calls.append(share), edges)  # no other thread is free
    gate.set()
    assert all(job.result() for job in jobs)
    assert sorted(calls) == sorted({(0, 0, 3), *shares})

    def fail(part: int, begin: int, end: int) -> None:
        if part == 2:
            raise RuntimeError("broken share")

    with pytest.raises(RuntimeError, match="broken share"):
        threads.run_shares(fail, edges)


@pytest.mark.parametrize(("count", "grain", "expected"), [(100, 4, 8), (9, 4, 3), (1, 4, 1)])
def test_small_shares_keep_groups_together(count: int, grain: int, expected: int, mocker) -> None:
    mocker.patch.object(threads, "_cores", return_value=2)
    edges = threads.small_edges(count, 10**9, grain)
    assert (edges[0], edges[-1], len(edges)) == (0, count, expected + 1)
    assert all(edge % grain == 0 for edge in edges[:-1])
    assert len(set(edges)) == len(edges)
    assert threads.small_edges(count, threads.MIN_SHARE, grain) == [0, count]
