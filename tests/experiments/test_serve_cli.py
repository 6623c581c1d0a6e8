"""`hxtrain-serve`, called from the command line."""

import signal
import subprocess
from pathlib import Path

import pytest
from commands import SCRIPTS, call
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hxtrain.backends.remote import RemoteBackend
from hxtrain.commands.serve import ServeConfig
from hxtrain.experiments.schema import register


def settings(*overrides: str) -> ServeConfig:
    register()
    with initialize_config_module("hxtrain.experiments.conf", version_base="1.3"):
        config = OmegaConf.to_object(compose("serve", overrides=list(overrides)))
    assert isinstance(config, ServeConfig)
    return config


def test_serve_with_keys_until_sigterm(tmp_path: Path) -> None:
    key_process = call("hxtrain-serve", "keys", "ring", cwd=tmp_path)
    assert key_process.returncode == 0, key_process.stderr
    assert "ring/client.key_secret" in key_process.stdout.split()
    words = [SCRIPTS / "hxtrain-serve", "backend=reference", "bind=tcp://127.0.0.1:*", "keys=ring", "hydra.run.dir=run"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("serving reference ideal (none) at tcp://127.0.0.1:")
        address = first.split()[-1]
        keys = str(tmp_path / "ring")
        with RemoteBackend(address, keys=keys) as backend:
            assert backend.identity["chip"] == "ideal"
            status = call("hxtrain-serve", "status", f"address={address}", "keys=ring", cwd=tmp_path)
        metrics = call("hxtrain-serve", "metrics", f"address={address}", "keys=ring", cwd=tmp_path)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate()
    finally:
        process.kill()
        process.communicate()
    assert status.returncode == 0, status.stderr
    assert "client (" in status.stdout
    assert "hxtrain_server_leases 1\n" in metrics.stdout
    assert (process.returncode, output.splitlines()[-1]) == (0, "closed"), errors


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["bind=tcp://*:5555", "hydra.run.dir=run"], 2, "Make keys with `hxtrain serve keys DIR`"),
        (["status"], 2, "address=tcp://... is missing"),
        (["status", "address=tcp://127.0.0.1:1", "patience=0.2"], 3, "nothing listens there"),
        (["metrics", "adress=x", "address=tcp://127.0.0.1:1"], 2, "adress"),
    ],
)
def test_errors_are_readable(words: list[str], status: int, text: str, tmp_path: Path) -> None:
    process = call("hxtrain-serve", *words, cwd=tmp_path)
    assert process.returncode == status, process.stderr
    assert text in process.stderr
    assert "Traceback" not in process.stderr


def test_settings() -> None:
    config = settings("chip=W62F0", "bind=ipc:///tmp/chip.sock", "lease_time=5")
    assert (config.chip.name, config.bind, config.lease_time) == ("W62F0", "ipc:///tmp/chip.sock", 5.0)
    for override, text in (
        ("backend=software", "software is no device"),
        ("backend.retries=2", "backend.retries is the client's choice"),
        ("max_rate=0", "max_rate=0.0 must be positive"),
    ):
        with pytest.raises(ValueError, match=text):
            settings(override)
