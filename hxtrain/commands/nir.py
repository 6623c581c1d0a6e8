"""Networks as NIR graphs: export of a run, import into a file, and what other programs make of a graph."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, List, NamedTuple, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from hxtrain.datasets.encoders import Encoder
from hxtrain.exchange import ExchangeError, NirNetwork, Times, read_graph, read_nir, save_network, to_nir, write_graph
from hxtrain.exchange.agreement import Agreement, agreement, differing_bins, random_spikes
from hxtrain.exchange.files import file_path
from hxtrain.exchange.metadata import read_metadata
from hxtrain.exchange.plain import input_size
from hxtrain.exchange.readers import EQUAL, REFUSES, verdicts
from hxtrain.exchange.simulators import EXACT, SIMULATORS
from hxtrain.exchange.store import KIND, load_network
from hxtrain.exchange.to_nir import deviations
from hxtrain.execution.config import SOFTWARE
from hxtrain.network import DelayedNetwork, Network
from hxtrain.objectives import Loss
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint, previous_of
from hxtrain.training.loop import CHECKPOINT

from .construction import attached
from .evaluate import EvaluateConfig, load_trained, with_device

CHECK_COLUMNS = ("program", "verdict", "reasons")
MEASURED_COLUMN = "measured"
AGREEMENT_COLUMNS = ("program", "networks", "bins", "spikes", "differing bins", "remarks")


@dataclass
class ExportConfig:
    """Settings of an export.

    Attributes:
        file: Run directory, its `checkpoint.pt`, or a file of `hx.save`.
        out: Path of the graph.
        discretisation: `euler` or `continuous`; None: `euler`, or what the dialect needs.
        dialect: Form for one program, `snntorch` or `hxtorch`, or `none`.
        readout: `CubaLI`, or `omit` for programs without leaky readouts.
        approximate: Whether to write neurons that reset to 0 where the network does otherwise.
        device: Whether to open the device of the run for integer weights and identity; a run in software has none.
        modules: Modules with components of your own that the run names; they are imported.
    """

    file: str = "???"
    out: str = "???"
    discretisation: Optional[str] = None  # noqa: UP045
    dialect: str = "none"
    readout: str = "CubaLI"
    approximate: bool = False
    device: bool = True
    modules: List[str] = field(default_factory=list)  # noqa: UP006


@dataclass
class ImportConfig:
    """Settings of an import.

    Attributes:
        file: Path of the graph.
        out: Path of the network, a file for `hx.load` and `trainer.initial`.
        dt: Time step of the graph (s); None: that of the metadata or of the dialect.
        steps: Number of time steps; None: that of the metadata.
        discretisation: `euler` or `continuous`; None: that of the metadata or of the dialect.
        dialect: Program that wrote the graph, if it does not follow NIR's text.
        time_unit: Unit of the graph's times (s).
        speedup: Factor by which the network is faster than the graph.
        reset: `zero` or `subtract`; None: as the dialect says.
        approximate: Whether parameters that no layer has are replaced by close ones.
        metadata: Whether to restore a network of this toolkit from its metadata.
    """

    file: str = "???"
    out: str = "???"
    dt: Optional[float] = None  # noqa: UP045
    steps: Optional[int] = None  # noqa: UP045
    discretisation: Optional[str] = None  # noqa: UP045
    dialect: str = "none"
    time_unit: float = 1.0
    speedup: float = 1.0
    reset: Optional[str] = None  # noqa: UP045
    approximate: bool = False
    metadata: bool = True


@dataclass
class CheckConfig:
    """Settings of a check.

    Attributes:
        file: Path of the graph.
        dt: Time step of the graph (s); None: that of the metadata.
        run: Whether to run the graph in the installed programs and compare spikes with the twin.
    """

    file: str = "???"
    dt: Optional[float] = None  # noqa: UP045
    run: bool = False


@dataclass
class AgreeConfig:
    """Settings of a comparison of random networks.

    Attributes:
        networks: Number of networks; every second one is recurrent.
        simulators: Programs; without any, norse, snnTorch and SpikingJelly as far as they are installed.
    """

    networks: int = 100
    simulators: List[str] = field(default_factory=list)  # noqa: UP006


class CheckRow(NamedTuple):
    """Row of a check.

    Attributes:
        program: Name of the program.
        verdict: What it makes of the graph, `equal`, `differs` or `refuses`.
        measured: Bins that differ from the twin in a run; empty without a run.
        reasons: Reasons, with the names of nodes.
    """

    program: str
    verdict: str
    measured: str
    reasons: tuple[str, ...]


class Report(NamedTuple):
    """Result of a check.

    Attributes:
        lines: What the graph is.
        rows: A row for each program.
    """

    lines: list[str]
    rows: list[CheckRow]


class AgreementRow(NamedTuple):
    """Row of a comparison.

    Attributes:
        cells: Cells of `AGREEMENT_COLUMNS`.
        is_equal: Whether all networks were taken, and no bin differs; None for a program that is not installed.
    """

    cells: tuple[str, ...]
    is_equal: bool | None


class Export(NamedTuple):
    """Network to export.

    Attributes:
        net: Network with its weights.
        encoder: Code of the samples.
        loss: Loss.
        checkpoint: Checkpoint of the run; without one, the file is one of `hx.save`.
    """

    net: Network
    encoder: Encoder | None
    loss: Loss | None
    checkpoint: str


def export_network(config: ExportConfig) -> list[str]:
    """Write a network as a graph, and return a text on it.

    Raises:
        CheckpointError: The run cannot be read.
        ExchangeError: NIR cannot represent the network.
    """
    source = Path(config.file).expanduser()
    file = source / CHECKPOINT if source.is_dir() else source
    out = _separate(config.out, file)
    export = _read(file, config)
    device: Any = nullcontext()
    if config.device and export.checkpoint:
        try:
            settings = with_device(EvaluateConfig(checkpoint=export.checkpoint, own_device=None))
        except CheckpointError as error:
            raise CheckpointError(f"{error}; or write the graph without integer weights: device=false") from error
        if settings.own_device and settings.backend.name != SOFTWARE:
            device = attached(settings.backend, settings.chip, export.net)
    with device:
        graph = to_nir(
            export.net,
            encoder=export.encoder,
            loss=export.loss,
            discretisation=config.discretisation,
            dialect=config.dialect,
            readout=config.readout,
            approximate=config.approximate,
        )
    note = _note(out)
    write_graph(graph, out)
    return [f"{config.out}: {_description(read_nir(graph))}", *note]


def _separate(path: str, source: Path) -> Path:
    """Return the path of a file to write after a check that it is not the one that is read.

    Raises:
        ValueError: It is, or it is no path of a file.
    """
    out = file_path(path)
    if out.exists() and source.exists() and out.samefile(source):
        raise ValueError(f"out={path} is the file that is read; give the path of another one")
    return out


def _note(out: Path) -> list[str]:
    """Return a text on what becomes of an existing file, if there is one."""
    return [f"the previous {out.name} is {previous_of(out).name} now"] if out.exists() else []


def _read(file: Path, config: ExportConfig) -> Export:
    state = load_checkpoint(file)
    if state.get("kind") == KIND:
        return Export(*load_network(file, state), "")
    trained = load_trained(str(file), None, config.modules)
    return Export(trained.net, trained.encoder, trained.loss, str(file))


def import_graph(config: ImportConfig) -> list[str]:
    """Write the network of a graph into a file, and return texts on it.

    Raises:
        ExchangeError: No network does what the graph does.
    """
    times = Times(
        config.dt,
        config.steps,
        config.discretisation,
        config.dialect,
        config.time_unit,
        config.speedup,
        config.reset,
        config.approximate,
    )
    out = _separate(config.out, Path(config.file).expanduser())
    content = read_nir(config.file, times, config.metadata)
    note = _note(out)
    save_network(content.net, out, content.encoder, content.loss, format="hxtrain")
    return [f"{config.out}: {_description(content)}", *note]


def _description(content: NirNetwork) -> str:
    """Return sizes, time step and device of a graph as text."""
    net = content.net
    sizes = [input_size(net), *(layer.neurons.size for layer in net.layers)]
    delayed = f", {net.copies} delayed terminals of each input" if isinstance(net, DelayedNetwork) else ""
    recurrent = ", recurrent" if any(layer.recurrent is not None for layer in net.layers) else ""
    device = ""
    if content.integers:
        named = ", ".join(f"{key} {value}" for key, value in content.device.items())
        device = f"; integer weights of {named}"
    return f"{'-'.join(map(str, sizes))}{delayed}{recurrent}, {net.steps} steps of {net.dt:.4g} s{device}"


def check(config: CheckConfig) -> Report:
    """Return what each program makes of a graph.

    Raises:
        ExchangeError: The graph cannot be read, or does not say its time step.
    """
    graph = read_graph(config.file)
    values = read_metadata(graph.metadata, config.file)
    dt = config.dt
    if dt is None and values is not None:
        dt = float(values["network"]["constants"]["dt"]) * values["time_scale"]
    if dt is None:
        raise ExchangeError(f"{config.file} does not say its time step; give dt=SECONDS")
    lines = [f"{config.file}: {len(graph.nodes)} nodes, steps of {dt:.6g} s"]
    network: Network | None = None
    reason = ""
    try:
        content = read_nir(graph) if values is not None else read_nir(graph, Times(dt=dt, steps=100))
        network = content.net
        lines.append(f"hxtrain: {_description(content)}")
    except ExchangeError as error:
        reason = str(error)
    rows = [CheckRow("hxtrain", REFUSES if network is None else EQUAL, "", (reason,) if reason else ())]
    in_milliseconds = values is not None and values.get("dialect") == "hxtorch"
    unsaid = deviations(network) if values is not None and network is not None else {}
    for verdict in verdicts(graph, dt, in_milliseconds, unsaid):
        measured = ""
        failure = ""
        if config.run and network is not None:
            measured, failure = _measured(verdict.simulator, graph, network, dt)
        reasons = (*verdict.reasons, failure) if failure else verdict.reasons
        rows.append(CheckRow(verdict.simulator, verdict.verdict, measured, reasons))
    return Report(lines, rows)


def _measured(name: str, graph: Any, net: Network, dt: float) -> tuple[str, str]:
    """Return in how many bins an installed program differs from the twin, as text, and its error if it has one."""
    if name not in SIMULATORS or SIMULATORS[name].absence:
        return SIMULATORS[name].absence if name in SIMULATORS else "cannot be run", ""
    spikes = random_spikes(input_size(net), net.steps, 0)
    try:
        differing, compared = differing_bins(name, graph, net, spikes, dt)
    except ExchangeError as error:
        return "error", str(error)
    return f"{differing} of {compared.numel()} bins differ", ""


def agree(config: AgreeConfig, report: Callable[[int], None]) -> list[AgreementRow]:
    """Compare random networks in other programs with the twin.

    Raises:
        ExchangeError: A program is unknown, or none is installed.
    """
    unknown = sorted(set(config.simulators) - set(SIMULATORS))
    if unknown:
        raise ExchangeError(f"simulators: {', '.join(unknown)} is not known; choose of {', '.join(SIMULATORS)}")
    names = list(dict.fromkeys(config.simulators)) or list(EXACT)
    present = [name for name in names if SIMULATORS[name].is_installed]
    if not present:
        missing = ", ".join(dict.fromkeys(package for name in names for package in SIMULATORS[name].missing))
        raise ExchangeError(f"none of {', '.join(names)} is installed; they lack {missing} (docs/exchange.md)")
    results = {result.simulator: result for result in agreement(present, config.networks, report)}
    return [_row(results[name], config.networks) if name in results else _absent(name) for name in names]


def _absent(name: str) -> AgreementRow:
    return AgreementRow((name, "", "", "", "", SIMULATORS[name].absence), None)


def _row(result: Agreement, networks: int) -> AgreementRow:
    counts = (result.networks, result.bins, result.spikes, result.differing)
    cells = (result.simulator, *map(str, counts), "; ".join(result.refusals))
    return AgreementRow(cells, result.networks == networks and result.differing == 0)
