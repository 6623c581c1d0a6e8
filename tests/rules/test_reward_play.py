"""`hxtrain play`: a network learns Pong on a device; runs stop, fail and go on without loss."""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pytest_mock import MockerFixture

import hxtrain as hx
from hxtrain.backends import DeviceError
from hxtrain.backends.emulated import EmulatorBackend
from hxtrain.commands.evaluate import EvaluateConfig, evaluate_checkpoint
from hxtrain.commands.play import PlayConfig, play
from hxtrain.environments import Credit, Environment, Pong
from hxtrain.execution.config import BackendConfig, ChipConfig
from hxtrain.network import NetworkConfig
from hxtrain.rules import RULES, Adam, Backprop, Batch, RuleError, Step
from hxtrain.rules.reward import RewardSTDP
from hxtrain.runs.checkpoint import CheckpointError, load_checkpoint
from hxtrain.runs.progress import Progress
from hxtrain.training.config import PlayerConfig
from hxtrain.training.loop import TrainingInterrupt
from hxtrain.training.network_loop import DeviceLostError
from hxtrain.training.play import Player, PlayTask
from hxtrain.view.config import ViewConfig

COURT: dict[str, Any] = {
    "positions": 20,
    "spread": [1.0, 0.5],
    "rewards": [4.0, 2.0, 0.0],
    "noise_epochs": 120,
    "noise_start": 20.0,
    "reward_unit": 20.0,
}


def small(epochs: int = 6, **changes: Any) -> PlayConfig:
    values: dict[str, Any] = {
        "environment": Pong(**COURT),
        "network": NetworkConfig(hidden=[], output="spikes", init_gain=0.0, steps=60, traces="spikes_only"),
        "rule": RewardSTDP(homeostasis=0.4, settling=2),
        "trainer": PlayerConfig(
            epochs=epochs, checkpoint_epochs=3, progress=False, plots=False, games=4, game_moves=60
        ),
        **changes,
    }
    return PlayConfig(**values)


def quiet() -> Progress:
    return Progress(False)


def state(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = load_checkpoint(folder / "checkpoint.pt")
    return content


def test_a_chip_learns_pong(tmp_path: Path) -> None:
    config = small(120, chip=ChipConfig(preset="uncalibrated"))
    config = replace(config, trainer=replace(config.trainer, scored_epochs=20, checkpoint_epochs=60, plots=True))
    result = play(config, tmp_path, "hxtrain play", quiet())
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, 121))
    assert sum(record["score"] for record in records[:20]) / 20 < 0.3
    assert result["score"] > 2.0
    assert result["hits"] > 5 * result["misses"]
    assert json.loads((tmp_path / "result.json").read_text())["score"] == result["score"]
    files = {path.name for path in (tmp_path / "plots").iterdir()}
    assert files == {"rewards.png", "weights.png", "games.png", "game.gif"}


def weights(folder: Path) -> torch.Tensor:
    weight: torch.Tensor = state(folder)["model"]["stack.0.weight"]
    return weight


@pytest.mark.parametrize("sweep", [True, False])
def test_an_interrupted_run_goes_on_bit_equally(tmp_path: Path, mocker: MockerFixture, sweep: bool) -> None:
    environment = Pong(**COURT, sweep=sweep, games=5, game_moves=4)
    config = small(environment=environment)
    expected = play(config, tmp_path / "whole", "", quiet())
    moves = 0
    healthy = Player._move

    def interrupted(player: Player) -> None:
        nonlocal moves
        moves += 1
        if moves == (4 if sweep else 15):
            os.kill(os.getpid(), signal.SIGINT)
        healthy(player)

    mocker.patch.object(Player, "_move", interrupted)
    with pytest.raises(TrainingInterrupt, match="interrupted after move"):
        play(config, tmp_path / "parts", "", quiet())
    content = state(tmp_path / "parts")
    assert content["epoch"] * environment.moves + content["step"] == moves
    trainer = replace(config.trainer, resume=True)
    watched = replace(config, trainer=trainer, live=True, view=ViewConfig(serve=False))
    resumed = play(watched, tmp_path / "parts", "", quiet())
    snapshot = json.loads((tmp_path / "parts/live.json").read_text())
    assert snapshot["steps"]["score"]
    assert snapshot["sample"]["label"] is None
    assert [train["name"] for train in snapshot["sample"]["trains"]] == ["input", "layer0"]
    assert snapshot["chip"]["populations"] == ["layer0"]
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    for name in ("score", "hits", "misses", "score_without_noise", "game_score", "epochs"):
        assert resumed[name] == expected[name]


