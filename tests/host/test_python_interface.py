"""The Python interface: mistakes are named with a remedy, paths may be texts, objects print on one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hxtrain as hx
from hxtrain.backends import NeuronParameters, Recording, Stimulus, create_backend
from hxtrain.backends.recording import Cost
from hxtrain.commands.settings import RunConfig
from hxtrain.commands.train import run
from hxtrain.datasets import DataConfig, DatasetError, Split, load_dataset, read_images, write_idx
from hxtrain.datasets.augment import ImageAugmentation
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.neurons import Codes
from hxtrain.objectives import Burst, UpperActivity, WeightDecay
from hxtrain.objectives.distillation import Distillation
from hxtrain.rules import Step, train_step
from hxtrain.runs.checkpoint import load_checkpoint, save_checkpoint
from hxtrain.training import Task
from hxtrain.training.config import AnnTrainerConfig, TrainerConfig
from hxtrain.training.evaluation import evaluate

DATA = load_dataset("digits")
IMAGES = DATA.train.images[:10] / 255
LABELS = DATA.train.labels[:10]
ENCODE, LOSS = hx.LatencyEncoder(), hx.MaxOverTime()
SPIKES = ENCODE(IMAGES)
REFERENCE = create_backend("reference")
REGULARIZERS = (Burst(),)
NAN, INF = float("nan"), float("inf")


def network() -> hx.Network:
    return hx.Network(hx.Linear(64, 20, gain=1.4), hx.LIF(20), hx.Linear(20, 10), hx.LI(10))


def readout() -> torch.Tensor:
    return network()(SPIKES).readout


def step(
    spikes: Any,
    labels: Any,
    loss: Any = LOSS,
    regularizers: Any = REGULARIZERS,
    optimizer: Any = None,
    masks: Any = None,
) -> Step:
    net = network()
    adam = torch.optim.Adam(net.parameters())
    return train_step(net, loss, regularizers, optimizer or adam, spikes, labels, masks)


def evaluate_split(split: Any, batch_size: Any = 5, net: Any = None) -> object:
    return evaluate(net or network(), DATA.source(split, ENCODE), LOSS, batch_size)


MISTAKES: Mapping[str, tuple[Callable[[], object], type[Exception], str]] = {
    "images to a network": (
        lambda: network()(IMAGES),
        TypeError,
        r"expected Spikes, got Tensor \[10, 8, 8\]; give net\(encode\(images\)\).*Spikes.from_grid\(grid, net.dt\)",
    ),
    "arrays to a network": (lambda: network()(IMAGES.numpy()), TypeError, r"expected Spikes, got ndarray \[10, 8, 8\]"),
    "a list to a network": (lambda: network()([SPIKES]), TypeError, r"expected Spikes, got list; give"),
    "images to a step": (lambda: step(IMAGES, LABELS), TypeError, "expected Spikes, got Tensor"),
    "modules in a list": (
        lambda: hx.Network([hx.LIF(3)]),
        ValueError,
        r"not as list: Network\(\*modules\)",
    ),
    "masks of another length": (lambda: network()(SPIKES, [None]), ValueError, r"masks: .* N = 20, 10; make them"),
    "masks of another shape": (lambda: network()(SPIKES, [torch.ones(3), None]), ValueError, "masks: expected one"),
    "name of a backend": (
        lambda: hx.Device("emulator"),
        TypeError,
        "takes a Backend, not 'emulator'; .*create_b",
    ),
    "8-bit images": (lambda: ENCODE(DATA.train.images), ValueError, r"span 0..255, expected 0..1; divide 8-bit"),
    "nan images": (lambda: ENCODE(IMAGES * NAN), ValueError, r"intensities hold nan \(640 of 640 values\)"),
    "infinite images": (lambda: ENCODE(IMAGES + INF), ValueError, r"intensities span inf..inf, expected 0..1"),
    "one sample": (lambda: ENCODE(IMAGES[0, 0]), ValueError, r"have shape \[8\], expected \[B, ...\]; of one sample"),
    "images in a graph": (lambda: ENCODE(IMAGES.clone().requires_grad_()), ValueError, r"intensities requires a grad"),
    "spikes to an encoder": (lambda: ENCODE(SPIKES), TypeError, "got Spikes: they are encoded already"),
    "words to an encoder": (lambda: ENCODE("images"), TypeError, "intensities is str of dtype <U6"),
    "float labels": (lambda: LOSS(readout(), LABELS.float()), ValueError, r"labels are torch.float32 \[10\], expected"),
    "labels beyond": (lambda: LOSS(readout(), LABELS + 1), ValueError, r"labels span 1..10, .* 10 classes, 0..9"),
    "labels below": (lambda: LOSS(readout(), LABELS - 1), ValueError, r"labels span -1..8"),
    "fewer labels": (lambda: LOSS(readout(), LABELS[:4]), ValueError, r"torch.int64 \[4\], expected .* int64 \[10\]"),
    "labels of a step": (lambda: step(SPIKES, LABELS[:4]), ValueError, r"torch.int64 \[4\], expected"),
    "labels as a column": (lambda: LOSS(readout(), LABELS[:, None]), ValueError, r"int64 \[10, 1\], expected"),
    "an activity to a loss": (
        lambda: LOSS(network()(SPIKES), LABELS),
        TypeError,
        "got Activity; give activity.output",
    ),
    "an activity to scores": (lambda: hx.MeanOverTime().scores(network()(SPIKES)), TypeError, "give activity.output"),
    "a step to a loss": (lambda: LOSS(readout()[0], LABELS), ValueError, r"output has shape \[10, 10\], expected"),
    "a data set to evaluate": (
        lambda: evaluate(network(), DATA, LOSS),
        TypeError,
        r"source: expected a part of the data, got Dataset\(digits 8x8.*\); give data.test",
    ),
    "tensors to evaluate": (
        lambda: evaluate(network(), (IMAGES, LABELS), LOSS),
        TypeError,
        "source: expected Source, got tuple; evaluate",
    ),
    "a source with a second encoder": (
        lambda: evaluate(network(), DATA.source(DATA.test, ENCODE), LOSS, encoder=ENCODE),
        TypeError,
        "encoder: a source has its encoder already; give a part of the data, such as data.test",
    ),
    "a data set as a part of it": (
        lambda: evaluate_split(DATA),
        DatasetError,
        "expected a Split or an EventSplit, got Dataset; give a part of the data, such as data.test",
    ),
    "too few classes": (
        lambda: evaluate_split(DATA.test, net=hx.Network(hx.Linear(64, 3), hx.LI(3))),
        ValueError,
        r"labels go up to 9, but the output has 3 neurons; it needs one per class",
    ),
    "no batches": (lambda: evaluate_split(DATA.test, batch_size=0), ValueError, r"500 samples in batches of 0"),
    "no samples": (lambda: evaluate_split(DATA.test[:0]), ValueError, r"0 samples in batches of 5"),
    "another order": (
        lambda: evaluate_split(DATA.test, net=ENCODE),
        TypeError,
        "net: expected Network, got LatencyEnc",
    ),
    "float labels of a split": (lambda: Split(np.zeros((2, 3)), [0.5, 1]), DatasetError, "feature vectors float32"),
    "another order to evaluate": (
        lambda: evaluate(network(), LOSS, DATA.source(DATA.test, ENCODE)),
        TypeError,
        r"source: expected Source, got MaxOverTime; evaluate\(net, data.test, loss\)",
    ),
    "the name of a loss": (
        lambda: evaluate(network(), DATA.source(DATA.test, ENCODE), "max_over_time"),
        TypeError,
        "loss: expected Loss, got str",
    ),
    "batches in words": (
        lambda: evaluate_split(DATA.test, batch_size="5"),
        ValueError,
        "batch_size='5' must be a whole",
    ),
    "half batches": (
        lambda: evaluate_split(DATA.test, batch_size=2.5),
        ValueError,
        "batch_size=2.5 must be a whole number",
    ),
    "a split to an encoder": (lambda: ENCODE(DATA.train), TypeError, "got Split; give samples of a split, such as"),
    "a data set to an encoder": (lambda: ENCODE(DATA), TypeError, "got Dataset; give samples of a split"),
    "seed as a generator": (
        lambda: hx.LatencyEncoder(jitter=1e-6)(IMAGES, 0),
        TypeError,
        "generator: expected Generator, got int 0; write torch.Generator",
    ),
    "one sample of a split": (lambda: DATA.train[5], TypeError, r"split\[5\]: choose samples by .* split.samples\[0\]"),
    "words to a split": (lambda: DATA.train["a"], TypeError, "indices of samples is str"),
    "samples beyond": (lambda: DATA.train[[9999]], IndexError, r"samples 9999..9999 of 1297, allowed 0..1296"),
    "a mask of another length": (lambda: DATA.train[[True]], IndexError, "a mask of 1 samples cannot choose of 1297"),
    "place without capabilities": (
        lambda: hx.place(network(), None),
        TypeError,
        r"capabilities: expected Capabilities, got NoneType; .* place\(net, backend.capabilities\)",
    ),
    "place on a backend": (lambda: hx.place(network(), REFERENCE), TypeError, "got ReferenceBackend; give those of"),
    "place in another order": (
        lambda: hx.place(REFERENCE.capabilities, network()),
        TypeError,
        "net: expected Network, got Capabilities",
    ),
    "repeats in words": (lambda: hx.Device(REFERENCE, retries="5"), ValueError, "retries='5' must be a whole number"),
    "no limit of runs": (lambda: hx.Device(REFERENCE, max_runs=None), ValueError, "max_runs=None must be a whole"),
    "trial time in words": (lambda: hx.Device(REFERENCE, trial_time="1e-4"), ValueError, "trial_time='1e-4' must"),
    "a backend's number": (
        lambda: create_backend(["emulator"]),
        ValueError,
        r"backend=\['emulator'\] is not regist",
    ),
    "a chip's number": (lambda: create_backend("emulator", chip=3), ValueError, "chip=3 must be a text"),
    "a chip's seed in words": (
        lambda: create_backend("emulator", seed="a"),
        ValueError,
        "seed='a' must be a",
    ),
    "changes in a list": (lambda: create_backend("emulator", changes=["x"]), ValueError, "changes=.* mapping of"),
    "faults in a list": (lambda: create_backend("emulator", faults=["x"]), ValueError, "faults=.* mapping of"),
    "one imperfection": (
        lambda: create_backend("emulator", only="leak"),
        ValueError,
        r"'leak' .* write \['leak'\]",
    ),
    "an address's number": (lambda: create_backend("remote", address=3), ValueError, "address=3 must be a text"),
    "name of an optimiser": (
        lambda: step(SPIKES, LABELS, optimizer="adam"),
        TypeError,
        "optimizer: .* str 'adam'",
    ),
    "class of an optimiser": (
        lambda: step(SPIKES, LABELS, optimizer=torch.optim.Adam),
        TypeError,
        r"optimizer: expected Optimizer, got the class Adam; give torch.optim.Adam\(net.parameters\(\)\)",
    ),
    "name of a loss": (
        lambda: step(SPIKES, LABELS, loss="max"),
        TypeError,
        r"loss: .* got 'max'; give MaxOverTime",
    ),
    "class of a loss": (lambda: step(SPIKES, LABELS, loss=hx.MaxOverTime), TypeError, "loss: expected a function"),
    "a loss of each sample": (
        lambda: step(SPIKES, LABELS, loss=lambda readout, labels: readout.amax((0, 2))),
        ValueError,
        r"the loss function gave Tensor \[10\], expected a tensor of one number",
    ),
    "a loss out of the graph": (
        lambda: step(SPIKES, LABELS, loss=lambda readout, labels: LOSS(readout.detach(), labels)),
        ValueError,
        r"expected a tensor of one number with a gradient; .* without .detach\(\)",
    ),
    "a loss in Python": (lambda: step(SPIKES, LABELS, loss=lambda *_: 1.0), ValueError, "the loss function gave float"),
    "a step without gradients": (
        lambda: torch.no_grad()(step)(SPIKES, LABELS),
        ValueError,
        r"gradients are switched off; .* outside torch.no_grad\(\)",
    ),
    "one regulariser": (lambda: step(SPIKES, LABELS, regularizers=Burst()), TypeError, r"give a list, such as \[Burst"),
    "no regularisers": (
        lambda: step(SPIKES, LABELS, regularizers=None),
        TypeError,
        r"None; give a list, .* or \[\]",
    ),
    "names of regularisers": (lambda: step(SPIKES, LABELS, regularizers=["burst"]), TypeError, "got str 'burst'; give"),
    "class of a regulariser": (lambda: step(SPIKES, LABELS, regularizers=[Burst]), TypeError, "got the class Burst"),
    "masks that are none": (lambda: step(SPIKES, LABELS, masks=3), ValueError, "masks: expected one tensor"),
    "a readout to a regulariser": (
        lambda: Burst()(readout(), []),
        TypeError,
        "activity: expected Activity, got Tens",
    ),
    "seed of dropped neurons": (
        lambda: network().dropout_masks(0),
        TypeError,
        "generator: expected Generator, got",
    ),
    "more than all silenced": (
        lambda: network().silenced_masks(1.5, torch.Generator()),
        ValueError,
        "share=1.5 of silenced neurons must be in 0..1",
    ),
    "pieces that are none": (lambda: hx.Spikes.cat([IMAGES]), TypeError, "Spikes.cat takes a list of Spikes"),
    "one recording": (
        lambda: hx.Spikes.from_recordings({"t": [1], "x": [1]}, {"x": 3}),
        TypeError,
        r"recordings: expected one .* per sample, got dict; of one sample: \[recording\]",
    ),
    "sizes in a list": (
        lambda: hx.Spikes.from_recordings([{"t": [1], "x": [1]}], [3]),
        TypeError,
        r"sizes=\[3\]: expected the size of each field",
    ),
    "parts of a run in words": (
        lambda: RunConfig(backend="emulator"),
        TypeError,
        "backend: .* got str 'emulator'",
    ),
    "class of an encoder": (lambda: RunConfig(encoder=hx.LatencyEncoder), TypeError, "got the class LatencyEncoder"),
    "a dictionary to a run": (
        lambda: run({"seed": 0}, "x"),
        TypeError,
        "config: expected RunConfig, got dict;",
    ),
    "a run without folder": (lambda: run(RunConfig(), None), ValueError, "folder=None must be a text"),
    "a run nowhere": (lambda: run(RunConfig(), "/proc/xyz"), Exception, "the run directory /proc/xyz cannot be made"),
    "a run in a file": (lambda: run(RunConfig(), __file__), Exception, "test_python_interface.py cannot be made"),
    "a task in another order": (
        lambda: Task(ENCODE, network(), LOSS, {}, DATA),
        TypeError,
        "net: expected Network, got LatencyEncoder; Task",
    ),
    "a task's regularisers": (lambda: Task(network(), ENCODE, LOSS, [Burst()], DATA), ValueError, "must be a mapping"),
    "a part of the data": (lambda: Task(network(), ENCODE, LOSS, {}, DATA.train), TypeError, "data: expected Dataset"),
    "a number to load": (lambda: hx.load(3), ValueError, "run=3 must be a text"),
    "nothing to load": (lambda: load_checkpoint(None), ValueError, "path=None must be a text"),
    "several data sets": (
        lambda: load_dataset(["digits"]),
        DatasetError,
        r"data.name=\['digits'\] is not registered; known: digits",
    ),
    "a size in words": (lambda: load_dataset("mnist", "16"), ValueError, "size='16' must be a whole number"),
    "missing checkpoint": (lambda: load_checkpoint("no.pt"), Exception, "there is no checkpoint no.pt; give the path"),
    "missing run": (lambda: hx.load("nowhere"), Exception, "there is no checkpoint nowhere"),
    "missing parameters": (lambda: NeuronParameters.load("no.npz"), ValueError, "there is no no.npz; make it with"),
    "missing images": (lambda: read_images("no"), DatasetError, "no: expected an IDX file, found no such file"),
}


@pytest.mark.parametrize(("call", "error", "text"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named_with_a_remedy(call: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("labels", [LABELS.tolist(), LABELS.numpy().astype(np.uint8), LABELS.int()])
def test_labels_of_any_integer_type_are_taken(labels: Any) -> None:
    assert torch.equal(LOSS(readout(), labels), LOSS(readout(), LABELS))
    step(SPIKES, labels)
    assert torch.equal(Split(IMAGES.flatten(1).numpy(), labels).labels, LABELS)


def test_probabilities_are_labels_too() -> None:
    shares = torch.nn.functional.one_hot(LABELS, 10).double()
    torch.testing.assert_close(LOSS(readout(), shares), LOSS(readout(), LABELS))


@pytest.mark.parametrize("values", [IMAGES.numpy(), IMAGES.tolist(), IMAGES.double(), IMAGES.transpose(0, 1)])
def test_images_of_any_form_are_encoded(values: Any) -> None:
    expected = ENCODE(torch.as_tensor(values).float().contiguous())
    assert torch.equal(ENCODE(values).time, expected.time)


def test_a_surrogate_may_be_a_function_of_the_user() -> None:
    def wide(x: torch.Tensor, slope: float) -> torch.Tensor:
        return 1 / (1 + x.abs() * slope)

    net = hx.Network(hx.Linear(64, 20, gain=1.4), hx.LIF(20, surrogate=wide), hx.Linear(20, 10), hx.LI(10))
    LOSS(net(SPIKES).readout, LABELS).backward()
    assert net.layers[0].linear.weight.grad.abs().sum() > 0


def test_regularisers_may_be_a_mapping() -> None:
    assert step(SPIKES, LABELS, regularizers={"burst": Burst()}).loss == step(SPIKES, LABELS).loss


TYPES: Mapping[str, tuple[Callable[[Any], object], tuple[Any, ...]]] = {
    "encoder.tau": (lambda x: hx.LatencyEncoder(tau=x), ("8e-6", None, [8e-6])),
    "encoder.shift_first": (lambda x: hx.LatencyEncoder(shift_first=x), ("no", 1)),
    "encoder.grid": (lambda x: hx.LatencyEncoder(grid=x), ("1e-6",)),
    "encoder.repeats": (lambda x: hx.LinearLatencyEncoder(repeats=x), ("5", 2.5, None)),
    "loss.readout_scale": (lambda x: hx.MaxOverTime(x), ("10", None)),
    "strength": (lambda x: Burst(x), ("1e-3", None)),
    "trainer.epochs": (lambda x: TrainerConfig(epochs=x), ("5", 1.5, None, True)),
    "trainer.resume": (lambda x: TrainerConfig(resume=x), ("yes", 1)),
    "trainer.initial": (lambda x: TrainerConfig(initial=x), (3,)),
    "augment.rotation": (lambda x: ImageAugmentation(rotation=x), ("10",)),
    "distillation.weight": (lambda x: Distillation(weight=x), ("x",)),
    "network.hidden": (lambda x: NetworkConfig(hidden=x), (20, "20")),
    "network.tau_mem": (lambda x: NetworkConfig(tau_mem=x), ("6e-6",)),
    "network.recurrent": (lambda x: NetworkConfig(recurrent=x), ("yes",)),
    "backend.retries": (lambda x: BackendConfig(retries=x), ("5", 1.5)),
    "backend.settings": (lambda x: BackendConfig(settings=x), (3, ["x"])),
    "backend.faults": (lambda x: BackendConfig(faults=x), (["timeout"],)),
    "chip.name": (lambda x: ChipConfig(name=x), (3,)),
    "chip.only": (lambda x: ChipConfig(only=x), ("leak",)),
    "chip.changes": (lambda x: ChipConfig(changes=x), (3,)),
    "data.validation": (lambda x: DataConfig(validation=x), ("5", 0.2)),
    "seed": (lambda x: RunConfig(seed=x), ("0", None)),
}


@pytest.mark.parametrize(
    ("name", "build", "value"), [(name, build, x) for name, (build, values) in TYPES.items() for x in values]
)
def test_settings_of_another_type_are_named_when_they_are_made(
    name: str, build: Callable[[Any], object], value: Any
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name}={value!r}") + " must be "):
        build(value)


def test_scalars_of_numpy_are_settings_too() -> None:
    assert type(hx.LatencyEncoder(tau=np.float32(8e-6)).tau) is float
    assert type(TrainerConfig(epochs=np.int64(3)).epochs) is int
    assert NetworkConfig(hidden=(np.int32(4),)).hidden == [4]
    assert TrainerConfig(initial=Path("a.pt")).initial == "a.pt"
    with pytest.raises(ValueError, match=r"encoder.tau is a Tensor; .* give a float"):
        hx.LatencyEncoder(tau=torch.tensor(8e-6))


SETTINGS: Mapping[str, tuple[Callable[[Any], object], tuple[Any, ...]]] = {
    "loss.readout_scale": (lambda x: hx.MaxOverTime(readout_scale=x), (NAN, INF, -1.0, 0.0)),
    "loss.label_smoothing": (lambda x: hx.MeanOverTime(label_smoothing=x), (NAN, INF, -0.1, 1.0)),
    "strength": (lambda x: WeightDecay(strength=x), (NAN, INF, -1.0)),
    "WeightDecay: strength": (lambda x: WeightDecay(strength=x), (NAN, INF, -1.0)),
    "allowed": (lambda x: UpperActivity(allowed=x), (NAN, INF, -1.0)),
    "encoder.tau": (lambda x: hx.LatencyEncoder(tau=x), (NAN, INF, -1.0, 0.0)),
    "encoder.threshold": (lambda x: hx.LatencyEncoder(threshold=x), (NAN, INF, -1.0, 1.0)),
    "encoder.jitter": (lambda x: hx.LatencyEncoder(jitter=x), (NAN, INF, -1.0)),
    "encoder.grid": (lambda x: hx.LatencyEncoder(grid=x), (NAN, INF, -1.0, 0.0)),
    "encoder.late": (lambda x: hx.LinearLatencyEncoder(late=x), (NAN, INF, -1.0)),
    "encoder.bias": (lambda x: hx.LinearLatencyEncoder(bias=x), (NAN, INF, -1.0)),
    "encoder.repeats": (lambda x: hx.LinearLatencyEncoder(repeats=x), (0, 1.5)),
    "trainer.learning_rate": (lambda x: TrainerConfig(learning_rate=x), (NAN, INF, -1.0, 0.0)),
    "trainer.learning_rate_decay": (lambda x: TrainerConfig(learning_rate_decay=x), (NAN, INF, 0.0)),
    "trainer.warmup": (lambda x: TrainerConfig(warmup=x), (NAN, INF, -1.0)),
    "trainer.weight_decay": (lambda x: AnnTrainerConfig(weight_decay=x), (NAN, INF, -1.0)),
    "augment.rotation": (lambda x: ImageAugmentation(rotation=x), (NAN, INF, -1.0)),
    "augment.shift": (lambda x: ImageAugmentation(shift=x), (NAN, INF, -1.0)),
    "augment.elastic": (lambda x: ImageAugmentation(elastic=x), (NAN, INF, -1.0)),
    "distillation.temperature": (lambda x: Distillation(temperature=x), (NAN, INF, 0.0)),
}


@pytest.mark.parametrize(
    ("name", "build", "value"), [(name, build, x) for name, (build, values) in SETTINGS.items() for x in values]
)
def test_settings_out_of_range_are_named_when_they_are_made(
    name: str, build: Callable[[Any], object], value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value!r}"):
        build(value)


def test_paths_may_be_texts(tmp_path: Path) -> None:
    file = str(tmp_path / "a.pt")
    save_checkpoint(file, {"x": torch.ones(2)})
    assert torch.equal(load_checkpoint(file)["x"], torch.ones(2))
    images = str(tmp_path / "images.gz")
    write_idx(images, DATA.train.images[:3])
    assert torch.equal(read_images(images), DATA.train.images[:3])
    zeros = np.zeros(2)
    parameters = str(tmp_path / "chip.npz")
    fitted = NeuronParameters(
        {"chip": "x"}, 1, zeros, zeros, zeros + 1, zeros + 1e-6, np.ones((1, 2, 2)), np.ones((3, 2, 2))
    )
    fitted.save(parameters)
    assert NeuronParameters.load(parameters).hash == fitted.hash


def printed() -> dict[str, object]:
    """Return the objects that users print, by the expected line."""
    net = network()
    activity = net(SPIKES)
    with torch.no_grad(), hx.Device(create_backend("reference")) as device:
        net.attach(device)
        measured = net(SPIKES)
        recording = device.record(device.plan.quantise(net.effective_weights())[0], SPIKES)
    return {
        "Spikes(277 events, 10 samples, 64 units, 0..1.1e-05 s)": SPIKES,
        "Activity(10 samples, 20 steps, layers 20-10, in software)": activity,
        "Activity(10 samples, 20 steps, layers 20-10, measured)": measured,
        "LayerActivity(10 samples, 20 neurons, 20 steps, 1 spikes)": activity.hidden[0],
        "LayerActivity(10 samples, 10 neurons, 20 steps, readout)": activity.layers[-1],
        "SpikeGrid(1 spikes, 10 samples, 20 neurons, 20 steps)": activity.hidden[0].fired,
        "Codes([2, 3, 4] [B, T, N], 80 from leak to threshold)": Codes(torch.zeros(2, 3, 4, dtype=torch.uint8), 80.0),
        "ReferenceBackend()": device.backend,
        "EmulatorBackend(W99Z9, calibrated)": create_backend("emulator", chip="W99Z9"),
        "Device(ReferenceBackend(), Plan(64-20-10, 30 neuron circuits, 1 run per sample))": device,
        "Device(ReferenceBackend(), no network)": hx.Device(create_backend("reference")),
        "Linear(64, 20, mean=0, gain=1.4)": net.stack[0],
        "LIF(20, tau_mem=6e-06 s, tau_syn=6e-06 s)": net.stack[1],
        "LI(10, tau_mem=6e-06 s, tau_syn=6e-06 s)": net.stack[3],
        "Recurrent(5, 5, mean=0, gain=0.7)": hx.Recurrent(5),
        "Dropout(p=0.4)": hx.Dropout(0.4),
        "Split(1297 images, 8x8)": DATA.train,
        "Dataset(digits 8x8, 1297 training and 500 test samples, 10 classes)": DATA,
        "Recording(layer0: 1 spikes; traces layer0: [10, 20, 20], layer1: [10, 20, 10])": recording,
        "Recording(no spikes; traces none)": Recording({}, {}, Cost(0, None, "estimated")),
    }


def test_objects_print_on_one_line() -> None:
    lines = printed()
    assert [repr(value) for value in lines.values()] == list(lines)


def test_a_plan_prints_its_table() -> None:
    net = network()
    net.attach(hx.Device(create_backend("reference")))
    plan = net.device.plan
    lines = str(plan).splitlines()
    assert lines[0].split() == ["what", "used", "limit"]
    assert len(lines) == len(plan.rows()) + 1
    assert all(line.startswith(row[0]) for line, row in zip(lines[1:], plan.rows(), strict=True))
    assert plan._repr_html_().count("<tr>") == len(lines)
    assert repr(Stimulus(SPIKES)).startswith("Stimulus(spikes=Spikes(277 events")
