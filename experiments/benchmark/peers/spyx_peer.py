"""spyx on JAX: Linear, CuBaLIF (RCuBaLIF), Linear and two LI, a jitted scan; gradients of the weight matrices only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import spyx.axn
import spyx.nn
from flax import nnx

from .common import SLOPE, Peer, Task


class SpyxPeer(Peer):
    """A peer on JAX; compilation is not timed."""

    def __init__(self, task: Task) -> None:
        classes, neurons = task.readout.shape
        jax.config.update("jax_default_device", jax.devices("cpu" if task.hidden.device.type == "cpu" else "gpu")[0])
        keys = nnx.Rngs(0)
        first = nnx.Linear(task.hidden.shape[1], neurons, use_bias=False, rngs=keys)
        second = nnx.Linear(neurons, classes, use_bias=False, rngs=keys)
        first.kernel[...] = jnp.asarray(task.hidden.t().cpu().numpy())
        second.kernel[...] = jnp.asarray(task.readout.t().cpu().numpy())
        activation = spyx.axn.superspike(SLOPE)
        kind = spyx.nn.CuBaLIF if task.recurrent is None else spyx.nn.RCuBaLIF
        hidden: Any = kind((neurons,), alpha=task.decay, beta=task.decay, activation=activation, rngs=keys)
        if task.recurrent is not None:
            hidden.recurrent_w[...] = jnp.asarray(task.recurrent.t().cpu().numpy())
        leaky = [spyx.nn.LI((classes,), beta=task.decay, rngs=keys) for _ in range(2)]
        model = spyx.nn.Sequential(first, hidden, second, *leaky)
        graph, self._weights, rest = nnx.split(
            model, lambda path, value: isinstance(value, nnx.Param) and path[-1] in ("kernel", "recurrent_w"), ...
        )
        self._initial = self._weights
        optimizer = optax.adam(task.rate)
        self._state: Any = optimizer.init(self._weights)
        self._spikes = jnp.asarray(np.ascontiguousarray(task.spikes.cpu().numpy()))
        self._labels = jnp.asarray(task.labels.cpu().numpy())
        self._samples = len(task.labels)

        def scores(weights: Any, x: Any) -> Any:
            return spyx.nn.run(nnx.merge(graph, weights, rest), x)[0].max(0)

        def loss(weights: Any, x: Any, labels: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(scores(weights, x), labels).mean()

        @jax.jit
        def step(weights: Any, state: Any, x: Any, labels: Any) -> Any:
            value, gradient = jax.value_and_grad(loss)(weights, x, labels)
            updates, state = optimizer.update(gradient, state, weights)
            return optax.apply_updates(weights, updates), state, value

        @jax.jit
        def count(weights: Any, x: Any) -> Any:
            layers = nnx.merge(graph, weights, rest).layers
            return spyx.nn.run(spyx.nn.Sequential(layers[0], layers[1]), x)[0].sum()

        self._step = step
        self._scores = jax.jit(scores)
        self._count = count

    def train(self) -> object:
        """Do one training step."""
        self._weights, self._state, loss = self._step(self._weights, self._state, self._spikes, self._labels)
        return jax.block_until_ready(loss)

    def infer(self) -> object:
        """Return the maximum of each readout over time."""
        return jax.block_until_ready(self._scores(self._weights, self._spikes))

    def set_gain(self, gain: float) -> None:
        """Multiply the initial weights onto the hidden neurons."""

        def scaled(path: Any, leaf: Any) -> Any:
            name = jax.tree_util.keystr(path)
            return leaf * gain if "[0]" in name or "recurrent_w" in name else leaf

        self._weights = jax.tree_util.tree_map_with_path(scaled, self._initial)

    def hidden_spikes(self) -> float:
        """Return hidden spikes per sample."""
        return float(self._count(self._weights, self._spikes)) / self._samples


def build(task: Task) -> Peer:
    """Return the peer."""
    return SpyxPeer(task)
