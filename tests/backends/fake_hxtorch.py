"""A stand-in for the part of hxtorch that the adapter uses, with a scripted chip behind it.

It asks for what hxtorch asks for: modules called before every run, an integer runtime, a connection; a failed run
leaves the registered modules behind; calibration once per population that is asked; samples and spikes with clocks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

CLOCK = 125e6
INTERVAL = 1.7e-6


@dataclass
class Run:
    """Arguments of one run of the chip.

    Attributes:
        weights: Integer weights.
        inputs: Grids of input spikes `[T, B, N]`.
        steps: Number of steps of the window.
        calibrations: Number of calibrations so far.
        window: Length of a trial's program (clocks).
        wait: Time between trials (clocks), which grenade counts from the start of a trial, not from its end.
    """

    weights: list[Tensor]
    inputs: list[Tensor]
    steps: int
    window: int
    wait: int
    calibrations: int

    @property
    def gap(self) -> float:
        """Time from the end of a trial's window to the next trial (s)."""
        return max(self.wait - self.window, 0) / CLOCK


@dataclass
class FakeChip:
    """Knobs and logs.

    Attributes:
        trace: Code of a neuron from (size of its population, time, trial, neuron).
        events: Events (clock, trial, neuron) of a population by its size.
        extra_samples: Number of samples of a trial after the end of its window, negative for missing ones.
        silent: Trials without any sample of neuron 0.
        lag: Delay of all samples (s).
        drops: Number of events that the crossbar drops.
        tuples: Whether post-processing gives tuples, as until December 2025, instead of an object.
        uncalibrated: Error that calibrations raise.
    """

    identifier: str = "hxcube7fpga0chip57_1"
    trace: Callable[[int, float, int, int], float] = lambda size, t, b, n: 80.0
    events: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    extra_samples: Callable[[int], int] = lambda b: 1
    silent: set[int] = field(default_factory=set)
    timed: bool = True
    lag: float = 0.0
    interval: float = INTERVAL
    drops: Any = 0
    tuples: bool = False
    uncalibrated: list[Exception] = field(default_factory=list)
    fail: list[Exception] = field(default_factory=list)
    connected: bool = False
    calls: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    routed: list[list[tuple[int, int]]] = field(default_factory=list)
    modules: list[Any] = field(default_factory=list)
    calibrations: int = 0
    caches: list[Any] = field(default_factory=list)
    file_target: Any = None

    def init_hardware(self) -> None:
        self.calls.append("init")
        if self.fail and isinstance(self.fail[0], ConnectionError):
            raise self.fail.pop(0)
        self.connected = True

    def release_hardware(self) -> None:
        self.calls.append("release")
        self.connected = False

    def get_unique_identifier(self) -> list[str]:
        assert self.connected
        return [self.identifier]


class Handle:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class SpikeHandle:
    def __init__(self, data: list[tuple[int, int, int]]) -> None:
        self._data = data

    def get_data(self) -> list[tuple[int, int, int]]:
        return self._data


class CADCHandle:
    """Samples as (code - 128, clock, trial, neuron)."""

    def __init__(self, data: list[tuple[int, int, int, int]], batch: int, size: int, timed: bool) -> None:
        self._data = data
        self.batch_size = batch
        self.population_size = size
        if timed:
            self.to_raw = self._to_raw

    def get_data(self) -> list[tuple[int, int, int, int]]:
        return self._data

    def _series(self) -> dict[tuple[int, int], list[tuple[int, int]]]:
        samples: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for value, clock, b, n in self._data:
            samples.setdefault((b, n), []).append((clock, value))
        return samples

    def _to_raw(self) -> tuple[Tensor, Tensor]:
        """Cut all series to the length of the shortest."""
        series = self._series()
        everyone = [(b, n) for b in range(self.batch_size) for n in range(self.population_size)]
        steps = min(len(series.get(key, ())) for key in everyone)
        cut = torch.tensor([series[key][:steps] for key in everyone]) if steps else torch.zeros(len(everyone), 0, 2)
        cut = cut.view(self.batch_size, self.population_size, steps, 2).permute(3, 2, 0, 1)
        return cut[1].float(), cut[0].int()

    def to_dense(self, runtime: float, dt: float, mode: str) -> Tensor:
        assert mode in ("linear", "nn")
        grid = np.arange(math.ceil(runtime / dt - 1e-6) + 1) * dt
        dense = torch.empty(len(grid), self.batch_size, self.population_size)
        series = self._series()
        for b in range(self.batch_size):
            for n in range(self.population_size):
                clocks, values = np.array(series[b, n]).T  # without samples: out of bounds in the original
                dense[:, b, n] = torch.from_numpy(np.interp(grid, clocks / CLOCK, values))
        return dense


