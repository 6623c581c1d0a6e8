"""`hx.fit` without a run directory, and without reports."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import hxtrain as hx
from hxtrain.backends import BackendWrapper, Capabilities, DeviceError, Recording, Stimulus, create_backend


def digits(count: int = 50) -> hx.Dataset:
    data = hx.load_dataset("digits")
    return replace(data, train=data.train[:count], test=data.test[:10])


def network() -> hx.Network:
    return hx.Network(hx.Linear(64, 20, gain=3.0), hx.LIF(20), hx.Linear(20, 10), hx.LI(10))


class Failing(BackendWrapper):
    """A device that fails for good after some runs."""

    runs = 0

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, batching=False)

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        self.runs += 1
        if self.runs > 2:
            raise DeviceError("the chip is gone")
        return super().run(weights, stimulus)


def test_a_lost_device_leaves_the_weights_before_the_failed_step(mocker: Any) -> None:
    mocker.patch.object(tempfile, "mkdtemp", side_effect=AssertionError("no folder is needed"))
    trained = network()
    hx.fit(trained, digits(40), epochs=1, batch_size=20, progress=False)
    net = network()
    net.attach(hx.Device(Failing(create_backend("emulator", preset="ideal")), retries=0))
    with pytest.raises(DeviceError) as error:
        hx.fit(net, digits(60), epochs=1, batch_size=20, progress=False)
    text = str(error.value)
    assert "The network keeps the weights before the failed step; without a run directory nothing is saved" in text
    assert "checkpoint" not in text
    reference = network()
    reference.attach(hx.Device(create_backend("emulator", preset="ideal")))
    assert not torch.equal(net.stack[0].weight, reference.stack[0].weight)


def test_a_diverged_training_speaks_of_no_checkpoint() -> None:
    def undefined(output: Tensor, labels: Tensor) -> Tensor:
        return torch.nan * output.sum()

    with pytest.raises(ValueError, match=r"Without a run directory nothing is saved: give folder=\.\.\.") as error:
        hx.fit(network(), digits(), loss=undefined, progress=False)
    assert "checkpoint" not in str(error.value)


def test_without_progress_only_warnings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    hx.fit(network(), digits(), epochs=1, progress=False)
    assert "epoch" not in capsys.readouterr().out
    silent = hx.Network(hx.Linear(64, 20, gain=1e-3), hx.LIF(20), hx.Linear(20, 10), hx.LI(10))
    result = hx.fit(silent, digits(), epochs=2, progress=False)
    assert "warning: " in capsys.readouterr().out
    assert len(result.records) == 2
    hx.fit(network(), digits(), epochs=1)
    assert "epoch   1" in capsys.readouterr().out
