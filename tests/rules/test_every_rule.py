"""Every registered rule passes the same checks (`rule_checks.py`): one row of `CASES` says how it runs.

A row names what makes the rule with its settings, and, where the defaults do not suit it, the network, the samples, the
objective with target spike trains or a reward, and how samples of a batch add up.
"""

from collections.abc import Callable
from typing import Any

import pytest
from rule_checks import CHECKS, CLASSES, INPUTS, Case, spiking_network

import hxtrain as hx
from hxtrain.objectives import Firing, TimeToFirstSpike, TrainCorrelation
from hxtrain.objectives.van_rossum import VanRossum
from hxtrain.rules import RULES, Backprop, Objective
from hxtrain.rules.adm import ADM
from hxtrain.rules.clopath import Clopath
from hxtrain.rules.eventprop import EventProp
from hxtrain.rules.resume import ReSuMe
from hxtrain.rules.reward import RewardSTDP
from hxtrain.rules.rtrl import RTRL, EProp
from hxtrain.rules.sdsp import SDSP
from hxtrain.rules.spikeprop import SpikeProp
from hxtrain.rules.stdp import STDP, TripletSTDP
from hxtrain.rules.superspike import SuperSpike
from hxtrain.rules.tempotron import Tempotron

TRAINS = hx.Spikes.from_events([0, 0, 1, 2], [0, 1, 1, 2], [5e-6, 20e-6, 12e-6, 25e-6], CLASSES, CLASSES)
"""Target spike trains of the classes."""


def single_layer(steps: int) -> hx.Network:
    """Return 12 inputs onto 3 neurons that spike."""
    modules = hx.Linear(INPUTS, CLASSES, mean=0.1, gain=3.0), hx.LIF(CLASSES)
    return hx.Network(*modules, steps=steps, seed=1).double()


def pursuing(loss: hx.Loss) -> Callable[[hx.Network], Objective]:
    """Return what makes an objective with a loss, and target spike trains."""
    return lambda net: Objective(loss, targets=TRAINS)


def spiking(rule: Callable[[], Any], loss: hx.Loss | None = None, **options: Any) -> Case:
    """Return the case of a rule of a spiking output."""
    return Case(rule, **{"net": spiking_network, "objective": pursuing(loss or hx.SpikeCount()), **options})


def bistable() -> SDSP:
    """Return a rule whose synapses jump at the first input spikes, and do not drift."""
    return SDSP(up_low=-1, up_high=3, down_low=-1, down_high=9, teacher=5, jump_up=0.3, drift_up=0, drift_down=0)


CASES = {
    "adm": Case(ADM),
    "backprop": Case(Backprop),
    "clopath": spiking(Clopath, net=single_layer),
    "eprop": Case(EProp),
    "eventprop": spiking(lambda: EventProp(floor_strength=0.0), TimeToFirstSpike()),
    "resume": spiking(lambda: ReSuMe(constant=0.0), TrainCorrelation(), net=single_layer),
    "rstdp": spiking(lambda: RewardSTDP(settling=0), net=single_layer, reduction=None),
    "rtrl": Case(RTRL),
    "sdsp": spiking(bistable, net=single_layer, learning_rate=1.0, reduction=None),
    "spikeprop": spiking(lambda: SpikeProp(floor_strength=0.0), TimeToFirstSpike()),
    "stdp": spiking(STDP, net=single_layer),
    "superspike": spiking(SuperSpike, VanRossum()),
    "tempotron": spiking(Tempotron, Firing(), net=single_layer),
    "triplet_stdp": spiking(TripletSTDP, net=single_layer),
}


def test_every_rule_of_the_package_has_a_case() -> None:
    assert sorted(CASES) == [name for name, point in RULES.points().items() if point.module.startswith("hxtrain.")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_a_rule(name: str, check: Callable[[Case], None]) -> None:
    case = CASES[name]
    assert RULES.name_of(type(case.rule())) == name
    check(case)
