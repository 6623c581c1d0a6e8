"""Networks that other programs train and export, read here, where the programs are installed."""

import sys

import pytest

from hxtrain.exchange.simulators import SIMULATORS
from hxtrain.experiments import nir as verb
from hxtrain.experiments.benchmark.exchange import PeersConfig, digits, imported, selected

pytest.importorskip("nir")
SAMPLES = 200


@pytest.mark.parametrize(
    "name",
    [f"{export.simulator} {export.neurons}" for export in selected(["norse", "snnTorch", "SpikingJelly"])],
)
def test_a_network_of_another_program_has_the_same_spikes_here(name: str) -> None:
    export = next(export for export in selected([]) if f"{export.simulator} {export.neurons}" == name)
    if SIMULATORS[export.simulator].absence:
        pytest.skip(f"{export.simulator} is {SIMULATORS[export.simulator].absence}")
    train, test = (part._replace(spikes=part.spikes[:, :SAMPLES], labels=part.labels[:SAMPLES]) for part in digits(0))
    result = imported(export, train, test, epochs=1, seed=0)
    assert result.is_expected, result
    assert result.spikes > 0.3
    if export.is_exact:
        assert result.accuracy_here == result.accuracy
    else:
        assert "IF) has neurons that leak with inf s" in result.refusal
        assert 0.9 < result.equal < 1


def test_programs_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name, simulator in SIMULATORS.items():
        monkeypatch.setitem(SIMULATORS, name, simulator._replace(packages=("package_that_is_nowhere",)))
    monkeypatch.setattr(sys, "argv", ["hxtrain nir", "peers"])
    assert verb.main() == 0
    text = capsys.readouterr().out
    assert text.count("not installed: package_that_is_nowhere") == len(SIMULATORS)
    monkeypatch.setattr(sys, "argv", ["hxtrain nir", "agree"])
    assert verb.main() == 2
    assert "none of norse, snnTorch, SpikingJelly is installed" in capsys.readouterr().err


def test_settings_of_a_comparison_are_checked() -> None:
    with pytest.raises(ValueError, match="epochs=0"):
        PeersConfig(epochs=0)
    with pytest.raises(ValueError, match="brian2 is not known; choose of snnTorch"):
        selected(["brian2"])
