"""Trials in close succession: the residue of a trial in the next one, and forced resets."""

import pytest
import torch

from hxtrain.backends import Spikes, create_backend
from hxtrain.execution import Device
from hxtrain.network import NetworkConfig, PlacementError

FAST = 11.9e-6
STEPS = 6


def residue(**settings) -> float:
    """Return the mean trace of quiet trials that alternate with driven ones; isolated quiet trials have 0."""
    net = NetworkConfig(hidden=[60], steps=STEPS, init_mean=8e-3).build(64, 10, seed=0)
    driven = torch.arange(20) % 2 == 0
    times = torch.where(driven[:, None], torch.linspace(1e-6, 8e-6, 64).expand(20, 64), torch.inf)
    # The noise is the same in every case; only the residue differs.
    with Device(create_backend("emulator", preset="ideal"), **settings) as device, torch.no_grad():
        net.attach(device)
        trace = net(Spikes.from_times(times)).hidden[0].trace
    return float(trace[:, ~driven].abs().mean())


def test_a_forced_reset_removes_the_residue_of_a_trial():
    distant = residue()
    close = residue(trial_time=FAST)
    reset = residue(trial_time=FAST, forced_reset=True)
    assert distant == 0
    assert close > 0.05
    assert reset < 0.1 * close


def test_distant_trials_leave_no_residue():
    assert residue(trial_time=200e-6) < 1e-6


def test_chip_time_is_that_of_fast_trials():
    net = NetworkConfig(hidden=[20], steps=STEPS).build(8, 4, seed=0)
    none = Spikes.from_times(torch.full((50, 8), torch.inf))
    with Device(create_backend("emulator", preset="ideal"), trial_time=FAST, forced_reset=True) as device:
        net.attach(device)
        activity = net(none)
    assert activity.cost is not None
    assert activity.cost.chip_time == pytest.approx(50 * FAST)


@pytest.mark.parametrize(
    ("backend", "settings", "text"),
    [
        ("emulator", {"trial_time": 5e-6}, r"set steps=2 or less"),
        ("emulator", {"forced_reset": True}, r"set `trial_time`"),
        ("reference", {"trial_time": FAST, "forced_reset": True}, r"set forced_reset=false"),
    ],
)
def test_misfits(backend, settings, text):
    net = NetworkConfig(hidden=[20], steps=STEPS).build(8, 4, seed=0)
    with Device(create_backend(backend), **settings) as device, pytest.raises(PlacementError, match=text):
        net.attach(device)


def test_the_reference_device_has_no_close_trials():
    net = NetworkConfig(hidden=[20], steps=STEPS).build(8, 4, seed=0)
    with Device(create_backend("reference"), trial_time=FAST) as device, pytest.raises(ValueError, match="trial_time"):
        net.attach(device)