class Module(torch.nn.Module):
    def __init__(self, experiment: Any) -> None:
        super().__init__()
        self.experiment = experiment
        self.handle = Handle()

    def forward(self, *inputs: Any) -> Handle:
        return self.experiment.modules.add(self, inputs)


class Synapse(Module):
    def __init__(self, in_features: int, out_features: int, experiment: Any, transform: Callable[..., Any]) -> None:
        super().__init__(experiment)
        self.weight = torch.nn.Parameter(torch.randn(out_features, in_features))
        self.transform = transform


class Neurons(Module):
    fires = True

    def __init__(self, size: int, experiment: Any, **settings: Any) -> None:
        super().__init__(experiment)
        self.size = size
        self.settings = settings
        self._reported = False
        experiment.chip.modules.append(self)

    def calib_changed_since_last_run(self) -> bool:
        changed = not self._reported
        self._reported = True
        return changed

    def forward_func(self, *inputs: Any, hw_data: Any = None) -> Handle:
        raise AssertionError("hxtorch's own simulation")

    def post_process(self, hw_data: Any, runtime: float) -> Any:
        if not self.settings["enable_cadc_recording"]:
            return (None, None, None) if self.experiment.chip.tuples else Handle(voltage=Handle(cadc=None), spikes=None)
        shift = self.settings["cadc_time_shift"]
        cadc = hw_data.cadc.to_dense(runtime, self.experiment.dt, self.settings["interpolation_mode"])
        if shift:
            cadc = torch.roll(cadc, -shift, 0)
            cadc[len(cadc) - shift :] = cadc[len(cadc) - shift - 1]
        spikes = torch.zeros_like(cadc) if self.fires else None
        if self.experiment.chip.tuples:
            return (spikes, cadc, None) if self.fires else (cadc, None)
        return Handle(voltage=Handle(cadc=cadc, madc=None), spikes=spikes)


class LIF(Neurons):
    pass


class LI(Neurons):
    fires = False


class Modules:
    def __init__(self) -> None:
        self.called: list[tuple[Any, tuple[Any, ...]]] = []
        self.stale = False

    def add(self, module: Any, inputs: tuple[Any, ...]) -> Handle:
        assert not self.stale, "modules of a failed run are still registered"
        self.called.append((module, inputs))
        return module.handle

    def clear(self) -> None:
        self.called = []
        self.stale = False


class ExecutionInstance:
    chip: FakeChip

    def __init__(self, calib_cache_dir: Any = None) -> None:
        self.calib_cache_dir = calib_cache_dir
        self.calib = None
        self.loaded = None
        self.cadc_neurons: dict[int, list[object]] = {}
        self.neurons: list[Any] = []

    def calibrate(self) -> None:
        if self.loaded is not None or not any(module.calib_changed_since_last_run() for module in self.neurons):
            return
        self.chip.calibrations += 1
        self.chip.caches.append(self.calib_cache_dir)
        if self.chip.uncalibrated:
            raise self.chip.uncalibrated.pop(0)

    def load_calib(self, path: str) -> None:
        self.loaded = path
        if path.endswith(".pkl"):
            self.calib = SimpleNamespace(target=SimpleNamespace(neuron_target=self.chip.file_target))


class Experiment:
    chip: FakeChip

    def __init__(self, mock: bool, dt: float, hw_routing_func: Callable[[Any], Any] = lambda network: "routed") -> None:
        assert not mock
        self.dt, self.hw_routing_func = dt, hw_routing_func
        self.default_execution_instance = self.instance_type()
        self.inter_batch_entry_wait: int | None = None
        self.modules = Modules()
        self.graph: Any = None

    instance_type: type[ExecutionInstance]


