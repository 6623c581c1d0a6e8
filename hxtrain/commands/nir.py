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
from hxtrain.exchange.metadata import read_metadata
from hxtrain.exchange.readers import verdicts
from hxtrain.exchange.simulators import SIMULATORS
from hxtrain.exchange.store import KIND, load_network
from hxtrain.execution.config import SOFTWARE
from hxtrain.network import Network
from hxtrain.objectives import Loss
from hxtrain.runs.checkpoint import load_checkpoint

from .construction import attached
from .evaluate import EvaluateConfig, load_trained, with_device

CHECK_COLUMNS = ("program", "verdict", "measured", "reasons")
AGREEMENT_COLUMNS = ("program", "networks", "bins", "spikes", "differing bins", "refusals")


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


class Report(NamedTuple):
    """Result of a check.

    Attributes:
        lines: What the graph is.
        rows: Rows of `CHECK_COLUMNS`.
    """

    lines: list[str]
    rows: list[tuple[str, ...]]


class AgreementRow(NamedTuple):
    """Row of a comparison.

    Attributes:
        cells: Cells of `AGREEMENT_COLUMNS`.
        is_equal: Whether all networks were taken, and no bin differs.
    """

    cells: tuple[str, ...]
    is_equal: bool


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
    export = _read(Path(config.file).expanduser(), config)
    device: Any = nullcontext()
    if config.device and export.checkpoint:
        settings = with_device(EvaluateConfig(checkpoint=export.checkpoint, own_device=None))
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
    write_graph(graph, config.out)
    return [f"{config.out}: {_description(read_nir(graph))}"]


def _read(path: Path, config: ExportConfig) -> Export:
    file = path / "checkpoint.pt" if path.is_dir() else path
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
    content = read_nir(config.file, times, config.metadata)
    save_network(content.net, config.out, content.encoder, content.loss, format="hxtrain")
    return [f"{config.out}: {_description(content)}", *content.remarks]


def _description(content: NirNetwork) -> str:
    """Return sizes, time step and device of a graph as text."""
    net = content.net
    sizes = [net.layers[0].linear.inputs, *(layer.neurons.size for layer in net.layers)]
    recurrent = ", recurrent" if any(layer.recurrent is not None for layer in net.layers) else ""
    device = ""
    if content.integers:
        named = ", ".join(f"{key} {value}" for key, value in content.device.items())
        device = f"; integer weights of {named}"
    return f"{'-'.join(map(str, sizes))}{recurrent}, {net.steps} steps of {net.dt:.4g} s{device}"


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
    rows: list[tuple[str, ...]] = [("hxtrain", "refuses" if network is None else "equal", "", reason)]
    in_milliseconds = values is not None and values.get("dialect") == "hxtorch"
    for verdict in verdicts(graph, dt, in_milliseconds):
        measured = _measured(verdict.simulator, graph, network, dt) if config.run and network is not None else ""
        rows.append((verdict.simulator, verdict.verdict, measured, "; ".join(verdict.reasons)))
    return Report(lines, rows)


def _measured(name: str, graph: Any, net: Network, dt: float) -> str:
    """Return in how many bins an installed program differs from the twin, as text."""
    if name not in SIMULATORS or not SIMULATORS[name].is_installed:
        return "not installed"
    spikes = random_spikes(net.layers[0].linear.inputs, net.steps, 0)
    try:
        differing, compared = differing_bins(name, graph, net, spikes, dt)
    except ExchangeError as error:
        return str(error)
    return f"{differing} of {compared.numel()} bins differ"


def agree(config: AgreeConfig, report: Callable[[int], None]) -> list[AgreementRow]:
    """Compare random networks in other programs with the twin.

    Raises:
        ExchangeError: A program is unknown, or none is installed.
    """
    unknown = sorted(set(config.simulators) - set(SIMULATORS))
    if unknown:
        raise ExchangeError(f"simulators: {', '.join(unknown)} is not known; choose of {', '.join(SIMULATORS)}")
    names = config.simulators or [n for n in ("norse", "snnTorch", "SpikingJelly") if SIMULATORS[n].is_installed]
    if not names:
        raise ExchangeError("no simulator is installed; install norse, snntorch or spikingjelly (docs/exchange.md)")
    return [_row(result, config.networks) for result in agreement(names, config.networks, report)]


def _row(result: Agreement, networks: int) -> AgreementRow:
    counts = (result.networks, result.bins, result.spikes, result.differing)
    cells = (result.simulator, *map(str, counts), "; ".join(result.refusals))
    return AgreementRow(cells, result.networks == networks and result.differing == 0)
