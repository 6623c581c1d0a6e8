"""Every registered rule passes the same checks (`rule_checks.py`): one row of `CASES` says how it runs.

A row names what makes the rule with its settings, and, where the defaults do not suit it, the network, the samples, the
objective with target spike trains or a reward, and how samples of a batch add up.
"""

from collections.abc import Callable

import pytest
import torch
from rule_checks import CHECKS, CLASSES, Case, spiking_network

import hxtrain as hx
from hxtrain.objectives import LOSSES
from hxtrain.rules import RULES, LearningRule, Objective


def rule(name: str, **settings: object) -> Callable[[], LearningRule]:
    """Return what makes a rule with settings."""
    return lambda: RULES[name](**settings)


def following(loss: str) -> Callable[[hx.Network], Objective]:
    """Return what makes an objective with a loss and a target spike train for each class."""
    times = torch.tensor([[9.0, 17.0, 25.0], [25.0, 9.0, 17.0], [17.0, 25.0, 9.0]]) * 1e-6

    def objective(net: hx.Network) -> Objective:
        return Objective(LOSSES[loss](), targets=hx.Spikes.from_times(times))

    assert len(times) == CLASSES
    return objective


CASES = {
    "adm": Case(rule("adm"), spiking_network),
    "backprop": Case(rule("backprop")),
    "clopath": Case(rule("clopath"), spiking_network, lengths=(60, 120)),
    "eprop": Case(rule("eprop")),
    "eventprop": Case(rule("eventprop", floor_strength=0.0), spiking_network, objective=following("ttfs")),
    "resume": Case(rule("resume", constant=0.0), spiking_network, objective=following("correlation")),
    "rstdp": Case(rule("rstdp", baseline="batch", settling=0), spiking_network, reduction=None),
    "rtrl": Case(rule("rtrl")),
    "sdsp": Case(
        rule("sdsp", up_low=0.0, down_low=0.0, theta_v=0.4, jump_up=0.6, jump_down=0.6),
        spiking_network,
        learning_rate=1.0,  # its steps are whole jumps between two weights
        reduction=None,
    ),
    "spikeprop": Case(rule("spikeprop", floor_strength=0.0), spiking_network, objective=following("ttfs")),
    "stdp": Case(rule("stdp"), spiking_network),
    "superspike": Case(rule("superspike"), spiking_network, objective=following("van_rossum")),
    "tempotron": Case(rule("tempotron"), spiking_network, objective=following("firing")),
    "triplet_stdp": Case(rule("triplet_stdp"), spiking_network),
}


def test_every_rule_of_the_package_has_a_case() -> None:
    assert sorted(CASES) == [name for name, point in RULES.points().items() if point.module.startswith("hxtrain.")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_a_rule(name: str, check: Callable[[Case], None]) -> None:
    case = CASES[name]
    assert RULES.name_of(type(case.rule())) == name
    check(case)
