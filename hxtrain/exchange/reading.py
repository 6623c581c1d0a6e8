r"""From the parameters of NIR's neurons to those of a layer, in steps of dt, and back.

A layer computes, in steps of dt::

    I[t+1] = alpha I[t] + W x[t]           alpha = exp(-dt / tau_syn)
    U[t+1] = beta U[t] + I[t+1]            beta = exp(-dt / tau_mem), threshold 1, reset to 0

NIR's equations (Pedersen et al. 2024) are continuous, `tau_syn dI/dt = -I + w_in S`, `tau_mem dv/dt = v_leak - v + r I`.
They say nothing on what a spike is in a step. The simulators read them in different ways. Each way gives decays, and a
gain that multiplies the weights::

    euler         alpha = 1 - dt/tau_syn, beta = 1 - dt/tau_mem, gain = (w_in dt/tau_syn) (r dt/tau_mem)
    continuous    alpha = exp(-dt/tau_syn), beta = exp(-dt/tau_mem), gain = w_in r dt (beta - alpha)/(tau_mem - tau_syn):
                  the exact solution, for a spike that is a pulse of area dt
    unit          decays as in euler, gain = 1 (spyx writes r and w_in, but reads neither)
    exponential   decays as in continuous; a spike adds 1 to the current before it decays (rockpool, sinabs)

Neurons without a synaptic current (LIF, LI, IF) have alpha = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .chain import Array, Stage
from .errors import ExchangeError

DISCRETISATIONS = ("euler", "continuous")
"""Ways to write and read time constants, see above."""
SHORTEST = 1e-7
"""Shortest time constant that is believed to be in seconds (s)."""
LONGEST = 1.0
"""Longest one (s)."""
INSTANT = 1e-3
"""Time constant (steps) of a current that lasts for one step: its decay, exp(-1000), is 0 in any precision."""
SAME = 1e-6
"""Relative difference below which values are equal, since files hold float32."""


class Dialect(NamedTuple):
    """How a simulator means the graphs that it writes.

    Attributes:
        rule: Way to read time constants, see above.
        dt: Time step that the simulator writes graphs for (s); None: it must be given.
        resets: `zero`, or `subtract` where a spike subtracts the threshold.
        factor: What its time constants must be multiplied by, as a power of dt: 0 for none.
        remark: What else differs from NIR's text.
    """

    rule: str
    dt: float | None = None
    resets: str = "zero"
    factor: int = 0
    remark: str = ""


DIALECTS: Mapping[str, Dialect] = {
    "none": Dialect("euler"),
    "snntorch": Dialect("euler", 1e-4),
    "spikingjelly": Dialect("euler", 1e-4),
    "norse": Dialect("norse", 1e-3, factor=-1, remark="norse writes dt / tau_inv, which is tau dt"),
    "spyx": Dialect("unit", None, "subtract", remark="spyx writes r and w_in, but reads neither"),
    "rockpool": Dialect("exponential", None, "subtract", remark="neurons may fire several times in a step"),
    "sinabs": Dialect("normalised", None, "subtract", factor=1, remark="time constants are in steps"),
}
"""Dialects of graphs, by the simulator that wrote them; `none` is NIR's text in steps of dt."""


class Dynamics(NamedTuple):
    """The dynamics of a population in steps of dt.

    Attributes:
        tau_mem: Time constant of the membranes (s); infinite without a leak.
        tau_syn: Time constant of the synaptic currents (s).
        gain: Factor of the weights onto each neuron, `[N]`.
        spiking: Whether the neurons spike.
        remarks: What was approximated.
    """

    tau_mem: float
    tau_syn: float
    gain: Array
    spiking: bool
    remarks: tuple[str, ...] = ()


def dynamics(stage: Stage, dt: float, dialect: Dialect, unit: float, approximate: bool) -> Dynamics:
    """Return the dynamics of a population of a graph.

    Args:
        stage: Population.
        dt: Time step (s).
        dialect: Simulator that the graph is meant for.
        unit: Unit of the graph's times (s).
        approximate: Whether different time constants of neurons are replaced by their mean.

    Raises:
        ExchangeError: No layer has these parameters; the text names the node, the reason and a remedy.
    """
    fields = stage.fields
    offset = _check_potentials(stage)
    remarks: list[str] = []
    scale = unit * dt**dialect.factor
    mem_name = "tau_mem" if "tau_mem" in fields else "tau"
    mem, mem_remark = _time_constant(stage, mem_name, scale, dt, approximate)
    syn, syn_remark = _time_constant(stage, "tau_syn", scale, dt, approximate)
    remarks += [remark for remark in (mem_remark, syn_remark) if remark]
    is_exponential = dialect.rule in ("continuous", "exponential", "normalised")
    beta = _decay(stage, mem, dt, is_exponential)
    alpha = 0.0 if syn is None else _decay(stage, syn, dt, is_exponential)
    r = fields["r"]
    w_in = fields.get("w_in", np.ones_like(r))
    gain = _gain(dialect.rule, alpha, beta, dt, mem, syn, r, w_in)
    spiking = "v_threshold" in fields
    if spiking:
        gain = gain / (fields["v_threshold"] - offset)
    if not np.all(np.isfinite(gain) & (gain != 0)):
        raise ExchangeError(
            f"node {stage.name!r} ({stage.kind}): r={_short(r)} and w_in={_short(w_in)} give gains {_short(gain)}; all must "
            "be finite and other than 0"
        )
    return Dynamics(_tau(beta, dt), _tau(alpha, dt), gain, spiking, tuple(remarks))


