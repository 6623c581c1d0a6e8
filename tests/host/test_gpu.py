"""On a GPU the host computes what it computes on the CPU; without one, Triton's interpreter runs its kernels."""

import os
from contextlib import ExitStack

import pytest
import torch

import hxtrain as hx
from hxtrain.backends import Spikes, create_backend
from hxtrain.execution.device import membranes
from hxtrain.experiments.bench.workload import Workload
from hxtrain.gradients import gradient
from hxtrain.network.twin import respond
from hxtrain.neurons import SURROGATES, Fired, Model
from hxtrain.neurons.engines import cpu as compiled
from hxtrain.neurons.engines import gpu

GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
needs_gpu = pytest.mark.skipif(not GPU, reason="there is no GPU")


@pytest.fixture
def kernels():
    pytest.importorskip("triton", reason="comes with torch for CUDA; the extra `test` has it for Linux")
    return gpu.kernels()


SHAPE = 9, 5, 70  # two blocks of neurons, the second not full


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def there(x):
    return None if x is None else x.to("cuda" if GPU else "cpu")


def as_grid(spikes, circuit):
    return Fired(spikes.to_grid(circuit.dt, circuit.samples, binary=True))


@pytest.mark.parametrize("spiking", [True, False])
def test_layers_respond_as_in_torch(kernels, spiking):
    model, weight, inputs = Model(0.7, 0.8), draw(70, 40), (draw(9, 5, 40) > 1.5).float()
    expected = respond(weight, inputs, SHAPE, model, spiking, None)
    spikes, trace = kernels.respond(there(inputs @ weight.t()), model, spiking)
    assert torch.allclose(trace.cpu(), expected[1], atol=1e-5)
    assert (spikes is None) is not spiking
    if spiking:
        assert 0.02 < float(expected[0].mean()) < 0.9
        assert torch.equal(spikes.cpu(), expected[0])


@pytest.mark.parametrize("surrogate", SURROGATES.values(), ids=SURROGATES)
@pytest.mark.parametrize("at_threshold", [True, False])
@pytest.mark.parametrize("parts", ["spikes", "trace", "both"])
def test_gradients_of_charges_are_those_of_torch(kernels, surrogate, at_threshold, parts):
    model = Model(0.7, 0.8, surrogate, 2.0, at_threshold)
    trace, grad_spikes, grad_trace = 1 + draw(*SHAPE), draw(*SHAPE).flip(0), draw(*SHAPE).flip(1)
    given = (
        (trace > 1).float(),
        trace,
        grad_spikes if parts != "trace" else None,
        grad_trace if parts != "spikes" else None,
    )
    expected, _ = gradient(model, *given, None)
    found = kernels.charges(model, *map(there, given))
    assert float(expected.std()) > 0.1
    assert torch.allclose(found.cpu(), expected, atol=1e-4)


@needs_gpu
@pytest.mark.parametrize("settings", [{}, {"hidden": [60], "recurrent": True}, {"saturation": 385.0}], ids=str)
@pytest.mark.parametrize("preset", [None, "calibrated"])
def test_activity_and_gradients_are_those_of_the_cpu(preset, settings):
    found = []
    with ExitStack() as stack:
        for where in ("cpu", "cuda"):
            load = Workload(stack, 50, where)
            backend = None if preset is None else create_backend("emulator", preset=preset, device=where)
            net = load.network(backend, **settings)
            activity = net(load.spikes)
            assert activity.readout.device.type == where
            hx.MaxOverTime()(activity.readout, load.labels).backward()
            found.append((activity, [weight.grad.cpu() for weight in net.parameters()]))
    (one, gradients), (other, others) = found
    assert one.hidden_spikes() > 200
    assert other.hidden_spikes() == pytest.approx(one.hidden_spikes(), rel=0.01)
    assert float((one.readout.detach() - other.readout.detach().cpu()).abs().median()) < 1e-3
    for own, its in zip(gradients, others, strict=True):
        assert float((own - its).norm() / own.norm()) < 0.05


@pytest.mark.parametrize(
    "settings", [{}, {"hidden": [60, 30]}, {"traces": "spikes_only"}, {"saturation": 385.0}], ids=str
)
@pytest.mark.parametrize("on_chip", [False, True])
def test_spikes_as_grids_give_what_events_give(on_chip, settings, mocker):
    """On a GPU spikes are grids, and membranes floats from the start: the same path, on the CPU."""
    found = []
    for dense in (False, True):
        if dense:
            mocker.patch.object(compiled, "supports", return_value=False)
            mocker.patch("hxtrain.execution.device._fired", side_effect=as_grid)
            mocker.patch("hxtrain.execution.device.Codes", side_effect=membranes)
        with ExitStack() as stack:
            load = Workload(stack, 30)
            net = load.network(create_backend("emulator") if on_chip else None, **settings)
            activity = net(load.spikes)
            hidden = activity.layers[0]
            assert hidden.counts is not None
            loss = hx.MaxOverTime()(activity.readout, load.labels) + 1e-3 * hidden.counts.square().mean()
            gradients = torch.autograd.grad(loss + 1e-3 * (hidden.spikes * hidden.trace).mean(), [*net.parameters()])
            found.append((activity, gradients))
    (one, gradients), (other, others) = found
    assert one.hidden_spikes() == other.hidden_spikes() > 200
    assert torch.equal(one.layers[0].spikes, other.layers[0].spikes)
    torch.testing.assert_close(other.layers[0].trace, one.layers[0].trace, rtol=1e-4, atol=1e-5)
    for own, its in zip(gradients, others, strict=True):
        assert float(own.abs().max()) > 0
        assert float((own - its).norm() / own.norm()) < 1e-4


def test_events_out_of_range_are_refused_where_no_kernel_of_the_cpu_looks():
    spikes = Spikes.trusted(torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([0.0, 1e-6]), 2, 3)
    with pytest.raises(ValueError, match=r"event 1 of 2 has sample 1, unit 3 and time 1e-06 s, outside 0..1, 0..2"):
        spikes.to_grid(1.7e-6, 20)