def run(experiment: Any, steps: int) -> Any:
    """Run the registered modules."""
    chip = experiment.chip
    assert isinstance(steps, int)
    assert experiment.modules.called, "modules have to be called before every run"
    experiment.modules.stale = True
    if not chip.connected:
        raise RuntimeError("No connection present.")
    synapses = [(m, i) for m, i in experiment.modules.called if isinstance(m, Synapse)]
    neurons = [(m, i) for m, i in experiment.modules.called if isinstance(m, Neurons)]
    instance = experiment.default_execution_instance
    instance.neurons = [m for m, _ in neurons]
    instance.calibrate()
    if experiment.graph is None:
        chip.routed.append([(m.weight.shape[1], m.weight.shape[0]) for m, _ in synapses])
        experiment.graph = experiment.hw_routing_func("network")
    for key in range(sum(m.size for m, _ in neurons)):
        instance.cadc_neurons.setdefault(key, []).append(object())
    if chip.fail:
        raise chip.fail.pop(0)
    matrices = [m.transform(m.weight.detach().clone()) for m, _ in synapses]
    inputs = [i[0].spikes for _, i in synapses if hasattr(i[0], "external")]
    weights = [(w + 0.5 * torch.where(w < 0, -1, 1)).int() for w in matrices]
    window = int(steps * experiment.dt * CLOCK)
    chip.runs.append(Run(weights, inputs, steps, window, experiment.inter_batch_entry_wait, chip.calibrations))
    runtime = window / CLOCK
    for module, arguments in neurons:
        hw_data = _measure(chip, module, inputs[0].shape[1], runtime)
        module.handle.__dict__.update(
            module.forward_func(*arguments, hw_data=module.post_process(hw_data, runtime)).__dict__
        )
    experiment.modules.clear()
    counters = SimpleNamespace(crossbar_input_drop_counter=chip.drops)
    health = SimpleNamespace(execution_instances={0: SimpleNamespace(chips={0: counters})})
    return SimpleNamespace(time="time", health=health)


def _measure(chip: FakeChip, module: Any, batch: int, runtime: float) -> Any:
    data = []
    for b in range(batch):
        for k in range(math.ceil(runtime / chip.interval - 1e-6) + chip.extra_samples(b)):
            t = k * chip.interval
            clock = round((t + chip.lag) * CLOCK)
            for n in range(module.size):
                if n or b not in chip.silent:
                    data.append((round(chip.trace(module.size, t, b, n)) - 128, clock, b, n))
    recorded = data and module.settings["enable_cadc_recording"]
    cadc = CADCHandle(data, batch, module.size, chip.timed) if recorded else None
    events = [event for event in chip.events.get(module.size, []) if event[1] < batch]
    return SimpleNamespace(cadc=cadc, spikes=SpikeHandle(events) if module.fires else None, madc=None)


def refusing_router(network: object) -> object:
    """A routing function that finds no way."""
    raise RuntimeError("no space left on the crossbar")


def make_modules(chip: FakeChip) -> dict[str, ModuleType]:
    """Return modules for `sys.modules`, which know `chip`."""
    instance = type("ExecutionInstance", (ExecutionInstance,), {"chip": chip})
    experiment = type("Experiment", (Experiment,), {"chip": chip, "instance_type": instance})
    content = {
        "hxtorch": {
            "__version__": "1.2.3",
            "init_hardware": chip.init_hardware,
            "release_hardware": chip.release_hardware,
            "get_unique_identifier": chip.get_unique_identifier,
        },
        "hxtorch.spiking": {
            "Experiment": experiment,
            "ExecutionInstance": instance,
            "Handle": Handle,
            "LIFObservables": lambda spikes: Handle(spikes=spikes, external=True),
            "SynapseHandle": Handle,
            "MixedHXModelParameter": lambda model_value, hardware_value: (model_value, hardware_value),
            "Synapse": Synapse,
            "LIF": LIF,
            "LI": LI,
            "run": run,
        },
        "hxtorch.spiking.morphology": {"SingleCompartmentNeuron": lambda circuits: ("neuron", circuits)},
        "pygrenade_vx": {"__version__": "4.5"},
        "pygrenade_vx.network": {"NetworkBuilder": object, "requires_routing": object},
        "calix": {},
        "calix.spiking": {
            "SpikingCalibTarget": type("Target", (), {"__init__": lambda self, neuron_target=None: None})
        },
    }
    modules = {}
    for name, names in content.items():
        modules[name] = ModuleType(name)
        modules[name].__dict__.update(names)
    for name in ("hxtorch", "hxtorch.spiking", "pygrenade_vx", "calix"):
        modules[name].__path__ = []
    return modules
