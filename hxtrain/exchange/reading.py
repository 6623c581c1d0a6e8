r"""From the parameters of NIR's neurons to those of a layer, in steps of dt, and back.

A layer computes, in steps of dt::

    I[t+1] = alpha I[t] + W x[t]           alpha = exp(-dt / tau_syn)
    U[t+1] = beta U[t] + I[t+1]            beta = exp(-dt / tau_mem), threshold 1, reset to 0

NIR's equations (Pedersen et al. 2024) are continuous, `tau_syn dI/dt = -I + w_in S` and
`tau_mem dv/dt = v_leak - v + r I`. They say nothing on what a spike is in a step.
The simulators read them in different ways. Each way gives decays, and a gain that multiplies the weights::

    euler         alpha = 1 - dt/tau_syn, beta = 1 - dt/tau_mem, gain = (w_in dt/tau_syn) (r dt/tau_mem)
    continuous    alpha = exp(-dt/tau_syn), beta = exp(-dt/tau_mem),
                  gain = w_in r dt (beta - alpha)/(tau_mem - tau_syn): the exact solution, a spike is a pulse of area dt
    norse         decays as in euler; a spike adds 1 to the current, of which r dt/tau_mem reaches the membrane.
                  norse writes dt / tau_inv, which is tau dt
    unit          decays as in euler, gain = 1: spyx writes r and w_in, but reads neither
    rockpool      decays as in continuous; a spike adds 1 to the current before it decays
    sinabs        decays as in continuous, of time constants in steps; gain = 1 - beta, as by default (norm_input)

Neurons without a synaptic current (LIF, LI, IF) have alpha = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
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
        resets: What a spike does to the membrane: `zero`, or `subtract` for the threshold.
        factor: Power of dt that its time constants must be multiplied by.
        inexact: Kinds of nodes that a layer only comes close to, and the reason.
    """

    rule: str
    dt: float | None = None
    resets: str = "zero"
    factor: int = 0
    inexact: Mapping[str, str] = MappingProxyType({})


REMAINDER = "it subtracts the threshold before the membrane decays, a layer here afterwards"
MULTIPLE = f"{REMAINDER}; and its neurons fire several times in a step"
DIALECTS: Mapping[str, Dialect] = {
    "none": Dialect("euler"),
    "snntorch": Dialect("euler", 1e-4),
    "spikingjelly": Dialect("euler", 1e-4),
    "norse": Dialect("norse", 1e-3, factor=-1),
    "spyx": Dialect("unit", None, "subtract", inexact={"CubaLIF": REMAINDER}),
    "rockpool": Dialect("rockpool", None, "subtract", inexact={"CubaLIF": MULTIPLE, "LIF": MULTIPLE}),
    "sinabs": Dialect("sinabs", None, "subtract", 1, {"LIF": REMAINDER, "IF": f"{REMAINDER}, and stops at -threshold"}),
}
"""Dialects of graphs, by the simulator that wrote them; `none` is NIR's text in steps of dt."""
RESETS = ("zero", "subtract")
"""What a spike does to the membrane."""


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
    leak = _check_potentials(stage)
    remarks = [_inexact(stage, dialect, approximate)]
    scale = unit * dt**dialect.factor
    mem, mem_remark = _time_constant(stage, "tau_mem" if "tau_mem" in fields else "tau", scale, dt, approximate)
    syn, syn_remark = _time_constant(stage, "tau_syn", scale, dt, approximate)
    is_exponential = dialect.rule in ("continuous", "rockpool", "sinabs")
    beta = _decay(stage, mem, dt, is_exponential)
    alpha = 0.0 if syn is None else _decay(stage, syn, dt, is_exponential)
    gain = _gain(stage, dialect.rule, (alpha, beta), dt, (mem, syn))
    spiking = "v_threshold" in fields
    if spiking:
        gain = gain / (fields["v_threshold"] - leak)
    if not np.all(np.isfinite(gain) & (gain != 0)):
        raise ExchangeError(
            f"{_label(stage)} has gains {_short(gain)} of its inputs, from r={_short(fields['r'])}; all must be finite "
            "and "
            "other than 0"
        )
    remarks += [mem_remark, syn_remark]
    return Dynamics(_tau(beta, dt), _tau(alpha, dt), gain, spiking, tuple(filter(None, remarks)))


def _inexact(stage: Stage, dialect: Dialect, approximate: bool) -> str:
    """Return what a layer only comes close to; an empty text if it does the same.

    Raises:
        ExchangeError: It only comes close, which was not asked for.
    """
    reason = dialect.inexact.get(stage.kind)
    if reason is None:
        return ""
    if not approximate:
        raise ExchangeError(
            f"{_label(stage)} has no equal here: {reason}. Take a layer that comes close with approximate=True, and "
            "compare "
            "accuracies; or train it with a reset to 0"
        )
    return f"{_label(stage)}: {reason}"


def _label(stage: Stage) -> str:
    return f"node {stage.name!r} ({stage.kind})"


