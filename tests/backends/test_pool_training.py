"""A run on a chip of a pool: as on that chip in the process, and resumed on the same one."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from pool_bench import await_states, brokering
from remote_bench import PATIENT, serving
from test_remote_training import train

from hxtrain.backends import create_backend
from hxtrain.backends.addresses import pool_address
from hxtrain.execution.config import BackendConfig, ChipConfig

CHIPS = ("W66F3", "W62F0")


def test_a_run_in_a_pool_is_resumed_on_the_chip_that_it_had(tmp_path: Path) -> None:
    anyone = ChipConfig(name="any", preset="uncalibrated")
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(create_backend("emulator", chip=name, preset="uncalibrated"))) for name in CHIPS
        ]
        broker = stack.enter_context(brokering([server.address for server in servers], tmp_path))
        await_states(broker, {"free": 2})
        pooled = BackendConfig("remote", {"address": pool_address(broker.address), **PATIENT})
        first = train(tmp_path / "run", pooled, anyone)
        resumed = train(tmp_path / "run", pooled, anyone, epochs=2, resume=True)
        second = train(tmp_path / "other", pooled, anyone)
    assert resumed["chip"] == first["chip"]
    assert second["chip"] != first["chip"], "the chip that has been free for the longest time"
    alone = train(tmp_path / "alone", BackendConfig(), ChipConfig(first["chip"], preset="uncalibrated"), epochs=2)
    weights, pooled_weights = (np.load(tmp_path / name / "weights.npz") for name in ("alone", "run"))
    assert all(np.array_equal(weights[name], pooled_weights[name]) for name in weights.files)
    assert (alone["chip_hash"], alone["test_accuracy"]) == (resumed["chip_hash"], resumed["test_accuracy"])


def test_a_run_is_not_resumed_in_a_pool_without_its_chip(tmp_path: Path) -> None:
    anyone = ChipConfig(name="any", preset="uncalibrated")
    for name in CHIPS:
        with (
            serving(create_backend("emulator", chip=name, preset="uncalibrated")) as server,
            brokering([server.address], tmp_path, state=str(tmp_path / f"{name}.json")) as broker,
        ):
            await_states(broker, {"free": 1})
            pooled = BackendConfig("remote", {"address": pool_address(broker.address), **PATIENT})
            if name == CHIPS[0]:
                train(tmp_path / "run", pooled, anyone)
                continue
            with pytest.raises(ValueError, match=f"the pool has no chip with chip {CHIPS[0]}, preset uncalibrated"):
                train(tmp_path / "run", pooled, anyone, epochs=2, resume=True)


def test_settings_of_a_chip_in_a_pool() -> None:
    pooled = BackendConfig("remote", {"address": "pool://lab:5554"})
    assert pooled.takes_chip()
    with pytest.raises(ValueError, match=r"chip.seed=3 is a setting of the chip's server"):
        pooled.create(ChipConfig(seed=3))
    with pytest.raises(ValueError, match=r"chip.name=any is for a pool"):
        BackendConfig().create(ChipConfig("any"))
