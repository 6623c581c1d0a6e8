"""Neurons that fail: a share of each hidden layer is silent."""

import json
from dataclasses import replace

import pytest
import torch
from test_training import digits, quiet

import hxtrain as hx
from hxtrain.backends import create_backend
from hxtrain.commands.evaluate import EvaluateConfig, evaluate_checkpoint, silenced
from hxtrain.commands.train import run
from hxtrain.execution.config import BackendConfig


def network(second=False):
    deeper = [hx.Linear(40, 20, gain=4), hx.LIF(20)] if second else []
    return hx.Network(hx.Linear(30, 40, gain=3), hx.LIF(40), *deeper, hx.Linear(20 if second else 40, 5), hx.LI(5))


def test_masks():
    net = network(second=True)
    small, large, reseeded = (silenced(net, *choice) for choice in ((0.16, 3), (0.5, 3), (0.16, 4)))
    assert small[-1] is None
    assert [int((mask == 0).sum()) for mask in small[:2]] == [6, 3]  # of 6.4 and 3.2
    assert [int((mask == 0).sum()) for mask in large[:2]] == [20, 10]
    assert all((larger <= smaller).all() for larger, smaller in zip(large[:2], small[:2], strict=True))
    assert not torch.equal(small[0], reseeded[0])
    assert all(torch.equal(a, b) for a, b in zip(small[:2], silenced(net, 0.16, 3)[:2], strict=True))
    assert silenced(net, 0.0, 3) is None


@pytest.mark.parametrize(
    ("backend", "settings"),
    [("software", {}), ("reference", {}), ("emulator", {"preset": "calibrated"}), ("emulator", {"preset": "ideal"})],
)
def test_silenced_neurons_do_not_spike_and_the_others_do_as_before(backend, settings):
    outputs = []
    for share in (0.0, 0.25):
        net = network()
        if backend != "software":
            net.attach(hx.Device(create_backend(backend, **settings)))
        masks = silenced(net, share, 3)
        spikes = hx.LatencyEncoder()(torch.rand(8, 30, generator=torch.Generator().manual_seed(0)))
        with torch.no_grad():
            outputs.append(net(spikes, masks).layers[0].spikes)
    whole, failed = outputs
    silent = masks[0] == 0
    assert int(silent.sum()) == 10
    assert whole[:, :, silent].sum() > 5
    assert not failed[:, :, silent].any()
    assert failed.any()
    assert torch.equal(whole[:, :, ~silent], failed[:, :, ~silent])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run(digits(2, train_samples=400, test_samples=50), folder, "test", quiet())
    return EvaluateConfig(str(folder / "checkpoint.pt"), test_samples=100)


@pytest.mark.parametrize("backend", ["emulator", "software"])
def test_evaluation(trained, tmp_path, backend):
    config = replace(trained, backend=BackendConfig(backend))
    whole, partial, silent = (
        evaluate_checkpoint(replace(config, silenced=share, silenced_seed=3), tmp_path, "test", quiet())
        for share in (0.0, 0.16, 1.0)
    )
    assert whole["silenced_neurons"] == {"layer0": 0}
    assert whole["hidden_spikes_per_sample"] > partial["hidden_spikes_per_sample"] > 0
    assert silent["hidden_spikes_per_sample"] == 0
    saved = json.loads((tmp_path / "evaluation.json").read_text())
    assert (saved["silenced"], saved["silenced_seed"], saved["silenced_neurons"]) == (1.0, 3, {"layer0": 60})
    assert partial["silenced_neurons"] == {"layer0": 10}  # of 9.6
    repeat = evaluate_checkpoint(replace(config, silenced=0.16, silenced_seed=3), tmp_path, "test", quiet())
    assert repeat["confusion"] == partial["confusion"]
    reseeded = evaluate_checkpoint(replace(config, silenced=0.16, silenced_seed=4), tmp_path, "test", quiet())
    assert reseeded["hidden_spikes_per_sample"] != partial["hidden_spikes_per_sample"]


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_no_share(share):
    with pytest.raises(ValueError, match=r"silenced=.* must be a share, in 0 <= x <= 1"):
        EvaluateConfig(silenced=share)