def refuse_unmarked(stages: list[Stage], dt: float, unit: float) -> None:
    """Refuse a graph whose resistances show that it was written in a dialect, while none was given.

    Raises:
        ExchangeError: It was written by rockpool or spyx.
    """
    for stage in stages:
        tau = stage.fields.get("tau_mem", stage.fields.get("tau"))
        if tau is None or np.any(stage.fields.get("w_in", 1.0) != 1):
            continue
        ratio = dt / (tau * unit)
        for name, resistances in (("rockpool", np.exp(-ratio) / ratio), ("spyx", 1 - ratio)):
            if np.allclose(stage.fields["r"], resistances, rtol=1e-4, atol=0):
                raise ExchangeError(
                    f"{_label(stage)} has r={_short(stage.fields['r'])}, which is what {name} writes for this step "
                    f"and means otherwise; give dialect={name!r}"
                )


def _check_potentials(stage: Stage) -> Array:
    """Return the leak of the neurons, after a check that they reset to it and that their threshold lies above it."""
    fields = stage.fields
    leak = fields.get("v_leak", np.zeros_like(fields["r"]))
    if "v_threshold" not in fields:
        if np.any(leak != 0):
            raise ExchangeError(
                f"{_label(stage)} has the leak v_leak={_short(leak)}; a readout here rests at 0: "
                "subtract it after the network"
            )
        return leak
    distance = fields["v_threshold"] - leak
    if not np.all(distance > 0):
        raise ExchangeError(
            f"{_label(stage)} has the threshold {_short(fields['v_threshold'])} and the leak "
            f"{_short(leak)}; the threshold must be above the leak"
        )
    reset = fields["v_reset"]
    if not np.allclose(reset, leak, rtol=0, atol=SAME * float(np.max(distance))):
        raise ExchangeError(
            f"{_label(stage)} resets to v_reset={_short(reset)}, and leaks to v_leak={_short(leak)}; "
            "neurons here reset to the leak: set both to the same value"
        )
    return leak


def _time_constant(stage: Stage, name: str, scale: float, dt: float, approximate: bool) -> tuple[float | None, str]:
    """Return the time constant of a population (s), or None if its neurons have none; and what was approximated."""
    if name not in stage.fields:
        return None, ""
    values = stage.fields[name] * scale
    shortest = float(values.min())
    longest = float(values.max())
    label = _label(stage)
    if not shortest > 0:
        raise ExchangeError(f"{label}: {name}={_short(values)} s must be positive")
    if shortest < min(SHORTEST, dt) or (dt < LONGEST and longest > LONGEST):
        raise ExchangeError(
            f"{label}: {name}={_short(values)} s is not within {SHORTEST:g} .. {LONGEST:g} s; if the graph's unit is "
            "another "
            "one, give time_unit (1e-3 for ms; the time step for time constants in steps), or the dialect of the "
            "simulator that wrote it"
        )
    if longest - shortest <= SAME * longest:
        return float(values.mean()) if longest != shortest else longest, ""
    if not approximate:
        raise ExchangeError(
            f"{label}: {name} differs between neurons, {shortest:.4g} .. {longest:.4g} s; the neurons of a layer here "
            "share it: train it with a common one, or take the mean with approximate=True"
        )
    mean = float(values.mean())
    return mean, (
        f"{label}: {name} of {values.size} neurons, {shortest:.4g} .. {longest:.4g} s, is replaced by its mean, "
        f"{mean:.4g} s"
    )


def _decay(stage: Stage, tau: float | None, dt: float, exponential: bool) -> float:
    """Return the decay in a step; 1 without a leak."""
    if tau is None:
        return 1.0
    if exponential:
        return math.exp(-dt / tau)
    if tau < dt * (1 - SAME):
        raise ExchangeError(
            f"{_label(stage)} has a time constant of {tau:.4g} s, shorter than the step dt={dt:.4g} s, in "
            "which forward Euler diverges; give the dt of the graph, or discretisation='continuous'"
        )
    return max(1 - dt / tau, 0.0)


def _gain(
    stage: Stage, rule: str, decays: tuple[float, float], dt: float, taus: tuple[float | None, float | None]
) -> Array:
    """Return the factor of the weights, see the equations above; time constants are None where there are none."""
    alpha, beta = decays
    mem, syn = taus
    r = stage.fields["r"]
    ones = np.ones_like(r)
    w_in = stage.fields.get("w_in", ones)
    if rule == "unit":
        return ones
    if rule == "norse":
        return r if mem is None else r * dt / mem
    if rule == "rockpool":
        return ones * (alpha if syn is not None else 1.0 if "v_threshold" in stage.fields else beta)
    if rule == "sinabs":
        return ones if mem is None else r * (1 - beta)
    membrane = r * dt if mem is None else r * dt / mem
    if rule == "euler":
        return membrane if syn is None else membrane * w_in * dt / syn
    if syn is None:
        return membrane * beta
    if mem is None or abs(mem / syn - 1) < SAME:
        return membrane * w_in * (dt / syn) * beta
    return np.asarray(r * w_in * dt * (beta - alpha) / (mem - syn))


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
