"""Devices record what a circuit requests, and hosts request what they need."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from backends_bench import CASES, CIRCUIT, WEIGHTS, configured, stimulus
from remote_bench import CountingBackend, connected, serving
from torch import Tensor

from hxtrain import LI, LIF, Device, LatencyEncoder, Linear, Network, PlacementError
from hxtrain.backends import (
    INPUT,
    Backend,
    BackendWrapper,
    Capabilities,
    Circuit,
    DeviceError,
    FaultyBackend,
    LostSamples,
    Projection,
    Record,
    Recording,
    Spikes,
    Stimulus,
    check_circuit,
    check_recording,
    create_backend,
    nothing,
)
from hxtrain.backends.chips import BRAINSCALES2
from hxtrain.backends.conformance.bench import difference
from hxtrain.execution import place
from hxtrain.execution.drift import TRIALS, DriftMonitor
from hxtrain.execution.partition import partition
from hxtrain.execution.session import Session

REQUESTS = [
    (Record(), ["hidden"], ["hidden", "readout"]),
    (Record(traces=()), ["hidden"], []),
    (Record(traces=("readout",)), ["hidden"], ["readout"]),
    (Record((), ("readout",)), [], ["readout"]),
    (Record(("hidden",), ("hidden",)), ["hidden"], ["hidden"]),
]
"""Requests of `CIRCUIT`, and the populations in their recordings: spikes and traces."""


def requesting(record: Record) -> Circuit:
    return replace(CIRCUIT, record=record)


def part_of(recording: Recording, spikes: list[str], traces: list[str]) -> Recording:
    return replace(
        recording,
        spikes={name: recording.spikes[name] for name in spikes},
        traces={name: recording.traces[name] for name in traces},
    )


class Greedy(BackendWrapper):
    """A driver from before requests: it records everything."""

    def __init__(self, backend: Backend | None = None, **limits: Any) -> None:
        super().__init__(backend or create_backend("reference"))
        self.limits = limits
        self.trials: list[int] = []

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, **{"selective": False, **self.limits})

    def configure(self, circuit: Circuit) -> None:
        super().configure(replace(circuit, record=Record()))

    def map_stimulus(self, stimulus: Stimulus) -> Stimulus:
        self.trials.append(stimulus.spikes.samples)
        return stimulus


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("record", "spikes", "traces"), REQUESTS)
def test_a_device_records_what_is_requested_and_nothing_changes(
    name: str, record: Record, spikes: list[str], traces: list[str]
) -> None:
    everything = configured(CASES[name]).run(WEIGHTS, stimulus(3, 7))
    recording = configured(CASES[name], requesting(record)).run(WEIGHTS, stimulus(3, 7))
    assert (list(recording.spikes), list(recording.traces)) == (spikes, traces)
    assert difference(recording, part_of(everything, spikes, traces)) is None
    assert recording.cost == everything.cost


@pytest.mark.parametrize(("record", "spikes", "traces"), REQUESTS)
def test_recordings_of_no_trials_are_of_the_same_populations(
    record: Record, spikes: list[str], traces: list[str]
) -> None:
    circuit = requesting(record)
    for recording in (
        nothing(circuit, torch.device("cpu")),
        configured(CASES["emulator-ideal"], circuit).run(WEIGHTS, stimulus(0)),
    ):
        assert (list(recording.spikes), list(recording.traces)) == (spikes, traces)
        assert all(codes.shape[:2] == (0, circuit.samples) for codes in recording.traces.values())


@pytest.mark.parametrize(("record", "spikes", "traces"), REQUESTS)
def test_what_was_not_requested_is_dropped(record: Record, spikes: list[str], traces: list[str]) -> None:
    everything = configured(CASES["reference"]).run(WEIGHTS, stimulus(3))
    checked = check_recording(requesting(record), everything, stimulus(3))
    assert (list(checked.spikes), list(checked.traces)) == (spikes, traces)


@pytest.mark.parametrize(
    ("record", "recorded", "text"),
    [
        (Record(traces=("readout",)), Record(traces=("hidden",)), "traces of readout: expected uint8"),
        (Record(), Record(traces=()), "traces of hidden: expected uint8"),
        (Record(traces=()), Record((), ("readout",)), "spikes of hidden are missing"),
    ],
)
def test_what_is_missing_is_named(record: Record, recorded: Record, text: str) -> None:
    recording = configured(CASES["reference"], requesting(recorded)).run(WEIGHTS, stimulus(3))
    with pytest.raises(DeviceError, match=text):
        check_recording(requesting(record), recording, stimulus(3))


@pytest.mark.parametrize(
    ("record", "limits", "text"),
    [
        (Record(traces=("output",)), {}, r"circuit.record.traces=\('output',\): name populations .*hidden, readout"),
        (
            Record(spikes=("readout",)),
            {},
            r"circuit.record.spikes=\('readout',\): name spiking populations .*\(hidden\)",
        ),
        (Record(spikes=("hidden", "hidden")), {}, "each once"),
        (Record(traces=["readout"]), {}, "in a tuple"),  # type: ignore[arg-type]
        (Record((), ()), {}, "requests neither spikes nor traces"),
        (Record(traces=("readout",)), {"traces": False}, "the device records no membranes"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(record: Record, limits: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_circuit(requesting(record), replace(BRAINSCALES2, **limits))


def test_a_device_without_traces_takes_a_circuit_that_needs_none() -> None:
    for record in (Record(), Record(traces=())):
        check_circuit(requesting(record), replace(BRAINSCALES2, traces=False))


def test_faults_of_the_link_hit_the_same_trials_whatever_is_recorded() -> None:
    losses = []
    for record, _, traces in REQUESTS:
        with FaultyBackend(create_backend("reference"), [LostSamples(0.3)], 1) as device:
            device.configure(requesting(record))
            recording = device.run(WEIGHTS, stimulus(20, 5))
        assert list(recording.traces) == traces
        assert recording.lost is not None
        losses.append(recording.lost.tolist())
    assert losses == losses[:1] * len(losses)


@pytest.mark.parametrize(("record", "spikes", "traces"), REQUESTS)
def test_a_server_sends_what_is_requested(record: Record, spikes: list[str], traces: list[str]) -> None:
    """The counting device records everything; what was not requested does not travel."""
    backend = CountingBackend()
    with serving(backend) as server, connected(server) as client:
        client.configure(requesting(record))
        recording = client.run(WEIGHTS, stimulus(3))
    assert [circuit.record for circuit in backend.circuits] == [record]
    assert (list(recording.spikes), list(recording.traces)) == (spikes, traces)


# The host


def network(**settings: Any) -> Network:
    return Network(Linear(20, 12, gain=3), LIF(12), Linear(12, 4, autoscale=True), LI(4), steps=20, **settings)


def events(batch: int) -> Spikes:
    return LatencyEncoder()(torch.rand(batch, 20, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize(("traces", "recorded"), [("measured", ["layer0", "layer1"]), ("spikes_only", ["layer1"])])
def test_a_host_requests_the_membranes_that_it_reads(traces: str, recorded: list[str], mocker: Any) -> None:
    net = network(traces=traces)
    device = Device(create_backend("emulator", preset="uncalibrated"))
    net.attach(device)
    run = mocker.spy(device.backend, "run")
    with torch.no_grad():
        net(events(3))
    assert list(run.spy_return.traces) == recorded
    assert list(run.spy_return.spikes) == ["layer0"]


def test_a_driver_from_before_requests_trains_alike() -> None:
    weights = []
    for backend in (create_backend("reference"), Greedy()):
        net = network(traces="spikes_only")
        net.attach(Device(backend))
        activity = net(events(6))
        activity.readout.square().sum().backward()
        weights.append([activity.readout.detach(), *(parameter.grad for parameter in net.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize(
    ("selective", "record", "trials"),
    [(True, Record(), 5), (True, Record(traces=("readout",)), 12), (True, Record(traces=()), None)]
    + [(False, record, 5) for record, *_ in REQUESTS],
)
def test_trace_memory_is_for_what_is_recorded(selective: bool, record: Record, trials: int | None) -> None:
    """25 trials of one neuron: 5 of hidden (3) and readout (2), 12 of readout."""
    limits = replace(BRAINSCALES2, trace_memory=25 * CIRCUIT.samples, trace_channels=None, selective=selective)
    (part,) = partition(requesting(record), limits)
    assert part.trials_per_run(limits) == trials


def test_batches_are_split_by_what_is_recorded() -> None:
    circuit = requesting(Record(traces=("readout",)))
    for selective, batches in ((True, [12, 1]), (False, [5, 5, 3])):
        backend = Greedy(trace_memory=25 * CIRCUIT.samples, trace_channels=None, selective=selective)
        Session(backend).record(circuit, partition(circuit, backend.capabilities), WEIGHTS, stimulus(13).spikes)
        assert backend.trials == batches


def test_parts_give_the_spikes_that_later_parts_need() -> None:
    """The second population drives the third one in another part; the circuit requests the readout's traces alone."""
    first = CIRCUIT.populations[0]
    populations = (first, replace(first, name="second", threshold=90.0), CIRCUIT.populations[1])
    projections = (
        CIRCUIT.projections[0],
        Projection("hidden->second", "hidden", "second", 3),
        Projection("second->readout", "second", "readout", 3),
    )
    circuit = replace(
        CIRCUIT, populations=populations, projections=projections, record=Record(("hidden",), ("readout",))
    )
    caps = replace(BRAINSCALES2, neuron_circuits=3)
    parts = partition(circuit, caps)
    assert [part.circuit.record for part in parts] == [
        Record(("hidden",), ()),
        Record(("second",), ()),
        Record((), ("readout",)),
    ]
    weights: Mapping[str, Tensor] = {
        "input->hidden": WEIGHTS["input->hidden"],
        "hidden->second": torch.full((3, 3), 63, dtype=torch.int8),
        "second->readout": WEIGHTS["hidden->readout"],
    }
    recording = Session(create_backend("reference")).record(circuit, parts, weights, stimulus(3).spikes)
    assert (list(recording.spikes), list(recording.traces)) == (["hidden"], ["readout"])
    assert recording.traces["readout"].float().std() > 0
    assert parts[0].source == INPUT