def test_a_failed_device_costs_the_last_move_alone(tmp_path: Path, mocker: MockerFixture) -> None:
    config = small(backend=BackendConfig(retries=0))
    expected = play(config, tmp_path / "whole", "", quiet())
    healthy = Player._observed
    moves = 0

    def failing(*arguments: Any) -> hx.Spikes:
        nonlocal moves
        moves += 1
        if moves == 5:
            raise DeviceError("the link is down")
        return healthy(*arguments)

    patch = mocker.patch.object(Player, "_observed", failing)
    with pytest.raises(DeviceLostError, match=r"the link is down\. The state before the failed move is saved"):
        play(config, tmp_path / "parts", "", quiet())
    assert state(tmp_path / "parts")["epoch"] == 4
    mocker.stop(patch)
    mocker.patch.object(Player, "_observed", healthy)
    resumed = play(replace(config, trainer=replace(config.trainer, resume=True)), tmp_path / "parts", "", quiet())
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert resumed["game_score"] == expected["game_score"]


def test_other_settings_and_a_second_run_in_the_folder_are_refused(tmp_path: Path) -> None:
    config = small(2)
    play(config, tmp_path, "", quiet())
    with pytest.raises(CheckpointError, match="holds a run already"):
        play(config, tmp_path, "", quiet())
    changed = replace(config, rule=RewardSTDP(settling=3), trainer=replace(config.trainer, resume=True))
    with pytest.raises(CheckpointError, match="settling"):
        play(changed, tmp_path, "", quiet())
    with pytest.raises(CheckpointError, match=r"the run directory .* cannot be made"):
        play(config, tmp_path / "config.yaml", "", quiet())


def test_the_weakest_neurons_are_silenced_and_stay_so_in_a_resumed_run(tmp_path: Path) -> None:
    config = small(4, chip=ChipConfig(preset="uncalibrated"))
    config = replace(config, trainer=replace(config.trainer, silenced=0.2, schedule="exponential", epochs=2))
    result = play(config, tmp_path, "", quiet())
    assert result["silenced_neurons"] == 4
    mask = state(tmp_path)["mask"]
    longer = replace(config, trainer=replace(config.trainer, epochs=4, resume=True))
    assert play(longer, tmp_path, "", quiet())["silenced_neurons"] == 4
    assert torch.equal(state(tmp_path)["mask"], mask)
    plastic = weights(tmp_path)[:, :20]
    assert float(plastic[mask == 0].abs().max()) == 0 < float(plastic[mask == 1].max())


class Boastful(RewardSTDP):
    """Rule with a metric and a warning."""

    metrics: ClassVar[tuple[str, ...]] = ("boasts",)

    def step(self, net: hx.Network, batch: Batch) -> Step:
        return super().step(net, batch)._replace(metrics={"boasts": 2.0})

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        return [f"there are {metrics['boasts']:g} boasts in each trial"]


def test_metrics_and_warnings_of_rule_and_optimizer_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for names in (RULES._added, RULES._loaded):
        monkeypatch.setitem(names, "boastful", Boastful)
    config = small(3, backend=BackendConfig("software"), rule=Boastful(settling=2), optimizer=Adam())
    result = play(config, tmp_path, "", quiet())
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["boasts"] for record in records] == [2.0] * 3
    assert [note.partition(" ")[2] for note in result["notes"]] == [
        "optimizer=adam chooses steps of its own, so that the weights do not change as rule=boastful says: leave it "
        "out, or choose optimizer=sgd",
        "there are 2 boasts in each trial",
    ]


