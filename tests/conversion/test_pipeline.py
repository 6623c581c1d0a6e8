"""The order of the passes, and what the reports say of each."""

import pytest
import torch
from networks import convolutional, perceptron, samples

from hxtrain.conversion import PassConfig, Probe, Simulation, apply_passes, from_sequential, passes, table


def test_exact_passes_have_no_error_and_removals_have_one() -> None:
    network = from_sequential(convolutional(), (8, 8))
    x = samples(40, 8, 8)
    labels = network.output(x).argmax(1)
    probe = Probe(x, labels, Simulation(steps=50))
    converted, reports = apply_passes(network, passes(PassConfig(pooling="average", normalisation="data")), x, probe)
    errors = {report.name: report.error for report in reports}
    assert list(errors) == ["original", "fold batch norm", "average pooling", "merge linear", "data norm"]
    assert errors["original"] == 0
    assert errors["fold batch norm"] < 1e-9
    assert errors["average pooling"] > 0.01
    assert errors["data norm"] == pytest.approx(errors["average pooling"], rel=1e-9)
    assert reports[0].accuracy == 1
    assert reports[0].spiking_accuracy is None  # batch normalisation has no spiking neuron
    assert reports[-1].spiking_accuracy == pytest.approx(reports[-1].accuracy, abs=0.1)
    assert [report.layers for report in reports] == [8, 6, 6, 4, 4]
    assert len(converted.layers) == 4
    lines = table(reports).splitlines()
    assert len(lines) == 6
    assert lines[1].split()[:2] == ["original", "8"]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (PassConfig(bias="remove", inputs="absolute", normalisation="model"),
         ["remove bias", "absolute inputs", "merge linear", "model norm"]),
        (PassConfig(bias="encode", inputs="pairs", linear="pairs", normalisation="spikes"),
         ["pairs inputs", "signed neurons", "spike norm", "encode bias"]),
        (PassConfig(normalisation="none"), ["merge linear"]),
    ],
)  # fmt: skip
def test_settings_choose_the_passes(config: PassConfig, names: list[str]) -> None:
    network = from_sequential(perceptron(6, 8, 7, 3), (6,))
    x = samples(20, 6)
    converted, reports = apply_passes(network, passes(config), x)
    assert [report.name for report in reports] == ["original", "fold batch norm", *names]
    assert (reports[-1].error < 1e-9) == (config.bias != "remove")
    assert torch.isfinite(converted.output(x)).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inputs", "half"),
        ("bias", "drop"),
        ("pooling", "max"),
        ("linear", "no"),
        ("normalisation", "z"),
        ("percentile", 0.0),
    ],
)
def test_settings_are_checked(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"\.{name}="):
        PassConfig(**{name: value})  # type: ignore[arg-type]
