"""Spike times and gradients of random networks by jaxsnn, for `test_times_jaxsnn.py`; they are in `data/jaxsnn.json`.

jaxsnn is no dependency of the tests. This script runs in an environment of its own::

    python3.11 -m venv jaxsnn && jaxsnn/bin/pip install jaxsnn==0.3.0
    jaxsnn/bin/python tests/rules/jaxsnn_gradients.py

Its membranes follow tau_mem dV/dt = I - V, with a threshold of 1 and a reset to 0. The loss is the sum over the output
of (t - target)^2 / 2 in us, of the first spike t. Each case is drawn from its seed until every output neuron fires, and
the gradients of jaxsnn by EventProp and by differentiation of its solver agree.
"""

import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402 - after the choice of the precision
from jaxsnn.event.modules import LIF, Linear, Source  # noqa: E402
from jaxsnn.event.modules.lif.lif import LIFParameters  # noqa: E402
from jaxsnn.event.topology import Topology  # noqa: E402
from jaxsnn.event.types import Spike  # noqa: E402

FILE = Path(__file__).parent / "data" / "jaxsnn.json"
TAU_SYN = 6e-6
END = 40e-6
EVENTS = 14
"""Input spikes of a case."""
MOST = 60
"""Events that a layer of jaxsnn processes, those of its input and its own."""
AGREEMENT = 1e-8
"""Largest difference of the two gradients of jaxsnn, relative to the largest gradient of a projection."""


def model(sizes, tau_mem, method):
    """Return the function of input spikes and weights that gives the spikes of all layers."""
    parameters = LIFParameters(TAU_SYN, tau_mem, v_th=1.0, v_reset=0.0)
    topology = Topology(t_max=END, backprop_method=method)
    topology.add({"input": Source(sizes[0])})
    upstream = "input"
    for number, size in enumerate(sizes[1:]):
        population = f"layer{number}"
        synapses = f"weights{number}"
        topology.add({population: LIF(size, MOST, parameters), synapses: Linear()})
        topology.connect([(upstream, synapses), (synapses, population)])
        upstream = population
    return topology.done()[1]


def spikes_of(events):
    """Return the spikes that the neurons of a layer fired in the only sample."""
    fired = np.asarray(events.internal[0])
    return np.asarray(events.time[0])[fired], np.asarray(events.idx[0])[fired]


@cache
def gradients(sizes, tau_mem, method):
    """Return the function of weights, input spikes and targets that gives gradients, and the spikes of all layers."""
    apply = model(sizes, tau_mem, method)
    last = f"layer{len(sizes) - 2}"

    def loss(weights, times, units, targets):
        inputs = Spike(times, units, jnp.zeros_like(times), jnp.zeros_like(units), jnp.ones_like(units, bool))
        parameters = {f"weights{number}": weight.T for number, weight in enumerate(weights)}
        layers = apply({"input": inputs}, parameters)
        output = layers[last]
        is_own = output.internal[0] & (output.idx[0] == jnp.arange(sizes[-1])[:, None])
        first = jnp.where(is_own, output.time[0], jnp.inf).min(1)
        return (((first - targets) * 1e6) ** 2).sum() / 2, layers

    return jax.jit(jax.grad(loss, has_aux=True))


def case(seed):
    """Return a random network with its spikes and gradients."""
    random = np.random.RandomState(seed)
    sizes = [(5, 3), (5, 4, 3)][seed % 2]
    ratio = 1 + seed // 2 % 2
    while True:
        weights = [random.normal(0.8, 1.0, (n, j)).round(3) for j, n in pairwise(sizes)]
        times = np.sort(random.randint(0, 20_000, EVENTS)) * 1e-9
        units = random.randint(0, sizes[0], EVENTS)
        targets = random.randint(8_000, 20_000, sizes[-1]) * 1e-9
        arguments = weights, times[None], units[None], targets
        by_adjoint, layers = gradients(sizes, ratio * TAU_SYN, "eventprop")(*arguments)
        by_solver, _ = gradients(sizes, ratio * TAU_SYN, "analytical")(*arguments)
        spikes = [spikes_of(layers[f"layer{number}"]) for number in range(len(weights))]
        is_silent = set(spikes[-1][1]) != set(range(sizes[-1]))
        numbers = [EVENTS, *(len(layer[0]) for layer in spikes)]
        is_full = any(sum(pair) >= MOST for pair in pairwise(numbers))
        if is_silent or is_full:
            continue
        apart = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(by_adjoint, by_solver, strict=True))
        print(f"seed {seed}: {numbers[1:]} spikes, gradients {apart:.1e} apart", flush=True)
        if apart < AGREEMENT:
            break
    return {
        "seed": seed,
        "tau_mem": ratio * TAU_SYN,
        "tau_syn": TAU_SYN,
        "weights": [weight.tolist() for weight in weights],
        "events": [[round(float(time), 9), int(unit)] for time, unit in zip(times, units, strict=True)],
        "targets": targets.round(9).tolist(),
        "spikes": [[[digits(t), int(n)] for t, n in zip(*layer, strict=True)] for layer in spikes],
        "gradients": [[[digits(value) for value in row] for row in gradient] for gradient in by_adjoint],
    }


def digits(value):
    """Return a number with ten digits."""
    return float(f"{value:.10g}")


if __name__ == "__main__":
    cases = ",\n".join(json.dumps(case(seed)) for seed in range(20))
    FILE.write_text(f"[\n{cases}\n]\n")
