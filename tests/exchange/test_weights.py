"""Weights of other programs by name and order, and out again with integers and scales."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hxtrain as hx
from hxtrain.exchange.weights import read_archive
from hxtrain.runs.checkpoint import CheckpointError


def network(recurrent: bool = False, seed: int = 0) -> hx.Network:
    """Return a small network."""
    loop = [hx.Recurrent(5)] if recurrent else []
    return hx.Network(hx.Linear(4, 5), hx.LIF(5), *loop, hx.Linear(5, 3), hx.LI(3), seed=seed)


def equal(net: hx.Network, weights: list[torch.Tensor]) -> bool:
    """Return whether a network has these weights."""
    return all(torch.equal(a, b) for a, b in zip(net.effective_weights(), weights, strict=True))


def test_a_plain_module_is_read_by_order_without_biases() -> None:
    module = nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        module[2].bias.zero_()
    net = network()
    hx.load_weights(net, module.state_dict())
    assert equal(net, [module[0].weight, module[2].weight])
    with torch.no_grad():
        module[2].bias[1] = 0.5
    with pytest.raises(CheckpointError, match=r"2\.bias holds biases up to 0\.5, .* train without"):
        hx.load_weights(net, module.state_dict())


def test_constants_of_neurons_are_named_not_taken(caplog) -> None:
    weights = {
        "fc1.weight": torch.rand(5, 4),
        "lif1.beta": torch.tensor(0.9),
        "lif1.recurrent.weight": torch.rand(5, 5),
    }
    weights |= {"lif1.threshold": torch.tensor(1.0), "fc2.weight": torch.rand(3, 5)}
    net = network(recurrent=True)
    hx.load_weights(net, weights)
    assert equal(net, [weights[name] for name in ("fc1.weight", "lif1.recurrent.weight", "fc2.weight")])
    assert "lif1.beta = 0.9" in caplog.text
    with pytest.raises(CheckpointError, match=r"lif1\.threshold is 2, thresholds here are 1: divide the weights"):
        hx.load_weights(net, {**weights, "lif1.threshold": torch.tensor(2.0)})


def test_transposed_matrices_are_noticed(tmp_path: Path) -> None:
    kernels = [np.random.default_rng(0).normal(size=shape).astype(np.float32) for shape in ((4, 5), (5, 3))]
    np.savez(tmp_path / "kernels.npz", *kernels)
    net = network()
    with pytest.raises(CheckpointError, match="which are transposed; load them with transposed=True"):
        hx.load_weights(net, tmp_path / "kernels.npz")
    hx.load_weights(net, tmp_path / "kernels.npz", transposed=True)
    assert equal(net, [torch.tensor(kernel.T) for kernel in kernels])
    with pytest.raises(CheckpointError, match="the network takes matrices"):
        hx.load_weights(network(recurrent=True), tmp_path / "kernels.npz", transposed=True)


@pytest.mark.parametrize("name", ["weights.npz", "weights.pt", "whole.pt"])
def test_weights_come_back_from_each_format(tmp_path: Path, name: str) -> None:
    net = network(recurrent=True)
    chosen = {"weights.pt": "state_dict"}.get(name)
    hx.save(net, tmp_path / name, format=chosen)
    restored = network(recurrent=True, seed=1)
    hx.load_weights(restored, tmp_path / name)
    assert equal(restored, net.effective_weights())


def test_integers_and_scales_are_those_of_the_device(tmp_path: Path) -> None:
    net = network()
    with hx.open_device("reference") as device:
        net.attach(device)
        hx.save(net, tmp_path / "weights.npz")
        hx.save(net, tmp_path / "weights.pt", format="state_dict")
        integers, scales = device.plan.quantise(net.effective_weights())
    arrays = read_archive(tmp_path / "weights.npz")
    tensors = torch.load(tmp_path / "weights.pt", weights_only=True)
    for place, (name, weight) in enumerate(integers.items()):
        assert torch.equal(arrays[f"{name}_integers"], weight)
        assert arrays[f"{name}_scale"].item() == scales[place]
        assert torch.equal(tensors[f"stack.{2 * place}.weight_integers"], weight)
    restored = network(seed=1)
    hx.load_weights(restored, tmp_path / "weights.npz")
    assert equal(restored, net.effective_weights())
    hx.load_weights(restored, tmp_path / "weights.pt")
    assert equal(restored, net.effective_weights())


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({"a": torch.full((5, 4), torch.nan), "b": torch.ones(3, 5)}, "NaN or infinite"),
        ({"a": torch.ones(5, 4)}, "the network takes matrices"),
        ({"a": "text", "b": torch.ones(3, 5)}, "expected a tensor or an array|the network takes"),
        ({"a": torch.ones(5, 4) * 1j, "b": torch.ones(3, 5)}, "weights are real numbers"),
    ],
)
def test_what_is_no_weight_is_refused(weights: dict[str, object], text: str) -> None:
    net = network()
    previous = [weight.clone() for weight in net.effective_weights()]
    with pytest.raises(CheckpointError, match=text):
        hx.load_weights(net, weights)
    assert equal(net, previous)


def test_options_of_another_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dialect: only format='nir' has these options"):
        hx.save(network(), tmp_path / "net.pt", dialect="snntorch")
    with pytest.raises(ValueError, match="format='onnx' is not known; choose one of hxtrain, npz, state_dict, nir"):
        hx.save(network(), tmp_path / "net.pt", format="onnx")
