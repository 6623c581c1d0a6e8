"""Checks of a device's description, and of repeated opening, configuration and closing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

from ..abilities import ABILITIES
from ..capabilities import Capabilities
from ..recording import DeviceError, Stimulus
from .bench import Bench, ConformanceError, NotApplicableError, difference, require, zeros


def capabilities_are_plausible(bench: Bench) -> str:
    """Capabilities have units and signs that make sense, and cannot be changed."""
    caps = bench.backend.capabilities
    require(isinstance(caps, Capabilities), f"capabilities are a {type(caps).__name__}, not Capabilities")
    require(caps == bench.backend.capabilities, "capabilities differ from one reading to the next")
    require(_frozen(caps), "capabilities can be changed; use the frozen dataclass itself")
    return f"{caps.neuron_circuits} circuits of {caps.inputs_per_circuit} inputs, weights up to {caps.weight_max}"


def _frozen(caps: Capabilities) -> bool:
    try:
        setattr(caps, "name", caps.name)  # noqa: B010 - the type checker knows that it is frozen
    except FrozenInstanceError:
        return True
    return False


def abilities_have_their_methods(bench: Bench) -> str:
    """An ability that the capabilities claim (`batching`, `calibration`) has its methods; none has plasticity yet."""
    caps = bench.caps
    claims = [name for name in ("batching", "calibration") if getattr(caps, name)]
    for claim in claims:
        ability = ABILITIES[claim]
        text = f"capabilities say {claim}=True, but the backend does not inherit from {ability.__name__}"
        require(isinstance(bench.backend, ability), text)
    require(not caps.plasticity, "capabilities say plasticity=True, for which the contract has no method yet")
    return ", ".join(claims) or "none claimed"


def identity_names_the_individual(bench: Bench) -> str:
    """`identity` has backend, chip and chip_hash, as texts, and stays the same while the device is used."""
    identity = dict(bench.backend.identity)
    missing = sorted({"backend", "chip", "chip_hash"} - set(identity))
    require(not missing, f"identity lacks {', '.join(missing)}")
    bad = [name for name, value in identity.items() if not (isinstance(value, str) and value)]
    require(not bad, f"identity needs texts that are not empty: {', '.join(bad)}")
    bench.configure(bench.groups())
    configured = dict(bench.backend.identity)
    bench.run({"input->neurons": bench.diagonal(1)}, bench.driven([0]))
    require(dict(bench.backend.identity) == configured, "identity changed in a run")
    require(configured["chip"] == identity["chip"], "the chip's name changed when a circuit was configured")
    return f"{identity['backend']}, chip {identity['chip']} ({configured['chip_hash']})"


def opens_and_closes_repeatedly(bench: Bench) -> str:
    """The device can be opened, used and closed several times; `close` may be called twice."""
    weights = {"input->neurons": bench.diagonal(bench.caps.weight_max)}
    recordings = []
    for _ in range(3):
        bench.backend.close()
        bench.backend.close()
        bench.backend.open()
        bench.configure(bench.groups())
        recordings.append(bench.run(weights, bench.driven([0, 1]), clock=0))
    if bench.caps.deterministic:
        changed = difference(recordings[0], recordings[2])
        require(changed is None, f"{changed} changed when the device was opened again")
    return "3 times"


def run_needs_a_circuit(bench: Bench) -> str:
    """`run` raises DeviceError before `configure`, and after `close`, which forgets the circuit."""
    weights = {"input->neurons": bench.diagonal(1)}
    stimulus = Stimulus(bench.driven([0]))
    _expect_device_error(lambda: bench.backend.run(weights, stimulus), "run before configure")
    bench.configure(bench.groups())
    bench.backend.close()
    bench.backend.open()
    _expect_device_error(lambda: bench.backend.run(weights, stimulus), "run after close and open")
    return "DeviceError"


def _expect_device_error(work: Callable[[], object], action: str) -> None:
    try:
        work()
    except DeviceError as error:
        require("configure" in str(error), f"{action}: the text should say to call configure: {error}")
    except Exception as error:
        raise ConformanceError(f"{action} raised {type(error).__name__} instead of DeviceError: {error}") from error
    else:
        raise ConformanceError(f"{action} returned a recording instead of DeviceError")


def circuits_can_be_exchanged(bench: Bench) -> str:
    """A readout alone, a spiking layer, two layers: each circuit replaces the one before it."""
    readout = bench.layer(3, 2)
    for circuit in (readout, bench.groups(), bench.two_layers(), readout):
        bench.configure(circuit)
        recording = bench.run(zeros(circuit), bench.quiet(circuit.inputs))
        expected = {p.name: p.size for p in circuit.populations}
        if bench.caps.traces:
            sizes = {name: codes.shape[-1] for name, codes in recording.traces.items()}
            require(sizes == expected, f"a circuit of {expected} gave traces of {sizes}")
        spiking = {p.name: p.size for p in circuit.populations if p.threshold is not None}
        sizes = {name: spikes.units for name, spikes in recording.spikes.items()}
        require(sizes == spiking, f"a circuit with the spiking populations {spiking} gave spikes of {sizes}")
    return "4 circuits in a row"


def trials_have_the_length_asked_for(bench: Bench) -> str:
    """A trial has as many trace samples as the circuit says, even one."""
    if not bench.caps.traces:
        raise NotApplicableError("the device records no traces")
    for samples in (1, bench.samples):
        bench.configure(circuit := replace(bench.layer(3, 2), samples=samples))
        codes = bench.run(zeros(circuit), bench.quiet(3)).traces["neurons"]
        require(codes.shape[1] == samples, f"{samples} samples asked for, {codes.shape[1]} recorded")
    return f"1 and {bench.samples} samples"
