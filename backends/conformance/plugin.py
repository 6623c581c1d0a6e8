"""A pytest plug-in: the suite as the tests of one's own backend, in three lines.

    @pytest.mark.hxtrain_backend("mychip", chip="A")
    def test_conformance(conformance_check):
        conformance_check()

The marker names a registered backend and its settings, or a function that returns a `Backend`; `tolerances` is one of
`ideal`, `analog`, `uncalibrated`, or `Tolerances`, by default the choice of the device (`Backend.tolerances`);
`exclude` gives the reason for each omitted check. pytest makes one test of every check. It skips checks that are
excluded or do not apply, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ..backend import Backend
from ..registry import create_backend
from .suite import select, verify
from .tolerances import TOLERANCES, Tolerances

MARK = "hxtrain_backend"
USE = f'@pytest.mark.{MARK}("NAME or function", tolerances="ideal", exclude={{}}, **settings)'


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", f"{MARK}(backend, tolerances, exclude, **settings): device of conformance_check")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each check."""
    if "conformance_check" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker(MARK)
    if marker is None:
        raise pytest.UsageError(f"{metafunc.definition.nodeid} uses conformance_check; mark it with {USE}")
    metafunc.parametrize("conformance_check", select(None, marker.kwargs.get("exclude", {})), indirect=True)


@pytest.fixture
def conformance_check(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Return a function that runs one check on the marked device, and fails or skips the test by its verdict."""
    marker = request.node.get_closest_marker(MARK)
    options = dict(marker.kwargs)
    exclude = options.pop("exclude", {})
    tolerances = options.pop("tolerances", None)

    def run() -> None:
        if request.param in exclude:
            pytest.skip(exclude[request.param])
        device = _device(marker.args, options)
        result = verify(request.param, device, _tolerances(device.tolerances if tolerances is None else tolerances))
        if result.verdict == "not applicable":
            pytest.skip(result.text)
        if result.verdict == "fail":
            pytest.fail(f"{result.asks}\n{result.text}", pytrace=False)

    return run


def _device(arguments: tuple[Any, ...], settings: dict[str, Any]) -> Backend:
    if len(arguments) != 1:
        raise pytest.UsageError(f"the marker needs one device, got {len(arguments)}; use {USE}")
    name = arguments[0]
    backend: Backend = name(**settings) if callable(name) else create_backend(name, **settings)
    return backend


def _tolerances(chosen: str | Tolerances) -> Tolerances:
    if isinstance(chosen, Tolerances):
        return chosen
    if chosen not in TOLERANCES:
        raise pytest.UsageError(f"tolerances={chosen!r} are not known; choose one of {', '.join(TOLERANCES)}")
    return TOLERANCES[chosen]
