"""Networks as torch modules, also on a device: changed, copied, shared, in other precisions, compiled."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import hxtrain as hx
from hxtrain.backends import DeviceError, FaultyBackend, create_backend
from hxtrain.eager import eager


def network(**settings):
    return hx.Network(hx.Linear(12, 8, gain=4), hx.LIF(8), hx.Linear(8, 3, gain=2), hx.LI(3), **settings)


def recurrent():
    return hx.Network(hx.Linear(12, 8, gain=4), hx.LIF(8), hx.Recurrent(8), hx.Linear(8, 3, gain=2), hx.LI(3))


def spikes(batch=4):
    return hx.LatencyEncoder()(torch.rand(batch, 12, generator=torch.Generator().manual_seed(0)))


def reference():
    return hx.Device(create_backend("reference"))


def shorter(net):
    net.stack[0].weight = nn.Parameter(torch.rand(3, 12))


CHANGES = {
    "steps 20 -> 10": lambda net: setattr(net, "steps", 10),
    "steps 20 -> 40": lambda net: setattr(net, "steps", 40),
    "dt 1.7e-06 -> 3.4e-06": lambda net: setattr(net, "dt", 3.4e-6),
    "weight_bits None -> 2": lambda net: setattr(net, "weight_bits", 2),
    "trace_bits None -> 4": lambda net: setattr(net, "trace_bits", 4),
    "traces measured -> spikes_only": lambda net: setattr(net, "traces", "spikes_only"),
    "layer0.tau_mem 6e-06 -> 3e-05": lambda net: setattr(net.stack[1], "tau_mem", 3e-5),
    "layer1.tau_syn 6e-06 -> 3e-05": lambda net: setattr(net.stack[3], "tau_syn", 3e-5),
    "input->layer0.scale None -> 10.0": lambda net: setattr(net.stack[0], "scale", 10.0),
    "layer0->layer1.autoscale False -> True": lambda net: setattr(net.stack[2], "autoscale", True),
    "input->layer0.max_scale 250.0 -> 5.0": lambda net: setattr(net.stack[0], "max_scale", 5.0),
    r"input->layer0.weight \(8, 12\) -> \(3, 12\)": shorter,
    "layer0.projections input->layer0 -> input->layer0, layer0->layer0": lambda net: net.stack.insert(
        2, hx.Recurrent(8)
    ),
}


@pytest.mark.parametrize("text", CHANGES)
def test_what_a_device_must_know_is_fixed_once_attached(text):
    net = network()
    net.attach(reference())
    CHANGES[text](net)
    with pytest.raises(hx.PlacementError, match=f"changed since it was attached: .*{text}.*; call net.attach"):
        net(spikes())


def test_what_was_changed_takes_effect_when_attached_again():
    net, device = network(), reference()
    net.attach(device)
    net.steps = 10
    net.attach(device)
    activity = net(spikes())
    assert activity.readout.shape == (10, 4, 3)
    activity.readout.sum().backward()


@pytest.mark.parametrize("rows", [3, 400_000])
def test_weights_of_another_shape_are_refused_in_software_too(rows):
    net = network()
    net.stack[0].weight = nn.Parameter(torch.rand(rows, 12))
    with torch.no_grad(), pytest.raises(ValueError, match=rf"weights of input->layer0 are \({rows}, 12\)"):
        net(spikes())


@pytest.mark.parametrize("put", ["copy_", "data", "parameter", "load_state_dict", "zeros", "before"])
def test_weights_with_values_keep_them_and_others_are_drawn_as_ever(put):
    first = hx.Linear(12, 8, gain=4)
    values = torch.rand(8, 12)
    if put == "copy_":
        with torch.no_grad():
            first.weight.copy_(values)
    elif put == "data":
        first.weight.data = values.clone()
    elif put == "parameter":
        first.weight = nn.Parameter(values.clone())
    elif put == "load_state_dict":
        first.load_state_dict({"weight": values})
    elif put == "zeros":
        values = torch.zeros(8, 12)
        nn.init.zeros_(first.weight)
    else:
        hx.Network(first, hx.LIF(8), hx.Linear(8, 3), hx.LI(3), seed=7)
        values = first.weight.detach().clone()
    net = hx.Network(first, hx.LIF(8), hx.Linear(8, 3, gain=2), hx.LI(3))
    assert torch.equal(net.layers[0].linear.weight, values)
    assert torch.equal(net.layers[1].linear.weight, network().layers[1].linear.weight)


def test_copies_of_modules_without_values_are_drawn():
    modules = copy.deepcopy([hx.Linear(12, 8, gain=4), hx.LIF(8), hx.Linear(8, 3, gain=2), hx.LI(3)])
    assert torch.equal(hx.Network(*modules).stack[0].weight, network().stack[0].weight)


def test_a_layer_that_is_exchanged_takes_effect_and_must_have_values():
    net, second = network(), network()
    net.stack[0] = hx.Linear(12, 8)
    with pytest.raises(ValueError, match=r"weights of input->layer0 are not finite: .*net.draw\(seed\)"):
        net(spikes())
    net.draw(3)
    second.load_state_dict(net.state_dict())
    assert torch.equal(net(spikes()).readout, second(spikes()).readout)
    net.stack[0] = nn.Linear(12, 8)
    with pytest.raises(ValueError, match="network is torch's Linear, LIF"):
        net(spikes())


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, copy.copy, lambda net: pickle.loads(pickle.dumps(net)), "torch.save", "averaged"]
)
def test_a_copy_of_an_attached_network_is_its_twin(duplicate):
    net = network()
    with hx.Device(create_backend("emulator", preset="uncalibrated")) as device:
        net.attach(device)
        if duplicate == "torch.save":
            torch.save(net, file := io.BytesIO())
            file.seek(0)
            twin = torch.load(file, weights_only=False)
        elif duplicate == "averaged":
            twin = torch.optim.swa_utils.AveragedModel(net).module
        else:
            twin = duplicate(net)
        assert twin.device is None
        assert net.device is device
        net(spikes())
    net.attach(None)
    assert torch.equal(twin(spikes()).readout, net(spikes()).readout)


@pytest.mark.parametrize("build", [network, recurrent, lambda: network(traces="spikes_only")])
def test_double_precision_on_a_device(build):
    net = build().double()
    with reference() as device:
        net.attach(device)
        activity = net(spikes())
        assert {layer.trace.dtype for layer in activity.layers} == {torch.float64}
        activity.readout.sum().backward()
    assert net.stack[0].weight.grad.dtype == torch.float64


@pytest.mark.parametrize("attach", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_precisions_are_refused_by_name(dtype, attach):
    net = network()
    if attach:
        net.attach(reference())
    with pytest.raises(ValueError, match=rf"weights are {dtype}; networks compute in torch.float32"):
        net.to(dtype)(spikes())


@pytest.mark.parametrize("build", [network, recurrent])
def test_autocast_changes_nothing(build):
    grads = []
    for enabled in (False, True):
        net = build()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            net(spikes()).readout.square().sum().backward()
        grads.append(net.stack[0].weight.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("name", ["reference", "emulator"])
@pytest.mark.parametrize("size", [8, 600])
def test_a_batch_of_no_samples_runs_on_a_device(name, size):
    net = hx.Network(hx.Linear(12, size), hx.LIF(size), hx.Linear(size, 3), hx.LI(3))
    with hx.Device(create_backend(name)) as device:
        net.attach(device)
        activity = net(spikes(0))
    assert activity.readout.shape == (20, 0, 3)
    assert activity.layers[0].spikes.shape == (20, 0, size)
    assert activity.cost.chip_time == 0


def test_a_closed_device_says_so_once_and_works_when_opened_again():
    net = network()
    with reference() as device:
        net.attach(device)
        readout = net(spikes()).readout
    with pytest.raises(DeviceError, match=r"^the device is closed; open it again"):
        net(spikes())
    with device:
        assert torch.equal(net(spikes()).readout, readout)
        device.close()
        with pytest.raises(DeviceError, match=r"^the device is closed; open it again"):
            net(spikes())


@pytest.mark.parametrize("cause", ["device", "wrapped", "backend", "closed"])
def test_a_device_never_runs_on_the_circuit_of_another(cause):
    backend = create_backend("reference")
    device = hx.Device(FaultyBackend(backend, []) if cause == "wrapped" else backend)
    net = network()
    slow = hx.Network(hx.Linear(12, 8), hx.LIF(8, 2e-5), hx.Linear(8, 3), hx.LI(3, 2e-5))
    net.attach(device)
    readout = net(spikes()).readout
    if cause == "backend":
        backend.configure(hx.place(slow, backend.capabilities).circuit)
    elif cause == "closed":
        backend.close()
        backend.open()
    else:
        slow.attach(hx.Device(backend))
        slow(spikes())
    assert torch.equal(net(spikes()).readout, readout)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a warning of torch at the import of the compiler
def test_torch_compile_leaves_a_network_as_it_is():
    net = network()
    expected = net(spikes()).readout
    assert torch.equal(torch.compile(net, backend="eager")(spikes()).readout, expected)


def test_functions_are_left_alone_whether_or_not_the_compiler_is_there(mocker):
    double = eager(lambda x: 2 * x)
    assert double(3) == 6
    mocker.patch.dict("sys.modules")
    __import__("sys").modules.pop("torch._dynamo", None)
    assert double(3) == 6


PARAMETER = nn.Parameter(torch.tensor(6e-6))
REFUSED = [
    (lambda: hx.LIF(8, tau_mem=PARAMETER), "LIF: tau_mem is a Parameter; it is a constant, which is not learnt"),
    (lambda: setattr(hx.LI(8), "tau_syn", PARAMETER), "LI: tau_syn is a Parameter"),
    (lambda: hx.LIF(10.5), "LIF: size=10.5 must be a whole number"),
    (lambda: hx.LIF(8, tau_mem=float("nan")), "LIF: tau_mem=nan must be a finite number"),
    (lambda: hx.LIF(8, tau_mem="6e-6"), "LIF: tau_mem='6e-6' must be a number"),
    (lambda: hx.LIF(8, slope=float("inf")), "LIF: slope=inf must be a finite number"),
    (lambda: setattr(hx.LIF(8), "tau_mem", -1.0), "LIF: tau_mem=-1.0 must be positive"),
    (lambda: hx.Linear(4, 3, mean=float("nan")), "Linear: mean=nan must be a finite number"),
    (lambda: hx.Linear(4, 3, gain=-1), "Linear: gain=-1 must not be negative"),
    (lambda: hx.Linear(4, 3, autoscale="no"), "Linear: autoscale='no' must be True or False"),
    (lambda: hx.Recurrent(2.5), "Recurrent: size=2.5 must be a whole number"),
    (lambda: hx.Dropout(float("nan")), "Dropout: p=nan must be a finite number"),
    (lambda: network(steps=20.0), "Network: steps=20.0 must be a whole number; give 20"),
    (lambda: setattr(network(), "steps", 0), "Network: steps=0 must be positive"),
    (lambda: network(dt=float("inf")), "Network: dt=inf must be a finite number"),
    (lambda: network(seed=10**20), r"Network: seed=1\d{20} must be within -2\^63"),
    (lambda: network(weight_bits=2.5), "Network: weight_bits=2.5 must be a whole number"),
    (
        lambda: hx.Network(hx.Linear(4, 3), hx.LIF(3, 6.0), hx.Linear(3, 2), hx.LI(2)),
        "layer0: tau_mem=6 s is more than",
    ),
    (lambda: hx.Network([hx.Linear(4, 3), hx.LI(3)]), r"modules one by one, not as list: Network\(\*modules\)"),
    (lambda: hx.Network(hx.Linear(4, 3), hx.LI), "Network takes modules, not <class .*LI'>; make one"),
    (lambda: network()(spikes(), [torch.ones(7), None]), r"masks: expected one tensor \[N\] or None for each layer"),
    (lambda: network()(spikes(), [None]), "make them with net.dropout_masks or net.silenced_masks"),
]


@pytest.mark.parametrize(("build", "text"), REFUSED, ids=[text[:40] for _, text in REFUSED])
def test_constants_that_cannot_be_are_refused_by_name(build, text):
    with pytest.raises(ValueError, match=text):
        build()


def test_a_bare_backend_is_attached_as_a_device():
    net = network()
    net.attach(create_backend("reference"))
    assert isinstance(net.device, hx.Device)
    assert net(spikes()).cost is not None


@pytest.mark.parametrize("wrong", ["emulator", create_backend, 3])
def test_objects_that_are_no_device_are_refused_with_a_remedy(wrong):
    with pytest.raises(TypeError, match=r"attach takes a device, not .*hx.open_device\(name\)"):
        network().attach(wrong)
    with pytest.raises(TypeError, match="Device takes a Backend, not"):
        hx.Device("emulator")


def slopes(x, slope):
    return 1 / (1 + (slope * x) ** 2)


@pytest.mark.parametrize("attach", [False, True])
def test_a_surrogate_of_ones_own_gives_its_gradient(attach):
    grads = []
    for surrogate in (slopes, "arctan"):
        net = hx.Network(hx.Linear(12, 8, gain=4), hx.LIF(8, surrogate=surrogate), hx.Linear(8, 3, gain=2), hx.LI(3))
        net.attach(reference() if attach else None)
        net(spikes()).readout.square().sum().backward()
        grads.append(net.stack[0].weight.grad)
    torch.testing.assert_close(*grads)
    assert set(net.state_dict()) == {"stack.0.weight", "stack.2.weight"}


def test_a_surrogate_that_returns_something_else_is_refused():
    net = hx.Network(hx.Linear(12, 8), hx.LIF(8, surrogate=lambda x, slope: x.sum()), hx.Linear(8, 3), hx.LI(3))
    with pytest.raises(ValueError, match=r"surrogate .* must return a tensor \(20, 4, 8\), got \(\)"):
        net(spikes()).readout.sum().backward()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_in_software(value):
    net = network()
    with torch.no_grad():
        net.stack[2].weight[0, 0] = value
    with pytest.raises(ValueError, match="weights of layer0->layer1 are not finite"):
        net(spikes())


def test_passes_notice_every_change_of_a_constant() -> None:
    net = hx.Network(hx.Linear(3, 4, gain=2.0), hx.LIF(4), hx.Linear(4, 2), hx.LI(2))
    copied = copy.deepcopy(net)
    assert net.models()[0].slope == 10
    net.stack[1].slope = 20.0
    assert net.models()[0].slope == 20
    assert copied.models()[0].slope == 10
    net.stack[1] = hx.LIF(4, slope=5.0)
    assert net.models()[0].slope == 5
    net.stack[0].weight.data = torch.zeros(4, 5)
    with pytest.raises(ValueError, match=r"weights of input->layer0 are \(4, 5\)"):
        net(hx.Spikes.from_grid(torch.zeros(20, 1, 3), net.dt))
