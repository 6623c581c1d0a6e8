"""Every registered rule passes the same checks (`rule_checks.py`): one row of `CASES` says how it runs.

A row names what makes the rule with its settings, and, where the defaults do not suit it, the network, the samples, the
objective with target spike trains or a reward, and how samples of a batch add up.
"""

from collections.abc import Callable

import pytest
from rule_checks import CHECKS, Case

from hxtrain.rules import RULES, Backprop

CASES = {
    "backprop": Case(Backprop),
}


def test_every_rule_of_the_package_has_a_case() -> None:
    assert sorted(CASES) == [name for name, point in RULES.points().items() if point.module.startswith("hxtrain.")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_a_rule(name: str, check: Callable[[Case], None]) -> None:
    case = CASES[name]
    assert RULES.name_of(type(case.rule())) == name
    check(case)
