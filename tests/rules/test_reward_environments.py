"""Environments: what the network sees, what actions earn, and the flight of the ball."""

from typing import Any

import pytest
import torch
from torch import Tensor

import hxtrain as hx
from hxtrain.environments import ENVIRONMENTS, Credit, Environment, Pong

WINDOW = 167e-6


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def started(environment: Any) -> Any:
    environment.reset(source())
    return environment


def counts_at(positions: Tensor, size: int) -> Tensor:
    return torch.nn.functional.one_hot(positions, size).float()


def test_the_ball_drives_its_row_and_its_neighbours_at_the_published_rates() -> None:
    pong = started(Pong(noise_interval=1e-6))
    spikes = pong.observe(WINDOW, source(), None)
    of_ball = spikes.unit[spikes.sample == 50].bincount(minlength=200)
    assert of_ball[47:54].tolist() == [4, 20, 32, 40, 32, 20, 4]
    assert int(of_ball.sum()) == 152
    assert spikes.unit[spikes.sample == 0].unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("epoch", "deviation"), [(0, 15.0), (250, 9.5), (500, 4.0), (900, 4.0)])
def test_the_noise_declines_and_is_equivalent_to_the_published_weights(epoch: int, deviation: float) -> None:
    pong = started(Pong(noise_interval=1e-7))
    spikes = pong.observe(WINDOW, source(), epoch)
    noise = spikes.unit[spikes.unit >= 100]
    mean_weight = len(noise) / 1e4 * 63 * 1e-7 / WINDOW
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = deviation * (normal.log_prob(torch.tensor(0.14)).exp() - 0.14 * normal.cdf(torch.tensor(-0.14)))
    assert mean_weight == pytest.approx(float(expected), rel=0.03)
    assert spikes.time.max() <= WINDOW


def test_spikes_are_rewarded_by_their_distance_from_the_ball() -> None:
    pong = started(Pong())
    table = pong.table()
    assert table[50, 42:59].tolist() == [-1, -1, 0, 1, 1, 2, 2, 3, 4, 3, 2, 2, 1, 1, 0, -1, -1]
    counts = torch.zeros(2, 100)
    counts[:, 50] = 10
    counts[1, 90] = 30
    assert pong(counts, torch.tensor([50, 50])).tolist() == pytest.approx([0.4, 0.1])


def test_the_paddle_goes_where_most_spikes_are_and_a_silent_network_misses() -> None:
    pong = started(Pong())
    counts = counts_at((torch.arange(100) + 1).clamp(max=99), 100)
    counts[3] = 0
    outcome = pong.act(counts, source())
    assert outcome.actions[:5].tolist() == [1, 2, 3, -1, 5]
    assert outcome.scores[:5].tolist() == [3, 3, 3, -1, 3]
    assert int(outcome.misses.sum()) == 1


def game(pong: Pong, follow: bool) -> tuple[int, int, Tensor]:
    hits = misses = 0
    views = []
    for move in range(pong.moves):
        target = pong.state() if follow else torch.zeros_like(pong.state())
        outcome = pong.act(counts_at(target, pong.positions), source(move))
        hits += int(outcome.hits.sum())
        misses += int(outcome.misses.sum())
        views.append(pong.view())
    return hits, misses, torch.stack(views)


def test_who_follows_the_ball_never_misses_and_the_ball_stays_in_the_court() -> None:
    hits, misses, views = game(started(Pong(sweep=False, games=30, game_moves=300)), follow=True)
    assert misses == 0
    assert hits == pytest.approx(30 * 300 / 80, abs=31)
    assert 0 <= float(views[..., :2].min()) <= float(views[..., :2].max()) <= 1


def test_a_paddle_at_rest_misses_most_balls_which_are_served_anew() -> None:
    hits, misses, views = game(started(Pong(sweep=False, games=30, game_moves=300)), follow=False)
    assert misses > 5 * hits > 0
    assert float(views[..., 0].max()) <= 1


def test_a_slow_paddle_needs_time() -> None:
    pong = started(Pong(paddle_speed=2.0))
    start = pong.view()[:, 2]
    pong.act(counts_at(torch.full((100,), 99), 100), source())
    assert torch.allclose(pong.view()[:, 2] - start, torch.full((100,), 0.02, dtype=torch.float64))


@pytest.mark.parametrize("environment", [Pong(sweep=False, games=4), Credit(trials=2)])
def test_restored_episodes_go_on_bit_equally(environment: Environment) -> None:
    started(environment)
    first = environment.observe(1e-3, source(1), 0)
    copy = type(environment)(**{name: getattr(environment, name) for name in environment.__dataclass_fields__})
    copy.load_state_dict(environment.state_dict())
    counts = torch.rand(first.samples, environment.outputs, generator=source(2))
    for episodes in (environment, copy):
        episodes.act(counts, source(3))
    assert torch.equal(environment.view(), copy.view())
    assert torch.equal(environment.observe(1e-3, source(4), 1).time, copy.observe(1e-3, source(4), 1).time)


def test_credit_is_given_late_for_spikes_soon_after_input_0() -> None:
    credit = started(Credit(trials=2))
    credit.observe(5e-3, source(), 0)
    inputs = hx.Spikes.from_events([0, 0, 1], [0, 1, 0], [100e-6, 300e-6, 500e-6], 2, 54)
    outputs = hx.Spikes.from_events([0, 0, 0, 1, 1], [0] * 5, [100e-6, 105e-6, 305e-6, 111e-6, 510e-6], 2, 1)
    rewards = credit.rewards(inputs, outputs, credit.state())
    assert rewards.sample.tolist() == [0, 1]
    delay = rewards.time - torch.tensor([105e-6, 510e-6])
    assert bool(((delay >= 199e-6) & (delay <= 601e-6)).all())
    assert rewards.value.tolist() == [0.5, 0.5]


def test_drivers_fire_together() -> None:
    spikes = started(Credit(trials=2, drivers=3)).observe(5e-3, source(), 0)
    trains = [spikes.time[(spikes.unit == unit) & (spikes.sample == 1)].sort().values for unit in (50, 51, 52)]
    assert len(trains[0]) > 5
    assert all(torch.equal(trains[0], train) for train in trains)


def test_rank_and_distance_of_the_credited_weight() -> None:
    weights = torch.zeros(1, 54)
    weights[0, 1:50:2] = 1.0
    weights[0, 0] = 3.0
    summary = Credit().summary(weights)
    assert summary["rank"] == 1
    assert summary["z"] == pytest.approx((3 - 25 / 49) / float(weights[0, 1:50].std()), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "text"),
    [
        (Pong, {"positions": 0}, "environment.positions=0 must be at least 1"),
        (Pong, {"interval": 0.0}, "environment.interval=0.0 must be positive and finite"),
        (Pong, {"rewards": [1.0, -1.0]}, "must be above the reward of a miss, environment.miss=-1.0"),
        (Pong, {"spread": [1.0, 1.5]}, "environment.spread=.1.0, 1.5. must be rates in 0 < x <= 1"),
        (Pong, {"ball_speed": 1.0}, "environment.ball_speed=1.0 must be below 1"),
        (Pong, {"paddle_speed": 0.0}, "environment.paddle_speed=0.0 must be positive"),
        (Credit, {"trials": 0}, "environment.trials=0 must be at least 1"),
        (Credit, {"shortest_delay": 1.0}, "environment.shortest_delay=1.0 s must be in 0..longest_delay"),
    ],
)
def test_bad_settings_are_refused(kind: type, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        kind(**settings)


def test_environments_have_names() -> None:
    assert {"pong", "credit"} <= set(ENVIRONMENTS.names())
