"""What each simulator makes of a NIR graph, by its reader's code: takes it as it is meant, otherwise, or not at all.

Versions: norse 1.1.0, snnTorch 1.0.0, SpikingJelly 2.0.0, rockpool 3.1.0, spyx 1.0.0, sinabs 3.1.3 were run on graphs
of each kind; hxtorch (2025) was only read. `simulators` runs those that are installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .chain import Chain, Stage, read_chain
from .graphs import NEURONS
from .reading import SAME

EQUAL = "equal"
DIFFERS = "differs"
REFUSES = "refuses"
MOST_NODES = 3
"""Greatest number of nodes that a reason names."""


class Reason(NamedTuple):
    """Reason against a graph.

    Attributes:
        verdict: `differs` or `refuses`.
        node: Name of the node, with its kind; an empty one for the whole graph.
        text: What a simulator makes of it.
    """

    verdict: str
    node: str
    text: str


class Verdict(NamedTuple):
    """What a simulator makes of a graph.

    Attributes:
        simulator: Name of the simulator.
        verdict: `equal` if its spikes are those of the graph in forward Euler, `differs`, or `refuses`.
        reasons: Reasons, with the names of the nodes.
    """

    simulator: str
    verdict: str
    reasons: tuple[str, ...] = ()


class Facts(NamedTuple):
    """What the readers look at.

    Attributes:
        kinds: Kind of each node by name, those of subgraphs as `subgraph.node`.
        chain: Populations of the graph.
        dt: Time step (s).
        nested: Names of the recurrent populations that are subgraphs.
        in_milliseconds: Whether times are milliseconds.
    """

    kinds: Mapping[str, str]
    chain: Chain
    dt: float
    nested: frozenset[str]
    in_milliseconds: bool


def verdicts(
    graph: Any, dt: float, in_milliseconds: bool = False, deviations: Mapping[str, str] | None = None
) -> list[Verdict]:
    """Return what each simulator makes of a graph.

    Args:
        graph: `nir.NIRGraph`.
        dt: Time step of the graph (s).
        in_milliseconds: Whether times are milliseconds of the physical neurons, as hxtorch reads them.
        deviations: What the network of the graph does that no graph says, by layer, see `to_nir.deviations`.

    Raises:
        ExchangeError: The graph is no chain of populations.
    """
    facts = Facts(_kinds(graph), read_chain(graph), dt, _nested(graph), in_milliseconds)
    unsaid = [
        Reason(DIFFERS, name, f"the network {text}, which no graph says") for name, text in (deviations or {}).items()
    ]
    return [_verdict(name, [*reasons(facts), *unsaid]) for name, reasons in READERS.items()]


def _verdict(name: str, reasons: list[Reason]) -> Verdict:
    worst = next((kind for kind in (REFUSES, DIFFERS) if any(kind == reason.verdict for reason in reasons)), EQUAL)
    nodes: dict[str, list[str]] = {}
    for reason in reasons:
        if reason.verdict == worst:
            nodes.setdefault(reason.text, []).append(reason.node)
    return Verdict(name, worst, tuple(f"{_listed(names)}{text}" for text, names in nodes.items()))


def _listed(names: list[str]) -> str:
    """Return nodes as the start of a reason."""
    named = list(filter(None, dict.fromkeys(names)))
    if not named:
        return ""
    rest = f" and {len(named) - MOST_NODES} more" if len(named) > MOST_NODES else ""
    return f"{', '.join(named[:MOST_NODES])}{rest}: "


def _kinds(graph: Any, prefix: str = "") -> dict[str, str]:
    kinds: dict[str, str] = {}
    for name, node in graph.nodes.items():
        kind = type(node).__name__
        if kind == "NIRGraph":
            kinds |= _kinds(node, f"{prefix}{name}.")
        else:
            kinds[f"{prefix}{name}"] = kind
    return kinds


def _nested(graph: Any) -> frozenset[str]:
    return frozenset(name for name, node in graph.nodes.items() if type(node).__name__ == "NIRGraph")


def _label(stage: Stage) -> str:
    return f"{stage.name} ({stage.kind})"


def _unknown(facts: Facts, kinds: tuple[str, ...], verdict: str, text: str) -> Iterator[Reason]:
    """Yield a reason for each node of a kind that a reader does not know."""
    for name, kind in facts.kinds.items():
        if kind not in (*kinds, "Input", "Output"):
            yield Reason(verdict, f"{name} ({kind})", text)


def _not_uniform(facts: Facts, names: tuple[str, ...]) -> Iterator[Reason]:
    for stage in facts.chain.stages:
        for name in names:
            values = stage.fields.get(name)
            if values is not None and np.ptp(values) > SAME * np.max(np.abs(values)):
                yield Reason(REFUSES, _label(stage), f"{name} differs between neurons")


def _leaks(facts: Facts) -> Iterator[Reason]:
    for stage in facts.chain.stages:
        if np.any(stage.fields.get("v_leak", 0.0) != 0):
            yield Reason(REFUSES, _label(stage), "v_leak is not 0")


def _euler(stage: Stage, dt: float) -> bool:
    """Return whether the resistance of neurons is that of forward Euler with unit gain."""
    tau = stage.fields.get("tau_mem", stage.fields.get("tau"))
    return tau is not None and bool(np.allclose(stage.fields["r"], tau / dt, rtol=1e-5))


def _unit_input(stage: Stage, dt: float) -> bool:
    syn = stage.fields.get("tau_syn")
    return syn is None or bool(np.allclose(stage.fields["w_in"], syn / dt, rtol=1e-5))


def _norse(facts: Facts) -> Iterator[Reason]:
    kinds = ("Affine", "Conv2d", "CubaLIF", "Flatten", "IF", "LIF", "Linear", "SumPool2d")
    yield from _unknown(facts, kinds, DIFFERS, "left out, without an error")
    for stage in facts.chain.stages:
        if stage.kind in ("LIF", "IF") and np.any(stage.fields["r"] != 1):
            yield Reason(DIFFERS, _label(stage), "r is read as 1")
        yield from _exact_only(stage, facts.dt)


def _exact_only(stage: Stage, dt: float) -> Iterator[Reason]:
    """Yield a reason if neurons were written for the exact solution, with synaptic currents."""
    if stage.kind == "CubaLIF" and not _euler(stage, dt) and _unit_input(stage, dt):
        yield Reason(DIFFERS, _label(stage), "forward Euler of continuous time constants; write discretisation='euler'")


def _snntorch(facts: Facts) -> Iterator[Reason]:
    kinds = ("Affine", "AvgPool2d", "Conv1d", "Conv2d", "CubaLIF", "Flatten", "IF", "LIF", "Linear", "SumPool2d")
    yield from _unknown(facts, kinds, REFUSES, "no module there")
    yield from _leaks(facts)
    yield from _not_uniform(facts, ("v_threshold",))
    for stage in facts.chain.stages:
        if stage.kind == "CubaLIF" and not _euler(stage, 1e-4):
            yield Reason(REFUSES, _label(stage), "r is not tau_mem / 1e-4 s, its only step; write dialect='snntorch'")
        if stage.kind == "LIF" and facts.dt != 1e-4:
            yield Reason(DIFFERS, _label(stage), "its step is 1e-4 s; write dialect='snntorch'")
        if stage.kind == "IF":
            yield Reason(DIFFERS, _label(stage), "it leaks there, with beta=0.9")
        if stage.recurrent is not None and stage.name.partition(".")[0] not in facts.nested:
            yield Reason(DIFFERS, _label(stage), "inputs go into its recurrent weights; write dialect='snntorch'")


def _spikingjelly(facts: Facts) -> Iterator[Reason]:
    kinds = ("Affine", "AvgPool2d", "Conv1d", "Conv2d", "CubaLIF", "Flatten", "IF", "LIF", "Linear", "SumPool2d")
    yield from _unknown(facts, kinds, REFUSES, "no module there")
    yield from _not_uniform(facts, ("tau", "tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in"))
    for stage in facts.chain.stages:
        if stage.kind == "CubaLIF" and not (_euler(stage, facts.dt) and _unit_input(stage, facts.dt)):
            yield Reason(
                REFUSES, _label(stage), "r is not tau_mem/dt, or w_in not tau_syn/dt; write discretisation='euler'"
            )
        if stage.kind == "CubaLIF":
            yield from _leaks(facts)
        if stage.kind == "LIF" and not (_euler(stage, facts.dt) or np.allclose(stage.fields["r"], 1)):
            yield Reason(REFUSES, _label(stage), "r is neither 1 nor tau/dt")
        if stage.kind == "IF" and not np.allclose(stage.fields["r"], 1 / facts.dt):
            yield Reason(REFUSES, _label(stage), "r is not 1/dt")


def _rockpool(facts: Facts) -> Iterator[Reason]:
    yield from _unknown(facts, ("Affine", "CubaLIF", "Linear"), REFUSES, "no module there")
    for stage in facts.chain.stages:
        yield Reason(DIFFERS, _label(stage), "dt is derived from r, and neurons fire several times in a step")


def _spyx(facts: Facts) -> Iterator[Reason]:
    if not {"input", "output"} <= set(facts.kinds):
        yield Reason(REFUSES, "", "the ends of the graph are not named input and output")
    kinds = ("Affine", "Conv2d", "CubaLIF", "Flatten", "IF", "LI", "LIF", "Linear", "SumPool2d", "Threshold")
    yield from _unknown(facts, kinds, DIFFERS, "left out, without an error")
    for stage in facts.chain.stages:
        if stage.kind == "LI":
            yield Reason(REFUSES, _label(stage), "no module there without a Threshold")
        elif stage.kind in NEURONS:
            yield Reason(DIFFERS, _label(stage), "r and w_in are not read, and a spike subtracts the threshold")


def _sinabs(facts: Facts) -> Iterator[Reason]:
    kinds = ("Affine", "Conv1d", "Conv2d", "Flatten", "IF", "LI", "LIF", "SumPool2d")
    yield from _unknown(facts, kinds, REFUSES, "no layer there")
    for stage in facts.chain.stages:
        if stage.kind in ("IF", "LIF"):
            yield Reason(
                DIFFERS, _label(stage), "time constants are read in steps, and a spike subtracts the threshold"
            )


def _hxtorch(facts: Facts) -> Iterator[Reason]:
    yield from _unknown(facts, ("CubaLI", "CubaLIF", "Linear"), REFUSES, "no module there")
    yield from _not_uniform(facts, ("tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset"))
    for stage in facts.chain.stages:
        if stage.recurrent is not None:
            yield Reason(REFUSES, _label(stage), "its reader follows a chain, without recurrent weights")
        if not facts.in_milliseconds:
            yield Reason(DIFFERS, _label(stage), "times are read in milliseconds; write dialect='hxtorch'")


READERS: Mapping[str, Callable[[Facts], Iterator[Reason]]] = {
    "norse": _norse,
    "snnTorch": _snntorch,
    "SpikingJelly": _spikingjelly,
    "rockpool": _rockpool,
    "spyx": _spyx,
    "sinabs": _sinabs,
    "hxtorch": _hxtorch,
}
"""Reasons against a graph, by simulator."""