def test_noise_weights_are_not_learned(tmp_path: Path) -> None:
    play(small(3, backend=BackendConfig("software")), tmp_path, "", quiet())
    assert torch.equal(weights(tmp_path)[:, 20:], 0.25 * torch.eye(20))


def test_fixed_weights_beyond_the_range_of_the_device_are_named() -> None:
    net = hx.Network(hx.Linear(40, 20), hx.LIF(20), steps=60, traces="spikes_only")
    with hx.open_device("emulator", preset="ideal") as device:
        net.attach(device)
        limit = net.weight_limits()[0]
        assert limit is not None
        for weight in (0.9 * limit, 2 * limit):
            task = PlayTask(net, Pong(**COURT, noise_weight=weight), RewardSTDP())
            player = Player(task, PlayerConfig(), 0, "nowhere", {}, quiet())
            expected = weight > limit
            texts = [f"{2 * limit:.4g} exceed the largest one of the device, {limit:.4g}, and are clipped to it"]
            assert [any(text in remark for text in texts) for remark in player.progress.remarks] == [True] * expected


def test_late_rewards_find_their_synapse_in_software(tmp_path: Path) -> None:
    rule = RewardSTDP(
        pairing="all_to_all", a_minus=1.05, tau_plus=2e-5, tau_minus=2e-5, tau_eligibility=1e-3, tau_baseline=2e-2
    )
    config = small(
        10,
        backend=BackendConfig("software"),
        environment=Credit(),
        rule=rule,
        network=NetworkConfig(hidden=[], output="spikes", init_gain=0.0, steps=3500, traces="spikes_only"),
        constraint={},
        trainer=PlayerConfig(
            epochs=10, learning_rate=1e-4, schedule="exponential", learning_rate_decay=1.0, progress=False
        ),
    )
    result = play(replace(config, trainer=replace(config.trainer, plots=False)), tmp_path, "", quiet())
    assert result["rank"] == 1
    assert result["z"] >= 4


def test_rules_without_reward_and_networks_of_other_sizes_are_refused() -> None:
    pong = Pong(**COURT)
    net = hx.Network(hx.Linear(40, 20), hx.LIF(20))
    with pytest.raises(RuleError, match="rule=backprop follows no reward; choose one that does, such as rule=rstdp"):
        PlayTask(net, pong, Backprop())
    with pytest.raises(ValueError, match="the network has 40 inputs and 20 outputs, the environment 200 and 100"):
        PlayTask(net, Pong(), RewardSTDP())


def test_episodes_run_as_one_batch(tmp_path: Path, mocker: MockerFixture) -> None:
    batches = mocker.spy(EmulatorBackend, "run_all")
    play(small(1), tmp_path, "", quiet())
    assert batches.call_count <= 1 + 1 + 60


def test_an_environment_without_reward_is_refused() -> None:
    methods = {name: vars(Pong)[name] for name in Environment.__abstractmethods__}
    dull = type("Dull", (Environment,), {**methods, "positions": 100})
    with pytest.raises(TypeError, match="Dull gives no reward; define __call__"):
        PlayTask(hx.Network(hx.Linear(200, 100), hx.LIF(100)), dull(), RewardSTDP())


def test_a_chip_learns_from_games(tmp_path: Path) -> None:
    court = {**COURT, "noise_epochs": 20}
    config = small(20, environment=Pong(**court, sweep=False, games=20, game_moves=40))
    result = play(replace(config, trainer=replace(config.trainer, scored_epochs=4)), tmp_path, "", quiet())
    assert result["score"] > 2.0


def test_evaluate_says_what_a_run_of_play_is(tmp_path: Path) -> None:
    play(small(1), tmp_path, "", quiet())
    config = EvaluateConfig(checkpoint=str(tmp_path / "checkpoint.pt"))
    with pytest.raises(CheckpointError, match="is of a run of hxtrain play, which has no test samples"):
        evaluate_checkpoint(config, tmp_path / "evaluated", "", quiet())