@pytest.mark.parametrize(
    ("settings", "texts"),
    [
        ({}, ["layer0: the gradient reads the membranes", "layer1: the answer of a readout LI is its membrane"]),
        ({"traces": "spikes_only"}, ["layer1: the answer of a readout LI is its membrane"]),
    ],
)
def test_without_traces_the_populations_that_need_them_are_named(settings: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(PlacementError) as error:
        place(network(**settings), replace(BRAINSCALES2, traces=False))
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == len(texts)
    assert all(text in line for text, line in zip(texts, lines, strict=True))


def test_drift_is_observed_where_traces_are_recorded() -> None:
    circuit = requesting(Record(traces=("readout",)))
    recording = configured(CASES["reference"], circuit).run(WEIGHTS, stimulus(TRIALS))
    shifted = replace(recording, traces={"readout": recording.traces["readout"] + 3})
    monitor = DriftMonitor()
    notes = [monitor.add(recording) for recording in (*[recording] * 8, *[shifted] * 8)]
    assert any(note is not None and "moved by 3.0 LSB" in note for note in notes)
    blind = DriftMonitor()
    assert all(blind.add(replace(recording, traces={})) is None for recording in (*[recording] * 8, *[shifted] * 8))


def test_parts_that_nobody_reads_do_not_run() -> None:
    """Two populations, of which the device holds one at a time."""
    caps = replace(BRAINSCALES2, neuron_circuits=3)
    weights: Mapping[str, Tensor] = WEIGHTS
    for record, populations in (
        (Record(("hidden",), ()), ["hidden"]),
        (Record((), ("hidden",)), ["hidden"]),
        (Record((), ("readout",)), ["hidden", "readout"]),
        (Record(), ["hidden", "readout"]),
    ):
        parts = partition(requesting(record), caps)
        assert [part.circuit.populations[0].name for part in parts] == populations
        recording = Session(create_backend("reference")).record(requesting(record), parts, weights, stimulus(3).spikes)
        whole = configured(CASES["reference"], requesting(record)).run(weights, stimulus(3))
        assert recording.traces.keys() == whole.traces.keys()
        assert recording.spikes.keys() == whole.spikes.keys()
        if populations == ["hidden"]:
            assert parts[0].circuit.record == record
            assert all(torch.equal(codes, whole.traces[name]) for name, codes in recording.traces.items())


def test_a_circuit_of_which_nothing_is_requested_is_refused_in_parts_too() -> None:
    circuit = requesting(Record((), ()))
    parts = partition(circuit, replace(BRAINSCALES2, neuron_circuits=3))
    with pytest.raises(ValueError, match="requests neither spikes nor traces"):
        Session(create_backend("reference")).record(circuit, parts, WEIGHTS, stimulus(3).spikes)
