"""XOR of spike times with the published network, in an ideal model: plain descent solves it, and RProp sooner."""

import continuous
import published_xor
import pytest
import torch


def test_first_spikes_are_those_of_continuous_time() -> None:
    generator = torch.Generator().manual_seed(1)
    times = 2e-5 * torch.rand(12, generator=generator).sort().values
    events = [(time, unit) for unit, time in enumerate(times.tolist())]
    weight = torch.rand(6, 12, generator=generator, dtype=torch.float64) - 0.4
    spikes = published_xor.crossings(weight, continuous.as_spikes([events], 12))
    trains = continuous.layer(weight.numpy(), events, published_xor.FIXED, published_xor.END)
    first = {unit: time for time, unit in reversed(trains)}
    assert 3 <= len(first) < 6
    assert dict(zip(spikes.unit.tolist(), spikes.time.tolist(), strict=True)) == pytest.approx(first, rel=1e-9)


@pytest.mark.parametrize("seed", [5, 6])
def test_plain_descent_solves_xor_within_the_published_epochs_and_rprop_needs_fewer(seed: int) -> None:
    plain = published_xor.epochs_of("sgd", seed)
    assert plain is not None
    resilient = published_xor.epochs_of("rprop", seed)
    assert resilient is not None
    assert resilient < plain