def _check_potentials(stage: Stage) -> Array:
    """Return the leak of the neurons, after a check that they reset to it and that their threshold lies above it."""
    fields = stage.fields
    leak = fields.get("v_leak", np.zeros_like(fields["r"]))
    if "v_threshold" not in fields:
        if np.any(leak != 0):
            raise ExchangeError(
                f"node {stage.name!r} ({stage.kind}) has the leak v_leak={_short(leak)}; a readout here rests at 0: "
                "subtract it after the network"
            )
        return leak
    distance = fields["v_threshold"] - leak
    if not np.all(distance > 0):
        raise ExchangeError(
            f"node {stage.name!r} ({stage.kind}) has the threshold {_short(fields['v_threshold'])} and the leak "
            f"{_short(leak)}; the threshold must be above the leak"
        )
    reset = fields["v_reset"]
    if not np.allclose(reset, leak, rtol=0, atol=SAME * float(np.max(distance))):
        raise ExchangeError(
            f"node {stage.name!r} ({stage.kind}) resets to v_reset={_short(reset)}, and leaks to v_leak={_short(leak)}; "
            "neurons here reset to the leak: set both to the same value"
        )
    return leak


def _time_constant(
    stage: Stage, name: str, scale: float, dt: float, approximate: bool
) -> tuple[float | None, str | None]:
    """Return the time constant of a population (s), or None if its neurons have none; and what was approximated."""
    if name not in stage.fields:
        return None, None
    values = stage.fields[name] * scale
    shortest = float(values.min())
    longest = float(values.max())
    where = f"node {stage.name!r} ({stage.kind})"
    if not shortest > 0:
        raise ExchangeError(f"{where}: {name}={_short(values)} s must be positive")
    if shortest < min(SHORTEST, dt) or longest > max(LONGEST, 1e4 * dt):
        raise ExchangeError(
            f"{where}: {name}={_short(values)} s is not within {SHORTEST:g} .. {LONGEST:g} s; if the graph's unit is another "
            "one, give time_unit (1e-3 for ms; the time step for time constants in steps), or the dialect of the "
            "simulator that wrote it"
        )
    if longest - shortest <= SAME * longest:
        return float(values.mean()) if longest != shortest else longest, None
    if not approximate:
        raise ExchangeError(
            f"{where}: {name} differs between neurons, {shortest:.4g} .. {longest:.4g} s; the neurons of a layer here share "
            "it: split the population, or take the mean with approximate=True"
        )
    return float(values.mean()), f"{where}: {name} {shortest:.4g} .. {longest:.4g} s is replaced by its mean"


def _decay(stage: Stage, tau: float | None, dt: float, exponential: bool) -> float:
    """Return the decay in a step; 1 without a leak."""
    if tau is None:
        return 1.0
    if exponential:
        return math.exp(-dt / tau)
    if tau < dt * (1 - SAME):
        raise ExchangeError(
            f"node {stage.name!r} ({stage.kind}) has a time constant of {tau:.4g} s, shorter than the step dt={dt:.4g} s, in "
            "which forward Euler diverges; give the dt of the graph, or discretisation='continuous'"
        )
    return max(1 - dt / tau, 0.0)


def _gain(
    rule: str, alpha: float, beta: float, dt: float, mem: float | None, syn: float | None, r: Array, w_in: Array
) -> Array:
    """Return the factor of the weights, see the equations above."""
    if rule == "unit":
        return np.ones_like(r)
    if rule == "norse":  # input adds to the current of its LIF, a fraction of which reaches the membrane in a step
        return r * dt / (mem or 1.0)
    if rule == "exponential":
        return np.full_like(r, beta if syn is None and mem is None else alpha if syn is not None else 1.0)
    if rule == "normalised":
        return r * (1 - beta)
    membrane = r * dt / (1.0 if mem is None else mem)
    if rule == "euler":
        return membrane * (1.0 if syn is None else w_in * dt / syn)
    if syn is None:
        return membrane * beta
    if mem is None or abs(mem / syn - 1) < SAME:
        return membrane * w_in * (dt / syn) * beta
    return r * w_in * dt * (beta - alpha) / (mem - syn)


def _tau(decay: float, dt: float) -> float:
    """Return the time constant (s) of a decay."""
    if decay >= 1:
        return math.inf
    return INSTANT * dt if decay <= 0 else -dt / math.log(decay)


def euler_equivalent(tau: float, dt: float) -> float:
    """Return the time constant (s) at which forward Euler decays as much in a step as `exp(-dt / tau)`."""
    return dt / -math.expm1(-dt / tau)


def resistance(tau_mem: float, tau_syn: float, dt: float) -> float:
    """Return the resistance at which the exact solution for `w_in = tau_syn / dt` has the gain 1."""
    alpha = math.exp(-dt / tau_syn)
    beta = math.exp(-dt / tau_mem)
    if abs(tau_mem / tau_syn - 1) < SAME:
        return tau_mem / (dt * beta)
    return (tau_mem - tau_syn) / (tau_syn * (beta - alpha))


def _short(values: Array) -> str:
    unique = np.unique(values)
    return ", ".join(f"{value:.4g}" for value in unique[:3].tolist()) + (", ..." if unique.size > 3 else "")
